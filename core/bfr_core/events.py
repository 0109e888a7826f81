"""Events: what happened, written in the same transaction as the change itself (outbox)."""

import datetime
from dataclasses import dataclass
from typing import Literal

from bfr_core.database import Transaction

Kind = Literal[
    "study_created",
    "series_created",
    "series_reopened",
    "series_sealed",
    "instances_deleted",
    "instances_rejected",
    "instances_restored",
]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened; who follows them goes by the numbers of changes.py."""

    event_id: int
    occurred_at: datetime.datetime
    kind: str
    archive: str | None  # AE title
    study_instance_uid: str | None
    series_instance_uid: str | None


WRITE = """
    INSERT INTO event (kind, archive_id, study_instance_uid, series_instance_uid, sop_instance_uid)
    VALUES (%(kind)s, %(archive_id)s, %(study_instance_uid)s, %(series_instance_uid)s,
        %(sop_instance_uid)s)
"""
LATEST = """
    SELECT event_id, occurred_at, kind, archive.ae_title AS archive, study_instance_uid,
        series_instance_uid
    FROM event LEFT JOIN archive USING (archive_id)
    ORDER BY event_id DESC LIMIT %(limit)s
"""


async def write(
    tx: Transaction,
    kind: Kind,
    *,
    archive_id: int,
    study_instance_uid: str,
    series_instance_uid: str | None = None,
    sop_instance_uid: str | None = None,
) -> None:
    """Write the event in the caller's transaction."""
    await tx.run(
        WRITE,
        kind=kind,
        archive_id=archive_id,
        study_instance_uid=study_instance_uid,
        series_instance_uid=series_instance_uid,
        sop_instance_uid=sop_instance_uid,
    )


async def latest_events(tx: Transaction, limit: int) -> list[Event]:
    """Return the newest events, newest first."""
    return await tx.all(Event, LATEST, limit=limit)
