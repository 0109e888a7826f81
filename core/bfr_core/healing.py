"""Healing: every blob of a sealed series is whole in every bucket, or is made so from a good copy.

Whole is what the index demands: a manifest of its length that can be unpacked, a pack that holds
each instance of the manifest under its digest. Series by series, so that it can go on where it
was interrupted; what is whole already is left alone.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bfr_core import non_patient_instances, uploading
from bfr_core.blobs import BlobRef, BlobSource, FileBlobs, is_growing
from bfr_core.buckets import Bucket, staged
from bfr_core.errors import Invalid, NotFound, Unavailable
from bfr_core.manifest import StoredInstance, read_headers, read_index
from bfr_core.packs import PACK_HEADER_BYTES, read_pack
from bfr_core.spool import SpooledBlobs

if TYPE_CHECKING:
    from bfr_core.store import Store

PAGE = 256
SERIES_AT_ONCE = 8
FOLDERS_KEPT = 16  # listings of one archive's day


@dataclass(frozen=True, slots=True)
class _Series:
    series_id: int
    series_instance_uid: str
    manifest_key: str
    manifest_index_bytes: int
    manifest_bytes: int


@dataclass(slots=True)
class Healed:
    """What was found and done so far."""

    total: int = 0  # series that are to be looked at
    series: int = 0
    blobs: int = 0
    copied: int = 0  # copies that were missing or damaged and were made again
    copied_bytes: int = 0
    lost: list[str] = field(default_factory=list)  # a sentence for each blob without a good copy
    after: int = 0  # every series up to this one has been looked at


COUNT = """
    SELECT count(*) FROM series WHERE series_id > %(after)s AND manifest_key IS NOT NULL
"""
SERIES = """
    SELECT series_id, series_instance_uid, manifest_key, manifest_index_bytes, manifest_bytes
    FROM series WHERE series_id > %(after)s AND manifest_key IS NOT NULL
    ORDER BY series_id LIMIT %(limit)s
