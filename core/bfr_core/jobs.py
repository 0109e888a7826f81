"""Jobs: background work, deferred in the transaction that makes it necessary.

One job per series or blob, never per instance. A job is a promise kept by rows: it survives
every crash and runs again until it has succeeded.
"""

import asyncio
import datetime
import logging
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from procrastinate import (
    App,
    BaseRetryStrategy,
    JobContext,
    PsycopgConnector,
    RetryDecision,
    RetryStrategy,
)
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException, UniqueViolation
from procrastinate.jobs import Job, Status
from procrastinate.worker import Worker

from bfr_core import statistics
from bfr_core.database import CREATE_AUDIT_PARTITIONS, Transaction
from bfr_core.errors import ArchiveError, Unavailable
from bfr_core.metrics import outcome_of
from bfr_core.observation import Observation

if TYPE_CHECKING:
    from bfr_core.outgoing import Outgoing
    from bfr_core.store import Store

log = logging.getLogger("bfr.jobs")

CONCURRENCY = 4
POLLING_INTERVAL_S = 1.0
STALLED_AFTER_S = 30.0
KEEP_FINISHED_HOURS = 48
ATTEMPTS_MAX = 20
RESTORE_AFTER_S = 60  # the command that undoes a deletion restores at once
VERIFY_PRIORITY = -10  # what somebody waits for comes first
RETRY = RetryStrategy(max_attempts=ATTEMPTS_MAX, exponential_wait=2)

# A node that does not answer: soon again, then every hour for two days.
NODE_WAITS_S = (5, 30, 120, 600, 1800, *[3600] * 46)


class Ladder(BaseRetryStrategy):
    """Tries again after each of the waits, then no more."""

    def __init__(self, waits_s: Sequence[int]) -> None:
        self._waits_s = waits_s

    def get_retry_decision(
        self, *, exception: BaseException | None = None, job: Job
    ) -> RetryDecision | None:
        """Return when the job is to be run again; None when it has failed for good."""
        if job.attempts >= len(self._waits_s):
            return None
        return RetryDecision(retry_in={"seconds": self._waits_s[job.attempts]})


NODE_RETRY = Ladder(NODE_WAITS_S)
NODE_TASKS = frozenset({"report_commitment", "request_commitment", "notify_availability"})

# Task bodies import what they run: that module in turn defers jobs.
app = App(connector=PsycopgConnector())


async def defer_seals(tx: Transaction, series_ids: Sequence[int], after_s: float) -> None:
    """Have each series sealed when it has been quiet."""
    if not series_ids:
        return
    deferred = [
        seal.configure(
            lock=f"series-{series_id}", schedule_in={"seconds": max(1, round(after_s))}
        ).make_new_job(series_id=series_id)
        for series_id in series_ids
    ]
    await app.job_manager.batch_defer_jobs_async(jobs=deferred, connection=tx.connection)


async def defer_delete_blob(tx: Transaction, key: str, after: datetime.timedelta) -> None:
    """Have a blob deleted that nothing refers to any more."""
    await delete_blob.configure(
        connection=tx.connection, schedule_in={"seconds": int(after.total_seconds())}
    ).defer_async(key=key)


async def defer_upload(tx: Transaction, after_s: float = 0.0) -> None:
    """Have the spool uploaded; nothing when that is to happen already."""
    try:
        # A transaction within the caller's: what is refused as a second one does not end that.
        async with tx.connection.transaction():
            await upload.configure(
                connection=tx.connection, schedule_in={"seconds": round(after_s)}
            ).defer_async(timestamp=0)
    except AlreadyEnqueued:
        return


async def defer_drop_pack(tx: Transaction, key: str, after: datetime.timedelta) -> None:
    """Have a pack deleted when nothing refers to it by then."""
    await drop_pack.configure(
        connection=tx.connection, schedule_in={"seconds": int(after.total_seconds())}
    ).defer_async(key=key)


