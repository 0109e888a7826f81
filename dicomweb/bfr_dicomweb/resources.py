"""Resources: what a request addresses, and the forms that answers share."""

import asyncio
import gzip
import hashlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import quote

import orjson
import zstandard
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response, StreamingResponse

from bfr_core.access import Access
from bfr_core.blobs import BlobReader, BlobRef
from bfr_core.connections import Archive, find_archive, list_archives
from bfr_core.errors import Invalid, NotFound
from bfr_core.store import Store
from bfr_dicomweb.media_types import DICOM_JSON, Accepted, Offer, choose, parse_accept

JSON_OFFERS = (Offer(DICOM_JSON), Offer("application/json"))
BULK_DATA_MARK = b'"BulkDataURI":"bulkdata/'
COMPRESS_MIN_BYTES = 1024
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
BATCH_BYTES = 2 * 1024 * 1024
CACHED_BYTES = 1024 * 1024  # copied by the event loop itself


@dataclass(frozen=True, slots=True)
class Target:
    """Who asks for what: the caller, and the archive when the URL names one."""

    store: Store
    access: Access
    archive: Archive | None
    root: str  # path of the DICOMweb root: "/dicomweb" or "/archives/{aet}/dicomweb"

    @property
    def archive_id(self) -> int | None:
        """The archive's row; None on the joint root."""
        return None if self.archive is None else self.archive.archive_id


@dataclass(frozen=True, slots=True)
class BlobRange:
    """A range of a blob that goes into an answer as it is."""

    key: str
    offset: int
    length: int


async def target_of(request: HTTPConnection) -> Target:
    """Return what the request addresses.

    Raises NotFound when there is no such archive or the caller may not know it.
    """
    store = cast(Store, request.app.state.store)
    access = cast(Access, request.scope["state"]["access"])
    ae_title = request.path_params.get("ae_title")
    if ae_title is None:
        return Target(store, access, None, "/dicomweb")
    if "\x00" in ae_title:
        raise NotFound("there is no such archive")
    async with store.database.statement() as tx:
        archive = await find_archive(tx, access, ae_title)
    return Target(store, access, archive, f"/archives/{quote(ae_title, safe='')}/dicomweb")


async def archive_to_store_in(target: Target) -> Archive:
    """Return the archive of the URL; on the joint root the only one. Raises Invalid."""
    if target.archive is not None:
        return target.archive
    async with target.store.database.transaction() as tx:
        archives = await list_archives(tx)
    if len(archives) != 1:
        raise Invalid(
            "the joint root does not tell which archive to store in: use /archives/{aet}/dicomweb"
        )
    return archives[0]


def accepted_by(request: Request) -> Accepted:
    """Return what the request accepts; a request that does not say accepts anything."""
    return parse_accept(
        request.headers.get("accept", "*/*"), request.query_params.getlist("accept")
    )


def choose_json(request: Request) -> str:
    """Return the media type that the JSON answer is to have. Raises NotAcceptable."""
    return choose(accepted_by(request), JSON_OFFERS).media_type


def with_bulk_data_uris(dataset: bytes, instance_path: str) -> bytes:
    """Return DICOM JSON whose BulkDataURIs are absolute paths (PS3.18 §F.2.2)."""
    # A quotation mark within a string is escaped in JSON, so the mark is never part of a value.
    root = f'"BulkDataURI":"{instance_path}/bulkdata/'
    return dataset.replace(BULK_DATA_MARK, root.encode())


async def json_answer(request: Request, body: bytes, media_type: str) -> Response:
    """Return a JSON answer, compressed when that is accepted and worth it (RFC 9110 §12.5.3)."""
    headers = {"Cache-Control": "no-store", "Vary": "Accept, Accept-Encoding"}
    if len(body) >= COMPRESS_MIN_BYTES:
        accepted = _codings(",".join(request.headers.getlist("accept-encoding")))
        if "zstd" in accepted:
            headers["Content-Encoding"] = "zstd"
            body = await asyncio.to_thread(zstandard.compress, body, 1)
        elif "gzip" in accepted:
            headers["Content-Encoding"] = "gzip"
            body = await asyncio.to_thread(gzip.compress, body, 1)
    return Response(body, headers=headers, media_type=media_type)


def _codings(header: str) -> set[str]:
    """Return the content codings that are named with a weight above 0."""
    codings = set()
    for member in header.lower().split(","):
        coding, _, parameter = member.partition(";")
        name, _, weight = parameter.partition("=")
        if name.strip() == "q" and not weight.strip(" 0."):
            continue
        codings.add(coding.strip())
    return codings


