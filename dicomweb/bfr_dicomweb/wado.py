"""WADO-RS: the Retrieve transaction (PS3.18 §10.4): objects, metadata, frames, bulk data."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from bfr_core.bulk_data import read_bulk_data
from bfr_core.errors import Invalid, NotFound
from bfr_core.frames import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    HTJ2K_TRANSFER_SYNTAXES,
    IMPLICIT_VR_LITTLE_ENDIAN,
    JPEG_2000_TRANSFER_SYNTAXES,
    NATIVE_TRANSFER_SYNTAXES,
    first_value,
    image_pixel,
)
from bfr_core.instances import Dataset
from bfr_core.manifest import Frames, StoredInstance
from bfr_core.pixels import (
    CODESTREAM_START_BYTES,
    PixelPool,
    frame_attributes,
    native_frame,
    sign_contradicts,
)
from bfr_core.retrieval import FoundInstance, retrieve_instances
from bfr_core.store import Store
from bfr_dicomweb.media_types import (
    APPLICATION_DICOM,
    APPLICATION_ZIP,
    OCTET_STREAM,
    NotAcceptable,
    Offer,
    choose,
    frame_media_type,
)
from bfr_dicomweb.multipart import (
    closing,
    content_length_bytes,
    content_type,
    new_boundary,
    part_header,
)
from bfr_dicomweb.resources import (
    BlobRange,
    Target,
    accepted_by,
    choose_json,
    json_answer,
    opened,
    pieces_answer,
    target_of,
    with_bulk_data_uris,
)
from bfr_dicomweb.zip_archive import zip_answer

DOOR = "WADO-RS"
FRAMES_MAX = 10_000
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
BITS_ALLOCATED = "00280100"
# Stored in words or bytes of the order that octet-stream has: sent without touching them.
LITTLE_ENDIAN = frozenset({IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN})
IDENTITY = {"Cache-Control": "no-store", "Vary": "Accept"}


async def retrieve(request: Request, door: str = DOOR) -> Response:
    """Answer with the objects of a study, a series or one instance, as stored (§10.4.1.1.1)."""
    target = await target_of(request)
    found = await _find(request, target, door=door)
    accepted = accepted_by(request)
    syntaxes = dict.fromkeys(one.stored.transfer_syntax_uid for one in found)
    forms = (True, False) if len(found) == 1 else (True,)
    zipped = [Offer(APPLICATION_ZIP, False, uid, when_unnamed=True) for uid in syntaxes]
    chosen = choose(
        accepted, [*(_as_stored(uid, form) for form in forms for uid in syntaxes), *zipped]
    )
    if chosen.media_type == APPLICATION_ZIP:
        for offer in zipped:
            choose(accepted, [offer])
        return await zip_answer(target.store, await _find(request, target, headers=True))
    for uid in syntaxes:
        # Every object is to be acceptable, not one of them alone.
        choose(accepted, [_as_stored(uid, chosen.multipart)])
    if not chosen.multipart:
        return await _single(target.store, found[0].stored)
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
    return await multipart_answer(target.store, APPLICATION_DICOM, parts)


async def retrieve_metadata(request: Request) -> Response:
    """Answer with the headers of a study, a series or one instance (§10.4.1.1.2)."""
    target = await target_of(request)
    media_type = choose_json(request)
    found = await _find(request, target, headers=True)
    body = b",\n".join(
        with_bulk_data_uris(
            one.header,
            f"{target.root}/studies/{one.study_instance_uid}/series/{one.series_instance_uid}"
            f"/instances/{one.stored.sop_instance_uid}",
        )
        for one in found
    )
    return await json_answer(request, b"[" + body + b"]", media_type)


async def retrieve_frames(request: Request) -> Response:
    """Answer with frames as stored, or as native little endian (§10.4.1.1.6)."""
    target = await target_of(request)
    found = await _find(request, target, headers=True)
    one = found[0]
    stored = one.stored
    if stored.frames is None:
        raise NotFound("the instance has no frames that can be told apart")
    numbers = frame_numbers(request.path_params["frames"], stored.frames)
    header = orjson.loads(one.header)
    native_first = await asyncio.to_thread(
        _drawn_differently, target.store, stored, stored.frames, header, numbers
    )
    offers = _frame_offers(stored, native_first=native_first, single=len(numbers) == 1)
    chosen = choose(accepted_by(request), offers)
    part_type = f"{chosen.media_type}; transfer-syntax={chosen.transfer_syntax_uid}"
    # A frame of single bits may begin within a byte, and then has to be cut out.
    as_stored = chosen.transfer_syntax_uid == stored.transfer_syntax_uid or (
        stored.transfer_syntax_uid in LITTLE_ENDIAN
    )
    if stored.transfer_syntax_uid in LITTLE_ENDIAN and first_value(header, BITS_ALLOCATED) == 1:
        as_stored = False
    if not as_stored:
        pool: PixelPool = request.app.state.pixels
        frames = _native_frames(target.store, pool, stored, header, numbers)
        return await _streamed_frames(frames, chosen, part_type)
    bodies = [frame_pieces(stored, stored.frames, number) for number in numbers]
    if chosen.multipart:
        parts = [({"Content-Type": part_type}, body) for body in bodies]
        return await multipart_answer(target.store, chosen.media_type, parts)
    return await pieces_answer(
        target.store, bodies[0], _length(bodies[0]), {**IDENTITY, "Content-Type": part_type}
    )


async def retrieve_bulk_data(request: Request) -> Response:
    """Answer with one value that the metadata names by a URI (§10.4.1.1.5)."""
    target = await target_of(request)
    found = await _find(request, target)
    stored = found[0].stored
    chosen = choose(
        accepted_by(request),
        [Offer(OCTET_STREAM, multipart=False), Offer(OCTET_STREAM, multipart=True)],
    )
    value = await asyncio.to_thread(
        read_bulk_data, target.store, stored, request.path_params["path"]
    )
    if chosen.multipart:
        return await multipart_answer(
            target.store, OCTET_STREAM, [({"Content-Type": OCTET_STREAM}, [value])]
        )
    return Response(value, headers=IDENTITY, media_type=OCTET_STREAM)


async def multipart_answer(
    store: Store,
    media_type: str,
    parts: Sequence[tuple[Mapping[str, str], Sequence[bytes | BlobRange]]],
) -> Response:
    """Return a multipart answer whose parts are streamed (§8.6.1.2).

    Raises Unavailable when the bytes of the first are gone.
    """
    boundary = new_boundary()
    pieces: list[bytes | BlobRange] = []
    for number, (headers, body) in enumerate(parts):
        pieces.append(part_header(boundary, headers, first=number == 0))
        pieces += body
    pieces.append(closing(boundary))
    length = content_length_bytes(boundary, [(headers, _length(body)) for headers, body in parts])
    return await pieces_answer(
        store, pieces, length, {**IDENTITY, "Content-Type": content_type(media_type, boundary)}
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


async def _find(
    request: Request, target: Target, *, headers: bool = False, door: str = DOOR
) -> list[FoundInstance]:
    path = request.path_params
    return await retrieve_instances(
        target.store,
        target.access,
        door,
        archive_id=target.archive_id,
        study_instance_uid=path["study"],
        series_instance_uid=path.get("series"),
        sop_instance_uid=path.get("instance"),
        headers=headers,
    )


def _as_stored(transfer_syntax_uid: str, multipart: bool) -> Offer:
    return Offer(APPLICATION_DICOM, multipart, transfer_syntax_uid, when_unnamed=True)


async def _native_frames(
    store: Store,
    pool: PixelPool,
    stored: StoredInstance,
    header: Mapping[str, Any],
    numbers: Sequence[int],
) -> AsyncIterator[bytes]:
    """Yield the frames as native little endian pixels, decoded one at a time.

    Raises NotAcceptable when a frame cannot be decoded: it can only be had as it is stored.
    """
    vr = "" if stored.frames is None else stored.frames.vr
    attributes = frame_attributes(header)
    for number in numbers:
        try:
            yield await pool.run(
                native_frame,
                await read_frame(store, stored, number),
                attributes,
                stored.transfer_syntax_uid,
                number,
                store.settings.rendered_max_pixels,
                vr,
            )
        except Invalid as error:
            raise NotAcceptable(f"frame {number} cannot be decoded: {error.message}") from error


async def _streamed_frames(frames: AsyncIterator[bytes], chosen: Offer, part_type: str) -> Response:
    boundary = new_boundary()

    async def parts() -> AsyncIterator[bytes]:
        first = True
        async for frame in frames:
            yield part_header(boundary, {"Content-Type": part_type}, first=first) + frame
            first = False
        yield closing(boundary)

    if chosen.multipart:
        kind = content_type(chosen.media_type, boundary)
        return StreamingResponse(await opened(parts()), headers={**IDENTITY, "Content-Type": kind})
    return StreamingResponse(await opened(frames), headers=IDENTITY, media_type=part_type)


def _drawn_differently(
    store: Store,
    stored: StoredInstance,
    frames: Frames,
    header: Dataset,
    numbers: Sequence[int],
) -> bool:
    """Return whether browsers' decoders make another picture of a frame than ours, or none.

    They do not read RLE of more than 16 bits, and take the sign of a JPEG 2000 codestream from
    the header, not from where it was encoded.
    """
    syntax = stored.transfer_syntax_uid
    if syntax == RLE_LOSSLESS:
        return first_value(header, BITS_ALLOCATED) not in (8, 16)
    if syntax not in JPEG_2000_TRANSFER_SYNTAXES | HTJ2K_TRANSFER_SYNTAXES:
        return False
    image = image_pixel(header)
    for number in numbers:
        offset, length = frames.range_of(number)[0]
        start = store.blobs.read(stored.blob, offset, min(length, CODESTREAM_START_BYTES))
        if sign_contradicts(start, image, syntax):
            return True
    return False


def _frame_offers(stored: StoredInstance, *, native_first: bool, single: bool) -> list[Offer]:
    """Return how frames can be sent: as stored, under both names, and as native pixels.

    Who takes any transfer syntax gets the first.
    """
    syntax = stored.transfer_syntax_uid
    offers: list[Offer] = []
    for multipart in (True, False) if single else (True,):
        native = [Offer(OCTET_STREAM, multipart, EXPLICIT_VR_LITTLE_ENDIAN)]
        encapsulated = (
            []
            if syntax in NATIVE_TRANSFER_SYNTAXES
            else [
                Offer(OCTET_STREAM, multipart, syntax),
                Offer(frame_media_type(syntax), multipart, syntax),
            ]
        )
        offers += native + encapsulated if native_first else encapsulated + native
    return offers


async def _single(store: Store, stored: StoredInstance) -> Response:
    blob = stored.blob
    return await pieces_answer(
        store,
        [BlobRange(blob.key, blob.offset, blob.length)],
        blob.length,
        {
            **IDENTITY,
            "Content-Type": f"{APPLICATION_DICOM}; transfer-syntax={stored.transfer_syntax_uid}",
        },
    )


def _length(pieces: Sequence[bytes | BlobRange]) -> int:
    return sum(len(one) if isinstance(one, bytes) else one.length for one in pieces)
