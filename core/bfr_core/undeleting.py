"""Undeleting: the objects of a deletion registered again from the packs where they still lie."""

import asyncio
import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bfr_core import commitments, events, jobs
from bfr_core.access import Access, operator
from bfr_core.blobs import BlobRef
from bfr_core.connections import Archive
from bfr_core.deleting import delete
from bfr_core.errors import Conflict, NotFound
from bfr_core.receiving import Received, Reception
from bfr_core.restoring import restored
from bfr_core.tombstones import Target, archive_to_delete_from, keys_of, record_act

if TYPE_CHECKING:
    from bfr_core.store import Store

UNDO_BATCH = 100


@dataclass(frozen=True, slots=True)
class Undone:
    """What an undoing brought back, and of how many objects the bytes were gone already."""

    restored: int
    gone: int


LOCK_DELETION = """
    SELECT deletion_id, blob_key FROM deletion
    WHERE study_instance_uid = %(study_instance_uid)s AND archive_id = %(archive_id)s
        AND series_instance_uid IS NOT DISTINCT FROM %(series_instance_uid)s
        AND sop_instance_uid IS NOT DISTINCT FROM %(sop_instance_uid)s
        AND undone_at IS NULL
    FOR UPDATE
"""
FIND_WIDER = """
    SELECT deletion_id FROM deletion
    WHERE study_instance_uid = %(study_instance_uid)s AND archive_id = %(archive_id)s
        AND undone_at IS NULL AND sop_instance_uid IS NULL
        AND (series_instance_uid IS NULL AND %(series_instance_uid)s::text IS NOT NULL
            OR series_instance_uid = %(series_instance_uid)s
                AND %(sop_instance_uid)s::text IS NOT NULL)
    LIMIT 1
"""
UNDO = """
    UPDATE deletion SET undone_at = now(), undone_by = %(undone_by)s
    WHERE deletion_id = %(deletion_id)s
"""
FIND_UNDONE = """
    SELECT archive.archive_id, archive.connection_id, archive.ae_title, archive.name, undone_by,
        rejection_code IS NOT NULL AS is_rejection,
        study_instance_uid, series_instance_uid, sop_instance_uid
    FROM deletion JOIN archive USING (archive_id)
    WHERE deletion_id = %(deletion_id)s AND undone_at IS NOT NULL
"""
TO_RESTORE = """
    SELECT sop_instance_uid, pack_key, offset_bytes, length_bytes, dataset_offset, digest,
        series_instance_uid
    FROM deleted_instance
    WHERE deletion_id = %(deletion_id)s AND pack_key IS NOT NULL
    ORDER BY pack_key, offset_bytes LIMIT %(limit)s
"""
FORGET = """
    DELETE FROM deleted_instance
    WHERE deletion_id = %(deletion_id)s AND sop_instance_uid = ANY(%(sop_instance_uids)s)
"""
FORGET_GONE = """
    DELETE FROM deleted_instance WHERE deletion_id = %(deletion_id)s AND pack_key IS NULL
"""


async def undelete(store: "Store", access: Access, ae_title: str, target: Target) -> Undone:
    """Undo the deletion of exactly this study, series or instance.

    Objects whose bytes are gone are accepted again when somebody sends them. Raises Denied,
    NotFound when there is no such deletion, Conflict while a wider one stands.
    """
    archive = await archive_to_delete_from(store, access, ae_title)
    async with store.database.transaction() as tx:
        found = await tx.tuples(LOCK_DELETION, **keys_of(archive, target))
        if not found:
            raise NotFound("nothing with these UIDs was deleted from the archive by itself")
        if await tx.value(FIND_WIDER, **keys_of(archive, target)) is not None:
            raise Conflict("the series or study it belongs to is deleted too: undo that first")
        deletion_id, blob_key = found[0]
        await tx.run(UNDO, deletion_id=deletion_id, undone_by=access.subject)
        await jobs.defer_restore(tx, deletion_id)
        await jobs.defer_delete_blob(tx, blob_key, datetime.timedelta())
        await record_act(tx, access, "undelete", archive, target)
    return await restore_undone(store, deletion_id)


async def restore_undone(store: "Store", deletion_id: int) -> Undone:
    """Register the objects of an undone deletion again; nothing happens the second time.

    Raises Conflict when one does not fit what the archive holds by now.
    """
    async with store.database.transaction() as tx:
        rows = await tx.rows(FIND_UNDONE, deletion_id=deletion_id)
    if not rows:
        return Undone(0, 0)
    access = operator(rows[0].pop("undone_by"))
    uids = ("study_instance_uid", "series_instance_uid", "sop_instance_uid")
    is_rejection = rows[0].pop("is_rejection")
    target = Target(*(rows[0].pop(uid) for uid in uids))
    reception = Reception(store, access, Archive(**rows[0]), "undelete")
    count = 0
    while True:
        async with store.database.transaction() as tx:
            places = await tx.rows(TO_RESTORE, deletion_id=deletion_id, limit=UNDO_BATCH)
        if not places:
            break
        received = await asyncio.to_thread(_restored_all, reception, places)
        outcomes = await store.commit(received)
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
        count += len(outcomes)
        async with store.database.transaction() as tx:
            restored_uids = [str(row["sop_instance_uid"]) for row in places]
            await tx.run(FORGET, deletion_id=deletion_id, sop_instance_uids=restored_uids)
            # With every batch: an undoing that goes on after a crash has told of all of them.
            await events.write(
                tx,
                "instances_restored",
                archive_id=reception.archive.archive_id,
                study_instance_uid=target.study_instance_uid,
                series_instance_uid=target.series_instance_uid,
                sop_instance_uid=target.sop_instance_uid,
            )
    async with store.database.transaction() as tx:
        gone = await tx.run(FORGET_GONE, deletion_id=deletion_id)
    if is_rejection:
        await _take_back_note(store, access, reception.archive, target)
    return Undone(count, gone)


async def _take_back_note(store: "Store", access: Access, archive: Archive, note: Target) -> None:
    """Delete the note of a rejection that holds no more; nothing happens the second time."""
    uid = str(note.sop_instance_uid)
    if uid in await commitments.find_held(store, archive.archive_id, [uid]):
        await delete(store, access, archive.ae_title, note, "the rejection was taken back")


def _restored_all(reception: Reception, places: list[dict[str, Any]]) -> list[Received]:
    return [restored(reception, *_place(row)) for row in places]


def _place(row: dict[str, Any]) -> tuple[BlobRef, int, bytes]:
    ref = BlobRef(row["pack_key"], row["offset_bytes"], row["length_bytes"])
    return ref, row["dataset_offset"], row["digest"]
