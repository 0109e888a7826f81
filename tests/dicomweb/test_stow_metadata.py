"""STOW-RS with metadata in JSON or XML and bulk data in parts (PS3.18 §10.5.2, Annex F)."""

import base64
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import JPEGBaseline8Bit, RLELossless
from tests.dicomweb.conftest import BOUNDARY, Web, new_settings, related, running
from tests.samples import ct_instance, part10_bytes, secondary_capture, us_multiframe
from tests.samples.images import new_uid

from bfr_core.pixels import PixelPool
from bfr_core.postgres import Cluster
from bfr_dicomweb.dicom_xml import write_xml

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = "/archives/ARCHIVE/dicomweb"
JSON, XML = "application/dicom+json", "application/dicom+xml"
OCTETS = "application/octet-stream"
PIXEL_DATA = "7FE00010"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def web(
    cluster: Cluster, pixels: PixelPool, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Web]:
    with new_settings(cluster, tmp_path_factory.mktemp("metadata")) as chosen:
        async with running(chosen, pixels) as shared:
            yield shared


def described(dataset: Dataset, **bulk: str) -> dict[str, Any]:
    """The data set in JSON, with these attributes as references to bulk data."""
    plain = Dataset()
    plain.update({element.tag: element for element in dataset if element.tag != 0x7FE00010})
    told: dict[str, Any] = plain.to_json_dict()
    for tag, uri in bulk.items():
        told[tag.removeprefix("_")] = {"vr": "OW", "BulkDataURI": uri}
    return told


def body(*parts: tuple[dict[str, str], bytes]) -> bytes:
    text = b""
    for headers, content in parts:
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        text += f"--{BOUNDARY}\r\n{fields}\r\n".encode() + content + b"\r\n"
    return text + f"--{BOUNDARY}--\r\n".encode()


async def store(
    web: Web, *parts: tuple[dict[str, str], bytes], kind: str = JSON, path: str = "/studies"
) -> httpx.Response:
    return await web.client.post(
        ROOT + path, content=body(*parts), headers={"Content-Type": related(kind=kind)}
    )


async def fetch(web: Web, dataset: Dataset) -> pydicom.FileDataset:
    path = (
        f"/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}"
        f"/instances/{dataset.SOPInstanceUID}"
    )
    answer = await web.client.get(ROOT + path, headers={"Accept": "application/dicom"})
    assert answer.status_code == 200, answer.text
    return pydicom.dcmread(io.BytesIO(answer.content))


def failures(answer: httpx.Response) -> list[dict[str, Any]]:
    return [
        {tag: element["Value"][0] for tag, element in item.items()}
        for sequence in ("00081198", "0008119A")
        for item in answer.json().get(sequence, {}).get("Value", [])
    ]


@pytest.mark.conforms("PS3.18 §10.5.2", "Metadata in JSON or XML with pixel data in a part")
@pytest.mark.parametrize("kind", [JSON, XML])
async def test_metadata_with_pixel_data_in_a_part_becomes_an_object(web: Web, kind: str) -> None:
    one = ct_instance(PatientName="Åkerström^Örjan", SpecificCharacterSet="ISO_IR 192")
    told = described(one, **{f"_{PIXEL_DATA}": "pixels/1"})
    metadata = json.dumps([told]).encode() if kind == JSON else write_xml(told)
    answer = await store(
        web,
        ({"Content-Type": kind}, metadata),
        ({"Content-Type": OCTETS, "Content-Location": "pixels/1"}, one.PixelData),
        kind=kind,
    )
    assert answer.status_code == 200, answer.json()
    found = await fetch(web, one)
    assert found.PatientName == one.PatientName
    assert found.PixelData == one.PixelData
    for element in one:
        if element.keyword not in ("SpecificCharacterSet", "PixelData"):
            assert found[element.tag].value == element.value, element


@pytest.mark.conforms("PS3.18 §10.5.2", "Compressed frames in parts of one location, in order")
async def test_compressed_frames_come_in_parts_of_one_location(web: Web) -> None:
    one = us_multiframe(frames=3, transfer_syntax_uid=RLELossless)
    frames = list(generate_frames(one.PixelData, number_of_frames=3))
    uri = f"http://elsewhere/bulk/{one.SOPInstanceUID}"
    told = described(one, **{f"_{PIXEL_DATA}": uri})
    answer = await store(
        web,
        ({"Content-Type": JSON}, json.dumps([told]).encode()),
        *(({"Content-Type": "image/dicom-rle", "Content-Location": uri}, one) for one in frames),
    )
    assert answer.status_code == 200, answer.json()
    found = await fetch(web, one)
    assert found.file_meta.TransferSyntaxUID == RLELossless
    assert list(generate_frames(found.PixelData, number_of_frames=3)) == frames
    assert (found.pixel_array == one.pixel_array).all()


