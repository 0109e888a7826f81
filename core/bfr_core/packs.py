"""Packs: the Part 10 bytes of the instances of one series, as one sender sent them, back to back.

Each instance lies behind a record header, so that the whole index can be built again from packs
alone.
"""

import errno
import fcntl
import hashlib
import json
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from bfr_core import metrics
from bfr_core.blobs import (
    WINDOW_BYTES,
    BlobRef,
    BlobSource,
    FileBlobs,
    disk_error,
    make_directory,
    sync_directory,
)
from bfr_core.errors import NotFound, Unavailable
from bfr_core.observation import blob_access

PACK_HEADER_BYTES = 512  # a JSON line padded with spaces: format, archive, door, sender
# Before each instance: magic, CRC-32 of what precedes the data set, length of the Part 10
# bytes, offset of the data set in them, SHA-256 of the data set, arrival in µs since 1970.
RECORD = struct.Struct("<4sIQQ32sq")
RECORD_MAGIC = b"BFR1"


@dataclass(frozen=True, slots=True)
class PackRecord:
    """One instance as its pack tells of it."""

    ref: BlobRef
    dataset_offset: int
    digest: bytes
    received_at: datetime

    @property
    def end(self) -> int:
        """Where the next record begins."""
        return self.ref.offset + self.ref.length


@dataclass(frozen=True, slots=True)
class DamagedRecord:
    """A place in a pack where an instance was and is not whole."""

    key: str
    offset: int
    end: int | None  # where the next record begins; None: nobody can tell


