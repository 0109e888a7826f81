"""Non-patient instances: hanging protocols, colour palettes, implant templates … (PS3.18 §12).

They belong to no study: each is a row of its own, with its bytes in a pack.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson
import zstandard

from bfr_core import audit, policy, uploading
from bfr_core.access import Access
from bfr_core.database import Transaction
from bfr_core.errors import ArchiveError, NotFound, Unavailable
from bfr_core.instance_rows import HEADER_MAX_BYTES, read_instance_row
from bfr_core.instances import Dataset, clean_json
from bfr_core.manifest import StoredInstance
from bfr_core.matching import Match
from bfr_core.receiving import Received
from bfr_core.registration import counted
from bfr_core.registration_batch import DuplicateUid, Outcome
from bfr_core.workitem_search import conditions_of, matchable

if TYPE_CHECKING:
    from bfr_core.store import Store

# One writer at a time: they come rarely, and so they are numbered in the order of their commits,
# which the pages of a search go by.
LOCK = "LOCK TABLE non_patient_instance IN SHARE ROW EXCLUSIVE MODE"
INSERT = """
    INSERT INTO non_patient_instance (archive_id, category, sop_instance_uid, sop_class_uid,
        transfer_syntax_uid, pack_key, offset_bytes, length_bytes, dataset_offset, digest,
        header, matchable, received_at)
    VALUES (%(archive_id)s, %(category)s, %(sop_instance_uid)s, %(sop_class_uid)s,
        %(transfer_syntax_uid)s, %(pack_key)s, %(offset_bytes)s, %(length_bytes)s,
        %(dataset_offset)s, %(digest)s, %(header)s, %(matchable)s, %(received_at)s)
    ON CONFLICT (sop_instance_uid, archive_id) DO NOTHING
"""
FIND_DIGEST = """
    SELECT digest FROM non_patient_instance
    WHERE sop_instance_uid = %(sop_instance_uid)s AND archive_id = %(archive_id)s
"""
FIND = """
    SELECT archive_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid,
        NULL AS instance_number, pack_key, offset_bytes, length_bytes, dataset_offset, digest,
        NULL AS frames, header
    FROM non_patient_instance
    WHERE category = %(category)s AND sop_instance_uid = %(sop_instance_uid)s
        AND (%(archive_ids)s::integer[] IS NULL OR archive_id = ANY(%(archive_ids)s))
    ORDER BY non_patient_instance_id LIMIT 1
"""
# In the order in which they came: what arrives meanwhile comes last. One that lies in two archives
# comes once.
SEARCH = """
    WITH found AS (
        SELECT header FROM non_patient_instance
        WHERE category = %(category)s AND {where}
            AND (%(archive_ids)s::integer[] IS NULL OR archive_id = ANY(%(archive_ids)s))
            AND NOT EXISTS (
                SELECT FROM non_patient_instance AS earlier
                WHERE earlier.sop_instance_uid = non_patient_instance.sop_instance_uid
                    AND earlier.non_patient_instance_id
                        < non_patient_instance.non_patient_instance_id
                    AND (%(archive_ids)s::integer[] IS NULL
                        OR earlier.archive_id = ANY(%(archive_ids)s)))
        ORDER BY non_patient_instance_id LIMIT %(limit)s OFFSET %(offset)s
    ), recorded AS ({record})
    SELECT header FROM found
"""
ALL = """
    SELECT archive_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid,
        NULL AS instance_number, pack_key, offset_bytes, length_bytes, dataset_offset, digest,
        NULL AS frames, NULL AS header
    FROM non_patient_instance ORDER BY archive_id, non_patient_instance_id
