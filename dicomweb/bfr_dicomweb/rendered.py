"""Rendered resources: an instance or a frame as a picture (PS3.18 §10.4.1.1.3)."""

import asyncio
from dataclasses import dataclass

import orjson
from starlette.requests import Request
from starlette.responses import Response

from bfr_core.bulk_data import read_bulk_data
from bfr_core.errors import Invalid
from bfr_core.pixels import PixelPool, frame_attributes, render_frame
from bfr_core.retrieval import retrieve_instances
from bfr_dicomweb.media_types import NotAcceptable, Offer, choose
from bfr_dicomweb.resources import accepted_by, target_of
from bfr_dicomweb.wado import DOOR
from bfr_dicomweb.wado_frames import frame_numbers, read_frame

OFFERS = (Offer("image/jpeg"), Offer("image/png"))
VIEWPORT_MAX_PIXELS = 8192
WINDOW_FUNCTIONS = frozenset({"linear", "linear-exact", "sigmoid"})


@dataclass(frozen=True, slots=True)
class Rendering:
    """How the picture is to look (PS3.18 §8.3.5)."""

    viewport: tuple[int, int] | None
    window: tuple[float, float, str] | None
    quality: int


async def retrieve_rendered(request: Request, door: str = DOOR) -> Response:
    """Answer with the first frame of an instance, or the frame asked for, as JPEG or PNG."""
    target = await target_of(request)
    media_type = choose(accepted_by(request), OFFERS).media_type
    rendering = read_rendering(request)
    path = request.path_params
    found = await retrieve_instances(
        target.store,
        target.access,
        door,
        archive_id=target.archive_id,
        study_instance_uid=path["study"],
        series_instance_uid=path["series"],
        sop_instance_uid=path["instance"],
        headers=True,
    )
    stored = found[0].stored
    if stored.frames is None:
        raise NotAcceptable("the instance has no pixels that could be rendered")
    numbers = frame_numbers(path.get("frames", "1"), stored.frames)
    if len(numbers) > 1:
        raise Invalid("one frame at a time can be rendered")
    pool: PixelPool = request.app.state.pixels
    try:
        attributes = await asyncio.to_thread(
            frame_attributes,
            orjson.loads(found[0].header),
            numbers[0],
            lambda uri: read_bulk_data(target.store, stored, uri.removeprefix("bulkdata/")),
        )
        picture = await pool.run(
            render_frame,
            await read_frame(target.store, stored, numbers[0]),
            attributes,
            stored.transfer_syntax_uid,
            numbers[0],
            rendering.window,
            rendering.viewport,
            rendering.quality,
            media_type,
            target.store.settings.rendered_max_pixels,
            stored.frames.vr,
        )
    except Invalid as error:
        # The parameters were checked: it is the stored object that makes no picture.
        raise NotAcceptable(f"the frame cannot be rendered: {error.message}") from error
    return Response(
        picture, headers={"Cache-Control": "no-store", "Vary": "Accept"}, media_type=media_type
    )


def read_rendering(request: Request) -> Rendering:
    """Return the rendering parameters of the query. Raises Invalid naming the parameter."""
    viewport = window = None
    quality = 90
    for name, value in request.query_params.multi_items():
        parts = value.split(",")
        if name == "viewport":
            # The source region (§8.3.5.1.3) is not offered: only the size of the picture.
            if len(parts) != 2:
                raise Invalid("viewport is width,height")
            viewport = (_size("viewport", parts[0]), _size("viewport", parts[1]))
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
        elif name != "accept":
            raise Invalid(f"{name!r} is no parameter of rendered resources here")
    return Rendering(viewport, window, quality)


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
