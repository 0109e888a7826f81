"""Modality Worklist (PS3.4 Annex K)."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pynetdicom
import pytest
from pydicom.dataset import Dataset
from tests.conftest import House, add_house, need

from bfr_core import service_requests
from bfr_core.access import operator
from bfr_core.errors import Denied, Invalid
from bfr_core.store import Store
from bfr_legacy.dimse.server import DimseServer

WORKLIST = "1.2.840.10008.5.1.4.31"
PENDING = 0xFF00


def item(number: int = 1, changes: dict[str, Any] | None = None, **of: Any) -> dict[str, Any]:
    """A worklist item of DICOM JSON; `changes` by tag, those of the step with `step`."""
    step = {
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "00400001": {"vr": "AE", "Value": ["CT1"]},
        "00400002": {"vr": "DA", "Value": ["20260310"]},
        "00400003": {"vr": "TM", "Value": ["1030"]},
        "00400006": {"vr": "PN", "Value": [{"Alphabetic": "Åberg^Lisa"}]},
        "00400007": {"vr": "LO", "Value": ["CT thorax"]},
        "00400009": {"vr": "SH", "Value": [f"STEP{number}"]},
        "00400008": {
            "vr": "SQ",
            "Value": [
                {
                    "00080100": {"vr": "SH", "Value": ["83100"]},
                    "00080102": {"vr": "SH", "Value": ["99REGION"]},
                    "00080104": {"vr": "LO", "Value": ["DT thorax"]},
                }
            ],
        },
        **of.get("step", {}),
    }
    return {
        "00080050": {"vr": "SH", "Value": [f"ACC{number}"]},
        "00080090": {"vr": "PN", "Value": [{"Alphabetic": "Remiss^Rut"}]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Öberg^Åsa"}]},
        "00100020": {"vr": "LO", "Value": [f"TEST-{number}"]},
        "00100030": {"vr": "DA", "Value": ["19700101"]},
        "00100040": {"vr": "CS", "Value": ["F"]},
        "0020000D": {"vr": "UI", "Value": [f"1.2.3.{number}"]},
        "00321060": {"vr": "LO", "Value": ["CT thorax med kontrast"]},
        "00401001": {"vr": "SH", "Value": [f"PROC{number}"]},
        "00400100": {"vr": "SQ", "Value": [step]},
        **(changes or {}),
    }


async def put(store: Store, house: House, *items: dict[str, Any]) -> None:
    async with store.database.transaction() as tx:
        for one in items:
            await service_requests.put_examination(
                tx, operator("test"), house.archive.archive_id, one
            )


def query(step: dict[str, Any] | None = None, **keys: Any) -> Dataset:
    dataset = Dataset()
    for keyword in ("AccessionNumber", "PatientName", "PatientID", "StudyInstanceUID"):
        setattr(dataset, keyword, None)
    for keyword, value in keys.items():
        setattr(dataset, keyword, value)
    wanted = Dataset()
    wanted.ScheduledProcedureStepStartDate = None
    wanted.ScheduledProcedureStepID = None
    wanted.ScheduledProcedureStepStatus = None
    for keyword, value in (step or {}).items():
        setattr(wanted, keyword, value)
    dataset.ScheduledProcedureStepSequence = [wanted]
    return dataset


async def find(
    port: int, identifier: Dataset, *, called: str = "ARCHIVE", calling: str = "MODALITY"
) -> tuple[list[Dataset], int]:
    """What matches, and the final status."""

    def talk() -> tuple[list[Dataset], int]:
        entity = pynetdicom.AE(calling)
        entity.add_requested_context(WORKLIST)
        association = entity.associate("127.0.0.1", port, ae_title=called)
        assert association.is_established
        found, status = [], -1
        for answer, dataset in association.send_c_find(identifier, WORKLIST):
            status = int(answer.Status)
            if status == PENDING and dataset is not None:
                found.append(dataset)
        association.release()
        return found, status

    return await asyncio.to_thread(talk)


async def accessions(port: int, identifier: Dataset) -> list[str]:
    found, status = await find(port, identifier)
    assert status == 0
    return sorted(str(one.AccessionNumber) for one in found)


@pytest.mark.conforms("PS3.4 §K.4.1", "each match has what was asked for and no more")
async def test_a_match_has_what_was_asked_for(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await put(store, house, item())
    identifier = query(
        {"ScheduledProtocolCodeSequence": [Dataset()], "ScheduledPerformingPhysicianName": None},
        RequestedProcedureDescription=None,
        PatientWeight=None,
    )
    [found], status = await find(dimse.port, identifier)
    assert status == 0
    assert found.SpecificCharacterSet == "ISO_IR 192"
    assert str(found.PatientName) == "Öberg^Åsa"
    assert found.StudyInstanceUID == "1.2.3.1"
    assert found.RequestedProcedureDescription == "CT thorax med kontrast"
    assert found["PatientWeight"].value is None
    assert "PatientSex" not in found
    [step] = found.ScheduledProcedureStepSequence
    assert step.ScheduledProcedureStepStatus == "SCHEDULED"
    assert str(step.ScheduledPerformingPhysicianName) == "Åberg^Lisa"
    assert step.ScheduledProtocolCodeSequence[0].CodeMeaning == "DT thorax"
    assert "Modality" not in step


@pytest.mark.conforms("PS3.4 Table K.6-1", "every attribute is a matching key, in any sequence")
@pytest.mark.parametrize(
    ("keys", "step", "expected"),
    [
        ({}, {}, ["ACC1", "ACC2"]),
        ({"PatientID": "TEST-2"}, {}, ["ACC2"]),
        ({"PatientName": "oberg*"}, {}, ["ACC1", "ACC2"]),
        ({"PatientName": "ÖBERG^ÅSA"}, {}, ["ACC1", "ACC2"]),
        ({"PatientName": "Andersson*"}, {}, []),
        ({"AccessionNumber": "ACC?"}, {}, ["ACC1", "ACC2"]),
        ({"RequestedProcedureID": "PROC1"}, {}, ["ACC1"]),
        ({"ReferringPhysicianName": "Remiss*"}, {}, ["ACC1", "ACC2"]),
        ({"StudyInstanceUID": ["1.2.3.2", "1.2.3.9"]}, {}, ["ACC2"]),
        ({"PatientWeight": "70"}, {}, []),
        ({}, {"Modality": "MR"}, ["ACC2"]),
        ({}, {"Modality": ["CT", "MR"]}, ["ACC1", "ACC2"]),
        ({}, {"ScheduledStationAETitle": "CT1"}, ["ACC1"]),
        ({}, {"ScheduledPerformingPhysicianName": "aberg*"}, ["ACC1", "ACC2"]),
        ({}, {"ScheduledProcedureStepStartDate": "20260310"}, ["ACC1"]),
        ({}, {"ScheduledProcedureStepStartDate": "20260311-"}, ["ACC2"]),
        ({}, {"ScheduledProcedureStepStartTime": "10"}, ["ACC1"]),
        ({}, {"ScheduledProcedureStepStatus": "ARRIVED"}, ["ACC2"]),
    ],
    ids=str,
)
async def test_keys_match(
    dimse: DimseServer,
    store: Store,
    house: House,
    keys: dict[str, Any],
    step: dict[str, Any],
    expected: list[str],
) -> None:
    other = {
        "00080060": {"vr": "CS", "Value": ["MR"]},
        "00400001": {"vr": "AE", "Value": ["MR1", "MR2"]},
        "00400002": {"vr": "DA", "Value": ["20260312"]},
        "00400003": {"vr": "TM", "Value": ["0800"]},
        "00400020": {"vr": "CS", "Value": ["ARRIVED"]},
    }
    await put(store, house, item(1), item(2, step=other))
    assert await accessions(dimse.port, query(step, **keys)) == expected


@pytest.mark.conforms("PS3.4 §K.6.1.2.2", "ranges of date and time together are one period")
async def test_ranges_of_date_and_time_are_one_period(
    dimse: DimseServer, store: Store, house: House
) -> None:
    moments = [("20260309", "1800"), ("20260310", "0700"), ("20260311", "1600")]
    items = [
        item(
            number,
            step={
                "00400002": {"vr": "DA", "Value": [day]},
                "00400003": {"vr": "TM", "Value": [clock]},
            },
        )
        for number, (day, clock) in enumerate(moments, 1)
    ]
    await put(store, house, *items)
    period = {
        "ScheduledProcedureStepStartDate": "20260309-20260311",
        "ScheduledProcedureStepStartTime": "1700-1500",
    }
    assert await accessions(dimse.port, query(period)) == ["ACC1", "ACC2"]


@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")
async def test_a_key_that_is_none_of_its_kind_is_refused(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await put(store, house, item())
    _, status = await find(dimse.port, query({"ScheduledProcedureStepStartDate": "20261345"}))
    assert status == 0xC000


async def test_a_node_sees_the_worklist_of_its_own_archive_alone(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await put(store, house, item())
    await add_house(store, "OTHER", "OTHERNODE")
    found, status = await find(dimse.port, query(), called="OTHER", calling="OTHERNODE")
    assert (found, status) == ([], 0)


@pytest.mark.conforms("PS3.4 §K.4.1", "C-CANCEL ends the search")
async def test_a_search_can_be_cancelled(dimse: DimseServer, store: Store, house: House) -> None:
    await put(store, house, *(item(number) for number in range(1, 400)))

    def talk() -> tuple[int, int]:
        entity = pynetdicom.AE("MODALITY")
        entity.add_requested_context(WORKLIST)
        association = entity.associate("127.0.0.1", dimse.port, ae_title="ARCHIVE")
        count, status = 0, -1
        for answer, _ in association.send_c_find(query(), WORKLIST, msg_id=7):
            status = int(answer.Status)
            count += status == PENDING
            if count == 1:
                association.send_c_cancel(7, query_model=WORKLIST)
        association.release()
        return count, status

    count, status = await asyncio.to_thread(talk)
    assert status in (0xFE00, 0x0000)
    assert count < 399 or status == 0x0000


@pytest.mark.conforms("PS3.5 §6.1", "the character set of the query is that of the answer")
@pytest.mark.parametrize("character_set", ["ISO_IR 100", "ISO_IR 192"])
async def test_dcmtk_finds_with_its_own_character_set(
    dimse: DimseServer, store: Store, house: House, tmp_path: Path, character_set: str
) -> None:
    await put(store, house, item(1), item(2))
    name = "Öberg*".encode("latin-1" if character_set == "ISO_IR 100" else "utf-8")
    wanted = Dataset()
    wanted.SpecificCharacterSet = character_set
    wanted.PatientName = "X"
    wanted.PatientID = "TEST-1"
    step = Dataset()
    step.Modality = None
    wanted.ScheduledProcedureStepSequence = [step]
    wanted.PatientName = name.decode("latin-1" if character_set == "ISO_IR 100" else "utf-8")
    file = tmp_path / "query.dcm"
    wanted.save_as(file, implicit_vr=True, little_endian=True)
    command = [
        need("findscu"), "-W", "-aet", "MODALITY", "-aec", "ARCHIVE", "-X", "-od", str(tmp_path),
        "127.0.0.1", str(dimse.port), str(file),
    ]  # fmt: skip
    answer = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stderr
    raw = (tmp_path / "rsp0001.dcm").read_bytes()
    expected = "Öberg^Åsa".encode("latin-1" if character_set == "ISO_IR 100" else "utf-8")
    assert expected in raw
    assert character_set.encode() in raw


async def test_what_is_no_worklist_item_is_refused(store: Store, house: House) -> None:
    broken = [
        item(1, {"00400100": {"vr": "SQ"}}),
        item(1, {"00080050": {"vr": "SH"}}),
        item(1, {"0020000D": {"vr": "UI", "Value": ["none"]}}),
        item(step={"00400001": {"vr": "AE"}}),
        item(step={"00400002": {"vr": "DA", "Value": ["soon"]}}),
        item(step={"00400020": {"vr": "CS", "Value": ["MAYBE"]}}),
    ]
    for one in broken:
        with pytest.raises(Invalid):
            await put(store, house, one)
    other = await add_house(store, "OTHER", "OTHERNODE")
    async with store.database.transaction() as tx:
        with pytest.raises(Denied):
            await service_requests.put_examination(tx, other.node, house.archive.archive_id, item())


async def test_an_item_told_again_replaces_what_was_kept(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await put(store, house, item(1))
    await put(store, house, item(1, step={"00400002": {"vr": "DA", "Value": ["20260401"]}}))
    [found], _ = await find(dimse.port, query())
    assert found.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate == "20260401"