async def test_a_picture_of_a_camera_is_stored_as_it_is(web: Web) -> None:
    one = secondary_capture(transfer_syntax_uid=JPEGBaseline8Bit)
    [picture] = generate_frames(one.PixelData, number_of_frames=1)
    told = described(one, **{f"_{PIXEL_DATA}": "a"})
    answer = await store(
        web,
        ({"Content-Type": JSON}, json.dumps([told]).encode()),
        (
            {
                "Content-Type": f"image/jpeg; transfer-syntax={JPEGBaseline8Bit}",
                "Content-Location": "a",
            },
            picture,
        ),
    )
    assert answer.status_code == 200, answer.json()
    found = await fetch(web, one)
    assert found.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert next(generate_frames(found.PixelData, number_of_frames=1)).startswith(picture)


async def test_several_objects_and_files_come_in_one_request(web: Web) -> None:
    study = new_uid()
    first, second, third = (ct_instance(StudyInstanceUID=study) for _ in range(3))
    inline = described(first)
    pixels = base64.b64encode(first.PixelData).decode()
    inline[PIXEL_DATA] = {"vr": "OW", "InlineBinary": pixels}
    referred = described(second, **{f"_{PIXEL_DATA}": "b"})
    answer = await store(
        web,
        ({"Content-Type": JSON}, json.dumps([inline, referred]).encode()),
        ({"Content-Type": "application/dicom"}, part10_bytes(third)),
        ({"Content-Type": OCTETS, "Content-Location": "b"}, second.PixelData),
        path=f"/studies/{study}",
    )
    assert answer.status_code == 200, answer.json()
    for one in (first, second, third):
        assert (await fetch(web, one)).PixelData == one.PixelData


async def test_bulk_data_within_a_sequence_is_put_in_its_place(web: Web) -> None:
    one = ct_instance()
    told = described(one)
    pixels = base64.b64encode(one.PixelData).decode()
    told[PIXEL_DATA] = {"vr": "OW", "InlineBinary": pixels}
    table = np.arange(512).astype("<u2").tobytes()
    told["00283000"] = {
        "vr": "SQ",
        "Value": [
            {
                "00283002": {"vr": "US", "Value": [512, 0, 16]},
                "00283006": {"vr": "OW", "BulkDataURI": "lut"},
            }
        ],
    }
    answer = await store(
        web,
        ({"Content-Type": JSON}, json.dumps(told).encode()),
        ({"Content-Type": OCTETS, "Content-Location": "lut"}, table),
    )
    assert answer.status_code == 200, answer.json()
    found = await fetch(web, one)
    assert found.ModalityLUTSequence[0][0x00283006].value == table


async def test_a_body_may_be_one_object_or_metadata_alone(web: Web) -> None:
    file, told = ct_instance(), ct_instance()
    inline = described(told)
    pixels = base64.b64encode(told.PixelData).decode()
    inline[PIXEL_DATA] = {"vr": "OW", "InlineBinary": pixels}
    for one, kind, content in (
        (file, "application/dicom", part10_bytes(file)),
        (told, JSON, json.dumps(inline).encode()),
    ):
        answer = await web.client.post(
            f"{ROOT}/studies", content=content, headers={"Content-Type": kind}
        )
        assert answer.status_code == 200, answer.json()
        assert (await fetch(web, one)).PixelData == one.PixelData


# What is refused


@pytest.mark.conforms("PS3.18 §10.5.3", "What metadata lacks is named, and nothing of it stays")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({PIXEL_DATA: {"vr": "OW", "BulkDataURI": "nowhere"}}, PIXEL_DATA),
        ({"00080016": None}, "00080016"),
        ({"0020000D": None}, "0020,000D"),
        ({"00100010": {"vr": "XX"}}, "00100010"),
        ({"00100010": {"vr": "PN", "Value": ["not a name"]}}, "00100010"),
        ({"00280010": {"vr": "US", "Value": [1 << 20]}}, "US"),
        ({"0010001": {"vr": "LO"}}, "0010001"),
        ({"00400275": {"vr": "SQ", "Value": [{"00080100": {"vr": "??"}}]}}, "00400275.00080100"),
    ],
)
async def test_what_is_wrong_with_metadata_is_named(
    web: Web, change: dict[str, Any], named: str
) -> None:
    one = ct_instance()
    told = {**described(one), **change}
    metadata = {tag: element for tag, element in told.items() if element is not None}
    packs = web.packs()
    answer = await store(web, ({"Content-Type": JSON}, json.dumps([metadata]).encode()))
    assert answer.status_code == 409, answer.text
    [failure] = failures(answer)
    assert named in failure["00000902"], failure
    assert "part 1" in failure["00000902"]
    assert web.packs() == packs


