"""The JSON of the portals: patients by number and name, whole histories, what has arrived."""

import json
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from tests.dicomweb.conftest import Web, new_settings, running
from tests.samples import ct_instance, ct_series, mr_instance, part10_bytes, sr_report

from bfr_core.pixels import PixelPool
from bfr_core.postgres import Cluster

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASA, ORJAN, UNKNOWN = "198501019809", "195001019802", ""

PATIENT = {
    "patient_key": str,
    "patient_identifier": str,
    "issuer": str,
    "name": str,
    "birth_date": str | None,
    "sex": str | None,
    "number_of_studies": int,
    "latest_study_date": str | None,
}
STUDY = {
    "archive": str,
    "study_instance_uid": str,
    "study_date": str | None,
    "study_time": str | None,
    "description": str,
    "accession_number": str,
    "modalities": list,
    "body_parts": list,
    "institution": str,
    "referring_physician": str,
    "number_of_series": int,
    "number_of_instances": int,
    "size_bytes": int,
    "state": str,
    "received_at": str,
    "thumbnail": dict | None,
}
SERIES = {
    "series_instance_uid": str,
    "modality": str,
    "series_number": int | None,
    "description": str,
    "body_part": str,
    "number_of_instances": int,
    "size_bytes": int,
    "state": str,
    "representative_sop_instance_uid": str | None,
}


def check(value: dict[str, Any], shape: dict[str, Any]) -> None:
    """Fail unless the object has exactly these members, of these types."""
    assert set(value) == set(shape)
    for name, kind in shape.items():
        assert isinstance(value[name], kind), (name, value[name])


@dataclass(frozen=True)
class Clinic:
    """What the server of this module holds: three patients, one of them in two archives."""

    web: Web
    ct: list[Dataset]  # two slices and a report, of Åsa in ARCHIVE
    report: Dataset
    mr: Dataset  # of Åsa in OTHER
    orjan: Dataset
    nameless: Dataset

    async def search(self, query: str, **more: Any) -> Any:
        answer = await self.web.client.post("/api/patients/search", json={"query": query, **more})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def names(self, query: str) -> list[str]:
        return [one["name"] for one in (await self.search(query))["patients"]]

    async def key(self, query: str) -> str:
        (patient,) = (await self.search(query))["patients"]
        return str(patient["patient_key"])


@pytest.fixture(scope="module")
def pixels() -> Iterator[PixelPool]:
    pool = PixelPool(1)
    yield pool
    pool.close()


@pytest_asyncio.fixture(loop_scope="module")
async def web(cluster: Cluster, pixels: PixelPool, tmp_path: Path) -> AsyncIterator[Web]:
    with new_settings(cluster, tmp_path) as chosen:
        async with running(chosen, pixels) as web:
            yield web


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def clinic(
    cluster: Cluster, pixels: PixelPool, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Clinic]:
    ct = ct_series(2, PatientID=ASA)
    report = sr_report(StudyInstanceUID=ct[0].StudyInstanceUID, PatientID=ASA, SeriesNumber=None)
    mr = mr_instance(PatientID=ASA, PatientName="Testsson^Asa", StudyDate="20240401")
    orjan = ct_instance(
        PatientID="19500101-9802",
        PatientName="Öberg-Ek^Örjan^Karl",
        PatientSex="M",
        PatientBirthDate="",
        StudyDate="",
        StudyTime="",
    )
    nameless = ct_instance(PatientID=UNKNOWN, PatientName="", PatientSex="", StudyTime="080000.5")
    other = "/archives/OTHER/dicomweb/studies"
    with new_settings(cluster, tmp_path_factory.mktemp("clinic")) as chosen:
        async with running(chosen, pixels) as web:
            await web.stow(*(part10_bytes(one) for one in (*ct, report)))
            await web.seal()
            await web.stow(part10_bytes(mr), url=other)
            await web.stow(part10_bytes(orjan), part10_bytes(nameless))
            yield Clinic(web, ct, report, mr, orjan, nameless)


async def test_the_session_tells_who_the_caller_is(clinic: Clinic) -> None:
    answer = await clinic.web.client.get("/api/session")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    session = answer.json()
    assert (session["subject"], session["kind"]) == ("loopback", "local")
    assert set(session) == {"subject", "kind", "version"}


# Patients


async def test_a_patient_found_is_told_in_full(clinic: Clinic) -> None:
    found = await clinic.search(ASA)
    assert found["more"] is False
    (patient,) = found["patients"]
    check(patient, PATIENT)
    key = patient.pop("patient_key")
    assert key.isdigit()
    assert patient == {
        "patient_identifier": ASA,
        "issuer": "",
        "name": "Testsson^Asa",  # as the archive that was told last has it
        "birth_date": "1985-01-01",
        "sex": "F",
        "number_of_studies": 2,
        "latest_study_date": "2024-04-01",
    }