"""
IN_PACK = "SELECT EXISTS (SELECT FROM non_patient_instance WHERE pack_key = %(key)s)"


@dataclass(frozen=True, slots=True)
class NonPatientInstance:
    """One instance of no patient."""

    stored: StoredInstance
    header: bytes  # DICOM JSON


async def commit(store: "Store", received: Sequence[Received]) -> list[Outcome]:
    """Return what became of each object, in order, when that can no longer be lost.

    Errors of single objects stand in their outcome. When database or disk fail, every outcome
    holds Unavailable.
    """
    try:
        for pack in {one.pack for one in received}:
            await asyncio.to_thread(pack.sync)
        async with store.database.transaction() as tx:
            await tx.run(LOCK)
            outcomes = [await _register(tx, one) for one in received]
            keys = {one.received.blob.key for one in outcomes if one.stored == "new"}
            await uploading.spool(tx, store, sorted(keys))
    except Unavailable as error:
        return counted([Outcome(one, None, error) for one in received])
    for outcome in reversed(outcomes):
        if outcome.stored != "new":
            outcome.received.pack.discard_last(outcome.received.blob)
    return counted(outcomes)


async def retrieve_non_patient_instance(
    store: "Store",
    access: Access,
    door: str,
    *,
    archive_id: int | None,
    category: str,
    sop_instance_uid: str,
) -> NonPatientInstance:
    """Return the instance of the category. Raises NotFound, also when the caller may not know."""
    async with store.database.transaction() as tx:
        rows = await tx.rows(
            FIND,
            category=category,
            sop_instance_uid=sop_instance_uid.replace("\x00", ""),
            archive_ids=policy.visible_archives(access, archive_id),
        )
        if not rows:
            raise NotFound(f"there is no such instance among {category}")
        await audit.record(
            tx,
            access,
            audit.AuditRecord(
                action="read",
                door=door,
                archive_id=rows[0]["archive_id"],
                sop_instance_uid=sop_instance_uid,
            ),
        )
    return NonPatientInstance(*read_instance_row(rows[0]))


async def search_non_patient_instances(
    store: "Store",
    access: Access,
    door: str,
    *,
    archive_id: int | None,
    category: str,
    matches: Sequence[Match],
    limit: int,
    offset: int,
) -> list[Dataset]:
    """Return the headers of the category's instances that match every key, oldest first.

    Raises Invalid naming the key whose value cannot be matched.
    """
    conditions = conditions_of(matches, "non_patient_instance.matchable")
    sql = SEARCH.format(where=conditions.where(), record=audit.RECORD_SEARCH)
    async with store.database.transaction() as tx:
        rows = await tx.tuples(
            sql,
            **conditions.params,
            **audit.search_params(access, door, archive_id, [match.tag for match in matches]),
            category=category,
            archive_ids=policy.visible_archives(access, archive_id),
            limit=limit,
            offset=offset,
        )
    return [_header(header) for (header,) in rows]


async def all_by_archive(tx: Transaction) -> dict[int, list[StoredInstance]]:
    """Return where every instance lies, by the archive's row; for the keeping of blobs."""
    found: dict[int, list[StoredInstance]] = {}
    for row in await tx.rows(ALL):
        found.setdefault(row["archive_id"], []).append(read_instance_row(row)[0])
    return found


async def _register(tx: Transaction, one: Received) -> Outcome:
    archive = one.reception.archive
    known = {"sop_instance_uid": one.sop_instance_uid, "archive_id": archive.archive_id}
    added = await tx.run(
        INSERT,
        **known,
        category=one.category,
        sop_class_uid=one.sop_class_uid,
        transfer_syntax_uid=one.transfer_syntax_uid,
        pack_key=one.blob.key,
        offset_bytes=one.blob.offset,
        length_bytes=one.blob.length,
        dataset_offset=one.dataset_offset,
        digest=one.digest,
        header=one.header,
        matchable=orjson.dumps(clean_json(matchable(_header(one.header)))).decode(),
        received_at=one.received_at or datetime.now(UTC),
    )
    if added:
        await _record(tx, one, None)
        return Outcome(one, "new", None)
    if await tx.value(FIND_DIGEST, **known) == one.digest:
        await _record(tx, one, None)
        return Outcome(one, "identical", None)
    error = DuplicateUid("another object is stored under this SOP Instance UID")
    await _record(tx, one, error)
    return Outcome(one, None, error)


async def _record(tx: Transaction, one: Received, error: ArchiveError | None) -> None:
    await audit.record(
        tx,
        one.reception.access,
        audit.AuditRecord(
            action="store",
            door=one.reception.door,
            outcome="success" if error is None else "refused",
            archive_id=one.reception.archive.archive_id,
            sop_instance_uid=one.sop_instance_uid,
            detail=None if error is None else {"reason": error.message},
        ),
    )


def _header(compressed: bytes) -> Dataset:
    decompressor = zstandard.ZstdDecompressor()
    header: Dataset = orjson.loads(
        decompressor.decompress(compressed, max_output_size=HEADER_MAX_BYTES)
    )
    return header
