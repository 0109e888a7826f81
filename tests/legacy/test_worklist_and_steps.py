"""Modality Worklist and Modality Performed Procedure Step (PS3.4 Annexes K and F.7)."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pynetdicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.association import Association
from tests.conftest import House, add_house, need

from bfr_core import performed_procedure_steps, service_requests
from bfr_core.access import operator
from bfr_core.errors import Denied, Invalid
from bfr_core.store import Store
from bfr_legacy.dimse.server import DimseServer

WORKLIST = "1.2.840.10008.5.1.4.31"
MPPS = "1.2.840.10008.3.1.2.3.3"
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


# Worklist ------------------------------------------------------------------------------------


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


# Performed procedure steps -------------------------------------------------------------------


def begun(number: int = 1, **changes: Any) -> Dataset:
    step = Dataset()
    step.StudyInstanceUID = f"1.2.3.{number}"
    step.AccessionNumber = f"ACC{number}"
    step.ScheduledProcedureStepID = f"STEP{number}"
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ScheduledStepAttributesSequence = [step]
    dataset.PatientName = "Öberg^Åsa"
    dataset.PatientID = f"TEST-{number}"
    dataset.PerformedProcedureStepID = f"PPS{number}"
    dataset.PerformedStationAETitle = "CT1"
    dataset.PerformedProcedureStepStartDate = "20260310"
    dataset.PerformedProcedureStepStartTime = "1035"
    dataset.PerformedProcedureStepStatus = "IN PROGRESS"
    dataset.Modality = "CT"
    dataset.PerformedSeriesSequence = []
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def ended(status: str = "COMPLETED", **changes: Any) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = "1.2.3.1.1"
    series.ProtocolName = "Thorax"
    dataset = Dataset()
    dataset.PerformedProcedureStepStatus = status
    dataset.PerformedProcedureStepEndDate = "20260310"
    dataset.PerformedProcedureStepEndTime = "1050"
    dataset.PerformedSeriesSequence = [series]
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


class Modality:
    """Tells of its steps over one association."""

    def __init__(self, port: int) -> None:
        entity = pynetdicom.AE("MODALITY")
        entity.add_requested_context(MPPS, ImplicitVRLittleEndian)
        self.association: Association = entity.associate("127.0.0.1", port, ae_title="ARCHIVE")
        assert self.association.is_established

    @classmethod
    async def call(cls, port: int) -> "Modality":
        return await asyncio.to_thread(cls, port)

    async def create(self, dataset: Dataset, uid: str | None = "1.2.3.77") -> Dataset:
        status, _ = await asyncio.to_thread(self.association.send_n_create, dataset, MPPS, uid)
        return status

    async def set(self, dataset: Dataset, uid: str = "1.2.3.77") -> Dataset:
        status, _ = await asyncio.to_thread(self.association.send_n_set, dataset, MPPS, uid)
        return status

    async def leave(self) -> None:
        await asyncio.to_thread(self.association.release)


async def statuses(store: Store) -> tuple[list[str], list[str]]:
    """Those of the performed steps, and of the examinations."""
    async with store.database.transaction() as tx:
        steps = await tx.tuples(
            "SELECT status FROM performed_procedure_step ORDER BY performed_procedure_step_id"
        )
        examinations = await tx.tuples("SELECT status FROM examination ORDER BY examination_id")
    return [str(one) for (one,) in steps], [str(one) for (one,) in examinations]


@pytest.mark.conforms("PS3.4 §F.7.2", "a step is in progress, then completed or discontinued")
@pytest.mark.parametrize("final", ["COMPLETED", "DISCONTINUED"])
async def test_a_step_is_told_of_from_its_beginning_to_its_end(
    dimse: DimseServer, store: Store, house: House, final: str
) -> None:
    await put(store, house, item(1), item(2))
    modality = await Modality.call(dimse.port)
    assert (await modality.create(begun())).Status == 0
    assert await statuses(store) == (["IN PROGRESS"], ["STARTED", "SCHEDULED"])
    [first, _], _ = await find(dimse.port, query())
    assert first.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStatus == "STARTED"
    assert (await modality.set(ended(final))).Status == 0
    await modality.leave()
    assert await statuses(store) == ([final], [final, "SCHEDULED"])
    assert await accessions(dimse.port, query()) == ["ACC2"]


@pytest.mark.conforms("PS3.4 §F.7.2.2", "a step that is over is changed no more")
async def test_a_step_that_is_over_is_changed_no_more(
    dimse: DimseServer, store: Store, house: House
) -> None:
    modality = await Modality.call(dimse.port)
    await modality.create(begun())
    await modality.set(ended())
    answer = await modality.set(ended("DISCONTINUED"))
    assert (answer.Status, answer.ErrorID) == (0x0110, 0xA710)
    await modality.leave()
    assert (await statuses(store))[0] == ["COMPLETED"]


@pytest.mark.conforms("PS3.4 Table F.7.2-1", "what has to be told is told")
@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Modality": None}, 0x0120),
        ({"PerformedStationAETitle": ""}, 0x0121),
        ({"ScheduledStepAttributesSequence": []}, 0x0121),
        ({"ScheduledStepAttributesSequence": [Dataset()]}, 0x0121),
        ({"PerformedProcedureStepStatus": "COMPLETED"}, 0x0106),
    ],
    ids=str,
)
async def test_a_step_that_lacks_something_is_not_begun(
    dimse: DimseServer, store: Store, house: House, changes: dict[str, Any], status: int
) -> None:
    modality = await Modality.call(dimse.port)
    assert (await modality.create(begun(**changes))).Status == status
    await modality.leave()
    assert (await statuses(store))[0] == []


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"PerformedProcedureStepEndDate": None}, 0x0120),
        ({"PerformedProcedureStepEndTime": ""}, 0x0121),
        ({"PerformedSeriesSequence": []}, 0x0121),
        ({"PerformedProcedureStepStatus": "DONE"}, 0x0106),
    ],
    ids=str,
)
async def test_a_step_that_lacks_something_does_not_end(
    dimse: DimseServer, store: Store, house: House, changes: dict[str, Any], status: int
) -> None:
    modality = await Modality.call(dimse.port)
    await modality.create(begun())
    assert (await modality.set(ended(**changes))).Status == status
    await modality.leave()
    assert (await statuses(store))[0] == ["IN PROGRESS"]


@pytest.mark.conforms("PS3.7 §10.1.5", "a UID is given once; without one the SCP gives it")
async def test_uids_of_steps(dimse: DimseServer, store: Store, house: House) -> None:
    modality = await Modality.call(dimse.port)
    assert (await modality.create(begun())).Status == 0
    assert (await modality.create(begun())).Status == 0x0111
    assert (await modality.create(begun(2), None)).Status == 0
    assert (await modality.set(ended(), "1.2.3.99")).Status == 0x0112
    await modality.leave()
    assert (await statuses(store))[0] == ["IN PROGRESS", "IN PROGRESS"]


async def test_what_may_not_be_changed_stays(
    dimse: DimseServer, store: Store, house: House
) -> None:
    modality = await Modality.call(dimse.port)
    await modality.create(begun())
    answer = await modality.set(ended(PatientID="SOMEBODY ELSE"))
    assert answer.Status == 0x0107
    await modality.leave()
    async with store.database.transaction() as tx:
        patient = await tx.value(
            "SELECT attributes #>> '{00100020,Value,0}' FROM performed_procedure_step"
        )
    assert patient == "TEST-1"
    assert (await statuses(store))[0] == ["COMPLETED"]


async def test_what_a_database_cannot_hold_is_no_reason_to_refuse_a_step(
    dimse: DimseServer, store: Store, house: House
) -> None:
    modality = await Modality.call(dimse.port)
    assert (await modality.create(begun(PerformedLocation="room\x00 1"))).Status == 0
    assert (await modality.set(ended(), "1.2.3.77")).Status == 0
    await modality.leave()


async def test_each_message_is_kept_as_it_came(
    dimse: DimseServer, store: Store, house: House
) -> None:
    modality = await Modality.call(dimse.port)
    await modality.create(begun())
    await modality.set(ended())
    await modality.leave()
    async with store.database.transaction() as tx:
        rows = await tx.tuples(
            "SELECT service, caller, transfer_syntax_uid, dataset"
            " FROM performed_procedure_step_message ORDER BY message_id"
        )
    assert [row[:3] for row in rows] == [
        ("N-CREATE", "MODALITY", ImplicitVRLittleEndian),
        ("N-SET", "MODALITY", ImplicitVRLittleEndian),
    ]
    assert "Öberg^Åsa".encode("latin-1") in rows[0][3]


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (["IN PROGRESS", "COMPLETED"], "STARTED"),
        (["DISCONTINUED", "COMPLETED"], "COMPLETED"),
        (["DISCONTINUED"], "DISCONTINUED"),
    ],
)
def test_an_examination_follows_all_of_its_steps(held: list[str], expected: str) -> None:
    assert performed_procedure_steps.examination_status(held) == expected
