"""WADO-RS: the Retrieve transaction (PS3.18 §10.4): objects, metadata, frames, bulk data."""

import asyncio
import zlib
from collections.abc import Mapping, Sequence

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from bfr_core.errors import Invalid, NotFound
from bfr_core.frames import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    NATIVE_TRANSFER_SYNTAXES,
)
from bfr_core.bulk_data import read_bulk_data
from bfr_core.manifest import Frames, StoredInstance
from bfr_core.pixels import PixelPool, native_frame
from bfr_core.retrieval import FoundInstance, retrieve_instances
from bfr_core.store import Store
from bfr_dicomweb.media_types import (
    APPLICATION_DICOM,
    DICOM_JSON,
    OCTET_STREAM,
    Accepted,
    Offer,
    choose,
    frame_media_type,
    parse_accept,
)
from bfr_dicomweb.multipart import (
    closing,
    content_length_bytes,
    content_type,
    new_boundary,
    part_header,
)
from bfr_dicomweb.resources import BlobRange, Target, json_answer, stream_pieces, target_of

DOOR = "WADO-RS"
FRAMES_MAX = 10_000
BULK_DATA_MARK = b'"BulkDataURI":"bulkdata/'
IDENTITY = {"Cache-Control": "no-store", "Vary": "Accept"}


async def retrieve(request: Request) -> Response:
    """Answer with the objects of a study, a series or one instance, as stored (§10.4.1.1.1)."""
    target = await target_of(request)
    found = await _find(request, target)
    stored_syntaxes = dict.fromkeys(one.stored.transfer_syntax_uid for one in found)
    offers = [Offer(APPLICATION_DICOM, True, uid, when_unnamed=True) for uid in stored_syntaxes]
    if len(found) == 1:
        offers += [
            Offer(APPLICATION_DICOM, False, uid, when_unnamed=True) for uid in stored_syntaxes
        ]
    chosen = choose(_accepted(request), offers)
    named = _named_syntax(request)
    if named is not None:
        # Objects in other syntaxes than the one named would break what was asked for.
        others = [one for one in found if one.stored.transfer_syntax_uid != named]
        if others:
            chosen = choose(_accepted(request), [])
    if not chosen.multipart:
        one = found[0].stored
        return _single(target.store, one, APPLICATION_DICOM)
    parts = [
        (
            {
                "Content-Type": f"{APPLICATION_DICOM};"
                f" transfer-syntax={one.stored.transfer_syntax_uid}"
            },
            [BlobRange(one.stored.blob.key, one.stored.blob.offset, one.stored.blob.length)],
        )
        for one in found
    ]
    return multipart_answer(target.store, APPLICATION_DICOM, parts)


async def retrieve_metadata(request: Request) -> Response:
    """Answer with the headers of a study, a series or one instance (§10.4.1.1.2)."""
    target = await target_of(request)
    found = await _find(request, target, headers=True)
    choose(
        parse_accept(request.headers.get("accept", "*/*")),
        (Offer(DICOM_JSON), Offer("application/json")),
    )
    body = b"[" + b",\n".join(_with_bulk_data_uris(target, one) for one in found) + b"]"
    return await json_answer(request, body, DICOM_JSON)


async def retrieve_frames(request: Request) -> Response:
    """Answer with frames as stored, or as native little endian (§10.4.1.1.6)."""
    target = await target_of(request)
    found = await _find(request, target, headers=True)
    one = found[0]
    stored = one.stored
    if stored.frames is None:
        raise NotFound("the instance has no frames that can be told apart")
    numbers = frame_numbers(request.path_params["frames"], stored.frames)
    chosen = choose(_accepted(request), _frame_offers(stored, single=len(numbers) == 1))
    as_stored = chosen.transfer_syntax_uid == stored.transfer_syntax_uid
    if as_stored or stored.transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN:
        bodies: list[Sequence[bytes | BlobRange]] = [
            frame_pieces(stored, stored.frames, number) for number in numbers
        ]
    else:
        pool: PixelPool = request.app.state.pixels
        dataset = orjson.loads(one.header)
        bodies = [
            [
                await pool.run(
                    native_frame,
                    await read_frame(target.store, stored, number),
                    dataset,
                    stored.transfer_syntax_uid,
                    number,
                    target.store.settings.rendered_max_pixels,
                    stored.frames.vr,
                )
            ]
            for number in numbers
        ]
    part_type = f"{chosen.media_type}; transfer-syntax={chosen.transfer_syntax_uid}"
    if chosen.multipart:
        parts = [({"Content-Type": part_type}, body) for body in bodies]
        return multipart_answer(target.store, chosen.media_type, parts)
    return StreamingResponse(
        stream_pieces(target.store, bodies[0]),
        headers={**IDENTITY, "Content-Length": str(_length(bodies[0]))},
        media_type=part_type,
    )


async def retrieve_bulk_data(request: Request) -> Response:
    """Answer with one value that the metadata names by a URI (§10.4.1.1.5)."""
    target = await target_of(request)
    found = await _find(request, target)
    stored = found[0].stored
    chosen = choose(
        parse_accept(request.headers.get("accept", "*/*")),
        [Offer(OCTET_STREAM, multipart=False), Offer(OCTET_STREAM, multipart=True)],
    )
    value = await asyncio.to_thread(
        read_bulk_data, target.store, stored, request.path_params["path"]
    )
    if chosen.multipart:
        return multipart_answer(
            target.store, OCTET_STREAM, [({"Content-Type": OCTET_STREAM}, [value])]
        )
    return Response(value, headers=IDENTITY, media_type=OCTET_STREAM)


