"""QIDO-RS: studies, series and instances are found by what they are (PS3.18 §10.6, PS3.4 §C.2)."""

import urllib.parse
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from tests.dicomweb.conftest import Web, new_settings, parts_of, running
from tests.samples import ct_instance, ct_series, mr_instance, part10_bytes, sr_report

from bfr_core.pixels import PixelPool
from bfr_core.postgres import Cluster
from bfr_dicomweb.dicom_xml import read_xml, write_xml

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = "application/dicom+json"
ROOT = "/archives/ARCHIVE/dicomweb"

STUDIES: dict[str, dict[str, Any]] = {
    "asa": {"StudyDate": "20240305", "StudyTime": "101500", "AccessionNumber": "US0001"},
    "orjan": {
        "PatientName": "Örnberg^Örjan^Åke",
        "PatientID": "195001019802",
        "PatientBirthDate": "19500101",
        "PatientSex": "M",
        "StudyDate": "20231231",
        "StudyTime": "235959.250000",
        "AccessionNumber": "US_100%",
        "ReferringPhysicianName": "Ek^Märta",
        "StudyDescription": "DT buk",
        "InstitutionName": "Provsjukhuset Öster",
    },
    "chinese": {
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientName": "Wang^XiaoDong=王^小东",
        "PatientID": "P-3",
        "IssuerOfPatientID": "TEST",
        "StudyDate": "20240101",
        "StudyTime": "10",
        "StudyID": "S*7",
        "AccessionNumber": "",
    },
    "bare": {
        "PatientName": "",
        "PatientID": "",
        "PatientBirthDate": "",
        "PatientSex": "",
        "StudyDate": "",
        "StudyTime": "",
        "StudyID": "",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "StudyDescription": "",
        "InstitutionName": "",
        "SeriesDescription": "",
    },
    "old": {"PatientID": "P-4", "PatientName": "Testsson", "StudyDate": "00010101"},
}


@dataclass(frozen=True)
class Index:
    """What the server of this module holds: one study a story, and two of three series."""

    web: Web
    datasets: dict[str, Dataset]
    series: list[Dataset]  # three slices of the CT of "many"
    report: Dataset
    magnet: Dataset

    async def get(self, path: str, accept: str = JSON, **params: str) -> httpx.Response:
        query = params or None  # an empty mapping would take the query of the path away
        return await self.web.client.get(ROOT + path, params=query, headers={"Accept": accept})

    async def found(self, **params: str) -> set[str]:
        """The names of the studies that match."""
        answer = await self.get("/studies", **params)
        assert answer.status_code in (200, 204), answer.text
        names = {one.StudyInstanceUID: name for name, one in self.datasets.items()}
        names[self.report.StudyInstanceUID] = "many"
        uids = values(answer, "0020000D")
        assert len(uids) == len(set(uids))
        return {names[uid] for uid in uids}


def values(answer: httpx.Response, tag: str) -> list[Any]:
    """The first value of an attribute in each match."""
    if answer.status_code == 204:
        return []
    return [one[tag]["Value"][0] for one in answer.json()]


@pytest_asyncio.fixture(
    loop_scope="module", scope="module", params=["receiving", "sealed"], ids=str
)
async def index(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    pixels: PixelPool,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Index]:
    datasets = {name: ct_instance(**attributes) for name, attributes in STUDIES.items()}
    many: dict[str, Any] = {
        "PatientID": "P-5",
        "PatientName": "Många^Märta",
        "StudyDate": "20200229",
    }
    slices = ct_series(3, SeriesNumber=4, BodyPartExamined="ABDOMEN", **many)
    uid = {"StudyInstanceUID": slices[0].StudyInstanceUID, **many}
    for number, one in enumerate(slices):
        one.private_block(0x0099, "BFR TEST", create=True).add_new(0x01, "OB", bytes(2000))
        one.ImageComments = f"Bild {number}"
        one.PatientAge, one.Manufacturer = "060Y", "Provbolaget"
    report = sr_report(SeriesNumber=900, StudyDescription="DT thorax", **uid)
    magnet = mr_instance(SeriesNumber=5, **uid)
    item = Dataset()
    item.ScheduledProcedureStepID, item.RequestedProcedureID = "SPS7", "RP9"
    magnet.RequestAttributesSequence = [Dataset(), item]
    magnet.PerformedProcedureStepStartDate = "20200301"
    magnet.PerformedProcedureStepStartTime = "0830"
    stored = [*datasets.values(), *slices, report, magnet]
    with new_settings(cluster, tmp_path_factory.mktemp("index"), search_results_max=50) as chosen:
        async with running(chosen, pixels) as web:
            answer = await web.stow(*(part10_bytes(one) for one in stored))
            assert answer.status_code == 200, answer.json()
            other = part10_bytes(ct_instance(PatientName="Annan^Anna", AccessionNumber="OTHER"))
            await web.stow(other, url="/archives/OTHER/dicomweb/studies")
            if request.param == "sealed":
                await web.seal()
            yield Index(web, datasets, slices, report, magnet)