async def defer_compact(tx: Transaction, deletion_id: int, after: datetime.timedelta) -> None:
    """Have the bytes of deleted objects taken out of their packs."""
    await compact.configure(
        connection=tx.connection,
        lock="compact",
        schedule_in={"seconds": int(after.total_seconds())},
    ).defer_async(deletion_id=deletion_id)


async def defer_restore(tx: Transaction, deletion_id: int) -> None:
    """Have the objects of an undone deletion registered, should the command not come to it."""
    await restore.configure(
        connection=tx.connection, schedule_in={"seconds": RESTORE_AFTER_S}
    ).defer_async(deletion_id=deletion_id)


async def defer_apply_rejection(
    tx: Transaction, ae_title: str, note: Sequence[str], rejected_by: str
) -> None:
    """Have the objects deleted that a rejection note names; `note` is its UIDs from the study."""
    await apply_rejection.configure(connection=tx.connection).defer_async(
        ae_title=ae_title, note=list(note), rejected_by=rejected_by
    )


async def defer_keep_connections(tx: Transaction) -> None:
    """Have connections, archives and nodes written beside the packs."""
    await keep_connections.configure(
        connection=tx.connection, lock="keep_connections"
    ).defer_async()


async def defer_report_commitment(
    tx: Transaction, commitment_id: int, dicom_node_id: int, after_s: float
) -> None:
    """Have a node told what has become of its request for commitment."""
    await report_commitment.configure(
        connection=tx.connection,
        lock=f"node-{dicom_node_id}",
        schedule_in={"seconds": max(1, round(after_s))},
    ).defer_async(commitment_id=commitment_id)


async def defer_request_commitment(tx: Transaction, commitment_id: int, dicom_node_id: int) -> None:
    """Have a node asked for commitment."""
    await request_commitment.configure(
        connection=tx.connection, lock=f"node-{dicom_node_id}"
    ).defer_async(commitment_id=commitment_id)


async def defer_notify_availability(tx: Transaction, study_id: int, dicom_node_id: int) -> None:
    """Have a node told of a complete study."""
    await notify_availability.configure(
        connection=tx.connection, lock=f"node-{dicom_node_id}"
    ).defer_async(study_id=study_id, dicom_node_id=dicom_node_id)


def _outgoing(context: JobContext) -> "Outgoing":
    outgoing = context.additional_context.get("outgoing")
    if outgoing is None:
        raise Unavailable("this worker calls no nodes")
    return cast("Outgoing", outgoing)


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
            await defer_seals(tx, [series_id], again_s)


@app.task(name="delete_blob", pass_context=True, retry=RETRY)
async def delete_blob(context: JobContext, key: str) -> None:
    """Delete a blob wherever it is."""
    from bfr_core.uploading import forget

    store = _store(context)
    # First, so that an upload under way sees it and takes its own copy away again.
    async with store.database.transaction() as tx:
        await forget(tx, [key])
    await asyncio.to_thread(store.blobs.delete_everywhere, key)


@app.periodic(cron="* * * * *")
@app.task(name="upload", pass_context=True, retry=RETRY, lock="upload", queueing_lock="upload")
async def upload(context: JobContext, timestamp: int) -> None:
    """Copy what waits in the spool to the buckets; every minute too, should a word get lost."""
    from bfr_core.uploading import upload_spool

    store = _store(context)
    again_s = await upload_spool(store)
    if again_s is not None:
        async with store.database.transaction() as tx:
            await defer_upload(tx, again_s)


@app.task(name="drop_pack", pass_context=True, retry=RETRY)
async def drop_pack(context: JobContext, key: str) -> None:
    """Delete a pack that nothing refers to."""
    from bfr_core.sweeping import drop_unreferenced

    await drop_unreferenced(_store(context), key)


