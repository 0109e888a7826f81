"""Deleting: out of every list and answer at once, with who, when and why; bytes go much later.

The objects leave the index in one transaction, so that no query need know of deletions, and a
tombstone stays: what was deleted is refused when it comes again. The tombstone also lies as a
blob beside the packs, so that a rebuilt index does not bring deleted objects back. Undoing
registers the objects again from their packs. (PDL 3:14, 3:17.)
"""

import asyncio
import datetime
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from bfr_core import events, jobs, uploading
from bfr_core.access import Access
from bfr_core.connections import Archive
from bfr_core.database import ONE_SNAPSHOT, Transaction
from bfr_core.errors import Conflict, Invalid, NotFound
from bfr_core.instances import UID
from bfr_core.manifest import Manifest, StoredInstance, write_manifest
from bfr_core.sealing import receiving_instances, representative
from bfr_core.tombstones import (
    Gone,
    Target,
    Tombstone,
    archive_to_delete_from,
    bury,
    place_of,
    record_act,
)

if TYPE_CHECKING:
    from bfr_core.store import Store

log = logging.getLogger("bfr.deleting")

ATTEMPTS = 5
REASON_MAX_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Scope:
    """What leaves the index: of a study, or of one of its series, all or the instances named."""

    study_instance_uid: str
    series_instance_uid: str | None = None
    sop_instance_uids: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class _Series:
    series_id: int
    series_instance_uid: str
    revision: int
    state: str
    manifest_key: str | None
    manifest_index_bytes: int
    manifest_bytes: int


@dataclass(frozen=True, slots=True)
class _Study:
    study_id: int
    patient_id: int


@dataclass(frozen=True, slots=True)
class _Change:
    """What becomes of one series: what leaves it, and the manifest of what stays."""

    series: _Series
    gone: list[StoredInstance]
    stays: int  # instances
    representative: str | None
    manifest_key: str | None
    manifest: Manifest | None


FIND_STUDY = """
    SELECT study_id, patient_id FROM study
    WHERE study_instance_uid = %(study_instance_uid)s AND archive_id = %(archive_id)s
"""
FIND_SERIES = """
    SELECT series_id, series_instance_uid, revision, state, manifest_key,
        coalesce(manifest_index_bytes, 0) AS manifest_index_bytes,
        coalesce(manifest_bytes, 0) AS manifest_bytes
    FROM series WHERE study_id = %(study_id)s
        AND (%(series_instance_uid)s::text IS NULL OR series_instance_uid = %(series_instance_uid)s)
    ORDER BY series_id
"""
# Series first, as registration does, so that neither waits for the other for ever.
LOCK_SERIES = f"{FIND_SERIES} FOR UPDATE"
LOCK_STUDY = "SELECT study_id FROM study WHERE study_id = %(study_id)s FOR UPDATE"
DROP_ROWS = """
    DELETE FROM instance WHERE series_id = %(series_id)s
        AND sop_instance_uid = ANY(%(sop_instance_uids)s)
"""
SHRINK_SERIES = """
    UPDATE series SET number_of_instances = number_of_instances - %(instances)s,
        size_bytes = size_bytes - %(size_bytes)s, revision = revision + 1,
        manifest_key = %(manifest_key)s, manifest_index_bytes = %(manifest_index_bytes)s,
        manifest_bytes = %(manifest_bytes)s, representative_sop_instance_uid = %(representative)s
    WHERE series_id = %(series_id)s
"""
DROP_SERIES = "DELETE FROM series WHERE series_id = %(series_id)s"
# The patient's row stays: the audit trail names it.
SHRINK_STUDY = """
    UPDATE study SET (number_of_series, number_of_instances, size_bytes, modalities, body_parts) =
        (SELECT count(*), coalesce(sum(number_of_instances), 0), coalesce(sum(size_bytes), 0),
            coalesce(array_agg(DISTINCT modality ORDER BY modality) FILTER (WHERE modality <> ''),
                '{}'),
            coalesce(array_agg(DISTINCT body_part ORDER BY body_part)
                FILTER (WHERE body_part <> ''), '{}')
        FROM series WHERE series.study_id = study.study_id)
    WHERE study_id = %(study_id)s
    RETURNING number_of_series
"""
DROP_STUDY = "DELETE FROM study WHERE study_id = %(study_id)s"


