"""Pixels: a frame as a picture on a screen (PS3.3 §C.11, PS3.4 §N.2, PS3.18 §8.3.5).

With the names it passes on, all that other packages need of the pixels of one frame.
"""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from bfr_core.codestreams import (
    CODESTREAM_START_BYTES,
    Samples,
    decoded_photometric_interpretation,
    sign_contradicts,
)
from bfr_core.errors import Invalid
from bfr_core.frames import ImagePixel, first_value, image_pixel
from bfr_core.lookup_tables import palette_tables, sequence_table
from bfr_core.pixel_pool import PixelPool
from bfr_core.resampling import resized
from bfr_core.samples import PIXELS_MAX, decode_frame, native_frame

__all__ = [
    "CODESTREAM_START_BYTES",
    "PIXELS_MAX",
    "PixelPool",
    "decode_frame",
    "decoded_photometric_interpretation",
    "draw_frame",
    "frame_attributes",
    "native_frame",
    "render_frame",
    "sign_contradicts",
]

Grey = npt.NDArray[np.floating[Any]]
Window = tuple[float, float, str]  # centre, width, function as in PS3.18 §8.3.5.1.4

Region = tuple[int, int, int, int]  # left, top, width, height, in pixels of the frame

_SHARED_FUNCTIONAL_GROUPS = "52009229"
_PER_FRAME_FUNCTIONAL_GROUPS = "52009230"
_FRAME_VOI_LUT = "00289132"
_PIXEL_VALUE_TRANSFORMATION = "00289145"
_PIXEL_MEASURES = "00289110"
_MODALITY_LUT = "00283000"
_VOI_LUT = "00283010"
_LUT_DATA = "00283006"
_PIXEL_SPACING = "00280030"
_FUNCTIONAL_GROUPS = {
    _FRAME_VOI_LUT: ("00281050", "00281051", "00281056"),
    _PIXEL_VALUE_TRANSFORMATION: ("00281052", "00281053"),
    _PIXEL_MEASURES: (_PIXEL_SPACING,),
}
_SPACINGS = (_PIXEL_SPACING, "00181164", "00182010", "00280034")
_PALETTES = tuple(f"002812{kind}{colour}" for kind in (0, 2) for colour in (1, 2, 3))
_IMAGE_ATTRIBUTES = (
    *(f"0028{element}" for element in ("0002", "0004", "0006", "0008", "0010", "0011")),
    *(f"0028{element}" for element in ("0100", "0101", "0102", "0103", "0120", "0121")),
    *(f"0028{element}" for element in ("1050", "1051", "1052", "1053", "1056")),
    *(f"0028{element}" for element in ("1101", "1102", "1103")),
    *_PALETTES,
    *_SPACINGS,
    _MODALITY_LUT,
    _VOI_LUT,
    "20500020",
    "7FE00008",
    "7FE00009",
    "7FE00010",
)


def frame_attributes(
    dataset: Mapping[str, Any],
    frame_number: int = 1,
    read_bulk: Callable[[str], bytes] | None = None,
) -> dict[str, Any]:
    """Return what decoding and rendering one frame need, as a small flat DICOM JSON object.

    The functional groups of the frame stand in it as attributes of their own (PS3.3 §C.7.6.16).
    `read_bulk` is given the BulkDataURI of lookup tables that are kept as bulk data, and returns
    their little endian bytes; without it such a table stays unread, and rendering with it fails.
    """
    attributes = {tag: dataset[tag] for tag in _IMAGE_ATTRIBUTES if tag in dataset}
    shared = _item(dataset, _SHARED_FUNCTIONAL_GROUPS, 1)
    of_frame = _item(dataset, _PER_FRAME_FUNCTIONAL_GROUPS, frame_number)
    for sequence, tags in _FUNCTIONAL_GROUPS.items():
        group = _item(of_frame, sequence, 1) or _item(shared, sequence, 1)
        attributes.update({tag: group[tag] for tag in tags if tag in group})
    if read_bulk is None:
        return attributes
    for tag in _PALETTES:
        if tag in attributes:
            attributes[tag] = _read_in(attributes[tag], read_bulk)
    for sequence in (_MODALITY_LUT, _VOI_LUT):
        item = _item(attributes, sequence, 1)
        if _LUT_DATA in item:
            read = {**item, _LUT_DATA: _read_in(item[_LUT_DATA], read_bulk)}
            attributes[sequence] = {"vr": "SQ", "Value": [read]}
    return attributes