@app.task(name="compact", pass_context=True, retry=RETRY)
async def compact(context: JobContext, deletion_id: int) -> None:
    """Take the bytes of deleted objects out of their packs, or look again later."""
    from bfr_core.compacting import compact_deletion

    store = _store(context)
    again_s = await compact_deletion(store, deletion_id)
    if again_s > 0:
        async with store.database.transaction() as tx:
            await defer_compact(tx, deletion_id, datetime.timedelta(seconds=again_s))


@app.task(name="restore", pass_context=True, retry=RETRY)
async def restore(context: JobContext, deletion_id: int) -> None:
    """Register the objects of an undone deletion again."""
    from bfr_core.undeleting import restore_undone

    await restore_undone(_store(context), deletion_id)


@app.task(name="apply_rejection", pass_context=True, retry=RETRY)
async def apply_rejection(
    context: JobContext, ae_title: str, note: list[str], rejected_by: str
) -> None:
    """Delete the objects that a rejection note names, unless that is done."""
    from bfr_core.rejecting import apply_rejection

    await apply_rejection(_store(context), ae_title, note, rejected_by)


@app.task(name="keep_connections", pass_context=True, retry=RETRY)
async def keep_connections(context: JobContext) -> None:
    """Write connections, archives and nodes beside the packs."""
    from bfr_core.rebuilding import keep_connections

    await keep_connections(_store(context))


@app.periodic(cron="37 2 * * *")
@app.task(name="sweep", pass_context=True, retry=RETRY, queueing_lock="sweep")
async def sweep(context: JobContext, timestamp: int) -> None:
    """Delete the packs and manifests of the last days that nothing refers to."""
    from bfr_core.sweeping import sweep_new_days

    await sweep_new_days(_store(context))


@app.periodic(cron="* * * * *")
@app.task(
    name="verify",
    pass_context=True,
    priority=VERIFY_PRIORITY,
    lock="verify",
    queueing_lock="verify",
)
async def verify(context: JobContext, timestamp: int) -> None:
    """Check stored objects against their digests, for less than a minute."""
    from bfr_core.verifying import verify_for_a_while

    stop: asyncio.Event = context.additional_context["stop"]
    await verify_for_a_while(_store(context), stop.is_set, stop.is_set)


@app.task(name="report_commitment", pass_context=True, retry=NODE_RETRY)
async def report_commitment(context: JobContext, commitment_id: int) -> None:
    """Tell a node what has become of its request for commitment, unless it has been told."""
    from bfr_core import commitments

    store = _store(context)
    report = await commitments.begin_report(store, commitment_id)
    if report is None:
        return
    told = False
    try:
        await _outgoing(context).report_commitment(
            report.link, report.transaction_uid, report.result
        )
        told = True
    finally:
        await commitments.end_report(store, commitment_id, told=told)


@app.task(name="request_commitment", pass_context=True, retry=NODE_RETRY)
async def request_commitment(context: JobContext, commitment_id: int) -> None:
    """Ask a node for commitment; it may answer at once or call back."""
    from bfr_core import commitments

    store = _store(context)
    request = await commitments.find_request(store, commitment_id)
    if request is None:
        return
    link, transaction_uid, references = request
    result = await _outgoing(context).request_commitment(link, transaction_uid, references)
    if result is not None:
        await commitments.take_result(store, link.node.dicom_node_id, transaction_uid, result)


@app.task(name="notify_availability", pass_context=True, retry=NODE_RETRY)
async def notify_availability(context: JobContext, study_id: int, dicom_node_id: int) -> None:
    """Tell a node which objects of a study are here."""
    from bfr_core.availability import find_notice

    notice = await find_notice(_store(context), study_id, dicom_node_id)
    if notice is not None:
        await _outgoing(context).notify_availability(
            notice.link, notice.sop_instance_uid, notice.dataset
        )