async def delete(store: "Store", access: Access, ae_title: str, target: Target, reason: str) -> int:
    """Delete from an archive; returns the number of objects that are in no answer from now on.

    Raises Denied, NotFound, Invalid without a reason, Conflict when the objects change all the
    time, Unavailable when a manifest cannot be read.
    """
    reason = reason.strip()
    if not 0 < len(reason) <= REASON_MAX_CHARACTERS:
        raise Invalid(f"a deletion needs a reason of 1 to {REASON_MAX_CHARACTERS} characters")
    for uid in (target.study_instance_uid, target.series_instance_uid, target.sop_instance_uid):
        if uid is not None and not UID.fullmatch(uid):
            raise NotFound(f"{uid!r} is no UID")
    archive = await archive_to_delete_from(store, access, ae_title)
    one = target.sop_instance_uid
    scope = Scope(
        target.study_instance_uid,
        target.series_instance_uid,
        None if one is None else frozenset([one]),
    )
    tombstone = Tombstone(
        archive.ae_title, target, reason, access.subject, datetime.datetime.now(datetime.UTC)
    )
    return await take_out(store, access, "bfr", archive, scope, tombstone)


async def take_out(
    store: "Store",
    access: Access,
    door: str,
    archive: Archive,
    scope: Scope,
    tombstone: Tombstone,
) -> int:
    """Delete what the caller may delete and return the number of objects. Raises as `delete`."""
    for _ in range(ATTEMPTS):
        study, changes = await _plan(store, archive, scope)
        deletion_key = store.blobs.new_key(archive.archive_id, "deletion")
        await asyncio.to_thread(
            _put_all, store, changes, deletion_key, tombstone.to_json(_gone(changes))
        )
        try:
            async with store.database.transaction() as tx:
                done = await _commit(
                    tx, store, access, door, archive, study, scope, changes, tombstone, deletion_key
                )
        except (psycopg.errors.DeadlockDetected, psycopg.errors.ForeignKeyViolation):
            done = False
        if done:
            return sum(len(change.gone) for change in changes)
        for key in (deletion_key, *(change.manifest_key for change in changes)):
            if key is not None:
                await asyncio.to_thread(store.blobs.delete, key)
    raise Conflict("objects arrive all the time: try again when the sender is done")


async def _plan(store: "Store", archive: Archive, scope: Scope) -> tuple[_Study, list[_Change]]:
    """Return what the deletion would change, with manifests that are not written yet."""
    async with store.database.transaction() as tx:
        # Of a sealing under way its rows or its manifest, never neither.
        await tx.run(ONE_SNAPSHOT)
        study = await tx.one(
            _Study,
            FIND_STUDY,
            study_instance_uid=scope.study_instance_uid,
            archive_id=archive.archive_id,
        )
        if study is None:
            raise NotFound(f"there is no such study in archive {archive.ae_title!r}")
        listed = await tx.all(
            _Series,
            FIND_SERIES,
            study_id=study.study_id,
            series_instance_uid=scope.series_instance_uid,
        )
        fresh = {
            one.series_id: [entry[0] for entry in await receiving_instances(tx, [one.series_id])]
            for one in listed
        }
    changes = [await _change(store, archive, one, fresh[one.series_id], scope) for one in listed]
    if not any(change.gone for change in changes):
        raise NotFound("there is no such series or instance in the study")
    return study, changes


async def _change(
    store: "Store",
    archive: Archive,
    series: _Series,
    fresh: list[StoredInstance],
    scope: Scope,
) -> _Change:
    wanted = scope.sop_instance_uids
    index: list[StoredInstance] = []
    if series.manifest_key is not None:
        sealed = await store.sealed.read_index(series.manifest_key, series.manifest_index_bytes)
        index = sealed.instances
    everything = [*index, *fresh]
    gone = [one for one in everything if wanted is None or one.sop_instance_uid in wanted]
    left = {one.sop_instance_uid for one in gone}
    stays = [one for one in everything if one.sop_instance_uid not in left]
    key, manifest = series.manifest_key, None
    if stays and any(one.sop_instance_uid in left for one in index):
        key = None
        headers = await store.sealed.read_headers(
            str(series.manifest_key), series.manifest_index_bytes, series.manifest_bytes
        )
        pairs = zip(index, headers, strict=True)
        kept = [(one, header) for one, header in pairs if one.sop_instance_uid not in left]
        if kept:
            manifest = await asyncio.to_thread(write_manifest, kept)
            key = store.blobs.new_key(archive.archive_id, "manifest")
    return _Change(series, gone, len(stays), representative(stays), key, manifest)