@pytest.mark.parametrize(
    "query",
    [ASA, "19850101-9809", " 19850101 9809 ", "19850101", "1985-01-01-9809", "198501019809\n"],
)
async def test_a_number_is_found_with_and_without_hyphen(clinic: Clinic, query: str) -> None:
    assert await clinic.names(query) == ["Testsson^Asa"]


@pytest.mark.parametrize("query", [ORJAN, "19500101-9802", "19500101-98"])
async def test_a_number_stored_with_a_hyphen_is_found_too(clinic: Clinic, query: str) -> None:
    assert await clinic.names(query) == ["Öberg-Ek^Örjan^Karl"]


@pytest.mark.parametrize(
    "query",
    [
        "testsson åsa",
        "Åsa Testsson",
        "ASA TESTSSON",
        "asa",
        "Testsson, Åsa",
        "Testsson^Åsa",
        "sson sa",
        "a\u030asa",
    ],
)
async def test_a_name_is_found_in_any_order_and_without_accents(clinic: Clinic, query: str) -> None:
    assert await clinic.names(query) == ["Testsson^Asa"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("karl oberg", ["Öberg-Ek^Örjan^Karl"]),
        ("öberg-ek", ["Öberg-Ek^Örjan^Karl"]),
        ("ek örjan", ["Öberg-Ek^Örjan^Karl"]),
        ("åsa karl", []),
        ("nobody", []),
        ("9809", []),
        ("%", []),
        ("_", []),
        ("\\", []),
        ("-", ["Öberg-Ek^Örjan^Karl"]),
        ("\u030a", []),
    ],
)
async def test_every_word_must_be_in_the_name(
    clinic: Clinic, query: str, expected: list[str]
) -> None:
    assert await clinic.names(query) == expected


@pytest.mark.parametrize("query", ["", "   ", "^", "\0"])
async def test_an_empty_search_tells_who_arrived_last(clinic: Clinic, query: str) -> None:
    names = await clinic.names(query)
    assert sorted(names) == ["", "Testsson^Asa", "Öberg-Ek^Örjan^Karl"]
    assert names[-1] == "Testsson^Asa"


