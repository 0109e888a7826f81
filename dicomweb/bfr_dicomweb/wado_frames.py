"""WADO-RS: frames and pixel data (PS3.18 §10.4.1.1.6 and §10.4.1.1.7)."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from bfr_core.codestreams import can_decode
from bfr_core.errors import Invalid, NotFound
from bfr_core.frame_encoding import ENCODERS
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
    sign_contradicts,
)
from bfr_core.retrieval import FoundInstance
from bfr_core.store import Store
from bfr_core.transcoding import transcode_frame
from bfr_dicomweb.media_types import (
    OCTET_STREAM,
    NotAcceptable,
    Offer,
    choose,
    frame_media_type,
)
from bfr_dicomweb.multipart import closing, content_type, new_boundary, part_header
from bfr_dicomweb.resources import (
    BlobRange,
    Target,
    accepted_by,
    etag_of,
    opened,
    single_part,
    stream_pieces,
    target_of,
)
from bfr_dicomweb.wado import DOOR as DOOR
from bfr_dicomweb.wado import IDENTITY, find, instance_path, multipart_answer

FRAMES_MAX = 10_000
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
BITS_ALLOCATED = "00280100"
# Stored in words or bytes of the order that octet-stream has: sent without touching them.
LITTLE_ENDIAN = frozenset({IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN})


@dataclass(frozen=True, slots=True)
class _Frames:
    """Frames of one instance, and the form in which they are sent."""

    path: str  # of the instance
    stored: StoredInstance
    frames: Frames
    header: Dataset
    numbers: Sequence[int]
    offer: Offer

    @property
    def as_stored(self) -> bool:
        syntax, sent = self.stored.transfer_syntax_uid, self.offer.transfer_syntax_uid
        if syntax not in LITTLE_ENDIAN:
            return sent == syntax
        # A frame of single bits may begin within a byte, and then has to be cut out.
        return sent == EXPLICIT_VR_LITTLE_ENDIAN and first_value(self.header, BITS_ALLOCATED) != 1

    @property
    def content_type(self) -> str:
        return f"{self.offer.media_type}; transfer-syntax={self.offer.transfer_syntax_uid}"

    def part_headers(self, number: int) -> dict[str, str]:
        """The header fields of the part that holds a frame (§10.4.3.3)."""
        return {
            "Content-Type": self.content_type,
            "Content-Location": f"{self.path}/frames/{number}",
        }


async def retrieve_frames(request: Request) -> Response:
    """Answer with frames as stored, as native little endian, or compressed without loss."""
    target = await target_of(request)
    [one] = await find(request, target, headers=True)
    if one.stored.frames is None:
        raise NotFound("the instance has no frames that can be told apart")
    numbers = frame_numbers(request.path_params["frames"], one.stored.frames)
    sent = await _negotiated(request, target, one, one.stored.frames, numbers)
    if sent.offer.multipart:
        return await _multipart(request, target.store, [sent])
    if sent.as_stored:
        pieces = frame_pieces(sent.stored, sent.frames, numbers[0])
    else:
        pieces = [await _transcoded(request, target.store, sent, numbers[0])]
    headers = {**IDENTITY, "Content-Type": sent.content_type}
    etag = etag_of(sent.stored.digest, of=f"{numbers[0]} {sent.content_type}")
    return await single_part(request, target.store, pieces, headers, etag)


async def retrieve_pixel_data(request: Request) -> Response:
    """Answer with every frame of a study, a series or one instance."""
    target = await target_of(request)
    listed = [
        await _negotiated(
            request,
            target,
            one,
            one.stored.frames,
            range(1, one.stored.frames.number_of_frames + 1),
            multipart=True,
        )
        for one in await find(request, target, headers=True)
        if one.stored.frames is not None
    ]
    if not listed:
        raise NotFound("there is no pixel data whose frames can be told apart")
    return await _multipart(request, target.store, listed)


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


async def _negotiated(
    request: Request,
    target: Target,
    one: FoundInstance,
    frames: Frames,
    numbers: Sequence[int],
    *,
    multipart: bool = False,
) -> _Frames:
    """Return the frames in the form that is accepted. Raises NotAcceptable."""
    stored, header = one.stored, orjson.loads(one.header)
    native_first = await asyncio.to_thread(
        _drawn_differently, target.store, stored, frames, header, numbers
    )
    single = len(numbers) == 1 and not multipart
    offers = _frame_offers(stored, native_first=native_first, single=single)
    chosen = choose(accepted_by(request), offers)
    return _Frames(instance_path(target, one), stored, frames, header, numbers, chosen)


async def _multipart(request: Request, store: Store, listed: Sequence[_Frames]) -> Response:
    types = {one.offer.media_type for one in listed}
    kind = types.pop() if len(types) == 1 else OCTET_STREAM
    if all(one.as_stored for one in listed):
        parts = [
            (one.part_headers(number), frame_pieces(one.stored, one.frames, number))
            for one in listed
            for number in one.numbers
        ]
        return await multipart_answer(store, kind, parts)
    boundary = new_boundary()

    async def chunks() -> AsyncIterator[bytes]:
        first = True
        for one in listed:
            for number in one.numbers:
                head = part_header(boundary, one.part_headers(number), first=first)
                first = False
                if one.as_stored:
                    pieces = [head, *frame_pieces(one.stored, one.frames, number)]
                    async for chunk in stream_pieces(store, pieces):
                        yield chunk
                else:
                    yield head + await _transcoded(request, store, one, number)
        yield closing(boundary)

    headers = {**IDENTITY, "Content-Type": content_type(kind, boundary)}
    return StreamingResponse(await opened(chunks()), headers=headers)


async def _transcoded(request: Request, store: Store, one: _Frames, number: int) -> bytes:
    """Return a frame in another encoding than it is stored in.

    Raises NotAcceptable when it cannot be decoded, or not be held: it can only be had as stored.
    """
    pool: PixelPool = request.app.state.pixels
    try:
        return await pool.run(
            transcode_frame,
            await read_frame(store, one.stored, number),
            frame_attributes(one.header),
            one.stored.transfer_syntax_uid,
            number,
            store.settings.rendered_max_pixels,
            one.frames.vr,
            str(one.offer.transfer_syntax_uid),
        )
    except Invalid as error:
        raise NotAcceptable(f"frame {number} cannot be sent so: {error.message}") from error


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
    """Return how frames can be sent: as stored, under both names, as native pixels, compressed.

    Who takes any transfer syntax gets the first.
    """
    syntax = stored.transfer_syntax_uid
    is_native = syntax in NATIVE_TRANSFER_SYNTAXES
    offers: list[Offer] = []
    for multipart in (True, False) if single else (True,):
        native = [Offer(OCTET_STREAM, multipart, EXPLICIT_VR_LITTLE_ENDIAN)]
        encapsulated = (
            []
            if is_native
            else [
                Offer(OCTET_STREAM, multipart, syntax),
                Offer(frame_media_type(syntax), multipart, syntax),
            ]
        )
        offers += native + encapsulated if native_first else encapsulated + native
        if is_native or can_decode(syntax):
            offers += [
                Offer(frame_media_type(uid), multipart, uid) for uid in ENCODERS if uid != syntax
            ]
    return offers
