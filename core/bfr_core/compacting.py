"""Compacting: the bytes of deleted objects leave their packs when they have been kept long enough.

What stays is copied to a new pack, and one transaction swaps manifest and tombstones over; the
old pack goes an hour later, when nothing refers to it. Killed at any step, it begins again, and
what it left is swept away.
"""

import asyncio
import datetime
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bfr_core import jobs, uploading
from bfr_core.blobs import BlobRef
from bfr_core.database import Transaction
from bfr_core.errors import Unavailable
from bfr_core.manifest import Manifest, StoredInstance, write_manifest
from bfr_core.packs import Pack, read_pack, read_provenance

if TYPE_CHECKING:
    from bfr_core.store import Store

log = logging.getLogger("bfr.compacting")

OPEN_AGAIN_S = 60.0
DROP_AFTER = datetime.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _Due:
    archive_id: int
    due_in_s: float


@dataclass(frozen=True, slots=True)
class _Series:
    series_id: int
    revision: int
    state: str
    manifest_key: str | None
    manifest_index_bytes: int
    manifest_bytes: int
    in_rows: bool  # an instance row refers to the pack


@dataclass(frozen=True, slots=True)
class _Kept:
    """An instance in the pack that another deletion deleted: it may come back."""

    sop_instance_uid: str
    offset_bytes: int
    length_bytes: int
    digest: bytes


FIND_DUE = """
    SELECT archive_id, extract(epoch FROM
        deleted_at + %(keep)s - clock_timestamp())::float8 AS due_in_s
    FROM deletion WHERE deletion_id = %(deletion_id)s AND undone_at IS NULL
"""
PACKS = """
    SELECT DISTINCT pack_key, series_instance_uid FROM deleted_instance
    WHERE deletion_id = %(deletion_id)s AND pack_key IS NOT NULL ORDER BY pack_key
"""
FIND_SERIES = """
    SELECT series_id, revision, state, manifest_key,
        coalesce(manifest_index_bytes, 0) AS manifest_index_bytes,
        coalesce(manifest_bytes, 0) AS manifest_bytes,
        EXISTS (SELECT FROM instance
            WHERE instance.series_id = series.series_id AND pack_key = %(pack_key)s) AS in_rows
    FROM series
    WHERE series_instance_uid = %(series_instance_uid)s AND archive_id = %(archive_id)s
"""
LOCK_SERIES = f"{FIND_SERIES} FOR UPDATE"
FIND_KEPT = """
    SELECT sop_instance_uid, offset_bytes, length_bytes, digest FROM deleted_instance
    WHERE pack_key = %(pack_key)s AND deletion_id <> %(deletion_id)s
    ORDER BY offset_bytes
"""
LOCK_KEPT = f"{FIND_KEPT} FOR UPDATE"
LOCK_DELETION = """
    SELECT deletion_id FROM deletion
    WHERE deletion_id = %(deletion_id)s AND undone_at IS NULL FOR UPDATE
"""
PURGE = """
    UPDATE deleted_instance SET pack_key = NULL
    WHERE deletion_id = %(deletion_id)s AND pack_key = %(pack_key)s
"""
PURGED = "UPDATE deletion SET purged_at = now() WHERE deletion_id = %(deletion_id)s"
MOVE_KEPT = """
    UPDATE deleted_instance SET pack_key = %(new_key)s, offset_bytes = new.offset_bytes
    FROM unnest(%(old_offsets)s::bigint[], %(offsets)s::bigint[]) AS new(was, offset_bytes)
    WHERE pack_key = %(pack_key)s AND deleted_instance.offset_bytes = new.was
        AND deletion_id <> %(deletion_id)s
"""
SWAP_MANIFEST = """
    UPDATE series SET revision = revision + 1, manifest_key = %(manifest_key)s,
        manifest_index_bytes = %(manifest_index_bytes)s, manifest_bytes = %(manifest_bytes)s
    WHERE series_id = %(series_id)s
"""


async def compact_deletion(store: "Store", deletion_id: int) -> float:
    """Take the deletion's objects out of the packs when it is time.

    Returns 0 when there is nothing left to do, else the seconds after which to look again.
    Raises Unavailable when what must stay cannot be copied whole.
    """
    keep = datetime.timedelta(days=store.settings.deleted_keep_days)
    async with store.database.transaction() as tx:
        due = await tx.one(_Due, FIND_DUE, deletion_id=deletion_id, keep=keep)
        packs = await tx.tuples(PACKS, deletion_id=deletion_id)
    if due is None:
        return 0.0
    if due.due_in_s > 0:
        return due.due_in_s
    again_s = 0.0
    for pack_key, series_instance_uid in packs:
        place = {
            "archive_id": due.archive_id,
            "series_instance_uid": series_instance_uid,
            "pack_key": pack_key,
        }
        again_s = max(again_s, await _compact_pack(store, deletion_id, pack_key, place))
    if not again_s:
        async with store.database.transaction() as tx:
            await tx.run(PURGED, deletion_id=deletion_id)
        log.info("the bytes of deletion %d have left %d packs", deletion_id, len(packs))
    return again_s