def multipart_answer(
    store: Store,
    media_type: str,
    parts: Sequence[tuple[Mapping[str, str], Sequence[bytes | BlobRange]]],
) -> Response:
    """Return a multipart answer whose parts are streamed (§8.6.1.2)."""
    boundary = new_boundary()
    pieces: list[bytes | BlobRange] = []
    for number, (headers, body) in enumerate(parts):
        pieces.append(part_header(boundary, headers, first=number == 0))
        pieces += body
    pieces.append(closing(boundary))
    length = content_length_bytes(boundary, [(headers, _length(body)) for headers, body in parts])
    return StreamingResponse(
        stream_pieces(store, pieces),
        headers={
            **IDENTITY,
            "Content-Length": str(length),
            "Content-Type": content_type(media_type, boundary),
        },
    )


def frame_numbers(text: str, frames: Frames) -> list[int]:
    """Return the frame numbers of a frame list, from 1 (§10.4.1.1.6).

    Raises Invalid for what is no list, NotFound for a frame that the instance has not.
    """
    parts = text.split(",")
    if len(parts) > FRAMES_MAX:
        raise Invalid(f"more than {FRAMES_MAX} frames in one request")
    numbers = []
    for part in parts:
        if not part.isascii() or not part.isdigit() or len(part) > 9 or int(part) < 1:
            raise Invalid(f"{part!r} is no frame number")
        if int(part) > frames.number_of_frames:
            raise NotFound(
                f"there is no frame {int(part)}: the instance has {frames.number_of_frames}"
            )
        numbers.append(int(part))
    return numbers


def frame_pieces(stored: StoredInstance, frames: Frames, number: int) -> list[bytes | BlobRange]:
    """Return where the bytes of a frame lie in its blob."""
    return [
        BlobRange(stored.blob.key, stored.blob.offset + offset, length)
        for offset, length in frames.range_of(number)
    ]


async def read_frame(store: Store, stored: StoredInstance, number: int) -> bytes:
    """Return the bytes of one frame as the object holds them."""
    if stored.frames is None:
        raise NotFound("the instance has no frames that can be told apart")
    ranges = stored.frames.range_of(number)

    def read() -> bytes:
        if stored.transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
            deflated = store.blobs.read(stored.blob, stored.dataset_offset)
            inflated = zlib.decompressobj(-15).decompress(
                deflated, store.settings.inflated_max_bytes
            )
            return b"".join(inflated[offset : offset + length] for offset, length in ranges)
        return b"".join(store.blobs.read(stored.blob, offset, length) for offset, length in ranges)

    return await asyncio.to_thread(read)


async def _find(request: Request, target: Target, *, headers: bool = False) -> list[FoundInstance]:
    path = request.path_params
    return await retrieve_instances(
        target.store,
        target.access,
        DOOR,
        archive_id=target.archive_id,
        study_instance_uid=path["study"],
        series_instance_uid=path.get("series"),
        sop_instance_uid=path.get("instance"),
        headers=headers,
    )


def _accepted(request: Request) -> Accepted:
    return parse_accept(
        request.headers.get("accept", "*/*"), request.query_params.getlist("accept")
    )


def _named_syntax(request: Request) -> str | None:
    """Return the one transfer syntax that the request insists on, if it names one."""
    accepted = _accepted(request)
    ranges = accepted.query or accepted.header
    named = {one.transfer_syntax for one in ranges}
    if len(named) == 1:
        only = named.pop()
        if only not in (None, "*"):
            return only
    return None


def _frame_offers(stored: StoredInstance, *, single: bool) -> list[Offer]:
    """Return how frames can be sent: as stored, under both names, and as native pixels."""
    syntax = stored.transfer_syntax_uid
    offers: list[Offer] = []
    for multipart in (True, False) if single else (True,):
        if syntax not in NATIVE_TRANSFER_SYNTAXES:
            offers += [
                Offer(OCTET_STREAM, multipart, syntax),
                Offer(frame_media_type(syntax), multipart, syntax),
            ]
        offers.append(Offer(OCTET_STREAM, multipart, EXPLICIT_VR_LITTLE_ENDIAN))
    return offers


def _with_bulk_data_uris(target: Target, found: FoundInstance) -> bytes:
    root = (
        f'"BulkDataURI":"{target.root}/studies/{found.study_instance_uid}'
        f"/series/{found.series_instance_uid}"
        f"/instances/{found.stored.sop_instance_uid}/bulkdata/"
    )
    return found.header.replace(BULK_DATA_MARK, root.encode())


def _single(store: Store, stored: StoredInstance, media_type: str) -> Response:
    blob = stored.blob
    return StreamingResponse(
        stream_pieces(store, [BlobRange(blob.key, blob.offset, blob.length)]),
        headers={**IDENTITY, "Content-Length": str(blob.length)},
        media_type=f"{media_type}; transfer-syntax={stored.transfer_syntax_uid}",
    )


def _length(pieces: Sequence[bytes | BlobRange]) -> int:
    return sum(len(one) if isinstance(one, bytes) else one.length for one in pieces)
