"""Search positions: the next page begins behind the last match of the one before (PS3.18 §8.3.4.4).

Counted from the beginning, a page would repeat what a study that has arrived meanwhile pushed
down, and leave out what a deletion pulled up. A page that nobody has come to by the one before is
counted from the beginning.
"""

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bfr_core.access import Access
from bfr_core.database import Database, Transaction
from bfr_core.matching import Conditions, Match, Semantics


@dataclass(frozen=True, slots=True)
class Position:
    """The last match of a page, by what matches are ordered by at its level."""

    study_date: datetime.date | None
    study_id: int
    series_number: int | None = None
    series_id: int | None = None  # None: a study
    instance_number: int | None = None
    sop_instance_uid: str | None = None  # None: a study or a series


FIND = """
    SELECT study_date, study_id, series_number, series_id, instance_number, sop_instance_uid
    FROM search_position WHERE search_digest = %(digest)s AND page_offset = %(offset)s
"""
KEEP = """
    INSERT INTO search_position (search_digest, page_offset, study_date, study_id, series_number,
        series_id, instance_number, sop_instance_uid)
    VALUES (%(digest)s, %(offset)s, %(study_date)s, %(study_id)s, %(series_number)s,
        %(series_id)s, %(instance_number)s, %(sop_instance_uid)s)
    ON CONFLICT (search_digest, page_offset) DO UPDATE SET study_date = excluded.study_date,
        study_id = excluded.study_id, series_number = excluded.series_number,
        series_id = excluded.series_id, instance_number = excluded.instance_number,
        sop_instance_uid = excluded.sop_instance_uid, kept_at = now()
"""
DELETE_OLD = "DELETE FROM search_position WHERE kept_at < now() - interval '1 day'"


def digest_of(
    access: Access,
    level: str,
    archive_id: int | None,
    matches: Sequence[Match],
    semantics: Semantics,
) -> bytes:
    """Return what tells this search of this caller from all others."""
    told = (access.kind, access.subject, access.remote_address, level, archive_id)
    keys = sorted((match.tag, match.values) for match in matches)
    return hashlib.sha256(repr((told, keys, semantics)).encode()).digest()


async def find_position(database: Database, digest: bytes, offset: int) -> Position | None:
    """Return where the page before ended, None when nobody knows."""
    async with database.statement() as tx:
        return await tx.one(Position, FIND, digest=digest, offset=offset)


async def keep_position(database: Database, digest: bytes, offset: int, position: Position) -> None:
    """Remember where the page ends that goes before this offset."""
    async with database.statement() as tx:
        await tx.run(KEEP, digest=digest, offset=offset, **asdict(position))


async def delete_old(tx: Transaction) -> None:
    """Forget the positions that nobody goes on from any more."""
    await tx.run(DELETE_OLD)


def add_after(conditions: Conditions, position: Position) -> None:
    """Add that a match comes behind the position; the series of an instance comes once more."""
    study = conditions.param(position.study_id)
    if position.study_date is None:
        later = f"study.study_date IS NULL AND study.study_id < {study}"
    else:
        day = conditions.param(position.study_date)
        later = (
            f"study.study_date < {day} OR study.study_date IS NULL"
            f" OR study.study_date = {day} AND study.study_id < {study}"
        )
    if position.series_id is not None:
        series = conditions.param(position.series_id)
        operator = ">" if position.sop_instance_uid is None else ">="
        if position.series_number is None:
            within = f"series.series_number IS NULL AND series.series_id {operator} {series}"
        else:
            number = conditions.param(position.series_number)
            within = (
                f"series.series_number > {number} OR series.series_number IS NULL"
                f" OR series.series_number = {number} AND series.series_id {operator} {series}"
            )
        later += f" OR study.study_id = {study} AND ({within})"
    conditions.parts.append(f"({later})")
