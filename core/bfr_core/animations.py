"""Animations: the drawn frames of an instance as one moving picture (PS3.18 §8.7.4)."""

import io
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from bfr_core.codestreams import Samples
from bfr_core.errors import Invalid
from bfr_core.json_model import first_value

GIF, MP4 = "image/gif", "video/mp4"
FRAME_TIME, CINE_RATE, DISPLAY_RATE = "00181063", "00180040", "00082144"
DEFAULT_MS = 100.0
BITS_OF_QUALITY = 23  # of x264, where 0 is without loss and 51 the worst


@cache
def media_types() -> tuple[str, ...]:
    """Return the forms that this installation can make."""
    # Not imported before it is needed: a server that makes no video has no use for the codecs.
    return (GIF, MP4) if find_spec("av") else (GIF,)


def frame_time_ms(dataset: Mapping[str, Any]) -> float:
    """Return how long a frame is shown (PS3.3 §C.7.6.5, §C.7.6.15)."""
    for tag, of in ((FRAME_TIME, 1.0), (DISPLAY_RATE, -1000.0), (CINE_RATE, -1000.0)):
        try:
            value = float(first_value(dataset, tag) or 0)
        except (TypeError, ValueError):
            continue
        if value > 0:
            return min(max(value if of > 0 else -of / value, 10.0), 10_000.0)
    return DEFAULT_MS


def animate(pictures: Sequence[Samples], media_type: str, time_ms: float) -> bytes:
    """Return pictures of one size as an animated GIF that repeats, or as H.264 in MP4.

    Raises Invalid when the form is not made here.
    """
    if media_type == GIF:
        return _gif(pictures, time_ms)
    if media_type == MP4 and MP4 in media_types():
        return _mp4(pictures, time_ms)
    raise Invalid(f"{media_type} is not made here")


def _gif(pictures: Sequence[Samples], time_ms: float) -> bytes:
    from PIL import Image

    frames = [Image.fromarray(one) for one in pictures]
    file = io.BytesIO()
    # Not optimised: frames that are alike would become one.
    options = {"append_images": frames[1:], "save_all": True, "loop": 0, "optimize": False}
    frames[0].save(file, "GIF", duration=round(time_ms), disposal=1, **options)
    return file.getvalue()


def _mp4(pictures: Sequence[Samples], time_ms: float) -> bytes:
    import av

    rows, columns = pictures[0].shape[:2]
    height, width = rows + rows % 2, columns + columns % 2  # colour is sampled in pairs
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        rate = Fraction(1000, max(round(time_ms), 1))
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(BITS_OF_QUALITY)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for one in pictures:
            padding = [(0, height - rows), (0, width - columns), (0, 0)]
            picture = np.pad(one, padding[: one.ndim], mode="edge")
            kind = "gray" if one.ndim == 2 else "rgb24"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=kind)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()
