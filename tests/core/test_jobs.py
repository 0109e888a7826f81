"""Jobs: whatever becomes of the worker, what was promised is done."""

import asyncio
import datetime
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psycopg
import pytest
from procrastinate import JobContext, PsycopgConnector
from procrastinate.jobs import Job
from tests.conftest import House, add_house
from tests.samples import ct_instance, part10_bytes

from bfr_core import jobs, statistics
from bfr_core.errors import Unavailable
from bfr_core.postgres import Cluster
from bfr_core.receiving import Reception
from bfr_core.sealing import seal_series
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store

PATIENCE_S = 60.0
FIRST = "(SELECT min(id) FROM procrastinate_jobs)"


@pytest.fixture
async def house(house: House, store: Store) -> House:
    """A house whose own job, which keeps it beside the packs, is out of the way."""
    await execute(store, "DELETE FROM procrastinate_jobs")
    return house


async def receive_one(store: Store, house: House, **attributes: object) -> None:
    reception = Reception(store, house.node, house.archive, "C-STORE")
    try:
        incoming = reception.incoming_part10()
        incoming.write(part10_bytes(ct_instance(**attributes)))  # type: ignore[arg-type]
        await store.commit([incoming.finish()])
    finally:
        reception.close()


async def series_states(store: Store) -> list[str]:
    async with store.database.transaction() as tx:
        return [str(row[0]) for row in await tx.tuples("SELECT state FROM series")]


async def job_states(store: Store, task: str) -> list[tuple[str, int]]:
    async with store.database.transaction() as tx:
        rows = await tx.tuples(
            "SELECT status::text, attempts FROM procrastinate_jobs WHERE task_name = %(task)s"
            " ORDER BY id",
            task=task,
        )
    return [(str(status), int(attempts)) for status, attempts in rows]


async def execute(store: Store, statement: str) -> None:
    async with store.database.transaction() as tx:
        await tx.run(statement)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.02)


@asynccontextmanager
async def worker(store: Store) -> AsyncIterator[asyncio.Event]:
    """Run a worker for the length of the block."""
    stop = asyncio.Event()
    running = asyncio.create_task(jobs.run_worker(store, stop))
    try:
        yield stop
    finally:
        stop.set()
        await running


@asynccontextmanager
async def opened(store: Store) -> AsyncIterator[JobContext]:
    """Open the jobs of the store without a worker, to run single tasks by hand."""
    connector = PsycopgConnector(conninfo=store.database_url, min_size=1, max_size=2)
    with jobs.app.replace_connector(connector):
        async with jobs.app.open_async():
            context = JobContext(
                app=jobs.app,
                job=Job(id=0, queue="default", lock=None, queueing_lock=None, task_name="test"),
                additional_context={"store": store},
                abort_reason=lambda: None,
                start_timestamp=0.0,
            )
            yield context


async def fetched_by_a_worker_that_dies(store: Store) -> Job:
    """Return a job as a worker leaves it that is killed with the job in hand."""
    async with opened(store):
        worker_id = await jobs.app.job_manager.register_worker()
        job = await jobs.app.job_manager.fetch_job(queues=None, worker_id=worker_id)
        assert job is not None
    await execute(
        store, "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'"
    )
    return job


async def make_due(store: Store) -> None:
    await execute(store, "UPDATE procrastinate_jobs SET scheduled_at = now() - interval '1 s'")


async def test_a_received_series_is_sealed_by_the_worker(store: Store, house: House) -> None:
    await receive_one(store, house)
    async with worker(store):
        await until(lambda: sealed(store))
    assert ("succeeded", 1) in await job_states(store, "seal")


async def sealed(store: Store) -> bool:
    return set(await series_states(store)) == {"sealed"}


async def test_a_job_of_a_killed_worker_runs_again(store: Store, house: House) -> None:
    await receive_one(store, house)
    await make_due(store)
    await fetched_by_a_worker_that_dies(store)
    assert await job_states(store, "seal") == [("doing", 0)]
    async with opened(store) as context:
        await jobs.retry_stalled(context, timestamp=0)
    assert await job_states(store, "seal") == [("todo", 1)]
    async with worker(store):
        await until(lambda: sealed(store))


