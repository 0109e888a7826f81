"""Blobs: packs and manifests as files below one folder, written once and never changed."""

import errno
import fcntl
import mmap
import os
import shutil
import tempfile
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Protocol

from bfr_core.errors import NotFound, Unavailable
from bfr_core.observation import blob_access

# What one reader takes from elsewhere at once: few requests, and memory that stays bounded.
WINDOW_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BlobRef:
    """A range of bytes in a blob."""

    key: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class BlobEntry:
    """A blob as the list of a day tells of it."""

    key: str
    modified_at: datetime


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

    def exists(self, key: str) -> bool:
        """Tell whether there is such a blob, wherever it is. Raises Unavailable."""
        try:
            return self.size_bytes(key) >= 0
        except NotFound:
            return False

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

    def read_whole(self, key: str) -> bytes | None:
        """Return a small blob; None when there is none. Raises Unavailable."""
        try:
            return self.read(BlobRef(key, 0, self.size_bytes(key)))
        except NotFound:
            return None

    def days(self) -> list[str]:
        """Return the days of which the folder has blobs, as they stand in keys, oldest first."""
        found = self.directory.glob("[0-9]*/[0-9][0-9][0-9][0-9]/[0-9][0-9]/[0-9][0-9]")
        return sorted({"/".join(path.parts[-3:]) for path in found})

    def of_day(self, day: str) -> list[BlobEntry]:
        """Return the blobs of a day in the folder, of all archives."""
        entries = []
        for folder in sorted(self.directory.glob(f"[0-9]*/{day}")):
            with os.scandir(folder) as found:
                for one in found:
                    key = f"{folder.relative_to(self.directory)}/{one.name}"
                    moment = datetime.fromtimestamp(one.stat().st_mtime, UTC)
                    entries.append(BlobEntry(key, moment))
        return entries

    def all_days(self) -> list[str]:
        """Return the days of which there are blobs anywhere, oldest first. Raises Unavailable."""
        return self.days()

    def all_of_day(self, day: str) -> list[str]:
        """Return the keys of a day's blobs, wherever they are. Raises Unavailable."""
        return [entry.key for entry in self.of_day(day)]

    def is_open(self, key: str) -> bool:
        """Tell whether a living sender holds the pack and may still append to it."""
        return is_growing(self.path(key))

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
                if ref.offset + ref.length > os.fstat(fd).st_size or not ref.length:
                    raise Unavailable(f"blob {ref.key} is shorter than the index says")
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
            with blob_access("read"):
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