def render_frame(
    frame: bytes,
    dataset: Mapping[str, Any],
    transfer_syntax_uid: str,
    frame_number: int = 1,
    window: Window | None = None,
    viewport: tuple[int, int] | None = None,
    quality: int = 90,
    media_type: str = "image/jpeg",
    max_pixels: int = PIXELS_MAX,
    vr: str = "OW",
    region: Region | None = None,
) -> bytes:
    """Return a frame as a JPEG or PNG of 8 bits, as `draw_frame` draws it. Raises Invalid."""
    if media_type not in ("image/jpeg", "image/png"):
        raise Invalid(f"A frame is not rendered as {media_type}.")
    if not 1 <= quality <= 100:
        raise Invalid("The quality of a rendered frame is between 1 and 100.")
    picture = draw_frame(
        frame,
        dataset,
        transfer_syntax_uid,
        frame_number,
        window,
        viewport,
        max_pixels,
        vr,
        region,
    )
    if media_type == "image/png":
        return bytes(imagecodecs.png_encode(picture, level=3))
    return bytes(imagecodecs.jpeg8_encode(picture, level=quality))


def draw_frame(
    frame: bytes,
    dataset: Mapping[str, Any],
    transfer_syntax_uid: str,
    frame_number: int = 1,
    window: Window | None = None,
    viewport: tuple[int, int] | None = None,
    max_pixels: int = PIXELS_MAX,
    vr: str = "OW",
    region: Region | None = None,
) -> Samples:
    """Return a frame as a picture of 8 bits, (rows, columns) or RGB, its pixels square.

    Grey values pass the modality and VOI transforms; `window` (centre, width, and "linear",
    "linear-exact" or "sigmoid") goes before the windows and tables of the object, and means nothing
    to colour. Without any, the least and greatest value of the frame are black and white; Pixel
    Padding Value is left out. `region` is what is shown of the frame: left, top, width and height
    in its pixels, a negative width or height for a mirror image. `viewport` is the width and height
    of a box that the picture is scaled into, up or down. Graphic overlays and colour profiles are
    not applied.

    Raises Invalid when the frame cannot be decoded, its attributes contradict themselves, a
    parameter is out of range, or the picture would have more than `max_pixels` pixels.
    """
    attributes = frame_attributes(dataset, frame_number)
    image = image_pixel(attributes)
    columns, rows, across, down = _source(image, region)
    shown = columns.stop - columns.start, rows.stop - rows.start
    width, height = _picture_size(shown, attributes, viewport, max_pixels)
    samples = decode_frame(frame, attributes, transfer_syntax_uid, frame_number, max_pixels, vr)
    if image.samples_per_pixel == 3:
        picture = _colour(samples, image, transfer_syntax_uid)
    elif image.photometric_interpretation == "PALETTE COLOR":
        picture = _palette_colour(samples, image, attributes)
    else:
        picture = _grey(samples, image, attributes, window)
    if region is not None:
        picture = np.ascontiguousarray(picture[rows, columns][::down, ::across])
    return np.ascontiguousarray(resized(picture, width, height))


def _source(image: ImagePixel, region: Region | None) -> tuple[slice, slice, int, int]:
    """Return the columns and the rows that are shown, and the steps in which they are read."""
    if region is None:
        return slice(0, image.columns), slice(0, image.rows), 1, 1
    left, top, width, height = region
    columns = slice(left, left + abs(width))
    rows = slice(top, top + abs(height))
    if left < 0 or top < 0 or not width or not height:
        raise Invalid("A region begins within the picture and has a width and a height.")
    if columns.stop > image.columns or rows.stop > image.rows:
        raise Invalid(f"The region is not within {image.columns} × {image.rows} pixels.")
    return columns, rows, -1 if width < 0 else 1, -1 if height < 0 else 1


def _item(dataset: Mapping[str, Any], sequence: str, number: int) -> Mapping[str, Any]:
    """Return an item of a sequence by its number, empty when there is none."""
    element = dataset.get(sequence)
    items = element.get("Value") if isinstance(element, Mapping) else None
    if not isinstance(items, Sequence) or not 0 < number <= len(items):
        return {}
    item = items[number - 1]
    return item if isinstance(item, Mapping) else {}


def _read_in(element: Mapping[str, Any], read_bulk: Callable[[str], bytes]) -> Mapping[str, Any]:
    uri = element.get("BulkDataURI")
    if not isinstance(uri, str):
        return element
    return {"vr": "OW", "InlineBinary": base64.b64encode(read_bulk(uri)).decode("ascii")}


