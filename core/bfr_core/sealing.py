"""Sealing: when a series has been quiet, its instance rows become one manifest.

A late instance opens the series again; the next sealing writes a new manifest with everything
and replaces the old one in one transaction. Readers see either the one or the other.
"""

import asyncio
import datetime
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from bfr_core import availability, events, jobs, locator, metrics, uploading
from bfr_core.database import ONE_SNAPSHOT, Transaction
from bfr_core.instance_rows import read_instance_row
from bfr_core.manifest import StoredInstance, in_order, write_manifest

if TYPE_CHECKING:
    from bfr_core.store import Store


@dataclass(frozen=True, slots=True)
class _Series:
    series_id: int
    study_id: int
    archive_id: int
    revision: int
    state: str
    quiet_s: float
    manifest_key: str | None
    manifest_index_bytes: int
    manifest_bytes: int
    series_instance_uid: str
    study_instance_uid: str


FIND_SERIES = """
    SELECT series_id, study_id, series.archive_id, revision, state,
        extract(epoch FROM clock_timestamp() - last_received_at)::float8 AS quiet_s,
        manifest_key, coalesce(manifest_index_bytes, 0) AS manifest_index_bytes,
        coalesce(manifest_bytes, 0) AS manifest_bytes, series_instance_uid, study_instance_uid
    FROM series JOIN study USING (study_id)
    WHERE series_id = %(series_id)s
"""
INSTANCE_ROWS = """
    SELECT sop_instance_uid, sop_class_uid, transfer_syntax_uid, instance_number, pack_key,
        offset_bytes, length_bytes, dataset_offset, digest, frames, header
    FROM instance WHERE series_id = ANY(%(series_ids)s)
    ORDER BY series_id, instance_number NULLS LAST, sop_instance_uid
"""
SEAL = """
    UPDATE series SET state = 'sealed', manifest_key = %(manifest_key)s,
        manifest_index_bytes = %(manifest_index_bytes)s, manifest_bytes = %(manifest_bytes)s,
        representative_sop_instance_uid = %(representative)s,
        locator_key = %(locator_key)s, locator_keys = %(locator_keys)s
    WHERE series_id = %(series_id)s AND revision = %(revision)s AND state = 'receiving'
"""
DROP_ROWS = "DELETE FROM instance WHERE series_id = %(series_id)s"


async def seal_series(store: "Store", series_id: int) -> float:
    """Seal the series when it is quiet.

    Returns 0 when there is nothing left to do, else the seconds after which to look again.
    """
    async with store.database.transaction() as tx:
        # Another worker may seal the series between this statement and the next.
        await tx.run(ONE_SNAPSHOT)
        series = await tx.one(_Series, FIND_SERIES, series_id=series_id)
        if series is None or series.state == "sealed":
            return 0.0
        if series.quiet_s < store.settings.seal_quiet_s:
            return store.settings.seal_quiet_s - series.quiet_s
        entries = await receiving_instances(tx, [series_id])
    began_s = perf_counter()
    packs = {instance.blob.key for instance, _ in entries}
    if series.manifest_key is not None:
        index = await store.sealed.read_index(series.manifest_key, series.manifest_index_bytes)
        headers = await store.sealed.read_headers(
            series.manifest_key, series.manifest_index_bytes, series.manifest_bytes
        )
        entries = [*zip(index.instances, headers, strict=True), *entries]
    entries.sort(key=lambda entry: in_order(entry[0]))
    manifest = await asyncio.to_thread(write_manifest, entries)
    key = store.blobs.new_key(series.archive_id, "manifest")
    await asyncio.to_thread(store.blobs.put, key, manifest.data)
    uids = [instance.sop_instance_uid for instance, _ in entries]
    async with store.database.transaction() as tx:
        keys = await locator.series_keys(tx, series.archive_id, series.study_id, uids)
        sealed = await tx.run(
            SEAL,
            series_id=series_id,
            revision=series.revision,
            manifest_key=key,
            manifest_index_bytes=manifest.index_bytes,
            manifest_bytes=len(manifest.data),
            representative=representative([instance for instance, _ in entries]),
            locator_key=keys[0] if len(keys) == 1 else None,
            locator_keys=keys if len(keys) > 1 else None,
        )
        if sealed:
            await tx.run(DROP_ROWS, series_id=series_id)
            await uploading.spool(tx, store, [key, *packs])
            await events.write(
                tx,
                "series_sealed",
                archive_id=series.archive_id,
                study_instance_uid=series.study_instance_uid,
                series_instance_uid=series.series_instance_uid,
            )
            await availability.announce(tx, series_id)
            if series.manifest_key is not None:
                # Somebody may be reading it: it goes an hour later.
                await jobs.defer_delete_blob(tx, series.manifest_key, datetime.timedelta(hours=1))
    metrics.SEALING_DURATION.observe(perf_counter() - began_s)
    metrics.MANIFEST_BYTES.observe(len(manifest.data))
    metrics.MANIFEST_INSTANCES.observe(len(entries))
    if not sealed:  # an instance arrived meanwhile
        await asyncio.to_thread(store.blobs.delete, key)
        return store.settings.seal_quiet_s
    return 0.0


def representative(instances: list[StoredInstance]) -> str | None:
    """Return the instance in the middle of those with pixels, which shows most; None without."""
    pictures = [instance for instance in instances if instance.frames is not None]
    return pictures[len(pictures) // 2].sop_instance_uid if pictures else None


async def receiving_instances(
    tx: Transaction, series_ids: list[int]
) -> list[tuple[StoredInstance, bytes]]:
    """Return the instances of the series that have no manifest yet, each with its header."""
    return [read_instance_row(row) for row in await tx.rows(INSTANCE_ROWS, series_ids=series_ids)]
