"""The next object of a series under way is registered at once, or left to the whole commit."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from pydicom import Dataset
from tests.conftest import House
from tests.core.test_receiving import count, receive, seal_all, stored_bytes
from tests.samples import ct_instance, ct_series, part10_bytes

from bfr_core.errors import Unavailable
from bfr_core.postgres import Cluster
from bfr_core.receiving import Received, Reception
from bfr_core.store import Store


@pytest.fixture
def reception(store: Store, house: House) -> Reception:
    return Reception(store, house.node, house.archive, "C-STORE")


async def arrive(store: Store, reception: Reception, dataset: Dataset) -> tuple[Received, bool]:
    """Receive an object as a door does, short of the whole commit."""

    def run() -> tuple[Received, bool]:
        received = receive(reception, part10_bytes(dataset))
        received.sync()
        return received, store.continuing.commit(received) is not None

    return await asyncio.to_thread(run)


async def begin(store: Store, reception: Reception, dataset: Dataset) -> None:
    """Store the first object of a series, which goes the whole way."""
    received, committed = await arrive(store, reception, dataset)
    assert not committed
    (outcome,) = await store.commit([received])
    assert outcome.stored == "new"


async def test_the_next_object_exists_at_once(store: Store, reception: Reception) -> None:
    first, *others = ct_series(5)
    await begin(store, reception, first)
    for dataset in others:
        assert (await arrive(store, reception, dataset))[1]
    reception.close()
    expected = [part10_bytes(dataset) for dataset in (first, *others)]
    assert await stored_bytes(store, first.StudyInstanceUID) == expected
    async with store.database.transaction() as tx:
        (series,) = await tx.rows("SELECT * FROM series")
        (study,) = await tx.rows("SELECT * FROM study")
    size_bytes = sum(map(len, expected))
    for row in (series, study):
        assert (row["number_of_instances"], row["size_bytes"]) == (5, size_bytes)
    await seal_all(store)
    assert await stored_bytes(store, first.StudyInstanceUID) == expected
    assert await count(store, "audit_record WHERE action = 'store'") == 1


async def test_a_sealed_series_is_left_to_the_whole_commit(
    store: Store, reception: Reception
) -> None:
    first, late = ct_series(2)
    await begin(store, reception, first)
    await seal_all(store)
    received, committed = await arrive(store, reception, late)
    assert not committed
    (outcome,) = await store.commit([received])
    assert outcome.stored == "new"
    assert await count(store, "event WHERE kind = 'series_reopened'") == 1


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("same_series", [False, True])
async def test_a_uid_that_is_stored_already_is_left_to_the_whole_commit(
    store: Store, reception: Reception, sealed: bool, same_series: bool
) -> None:
    first, second = ct_series(2)
    stored = second if same_series else ct_instance()
    await begin(store, reception, stored)
    if sealed and not same_series:
        await seal_all(store)
    if not same_series:
        await begin(store, reception, first)
    other = ct_instance(
        SOPInstanceUID=stored.SOPInstanceUID,
        StudyInstanceUID=first.StudyInstanceUID,
        SeriesInstanceUID=first.SeriesInstanceUID,
        PatientID=first.PatientID,
        ImageComments="not the same",
    )
    received, committed = await arrive(store, reception, other)
    assert not committed
    (outcome,) = await store.commit([received])
    assert outcome.error is not None
    assert await count(store, "series WHERE number_of_instances <> 1") == 0
    assert await stored_bytes(store, stored.StudyInstanceUID) == [part10_bytes(stored)]


async def test_an_object_of_another_patient_is_left_to_the_whole_commit(
    store: Store, reception: Reception
) -> None:
    first, second = ct_series(2)
    await begin(store, reception, first)
    second.PatientID = "SOMEBODY ELSE"
    assert not (await arrive(store, reception, second))[1]
    assert await count(store, "instance") == 1


async def test_another_sender_writes_its_own_audit_record_first(
    store: Store, house: House, reception: Reception
) -> None:
    first, second, third = ct_series(3)
    await begin(store, reception, first)
    other = Reception(store, house.node, house.archive, "C-STORE")
    await begin(store, other, second)
    assert (await arrive(store, other, third))[1]
    assert await count(store, "audit_record WHERE action = 'store'") == 2


async def test_many_senders_of_one_study_lose_and_double_nothing(
    store: Store, house: House
) -> None:
    series = [ct_series(12) for _ in range(4)]
    for one in series:
        for dataset in one:
            dataset.StudyInstanceUID = series[0][0].StudyInstanceUID
            dataset.PatientID = series[0][0].PatientID
    loop = asyncio.get_running_loop()

    def send(datasets: list[Dataset]) -> int:
        at_once = 0
        reception = Reception(store, house.node, house.archive, "C-STORE")
        for dataset in datasets:
            received = receive(reception, part10_bytes(dataset))
            received.sync()
            if store.continuing.commit(received):
                at_once += 1
            else:
                asyncio.run_coroutine_threadsafe(store.commit([received]), loop).result()
        reception.close()
        return at_once

    with ThreadPoolExecutor(4) as threads:
        at_once = await asyncio.gather(
            *(loop.run_in_executor(threads, send, one) for one in series)
        )
    assert at_once == [11] * 4
    await seal_all(store)
    async with store.database.transaction() as tx:
        (study,) = await tx.rows("SELECT number_of_series, number_of_instances FROM study")
    assert study == {"number_of_series": 4, "number_of_instances": 48}
    assert len(await stored_bytes(store, series[0][0].StudyInstanceUID)) == 48


async def test_a_lost_database_is_told_once_and_then_forgotten(
    store: Store, reception: Reception, cluster: Cluster, database_name: str
) -> None:
    first, second, third = ct_series(3)
    await begin(store, reception, first)
    assert (await arrive(store, reception, second))[1]
    with psycopg.connect(cluster.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND pid <> pg_backend_pid()",
            [database_name],
        )
    with pytest.raises(Unavailable):
        await arrive(store, reception, third)
    assert (await arrive(store, reception, third))[1]