EVERY = {*STUDIES, "many"}


# Matching


@pytest.mark.conforms("PS3.18 §10.6.1.1", "A search without keys finds every study of the archive")
async def test_a_search_without_keys_finds_every_study_of_the_archive(index: Index) -> None:
    assert await index.found() == EVERY


@pytest.mark.conforms("PS3.4 §C.2.2.2.3", "An empty key matches everything")
@pytest.mark.parametrize("keyword", ["PatientName", "StudyDate", "StudyInstanceUID", "PatientID"])
async def test_an_empty_key_matches_everything(index: Index, keyword: str) -> None:
    assert await index.found(**{keyword: ""}) == EVERY


@pytest.mark.conforms("PS3.4 §C.2.2.2.4", "A key of * alone matches everything")
@pytest.mark.parametrize(
    "keyword", ["PatientName", "PatientID", "AccessionNumber", "ModalitiesInStudy", "StudyID"]
)
async def test_a_key_of_an_asterisk_matches_everything(index: Index, keyword: str) -> None:
    assert await index.found(**{keyword: "*"}) == EVERY


@pytest.mark.conforms("PS3.18 Table 10.6.1-5", "Studies are found by each key of the table")
@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("StudyDate", "20240305", {"asa"}),
        ("StudyDate", "20240101-20240305", {"asa", "chinese"}),
        ("StudyDate", "20240101-", {"asa", "chinese"}),
        ("StudyDate", "-20231231", {"orjan", "many", "old"}),
        ("StudyDate", "00010101", {"old"}),
        ("StudyDate", "2024.03.05", {"asa"}),
        ("StudyTime", "101500", {"asa", "old", "many"}),
        ("StudyTime", "10", {"asa", "old", "many", "chinese"}),
        ("StudyTime", "1015", {"asa", "old", "many"}),
        ("StudyTime", "1000-1014", {"chinese"}),
        ("StudyTime", "2359-", {"orjan"}),
        ("StudyTime", "235959.250000", {"orjan"}),
        ("StudyTime", "235959.25", {"orjan"}),
        ("StudyTime", "235959.3", set()),
        ("StudyTime", "-100000", {"chinese"}),
        ("AccessionNumber", "US0001", {"asa", "old", "many"}),
        ("AccessionNumber", "us0001", set()),
        ("AccessionNumber", "US_100%", {"orjan"}),
        ("AccessionNumber", "US_1*", {"orjan"}),
        ("AccessionNumber", "US?1*", {"orjan"}),
        ("AccessionNumber", "US?00?", {"asa", "old", "many"}),
        ("AccessionNumber", "%", set()),
        ("AccessionNumber", " US0001 ", {"asa", "old", "many"}),
        ("ModalitiesInStudy", "CT", EVERY),
        ("ModalitiesInStudy", "MR", {"many"}),
        ("ModalitiesInStudy", "S?", {"many"}),
        ("ModalitiesInStudy", "XA", set()),
        ("InstitutionName", "*Öster", {"orjan"}),
        ("ReferringPhysicianName", "ek^marta", {"orjan"}),
        ("StudyDescription", "DT buk", {"orjan"}),
        ("StudyDescription", "DT *", EVERY - {"bare"}),
        ("PatientID", "195001019802", {"orjan"}),
        ("PatientID", "P-?", {"chinese", "old", "many"}),
        ("IssuerOfPatientID", "TEST", {"chinese"}),
        ("PatientBirthDate", "19500101", {"orjan"}),
        ("PatientBirthDate", "-19841231", {"orjan"}),
        ("PatientSex", "M", {"orjan"}),
        ("StudyID", "S?7", {"chinese"}),
    ],
)
async def test_studies_are_found_by_each_key(
    index: Index, keyword: str, value: str, expected: set[str]
) -> None:
    assert await index.found(**{keyword: value}) == expected
    tag = f"{tag_for_keyword(keyword):08X}"
    assert await index.found(**{tag: value}) == expected
    assert await index.found(**{tag.lower(): value}) == expected


