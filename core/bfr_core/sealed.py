"""Sealed series: their manifests, read from the blob store and kept while they are in use."""

import asyncio
from collections import OrderedDict

from bfr_core.blobs import BlobRef, FileBlobs
from bfr_core.errors import Unavailable
from bfr_core.manifest import StoredInstance, read_headers, read_index

# Bytes of manifests as stored (some 80 times smaller than what they hold) kept unpacked.
KEPT_INDEX_INSTANCES = 500_000
KEPT_HEADERS_BYTES = 256 * 1024 * 1024


class SealedSeries:
    """Reads manifests; a manifest never changes under its key, so what is kept is never stale."""

    def __init__(self, blobs: FileBlobs) -> None:
        self._blobs = blobs
        self._indexes: OrderedDict[str, list[StoredInstance]] = OrderedDict()
        self._headers: OrderedDict[str, list[bytes]] = OrderedDict()

    async def read_index(self, key: str, index_bytes: int) -> list[StoredInstance]:
        """Return the instances of the manifest. Raises Unavailable when the blob is gone."""
        index = self._indexes.get(key)
        if index is None:
            ref = BlobRef(key, 0, index_bytes)
            index = await asyncio.to_thread(lambda: read_index(self._blobs.read(ref)))
            self._indexes[key] = index
            while sum(map(len, self._indexes.values())) > KEPT_INDEX_INSTANCES:
                self._indexes.popitem(last=False)
        if key in self._indexes:
            self._indexes.move_to_end(key)
        return index

    async def read_headers(self, key: str, index_bytes: int, manifest_bytes: int) -> list[bytes]:
        """Return the headers of the manifest as DICOM JSON, in the order of its index.

        Raises Unavailable when the blob is gone.
        """
        headers = self._headers.get(key)
        if headers is None:
            ref = BlobRef(key, index_bytes, manifest_bytes - index_bytes)
            headers = await asyncio.to_thread(lambda: read_headers(self._blobs.read(ref)))
            self._headers[key] = headers
            while sum(sum(map(len, kept)) for kept in self._headers.values()) > KEPT_HEADERS_BYTES:
                self._headers.popitem(last=False)
        if key in self._headers:
            self._headers.move_to_end(key)
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
        for instance in await self.read_index(key, index_bytes):
            if instance.sop_instance_uid == sop_instance_uid:
                return instance.digest
        return None
