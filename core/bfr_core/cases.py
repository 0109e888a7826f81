"""Cases: what a person must look at, one open case per object and kind."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bfr_core import audit, policy
from bfr_core.access import Access
from bfr_core.database import Transaction
from bfr_core.errors import Denied, NotFound

Kind = Literal["damaged_object", "missing_object", "damaged_manifest", "rejection_without_effect"]


@dataclass(frozen=True, slots=True)
class Place:
    """What a case concerns: an archive, or a study or series in it."""

    archive_id: int
    study_instance_uid: str = ""
    series_instance_uid: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that a person must look at; UIDs are '' above the level it concerns."""

    case_id: int
    kind: str
    archive: str  # AE title
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    detail: str
    opened_at: datetime.datetime
    closed_at: datetime.datetime | None
    closed_by: str | None


OPEN = """
    INSERT INTO archive_case (kind, archive_id, study_instance_uid, series_instance_uid,
        sop_instance_uid, detail)
    VALUES (%(kind)s, %(archive_id)s, %(study_instance_uid)s, %(series_instance_uid)s,
        %(sop_instance_uid)s, %(detail)s)
    ON CONFLICT DO NOTHING
"""
LIST = """
    SELECT case_id, kind, archive.ae_title AS archive, study_instance_uid, series_instance_uid,
        sop_instance_uid, detail, opened_at, closed_at, closed_by
    FROM archive_case JOIN archive USING (archive_id)
    WHERE (%(closed)s OR closed_at IS NULL)
        AND (%(archive_ids)s::integer[] IS NULL OR archive_id = ANY(%(archive_ids)s))
    ORDER BY case_id DESC LIMIT %(limit)s
"""
COUNT_OPEN = "SELECT count(*) FROM archive_case WHERE closed_at IS NULL"
CLOSE = """
    UPDATE archive_case SET closed_at = now(), closed_by = %(closed_by)s
    WHERE case_id = %(case_id)s AND closed_at IS NULL
    RETURNING archive_id, study_instance_uid
"""
SETTLE = """
    UPDATE archive_case SET closed_at = now(), closed_by = %(closed_by)s
    WHERE archive_id = %(archive_id)s AND study_instance_uid = %(study_instance_uid)s
        AND series_instance_uid = %(series_instance_uid)s AND kind = ANY(%(kinds)s)
        AND sop_instance_uid <> ALL(%(still)s) AND closed_at IS NULL
"""


async def open_case(
    tx: Transaction,
    kind: Kind,
    detail: str,
    place: Place,
    *,
    sop_instance_uid: str = "",
) -> bool:
    """Open a case, unless the same is open already. Returns whether it is new."""
    return bool(
        await tx.run(
            OPEN,
            kind=kind,
            detail=detail,
            archive_id=place.archive_id,
            study_instance_uid=place.study_instance_uid,
            series_instance_uid=place.series_instance_uid,
            sop_instance_uid=sop_instance_uid,
        )
    )


async def list_cases(
    tx: Transaction, access: Access, *, closed: bool = False, limit: int = 1000
) -> list[Case]:
    """Return the open cases that the caller may see, with `closed` the others too, newest first."""
    archive_ids = policy.visible_archives(access, None)
    return await tx.all(Case, LIST, closed=closed, archive_ids=archive_ids, limit=limit)


async def count_open_cases(tx: Transaction) -> int:
    """Return how many cases wait for somebody."""
    return int(await tx.value(COUNT_OPEN))


async def close_case(tx: Transaction, access: Access, case_id: int) -> None:
    """Close a case that somebody has dealt with. Raises Denied, NotFound when none is open."""
    if not policy.may_administer(access):
        raise Denied("cases are closed by operators")
    closed = await tx.tuples(CLOSE, case_id=case_id, closed_by=access.subject)
    if not closed:
        raise NotFound(f"there is no open case {case_id}")
    archive_id, study_instance_uid = closed[0]
    await audit.record(
        tx,
        access,
        audit.AuditRecord(
            action="administer",
            door="bfr",
            archive_id=archive_id,
            study_instance_uid=study_instance_uid or None,
            detail={"closed_case": case_id},
        ),
    )


async def settle_cases(
    tx: Transaction,
    closed_by: str,
    kinds: Sequence[Kind],
    place: Place,
    *,
    still: Sequence[str],
) -> int:
    """Close the cases of a series whose reason is gone, but for the instances `still` named."""
    return await tx.run(
        SETTLE,
        closed_by=closed_by,
        kinds=list(kinds),
        archive_id=place.archive_id,
        study_instance_uid=place.study_instance_uid,
        series_instance_uid=place.series_instance_uid,
        still=list(still),
    )
