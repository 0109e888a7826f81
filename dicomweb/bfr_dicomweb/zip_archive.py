"""ZIP: objects as one file, with a DICOMDIR (PS3.18 §8.7.3, PS3.12 Annex V, ISO/IEC 21320-1).

Nothing is deflated, so that the length of the whole is known before its first byte: who gets
less knows that it broke off. Sums stand before the bytes they are of, for readers that stream.
"""

import asyncio
import hashlib
import struct
import zlib
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from starlette.responses import Response, StreamingResponse

from bfr_core import dicomdir
from bfr_core.blobs import WINDOW_BYTES, BlobReader, BlobRef, FileBlobs
from bfr_core.errors import Unavailable
from bfr_core.retrieval import FoundInstance
from bfr_core.store import Store
from bfr_dicomweb.media_types import APPLICATION_ZIP
from bfr_dicomweb.resources import BATCH_BYTES, opened

# APPNOTE 4.3.7, 4.3.12, 4.3.14, 4.3.15, 4.3.16 and 4.5.3 of the ZIP format.
LOCAL_HEADER = struct.Struct("<4s5H3I2H")
CENTRAL_HEADER = struct.Struct("<4s6H3I5H2I")
ZIP64_END = struct.Struct("<4sQ2H2I4Q")
ZIP64_LOCATOR = struct.Struct("<4sIQI")
END = struct.Struct("<4s4H2IH")
MAX_16 = 0xFFFF
MAX_32 = 0xFFFFFFFF
VERSION, VERSION_ZIP64 = 20, 45
STORED = 0
NO_TIME, NO_DATE = 0, 0x21  # midnight of the first day of 1980: who asked when is nobody's matter


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in the archive: its bytes, or where they lie and what they were."""

    name: str
    content: bytes | BlobRef
    dataset_offset: int = 0
    digest: bytes | None = None  # SHA-256 of what begins there

    @property
    def size_bytes(self) -> int:
        """The length of the file."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.length


async def zip_answer(store: Store, found: Sequence[FoundInstance]) -> Response:
    """Return an answer of the objects as stored, whose headers are given, and their DICOMDIR.

    Raises Unavailable when the bytes of the first are gone; when those of a later one are, the
    answer breaks off.
    """
    entries = await asyncio.to_thread(entries_of, found)
    headers = {
        "Cache-Control": "no-store",
        "Vary": "Accept",
        "Content-Disposition": 'attachment; filename="DICOM.ZIP"',
        "Content-Length": str(length_bytes(entries)),
    }
    chunks = _in_threads(_batches(zip_chunks(store.blobs, entries)))
    return StreamingResponse(await opened(chunks), headers=headers, media_type=APPLICATION_ZIP)


def entries_of(found: Sequence[FoundInstance]) -> list[Entry]:
    """Return the DICOMDIR and the files it names."""
    directory = dicomdir.Directory()
    files = []
    for one in found:
        file_id = directory.new_file_id(one)
        directory.add(file_id, one)
        stored = one.stored
        name = "/".join(file_id)
        files.append(Entry(name, stored.blob, stored.dataset_offset, stored.digest))
    return [Entry(dicomdir.NAME, directory.to_bytes()), *files]


def length_bytes(entries: Sequence[Entry]) -> int:
    """Return the length of the archive of the entries."""
    end = sum(len(_local_header(one, 0)) + one.size_bytes for one in entries)
    return end + len(central_directory(entries, [0] * len(entries)))


def zip_chunks(blobs: FileBlobs, entries: Sequence[Entry]) -> Generator[bytes]:
    """Yield the archive in chunks of at most a window.

    Raises Unavailable when bytes are gone, or are not what was stored. An object larger than a
    window is read twice: once for its sums, once for the archive.
    """
    refs = [one.content for one in entries if isinstance(one.content, BlobRef)]
    sums = []
    with closing(BlobReader(blobs, refs)) as reader:
        for one in entries:
            pieces = list(_pieces(reader, one)) if one.size_bytes <= WINDOW_BYTES else None
            sums.append(_checked_sum(one, _pieces(reader, one) if pieces is None else pieces))
            yield _local_header(one, sums[-1])
            yield from _pieces(reader, one) if pieces is None else pieces
    yield central_directory(entries, sums)