@pytest.mark.conforms("PS3.4 §C.2.2.2.1", "Names match without regard to case and accents")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Testsson^Åsa", {"asa"}),
        ("TESTSSON^ÅSA", {"asa"}),
        ("testsson^asa", {"asa"}),
        ("testsson^a\u030asa", {"asa"}),
        ("Testsson", {"old"}),
        ("Testsson^", {"old"}),
        ("Testsson^^^^", {"old"}),
        ("Testsson^Åsa^^", {"asa"}),
        ("test*", {"asa", "old"}),
        ("testsson^*", {"asa", "old"}),
        ("te?tsson*", {"asa", "old"}),
        ("*asa", {"asa"}),
        ("*ORJAN*", {"orjan"}),
        ("ornberg^orjan", set()),
        ("Örnberg^Örjan^Åke", {"orjan"}),
        ("orn*^orj*^ake", {"orjan"}),
        ("Wang^XiaoDong", {"chinese"}),
        ("wang*", {"chinese"}),
        ("=王^小东", {"chinese"}),
        ("=王*", {"chinese"}),
        ("Wang*=王*", {"chinese"}),
        ("Wang*=李*", set()),
        ("*=*", EVERY),
        ("%", set()),
        ("_*", set()),
        ("\\", set()),
    ],
)
async def test_names_match_without_case_and_accents(
    index: Index, value: str, expected: set[str]
) -> None:
    assert await index.found(PatientName=value) == expected


@pytest.mark.conforms("PS3.4 §C.2.2.2.2", "A list of UIDs matches each of them")
@pytest.mark.parametrize("separator", [",", "\\", ", "])
async def test_a_list_of_uids_matches_each_of_them(index: Index, separator: str) -> None:
    wanted = [index.datasets[name].StudyInstanceUID for name in ("asa", "old")]
    found = await index.found(StudyInstanceUID=separator.join([*wanted, "1.2.3"]))
    assert found == {"asa", "old"}


async def test_two_keys_must_both_match(index: Index) -> None:
    assert await index.found(StudyDate="20240101-", PatientName="wang*") == {"chinese"}
    assert await index.found(StudyDate="20240101-", PatientID="195001019802") == set()


@pytest.mark.conforms("PS3.18 Table 10.6.1-5", "Series are found by each key of the table")
@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("Modality", "SR", ["SR"]),
        ("Modality", "?R", ["MR", "SR"]),
        ("SeriesNumber", "5", ["MR"]),
        ("SeriesNumber", "05", ["MR"]),
        ("SeriesNumber", "99999999999", []),
        ("SeriesDescription", "T1*", ["MR"]),
        ("BodyPartExamined", "ABDOMEN", ["CT"]),
        ("PerformedProcedureStepStartDate", "20200301", ["MR"]),
        ("PerformedProcedureStepStartTime", "08-09", ["MR"]),
        ("RequestAttributesSequence.ScheduledProcedureStepID", "SPS7", ["MR"]),
        ("00400275.00401001", "RP*", ["MR"]),
        ("00400275.00401001", "SPS7", []),
        ("StudyDescription", "*", ["CT", "MR", "SR"]),
        ("PatientID", "P-5", ["CT", "MR", "SR"]),
    ],
)
async def test_series_are_found_by_each_key(
    index: Index, keyword: str, value: str, expected: list[str]
) -> None:
    path = f"/studies/{index.report.StudyInstanceUID}/series"
    answer = await index.get(path, **{keyword: value})
    assert values(answer, "00080060") == expected
    every = await index.get("/series", **{"PatientName": "Mang*", keyword: value})
    assert values(every, "00080060") == expected


async def test_a_series_is_found_by_its_uid(index: Index) -> None:
    uid = index.magnet.SeriesInstanceUID
    answer = await index.get("/series", SeriesInstanceUID=f"1.2,{uid}")
    assert values(answer, "0020000E") == [uid]


@pytest.mark.conforms("PS3.18 Table 10.6.1-5", "Instances are found by each key of the table")
async def test_instances_are_found_by_each_key(index: Index) -> None:
    one = index.series[1]
    study = f"/studies/{one.StudyInstanceUID}"
    series = f"{study}/series/{one.SeriesInstanceUID}"
    uids = [str(each.SOPInstanceUID) for each in index.series]

    async def found(path: str, **params: str) -> list[str]:
        return values(await index.get(path, **params), "00080018")

    assert await found(f"{series}/instances") == uids
    assert await found(f"{series}/instances", InstanceNumber="2") == uids[1:2]
    assert await found(f"{series}/instances", InstanceNumber="002") == uids[1:2]
    assert await found(f"{series}/instances", InstanceNumber="77") == []
    assert await found("/instances", SOPInstanceUID=uids[2]) == uids[2:]
    assert await found("/instances", SOPInstanceUID=f"{uids[2]},{uids[0]},1.2") == [
        uids[0],
        uids[2],
    ]
    assert await found(f"{study}/instances", SOPClassUID=one.SOPClassUID) == uids
    assert await found(f"{study}/instances", Modality="SR") == [index.report.SOPInstanceUID]
    assert await found("/instances", SOPInstanceUID=uids[0], PatientID="P-4") == []
    assert len(await found(f"{study}/instances")) == 5
    everything = await found("/instances")
    assert len(everything) == len(set(everything)) == len(STUDIES) + 5