@app.periodic(cron="7 2 * * *")
@app.task(name="daily", pass_context=True, retry=RETRY, queueing_lock="daily")
async def daily(context: JobContext, timestamp: int) -> None:
    """Make the audit partitions of the coming months, drop old finished jobs, try failed ones."""
    from bfr_core import search_positions, workitem_reports, workitems

    settings = _store(context).settings
    async with _store(context).database.transaction() as tx:
        await tx.run(CREATE_AUDIT_PARTITIONS)
        await search_positions.delete_old(tx)
        await workitems.delete_old(tx, settings.workitem_keep_days)
        await workitem_reports.delete_old(tx, settings.workitem_report_keep_hours)
    await app.job_manager.delete_old_jobs(nb_hours=KEEP_FINISHED_HOURS)
    # What made them fail may have been mended since.
    for job in await app.job_manager.list_jobs_async(status=Status.FAILED.value):
        await _run_again(job)


@app.periodic(cron="*/5 * * * *")
@app.task(name="sum_up_contents", pass_context=True, retry=RETRY, queueing_lock="sum_up_contents")
async def sum_up_contents(context: JobContext, timestamp: int) -> None:
    """Add what has arrived to the totals of each archive."""
    async with _store(context).database.transaction() as tx:
        await statistics.sum_up_contents(tx)


@app.periodic(cron="*/5 * * * *")
@app.task(name="number_events", pass_context=True, retry=RETRY, queueing_lock="number_events")
async def number_events(context: JobContext, timestamp: int) -> None:
    """Number new events, so that nobody who reads the feed has to number those of a year."""
    from bfr_core.changes import number_events

    await number_events(_store(context))


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


async def _observed(
    run_job: Callable[[], Awaitable[Any]], context: JobContext, worker: Worker
) -> Any:
    observation = Observation("job", context.job.task_name)
    outcome = "success"
    try:
        return await _tell_failure(run_job, context)
    except BaseException as error:
        outcome = outcome_of(error)
        raise
    finally:
        observation.end(outcome)


async def _tell_failure(run_job: Callable[[], Awaitable[Any]], context: JobContext) -> Any:
    # Procrastinate would tell of the last attempt only, which comes days after the first, and
    # with the text of every error: that of the database may quote a row.
    try:
        return await run_job()
    except Exception as error:  # the edge: it is told here and goes on to procrastinate
        job = context.job
        log.warning(
            "job %s (%s) failed, attempt %d of %d: %s",
            *(job.id, job.task_name, job.attempts + 1, _attempts_max(job), _reason(error)),
        )
        raise


def _attempts_max(job: Job) -> int:
    return len(NODE_WAITS_S) + 1 if job.task_name in NODE_TASKS else ATTEMPTS_MAX


def _reason(error: Exception) -> str:
    if isinstance(error, ArchiveError):
        return error.message
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name} ({frame.filename}:{frame.lineno})"


async def run_worker(
    store: "Store", stop: asyncio.Event, outgoing: "Outgoing | None" = None
) -> None:
    """Run jobs until `stop` is set; those under way are ended first.

    Without `outgoing`, jobs that call nodes are tried again later. Raises Unavailable when the
    database breaks off: its jobs are run again by the next worker.
    """
    try:
        await _run_worker(store, stop, outgoing)
    except ConnectorException as error:
        raise Unavailable("the worker has lost the database") from error


async def _run_worker(store: "Store", stop: asyncio.Event, outgoing: "Outgoing | None") -> None:
    connector = PsycopgConnector(conninfo=store.database_url, min_size=1, max_size=CONCURRENCY + 2)
    with app.replace_connector(connector):
        async with app.open_async():
            worker = asyncio.create_task(
                app.run_worker_async(
                    concurrency=CONCURRENCY,
                    fetch_job_polling_interval=POLLING_INTERVAL_S,
                    install_signal_handlers=False,
                    additional_context={"store": store, "stop": stop, "outgoing": outgoing},
                    delete_jobs="never",
                    shutdown_graceful_timeout=store.settings.stop_timeout_s,
                    worker_middleware=[_observed],
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
