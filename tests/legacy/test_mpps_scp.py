"""Modality Performed Procedure Step (PS3.4 Annex F.7)."""

import asyncio
from typing import Any

import pynetdicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.association import Association
from tests.conftest import House
from tests.legacy.test_worklist_scp import accessions, find, item, put, query

from bfr_core import performed_procedure_steps
from bfr_core.store import Store
from bfr_legacy.dimse.server import DimseServer

MPPS = "1.2.840.10008.3.1.2.3.3"


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