@pytest.mark.conforms("PS3.18 §10.1", "Each archive is a root of its own")
@pytest.mark.parametrize("level", ["studies", "series", "instances"])
async def test_what_lies_in_another_archive_is_not_found(index: Index, level: str) -> None:
    key = {"AccessionNumber": "OTHER"}
    assert (await index.get(f"/{level}", **key)).status_code == 204
    for root in ("/dicomweb", "/archives/OTHER/dicomweb"):
        answer = await index.web.client.get(f"{root}/{level}", params=key)
        assert len(answer.json()) == 1
        assert values(answer, "00081190")[0].startswith(
            f"http://127.0.0.1:{index.web.port}{root}/studies/"
        )
    missing = await index.web.client.get(f"/archives/NOBODY/dicomweb/{level}")
    assert missing.status_code == 404


# Answers


def model(dataset: Dataset, *keywords: str) -> dict[str, Any]:
    """Attributes of a data set as pydicom writes them in DICOM JSON."""
    whole = dataset.to_json_dict()
    return {
        f"{tag_for_keyword(word):08X}": whole[f"{tag_for_keyword(word):08X}"] for word in keywords
    }


@pytest.mark.conforms("PS3.18 Table 10.6.3-3", "A study tells the attributes of the table")
async def test_a_study_tells_the_attributes_of_the_table(index: Index) -> None:
    dataset = index.datasets["orjan"]
    answer = await index.get("/studies", StudyInstanceUID=dataset.StudyInstanceUID)
    assert answer.headers["content-type"] == JSON
    (study,) = answer.json()
    told = model(
        dataset,
        *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName"),
        *("PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID"),
        *("StudyDescription", "InstitutionName"),
    )
    url = f"http://127.0.0.1:{index.web.port}{ROOT}/studies/{dataset.StudyInstanceUID}"
    assert study == {
        **told,
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        "00080061": {"vr": "CS", "Value": ["CT"]},
        "00081190": {"vr": "UR", "Value": [url]},
        "00201206": {"vr": "IS", "Value": [1]},
        "00201208": {"vr": "IS", "Value": [1]},
    }


async def test_a_study_that_tells_nothing_has_empty_attributes(index: Index) -> None:
    answer = await index.get("/studies", StudyInstanceUID=index.datasets["bare"].StudyInstanceUID)
    (study,) = answer.json()
    for tag in ("00080020", "00080030", "00080050", "00100010", "00100020", "00100030", "00200010"):
        assert "Value" not in study[tag], tag


async def test_dates_and_names_are_told_as_they_were_sent(index: Index) -> None:
    (old,) = (await index.get("/studies", PatientID="P-4")).json()
    assert old["00080020"]["Value"] == ["00010101"]
    (chinese,) = (await index.get("/studies", PatientID="P-3")).json()
    assert chinese["00100010"]["Value"] == [
        {"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"}
    ]
    assert chinese["00100021"]["Value"] == ["TEST"]


@pytest.mark.conforms("PS3.18 §10.6.3.3.2", "Of all series, each tells also of its study")
async def test_series_tell_of_their_study_when_it_is_not_named(index: Index) -> None:
    uid = index.report.StudyInstanceUID
    (alone,) = (await index.get(f"/studies/{uid}/series", Modality="SR")).json()
    assert alone["0020000E"]["Value"] == [index.report.SeriesInstanceUID]
    assert alone["00201209"]["Value"] == [1]
    assert "00081030" not in alone
    (beside,) = (await index.get("/series", Modality="SR")).json()
    assert beside == {**beside, **alone}
    assert beside["00081030"]["Value"] == ["DT thorax"]
    assert beside["00201208"]["Value"] == [5]
    assert list(beside) == sorted(beside)


@pytest.mark.conforms("PS3.18 §8.3.4.3", "includefield adds the attribute to every match")
async def test_includefield_adds_attributes_of_the_study_to_series(index: Index) -> None:
    path = f"/studies/{index.report.StudyInstanceUID}/series"
    answer = await index.get(path, includefield="StudyDescription,00100020")
    assert values(answer, "00081030") == ["DT thorax"] * 3
    assert values(answer, "00100020") == ["P-5"] * 3
    assert all("00080050" not in one for one in answer.json())
    everything = await index.get(path, includefield="all")
    assert values(everything, "00080050") == ["US0001"] * 3


