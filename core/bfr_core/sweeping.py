"""Sweeping: packs, manifests and tombstones that nothing refers to, left by what was killed.

A pack stays as long as one row, one manifest or one tombstone refers to one instance in it; so
does what nobody can read enough of to tell.
"""

import asyncio
import datetime
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from bfr_core import uploading
from bfr_core.blobs import BlobEntry, FileBlobs
from bfr_core.errors import Invalid, NotFound, Unavailable
from bfr_core.header import read_header
from bfr_core.instances import read_attributes
from bfr_core.manifest import first_header
from bfr_core.non_patient_categories import category_of
from bfr_core.non_patient_instances import IN_PACK
from bfr_core.packs import never_held, read_pack, read_provenance
from bfr_core.receiving import header_limits
from bfr_core.settings import Settings
from bfr_core.work_positions import find_position, keep_position

if TYPE_CHECKING:
    from bfr_core.store import Store

log = logging.getLogger("bfr.sweeping")

# In any archive: better a pack too many than one too few.
SERIES_REFERENCES = """
    SELECT manifest_key, manifest_index_bytes,
        EXISTS (SELECT FROM instance
            WHERE instance.series_id = series.series_id AND pack_key = %(key)s) AS in_rows
    FROM series WHERE series_instance_uid = %(series_instance_uid)s
"""
IS_MANIFEST = """
    SELECT EXISTS (SELECT FROM series
        WHERE series_instance_uid = %(series_instance_uid)s AND manifest_key = %(key)s)
"""
IN_TOMBSTONE = "SELECT EXISTS (SELECT FROM deleted_instance WHERE pack_key = %(key)s)"
IS_TOMBSTONE = """
    SELECT EXISTS (SELECT FROM deletion WHERE blob_key = %(key)s AND undone_at IS NULL)
"""


@dataclass(slots=True)
class Swept:
    """What a sweep did."""

    removed: list[str] = field(default_factory=list)
    removed_bytes: int = 0
    unclear: list[str] = field(default_factory=list)  # left alone: nobody can tell


class _Unclear(Exception):
    """The blob does not tell what it belongs to."""


async def sweep_new_days(store: "Store") -> Swept:
    """Sweep the days that are old enough and were not swept yet; for the daily job."""
    async with store.database.transaction() as tx:
        swept_until = await find_position(tx, "sweep")
    # A day longer than that: its last blob must be old enough as well.
    age = datetime.timedelta(hours=store.settings.orphan_keep_hours, days=1)
    last = (datetime.datetime.now(datetime.UTC) - age).strftime("%Y/%m/%d")
    swept = Swept()
    for day in await asyncio.to_thread(store.blobs.days):
        if swept_until < day <= last:
            await _sweep_day(store, day, swept)
            async with store.database.transaction() as tx:
                await keep_position(tx, "sweep", day)
    _tell(swept)
    return swept


async def sweep_all(store: "Store") -> Swept:
    """Sweep every day, but for what is too young."""
    swept = Swept()
    for day in await asyncio.to_thread(store.blobs.days):
        await _sweep_day(store, day, swept)
    _tell(swept)
    return swept


async def drop_unreferenced(store: "Store", key: str) -> bool:
    """Delete the pack, unless something refers to it. Returns whether it is gone.

    Raises Unavailable while a sender holds it open.
    """
    if not await asyncio.to_thread(store.blobs.exists, key):
        return True
    if await asyncio.to_thread(store.blobs.is_open, key):
        raise Unavailable(f"a sender still holds pack {key}")
    try:
        if await is_referenced(store, key):
            log.warning("pack %s stays: something refers to it again", key)
            return False
    except _Unclear:
        log.warning("pack %s stays: it cannot be read enough to tell whose it is", key)
        return False
    # First, so that an upload under way sees it and takes its own copy away again.
    async with store.database.transaction() as tx:
        await uploading.forget(tx, [key])
    await asyncio.to_thread(store.blobs.delete_everywhere, key)
    return True


