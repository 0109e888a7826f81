"""A site of the tests: a store with a bucket in each of two data centres, on a real S3 server."""

import uuid
from dataclasses import dataclass, replace

import obstore
from tests.conftest import House
from tests.core.one_series import Series, seal, store_files
from tests.object_storage import ObjectStorage

from bfr_core.settings import Settings
from bfr_core.spool import SpooledBlobs
from bfr_core.store import Store
from bfr_core.uploading import make_room

PREFIX = "archive"


@dataclass
class Site:
    """A store with its two buckets."""

    store: Store
    house: House
    storage: ObjectStorage

    @property
    def blobs(self) -> SpooledBlobs:
        """Its blobs."""
        assert isinstance(self.store.blobs, SpooledBlobs)
        return self.store.blobs

    def _name(self, number: int) -> str:
        return self.blobs.buckets[number].address.bucket

    def contents(self, number: int) -> dict[str, bytes]:
        """Return every blob of a bucket."""
        found = self.storage.contents(self._name(number))
        return {key.removeprefix(f"{PREFIX}/"): data for key, data in found.items()}

    def local_keys(self) -> list[str]:
        """Return the keys of the folder."""
        folder = self.blobs.directory
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))

    def local(self) -> dict[str, bytes]:
        """Return every blob of the folder."""
        return {key: self.blobs.path(key).read_bytes() for key in self.local_keys()}

    def local_pack(self) -> str:
        """Return the key of the only pack in the folder."""
        (key,) = (key for key in self.local_keys() if key.endswith(".pack"))
        return key

    def damage(self, number: int, key: str, data: bytes | None) -> None:
        """Put other bytes in the place of a blob in a bucket, or take it away."""
        bucket = self.storage.bucket(self._name(number))
        if data is None:
            obstore.delete(bucket, f"{PREFIX}/{key}")
        else:
            obstore.put(bucket, f"{PREFIX}/{key}", data)

    async def evict_all(self) -> None:
        """Let everything leave the folder that may."""
        self.blobs.excess_bytes = lambda: 1 << 60  # type: ignore[method-assign]
        try:
            await make_room(self.store, self.blobs)
        finally:
            del self.blobs.excess_bytes


def with_buckets(settings: Settings, storage: ObjectStorage) -> Settings:
    """Return the settings with two fresh buckets."""
    names = [f"{place}-{uuid.uuid4().hex[:10]}" for place in ("near", "far")]
    for name in names:
        storage.make_bucket(name)
    first, second = (storage.url(name, PREFIX) for name in names)
    return replace(settings, bucket_url=first, second_bucket_url=second)


async def sealed_series(site: Site, *numbers: int) -> Series:
    """Store a series of these instances and seal it."""
    series = Series()
    await store_files(site.store, site.house, *(series.file(number) for number in numbers))
    await seal(site.store, series)
    return series