@pytest.mark.conforms("PS3.18 §10.6.3.3.3", "An instance tells the attributes of the table")
async def test_an_instance_tells_the_attributes_of_the_table(index: Index) -> None:
    one = index.series[0]
    series = f"/studies/{one.StudyInstanceUID}/series/{one.SeriesInstanceUID}"
    (alone,) = (await index.get(f"{series}/instances", InstanceNumber="1")).json()
    url = f"http://127.0.0.1:{index.web.port}{ROOT}{series}/instances/{one.SOPInstanceUID}"
    assert alone == {
        **model(one, "SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Rows", "Columns"),
        **model(one, "BitsAllocated", "StudyInstanceUID", "SeriesInstanceUID"),
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        "00081190": {"vr": "UR", "Value": [url]},
    }
    (of_study,) = (
        await index.get(
            f"/studies/{one.StudyInstanceUID}/instances", SOPInstanceUID=one.SOPInstanceUID
        )
    ).json()
    assert of_study["00080060"]["Value"] == ["CT"]
    assert "00100020" not in of_study
    (of_all,) = (await index.get("/instances", SOPInstanceUID=one.SOPInstanceUID)).json()
    assert of_all["00080060"]["Value"] == ["CT"]
    assert of_all["00100020"]["Value"] == ["P-5"]


@pytest.mark.conforms("PS3.18 §8.3.4.3", "includefield adds the attribute to every match")
async def test_includefield_adds_attributes_of_the_instance(index: Index) -> None:
    one = index.series[0]
    path = f"/studies/{one.StudyInstanceUID}/series/{one.SeriesInstanceUID}/instances"
    answer = await index.get(path, includefield="ImageComments,00180050", InstanceNumber="2")
    (found,) = answer.json()
    assert found["00204000"]["Value"] == ["Bild 1"]
    assert found["00180050"]["Value"] == [5]
    repeated = await index.web.client.get(
        f"{ROOT}{path}?includefield=00204000&includefield=PatientName,Modality"
    )
    assert values(repeated, "00204000") == ["Bild 0", "Bild 1", "Bild 2"]
    assert values(repeated, "00080060") == ["CT"] * 3


async def test_bulk_data_in_a_match_has_an_address_that_answers(index: Index) -> None:
    one = index.series[0]
    answer = await index.get(
        "/instances", SOPInstanceUID=one.SOPInstanceUID, includefield="00991001"
    )
    uri = answer.json()[0]["00991001"]["BulkDataURI"]
    assert uri.startswith(f"{ROOT}/studies/")
    assert (await index.web.client.get(uri)).content == bytes(2000)


@pytest.mark.conforms("PS3.18 §10.6.3.1", "204 when nothing matches")
@pytest.mark.parametrize("level", ["studies", "series", "instances"])
async def test_nothing_found_is_an_answer_without_content(index: Index, level: str) -> None:
    answer = await index.get(f"/{level}", PatientID="nobody")
    assert answer.status_code == 204
    assert answer.content == b""


# Pages


@pytest.mark.conforms("PS3.18 §8.3.4.4", "limit and offset give the whole result page by page")
@pytest.mark.parametrize("level", ["studies", "series", "instances"])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_pages_are_complete_and_without_gaps(index: Index, level: str, size: int) -> None:
    tag = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}[level]
    whole = values(await index.get(f"/{level}"), tag)
    pages: list[str] = []
    while True:
        answer = await index.get(f"/{level}", limit=str(size), offset=str(len(pages)))
        assert "warning" not in answer.headers
        page = values(answer, tag)
        if not page:
            break
        assert len(page) <= size
        pages += page
    assert pages == whole
    assert len(whole) == len(set(whole)) > 1


@pytest.mark.conforms("PS3.18 §8.3.4.4", "Pages stay whole while studies arrive")
@pytest.mark.parametrize("level", ["studies", "series", "instances"])
async def test_pages_stay_whole_while_studies_arrive(
    cluster: Cluster, pixels: PixelPool, tmp_path: Path, level: str
) -> None:
    uid = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}[level]
    days = ["20240103", "20240103", "20240102", "", ""]
    listed = [ct_series(2, rows=2, columns=2, StudyDate=day) for day in days]
    number = 3 if level == "instances" else 2
    with new_settings(cluster, tmp_path) as chosen:
        async with running(chosen, pixels) as web:
            await web.stow(*(part10_bytes(one) for series in listed for one in series))
            whole = values(await web.client.get(f"{ROOT}/{level}"), uid)
            seen: list[str] = []
            page = whole[:1]
            while page and len(seen) <= len(whole):
                url = f"{ROOT}/{level}?limit={number}&offset={len(seen)}"
                page = values(await web.client.get(url), uid)
                seen += page
                again = values(await web.client.get(url), uid)
                assert again == page, "a page that is asked for once more is the same"
                # One that comes before all others.
                await web.stow(part10_bytes(ct_instance(StudyDate="20250101")))
            assert [one for one in seen if one in whole] == whole
            assert len(seen) == len(set(seen))