class Pack:
    """A pack that is open for appending, owned by one sender."""

    def __init__(self, blobs: FileBlobs, key: str, provenance: dict[str, str]) -> None:
        """Start a pack file. Raises Unavailable when the disk is full."""
        blobs.require_space()
        self.key = key
        self.path = blobs.path(key)
        try:
            make_directory(self.path.parent)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
            # Tells every process that more may come, until `close` or until this one dies.
            fcntl.flock(self._fd, fcntl.LOCK_SH)
        except OSError as error:
            raise disk_error(error) from error
        header = json.dumps({"format": 1, **provenance}).encode().ljust(PACK_HEADER_BYTES - 1)
        self.size_bytes = 0
        self._is_new = True
        self._dirty = True
        self._closed = False
        self._write(header + b"\n", 0)
        self.size_bytes = PACK_HEADER_BYTES
        metrics.PACKS_OPEN.inc()

    def append(self, part10: bytes | bytearray, dataset_offset: int, digest: bytes) -> BlobRef:
        """Add an instance and return its range. Raises Unavailable, and then nothing stays."""
        start = self.size_bytes
        offset = start + RECORD.size
        head = self._record(
            memoryview(part10)[:dataset_offset], len(part10), dataset_offset, digest
        )
        try:
            written = os.pwritev(self._fd, [head, part10], start)
            if written != len(head) + len(part10):
                raise OSError(errno.ENOSPC, "no space left")
        except OSError as error:
            os.ftruncate(self._fd, start)
            raise disk_error(error) from error
        self.size_bytes = offset + len(part10)
        self._dirty = True
        return BlobRef(self.key, offset, len(part10))

    def begin_large(self) -> None:
        """Leave room for the record header of an instance that is written as it comes."""
        self.size_bytes += RECORD.size

    def extend(self, data: bytes | bytearray | memoryview) -> None:
        """Write the next bytes of a large instance. Raises Unavailable when the disk is full."""
        self._write(data, self.size_bytes)
        self.size_bytes += len(data)

    def map_large(self) -> mmap.mmap:
        """Return the large instance's pack as memory; the instance starts after its headers."""
        return mmap.mmap(self._fd, self.size_bytes, access=mmap.ACCESS_READ)

    def end_large(self, prefix: bytes | memoryview, dataset_offset: int, digest: bytes) -> BlobRef:
        """Write the record header of the large instance and return its range."""
        offset = PACK_HEADER_BYTES + RECORD.size
        length = self.size_bytes - offset
        self._write(self._record(prefix, length, dataset_offset, digest), PACK_HEADER_BYTES)
        self._dirty = True
        return BlobRef(self.key, offset, length)

    def discard_last(self, ref: BlobRef) -> None:
        """Take an instance back that was not committed, when it is the last in the pack."""
        if ref.offset + ref.length != self.size_bytes:
            return
        self.size_bytes = ref.offset - RECORD.size
        try:
            os.truncate(self.path, self.size_bytes)
        except FileNotFoundError:  # evicted from the spool: the record stays, nothing refers to it
            return
        if self._closed and self.size_bytes <= PACK_HEADER_BYTES:
            self.path.unlink(missing_ok=True)

    @property
    def is_synced(self) -> bool:
        """True when everything written survives a power cut."""
        return not self._dirty

    def sync(self) -> None:
        """Make what was written survive a power cut. Raises Unavailable when the disk fails."""
        if not self._dirty:
            return
        self._dirty = False  # before, so that a write meanwhile is not taken for synced
        try:
            with blob_access("sync"):
                os.fdatasync(self._fd)
                if self._is_new:
                    sync_directory(self.path.parent)
        except OSError as error:
            self._dirty = True
            raise disk_error(error) from error
        self._is_new = False

    def close(self) -> None:
        """Close the file, synced; a pack without an instance is removed."""
        if self._closed:
            return
        if self.size_bytes <= PACK_HEADER_BYTES:
            self.remove()
            return
        self.sync()
        os.close(self._fd)
        self._closed = True
        metrics.PACKS_OPEN.dec()

    def remove(self) -> None:
        """Close and delete the pack: nothing in it was committed."""
        os.close(self._fd)
        self._closed = True
        self._dirty = False
        metrics.PACKS_OPEN.dec()
        self.path.unlink(missing_ok=True)

    def copy_record(self, blobs: BlobSource, ref: BlobRef) -> BlobRef:
        """Add an instance as it lies in another pack, arrival and all, and return its range."""
        start, end = ref.offset - RECORD.size, ref.offset + ref.length
        offset = self.size_bytes + RECORD.size
        for position in range(start, end, WINDOW_BYTES):
            piece = BlobRef(ref.key, position, min(WINDOW_BYTES, end - position))
            self.extend(blobs.read(piece))
        return BlobRef(self.key, offset, ref.length)

    def _record(
        self, prefix: bytes | memoryview, length: int, dataset_offset: int, digest: bytes
    ) -> bytes:
        arrived_us = int(datetime.now(UTC).timestamp() * 1_000_000)
        crc = zlib.crc32(prefix)
        return RECORD.pack(RECORD_MAGIC, crc, length, dataset_offset, digest, arrived_us)

    def _write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._fd, view, offset)
                view = view[written:]
                offset += written
        except OSError as error:
            raise disk_error(error) from error


@dataclass(frozen=True, slots=True)
class ClosedPack:
    """A pack that was written long ago: nothing in it is synced or taken back."""

    key: str
    is_synced: bool = True

    def sync(self) -> None:
        """Do nothing: it survives already."""

    def discard_last(self, ref: BlobRef) -> None:
        """Do nothing: what lies in it may be known elsewhere."""


def read_provenance(blobs: BlobSource, key: str) -> dict[str, str] | None:
    """Return what the pack's header tells: archive, door, sender; None when it is damaged.

    Raises Unavailable when there is no such pack.
    """
    try:
        if blobs.size_bytes(key) < PACK_HEADER_BYTES:
            return None
    except NotFound as error:
        raise Unavailable(error.message) from error
    try:
        told = json.loads(blobs.read(BlobRef(key, 0, PACK_HEADER_BYTES)))
    except ValueError:
        return None
    if not isinstance(told, dict) or told.pop("format", None) != 1:
        return None
    return {str(name): str(value) for name, value in told.items()}


