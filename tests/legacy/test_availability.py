"""Instance Availability Notification to the nodes that want it (PS3.4 Annex R)."""

from collections.abc import Awaitable, Callable

import pytest
from pydicom.dataset import Dataset
from tests.conftest import House
from tests.legacy.nodes import move_node, running_node
from tests.legacy.test_commitment_scp import attempts, hasten, until, worker
from tests.legacy.test_mpps_scp import Modality, begun
from tests.legacy.test_store_scp import data_set, send
from tests.legacy.test_tls import set_terms
from tests.legacy.test_worklist_scp import item, put

from bfr_core import jobs
from bfr_core.sealing import seal_series
from bfr_core.store import Store
from bfr_legacy.dimse.server import DimseServer

IAN = "1.2.840.10008.5.1.4.33"
STUDY = "1.3.6.1.4.1.9999.1"


async def store_series(port: int, *series: str) -> None:
    for number, one in enumerate(series):
        data = data_set(SOPInstanceUID=f"1.2.3.{number}.9", SeriesInstanceUID=one)
        assert await send(port, data, sop_instance_uid=f"1.2.3.{number}.9") == [(0, "")]


async def seal(store: Store, count: int) -> None:
    async with store.database.transaction() as tx:
        ids = await tx.tuples(
            "SELECT series_id FROM series ORDER BY series_id LIMIT %(n)s", n=count
        )
    for (series_id,) in ids:
        assert await seal_series(store, series_id) == 0


async def waiting(store: Store) -> int:
    async with store.database.transaction() as tx:
        return int(
            await tx.value(
                "SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'notify_availability'"
            )
        )


def told(node_told: list[tuple[str, int | None, Dataset]]) -> Callable[[], Awaitable[bool]]:
    async def condition() -> bool:
        return bool(node_told)

    return condition


@pytest.mark.conforms("PS3.4 §R.3.1", "a node that wants it is told of each study when complete")
async def test_a_study_is_told_of_when_its_last_series_is_sealed(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await set_terms(store, availability_wanted=True)
    await store_series(dimse.port, "1.2.3.1", "1.2.3.2")
    await seal(store, 1)
    assert await waiting(store) == 0
    await seal(store, 2)
    assert await waiting(store) == 1
    with running_node([IAN]) as node:
        await move_node(store, house, node.port)
        async with worker(store):
            await until(told(node.told))
    [(_, _, notice)] = node.told
    assert notice.StudyInstanceUID == STUDY
    assert len(notice.ReferencedPerformedProcedureStepSequence or []) == 0
    series = {
        one.SeriesInstanceUID: one.ReferencedSOPSequence for one in notice.ReferencedSeriesSequence
    }
    assert set(series) == {"1.2.3.1", "1.2.3.2"}
    [instance] = series["1.2.3.1"]
    assert instance.ReferencedSOPInstanceUID == "1.2.3.0.9"
    assert instance.InstanceAvailability == "ONLINE"
    assert instance.RetrieveAETitle == "ARCHIVE"


async def test_nobody_is_told_who_does_not_want_it(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await store_series(dimse.port, "1.2.3.1")
    await seal(store, 1)
    assert await waiting(store) == 0


async def test_the_notice_names_the_performed_procedure_step(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await set_terms(store, availability_wanted=True)
    await put(store, house, item(1, {"0020000D": {"vr": "UI", "Value": [STUDY]}}))
    modality = await Modality.call(dimse.port)
    step = begun(1)
    step.ScheduledStepAttributesSequence[0].StudyInstanceUID = STUDY
    assert (await modality.create(step)).Status == 0
    await modality.leave()
    await store_series(dimse.port, "1.2.3.1")
    await seal(store, 1)
    with running_node([IAN]) as node:
        await move_node(store, house, node.port)
        async with worker(store):
            await until(told(node.told))
    [reference] = node.told[0][2].ReferencedPerformedProcedureStepSequence
    assert reference.ReferencedSOPInstanceUID == "1.2.3.77"


async def test_a_node_that_is_away_is_told_when_it_is_back(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await set_terms(store, availability_wanted=True)
    await move_node(store, house, 1)
    await store_series(dimse.port, "1.2.3.1")
    await seal(store, 1)
    async with worker(store):

        async def has_failed() -> bool:
            return await attempts(store, "notify_availability") > 0

        await until(has_failed)
        with running_node([IAN]) as node:
            await move_node(store, house, node.port)
            await hasten(store)
            await until(told(node.told))
            node_told = list(node.told)
    assert len(node_told) == 1


def test_the_ladder_ends_after_its_last_rung() -> None:
    class Tried:
        def __init__(self, attempts: int) -> None:
            self.attempts = attempts

    ladder = jobs.Ladder((5, 30))
    decisions = [ladder.get_retry_decision(job=Tried(n)) for n in range(3)]  # type: ignore[arg-type]
    assert [decision is not None for decision in decisions] == [True, True, False]
