"""Blobs: packs and manifests as files below one folder, written once and never changed.

A pack holds the Part 10 bytes of the instances of one series as one sender sent them, back to
back, each behind a record header, so that the whole index can be built again from packs alone.
"""

import errno
import fcntl
import hashlib
import json
import mmap
import os
import shutil
import struct
import tempfile
import uuid
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Protocol

from bfr_core import metrics
from bfr_core.errors import NotFound, Unavailable
from bfr_core.observation import blob_access

PACK_HEADER_BYTES = 512  # a JSON line padded with spaces: format, archive, door, sender
# Before each instance: magic, CRC-32 of what precedes the data set, length of the Part 10
# bytes, offset of the data set in them, SHA-256 of the data set, arrival in µs since 1970.
RECORD = struct.Struct("<4sIQQ32sq")
RECORD_MAGIC = b"BFR1"
# What one reader takes from elsewhere at once: few requests, and memory that stays bounded.
WINDOW_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BlobRef:
    """A range of bytes in a blob."""

    key: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class PackRecord:
    """One instance as its pack tells of it."""

    ref: BlobRef
    dataset_offset: int
    digest: bytes
    received_at: datetime


class BlobSource(Protocol):
    """Where blobs can be read: a folder, a bucket, or a folder with buckets behind it."""

    def keys(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """Yield key and size in bytes of every blob below the folder, in order of keys."""

    def size_bytes(self, key: str) -> int:
        """Return the size of the blob. Raises NotFound when there is none."""

    def read(self, ref: BlobRef, offset: int = 0, length: int | None = None) -> bytes:
        """Return the bytes of the range, or of a part of it. Raises Unavailable without them."""


class FileBlobs:
    """The blobs below one folder."""

    def __init__(self, directory: Path, free_space_min_bytes: int) -> None:
        self.directory = directory
        self.free_space_min_bytes = free_space_min_bytes
        directory.mkdir(parents=True, exist_ok=True)

    def path(self, key: str) -> Path:
        """Return where the blob with this key lies."""
        return self.directory / key

    def new_key(self, archive_id: int, suffix: str) -> str:
        """Return a key that no blob has: the archive, the day, a random name."""
        return f"{archive_id}/{datetime.now(UTC):%Y/%m/%d}/{uuid.uuid4().hex}.{suffix}"

    def free_bytes(self) -> int:
        """Return the room that is left on the disk."""
        return shutil.disk_usage(self.directory).free

    def total_bytes(self) -> int:
        """Return the size of the disk."""
        return shutil.disk_usage(self.directory).total

    def require_space(self) -> None:
        """Raise Unavailable when the disk has less room than `free_space_min_bytes`."""
        if self.free_bytes() < self.free_space_min_bytes:
            raise Unavailable("the disk of the archive is full")

    def put(self, key: str, data: bytes) -> None:
        """Write a blob whole; after the return it survives a power cut.

        Raises Unavailable when the disk is full.
        """
        path = self.path(key)
        part = path.with_name(path.name + ".part")
        try:
            with blob_access("put"):
                make_directory(path.parent)
                with part.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                part.rename(path)
                sync_directory(path.parent)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise disk_error(error) from error

    def keys(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """Yield key and size in bytes of every blob below the folder, in order of keys."""
        for key, path in _files(self.path(folder), f"{folder}/".lstrip("/")):
            try:
                yield key, path.stat().st_size
            except FileNotFoundError:  # it has gone meanwhile
                continue

    def size_bytes(self, key: str) -> int:
        """Return the size of the blob. Raises NotFound when there is none."""
        try:
            return self.path(key).stat().st_size
        except FileNotFoundError:
            raise NotFound(f"there is no blob {key}") from None

    def open(self, key: str) -> int | None:
        """Return the open file of the blob; None when the folder does not have it."""
        try:
            return os.open(self.path(key), os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise disk_error(error) from error

    def read(self, ref: BlobRef, offset: int = 0, length: int | None = None) -> bytes:
        """Return the bytes of the range, or of a part of it. Raises Unavailable when it is gone."""
        length = ref.length - offset if length is None else length
        fd = self.open(ref.key)
        if fd is None:
            return self.fetch([BlobRef(ref.key, ref.offset + offset, length)])[0]
        try:
            return _read_range(fd, ref.key, ref.offset + offset, length)
        finally:
            os.close(fd)

    def fetch(self, ranges: Sequence[BlobRef]) -> list[bytes]:
        """Return ranges of blobs that are not in the folder.

        Raises Unavailable: there is no other place here.
        """
        raise Unavailable(f"blob {ranges[0].key} is missing")

    @contextmanager
    def mapped(self, ref: BlobRef) -> Iterator[memoryview]:
        """Give the bytes of the range as memory. Raises Unavailable when they are gone."""
        fd = self.open(ref.key)
        if fd is not None:
            try:
                with (
                    mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as whole,
                    memoryview(whole) as view,
                    view[ref.offset : ref.offset + ref.length] as data,
                ):
                    yield data
            finally:
                os.close(fd)
            return
        # On the disk for as long as it is looked at: it may be larger than memory.
        with tempfile.TemporaryFile(dir=self.directory) as file:
            for start in range(0, ref.length, WINDOW_BYTES):
                piece = self.read(ref, start, min(WINDOW_BYTES, ref.length - start))
                try:
                    file.write(piece)
                    file.flush()
                except OSError as error:
                    raise disk_error(error) from error
            with (
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole,
                memoryview(whole) as data,
            ):
                yield data

    def delete(self, key: str) -> None:
        """Remove a blob from the folder; nothing happens when it is gone already."""
        self.path(key).unlink(missing_ok=True)

    def delete_everywhere(self, key: str) -> None:
        """Remove a blob wherever it is; nothing happens when it is gone already."""
        self.delete(key)


class BlobReader:
    """Reads ranges one after the other and keeps the last files open; used by one thread.

    `planned` are the ranges in the order in which they will be read. What is not in the folder
    is then fetched ahead, so that a series takes few requests.
    """

    FILES_MAX = 8

    def __init__(self, blobs: FileBlobs, planned: Iterable[BlobRef] = ()) -> None:
        self._blobs = blobs
        self._files: dict[str, int] = {}
        self._elsewhere: set[str] = set()
        self._planned = planned  # looked at when something is not in the folder
        self._fetched: deque[tuple[BlobRef, bytes]] = deque()

    def read(self, key: str, offset: int, length: int) -> bytes:
        """Return the bytes of the range. Raises Unavailable when they are gone."""
        fd = self._file(key)
        if fd is not None:
            return _read_range(fd, key, offset, length)
        wanted = BlobRef(key, offset, length)
        # Reads come in the order of the plan: what was fetched before this one is done with.
        while self._fetched and not _holds(self._fetched[0][0], wanted):
            self._fetched.popleft()
        if not self._fetched:
            window = self._window(wanted)
            self._fetched.extend(zip(window, self._blobs.fetch(window), strict=True))
        ref, data = self._fetched[0]
        return data[offset - ref.offset : offset - ref.offset + length]

    def read_in_memory(self, key: str, offset: int, length: int) -> bytes:
        """Return the bytes from `offset` on, at most `length`, that nothing is waited for.

        b"" when the disk or a bucket has to be asked, or the range ends here.
        """
        fd = self._file(key)
        if fd is None:
            return b""
        buffer = bytearray(length)
        try:
            count = os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
        except OSError:  # not in memory, or a file system that cannot tell
            return b""
        return bytes(memoryview(buffer)[:count])

    def close(self) -> None:
        """Close the files."""
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()
        self._fetched.clear()

    def _file(self, key: str) -> int | None:
        if key in self._elsewhere:
            return None
        fd = self._files.get(key)
        if fd is None:
            fd = self._blobs.open(key)
            if fd is None:
                self._elsewhere.add(key)
                return None
            while len(self._files) >= self.FILES_MAX:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[key] = fd
        return fd

    def _window(self, wanted: BlobRef) -> list[BlobRef]:
        """Return the range that is wanted with those planned after it, up to a window's size."""
        if not isinstance(self._planned, deque):
            self._planned = deque(self._planned)
        while self._planned and not _holds(self._planned[0], wanted):
            self._planned.popleft()
        window = [wanted]
        room = WINDOW_BYTES - wanted.length
        if self._planned:
            first = self._planned[0]
            more = min(max(room, 0), first.offset + first.length - wanted.offset - wanted.length)
            window = [BlobRef(wanted.key, wanted.offset, wanted.length + more)]
            room -= more
        for ref in islice(self._planned, 1, None):
            if room <= 0:
                break
            if self._file(ref.key) is None:
                window.append(BlobRef(ref.key, ref.offset, min(ref.length, room)))
                room -= ref.length
        return window


def _holds(ref: BlobRef, part: BlobRef) -> bool:
    return (
        ref.key == part.key
        and ref.offset <= part.offset
        and part.offset + part.length <= ref.offset + ref.length
    )


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


def is_growing(path: Path) -> bool:
    """Return whether some process has the pack open for appending."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        raise disk_error(error) from error
    return False


def _files(directory: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path), f"{prefix}{entry.name}/")
        elif not entry.name.endswith(".part"):
            yield prefix + entry.name, Path(entry.path)


def _read_range(fd: int, key: str, offset: int, length: int) -> bytes:
    pieces = []
    with blob_access("read"):
        while length:  # one call gives no more than 2 GiB
            try:
                piece = os.pread(fd, length, offset)
            except OSError as error:
                raise disk_error(error) from error
            if not piece:
                raise Unavailable(f"blob {key} is shorter than the index says")
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def read_pack(blobs: BlobSource, key: str) -> Iterator[PackRecord]:
    """Yield the instances of a pack in order; ends at the first torn or damaged record.

    What it yields is whole: the data set has the digest that its record tells. Raises NotFound
    when there is no such pack.
    """
    pack = _SequentialBlob(blobs, key, blobs.size_bytes(key))
    start = PACK_HEADER_BYTES
    while start + RECORD.size <= pack.size_bytes:
        record = _read_record(pack, start)
        if record is None:
            return
        yield record
        start = record.ref.offset + record.ref.length


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


def _read_record(pack: _SequentialBlob, start: int) -> PackRecord | None:
    """Return the record that begins at `start`; None when it is torn or damaged."""
    head = b"".join(pack.pieces(start, RECORD.size))
    magic, crc, length, dataset_offset, digest, arrived_us = RECORD.unpack(head)
    offset = start + RECORD.size
    if magic != RECORD_MAGIC or offset + length > pack.size_bytes or dataset_offset > length:
        return None
    found_crc = 0
    for piece in pack.pieces(offset, dataset_offset):
        found_crc = zlib.crc32(piece, found_crc)
    if found_crc != crc:
        return None
    found = hashlib.sha256()
    for piece in pack.pieces(offset + dataset_offset, length - dataset_offset):
        found.update(piece)
    if found.digest() != digest:
        return None
    try:
        received_at = datetime.fromtimestamp(arrived_us / 1_000_000, UTC)
    except (ValueError, OverflowError, OSError):  # a moment that no clock shows
        return None
    return PackRecord(BlobRef(pack.key, offset, length), dataset_offset, digest, received_at)


def digest_of(dataset: bytes | bytearray | memoryview) -> bytes:
    """Return the SHA-256 of the bytes."""
    return hashlib.sha256(dataset).digest()


def make_directory(path: Path) -> None:
    """Make a folder and its parents where they are missing, so that they survive a power cut."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def disk_error(error: OSError) -> Unavailable:
    """Return the error that tells the caller what the disk said."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable("the disk of the archive is full")
    return Unavailable(f"the disk of the archive failed: {errno.errorcode.get(error.errno or 0)}")
