"""Storage commitments: what we promise to nodes, and they to us (PS3.4 Annex J).

A promise lets the sender delete its own copy. So it is given for objects alone that are registered
in this archive under the SOP class named, and whose bytes can be read at this moment.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from bfr_core import audit, jobs, locator, outgoing, policy
from bfr_core.access import Access
from bfr_core.blobs import BlobRef
from bfr_core.errors import Denied, Invalid, NotFound, Unavailable
from bfr_core.matching import checked_uid
from bfr_core.outgoing import CommitmentResult, Failure, Link, Reference

if TYPE_CHECKING:
    from bfr_core.store import Store

# Failure Reason (0008,1197), PS3.3 §C.14.1.1
PROCESSING_FAILURE = 0x0110
NO_SUCH_OBJECT_INSTANCE = 0x0112
CLASS_INSTANCE_CONFLICT = 0x0119
DUPLICATE_TRANSACTION_UID = 0x0131

REPORT_AFTER_S = 4.0  # the association of the request has the first turn
REPORTING_S = 60.0  # no report takes longer
REFERENCES_MAX = 100_000

REQUEST = """
    INSERT INTO commitment (role, archive_id, dicom_node_id, transaction_uid, requested)
    VALUES (%(role)s, %(archive_id)s, %(dicom_node_id)s, %(transaction_uid)s, %(requested)s)
    RETURNING commitment_id
"""
FIND_COMMITMENT = """
    SELECT role, archive_id, dicom_node_id, transaction_uid, requested, result
    FROM commitment WHERE commitment_id = %(commitment_id)s
"""
CLAIM = """
    UPDATE commitment
    SET reporting_until = clock_timestamp() + make_interval(secs => %(reporting_s)s)
    WHERE commitment_id = %(commitment_id)s AND reported_at IS NULL
        AND (reporting_until IS NULL OR reporting_until < clock_timestamp())
"""
IS_REPORTED = """
    SELECT reported_at IS NOT NULL FROM commitment WHERE commitment_id = %(commitment_id)s
"""
KEEP_RESULT = """
    UPDATE commitment SET result = coalesce(result, %(result)s)
    WHERE commitment_id = %(commitment_id)s
"""
RELEASE = """
    UPDATE commitment SET reporting_until = NULL,
        reported_at = CASE WHEN %(told)s THEN now() ELSE reported_at END
    WHERE commitment_id = %(commitment_id)s
"""
IS_DUPLICATE = """
    SELECT EXISTS (
        SELECT FROM commitment AS earlier
        WHERE transaction_uid = %(transaction_uid)s AND dicom_node_id = %(dicom_node_id)s
            AND role = 'scp' AND commitment_id < %(commitment_id)s
            AND requested <> %(requested)s)
"""
TAKE_RESULT = """
    UPDATE commitment SET result = %(result)s, reported_at = now()
    WHERE role = 'scu' AND transaction_uid = %(transaction_uid)s
        AND dicom_node_id = %(dicom_node_id)s AND result IS NULL
"""
WAS_ASKED = """
    SELECT EXISTS (SELECT FROM commitment WHERE role = 'scu'
        AND transaction_uid = %(transaction_uid)s AND dicom_node_id = %(dicom_node_id)s)
"""
RECEIVED = """
    SELECT sop_instance_uid, sop_class_uid, pack_key, offset_bytes, length_bytes, series_id
    FROM instance
    WHERE archive_id = %(archive_id)s AND sop_instance_uid = ANY(%(sop_instance_uids)s)
"""
SERIES_UIDS = """
    SELECT series_id, study_instance_uid, series_instance_uid
    FROM series JOIN study USING (study_id) WHERE series_id = ANY(%(series_ids)s)
"""

Series = tuple[str, str]  # Study and Series Instance UID


@dataclass(frozen=True, slots=True)
class _Commitment:
    role: str
    archive_id: int
    dicom_node_id: int
    transaction_uid: str
    requested: list[list[str]]
    result: dict[str, list[list[Any]]] | None

    @property
    def references(self) -> list[Reference]:
        return [(sop_class, sop_instance) for sop_class, sop_instance in self.requested]


@dataclass(frozen=True, slots=True)
class Held:
    """One object that an archive holds."""

    sop_class_uid: str
    blob: BlobRef
    series_id: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a node is to be told of its request."""

    link: Link
    transaction_uid: str
    result: CommitmentResult