async def test_a_limit_tells_that_there_are_more(clinic: Clinic) -> None:
    found = await clinic.search("", limit=2)
    assert (len(found["patients"]), found["more"]) == (2, True)
    assert (await clinic.search("", limit=3))["more"] is False


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'"x"',
        b'{"query": 1}',
        b'{"query": null}',
        b'{"query": "' + b"x" * 201 + b'"}',
        b'{"limit": 0}',
        b'{"limit": 201}',
        b'{"limit": true}',
        b'{"limit": "5"}',
        b'{"limit": 1e2}',
        b'{"query": "\\ud800"}',
        b'{"query": "\xff"}',
        b" " * 70_000,
    ],
)
async def test_a_search_that_is_none_is_refused(clinic: Clinic, body: bytes) -> None:
    answer = await clinic.web.client.post("/api/patients/search", content=body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


async def test_a_person_in_two_archives_is_one_patient_with_all_studies(clinic: Clinic) -> None:
    for query in ("åsa", ASA, "Testsson"):
        answer = await clinic.web.client.get(f"/api/patients/{await clinic.key(query)}")
        history = answer.json()
        check(history["patient"], PATIENT)
        assert history["patient"]["number_of_studies"] == 2
        for study in history["studies"]:
            check(study, STUDY)
        assert [(one["archive"], one["study_instance_uid"]) for one in history["studies"]] == [
            ("OTHER", clinic.mr.StudyInstanceUID),
            ("ARCHIVE", clinic.ct[0].StudyInstanceUID),
        ]


async def test_a_name_that_one_archive_alone_knows_finds_what_all_hold(web: Web) -> None:
    here, there = ct_instance(PatientName="Ogift^Eva"), ct_instance(PatientName="Gift^Eva")
    await web.stow(part10_bytes(here))
    await web.stow(part10_bytes(there), url="/archives/OTHER/dicomweb/studies")
    keys = set()
    for query in ("Ogift", "gift eva", ""):
        answer = await web.client.post("/api/patients/search", json={"query": query})
        (patient,) = answer.json()["patients"]
        assert patient["number_of_studies"] == 2
        keys.add(patient["patient_key"])
    assert len(keys) == 1


async def test_objects_without_a_number_are_patients_of_their_own(web: Web) -> None:
    for _ in range(2):
        await web.stow(part10_bytes(ct_instance(PatientID="", PatientName="Okänd")))
    answer = await web.client.post("/api/patients/search", json={"query": "okand"})
    patients = answer.json()["patients"]
    assert [one["number_of_studies"] for one in patients] == [1, 1]
    for one in patients:
        history = await web.client.get(f"/api/patients/{one['patient_key']}")
        assert len(history.json()["studies"]) == 1


@pytest.mark.parametrize(
    "key", ["0", "999999", "x", "-1", "1.0", "%D9%A1", "9" * 30, "%00", "1%2F2"]
)
async def test_a_patient_that_is_not_there_is_not_found(clinic: Clinic, key: str) -> None:
    answer = await clinic.web.client.get(f"/api/patients/{key}")
    assert answer.status_code in (400, 404)
    assert answer.headers["content-type"] == "application/problem+json"


# Studies


async def test_a_study_is_told_with_its_patient_and_series(clinic: Clinic) -> None:
    uid = clinic.ct[0].StudyInstanceUID
    detail = (await clinic.web.client.get(f"/api/archives/ARCHIVE/studies/{uid}")).json()
    check(detail["patient"], PATIENT)
    check(detail["study"], STUDY)
    assert detail["study"]["modalities"] == ["CT", "SR"]
    assert detail["study"]["body_parts"] == ["CHEST"]
    assert detail["study"]["study_time"] == "10:15:00"
    assert detail["study"]["state"] == "complete"
    assert detail["study"]["number_of_instances"] == 3
    assert detail["study"]["size_bytes"] == sum(
        len(part10_bytes(one)) for one in (*clinic.ct, clinic.report)
    )
    first, second = detail["series"]
    for one in (first, second):
        check(one, SERIES)
    assert (first["modality"], first["series_number"], first["number_of_instances"]) == ("CT", 1, 2)
    assert (second["modality"], second["series_number"]) == ("SR", None)
    assert second["representative_sop_instance_uid"] is None
    thumbnail = detail["study"]["thumbnail"]
    assert thumbnail["series_instance_uid"] == first["series_instance_uid"]
    assert thumbnail["sop_instance_uid"] == first["representative_sop_instance_uid"]
    picture = await clinic.web.client.get(
        f"/archives/ARCHIVE/dicomweb/studies/{uid}/series/{thumbnail['series_instance_uid']}"
        f"/instances/{thumbnail['sop_instance_uid']}/rendered?viewport=64,64"
    )
    assert picture.headers["content-type"] == "image/jpeg"


async def test_a_study_that_tells_little_has_empty_members(clinic: Clinic) -> None:
    uid = clinic.orjan.StudyInstanceUID
    detail = (await clinic.web.client.get(f"/api/archives/ARCHIVE/studies/{uid}")).json()
    check(detail["study"], STUDY)
    assert detail["study"]["study_date"] is None
    assert detail["study"]["study_time"] is None
    assert detail["study"]["state"] == "receiving"
    assert detail["patient"]["birth_date"] is None
    uid = clinic.nameless.StudyInstanceUID
    detail = (await clinic.web.client.get(f"/api/archives/ARCHIVE/studies/{uid}")).json()
    check(detail["patient"], PATIENT)
    assert detail["patient"]["sex"] is None
    assert detail["study"]["study_time"] == "08:00:00"


async def test_a_study_of_another_archive_is_not_found(clinic: Clinic) -> None:
    for path in (
        f"/api/archives/OTHER/studies/{clinic.ct[0].StudyInstanceUID}",
        f"/api/archives/NOBODY/studies/{clinic.ct[0].StudyInstanceUID}",
        "/api/archives/ARCHIVE/studies/1.2.3",
    ):
        assert (await clinic.web.client.get(path)).status_code == 404


async def test_the_latest_studies_come_first(clinic: Clinic) -> None:
    answer = await clinic.web.client.get("/api/studies")
    studies = answer.json()["studies"]
    for one in studies:
        patient = one.pop("patient")
        assert set(patient) == {"patient_key", "patient_identifier", "name"}
        check(one, STUDY)
    uids = [one["study_instance_uid"] for one in studies]
    assert uids[2:] == [clinic.mr.StudyInstanceUID, clinic.ct[0].StudyInstanceUID]
    assert set(uids[:2]) == {clinic.orjan.StudyInstanceUID, clinic.nameless.StudyInstanceUID}


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("limit=1", 1),
        ("modality=SR", 1),
        ("modality=CT", 3),
        ("modality=XA", 0),
        ("archive=OTHER", 1),
        ("archive=ARCHIVE&modality=MR", 0),
        ("archive=NOBODY", 0),
    ],
)
async def test_the_latest_studies_are_narrowed(clinic: Clinic, query: str, count: int) -> None:
    answer = await clinic.web.client.get(f"/api/studies?{query}")
    assert len(answer.json()["studies"]) == count


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=1001", "limit=x", "limit=", "limit=%D9%A1", "limit=000001" + "9" * 30),
        *("modality=%00", "archive=%00"),
    ],
)
async def test_a_list_that_cannot_be_given_is_refused(clinic: Clinic, query: str) -> None:
    answer = await clinic.web.client.get(f"/api/studies?{query}")
    assert answer.status_code == 400
    assert answer.json()["detail"]