async def test_a_job_of_a_worker_that_lives_is_left_alone(store: Store, house: House) -> None:
    await receive_one(store, house)
    await make_due(store)
    await fetched_by_a_worker_that_dies(store)
    await execute(store, "UPDATE procrastinate_workers SET last_heartbeat = now()")
    async with opened(store) as context:
        await jobs.retry_stalled(context, timestamp=0)
    assert await job_states(store, "seal") == [("doing", 0)]


async def test_a_worker_killed_between_manifest_and_commit_loses_nothing(
    store: Store, house: House
) -> None:
    """The manifest lies there, the rows too: the next worker begins anew."""
    await receive_one(store, house)
    await make_due(store)
    await fetched_by_a_worker_that_dies(store)
    store.blobs.put(store.blobs.new_key(house.archive.archive_id, "manifest"), b"half the work")
    async with opened(store) as context:
        await jobs.retry_stalled(context, timestamp=0)
    async with worker(store):
        await until(lambda: sealed(store))
    async with store.database.transaction() as tx:
        assert await tx.value("SELECT count(*) FROM instance") == 0
        assert await tx.value("SELECT count(locator_key) FROM series") == 1


async def test_a_periodic_job_of_a_killed_worker_stands_in_nobodys_way(
    store: Store, house: House
) -> None:
    async with opened(store):
        await jobs.retry_stalled.configure().defer_async(timestamp=1)
    await fetched_by_a_worker_that_dies(store)
    await receive_one(store, house)
    await make_due(store)
    await fetched_by_a_worker_that_dies(store)
    async with opened(store) as context:
        await jobs.retry_stalled.configure().defer_async(timestamp=2)
        await jobs.retry_stalled(context, timestamp=0)
    assert await job_states(store, "seal") == [("todo", 1)]
    assert await job_states(store, "retry_stalled") == [("todo", 0)]


