"""Rendered resources: pictures, documents and moving pictures (PS3.18 §10.4.1.1.3, §8.7.4)."""

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from bfr_core.animations import animate, frame_time_ms, media_types
from bfr_core.bulk_data import read_bulk_data
from bfr_core.errors import Invalid
from bfr_core.instances import Dataset
from bfr_core.json_model import first_value
from bfr_core.manifest import Frames, StoredInstance
from bfr_core.pixels import PixelPool, Region, draw_frame, frame_attributes, render_frame
from bfr_core.retrieval import FoundInstance
from bfr_core.store import Store
from bfr_core.structured_reports import LANGUAGES, as_html, as_text, is_structured_report
from bfr_dicomweb.media_types import NotAcceptable, Offer, choose
from bfr_dicomweb.multipart import closing, content_type, new_boundary, part_header
from bfr_dicomweb.resources import Target, accepted_by, opened, target_of
from bfr_dicomweb.wado import DOOR, find, instance_path
from bfr_dicomweb.wado_frames import frame_numbers, read_frame

PICTURES = ("image/jpeg", "image/png")
HTML, TEXT = "text/html", "text/plain"
DOCUMENT, DOCUMENT_TYPE, DOCUMENT_LENGTH = "00420011", "00420012", "00420015"
# Documents that are sent as they are; anything else a browser might run.
DOCUMENT_TYPES = frozenset({"application/pdf", "text/xml"})
VIEWPORT_MAX_PIXELS = 8192
WINDOW_FUNCTIONS = frozenset({"linear", "linear-exact", "sigmoid"})
HEADERS = {"Cache-Control": "no-store", "Vary": "Accept"}
NO_SCRIPTS = "default-src 'none'; style-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True)
class Rendering:
    """How the picture is to look (PS3.18 §8.3.5)."""

    viewport: tuple[int, int] | None
    window: tuple[float, float, str] | None
    quality: int
    region: Region | None = None


@dataclass(frozen=True, slots=True)
class _Drawing:
    """An instance, and how its frames are to look."""

    request: Request
    store: Store
    path: str
    stored: StoredInstance
    frames: Frames
    text: bytes  # of the header, which is read for those that are drawn
    rendering: Rendering

    async def encoded(self, number: int, media_type: str) -> bytes:
        """Return a frame as a JPEG or PNG. Raises NotAcceptable when it makes no picture."""
        how, settings = self.rendering, self.store.settings
        try:
            frame, attributes = await self._frame(number)
            return await self._pool.run(
                render_frame,
                frame,
                attributes,
                self.stored.transfer_syntax_uid,
                number,
                how.window,
                how.viewport,
                how.quality,
                media_type,
                settings.rendered_max_pixels,
                self.frames.vr,
                how.region,
            )
        except Invalid as error:
            raise self._refused(number, error) from error

    async def animated(self, numbers: Sequence[int], media_type: str) -> bytes:
        """Return frames as one moving picture. Raises NotAcceptable."""
        how, settings = self.rendering, self.store.settings
        if len(numbers) > settings.animation_max_frames:
            raise NotAcceptable(
                f"an animation has at most {settings.animation_max_frames} frames: name some"
            )
        pictures: list[Any] = []
        pixels = 0
        for number in numbers:
            try:
                frame, attributes = await self._frame(number)
                drawn = await self._pool.run(
                    draw_frame,
                    frame,
                    attributes,
                    self.stored.transfer_syntax_uid,
                    number,
                    how.window,
                    how.viewport,
                    settings.rendered_max_pixels,
                    self.frames.vr,
                    how.region,
                )
            except Invalid as error:
                raise self._refused(number, error) from error
            pictures.append(drawn)
            pixels += drawn.size
            if pixels > settings.rendered_max_pixels:
                raise NotAcceptable("the animation would be too large: ask for a smaller viewport")
        time_ms = frame_time_ms(orjson.loads(self.text))
        return await self._pool.run(animate, pictures, media_type, time_ms)

    @property
    def _pool(self) -> PixelPool:
        pool: PixelPool = self.request.app.state.pixels
        return pool

    async def _frame(self, number: int) -> tuple[bytes, Dataset]:
        attributes = await asyncio.to_thread(
            frame_attributes,
            orjson.loads(self.text),
            number,
            lambda uri: read_bulk_data(self.store, self.stored, uri.removeprefix("bulkdata/")),
        )
        return await read_frame(self.store, self.stored, number), attributes

    def _refused(self, number: int, error: Invalid) -> NotAcceptable:
        # The parameters were checked: it is the stored object that makes no picture, or the region
        # that is not within it.
        return NotAcceptable(f"frame {number} cannot be rendered: {error.message}")


