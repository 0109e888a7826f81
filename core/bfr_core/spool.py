"""Spool: the local folder of blobs with buckets behind it (`BFR_BUCKET_URL`).

Everything is written to the folder first and acknowledged from there; `uploading` carries it to
the buckets. What has been verified there may leave the folder when room is needed.
"""

import heapq
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from bfr_core.blobs import BlobRef, FileBlobs
from bfr_core.buckets import Bucket
from bfr_core.errors import NotFound, Unavailable

# The folder is measured again after this long, and after this many times what measuring took.
MEASURE_INTERVAL_S = 1.0
MEASURE_PAUSE = 20
# Of the spool's limit: above the first, blobs leave until it is below the second.
EVICT_ABOVE = 0.9
EVICT_TO = 0.8


class SpooledBlobs(FileBlobs):
    """The blobs below one folder, and those that have gone on to buckets."""

    def __init__(
        self,
        directory: Path,
        free_space_min_bytes: int,
        buckets: Sequence[Bucket],
        spool_max_bytes: int,
    ) -> None:
        super().__init__(directory, free_space_min_bytes)
        self.buckets = buckets
        self.spool_max_bytes = spool_max_bytes
        self._measuring = threading.Lock()
        self._measured_bytes = 0
        self._measure_again_at = 0.0

    @property
    def addresses(self) -> list[str]:
        """Where the buckets are, in their order."""
        return [str(bucket.address) for bucket in self.buckets]

    def require_space(self) -> None:
        """Raise Unavailable when the disk or the spool is full."""
        super().require_space()
        if self.spool_max_bytes and self.spool_bytes() >= self.spool_max_bytes:
            raise Unavailable(
                "the spool of the archive is full until the object storage has taken from it"
            )

    def spool_bytes(self) -> int:
        """Return the size of what lies in the folder, as it was a few seconds ago at most."""
        # Who comes while another measures takes the last figure: nobody waits for it but the first.
        if self._measuring.acquire(blocking=self._measure_again_at == 0.0):
            try:
                begun = time.monotonic()
                if begun >= self._measure_again_at:
                    self._measured_bytes = sum(size for _, size in super().keys())
                    took_s = time.monotonic() - begun
                    pause_s = max(MEASURE_INTERVAL_S, MEASURE_PAUSE * took_s)
                    self._measure_again_at = time.monotonic() + pause_s
            finally:
                self._measuring.release()
        return self._measured_bytes

    def excess_bytes(self) -> int:
        """Return how much should leave the folder now; 0 when there is room."""
        excess = 2 * self.free_space_min_bytes - self.free_bytes()
        if self.spool_max_bytes:
            used = self.spool_bytes()
            if used > EVICT_ABOVE * self.spool_max_bytes:
                excess = max(excess, used - int(EVICT_TO * self.spool_max_bytes))
        return max(excess, 0)

    def evict(self, key: str) -> int:
        """Remove a blob from the folder alone, for the buckets have it; return its size there."""
        try:
            size = self.path(key).stat().st_size
        except FileNotFoundError:
            return 0
        self.delete(key)
        self._measured_bytes -= size
        return size

    def keys(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """Yield key and size of every blob below the folder, once each in order of keys.

        Raises Unavailable when a bucket is away.
        """
        everywhere = heapq.merge(
            super().keys(folder),
            *(bucket.keys(folder) for bucket in self.buckets),
            key=lambda found: found[0],
        )
        for key, found in groupby(everywhere, key=lambda found: found[0]):
            yield key, max(size for _, size in found)

    def all_days(self) -> list[str]:
        """Return the days of which the folder or a bucket has blobs, oldest first.

        Raises Unavailable when a bucket is away.
        """
        days = {day for archive in self._archives() for day in self._days_of(archive)}
        return sorted({*super().all_days(), *days})

    def all_of_day(self, day: str) -> list[str]:
        """Return the keys of a day's blobs, in the folder or a bucket. Raises Unavailable."""
        archives = {*self._archives(), *(path.name for path in self.directory.glob("[0-9]*"))}
        return [key for archive in sorted(archives) for key, _ in self.keys(f"{archive}/{day}")]

    def _archives(self) -> set[str]:
        names = {name for bucket in self.buckets for name in bucket.folders("")}
        return {name for name in names if name.isdigit()}

    def _days_of(self, archive: str) -> set[str]:
        found = {archive}
        for _ in ("year", "month", "day"):
            found = {
                f"{folder}/{name}"
                for folder in found
                for bucket in self.buckets
                for name in bucket.folders(folder)
            }
        return {folder.partition("/")[2] for folder in found}

    def size_bytes(self, key: str) -> int:
        """Return the size of the blob, wherever it is. Raises NotFound, Unavailable."""
        try:
            return super().size_bytes(key)
        except NotFound:
            pass
        away: Unavailable | None = None
        for bucket in self.buckets:
            try:
                return bucket.size_bytes(key)
            except NotFound:
                continue
            except Unavailable as error:
                away = error
        raise away or NotFound(f"there is no blob {key}")

    def fetch(self, ranges: Sequence[BlobRef]) -> list[bytes]:
        """Return ranges of blobs that have left the folder, from the first bucket that has them.

        Raises Unavailable when none has.
        """
        numbers: dict[str, list[int]] = {}
        for number, ref in enumerate(ranges):
            numbers.setdefault(ref.key, []).append(number)
        found: dict[int, bytes] = {}
        for key, of_key in numbers.items():
            wanted = [(ranges[number].offset, ranges[number].length) for number in of_key]
            found.update(zip(of_key, self._fetch_from(key, wanted), strict=True))
        return [found[number] for number in range(len(ranges))]

    def _fetch_from(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        reasons = []
        # One that failed a moment ago is asked last: the wait may be long.
        for bucket in sorted(self.buckets, key=lambda bucket: bucket.is_away):
            try:
                return bucket.read_ranges(key, ranges)
            except (NotFound, Unavailable) as error:
                reasons.append(error.message)
        raise Unavailable(f"blob {key} cannot be read: {'; '.join(reasons)}")

    def delete_everywhere(self, key: str) -> None:
        """Remove a blob from the buckets and the folder. Raises Unavailable: try again."""
        for bucket in self.buckets:
            bucket.delete(key)
        self.delete(key)