async def test_a_sealing_that_outlasts_the_stop_is_done_by_the_next_worker(
    with_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(with_settings(stop_timeout_s=0.2)) as store:
        house = await add_house(store, "ARCHIVE", "MODALITY")
        await receive_one(store, house)
        await make_due(store)
        begun, go_on = threading.Event(), threading.Event()
        put = store.blobs.put

        def put_slowly(key: str, data: bytes) -> None:
            begun.set()
            go_on.wait(PATIENCE_S)
            put(key, data)

        with monkeypatch.context() as patched:
            patched.setattr(store.blobs, "put", put_slowly)
            async with worker(store):
                await asyncio.to_thread(begun.wait, PATIENCE_S)
        go_on.set()
        assert await job_states(store, "seal") == [("todo", 1)]
        assert await series_states(store) == ["receiving"]
        await make_due(store)
        async with worker(store):
            await until(lambda: sealed(store))


async def test_a_job_that_fails_is_told_and_tried_again(
    store: Store, house: House, caplog: pytest.LogCaptureFixture
) -> None:
    await receive_one(store, house, SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2")
    async with store.database.transaction() as tx:
        series_id = await tx.value("SELECT series_id FROM series")
    await seal_series(store, series_id)
    await receive_one(store, house, SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2")
    (manifest,) = store.blobs.directory.rglob("*.manifest")
    manifest.write_bytes(bytes(len(manifest.read_bytes())))
    await make_due(store)
    async with open_store(store.settings) as other:
        with caplog.at_level(logging.WARNING, "bfr.jobs"):
            async with worker(other):
                await until(lambda: told(caplog))
    assert ("todo", 1) in await job_states(store, "seal")
    assert "(seal) failed, attempt 1 of 20: the index of a manifest is damaged" in caplog.text


async def told(caplog: pytest.LogCaptureFixture) -> bool:
    return "failed, attempt" in caplog.text


async def test_a_worker_that_loses_the_database_ends_and_says_so(
    store: Store, cluster: Cluster, database_name: str
) -> None:
    running = asyncio.create_task(jobs.run_worker(store, asyncio.Event()))

    async def is_there() -> bool:
        async with store.database.transaction() as tx:
            return bool(await tx.value("SELECT count(*) = 1 FROM procrastinate_workers"))

    await until(is_there)
    server = cluster.url("postgres", "postgres")
    async with await psycopg.AsyncConnection.connect(server, autocommit=True) as connection:
        await connection.execute(f"ALTER DATABASE {database_name} ALLOW_CONNECTIONS false".encode())
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [database_name],
        )
        await asyncio.sleep(1)  # in which it cannot listen
        await connection.execute(f"ALTER DATABASE {database_name} ALLOW_CONNECTIONS true".encode())
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(Unavailable, match="the worker has lost the database"):
                await running


async def test_the_daily_job_runs_as_the_application(
    store: Store, settings: Settings, house: House
) -> None:
    with psycopg.connect(settings.database_owner_url, autocommit=True) as connection:
        for name in connection.execute(
            "SELECT relid::text FROM pg_partition_tree('audit_record')"
            " WHERE isleaf AND relid::text <> 'audit_record_default'"
        ).fetchall():
            connection.execute(f"DROP TABLE {name[0]}".encode())
    async with opened(store) as context:
        await jobs.daily(context, timestamp=int(datetime.datetime.now().timestamp()))
    async with store.database.transaction() as tx:
        assert await tx.value("SELECT count(*) FROM pg_partition_tree('audit_record')") == 5


async def test_the_daily_job_drops_what_is_done_and_tries_again_what_failed(
    store: Store, house: House
) -> None:
    for _ in range(3):
        await receive_one(store, house)
    await execute(
        store,
        "UPDATE procrastinate_jobs SET status ="
        f" (CASE id WHEN {FIRST} THEN 'failed' ELSE 'succeeded' END)::procrastinate_job_status"
        f" WHERE id < {FIRST} + 2",
    )
    await execute(
        store,
        "UPDATE procrastinate_events SET at = now() - interval '3 days'"
        f" WHERE job_id < {FIRST} + 2",
    )
    async with store.database.transaction() as tx:
        (troubled,) = await statistics.troubled_jobs(tx)
    assert (troubled.task, troubled.failed, troubled.retried) == ("seal", 1, 0)
    async with opened(store) as context:
        await jobs.daily(context, timestamp=0)
    assert await job_states(store, "seal") == [("todo", 1), ("todo", 0)]
    async with worker(store):
        await until(lambda: nothing_left(store))
    assert sorted(await series_states(store)) == ["receiving", "sealed", "sealed"]


async def nothing_left(store: Store) -> bool:
    return {status for status, _ in await job_states(store, "seal")} == {"succeeded"}


async def test_what_was_done_lately_stays_to_be_looked_at(store: Store, house: House) -> None:
    await receive_one(store, house)
    await execute(store, "UPDATE procrastinate_jobs SET status = 'succeeded'")
    async with opened(store) as context:
        await jobs.daily(context, timestamp=0)
    assert await job_states(store, "seal") == [("succeeded", 0)]


async def test_jobs_that_fail_again_and_again_are_seen_before_they_have_failed_for_good(
    store: Store, house: House
) -> None:
    for _ in range(2):
        await receive_one(store, house)
    async with store.database.transaction() as tx:
        assert await statistics.troubled_jobs(tx) == []
    await execute(store, f"UPDATE procrastinate_jobs SET attempts = 5 WHERE id = {FIRST}")
    async with store.database.transaction() as tx:
        (troubled,) = await statistics.troubled_jobs(tx)
    assert (troubled.task, troubled.failed, troubled.retried) == ("seal", 0, 1)


async def test_a_blob_is_deleted_when_its_time_has_come(store: Store) -> None:
    store.blobs.put("1/old.manifest", b"x")
    async with store.database.transaction() as tx:
        await jobs.defer_delete_blob(tx, "1/old.manifest", datetime.timedelta(hours=1))
    path = store.blobs.path("1/old.manifest")
    async with worker(store):
        await asyncio.sleep(0.2)
        assert path.exists()
        await make_due(store)
        await until(lambda: gone(store, "1/old.manifest"))


async def gone(store: Store, key: str) -> bool:
    return not store.blobs.path(key).exists()


async def test_a_job_of_a_transaction_that_rolls_back_is_none(store: Store) -> None:
    async def promise_and_fail() -> None:
        async with store.database.transaction() as tx:
            await jobs.defer_seals(tx, [1], 1.0)
            raise RuntimeError("the commit failed")

    with pytest.raises(RuntimeError):
        await promise_and_fail()
    assert await job_states(store, "seal") == []


async def test_a_series_that_is_gone_is_no_failure(store: Store) -> None:
    async with store.database.transaction() as tx:
        await jobs.defer_seals(tx, [12345], 0.0)
    await make_due(store)
    async with worker(store):
        await until(lambda: finished(store))


async def finished(store: Store) -> bool:
    return await job_states(store, "seal") == [("succeeded", 1)]