async def test_a_limit_of_nothing_finds_nothing(index: Index) -> None:
    assert (await index.get("/studies", limit="0")).status_code == 204
    assert (await index.get("/instances", limit="0")).status_code == 204


@pytest.mark.conforms("PS3.18 §8.3.4.4", "A Warning tells that the server has cut the result")
async def test_a_result_that_the_server_cuts_has_a_warning(
    cluster: Cluster, pixels: PixelPool, tmp_path: Path
) -> None:
    with new_settings(cluster, tmp_path, search_results_max=3) as chosen:
        async with running(chosen, pixels) as web:
            await web.stow(*(part10_bytes(one) for one in ct_series(4, rows=2, columns=2)))
            for query in ("", "?limit=5000"):
                answer = await web.client.get(f"{ROOT}/instances{query}")
                assert len(answer.json()) == 3
                assert answer.headers["warning"].startswith("299 ")
            asked = await web.client.get(f"{ROOT}/instances?limit=3")
            assert "warning" not in asked.headers
            rest = await web.client.get(f"{ROOT}/instances?offset=3")
            assert len(rest.json()) == 1
            assert "warning" not in rest.headers


# Matching that is asked for


@pytest.mark.conforms("PS3.18 §8.3.4.2", "Names match fuzzily: by words, nearly, in any order")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("orjan ornberg", {"orjan"}),
        ("Örnbergh", {"orjan"}),
        ("marta", {"many"}),
        ("Xiaodong", {"chinese"}),
        ("Qqqqq", set()),
    ],
)
async def test_names_match_fuzzily_where_that_is_asked_for(
    index: Index, name: str, expected: set[str]
) -> None:
    assert await index.found(PatientName=name, fuzzymatching="true") == expected
    assert await index.found(PatientName=name, fuzzymatching="false") == set()


@pytest.mark.conforms("PS3.4 §C.2.2.2.7", "Two quotation marks match what is empty")
async def test_what_is_empty_is_found_where_that_is_asked_for(index: Index) -> None:
    for keyword in ("PatientName", "PatientID", "StudyDate", "StudyTime"):
        assert "bare" in await index.found(**{keyword: '""', "emptyvaluematching": "true"})
    assert await index.found(AccessionNumber='""', emptyvaluematching="true") >= {"chinese", "bare"}
    assert await index.found(AccessionNumber='""') == set()
    study = f"/studies/{index.series[0].StudyInstanceUID}"
    found = await index.get(
        f"{study}/instances", ImageComments='""', emptyvaluematching="true", Modality="MR"
    )
    assert values(found, "00080018") == [index.magnet.SOPInstanceUID]


@pytest.mark.conforms("PS3.4 §C.2.2.2.8", "A backslash parts values of which one must match")
async def test_one_of_several_values_matches_where_that_is_asked_for(index: Index) -> None:
    two = {"PatientID": "P-3\\P-4"}
    assert await index.found(**two, multiplevaluematching="true") == {"chinese", "old"}
    assert await index.found(**two) == set()
    days = await index.found(StudyDate="20240101\\-00011231", multiplevaluematching="true")
    assert days == {"chinese", "old"}


@pytest.mark.conforms("PS3.18 §8.3.4.1", "Instances of a study match by any attribute")
async def test_instances_of_a_study_match_by_any_attribute(index: Index) -> None:
    one = index.series[1]
    study = f"/studies/{one.StudyInstanceUID}"

    async def found(**params: str) -> list[str]:
        return values(await index.get(f"{study}/instances", **params), "00080018")

    assert await found(ImageComments="Bild 1") == [one.SOPInstanceUID]
    assert await found(ImageComments="Bild*", InstanceNumber="2") == [one.SOPInstanceUID]
    assert await found(Rows=str(index.magnet.Rows), Modality="MR") == [index.magnet.SOPInstanceUID]
    assert await found(**{"ConceptNameCodeSequence.CodeValue": "*"}) != []
    assert await found(**{"ConceptNameCodeSequence.CodeValue": "nothing"}) == []
    assert await found(**{"0099xx01".replace("xx", "10"): "x"}) == []