# The whole system


async def test_the_status_tells_of_the_whole_system(clinic: Clinic) -> None:
    status = (await clinic.web.client.get("/api/status")).json()
    assert set(status) == {
        *("version", "roles", "archives", "connections", "storage", "jobs", "open_cases"),
        "events",
        "dimse_port",
    }
    assert [one["role"] for one in status["roles"]] == ["web", "dimse", "worker"]
    assert all(set(one) == {"role", "ready", "detail", "beat_at"} for one in status["roles"])
    archive = next(one for one in status["archives"] if one["ae_title"] == "ARCHIVE")
    size_bytes = archive.pop("size_bytes")
    assert size_bytes > 0
    assert archive == {
        "ae_title": "ARCHIVE",
        "name": "Test archive",
        "connection": "PACS of ARCHIVE",
        "patients": 3,
        "studies": 3,
        "series": 4,
        "instances": 5,
    }
    assert status["connections"][0] == {
        "name": "PACS of ARCHIVE",
        "environment": "test",
        "archive": "ARCHIVE",
        "nodes": [{"ae_title": "MODALITY", "host": "127.0.0.1", "port": 11113}],
    }
    assert 0 < status["storage"]["free_bytes"] < status["storage"]["total_bytes"]
    assert set(status["jobs"]) == {"todo", "doing", "failed"}
    kinds = {one["kind"] for one in status["events"]}
    assert {"study_created", "series_created", "series_sealed"} <= kinds
    ids = [one["event_id"] for one in status["events"]]
    assert ids == sorted(ids, reverse=True)


@pytest.mark.parametrize("path", ["/api/", "/api/nothing", "/api/patients", "/api/%00"])
async def test_what_is_no_resource_is_a_problem_and_no_page(clinic: Clinic, path: str) -> None:
    answer = await clinic.web.client.get(path)
    assert answer.status_code in (400, 404, 405)
    assert answer.headers["content-type"] == "application/problem+json"


# What must not leak


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in strings(each)]
    if isinstance(value, list):
        return [text for each in value for text in strings(each)]
    return [value] if isinstance(value, str) else []


async def test_no_person_is_named_in_an_address_or_a_log(
    clinic: Clinic, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = (ASA, "19850101-9809", ORJAN, "19500101-9802", "Testsson", "Örjan", "Asa")
    texts: list[str] = []
    for query in ("19850101-9809", "Örjan", "Testsson Asa"):
        key = await clinic.key(query)
        history = (await clinic.web.client.get(f"/api/patients/{key}")).json()
        texts += strings(history)
        assert all(secret not in key for secret in secrets)
    texts += strings((await clinic.web.client.get("/api/studies")).json())
    texts += strings((await clinic.web.client.get("/api/status")).json())
    await clinic.web.client.post("/api/patients/search", content=b'{"query": "Testsson"')
    stolen = ct_instance(StudyInstanceUID=clinic.ct[0].StudyInstanceUID, PatientID=ORJAN)
    refused = await clinic.web.stow(part10_bytes(stolen))
    assert refused.status_code == 409
    assert all(secret not in refused.text for secret in secrets)
    assert caplog.records
    for record in caplog.records:
        said = record.getMessage() + str(record.exc_text or "")
        assert all(secret not in said for secret in secrets), said
    addresses = [text for text in texts if "/" in text]
    assert all(secret not in text for secret in secrets for text in addresses)
    async with clinic.web.store.database.transaction() as tx:
        rows = await tx.tuples("SELECT detail::text, caller, door FROM audit_record")
    assert all(secret not in str(rows) for secret in secrets)


@settings(max_examples=60, deadline=None)
@given(
    body=st.binary(max_size=40)
    | st.dictionaries(
        st.sampled_from(["query", "limit", "x"]),
        st.text(max_size=10) | st.integers() | st.none() | st.lists(st.integers(), max_size=2),
        max_size=3,
    ).map(lambda value: json.dumps(value).encode())
)
async def test_no_search_makes_the_server_fail(clinic: Clinic, body: bytes) -> None:
    answer = await clinic.web.client.post("/api/patients/search", content=body)
    assert answer.status_code in (200, 400)
