"""WADO-URI: one instance by query parameters, as DICOM or as a picture (PS3.18 chapter 9)."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import imagecodecs
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless
from tests.dicomweb.conftest import Web, new_settings, running
from tests.samples import ct_instance, part10_bytes, sr_report, us_multiframe

from bfr_core.pixels import PixelPool
from bfr_core.postgres import Cluster
from bfr_dicomweb.wado_uri import PARAMETERS, rendered_query

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = "/archives/ARCHIVE/dicomweb"
PATHS = ("/dicomweb", "/dicomweb/", "/dicomweb/wado", ROOT, f"{ROOT}/", f"{ROOT}/wado")


@dataclass(frozen=True)
class Shelf:
    """What the server of this module holds."""

    web: Web
    datasets: dict[str, Dataset]
    files: dict[str, bytes]

    async def get(
        self, name: str, path: str = f"{ROOT}/wado", accept: str = "*/*", **query: str
    ) -> httpx.Response:
        one = self.datasets[name]
        params = {
            "requestType": "WADO",
            "studyUID": one.StudyInstanceUID,
            "seriesUID": one.SeriesInstanceUID,
            "objectUID": one.SOPInstanceUID,
            **query,
        }
        params = {key: value for key, value in params.items() if value}
        return await self.web.client.get(path, params=params, headers={"Accept": accept})


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shelf(
    cluster: Cluster, pixels: PixelPool, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shelf]:
    datasets = {
        "ct": ct_instance(),
        "jpeg2000": ct_instance(transfer_syntax_uid=JPEG2000Lossless),
        "ultrasound": us_multiframe(),
        "report": sr_report(),
    }
    files = {name: part10_bytes(one) for name, one in datasets.items()}
    with new_settings(cluster, tmp_path_factory.mktemp("shelf")) as settings:
        async with running(settings, pixels) as web:
            assert (await web.stow(*files.values())).status_code == 200
            yield Shelf(web, datasets, files)


@pytest.mark.conforms("PS3.18 §9.4", "contentType=application/dicom gives the instance as stored")
@pytest.mark.parametrize("path", PATHS)
async def test_an_instance_comes_as_dicom_at_every_root(shelf: Shelf, path: str) -> None:
    answer = await shelf.get("ct", path, contentType="application/dicom")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/dicom")
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.content == shelf.files["ct"]


@pytest.mark.conforms("PS3.18 §9.4.2.4", "transferSyntax says in which one the instance comes")
async def test_a_transfer_syntax_is_given_or_refused(shelf: Shelf) -> None:
    dicom = {"contentType": "application/dicom"}
    answer = await shelf.get("jpeg2000", transferSyntax=JPEG2000Lossless, **dicom)
    assert answer.content == shelf.files["jpeg2000"]
    answer = await shelf.get("jpeg2000", transferSyntax="1.2.3.4", **dicom)
    assert answer.status_code == 406
    answer = await shelf.get("ct", transferSyntax=ExplicitVRLittleEndian, **dicom)
    assert answer.content == shelf.files["ct"]
    assert (await shelf.get("ct", transferSyntax="none", **dicom)).status_code == 400


@pytest.mark.conforms("PS3.18 §9.3", "Without contentType an image is a JPEG")
async def test_an_image_is_a_jpeg_unless_something_else_is_asked_for(shelf: Shelf) -> None:
    answer = await shelf.get("ct")
    assert answer.headers["content-type"] == "image/jpeg"
    assert imagecodecs.jpeg_decode(answer.content).shape[:2] == (64, 64)
    for chosen in (
        await shelf.get("ct", contentType="image/png"),
        await shelf.get("ct", contentType="image/png, image/jpeg;q=0.5"),
        await shelf.get("ct", accept="image/png"),
        await shelf.get("ct", accept="application/dicom", contentType="image/png"),
    ):
        assert chosen.headers["content-type"] == "image/png"
    answer = await shelf.get("ct", accept="application/dicom")
    assert answer.content == shelf.files["ct"]
    assert (await shelf.get("ct", contentType="audio/ogg")).status_code == 406


@pytest.mark.conforms("PS3.18 §9.5.1.2", "Window, size, frame and quality are those of the query")
async def test_rendering_parameters_are_those_of_wado_rs(shelf: Shelf) -> None:
    one = shelf.datasets["ct"]
    rendered = (
        f"{ROOT}/studies/{one.StudyInstanceUID}/series/{one.SeriesInstanceUID}"
        f"/instances/{one.SOPInstanceUID}/rendered"
    )
    params = {"window": "100,50,linear", "viewport": "20,10"}
    expected = await shelf.web.client.get(rendered, params=params, headers={"Accept": "image/png"})
    assert expected.status_code == 200
    png = {"contentType": "image/png"}
    size = {"rows": "10", "columns": "20"}
    answer = await shelf.get("ct", windowCenter="100", windowWidth="50", **size, **png)
    assert answer.content == expected.content
    plain = await shelf.get("ct", **size, **png)
    assert plain.status_code == 200
    assert plain.content != expected.content
    small, large = [await shelf.get("ct", imageQuality=quality) for quality in ("10", "95")]
    assert len(small.content) < len(large.content)


async def test_a_frame_is_chosen_by_its_number(shelf: Shelf) -> None:
    frames = [
        await shelf.get("ultrasound", frameNumber=number, contentType="image/png")
        for number in ("1", "2")
    ]
    assert all(frame.status_code == 200 for frame in frames)
    assert frames[0].content != frames[1].content
    assert (await shelf.get("ultrasound", frameNumber="1")).status_code == 200
    assert (await shelf.get("ultrasound", frameNumber="99")).status_code == 404


@pytest.mark.conforms("PS3.18 §9.4.2", "What is missing or malformed is a 400 that names it")
@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"requestType": ""}, "requestType"),
        ({"requestType": "wado"}, "requestType"),
        ({"studyUID": ""}, "studyUID"),
        ({"seriesUID": ""}, "seriesUID"),
        ({"objectUID": ""}, "objectUID"),
        ({"objectUID": "one"}, "objectUID"),
        ({"rows": "5"}, "rows and columns"),
        ({"windowWidth": "5"}, "windowCenter and windowWidth"),
        ({"windowWidth": "5", "windowCenter": "x"}, "window"),
        ({"presentationUID": "1.2"}, "presentationSeriesUID"),
        ({"presentationUID": "1.2", "presentationSeriesUID": "1", "frameNumber": "1"}, "frame"),
        ({"frameNumber": "0"}, "frameNumber"),
        ({"frameNumber": "1,2"}, "frameNumber"),
        ({"imageQuality": "101"}, "quality"),
        ({"region": "0,0,1"}, "region"),
        ({"region": "0.5,0,0.4,1"}, "region"),
        ({"region": "0,0,1,nan"}, "region"),
        ({"anonymize": "no", "contentType": "application/dicom"}, "anonymize"),
        ({"transferSyntax": "1.2.840.10008.1.2"}, "transferSyntax"),
        ({"charset": "å;"}, "charset"),
        ({"contentType": "application/dicom;transfer-syntax=1.2"}, "contentType"),
        ({"contentType": "application/dicom,image/png"}, "contentType"),
        ({"contentType": "nothing"}, "contentType"),
        ({"contentType": "application/dicom", "windowCenter": "1", "windowWidth": "1"}, "window"),
        ({"contentType": "application/dicom", "rows": "1", "columns": "1"}, "columns"),
        ({"windowCentre": "1"}, "windowCentre"),
    ],
)
async def test_bad_parameters_are_named(shelf: Shelf, query: dict[str, str], named: str) -> None:
    answer = await shelf.get("ct", **query)
    assert answer.status_code == 400, answer.text
    assert named in answer.json()["detail"]


async def test_a_parameter_that_is_there_twice_is_refused(shelf: Shelf) -> None:
    answer = await shelf.web.client.get("/dicomweb/wado?requestType=WADO&requestType=WADO")
    assert (answer.status_code, answer.json()["detail"]) == (400, "requestType is there twice")


@pytest.mark.conforms("PS3.18 §9.4.2.3", "Anonymising is refused, not left out")
async def test_what_is_not_offered_is_refused(shelf: Shelf) -> None:
    answer = await shelf.get("ct", contentType="application/dicom", anonymize="yes")
    assert answer.status_code == 406


@pytest.mark.conforms("PS3.18 §9.4.3.1", "An instance that is not there is a 404")
async def test_what_is_not_there_is_a_404(shelf: Shelf) -> None:
    for content_type in ("application/dicom", "image/png"):
        answer = await shelf.get("ct", objectUID="1.2.3", contentType=content_type)
        assert answer.status_code == 404
        answer = await shelf.get("ct", "/archives/OTHER/dicomweb/wado", contentType=content_type)
        assert answer.status_code == 404


async def test_the_access_is_on_record_under_its_own_door(shelf: Shelf) -> None:
    await shelf.get("jpeg2000", contentType="image/png")
    await shelf.get("report", contentType="application/dicom")
    async with shelf.web.store.database.transaction() as tx:
        for name in ("jpeg2000", "report"):
            doors = await tx.tuples(
                "SELECT DISTINCT door FROM audit_record"
                " WHERE action = 'read' AND study_instance_uid = %(uid)s",
                uid=str(shelf.datasets[name].StudyInstanceUID),
            )
            assert doors == [("WADO-URI",)]


values = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["0.5", "1", "0,0,1,1", "image/png", "application/dicom", "1.2.3", "yes", ""]),
)


@settings(max_examples=60)
@given(query=st.dictionaries(st.sampled_from(sorted(PARAMETERS)), values, max_size=6))
async def test_no_query_is_a_fault_of_the_server(shelf: Shelf, query: dict[str, str]) -> None:
    answer = await shelf.get("ct", **query)
    assert answer.status_code in (200, 400, 404, 406), answer.text


@pytest.mark.conforms("PS3.18 §9.5.1.2.5", "A region is told to rendering in pixels of the image")
async def test_a_region_becomes_pixels_of_the_image() -> None:
    image = {"00280010": {"vr": "US", "Value": [100]}, "00280011": {"vr": "US", "Value": [200]}}
    query = {"region": "0.25,0.5,0.75,1.0"}
    assert rendered_query(query, image) == {"viewport": "100,50,50,50,100,50"}
    sized = {**query, "rows": "300", "columns": "400"}
    assert rendered_query(sized, image) == {"viewport": "400,300,50,50,100,50"}
    assert rendered_query({"imageAnnotation": "patient"}, {}) == {"annotation": "patient"}
