"""Jobs: background work, deferred in the transaction that makes it necessary.

One job per series or blob, never per instance. A job is a promise kept by rows: it survives
every crash and runs again until it has succeeded.
"""

import asyncio
import datetime
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from procrastinate import App, JobContext, PsycopgConnector, RetryStrategy
from procrastinate.exceptions import ConnectorException, UniqueViolation
from procrastinate.jobs import Job, Status
from procrastinate.worker import Worker

from bfr_core.database import CREATE_AUDIT_PARTITIONS, Transaction
from bfr_core.errors import ArchiveError, Unavailable

if TYPE_CHECKING:
    from bfr_core.store import Store

log = logging.getLogger("bfr.jobs")

CONCURRENCY = 4
POLLING_INTERVAL_S = 1.0
STALLED_AFTER_S = 30.0
KEEP_FINISHED_HOURS = 48
ATTEMPTS_MAX = 20
RETRY = RetryStrategy(max_attempts=ATTEMPTS_MAX, exponential_wait=2)

# Task bodies import what they run: that module in turn defers jobs.
app = App(connector=PsycopgConnector())


async def defer_seal(tx: Transaction, series_id: int, after_s: float) -> None:
    """Have the series sealed when it has been quiet."""
    await seal.configure(
        connection=tx.connection,
        lock=f"series-{series_id}",
        schedule_in={"seconds": max(1, round(after_s))},
    ).defer_async(series_id=series_id)


async def defer_delete_blob(tx: Transaction, key: str, after: datetime.timedelta) -> None:
    """Have a blob deleted that nothing refers to any more."""
    await delete_blob.configure(
        connection=tx.connection, schedule_in={"seconds": int(after.total_seconds())}
    ).defer_async(key=key)


def _store(context: JobContext) -> "Store":
    return cast("Store", context.additional_context["store"])


@app.task(name="seal", pass_context=True, retry=RETRY)
async def seal(context: JobContext, series_id: int) -> None:
    """Seal a series, or look again when it has been quiet long enough."""
    from bfr_core.sealing import seal_series

    store = _store(context)
    again_s = await seal_series(store, series_id)
    if again_s > 0:
        async with store.database.transaction() as tx:
            await defer_seal(tx, series_id, again_s)


@app.task(name="delete_blob", pass_context=True, retry=RETRY)
async def delete_blob(context: JobContext, key: str) -> None:
    """Delete a blob."""
    await asyncio.to_thread(_store(context).blobs.delete, key)


@app.periodic(cron="7 2 * * *")
@app.task(name="daily", pass_context=True, retry=RETRY, queueing_lock="daily")
async def daily(context: JobContext, timestamp: int) -> None:
    """Make the audit partitions of the coming months, drop old finished jobs, try failed ones."""
    from bfr_core import workitem_reports, workitems

    settings = _store(context).settings
    async with _store(context).database.transaction() as tx:
        await tx.run(CREATE_AUDIT_PARTITIONS)
        await workitems.delete_old(tx, settings.workitem_keep_days)
        await workitem_reports.delete_old(tx, settings.workitem_report_keep_hours)
    await app.job_manager.delete_old_jobs(nb_hours=KEEP_FINISHED_HOURS)
    # What made them fail may have been mended since.
    for job in await app.job_manager.list_jobs_async(status=Status.FAILED.value):
        await _run_again(job)


@app.periodic(cron="* * * * *")
@app.task(name="retry_stalled", pass_context=True, queueing_lock="retry_stalled")
async def retry_stalled(context: JobContext, timestamp: int) -> None:
    """Run the jobs again whose worker has died."""
    for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=STALLED_AFTER_S):
        log.warning("job %s (%s) of a dead worker starts again", job.id, job.task_name)
        await _run_again(job)


async def _run_again(job: Job) -> None:
    try:
        await app.job_manager.retry_job(job)
    except UniqueViolation:
        # A periodic job, and its next one waits already: that one does the work of both.
        if job.status == Status.DOING.value:
            await app.job_manager.finish_job(job, Status.ABORTED, delete_job=True)


async def _tell_failure(
    run_job: Callable[[], Awaitable[Any]], context: JobContext, worker: Worker
) -> Any:
    # Procrastinate would tell of the last attempt only, which comes days after the first, and
    # with the text of every error: that of the database may quote a row.
    try:
        return await run_job()
    except Exception as error:  # the edge: it is told here and goes on to procrastinate
        job = context.job
        log.warning(
            "job %s (%s) failed, attempt %d of %d: %s",
            *(job.id, job.task_name, job.attempts + 1, ATTEMPTS_MAX, _reason(error)),
        )
        raise


def _reason(error: Exception) -> str:
    if isinstance(error, ArchiveError):
        return error.message
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name} ({frame.filename}:{frame.lineno})"


async def run_worker(store: "Store", stop: asyncio.Event) -> None:
    """Run jobs until `stop` is set; those under way are ended first.

    Raises Unavailable when the database breaks off: its jobs are run again by the next worker.
    """
    try:
        await _run_worker(store, stop)
    except ConnectorException as error:
        raise Unavailable("the worker has lost the database") from error


async def _run_worker(store: "Store", stop: asyncio.Event) -> None:
    connector = PsycopgConnector(conninfo=store.database_url, min_size=1, max_size=CONCURRENCY + 2)
    with app.replace_connector(connector):
        async with app.open_async():
            worker = asyncio.create_task(
                app.run_worker_async(
                    concurrency=CONCURRENCY,
                    fetch_job_polling_interval=POLLING_INTERVAL_S,
                    install_signal_handlers=False,
                    additional_context={"store": store},
                    delete_jobs="never",
                    shutdown_graceful_timeout=store.settings.stop_timeout_s,
                    worker_middleware=[_tell_failure],
                )
            )
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({worker, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if worker.done():
                await worker  # which tells nothing when it has lost the database
                raise Unavailable("the worker has lost the database")
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