async def take_request(
    store: "Store",
    access: Access,
    archive_id: int,
    transaction_uid: str,
    references: Sequence[Reference],
) -> int:
    """Keep a node's request and return its number; a job reports unless somebody does before.

    Raises Denied for who may not store in the archive, Invalid for what is no request.
    """
    if not policy.may_store(access, archive_id) or access.dicom_node_id is None:
        raise Denied("who may not store cannot ask for commitment")
    check_request(transaction_uid, references)
    async with store.database.transaction() as tx:
        commitment_id = int(
            await tx.value(
                REQUEST,
                role="scp",
                archive_id=archive_id,
                dicom_node_id=access.dicom_node_id,
                transaction_uid=transaction_uid,
                requested=orjson.dumps(references).decode(),
            )
        )
        await jobs.defer_report_commitment(tx, commitment_id, access.dicom_node_id, REPORT_AFTER_S)
        await audit.record(
            tx,
            access,
            audit.AuditRecord(
                action="search",
                door="N-ACTION",
                archive_id=archive_id,
                detail={"commitment": commitment_id, "objects": len(references)},
            ),
        )
    return commitment_id


async def begin_report(store: "Store", commitment_id: int) -> Report | None:
    """Return what is to be told; None when it has been. `end_report` has to follow.

    What is committed is decided at the first time and stays so. Raises Unavailable while somebody
    else reports, or when it cannot be decided now.
    """
    async with store.database.transaction() as tx:
        claimed = await tx.run(CLAIM, commitment_id=commitment_id, reporting_s=REPORTING_S)
        if not claimed:
            if await tx.value(IS_REPORTED, commitment_id=commitment_id) is not False:
                return None
            raise Unavailable("the commitment is being reported")
        commitment = await tx.one(_Commitment, FIND_COMMITMENT, commitment_id=commitment_id)
        if commitment is None:
            return None
        link = await outgoing.find_link(tx, commitment.archive_id, commitment.dicom_node_id)
        duplicate = await tx.value(
            IS_DUPLICATE,
            commitment_id=commitment_id,
            transaction_uid=commitment.transaction_uid,
            dicom_node_id=commitment.dicom_node_id,
            requested=orjson.dumps(commitment.requested).decode(),
        )
    if commitment.result is None:
        try:
            if duplicate:
                failed = [(*one, DUPLICATE_TRANSACTION_UID) for one in commitment.references]
                result = CommitmentResult((), tuple(failed))
            else:
                result = await decide(store, commitment.archive_id, commitment.references)
            async with store.database.transaction() as tx:
                text = orjson.dumps(stored_result(result)).decode()
                await tx.run(KEEP_RESULT, commitment_id=commitment_id, result=text)
        except BaseException:
            await end_report(store, commitment_id, told=False)
            raise
    else:
        result = read_result(commitment.result)
    return Report(link, commitment.transaction_uid, result)


async def end_report(store: "Store", commitment_id: int, *, told: bool) -> None:
    """Remember that the node was told, or leave it to the next try."""
    async with store.database.transaction() as tx:
        await tx.run(RELEASE, commitment_id=commitment_id, told=told)


async def request_commitment(
    store: "Store",
    access: Access,
    archive_id: int,
    dicom_node_id: int,
    transaction_uid: str,
    references: Sequence[Reference],
) -> int:
    """Have a node asked to commit to objects that it was sent, and return the request's number.

    Raises Denied, Invalid. `find_result` tells what the node has answered.
    """
    if not policy.may_read(access, archive_id):
        raise Denied("who may not read the archive cannot ask for its objects")
    check_request(transaction_uid, references)
    async with store.database.transaction() as tx:
        commitment_id = int(
            await tx.value(
                REQUEST,
                role="scu",
                archive_id=archive_id,
                dicom_node_id=dicom_node_id,
                transaction_uid=transaction_uid,
                requested=orjson.dumps(references).decode(),
            )
        )
        await jobs.defer_request_commitment(tx, commitment_id, dicom_node_id)
        await audit.record(
            tx,
            access,
            audit.AuditRecord(
                action="export",
                door="N-ACTION",
                archive_id=archive_id,
                detail={"commitment": commitment_id, "objects": len(references)},
            ),
        )
    return commitment_id


async def find_request(
    store: "Store", commitment_id: int
) -> tuple[Link, str, list[Reference]] | None:
    """Return whom we ask for what under which transaction; None when it is answered or gone."""
    async with store.database.transaction() as tx:
        commitment = await tx.one(_Commitment, FIND_COMMITMENT, commitment_id=commitment_id)
        if commitment is None or commitment.result is not None:
            return None
        link = await outgoing.find_link(tx, commitment.archive_id, commitment.dicom_node_id)
    return link, commitment.transaction_uid, commitment.references


async def find_result(store: "Store", commitment_id: int) -> CommitmentResult | None:
    """Return what has become of a request; None as long as nobody knows."""
    async with store.database.transaction() as tx:
        commitment = await tx.one(_Commitment, FIND_COMMITMENT, commitment_id=commitment_id)
    if commitment is None or commitment.result is None:
        return None
    return read_result(commitment.result)