"""


async def heal(
    store: "Store", healed: Healed, *, read: bool, tell: Callable[[Healed], None]
) -> None:
    """Look at every sealed series after `healed.after` and make its blobs whole in every bucket.

    `read` reads every byte of every copy; else a copy is taken for whole when it has its length.
    Raises Invalid without a bucket, Unavailable when one is away: go on after `healed.after`.
    """
    blobs = store.blobs
    if not isinstance(blobs, SpooledBlobs):
        raise Invalid("there is no bucket: set BFR_BUCKET_URL")
    healer = _Healer(store, blobs, healed, read=read)
    async with store.database.transaction() as tx:
        healed.total = await tx.value(COUNT, after=healed.after)
    while True:
        async with store.database.transaction() as tx:
            page = await tx.all(_Series, SERIES, after=healed.after, limit=PAGE)
        if not page:
            break
        for start in range(0, len(page), SERIES_AT_ONCE):
            together = page[start : start + SERIES_AT_ONCE]
            await asyncio.gather(*map(healer.heal_series, together))
            healed.series += len(together)
            healed.after = together[-1].series_id
            tell(healed)
    await healer.heal_non_patient()


class _Healer:
    """One run of healing."""

    def __init__(self, store: "Store", blobs: SpooledBlobs, healed: Healed, *, read: bool) -> None:
        self._store = store
        self._blobs = blobs
        self._folder = FileBlobs(blobs.directory, 0)
        self._listings = [_Listing(bucket) for bucket in blobs.buckets]
        self._healed = healed
        self._read = read

    async def heal_series(self, series: _Series) -> None:
        """Make the blobs of the series whole. Raises Unavailable when a bucket is away."""
        reasons = await self._heal_all(series)
        if reasons and await self._is_current(series):
            for reason in reasons:
                self._healed.lost.append(f"series {series.series_instance_uid}: {reason}")

    async def _heal_all(self, series: _Series) -> list[str]:
        wanted = _WantedManifest(series)
        try:
            source = await self._heal_blob(series.manifest_key, wanted)
        except NotFound as error:
            return [error.message]
        return await self._heal_packs(await asyncio.to_thread(wanted.index, source))

    async def heal_non_patient(self) -> None:
        """Make the packs of what belongs to no patient whole. Raises Unavailable."""
        async with self._store.database.transaction() as tx:
            by_archive = await non_patient_instances.all_by_archive(tx)
        for instances in by_archive.values():
            self._healed.lost += await self._heal_packs(instances)

    async def _heal_packs(self, index: Sequence[StoredInstance]) -> list[str]:
        packs: dict[str, list[StoredInstance]] = {}
        for instance in index:
            packs.setdefault(instance.blob.key, []).append(instance)
        reasons = []
        for key, instances in packs.items():
            try:
                await self._heal_blob(key, _WantedPack(key, instances))
            except NotFound as error:
                reasons.append(error.message)
        return reasons

    async def _is_current(self, series: _Series) -> bool:
        # A late instance may have replaced the manifest, and the old one is gone rightly.
        async with self._store.database.transaction() as tx:
            now = await tx.all(_Series, SERIES, after=series.series_id - 1, limit=1)
        return now == [series]

    async def _heal_blob(self, key: str, wanted: "_Wanted") -> BlobSource:
        """Return where the blob can be read. Raises NotFound when no copy is whole."""
        self._healed.blobs += 1
        source, in_folder, copied = await asyncio.to_thread(self._heal, key, wanted)
        self._healed.copied += len(copied)
        self._healed.copied_bytes += sum(copied)
        if in_folder is None:
            return source
        async with self._store.database.transaction() as tx:
            if in_folder:
                await uploading.adopt(tx, key, self._blobs.addresses)
            else:
                await uploading.forget(tx, [key])
        return source

    def _heal(self, key: str, wanted: "_Wanted") -> tuple[BlobSource, bool | None, list[int]]:
        """Return a good copy, whether the folder now has one, and the sizes of copies made.

        The second is None when nothing is to be told of the folder. Raises NotFound.
        """
        path = self._folder.path(key)
        if path.exists() and is_growing(path):  # it is uploaded when its sender has ended
            return self._folder, None, []
        sizes = [_size(self._folder, key), *(listing.size_of(key) for listing in self._listings)]
        places: list[BlobSource] = [self._folder, *self._blobs.buckets]
        length = wanted.length(sizes)
        whole = [
            size is not None and size == length and (not self._read or wanted.is_whole(place))
            for place, size in zip(places, sizes, strict=True)
        ]
        if not any(whole):
            found = "; ".join(
                f"{'the folder' if place is self._folder else place}: "
                + ("missing" if size is None else "damaged")
                for place, size in zip(places, sizes, strict=True)
            )
            raise NotFound(f"blob {key} is whole nowhere ({found})")
        # What is in the folder may leave it meanwhile.
        source = self._blobs if whole[0] else places[whole.index(True)]
        copied = []
        for listing, good in zip(self._listings, whole[1:], strict=True):
            if not good:
                with staged(source, key, self._blobs.directory) as copy:
                    listing.bucket.put(key, copy)
                listing.add(key, length)
                copied.append(length)
        if sizes[0] is None:
            return source, None, copied
        if not whole[0]:
            # Reads would find the damaged file first.
            self._blobs.evict(key)
        return source, whole[0], copied


class _WantedManifest:
    """What a manifest has to be."""

    def __init__(self, series: _Series) -> None:
        self._key = series.manifest_key
        self._index_bytes = series.manifest_index_bytes
        self._bytes = series.manifest_bytes

    def length(self, sizes: Sequence[int | None]) -> int:
        """Return the length in bytes of a whole one."""
        return self._bytes

    def is_whole(self, source: BlobSource) -> bool:
        """Return whether it can be unpacked."""
        ref = BlobRef(self._key, self._index_bytes, self._bytes - self._index_bytes)
        try:
            return len(self.index(source)) == len(read_headers(source.read(ref)))
        except Unavailable:
            _require_answer(source)
            return False

    def index(self, source: BlobSource) -> list[StoredInstance]:
        """Return its instances. Raises Unavailable."""
        return read_index(source.read(BlobRef(self._key, 0, self._index_bytes)))


class _WantedPack:
    """What a pack has to hold."""

    def __init__(self, key: str, instances: Sequence[StoredInstance]) -> None:
        self._key = key
        self._instances = {(one.blob.offset, one.blob.length): one.digest for one in instances}

    def length(self, sizes: Sequence[int | None]) -> int:
        """Return the length in bytes of a whole one: no copy has grown."""
        least = max(offset + length for offset, length in self._instances)
        return max(least, *(size or 0 for size in sizes))

    def is_whole(self, source: BlobSource) -> bool:
        """Return whether each instance is there under its digest."""
        try:
            json.loads(source.read(BlobRef(self._key, 0, PACK_HEADER_BYTES)))
            found = {
                (record.ref.offset, record.ref.length): record.digest
                for record in read_pack(source, self._key)
            }
        except (NotFound, Unavailable, ValueError):
            _require_answer(source)
            return False
        return self._instances.items() <= found.items()


_Wanted = _WantedManifest | _WantedPack


def _require_answer(source: BlobSource) -> None:
    """Raise Unavailable when the bucket is away: that tells nothing of its copies."""
    if isinstance(source, Bucket) and source.is_away:
        raise Unavailable(f"{source} does not answer")


class _Listing:
    """What a bucket holds, listed folder by folder: a request for a thousand blobs, not for one."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self._folders: OrderedDict[str, dict[str, int]] = OrderedDict()

    def size_of(self, key: str) -> int | None:
        """Return the size of the blob, None when there is none. Raises Unavailable."""
        folder = key.rpartition("/")[0]
        found = self._folders.get(folder)
        if found is None:
            found = self._folders[folder] = dict(self.bucket.keys(folder))
            while len(self._folders) > FOLDERS_KEPT:
                self._folders.popitem(last=False)
        return found.get(key)

    def add(self, key: str, size_bytes: int) -> None:
        """Take note of a blob that was written."""
        self._folders.get(key.rpartition("/")[0], {})[key] = size_bytes


def _size(source: BlobSource, key: str) -> int | None:
    try:
        return source.size_bytes(key)
    except NotFound:
        return None