def _number(attributes: Mapping[str, Any], tag: str) -> float | None:
    """Return the first number of an attribute, None when it has none.

    Raises Invalid when it is no finite number.
    """
    value = first_value(attributes, tag)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise Invalid(f"Attribute ({tag[:4]},{tag[4:]}) is not a number.") from error
    if not math.isfinite(number):
        raise Invalid(f"Attribute ({tag[:4]},{tag[4:]}) is not a finite number.")
    return number


def _picture_size(
    shown: tuple[int, int],
    attributes: Mapping[str, Any],
    viewport: tuple[int, int] | None,
    max_pixels: int,
) -> tuple[int, int]:
    """Return width and height of a picture of so many pixels, made square (PS3.3 §C.7.6.3.1.7)."""
    width, height = float(shown[0]), float(shown[1])
    ratio = _pixel_height_to_width(attributes)
    if ratio > 1:
        height *= ratio
    else:
        width /= ratio
    if viewport is not None:
        box_width, box_height = viewport
        if box_width < 1 or box_height < 1 or box_width * box_height > max_pixels:
            raise Invalid(f"A viewport has between 1 and {max_pixels} pixels.")
        scale = min(box_width / width, box_height / height)
        width, height = min(width * scale, box_width), min(height * scale, box_height)
    size = max(1, round(width)), max(1, round(height))
    if size[0] * size[1] > max_pixels:
        raise Invalid(f"The picture would have more than {max_pixels} pixels.")
    return size


def _pixel_height_to_width(attributes: Mapping[str, Any]) -> float:
    """Return how many times as high as wide a pixel is; 1 when the object does not say."""
    for tag in _SPACINGS:
        element = attributes.get(tag)
        values = element.get("Value") if isinstance(element, Mapping) else None
        if not isinstance(values, Sequence) or len(values) != 2:
            continue
        try:
            height, width = float(values[0]), float(values[1])
        except (TypeError, ValueError, OverflowError) as error:
            raise Invalid(f"Attribute ({tag[:4]},{tag[4:]}) is not of numbers.") from error
        ratio = height / width if width > 0 else 0.0
        # Zeros are sent for "not known". Spacings that differ by rounding are square.
        if 0 < ratio < math.inf:
            return 1.0 if abs(ratio - 1) < 1e-3 else ratio
    return 1.0


def _colour(samples: Samples, image: ImagePixel, transfer_syntax_uid: str) -> Samples:
    """Return RGB of 8 bits."""
    photometric_interpretation = decoded_photometric_interpretation(image, transfer_syntax_uid)
    if photometric_interpretation not in ("RGB", "YBR_FULL"):
        raise Invalid(f"Photometric Interpretation {photometric_interpretation} is not rendered.")
    if image.floating or image.signed:
        raise Invalid("Colour samples are neither signed nor floating point.")
    if samples.dtype != np.uint8:
        scale = 255 / ((1 << image.bits_stored) - 1)
        samples = np.rint(samples * scale).clip(0, 255).astype(np.uint8)
    if photometric_interpretation == "RGB":
        return samples
    luminance = samples[:, :, 0].astype(np.float32)
    blue = samples[:, :, 1].astype(np.float32) - 128
    red = samples[:, :, 2].astype(np.float32) - 128
    # PS3.3 §C.7.6.3.1.2, YBR_FULL: ITU-R BT.601 over the full range.
    rgb = np.stack(
        (
            luminance + 1.402 * red,
            luminance - 0.344136 * blue - 0.714136 * red,
            luminance + 1.772 * blue,
        ),
        axis=2,
    )
    colour: Samples = np.rint(rgb).clip(0, 255).astype(np.uint8)
    return colour


def _palette_colour(samples: Samples, image: ImagePixel, attributes: Mapping[str, Any]) -> Samples:
    """Return RGB of 8 bits (PS3.3 §C.7.6.3.1.5)."""
    tables = palette_tables(attributes, signed=image.signed)
    channels = []
    for table in tables:
        shift = max(max(table.bits for table in tables) - 8, 0)
        channels.append((table.look_up(samples) >> shift).astype(np.uint8))
    return np.stack(channels, axis=2)


def _grey(
    samples: Samples, image: ImagePixel, attributes: Mapping[str, Any], window: Window | None
) -> Samples:
    """Return grey of 8 bits, black for 0.

    Samples of up to 16 bits pass the transforms as a table of the values between their least and
    greatest, which is much shorter than the frame.
    """
    least = 0
    if samples.dtype.kind in "iu" and samples.dtype.itemsize <= 2:
        least = int(samples.min())
        stored: Grey = np.arange(least, int(samples.max()) + 1, dtype=np.float64)
        present = np.zeros(stored.shape, np.bool_)
        indices = np.subtract(samples, least, dtype=np.int32)
        present[indices] = True
    else:
        stored, indices = samples.astype(np.float64), None
        present = np.isfinite(stored)
    present &= ~_padding(stored, image, attributes)
    shade = _shade(_modality_values(stored, image, attributes), present, image, attributes, window)
    inverse = first_value(attributes, "20500020") == "INVERSE"
    if inverse or image.photometric_interpretation == "MONOCHROME1":
        shade = 1 - shade
    grey: Samples = np.rint(np.nan_to_num(shade) * 255).clip(0, 255).astype(np.uint8)
    return grey if indices is None else grey[indices]