def central_directory(entries: Sequence[Entry], sums: Sequence[int]) -> bytes:
    """Return what stands behind the files: a header for each, and the records of the end."""
    headers = []
    offset = 0
    for one, crc in zip(entries, sums, strict=True):
        headers.append(_central_header(one, crc, offset))
        offset += len(_local_header(one, crc)) + one.size_bytes
    size, count = sum(map(len, headers)), len(entries)
    if count >= MAX_16 or size >= MAX_32 or offset >= MAX_32:
        headers += [
            ZIP64_END.pack(
                b"PK\x06\x06", ZIP64_END.size - 12, VERSION_ZIP64, VERSION_ZIP64, 0, 0,
                count, count, size, offset,
            ),
            ZIP64_LOCATOR.pack(b"PK\x06\x07", 0, offset + size, 1),
        ]  # fmt: skip
    told = min(count, MAX_16)
    end = END.pack(b"PK\x05\x06", 0, 0, told, told, min(size, MAX_32), min(offset, MAX_32), 0)
    return b"".join([*headers, end])


def _local_header(entry: Entry, crc: int) -> bytes:
    name, size = entry.name.encode("ascii"), entry.size_bytes
    extra = _zip64(size, size) if size >= MAX_32 else b""
    return (
        LOCAL_HEADER.pack(
            b"PK\x03\x04", VERSION_ZIP64 if extra else VERSION, 0, STORED, NO_TIME, NO_DATE,
            crc, min(size, MAX_32), min(size, MAX_32), len(name), len(extra),
        )
        + name
        + extra
    )  # fmt: skip


def _central_header(entry: Entry, crc: int, offset: int) -> bytes:
    name, size = entry.name.encode("ascii"), entry.size_bytes
    large = ([size, size] if size >= MAX_32 else []) + ([offset] if offset >= MAX_32 else [])
    extra = _zip64(*large) if large else b""
    version = VERSION_ZIP64 if extra else VERSION
    return (
        CENTRAL_HEADER.pack(
            b"PK\x01\x02", version, version, 0, STORED, NO_TIME, NO_DATE, crc,
            min(size, MAX_32), min(size, MAX_32), len(name), len(extra), 0, 0, 0, 0,
            min(offset, MAX_32),
        )
        + name
        + extra
    )  # fmt: skip


def _zip64(*values: int) -> bytes:
    return struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values)


def _checked_sum(entry: Entry, pieces: Iterable[bytes]) -> int:
    """Return the CRC-32 of a file. Raises Unavailable when it is not what was stored."""
    crc, place = 0, 0
    digest = hashlib.sha256()
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
        if entry.digest is not None:
            digest.update(memoryview(piece)[max(entry.dataset_offset - place, 0) :])
        place += len(piece)
    if entry.digest not in (None, digest.digest()):
        raise Unavailable("an object is damaged: its bytes are not what was stored")
    return crc


def _pieces(reader: BlobReader, entry: Entry) -> Iterator[bytes]:
    content = entry.content
    if isinstance(content, bytes):
        yield content
        return
    for start in range(0, content.length, BATCH_BYTES):
        length = min(BATCH_BYTES, content.length - start)
        yield reader.read(content.key, content.offset + start, length)


def _batches(chunks: Generator[bytes]) -> Generator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    with closing(chunks):
        for chunk in chunks:
            batch.append(chunk)
            size += len(chunk)
            if size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
        yield batch


async def _in_threads(batches: Generator[list[bytes]]) -> AsyncIterator[bytes]:
    """Yield the chunks of the batches, each of which is made in a thread while one is sent."""
    ahead = asyncio.create_task(asyncio.to_thread(next, batches, None))
    try:
        while (batch := await ahead) is not None:
            ahead = asyncio.create_task(asyncio.to_thread(next, batches, None))
            for chunk in batch:
                yield chunk
    finally:
        await asyncio.gather(ahead, return_exceptions=True)
        batches.close()