async def _compact_pack(
    store: "Store", deletion_id: int, pack_key: str, place: dict[str, object]
) -> float:
    if await asyncio.to_thread(store.blobs.is_open, pack_key):
        return OPEN_AGAIN_S
    others = {"pack_key": pack_key, "deletion_id": deletion_id}
    async with store.database.transaction() as tx:
        series = await tx.one(_Series, FIND_SERIES, **place)
        kept = await tx.all(_Kept, FIND_KEPT, **others)
    if series is not None and series.in_rows:
        return max(1.0, store.settings.seal_quiet_s)  # when it is sealed
    index: list[StoredInstance] = []
    if series is not None and series.manifest_key is not None:
        sealed = await store.sealed.read_index(series.manifest_key, series.manifest_index_bytes)
        index = sealed.instances
    live = [one for one in index if one.blob.key == pack_key]
    if (live or kept) and not await asyncio.to_thread(store.blobs.exists, pack_key):
        raise Unavailable(f"pack {pack_key} is missing: what should stay of it cannot be copied")
    staying = {one.blob.offset: (one.blob, one.digest) for one in live} | {
        one.offset_bytes: (BlobRef(pack_key, one.offset_bytes, one.length_bytes), one.digest)
        for one in kept
    }
    new_pack, manifest, manifest_key = None, None, ""
    moved: dict[int, BlobRef] = {}
    if staying:
        new_pack = store.blobs.key_beside(pack_key)
        moved = await asyncio.to_thread(_copy, store, pack_key, new_pack, staying)
    if live and series is not None:
        manifest = await _moved_manifest(store, series, index, pack_key, moved)
        manifest_key = store.blobs.new_key(int(str(place["archive_id"])), "manifest")
        await asyncio.to_thread(store.blobs.put, manifest_key, manifest.data)
    async with store.database.transaction() as tx:
        # The same order as everywhere: series, then what hangs on it.
        unchanged = await tx.one(_Series, LOCK_SERIES, **place) == series
        unchanged &= await tx.all(_Kept, LOCK_KEPT, **others) == kept
        if unchanged and await tx.value(LOCK_DELETION, deletion_id=deletion_id) is not None:
            if manifest is not None and series is not None:
                await _swap_manifest(tx, series, manifest_key, manifest)
            if new_pack is not None:
                await tx.run(
                    MOVE_KEPT,
                    **others,
                    new_key=new_pack,
                    old_offsets=list(moved),
                    offsets=[ref.offset for ref in moved.values()],
                )
            await tx.run(PURGE, deletion_id=deletion_id, pack_key=pack_key)
            await uploading.spool(tx, store, list(filter(None, (new_pack, manifest_key))))
            await jobs.defer_drop_pack(tx, pack_key, DROP_AFTER)
            return 0.0
    # An instance came, another deletion was made or undone meanwhile: begin again.
    for key in filter(None, (new_pack, manifest_key)):
        await asyncio.to_thread(store.blobs.delete, key)
    return 1.0


def _copy(
    store: "Store", old: str, new: str, staying: dict[int, tuple[BlobRef, bytes]]
) -> dict[int, BlobRef]:
    """Return where each instance lies in the new pack, by its old offset.

    Raises Unavailable, and leaves no new pack, when one is not whole.
    """
    provenance = read_provenance(store.blobs, old)
    if provenance is None:
        raise Unavailable(f"the header of pack {old} is damaged: nothing is copied from it")
    pack = Pack(store.blobs, new, provenance)
    try:
        moved = {
            offset: pack.copy_record(store.blobs, staying[offset][0]) for offset in sorted(staying)
        }
        pack.sync()
        found = {record.ref: record.digest for record in read_pack(store.blobs, new)}
        if found != {moved[offset]: digest for offset, (_, digest) in staying.items()}:
            raise Unavailable(f"an object in pack {old} is damaged: nothing is deleted from it")
    except BaseException:
        pack.remove()
        raise
    pack.close()
    return moved


async def _moved_manifest(
    store: "Store",
    series: _Series,
    index: Sequence[StoredInstance],
    pack_key: str,
    moved: dict[int, BlobRef],
) -> Manifest:
    headers = await store.sealed.read_headers(
        str(series.manifest_key), series.manifest_index_bytes, series.manifest_bytes
    )
    entries = [
        (replace(one, blob=moved[one.blob.offset]) if one.blob.key == pack_key else one, header)
        for one, header in zip(index, headers, strict=True)
    ]
    return await asyncio.to_thread(write_manifest, entries)


async def _swap_manifest(
    tx: Transaction, series: _Series, manifest_key: str, manifest: Manifest
) -> None:
    await tx.run(
        SWAP_MANIFEST,
        series_id=series.series_id,
        manifest_key=manifest_key,
        manifest_index_bytes=manifest.index_bytes,
        manifest_bytes=len(manifest.data),
    )
    # Somebody may be reading it: it goes an hour later.
    await jobs.defer_delete_blob(tx, str(series.manifest_key), DROP_AFTER)