async def retrieve_rendered(request: Request, door: str = DOOR) -> Response:
    """Answer with a study, a series, an instance or frames in a form for people.

    An image is a JPEG or PNG of its first frame or of the frame asked for, or an animation of all;
    a report is HTML or text, a document what it holds. Several pictures are parts.
    """
    target = await target_of(request)
    rendering = read_rendering(request)
    found = await find(request, target, headers=True, door=door)
    if "instance" not in request.path_params:
        chosen = choose(accepted_by(request), [Offer(one, multipart=True) for one in PICTURES])
        images = _drawings(request, target, found, rendering)
        if not images:
            raise NotAcceptable("there are no pixels that could be rendered")
        listed = [
            (one, number) for one in images for number in range(1, one.frames.number_of_frames + 1)
        ]
        return await _parts(listed, chosen.media_type)
    drawings = _drawings(request, target, found, rendering)
    if not drawings:
        if "frames" in request.path_params:
            raise NotAcceptable("the instance has no pixels that could be rendered")
        return await _document(request, target, found[0])
    return await _image(request, drawings[0])


async def retrieve_thumbnail(request: Request) -> Response:
    """Answer with a small picture that stands for a study, a series, an instance or a frame."""
    target = await target_of(request)
    media_type = choose(accepted_by(request), [Offer(one) for one in PICTURES]).media_type
    rendering = read_rendering(request)
    if rendering.viewport is None:
        side = target.store.settings.thumbnail_pixels
        rendering = replace(rendering, viewport=(side, side))
    found = await find(request, target, headers=True)
    drawings = _drawings(request, target, found, rendering)
    if not drawings:
        raise NotAcceptable("there are no pixels that could be rendered")
    # The one in the middle shows most: of the first series, where there are several.
    series = drawings[0].path.rpartition("/instances/")[0]
    of_series = [one for one in drawings if one.path.startswith(series + "/")]
    one = of_series[len(of_series) // 2]
    number = one.frames.number_of_frames // 2 + 1
    if "frames" in request.path_params:
        number = frame_numbers(request.path_params["frames"], one.frames)[0]
    picture = await one.encoded(number, media_type)
    return Response(picture, headers=HEADERS, media_type=media_type)


async def _image(request: Request, drawing: _Drawing) -> Response:
    frames = drawing.frames
    named = request.path_params.get("frames")
    numbers = list(range(1, frames.number_of_frames + 1))
    if named is not None:
        numbers = frame_numbers(named, frames)
    moving = media_types() if len(numbers) > 1 else media_types()[:1]
    alone = named is None or len(numbers) == 1
    offers = [
        *(Offer(one) for one in PICTURES if alone),
        *(Offer(one) for one in moving),
        *(Offer(one, multipart=True) for one in PICTURES),
    ]
    chosen = choose(accepted_by(request), offers)
    if chosen.multipart:
        return await _parts([(drawing, number) for number in numbers], chosen.media_type)
    if chosen.media_type in PICTURES:
        picture = await drawing.encoded(numbers[0], chosen.media_type)
    else:
        picture = await drawing.animated(numbers, chosen.media_type)
    return Response(picture, headers=HEADERS, media_type=chosen.media_type)


async def _parts(listed: Sequence[tuple[_Drawing, int]], media_type: str) -> Response:
    boundary = new_boundary()

    async def chunks() -> AsyncIterator[bytes]:
        for place, (drawing, number) in enumerate(listed):
            headers = {
                "Content-Type": media_type,
                "Content-Location": f"{drawing.path}/frames/{number}/rendered",
            }
            head = part_header(boundary, headers, first=place == 0)
            yield head + await drawing.encoded(number, media_type)
        yield closing(boundary)

    headers = {**HEADERS, "Content-Type": content_type(media_type, boundary)}
    return StreamingResponse(await opened(chunks()), headers=headers)


async def _document(request: Request, target: Target, one: FoundInstance) -> Response:
    header = orjson.loads(one.header)
    if DOCUMENT in header:
        kind = str(first_value(header, DOCUMENT_TYPE) or "").lower()
        if kind not in DOCUMENT_TYPES:
            raise NotAcceptable(f"a document of type {kind[:64]!r} is not rendered")
        choose(accepted_by(request), [Offer(kind)])
        body = await asyncio.to_thread(_document_of, target.store, one.stored, header)
        return Response(body, headers=HEADERS, media_type=kind)
    if not is_structured_report(header):
        raise NotAcceptable("the instance has neither pixels nor a document to be rendered")
    kind = choose(accepted_by(request), [Offer(HTML), Offer(TEXT)]).media_type
    language = _language(request)
    text = as_html(header, language) if kind == HTML else as_text(header, language)
    headers = {
        **HEADERS,
        "Content-Language": language,
        "Content-Security-Policy": NO_SCRIPTS,
        "Vary": "Accept, Accept-Language",
    }
    return Response(text.encode(), headers=headers, media_type=kind)


def _language(request: Request) -> str:
    """Return the first language of ours that is asked for; Swedish when none is."""
    asked = request.headers.get("accept-language", "").lower().split(",")
    return next((one.strip()[:2] for one in asked if one.strip()[:2] in LANGUAGES), LANGUAGES[0])


def _document_of(store: Store, stored: StoredInstance, header: Dataset) -> bytes:
    element = header[DOCUMENT]
    if "BulkDataURI" in element:
        path = str(element["BulkDataURI"]).removeprefix("bulkdata/")
        document = read_bulk_data(store, stored, path)
    else:
        document = base64.b64decode(element.get("InlineBinary", ""))
    length = first_value(header, DOCUMENT_LENGTH)  # without the byte that makes it even
    return document[:length] if isinstance(length, int) else document


def _drawings(
    request: Request, target: Target, found: Sequence[FoundInstance], rendering: Rendering
) -> list[_Drawing]:
    return [
        _Drawing(
            request,
            target.store,
            instance_path(target, one),
            one.stored,
            one.stored.frames,
            one.header,
            rendering,
        )
        for one in found
        if one.stored.frames is not None
    ]


def read_rendering(request: Request) -> Rendering:
    """Return the rendering parameters of the query. Raises Invalid naming the parameter."""
    viewport = window = region = None
    quality = 90
    for name, value in request.query_params.multi_items():
        parts = value.split(",")
        if name == "viewport":
            if len(parts) not in (2, 6):
                raise Invalid("viewport is width,height or width,height,x,y,width,height")
            viewport = (_size("viewport", parts[0]), _size("viewport", parts[1]))
            if len(parts) == 6:
                region = _region(parts[2:])
        elif name == "window":
            if len(parts) != 3 or parts[2] not in WINDOW_FUNCTIONS:
                raise Invalid("window is center,width and linear, linear-exact or sigmoid")
            window = (_number(parts[0]), _number(parts[1]), parts[2])
            if window[1] < (1 if parts[2] == "linear" else 1e-9):
                raise Invalid("window: the width is too small")
        elif name == "quality":
            quality = _size("quality", value)
            if quality > 100:
                raise Invalid("quality is a whole number from 1 to 100")
        elif name == "iccprofile":
            if value != "no":
                raise Invalid("iccprofile is no here: pictures have no colour profile")
        elif name != "accept":
            raise Invalid(f"{name!r} is no parameter of rendered resources here")
    return Rendering(viewport, window, quality, region)


def _region(parts: Sequence[str]) -> Region:
    """Return what is shown of the picture: x, y, width, height; negative sizes mirror it."""
    numbers = []
    for text in parts:
        digits = text.removeprefix("-")
        if not digits.isascii() or not digits.isdigit() or len(digits) > 6:
            raise Invalid(f"viewport: {text!r} is no whole number of pixels")
        numbers.append(int(text))
    left, top, width, height = numbers
    if left < 0 or top < 0 or not width or not height:
        raise Invalid("viewport: the region begins within the picture and has a size")
    return left, top, width, height


def _size(name: str, text: str) -> int:
    digits = text.isascii() and text.isdigit() and len(text) <= 9
    if not digits or not 1 <= int(text) <= VIEWPORT_MAX_PIXELS:
        raise Invalid(f"{name}: {text!r} is no whole number from 1 to {VIEWPORT_MAX_PIXELS}")
    return int(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise Invalid(f"window: {text!r} is no number") from None
    if not -1e12 < value < 1e12:
        raise Invalid(f"window: {text!r} is out of range")
    return value