def _padding(
    stored: Grey, image: ImagePixel, attributes: Mapping[str, Any]
) -> npt.NDArray[np.bool_]:
    """Return which stored values are padding (PS3.3 §C.7.5.1.1.2)."""
    value = _number(attributes, "00280120")
    if value is None:
        return np.zeros(stored.shape, np.bool_)
    limit = _number(attributes, "00280121")
    bounds = []
    for bound in (value, value if limit is None else limit):
        negative = image.signed and bound >= 1 << (image.bits_allocated - 1)
        bounds.append(bound - (1 << image.bits_allocated) if negative else bound)
    return (stored >= min(bounds)) & (stored <= max(bounds))


def _modality_values(stored: Grey, image: ImagePixel, attributes: Mapping[str, Any]) -> Grey:
    """Return what the stored values mean (PS3.3 §C.11.1)."""
    item = _item(attributes, _MODALITY_LUT, 1)
    if item:
        table = sequence_table(item, "modality lookup table", signed=image.signed)
        return table.look_up(stored).astype(np.float64)
    slope = _number(attributes, "00281053")
    intercept = _number(attributes, "00281052")
    # A slope of 0 would make one value of all; it is sent by mistake.
    return stored * (slope or 1.0) + (intercept or 0.0)


def _shade(
    values: Grey,
    present: npt.NDArray[np.bool_],
    image: ImagePixel,
    attributes: Mapping[str, Any],
    window: Window | None,
) -> Grey:
    """Return how light each modality value is, from 0 to 1 (PS3.3 §C.11.2)."""
    if window is not None:
        return _windowed(values, _checked_window(window))
    window = _first_window(attributes)
    if window is not None:
        return _windowed(values, window)
    item = _item(attributes, _VOI_LUT, 1)
    if item:
        signed = image.signed or (_number(attributes, "00281052") or 0) < 0
        table = sequence_table(item, "VOI lookup table", signed=signed)
        return table.look_up(values).astype(np.float64) / ((1 << table.bits) - 1)
    shown = values[present]
    if not shown.size:
        return np.zeros(values.shape)
    least, greatest = float(shown.min()), float(shown.max())
    span = greatest - least
    if not 0 < span < math.inf:
        return np.zeros(values.shape)
    return ((values - least) / span).clip(0, 1)


def _checked_window(window: Window) -> Window:
    centre, width, function = window
    function = function.lower().replace("_", "-")
    if function not in ("linear", "linear-exact", "sigmoid"):
        raise Invalid(f"A window is linear, linear-exact or sigmoid, not {function}.")
    least = 1 if function == "linear" else 0
    if not (math.isfinite(centre) and math.isfinite(width) and width >= least and width > 0):
        raise Invalid("The centre or width of the window is out of range.")
    return centre, width, function


def _first_window(attributes: Mapping[str, Any]) -> Window | None:
    """Return the first window of the object, None when it has none that can be used."""
    centre = _number(attributes, "00281050")
    width = _number(attributes, "00281051")
    if centre is None or width is None or width <= 0:
        return None
    function = str(first_value(attributes, "00281056") or "LINEAR").lower().replace("_", "-")
    if function not in ("linear", "linear-exact", "sigmoid"):
        function = "linear"
    # LINEAR has no meaning below a width of 1, but values with a small slope have such windows.
    if function == "linear" and width < 1:
        function = "linear-exact"
    return centre, width, function


def _windowed(values: Grey, window: Window) -> Grey:
    """Return the values seen through a window, from 0 to 1 (PS3.3 §C.11.2.1.2 and §C.11.2.1.3)."""
    centre, width, function = window
    if function == "sigmoid":
        shade: Grey = 1 / (1 + np.exp((-4 * (values - centre) / width).clip(-700, 700)))
    elif function == "linear-exact":
        shade = ((values - centre) / width + 0.5).clip(0, 1)
    elif width == 1:
        shade = (values > centre - 0.5).astype(np.float64)
    else:
        shade = ((values - (centre - 0.5)) / (width - 1) + 0.5).clip(0, 1)
    return shade