# What is told beside the table


@pytest.mark.conforms("PS3.18 §8.3.4.3", "includefield adds what only a header tells of the level")
async def test_attributes_beyond_the_index_are_told_of_studies_and_series(index: Index) -> None:
    one = index.series[0]
    uid = {"StudyInstanceUID": str(one.StudyInstanceUID)}
    [plain] = (await index.get("/studies", **uid)).json()
    assert "00101010" not in plain
    asked = {"includefield": "PatientAge,Manufacturer,ImageComments"}
    [study] = (await index.get("/studies", **uid, **asked)).json()
    assert study["00101010"]["Value"] == ["060Y"]
    assert "00080070" not in study, "the manufacturer is one series' own"
    assert "00204000" not in study, "comments are one image's own"
    found = await index.get(f"/studies/{one.StudyInstanceUID}/series", **asked, Modality="CT")
    [series] = found.json()
    assert series["00080070"]["Value"] == [one.Manufacturer]
    assert "00204000" not in series
    [everything] = (
        await index.get(
            f"/studies/{one.StudyInstanceUID}/series", includefield="all", Modality="CT"
        )
    ).json()
    assert everything["00080070"]["Value"] == [one.Manufacturer]
    assert everything["00100020"]["Value"] == ["P-5"]


@pytest.mark.conforms("PS3.18 §8.3.4.3", "includefield with a path gives that of each item")
async def test_a_path_gives_that_of_each_item(index: Index) -> None:
    study = f"/studies/{index.magnet.StudyInstanceUID}"
    for level in ("series", "instances"):
        found = await index.get(
            f"{study}/{level}",
            Modality="MR",
            includefield="RequestAttributesSequence.RequestedProcedureID",
        )
        [one] = found.json()
        items = one["00400275"]["Value"]
        if level == "instances":
            assert items == [{}, {"00401001": {"vr": "SH", "Value": ["RP9"]}}]
        assert items[1]["00401001"]["Value"] == ["RP9"]


async def test_headers_are_read_for_fewer_matches(
    cluster: Cluster, pixels: PixelPool, tmp_path: Path
) -> None:
    with new_settings(cluster, tmp_path, search_headers_max=2) as chosen:
        async with running(chosen, pixels) as web:
            await web.stow(*(part10_bytes(ct_instance()) for _ in range(3)))
            answer = await web.client.get(f"{ROOT}/studies?includefield=PatientAge")
            assert len(answer.json()) == 2
            assert answer.headers["warning"].startswith("299 ")
            assert len((await web.client.get(f"{ROOT}/studies")).json()) == 3


# What is refused


@pytest.mark.conforms("PS3.18 §10.6.3.1", "400 for a search that cannot be understood")
@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("PatientNam=x", "PatientNam"),
        ("patientname=x", "patientname"),
        ("0010001=x", "0010001"),
        ("=x", "''"),
        ("PatientAge=030Y", "PatientAge"),
        ("Modality=CT", "Modality"),
        ("SOPInstanceUID=1.2", "SOPInstanceUID"),
        ("00091001=x", "00091001"),
        ("OtherPatientIDsSequence.PatientID=x", "OtherPatientIDsSequence.PatientID"),
        ("StudyDate=2024", "00080020"),
        ("StudyDate=20240230", "20240230"),
        ("StudyDate=2024030*", "00080020"),
        ("StudyDate=-", "00080020"),
        ("StudyDate=20240101-20240301-", "00080020"),
        ("StudyTime=25", "00080030"),
        ("StudyTime=10:00-x", "00080030"),
        ("StudyInstanceUID=abc", "0020000D"),
        ("StudyInstanceUID=1.2,abc", "abc"),
        ("StudyInstanceUID=1.2.*", "0020000D"),
        ("PatientID=%00", "00100020"),
        ("PatientName=a%00", "00100010"),
        ("ModalitiesInStudy=%00", "00080061"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("limit=%D9%A1", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("offset=1.5", "offset"),
        ("fuzzymatching=maybe", "fuzzymatching"),
        ("includefield=NoSuchThing", "NoSuchThing"),
    ],
)
async def test_a_search_that_cannot_be_understood_is_told_what_is_wrong(
    index: Index, query: str, named: str
) -> None:
    answer = await index.web.client.get(f"{ROOT}/studies?{query}")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert named in answer.json()["detail"]


