"""Changes: the events of an archive in one order, for who follows them (beyond the standard).

An event's own number is taken before its transaction commits, so a reader that remembers the
highest it has seen would miss what commits later under a lower one. So events are numbered once
more when they can be seen, by whoever reads next, one at a time: what has a number was numbered
after everything with a lower one was committed, and no later event gets a number below.
(docs/adr/0020-the-change-feed.md)
"""

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bfr_core import audit, policy
from bfr_core.access import Access
from bfr_core.database import ONE_SNAPSHOT, Transaction
from bfr_core.errors import Conflict

if TYPE_CHECKING:
    from bfr_core.store import Store

BATCH = 10_000
# Held to the end of the transaction: numbers are seen in the order in which they were given.
LOCK_NUMBERING = "SELECT pg_advisory_xact_lock(424653)"
NUMBER = f"""
    WITH last AS MATERIALIZED (  -- once: all of one pass are published at one moment
        SELECT coalesce(max(change_number), 0) AS change_number,
            greatest(max(published_at), clock_timestamp()) AS published_at
        FROM (
            SELECT change_number, published_at FROM event WHERE change_number IS NOT NULL
            ORDER BY change_number DESC LIMIT 1) AS newest
    ), waiting AS (
        SELECT event_id, row_number() OVER (ORDER BY event_id) AS place
        FROM (
            SELECT event_id FROM event WHERE change_number IS NULL
            ORDER BY event_id LIMIT {BATCH}) AS unnumbered
    )
    UPDATE event SET change_number = last.change_number + waiting.place,
        published_at = last.published_at
    FROM last, waiting WHERE event.event_id = waiting.event_id
"""
LATEST_NUMBER = """
    SELECT change_number FROM event WHERE change_number IS NOT NULL
    ORDER BY change_number DESC LIMIT 1
"""
# The first change at a time or after it.
FIRST_SINCE = """
    SELECT change_number FROM event
    WHERE published_at >= %(time)s AND change_number IS NOT NULL
    ORDER BY published_at, change_number LIMIT 1
"""
COLUMNS = """
    change_number, published_at, occurred_at, kind, archive.ae_title AS archive,
    study_instance_uid, series_instance_uid, sop_instance_uid
"""
FIND = f"""
    SELECT {COLUMNS} FROM event JOIN archive USING (archive_id)
    WHERE change_number > %(since)s
        AND (%(before)s::bigint IS NULL OR change_number < %(before)s)
        AND (%(archive_ids)s::integer[] IS NULL OR archive_id = ANY(%(archive_ids)s))
    ORDER BY change_number LIMIT %(limit)s
"""
FIND_LATEST = f"""
    SELECT {COLUMNS} FROM event JOIN archive USING (archive_id)
    WHERE change_number IS NOT NULL
        AND (%(archive_ids)s::integer[] IS NULL OR archive_id = ANY(%(archive_ids)s))
    ORDER BY change_number DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Change:
    """One event as followers see it."""

    change_number: int
    published_at: datetime.datetime  # when it could first be read; grows with the number
    occurred_at: datetime.datetime
    kind: str  # an event's
    archive: str  # AE title
    study_instance_uid: str
    series_instance_uid: str | None  # None: the whole study
    sop_instance_uid: str | None  # None: the whole series


async def number_events(store: "Store") -> None:
    """Number every event that is committed now, in steps that each commit."""
    numbered = BATCH
    while numbered == BATCH:
        async with store.database.transaction() as tx:
            # Two statements: the second sees what the one before us in the queue has committed.
            await tx.run(LOCK_NUMBERING)
            numbered = await tx.run(NUMBER)


async def list_changes(
    store: "Store",
    access: Access,
    door: str,
    *,
    archive_id: int | None,
    since: int,
    limit: int,
    start: datetime.datetime | None = None,
    end: datetime.datetime | None = None,
) -> list[Change]:
    """Return the changes after number `since`, in order, at the most `limit`.

    `start` and `end` narrow to those published in [start, end). All that was committed before the
    call is told, and a window that has passed never gets another change. Raises Conflict when
    `since` is a number that was never given: the feed has been restored to an earlier state.
    """
    await number_events(store)
    async with store.database.transaction() as tx:
        # What is numbered between two of the statements is of none of them.
        await tx.run(ONE_SNAPSHOT)
        latest = int(await tx.value(LATEST_NUMBER) or 0)
        if since > latest:
            raise Conflict(f"the latest change has number {latest}: the feed was restored")
        first: int | None = None if start is None else await tx.value(FIRST_SINCE, time=start)
        if start is not None and first is None:
            return []
        found = await tx.all(
            Change,
            FIND,
            since=since if first is None else max(since, first - 1),
            before=None if end is None else await tx.value(FIRST_SINCE, time=end),
            archive_ids=policy.visible_archives(access, archive_id),
            limit=limit,
        )
        if found:
            await _record(tx, access, door, archive_id, len(found))
    return found


async def latest_change(
    store: "Store", access: Access, door: str, *, archive_id: int | None
) -> Change | None:
    """Return the last change that the caller may see; None when there was none."""
    await number_events(store)
    async with store.database.transaction() as tx:
        archive_ids = policy.visible_archives(access, archive_id)
        found = await tx.one(Change, FIND_LATEST, archive_ids=archive_ids)
        if found is not None:
            await _record(tx, access, door, archive_id, 1)
    return found


async def _record(
    tx: Transaction, access: Access, door: str, archive_id: int | None, count: int
) -> None:
    entry = audit.AuditRecord(
        action="search", door=door, archive_id=archive_id, detail={"changes": count}
    )
    await audit.record(tx, access, entry)