async def test_what_is_no_metadata_is_told(web: Web) -> None:
    for kind, content in ((JSON, b"{"), (JSON, b"[" * 100_000), (JSON, b"7"), (XML, b"<a/>")):
        answer = await store(web, ({"Content-Type": kind}, content), kind=kind)
        assert answer.status_code == 409, content[:10]
        assert failures(answer)
    text = nested(described(ct_instance()))
    answer = await store(web, ({"Content-Type": JSON}, text))
    assert answer.status_code == 409
    assert failures(answer)


def nested(told: dict[str, Any]) -> bytes:
    """The data set with a sequence 1,000 deep, as text: no writer of JSON goes there."""
    items = '{"00400275":{"vr":"SQ","Value":[' * 1000 + "{}" + "]}}" * 1000
    return f'{json.dumps(told)[:-1]},"00400275":{{"vr":"SQ","Value":[{items}]}}}}'.encode()


async def test_bulk_data_that_nobody_can_place_is_told_and_the_rest_is_stored(web: Web) -> None:
    one = ct_instance()
    answer = await store(
        web,
        ({"Content-Type": "application/dicom"}, part10_bytes(one)),
        ({"Content-Type": "text/html", "Content-Location": "a"}, b"x" * 100_000),
        ({"Content-Type": OCTETS}, b"y" * 100_000),
        (
            {"Content-Type": "image/jls; transfer-syntax=1.2.3", "Content-Location": "b"},
            b"z" * 100_000,
        ),
    )
    assert answer.status_code == 202, answer.text
    assert (await fetch(web, one)).PixelData == one.PixelData
    told = [failure["00000902"] for failure in failures(answer)]
    assert [text.partition(":")[0] for text in told] == ["part 2", "part 3", "part 4"]


async def test_metadata_beyond_its_limit_is_refused(
    cluster: Cluster, pixels: PixelPool, tmp_path: Path
) -> None:
    with new_settings(cluster, tmp_path, metadata_max_bytes=1000) as chosen:
        async with running(chosen, pixels) as small:
            told = json.dumps([described(ct_instance())]).encode()
            answer = await store(small, ({"Content-Type": JSON}, told))
            assert answer.status_code == 409
            assert "1000 bytes" in failures(answer)[0]["00000902"]
            alone = await small.client.post(
                f"{ROOT}/studies", content=told, headers={"Content-Type": JSON}
            )
            assert alone.status_code == 413
            assert small.packs() == []


# Any data set

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20).map(
    lambda text: text.replace("\\", "").replace("=", "").strip()
)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "00081030": TEXT.map(lambda text: {"vr": "LO", "Value": [text]} if text else {"vr": "LO"}),
        "00104000": TEXT.map(lambda text: {"vr": "LT", "Value": [text]} if text else {"vr": "LT"}),
        "00280010": st.integers(0, 65535).map(lambda n: {"vr": "US", "Value": [n]}),
        "00189073": st.floats(allow_nan=False, allow_infinity=False).map(
            lambda number: {"vr": "FD", "Value": [number]}
        ),
        "00201041": st.integers(-(10**9), 10**9).map(lambda n: {"vr": "DS", "Value": [n]}),
        "00091001": st.binary(max_size=40).map(
            lambda data: (
                {"vr": "UN", "InlineBinary": base64.b64encode(data).decode()}
                if len(data) % 2 == 0 and data
                else {"vr": "UN"}
            )
        ),
    },
)


@settings(max_examples=60, deadline=None)
@given(outer=VALUES, inner=st.lists(VALUES, max_size=3))
async def test_metadata_comes_back_as_it_was_sent(
    web: Web, outer: dict[str, Any], inner: list[dict[str, Any]]
) -> None:
    one = ct_instance()
    keep = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID")
    told = {f"{one[name].tag:08X}": described(one)[f"{one[name].tag:08X}"] for name in keep}
    told |= outer
    if inner:
        told["00400275"] = {"vr": "SQ", "Value": inner}
    answer = await store(web, ({"Content-Type": JSON}, json.dumps([told]).encode()))
    assert answer.status_code == 200, answer.json()
    path = f"/studies/{one.StudyInstanceUID}/metadata"
    [found] = (await web.client.get(ROOT + path)).json()
    found.pop("00080005", None)
    assert found == told