@pytest.mark.parametrize(
    "query", ["InstanceNumber=x", "SOPInstanceUID=abc", "SeriesNumber=1.5", "SeriesNumber=1_0"]
)
async def test_a_bad_value_at_instance_level_is_told(index: Index, query: str) -> None:
    answer = await index.web.client.get(f"{ROOT}/instances?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[2] in answer.json()["detail"]


async def test_a_path_with_something_else_than_a_uid_is_told(index: Index) -> None:
    for path in ("/studies/abc/series", "/studies/1.2,1.3/series", "/studies/%00/instances"):
        assert (await index.get(path)).status_code == 400


@pytest.mark.conforms("PS3.18 §8.7.4", "Search results are DICOM JSON, or XML in parts")
async def test_results_come_as_json_or_xml(index: Index) -> None:
    for accept in ("application/dicom+xml", "text/html"):
        answer = await index.get("/studies", accept)
        assert answer.status_code == 406
        assert answer.headers["content-type"] == "application/problem+json"
    plain = await index.get("/studies", "application/json")
    assert plain.headers["content-type"] == "application/json"
    asked = await index.get("/studies?accept=application/dicom%2Bjson", "text/html")
    assert asked.status_code == 200
    for level in ("/studies", "/series", "/instances"):
        found = (await index.get(level)).json()
        xml = await index.get(level, 'multipart/related; type="application/dicom+xml"')
        parts = parts_of(xml)
        assert {headers["content-type"] for headers, _ in parts} == {"application/dicom+xml"}
        assert [read_xml(body, 10) for _, body in parts] == [
            read_xml(write_xml(one), 10) for one in found
        ]


async def test_too_many_parameters_are_told(index: Index) -> None:
    many = "&".join(["includefield=PatientAge"] * 2_000)
    answer = await index.get(f"/studies?{many}")
    assert answer.status_code == 400
    assert "at most 1000 parameters" in answer.json()["detail"]


async def test_a_search_is_on_record_without_its_values(index: Index) -> None:
    before = await index.web.count("audit_record WHERE action = 'read'")
    await index.get("/instances", PatientID="P-5", PatientName="Hemlig*")
    await index.get("/instances", PatientID="P-5")
    async with index.web.store.database.transaction() as tx:
        rows = await tx.tuples(
            "SELECT detail::text FROM audit_record WHERE action = 'search'"
            " ORDER BY recorded_at DESC LIMIT 2"
        )
    assert "P-5" not in str(rows)
    assert "Hemlig" not in str(rows)
    assert "00100020" in str(rows)
    assert await index.web.count("audit_record WHERE action = 'read'") == before


# Anything at all

NAMES = st.sampled_from(
    [
        *("PatientName", "StudyDate", "StudyTime", "limit", "offset", "includefield", "accept"),
        *("SeriesNumber", "StudyInstanceUID", "ModalitiesInStudy", "SOPInstanceUID"),
        "00400275.00400009",
    ]
) | st.text(max_size=12)
VALUES = st.text(max_size=20) | st.from_regex(r"[-0-9.:*?%_^=\\,]{0,16}", fullmatch=True)
ANY_QUERY = st.lists(st.tuples(NAMES, VALUES), max_size=3).map(
    lambda pairs: urllib.parse.urlencode(pairs, errors="surrogatepass")
) | st.binary(max_size=30).map(urllib.parse.quote_from_bytes)
QUICK = settings(max_examples=40, deadline=None)


@QUICK
@example("PatientName=%ED%A0%80")
@example("offset=999999999")
@example("SeriesNumber=" + "9" * 6000)
@given(query=ANY_QUERY)
async def test_no_query_makes_the_server_fail(index: Index, query: str) -> None:
    for level in ("studies", "series", "instances"):
        answer = await index.web.client.get(f"{ROOT}/{level}?{query}")
        assert answer.status_code in (200, 204, 400, 406), (level, query)


@QUICK
@example("*/*;q=")
@example('multipart/related; type="')
@example(",".join(["*/*"] * 5000))
@given(
    accept=st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=60).map(
        str.strip
    )
    | st.from_regex(
        r'(multipart/related; ?type="?|)(application|image|\*)/(dicom|\*|jpeg)"?'
        r"(; ?(q|transfer-syntax)=(\*|0|1|0\.5|1\.2))*(, ?\*/\*)?",
        fullmatch=True,
    )
)
async def test_no_accept_header_makes_the_server_fail(index: Index, accept: str) -> None:
    one = index.series[0]
    instance = (
        f"/studies/{one.StudyInstanceUID}/series/{one.SeriesInstanceUID}"
        f"/instances/{one.SOPInstanceUID}"
    )
    for path in ("/studies", instance, f"{instance}/metadata", f"{instance}/frames/1"):
        answer = await index.web.client.get(
            ROOT + path, headers={b"Accept": accept.encode("latin-1")}
        )
        assert answer.status_code in (200, 400, 406), path