async def opened(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Return the same chunks once the first is there: an error before it can still be a status."""
    first = await anext(chunks, b"")

    async def all_chunks() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    return all_chunks()


async def pieces_answer(
    store: Store,
    pieces: Sequence[bytes | BlobRange],
    length_bytes: int,
    headers: Mapping[str, str],
) -> Response:
    """Return an answer of the pieces, in one go when it is small, else as they are read.

    Raises Unavailable when the bytes of the first are gone.
    """
    headers = {**headers, "Content-Length": str(length_bytes)}
    chunks = stream_pieces(store, pieces)
    if length_bytes <= CACHED_BYTES:
        return Response(b"".join([chunk async for chunk in chunks]), headers=headers)
    return StreamingResponse(await opened(chunks), headers=headers)


def etag_of(*digests: bytes, of: str = "") -> str:
    """Return a validator of what has these digests, in the form that `of` names (RFC 9110 §8.8.3).

    Weak: the same in another content coding has the same.
    """
    told = hashlib.blake2b(b"".join(digests) + of.encode(), digest_size=16)
    return f'W/"{told.hexdigest()}"'


def not_modified(request: Request, etag: str) -> Response | None:
    """Return 304 when the client holds what has this validator (RFC 9110 §13.1.2)."""
    held = {one.strip() for one in request.headers.get("if-none-match", "").split(",")}
    if etag not in held and "*" not in held and etag.removeprefix("W/") not in held:
        return None
    headers = {"ETag": etag, "Cache-Control": "no-store", "Vary": "Accept"}
    return Response(status_code=304, headers=headers)


async def single_part(
    request: Request,
    store: Store,
    pieces: Sequence[bytes | BlobRange],
    headers: Mapping[str, str],
    etag: str,
) -> Response:
    """Return an answer that is no multipart: whole, one range of it, or 304 (RFC 9110 §14.2).

    A request for several ranges gets the whole. Raises Unavailable as `pieces_answer`.
    """
    if (known := not_modified(request, etag)) is not None:
        return known
    length = sum(map(length_of, pieces))
    headers = {**headers, "ETag": etag, "Accept-Ranges": "bytes"}
    wanted = _wanted_range(request, length, etag)
    if wanted is None:
        return await pieces_answer(store, pieces, length, headers)
    first, last = wanted
    if first > last:
        detail = f"the representation has {length} bytes"
        body = {"status": 416, "title": "Range Not Satisfiable", "detail": detail}
        return Response(
            orjson.dumps(body),
            416,
            {"Content-Range": f"bytes */{length}"},
            media_type="application/problem+json",
        )
    headers["Content-Range"] = f"bytes {first}-{last}/{length}"
    part = _cut(pieces, first, last + 1)
    answer = await pieces_answer(store, part, last + 1 - first, headers)
    answer.status_code = 206
    return answer


def length_of(piece: bytes | BlobRange) -> int:
    """Return how many bytes a piece is."""
    return len(piece) if isinstance(piece, bytes) else piece.length


def _wanted_range(request: Request, length: int, etag: str) -> tuple[int, int] | None:
    """Return the first and the last byte that are asked for; None for all of them.

    What begins behind the end comes with a first that is greater than the last.
    """
    match = RANGE.fullmatch(request.headers.get("range", ""))
    if match is None or request.headers.get("if-range", etag) != etag:
        return None
    first, last = match[1], match[2]
    if not first and not last:
        return None
    if not first:
        return (max(length - int(last), 0), length - 1) if int(last) else (length, length - 1)
    if last and int(last) < int(first):
        return None  # no valid range: as if nothing was asked for
    return int(first), min(int(last), length - 1) if last else length - 1


def _cut(pieces: Sequence[bytes | BlobRange], start: int, end: int) -> list[bytes | BlobRange]:
    """Return the pieces that hold the bytes from `start` to `end`."""
    result: list[bytes | BlobRange] = []
    at = 0
    for piece in pieces:
        length = length_of(piece)
        low, high = max(start - at, 0), min(end - at, length)
        if low < high:
            result.append(
                piece[low:high]
                if isinstance(piece, bytes)
                else BlobRange(piece.key, piece.offset + low, high - low)
            )
        at += length
    return result


async def stream_pieces(store: Store, pieces: Sequence[bytes | BlobRange]) -> AsyncIterator[bytes]:
    """Yield the pieces in order.

    What lies in the page cache is read at once; a disk or a bucket is waited for in a thread, one
    batch ahead of the client. Memory stays at two batches, and a reader's window, whatever the
    pieces' size.
    """
    ranges = (piece for piece in pieces if isinstance(piece, BlobRange))
    reader = BlobReader(store.blobs, (BlobRef(one.key, one.offset, one.length) for one in ranges))
    before: list[bytes] = []  # goes out with the range behind it, whose error can be a status yet
    try:
        for number, piece in enumerate(pieces):
            if isinstance(piece, bytes):
                before.append(piece)
                continue
            done = 0
            while done < piece.length:
                take = min(piece.length - done, CACHED_BYTES)
                data = reader.read_in_memory(piece.key, piece.offset + done, take)
                if not data:
                    rest = BlobRange(piece.key, piece.offset + done, piece.length - done)
                    async for batch in _from_disk(reader, [*before, rest, *pieces[number + 1 :]]):
                        yield batch
                    return
                done += len(data)
                for one in before:
                    yield one
                before = []
                yield data
        for one in before:
            yield one
    finally:
        reader.close()


async def _from_disk(
    reader: BlobReader, pieces: Sequence[bytes | BlobRange]
) -> AsyncIterator[bytes]:
    batches = _batches(pieces)
    ahead = asyncio.create_task(asyncio.to_thread(_read_batch, reader, next(batches, [])))
    try:
        for batch in batches:
            data = await ahead
            ahead = asyncio.create_task(asyncio.to_thread(_read_batch, reader, batch))
            for one in data:
                yield one
        for one in await ahead:
            yield one
    finally:
        await asyncio.gather(ahead, return_exceptions=True)


def _batches(pieces: Sequence[bytes | BlobRange]) -> Iterator[list[bytes | BlobRange]]:
    batch: list[bytes | BlobRange] = []
    size = 0
    for piece in pieces:
        if isinstance(piece, bytes):
            batch.append(piece)
            continue
        start = piece.offset
        end = piece.offset + piece.length
        while start < end:
            take = min(end - start, BATCH_BYTES - size)
            batch.append(BlobRange(piece.key, start, take))
            start += take
            size += take
            if size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _read_batch(reader: BlobReader, batch: Sequence[bytes | BlobRange]) -> list[bytes]:
    return [
        piece if isinstance(piece, bytes) else reader.read(piece.key, piece.offset, piece.length)
        for piece in batch
    ]
