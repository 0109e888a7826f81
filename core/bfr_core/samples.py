"""Samples: the values of one frame's pixels, whatever it is encoded in (PS3.5 §8)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bfr_core.codestreams import (
    DEFLATED_IMAGE_FRAME,
    ENCAPSULATED_UNCOMPRESSED,
    Samples,
    decode_codestream,
    inflate_frame,
    stored_values,
)
from bfr_core.errors import Invalid
from bfr_core.frames import (
    EXPLICIT_VR_BIG_ENDIAN,
    NATIVE_TRANSFER_SYNTAXES,
    ImagePixel,
    frame_window,
    image_pixel,
    sent_in_words,
)

PIXELS_MAX = 100_000_000


def decode_frame(
    frame: bytes,
    dataset: Mapping[str, Any],
    transfer_syntax_uid: str,
    frame_number: int = 1,
    max_pixels: int = PIXELS_MAX,
    vr: str = "OW",
) -> Samples:
    """Return the stored values of a frame: (rows, columns), or (rows, columns, 3) for colour.

    `frame` is what `frame_ranges` covers; its number and the VR of Pixel Data matter where frames
    share bytes. Colour is as `decoded_photometric_interpretation` of bfr_core.codestreams says.
    Raises Invalid when the frame is damaged, is larger than `max_pixels`, or its size is not what
    the header says.
    """
    image = _bounded(image_pixel(dataset), max_pixels)
    if transfer_syntax_uid in NATIVE_TRANSFER_SYNTAXES:
        native = _native_little_endian(frame, image, transfer_syntax_uid, frame_number, vr)
        return _native_samples(native, image)
    if transfer_syntax_uid == ENCAPSULATED_UNCOMPRESSED:
        return _native_samples(_checked(frame, image), image)
    if transfer_syntax_uid == DEFLATED_IMAGE_FRAME:
        inflated = inflate_frame(frame, -(-image.full_frame_bits // 8))
        return _native_samples(_checked(inflated, image), image)
    return decode_codestream(frame, image, transfer_syntax_uid)


def native_frame(
    frame: bytes,
    dataset: Mapping[str, Any],
    transfer_syntax_uid: str,
    frame_number: int = 1,
    max_pixels: int = PIXELS_MAX,
    vr: str = "OW",
) -> bytes:
    """Return a frame as native little endian bytes of Bits Allocated, as the header describes it.

    A frame of single bits begins at the lowest bit of the first byte. Colour that a codec had
    transformed is RGB: `decoded_photometric_interpretation` tells.
    Raises Invalid as `decode_frame` does.
    """
    image = _bounded(image_pixel(dataset), max_pixels)
    if transfer_syntax_uid in NATIVE_TRANSFER_SYNTAXES:
        return _native_little_endian(frame, image, transfer_syntax_uid, frame_number, vr)
    if transfer_syntax_uid == ENCAPSULATED_UNCOMPRESSED:
        return _checked(frame, image)
    if transfer_syntax_uid == DEFLATED_IMAGE_FRAME:
        return _checked(inflate_frame(frame, -(-image.full_frame_bits // 8)), image)
    samples = decode_codestream(frame, image, transfer_syntax_uid)
    if image.planar and image.samples_per_pixel > 1:
        samples = samples.transpose(2, 0, 1)
    return samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes()


def _bounded(image: ImagePixel, max_pixels: int) -> ImagePixel:
    if image.rows * image.columns > max_pixels:
        raise Invalid(
            f"A frame of {image.rows} rows and {image.columns} columns is more than the "
            f"{max_pixels} pixels that are decoded."
        )
    return image


def _native_little_endian(
    frame: bytes, image: ImagePixel, transfer_syntax_uid: str, frame_number: int, vr: str
) -> bytes:
    """Return a native frame cut out of the bytes that it shares, in little endian order."""
    big_endian = transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN
    in_words = sent_in_words(image, vr, transfer_syntax_uid)
    frame_bits = image.frame_bits
    if len(frame) * 8 >= image.full_frame_bits:
        frame_bits = image.full_frame_bits
    _, size, skip_bits = frame_window(image, frame_bits, frame_number, in_words=in_words)
    # Pixel Data is padded to an even length, after its last frame or, by some, after each.
    if len(frame) not in (size, size + size % 2):
        raise Invalid(f"The frame holds {len(frame)} bytes, its header calls for {size}.")
    frame = bytes(frame[:size])
    if in_words:
        frame = np.frombuffer(frame, "<u2").byteswap().tobytes()
    if image.bits_allocated == 1 and (skip_bits or frame_bits % 8):
        bits = np.unpackbits(np.frombuffer(frame, np.uint8), bitorder="little")
        return np.packbits(bits[skip_bits : skip_bits + frame_bits], bitorder="little").tobytes()
    frame = frame[skip_bits // 8 : (skip_bits + frame_bits) // 8]
    if big_endian and image.bits_allocated > 8:
        return np.frombuffer(frame, f">u{image.bits_allocated // 8}").byteswap().tobytes()
    return frame


def _checked(frame: bytes, image: ImagePixel) -> bytes:
    size = -(-image.frame_bits // 8)
    full_size = -(-image.full_frame_bits // 8)
    if len(frame) not in (size, size + size % 2, full_size, full_size + full_size % 2):
        raise Invalid(f"The frame holds {len(frame)} bytes, its header calls for {size}.")
    return frame[:full_size] if len(frame) >= full_size else frame[:size]


def _native_samples(frame: bytes, image: ImagePixel) -> Samples:
    """Return the stored values of a frame of native little endian bytes."""
    rows, columns = image.rows, image.columns
    if image.bits_allocated == 1:
        bits = np.unpackbits(np.frombuffer(frame, np.uint8), bitorder="little")
        samples: Samples = bits[: rows * columns * image.samples_per_pixel]
    elif image.floating:
        if image.bits_allocated not in (32, 64):
            raise Invalid("Bits Allocated (0028,0100) of floating point pixels is not 32 or 64.")
        samples = np.frombuffer(frame, f"<f{image.bits_allocated // 8}")
    else:
        samples = np.frombuffer(frame, f"<u{image.bits_allocated // 8}")
    if len(frame) * 8 < image.full_frame_bits:
        samples = _full_chroma(samples, rows, columns)
    elif image.samples_per_pixel == 1:
        samples = samples.reshape(rows, columns)
    elif image.planar:
        samples = samples.reshape(image.samples_per_pixel, rows, columns).transpose(1, 2, 0)
    else:
        samples = samples.reshape(rows, columns, image.samples_per_pixel)
    if image.floating or image.bits_allocated == 1:
        return samples
    return stored_values(samples, image)


def _full_chroma(samples: Samples, rows: int, columns: int) -> Samples:
    """Return YBR_FULL of YBR_FULL_422: two luminances share one pair of chrominances."""
    pairs = samples.reshape(rows, -1, 4)
    full: Samples = np.empty((rows, pairs.shape[1] * 2, 3), samples.dtype)
    full[:, 0::2, 0] = pairs[:, :, 0]
    full[:, 1::2, 0] = pairs[:, :, 1]
    full[:, :, 1] = np.repeat(pairs[:, :, 2], 2, axis=1)
    full[:, :, 2] = np.repeat(pairs[:, :, 3], 2, axis=1)
    return full[:, :columns]
