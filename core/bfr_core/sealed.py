"""Sealed series: their manifests, read from the blob store and kept while they are in use."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from bfr_core.blobs import BlobRef, FileBlobs
from bfr_core.errors import Unavailable
from bfr_core.manifest import StoredInstance, read_headers, read_index

T = TypeVar("T")

INSTANCE_BYTES = 1000  # what one instance of an index takes in memory, as measured


@dataclass(frozen=True)
class SealedIndex:
    """The instances of a sealed series in their order."""

    instances: list[StoredInstance]

    @cached_property
    def position(self) -> dict[str, int]:
        """Where each SOP Instance UID stands."""
        return {one.sop_instance_uid: number for number, one in enumerate(self.instances)}


class SealedSeries:
    """Reads manifests; a manifest never changes under its key, so what is kept is never stale."""

    def __init__(self, blobs: FileBlobs, cache_bytes: int) -> None:
        """Keep what was read last in `cache_bytes`, half for indexes and half for headers."""
        self._blobs = blobs
        self._indexes: _Kept[SealedIndex] = _Kept(cache_bytes // 2)
        self._headers: _Kept[list[bytes]] = _Kept(cache_bytes // 2)

    async def read_index(self, key: str, index_bytes: int) -> SealedIndex:
        """Return the instances of the manifest. Raises Unavailable when the blob is gone."""
        index = self._indexes.get(key)
        if index is None:
            ref = BlobRef(key, 0, index_bytes)
            index = SealedIndex(await asyncio.to_thread(lambda: read_index(self._blobs.read(ref))))
            self._indexes.keep(key, index, INSTANCE_BYTES * len(index.instances))
        return index

    async def read_headers(self, key: str, index_bytes: int, manifest_bytes: int) -> list[bytes]:
        """Return the headers of the manifest as DICOM JSON, in the order of its index.

        Raises Unavailable when the blob is gone.
        """
        headers = self._headers.get(key)
        if headers is None:
            ref = BlobRef(key, index_bytes, manifest_bytes - index_bytes)
            headers = await asyncio.to_thread(lambda: read_headers(self._blobs.read(ref)))
            self._headers.keep(key, headers, sum(map(len, headers)))
        return headers

    async def verified_index(
        self, key: str, index_bytes: int, manifest_bytes: int
    ) -> list[StoredInstance]:
        """Return the instances as the blob tells of them now, whatever is kept of it.

        Raises Unavailable when the blob is gone or damaged anywhere.
        """

        def read() -> list[StoredInstance]:
            index = read_index(self._blobs.read(BlobRef(key, 0, index_bytes)))
            rest = BlobRef(key, index_bytes, manifest_bytes - index_bytes)
            if len(read_headers(self._blobs.read(rest))) != len(index):
                raise Unavailable("a manifest has more or fewer headers than instances")
            return index

        return await asyncio.to_thread(read)

    async def find_digest(self, key: str, index_bytes: int, sop_instance_uid: str) -> bytes | None:
        """Return the digest of the instance in the manifest, or None when it is not in it."""
        index = await self.read_index(key, index_bytes)
        position = index.position.get(sop_instance_uid)
        return None if position is None else index.instances[position].digest


class _Kept(Generic[T]):
    """The values used last, by key, as long as their weights together stay below a bound."""

    def __init__(self, weight_max: int) -> None:
        self._weight_max = weight_max
        self._weight = 0
        self._values: OrderedDict[str, tuple[T, int]] = OrderedDict()

    def get(self, key: str) -> T | None:
        kept = self._values.get(key)
        if kept is None:
            return None
        self._values.move_to_end(key)
        return kept[0]

    def keep(self, key: str, value: T, weight: int) -> None:
        if key in self._values:  # read twice at the same moment
            return
        self._values[key] = (value, weight)
        self._weight += weight
        while self._weight > self._weight_max:
            _, (_, gone) = self._values.popitem(last=False)
            self._weight -= gone
