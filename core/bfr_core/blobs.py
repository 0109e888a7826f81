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
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from bfr_core.errors import NotFound, Unavailable

PACK_HEADER_BYTES = 512  # a JSON line padded with spaces: format, archive, door, sender
# Before each instance: magic, CRC-32 of what precedes the data set, length of the Part 10
# bytes, offset of the data set in them, SHA-256 of the data set, arrival in µs since 1970.
RECORD = struct.Struct("<4sIQQ32sq")
RECORD_MAGIC = b"BFR1"
CHECK_BYTES = 1024 * 1024


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


@dataclass(frozen=True, slots=True)
class BlobEntry:
    """A blob as the list of a day tells of it."""

    key: str
    modified_at: datetime


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

    def key_beside(self, key: str) -> str:
        """Return a key that no blob has, of the day and kind of another."""
        folder, _, name = key.rpartition("/")
        return f"{folder}/{uuid.uuid4().hex}.{name.rpartition('.')[2]}"

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

    def read(self, ref: BlobRef, offset: int = 0, length: int | None = None) -> bytes:
        """Return the bytes of the range, or of a part of it. Raises Unavailable when it is gone."""
        length = ref.length - offset if length is None else length
        fd = _open_blob(self, ref.key)
        try:
            return _read_range(fd, ref.key, ref.offset + offset, length)
        finally:
            os.close(fd)

    def size_bytes(self, key: str) -> int | None:
        """Return the size of a blob; None when there is none. Raises Unavailable."""
        try:
            return self.path(key).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise disk_error(error) from error

    def read_whole(self, key: str) -> bytes | None:
        """Return a small blob; None when there is none. Raises Unavailable."""
        size = self.size_bytes(key)
        return None if size is None else self.read(BlobRef(key, 0, size))

    def days(self) -> list[str]:
        """Return the days of which there are blobs, as they stand in keys, oldest first."""
        found = self.directory.glob("[0-9]*/[0-9][0-9][0-9][0-9]/[0-9][0-9]/[0-9][0-9]")
        return sorted({"/".join(path.parts[-3:]) for path in found})

    def of_day(self, day: str) -> list[BlobEntry]:
        """Return the blobs of a day, of all archives."""
        entries = []
        for folder in sorted(self.directory.glob(f"[0-9]*/{day}")):
            with os.scandir(folder) as found:
                for one in found:
                    key = f"{folder.relative_to(self.directory)}/{one.name}"
                    moment = datetime.fromtimestamp(one.stat().st_mtime, UTC)
                    entries.append(BlobEntry(key, moment))
        return entries

    def is_open(self, key: str) -> bool:
        """Tell whether a living sender holds the pack and may still append to it."""
        try:
            fd = os.open(self.path(key), os.O_RDONLY)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise disk_error(error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    @contextmanager
    def mapped(self, ref: BlobRef) -> Iterator[memoryview]:
        """Give the range as memory that is read when it is touched. Raises Unavailable."""
        fd = _open_blob(self, ref.key)
        try:
            size = os.fstat(fd).st_size
            if ref.offset + ref.length > size or not ref.length:
                raise Unavailable(f"blob {ref.key} is shorter than the index says")
            with (
                mmap.mmap(fd, size, access=mmap.ACCESS_READ) as whole,
                memoryview(whole) as view,
                view[ref.offset : ref.offset + ref.length] as part,
            ):
                yield part
        finally:
            os.close(fd)

    def delete(self, key: str) -> None:
        """Remove a blob; nothing happens when it is gone already."""
        self.path(key).unlink(missing_ok=True)


class BlobReader:
    """Reads ranges one after the other and keeps the last files open; used by one thread."""

    FILES_MAX = 8

    def __init__(self, blobs: FileBlobs) -> None:
        self._blobs = blobs
        self._files: dict[str, int] = {}

    def read(self, key: str, offset: int, length: int) -> bytes:
        """Return the bytes of the range. Raises Unavailable when they are gone."""
        fd = self._files.get(key)
        if fd is None:
            while len(self._files) >= self.FILES_MAX:
                os.close(self._files.pop(next(iter(self._files))))
            fd = self._files[key] = _open_blob(self._blobs, key)
        return _read_range(fd, key, offset, length)

    def close(self) -> None:
        """Close the files."""
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()


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
            # Goes with the process, however it ends: what is locked may still be appended to.
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
        os.truncate(self.path, self.size_bytes)
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

    def remove(self) -> None:
        """Close and delete the pack: nothing in it was committed."""
        os.close(self._fd)
        self._closed = True
        self._dirty = False
        self.path.unlink(missing_ok=True)

    def copy_record(self, blobs: FileBlobs, ref: BlobRef) -> BlobRef:
        """Add an instance as it lies in another pack, arrival and all, and return its range."""
        start, end = ref.offset - RECORD.size, ref.offset + ref.length
        offset = self.size_bytes + RECORD.size
        for position in range(start, end, CHECK_BYTES):
            piece = BlobRef(ref.key, position, min(CHECK_BYTES, end - position))
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


def _open_blob(blobs: FileBlobs, key: str) -> int:
    try:
        return os.open(blobs.path(key), os.O_RDONLY)
    except FileNotFoundError as error:
        raise Unavailable(f"blob {key} is missing") from error
    except OSError as error:
        raise disk_error(error) from error


def _read_range(fd: int, key: str, offset: int, length: int) -> bytes:
    pieces = []
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


def read_provenance(blobs: FileBlobs, key: str) -> dict[str, str] | None:
    """Return what the pack's header tells: archive, door, sender; None when it is damaged.

    Raises Unavailable when there is no such pack.
    """
    if (blobs.size_bytes(key) or 0) < PACK_HEADER_BYTES:
        return None
    try:
        told = json.loads(blobs.read(BlobRef(key, 0, PACK_HEADER_BYTES)))
    except ValueError:
        return None
    if not isinstance(told, dict) or told.pop("format", None) != 1:
        return None
    return {str(name): str(value) for name, value in told.items()}


def read_pack(blobs: FileBlobs, key: str) -> Iterator[PackRecord]:
    """Yield the instances of a pack in order; ends at the first torn or damaged record.

    What it yields is whole: the data set has the digest that its record tells. Raises NotFound
    when there is no such pack.
    """
    for record in read_pack_through(blobs, key):
        if isinstance(record, DamagedRecord):
            return
        yield record


def read_pack_through(blobs: FileBlobs, key: str) -> Iterator[PackRecord | DamagedRecord]:
    """Yield the instances of a pack in order, and in their places those that are damaged.

    Ends where the next record cannot be found. Raises NotFound when there is no such pack.
    """
    path = blobs.path(key)
    if not path.exists():
        raise NotFound(f"there is no pack {key}")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = PACK_HEADER_BYTES
        while start + RECORD.size <= size:
            record = _read_record(file, key, start, size)
            yield record
            if record.end is None:
                return
            start = record.end


def first_arrival(blobs: FileBlobs, key: str) -> int | None:
    """Return when the first instance of a pack came, in µs since 1970; None when there is none.

    Nothing is checked but the record header.
    """
    end = PACK_HEADER_BYTES + RECORD.size
    if (blobs.size_bytes(key) or 0) <= end:
        return None
    record = RECORD.unpack(blobs.read(BlobRef(key, PACK_HEADER_BYTES, RECORD.size)))
    arrived_us: int = record[-1]
    return arrived_us if record[0] == RECORD_MAGIC else None


def never_held(blobs: FileBlobs, key: str) -> bool:
    """Tell whether the pack never had a whole instance: its sender was killed at the first.

    A record header is written last and synced before a commit; where it is all zeros, or the
    file ends within it, nothing can have been committed.
    """
    end = PACK_HEADER_BYTES + RECORD.size
    if (blobs.size_bytes(key) or 0) <= end:
        return True
    return not any(blobs.read(BlobRef(key, PACK_HEADER_BYTES, RECORD.size)))


def _read_record(file: BinaryIO, key: str, start: int, size: int) -> PackRecord | DamagedRecord:
    """Return the record that begins at `start`."""
    file.seek(start)
    magic, crc, length, dataset_offset, digest, arrived_us = RECORD.unpack(file.read(RECORD.size))
    offset = start + RECORD.size
    if magic != RECORD_MAGIC or offset + length > size or dataset_offset > length:
        return DamagedRecord(key, start, None)
    damaged = DamagedRecord(key, start, offset + length)
    if zlib.crc32(file.read(dataset_offset)) != crc:
        return damaged
    found = hashlib.sha256()
    left = length - dataset_offset
    while left and (piece := file.read(min(left, CHECK_BYTES))):
        found.update(piece)
        left -= len(piece)
    if left or found.digest() != digest:
        return damaged
    try:
        received_at = datetime.fromtimestamp(arrived_us / 1_000_000, UTC)
    except (ValueError, OverflowError, OSError):  # a moment that no clock shows
        return damaged
    return PackRecord(BlobRef(key, offset, length), dataset_offset, digest, received_at)


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