def _put_all(
    store: "Store", changes: Sequence[_Change], deletion_key: str, tombstone: bytes
) -> None:
    store.blobs.put(deletion_key, tombstone)
    for change in changes:
        if change.manifest is not None and change.manifest_key is not None:
            store.blobs.put(change.manifest_key, change.manifest.data)


def _gone(changes: Sequence[_Change]) -> Gone:
    return [(change.series.series_instance_uid, one) for change in changes for one in change.gone]


async def _commit(
    tx: Transaction,
    store: "Store",
    access: Access,
    door: str,
    archive: Archive,
    study: _Study,
    scope: Scope,
    changes: Sequence[_Change],
    tombstone: Tombstone,
    deletion_key: str,
) -> bool:
    """Make the change; False, and nothing is changed, when it was planned on what has passed."""
    target = tombstone.target
    wanted = {"study_id": study.study_id, "series_instance_uid": scope.series_instance_uid}
    planned = [change.series for change in changes]
    await tx.tuples(LOCK_SERIES, **wanted)
    await tx.run(LOCK_STUDY, study_id=study.study_id)
    if await tx.all(_Series, FIND_SERIES, **wanted) != planned:
        return False
    for change in changes:
        await _change_series(tx, change)
    if await tx.value(SHRINK_STUDY, study_id=study.study_id) == 0:
        await tx.run(DROP_STUDY, study_id=study.study_id)
    gone = _gone(changes)
    columns: list[Sequence[Any]] = list(
        zip(
            *[(series, one.sop_instance_uid, *place_of(one), one.digest) for series, one in gone],
            strict=True,
        )
    )
    deletion_id = await bury(tx, archive.archive_id, tombstone, deletion_key, columns)
    if deletion_id is None:
        raise Conflict("another deletion of the same was not undone")
    written = [change.manifest_key for change in changes if change.manifest is not None]
    await uploading.spool(tx, store, [deletion_key, *filter(None, written)])
    keep = datetime.timedelta(days=store.settings.deleted_keep_days)
    await jobs.defer_compact(tx, deletion_id, keep)
    for change in changes:
        old = change.series.manifest_key
        if old is not None and (not change.stays or change.manifest_key != old):
            # Somebody may be reading it: it goes an hour later.
            await jobs.defer_delete_blob(tx, old, datetime.timedelta(hours=1))
    await events.write(
        tx,
        "instances_deleted" if tombstone.rejection_code is None else "instances_rejected",
        archive_id=archive.archive_id,
        study_instance_uid=target.study_instance_uid,
        series_instance_uid=target.series_instance_uid,
        sop_instance_uid=target.sop_instance_uid,
    )
    await record_act(
        tx, access, "delete", archive, target,
        patient_id=study.patient_id, door=door, reason=tombstone.reason, instances=len(gone),
    )  # fmt: skip
    return True


async def _change_series(tx: Transaction, change: _Change) -> None:
    series_id = change.series.series_id
    if not change.gone:
        return
    uids = [one.sop_instance_uid for one in change.gone]
    await tx.run(DROP_ROWS, series_id=series_id, sop_instance_uids=uids)
    if not change.stays:
        await tx.run(DROP_SERIES, series_id=series_id)
        return
    series, manifest, key = change.series, change.manifest, change.manifest_key
    index_bytes: int | None = series.manifest_index_bytes
    whole_bytes: int | None = series.manifest_bytes
    if manifest is not None:
        index_bytes, whole_bytes = manifest.index_bytes, len(manifest.data)
    elif key is None:
        index_bytes = whole_bytes = None
    await tx.run(
        SHRINK_SERIES,
        series_id=series_id,
        instances=len(change.gone),
        size_bytes=sum(one.blob.length for one in change.gone),
        manifest_key=key,
        manifest_index_bytes=index_bytes,
        manifest_bytes=whole_bytes,
        representative=change.representative,
    )