async def is_referenced(store: "Store", key: str) -> bool:
    """Tell whether a row, a manifest or a tombstone refers to the blob.

    Raises _Unclear when the blob does not tell enough, Unavailable when a manifest that might
    refer to it cannot be read.
    """
    if key.endswith(".deletion"):
        return await _told(store, IS_TOMBSTONE, key=key)
    if key.endswith(".manifest"):
        series = await asyncio.to_thread(_series_of_manifest, store.blobs, key)
        return await _told(store, IS_MANIFEST, key=key, series_instance_uid=series)
    if not key.endswith(".pack"):
        raise _Unclear
    if await _told(store, IN_TOMBSTONE, key=key) or await _told(store, IN_PACK, key=key):
        return True
    if await asyncio.to_thread(never_held, store.blobs, key):
        return False
    series = await asyncio.to_thread(_series_of_pack, store.blobs, store.settings, key)
    async with store.database.transaction() as tx:
        # One statement, so that a sealing under way shows either its rows or its manifest.
        found = await tx.tuples(SERIES_REFERENCES, key=key, series_instance_uid=series)
    for manifest_key, index_bytes, in_rows in found:
        if in_rows:
            return True
        if manifest_key is not None:
            index = await store.sealed.read_index(manifest_key, index_bytes)
            if any(one.blob.key == key for one in index.instances):
                return True
    return False


async def _sweep_day(store: "Store", day: str, swept: Swept) -> None:
    age = datetime.timedelta(hours=store.settings.orphan_keep_hours)
    oldest = datetime.datetime.now(datetime.UTC) - age
    for entry in await asyncio.to_thread(store.blobs.of_day, day):
        if entry.modified_at < oldest:
            await _sweep_blob(store, entry, swept)


async def _sweep_blob(store: "Store", entry: BlobEntry, swept: Swept) -> None:
    key = entry.key
    try:
        size = (await asyncio.to_thread(store.blobs.path(key).stat)).st_size
        if await asyncio.to_thread(store.blobs.is_open, key):
            return
    except FileNotFoundError:
        return
    try:
        # A blob gets its name when it is whole: what has another still was never told of.
        if not key.endswith(".part") and await is_referenced(store, key):
            return
    except (_Unclear, Unavailable):
        swept.unclear.append(key)
        return
    await asyncio.to_thread(store.blobs.delete, key)
    log.info("swept away %s of %d bytes: nothing refers to it", key, size)
    swept.removed.append(key)
    swept.removed_bytes += size


def _tell(swept: Swept) -> None:
    log.info("swept %d blobs of %d bytes", len(swept.removed), swept.removed_bytes)
    if swept.unclear:
        log.warning(
            "%d blobs cannot be read enough to tell whose they are, and stay: %s",
            len(swept.unclear),
            ", ".join(swept.unclear[:5]),
        )


async def _told(store: "Store", question: str, **params: object) -> bool:
    async with store.database.transaction() as tx:
        return bool(await tx.value(question, **params))


def _series_of_manifest(blobs: FileBlobs, key: str) -> str:
    try:
        header = orjson.loads(first_header(blobs.read_whole(key) or b""))
        return read_attributes(header).series.series_instance_uid
    except (Unavailable, Invalid, orjson.JSONDecodeError) as error:
        raise _Unclear from error


def _series_of_pack(blobs: FileBlobs, settings: Settings, key: str) -> str:
    """Return the series that the first instance of the pack, and so all of it, belongs to.

    "" when they belong to no patient, and so to no series.
    """
    try:
        record = next(read_pack(blobs, key), None)
        if record is None or read_provenance(blobs, key) is None:
            raise _Unclear
        with blobs.mapped(record.ref) as data:
            header = read_header(data, header_limits(settings))
        if category_of(header.dataset) is not None:
            return ""
        return read_attributes(header.dataset).series.series_instance_uid
    except (Invalid, NotFound, Unavailable) as error:
        raise _Unclear from error