def read_pack(blobs: BlobSource, key: str) -> Iterator[PackRecord]:
    """Yield the instances of a pack in order; ends at the first torn or damaged record.

    What it yields is whole: the data set has the digest that its record tells. Raises NotFound
    when there is no such pack.
    """
    for record in read_pack_through(blobs, key):
        if isinstance(record, DamagedRecord):
            return
        yield record


def read_pack_through(blobs: BlobSource, key: str) -> Iterator[PackRecord | DamagedRecord]:
    """Yield the instances of a pack in order, and in their places those that are damaged.

    Ends where the next record cannot be found. Raises NotFound when there is no such pack.
    """
    pack = _SequentialBlob(blobs, key, blobs.size_bytes(key))
    start = PACK_HEADER_BYTES
    while start + RECORD.size <= pack.size_bytes:
        record = _read_record(pack, start)
        yield record
        if record.end is None:
            return
        start = record.end


def first_arrival(blobs: BlobSource, key: str) -> int | None:
    """Return when the first instance of a pack came, in µs since 1970; None when there is none.

    Nothing is checked but the record header.
    """
    end = PACK_HEADER_BYTES + RECORD.size
    if blobs.size_bytes(key) <= end:
        return None
    record = RECORD.unpack(blobs.read(BlobRef(key, PACK_HEADER_BYTES, RECORD.size)))
    arrived_us: int = record[-1]
    return arrived_us if record[0] == RECORD_MAGIC else None


def never_held(blobs: BlobSource, key: str) -> bool:
    """Tell whether the pack never had a whole instance: its sender was killed at the first.

    A record header is written last and synced before a commit; where it is all zeros, or the
    file ends within it, nothing can have been committed.
    """
    end = PACK_HEADER_BYTES + RECORD.size
    if blobs.size_bytes(key) <= end:
        return True
    return not any(blobs.read(BlobRef(key, PACK_HEADER_BYTES, RECORD.size)))


class _SequentialBlob:
    """A blob that is read from its beginning to its end, a window at a time."""

    def __init__(self, blobs: BlobSource, key: str, size_bytes: int) -> None:
        self._blobs = blobs
        self.key = key
        self.size_bytes = size_bytes
        self._window = b""
        self._start = 0

    def pieces(self, offset: int, length: int) -> Iterator[memoryview]:
        """Yield the bytes of the range in pieces of at most a window."""
        end = offset + length
        while offset < end:
            if not self._start <= offset < self._start + len(self._window):
                take = min(WINDOW_BYTES, self.size_bytes - offset)
                self._window = self._blobs.read(BlobRef(self.key, offset, take))
                self._start = offset
            piece = memoryview(self._window)[offset - self._start : end - self._start]
            offset += len(piece)
            yield piece


def _read_record(pack: _SequentialBlob, start: int) -> PackRecord | DamagedRecord:
    """Return the record that begins at `start`."""
    head = b"".join(pack.pieces(start, RECORD.size))
    magic, crc, length, dataset_offset, digest, arrived_us = RECORD.unpack(head)
    offset = start + RECORD.size
    if magic != RECORD_MAGIC or offset + length > pack.size_bytes or dataset_offset > length:
        return DamagedRecord(pack.key, start, None)
    damaged = DamagedRecord(pack.key, start, offset + length)
    found_crc = 0
    for piece in pack.pieces(offset, dataset_offset):
        found_crc = zlib.crc32(piece, found_crc)
    if found_crc != crc:
        return damaged
    found = hashlib.sha256()
    for piece in pack.pieces(offset + dataset_offset, length - dataset_offset):
        found.update(piece)
    if found.digest() != digest:
        return damaged
    try:
        received_at = datetime.fromtimestamp(arrived_us / 1_000_000, UTC)
    except (ValueError, OverflowError, OSError):  # a moment that no clock shows
        return damaged
    return PackRecord(BlobRef(pack.key, offset, length), dataset_offset, digest, received_at)


def digest_of(dataset: bytes | bytearray | memoryview) -> bytes:
    """Return the SHA-256 of the bytes."""
    return hashlib.sha256(dataset).digest()
