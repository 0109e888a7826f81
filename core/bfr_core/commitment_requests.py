"""Commitment requests: storage commitment that is decided while the caller waits (PS3.18 §13)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from bfr_core import audit, policy
from bfr_core.access import Access
from bfr_core.commitments import (
    Series,
    check_request,
    decide,
    read_result,
    stored_result,
)
from bfr_core.connections import Archive
from bfr_core.errors import Conflict, Denied, Invalid, NotFound
from bfr_core.matching import checked_uid
from bfr_core.outgoing import CommitmentResult

if TYPE_CHECKING:
    from bfr_core.store import Store

# Kept with its result: a request that was broken off has left nothing and can be made again.
KEEP = """
    INSERT INTO commitment (role, archive_id, transaction_uid, requested, result, reported_at)
    VALUES ('scp', %(archive_id)s, %(transaction_uid)s, %(requested)s, %(result)s, now())
    ON CONFLICT DO NOTHING
    RETURNING commitment_id
"""
FIND = """
    SELECT requested, result FROM commitment
    WHERE archive_id = %(archive_id)s AND transaction_uid = %(transaction_uid)s
        AND dicom_node_id IS NULL
"""


@dataclass(frozen=True, slots=True)
class Requested:
    """One object that was asked for; `series` where the request has said in which it lies."""

    sop_class_uid: str
    sop_instance_uid: str
    series: Series | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """A request and what has become of it."""

    requested: Sequence[Requested]
    result: CommitmentResult


async def request_commitment(
    store: "Store",
    access: Access,
    door: str,
    archive: Archive,
    transaction_uid: str,
    requested: Sequence[Requested],
) -> Decided:
    """Return what the archive commits to; it is kept for who asks again by the Transaction UID.

    Raises Denied for who may not store in the archive, Invalid for what is no request, Conflict
    when the Transaction UID is in use, Unavailable when it cannot be decided now.
    """
    _check_access(access, archive)
    references = [(one.sop_class_uid, one.sop_instance_uid) for one in requested]
    check_request(transaction_uid, references)
    series = _series(requested)
    keys = {"archive_id": archive.archive_id, "transaction_uid": transaction_uid}
    in_use = Conflict("the Transaction UID is in use: its result can be retrieved")
    async with store.database.statement() as tx:
        if await tx.rows(FIND, **keys):
            raise in_use
    result = await decide(store, archive.archive_id, references, series)
    rows = [[one.sop_class_uid, one.sop_instance_uid, *(one.series or ())] for one in requested]
    async with store.database.transaction() as tx:
        commitment_id = await tx.value(
            KEEP,
            **keys,
            requested=orjson.dumps(rows).decode(),
            result=orjson.dumps(stored_result(result)).decode(),
        )
        if commitment_id is None:
            raise in_use
        await audit.record(
            tx,
            access,
            audit.AuditRecord(
                action="search",
                door=door,
                archive_id=archive.archive_id,
                detail={"commitment": commitment_id, "objects": len(requested)},
            ),
        )
    return Decided(requested, result)


async def find_result(
    store: "Store", access: Access, archive: Archive, transaction_uid: str
) -> Decided:
    """Return a request that was made, with its result. Raises Denied, NotFound."""
    _check_access(access, archive)
    async with store.database.statement() as tx:
        rows = await tx.rows(FIND, archive_id=archive.archive_id, transaction_uid=transaction_uid)
    if not rows:
        raise NotFound("there was no commitment request with this Transaction UID")
    return Decided(
        [_requested(*one) for one in rows[0]["requested"]], read_result(rows[0]["result"])
    )


def _check_access(access: Access, archive: Archive) -> None:
    if not policy.may_store(access, archive.archive_id):
        raise Denied("who may not store cannot ask for commitment")


def _series(requested: Sequence[Requested]) -> dict[str, Series]:
    """Return where objects are said to lie, by SOP Instance UID. Raises Invalid."""
    series: dict[str, Series] = {}
    for one in requested:
        if one.series is not None:
            checked_uid("0020000D", one.series[0])
            checked_uid("0020000E", one.series[1])
            if series.setdefault(one.sop_instance_uid, one.series) != one.series:
                raise Invalid(f"00081155: {one.sop_instance_uid} is named in two series")
    return series


def _requested(sop_class_uid: str, sop_instance_uid: str, *series: Any) -> Requested:
    return Requested(sop_class_uid, sop_instance_uid, (series[0], series[1]) if series else None)