async def take_result(
    store: "Store", dicom_node_id: int | None, transaction_uid: str, result: CommitmentResult
) -> None:
    """Keep what a node tells of a request of ours; the first answer counts.

    Raises NotFound when the node was not asked.
    """
    async with store.database.transaction() as tx:
        params = {"transaction_uid": transaction_uid, "dicom_node_id": dicom_node_id}
        if not await tx.value(WAS_ASKED, **params):
            raise NotFound("no commitment was asked for under this Transaction UID")
        await tx.run(TAKE_RESULT, result=orjson.dumps(stored_result(result)).decode(), **params)


def check_request(transaction_uid: str, references: Sequence[Reference]) -> None:
    """Raise Invalid naming the attribute for which this is no request."""
    checked_uid("00081195", transaction_uid)
    if not 1 <= len(references) <= REFERENCES_MAX:
        raise Invalid(f"00081199: {len(references)} references; 1 to {REFERENCES_MAX} can be")
    for sop_class_uid, sop_instance_uid in references:
        checked_uid("00081150", sop_class_uid)
        checked_uid("00081155", sop_instance_uid)


async def decide(
    store: "Store",
    archive_id: int,
    references: Sequence[Reference],
    series: Mapping[str, Series] | None = None,
) -> CommitmentResult:
    """Return which of the objects the archive commits to at this moment, and why not to the rest.

    `series` tells where objects were said to lie, by SOP Instance UID; one that lies elsewhere is
    not the object that was asked for. Raises Unavailable when a manifest cannot be read now.
    """
    held = await find_held(store, archive_id, [uid for _, uid in references])
    lost = await asyncio.to_thread(_lost, store, [one.blob for one in held.values()])
    lies_in = await _series_of(store, held) if series else {}
    committed: list[Reference] = []
    failures: list[Failure] = []
    for sop_class_uid, sop_instance_uid in references:
        one = held.get(sop_instance_uid)
        wanted = series.get(sop_instance_uid) if series else None
        if one is None or (wanted is not None and lies_in.get(one.series_id) != wanted):
            reason = NO_SUCH_OBJECT_INSTANCE
        elif one.sop_class_uid != sop_class_uid:
            reason = CLASS_INSTANCE_CONFLICT
        elif one.blob.key in lost:
            reason = PROCESSING_FAILURE
        else:
            committed.append((sop_class_uid, sop_instance_uid))
            continue
        failures.append((sop_class_uid, sop_instance_uid, reason))
    return CommitmentResult(tuple(committed), tuple(failures))


async def find_held(
    store: "Store", archive_id: int, sop_instance_uids: Sequence[str]
) -> dict[str, Held]:
    """Return those of the instances that the archive holds. Raises Unavailable as `decide`."""
    held: dict[str, Held] = {}
    wanted = frozenset(sop_instance_uids)
    # Rows before manifests: what is sealed between the two statements is seen by the second.
    async with store.database.transaction() as tx:
        rows = await tx.tuples(
            RECEIVED, archive_id=archive_id, sop_instance_uids=list(sop_instance_uids)
        )
        places = await locator.find_sealed(tx, wanted)
    for uid, sop_class_uid, key, offset, length, series_id in rows:
        held[uid] = Held(sop_class_uid, BlobRef(key, offset, length), series_id)
    for place in places:
        if place.archive_id != archive_id:
            continue
        index = await store.sealed.read_index(place.manifest_key, place.manifest_index_bytes)
        for uid in wanted.intersection(index.position):
            found = index.instances[index.position[uid]]
            held[uid] = Held(found.sop_class_uid, found.blob, place.series_id)
    return held


async def _series_of(store: "Store", held: Mapping[str, Held]) -> dict[int, Series]:
    series_ids = sorted({one.series_id for one in held.values()})
    async with store.database.statement() as tx:
        rows = await tx.tuples(SERIES_UIDS, series_ids=series_ids)
    return {series_id: (study, series) for series_id, study, series in rows}


def _lost(store: "Store", blobs: Iterable[BlobRef]) -> set[str]:
    """Return the packs that do not reach as far as the objects that should lie in them."""
    ends: dict[str, int] = {}
    for blob in blobs:
        ends[blob.key] = max(ends.get(blob.key, 0), blob.offset + blob.length)
    lost = set()
    for key, end in ends.items():
        try:
            store.blobs.read(BlobRef(key, end - 1, 1))
        except Unavailable:
            lost.add(key)
    return lost


def stored_result(result: CommitmentResult) -> dict[str, object]:
    """Return the result as it is kept."""
    return {"committed": result.committed, "failed": result.failed}


def read_result(stored: dict[str, list[list[Any]]]) -> CommitmentResult:
    """Return what `stored_result` has made."""
    return CommitmentResult(
        tuple((sop_class, uid) for sop_class, uid in stored["committed"]),
        tuple((sop_class, uid, int(reason)) for sop_class, uid, reason in stored["failed"]),
    )
