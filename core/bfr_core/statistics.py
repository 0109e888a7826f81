"""Statistics: what the archives hold and how the background work stands, for operators."""

from dataclasses import dataclass

from bfr_core.database import Transaction


@dataclass(frozen=True, slots=True)
class ArchiveContent:
    """How much one archive holds."""

    ae_title: str
    name: str
    connection: str
    patients: int
    studies: int
    series: int
    instances: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class JobCounts:
    """How many background jobs wait, run and have failed for good."""

    todo: int
    doing: int
    failed: int


@dataclass(frozen=True, slots=True)
class TroubledJobs:
    """Background jobs of one kind that do not succeed."""

    task: str  # "seal", "delete_blob", …
    retried: int  # have failed several times and are tried again
    failed: int  # have failed for good


@dataclass(frozen=True, slots=True)
class TaskJobs:
    """How many background jobs of one kind are in one state."""

    task: str  # "seal", "delete_blob", …
    state: str  # "todo", "doing" or "failed"
    jobs: int


TROUBLED_AFTER_ATTEMPTS = 5
# Triggers of the database write each change (0006): nobody counts 40 million rows for a page.
ARCHIVE_CONTENTS = """
    SELECT archive.ae_title, archive.name, connection.name AS connection,
        coalesce(sum(patients), 0)::bigint AS patients,
        coalesce(sum(studies), 0)::bigint AS studies,
        coalesce(sum(series), 0)::bigint AS series,
        coalesce(sum(instances), 0)::bigint AS instances,
        coalesce(sum(size_bytes), 0)::bigint AS size_bytes
    FROM archive JOIN connection USING (connection_id)
    LEFT JOIN (
        SELECT * FROM archive_content
        UNION ALL SELECT * FROM archive_content_change
        UNION ALL SELECT archive_id, 0, 0, 0, number_of_instances - counted_instances,
            size_bytes - counted_bytes
        FROM series WHERE state = 'receiving'
    ) AS content USING (archive_id)
    GROUP BY archive.archive_id, connection.name
    ORDER BY archive.ae_title
"""
SUM_UP_CONTENTS = """
    WITH change AS (DELETE FROM archive_content_change RETURNING *)
    INSERT INTO archive_content AS content
    SELECT archive_id, sum(patients), sum(studies), sum(series), sum(instances), sum(size_bytes)
    FROM change GROUP BY archive_id ORDER BY archive_id
    ON CONFLICT (archive_id) DO UPDATE SET
        patients = content.patients + excluded.patients,
        studies = content.studies + excluded.studies,
        series = content.series + excluded.series,
        instances = content.instances + excluded.instances,
        size_bytes = content.size_bytes + excluded.size_bytes
"""
JOB_COUNTS = """
    SELECT count(*) FILTER (WHERE status = 'todo') AS todo,
        count(*) FILTER (WHERE status = 'doing') AS doing,
        count(*) FILTER (WHERE status = 'failed') AS failed
    FROM procrastinate_jobs WHERE status IN ('todo', 'doing', 'failed')
"""
JOBS_BY_TASK = """
    SELECT task_name AS task, status::text AS state, count(*) AS jobs FROM procrastinate_jobs
    WHERE status IN ('todo', 'doing', 'failed') GROUP BY task_name, status
"""
# A job that was not put off is due since it was deferred.
OLDEST_WAITING_JOB = """
    SELECT coalesce(extract(epoch FROM now() - min(coalesce(scheduled_at, (
        SELECT max(at) FROM procrastinate_events
        WHERE job_id = procrastinate_jobs.id AND type = 'deferred')))), 0)::float8
    FROM procrastinate_jobs
    WHERE status = 'todo' AND (scheduled_at IS NULL OR scheduled_at <= now())
"""
TROUBLED_JOBS = """
    SELECT task_name AS task,
        count(*) FILTER (WHERE status <> 'failed') AS retried,
        count(*) FILTER (WHERE status = 'failed') AS failed
    FROM procrastinate_jobs
    WHERE status = 'failed' OR (status IN ('todo', 'doing') AND attempts >= %(attempts)s)
    GROUP BY task_name ORDER BY task_name
"""


async def archive_contents(tx: Transaction) -> list[ArchiveContent]:
    """Return what each archive holds, by AE title."""
    return await tx.all(ArchiveContent, ARCHIVE_CONTENTS)


async def sum_up_contents(tx: Transaction) -> None:
    """Add the changes of late to the totals, so that they stay few to read."""
    await tx.run(SUM_UP_CONTENTS)


async def job_counts(tx: Transaction) -> JobCounts:
    """Return the state of the background work."""
    return await tx.one(JobCounts, JOB_COUNTS) or JobCounts(0, 0, 0)


async def jobs_by_task(tx: Transaction) -> list[TaskJobs]:
    """Return how many jobs of each kind wait, run and have failed for good."""
    return await tx.all(TaskJobs, JOBS_BY_TASK)


async def oldest_waiting_job_s(tx: Transaction) -> float:
    """Return for how long the job that has been due for longest waits; 0 when none does."""
    return float(await tx.value(OLDEST_WAITING_JOB))


async def troubled_jobs(tx: Transaction) -> list[TroubledJobs]:
    """Return the kinds of jobs that keep failing, by name; [] when all is well."""
    return await tx.all(TroubledJobs, TROUBLED_JOBS, attempts=TROUBLED_AFTER_ATTEMPTS)
