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


TROUBLED_AFTER_ATTEMPTS = 5
ARCHIVE_CONTENTS = """
    SELECT archive.ae_title, archive.name, connection.name AS connection,
        (SELECT count(*) FROM patient WHERE patient.archive_id = archive.archive_id
            AND EXISTS (SELECT FROM study WHERE study.patient_id = patient.patient_id)) AS patients,
        count(study.study_id) AS studies,
        coalesce(sum(study.number_of_series), 0)::bigint AS series,
        coalesce(sum(study.number_of_instances), 0)::bigint AS instances,
        coalesce(sum(study.size_bytes), 0)::bigint AS size_bytes
    FROM archive JOIN connection USING (connection_id)
    LEFT JOIN study ON study.archive_id = archive.archive_id
    GROUP BY archive.archive_id, connection.name
    ORDER BY archive.ae_title
"""
JOB_COUNTS = """
    SELECT count(*) FILTER (WHERE status = 'todo') AS todo,
        count(*) FILTER (WHERE status = 'doing') AS doing,
        count(*) FILTER (WHERE status = 'failed') AS failed
    FROM procrastinate_jobs WHERE status IN ('todo', 'doing', 'failed')
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


async def job_counts(tx: Transaction) -> JobCounts:
    """Return the state of the background work."""
    return await tx.one(JobCounts, JOB_COUNTS) or JobCounts(0, 0, 0)


async def troubled_jobs(tx: Transaction) -> list[TroubledJobs]:
    """Return the kinds of jobs that keep failing, by name; [] when all is well."""
    return await tx.all(TroubledJobs, TROUBLED_JOBS, attempts=TROUBLED_AFTER_ATTEMPTS)
