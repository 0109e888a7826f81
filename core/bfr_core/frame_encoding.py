"""Frame encoding: native pixels without loss in a compressed transfer syntax (PS3.5 §8.2, §G).

What a codec makes is decoded again and compared: a picture that came out otherwise is no picture.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import imagecodecs
import numpy as np

from bfr_core.codestreams import RLE_LOSSLESS, Samples, decode_codestream, stored_values
from bfr_core.errors import Invalid
from bfr_core.frames import ImagePixel

JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"


def encode_frame(native: bytes, image: ImagePixel, transfer_syntax_uid: str) -> bytes:
    """Return the codestream of a native little endian frame, of even length.

    Colour is by pixel in it, whatever `image.planar` says of the native frame. Raises Invalid when
    the syntax cannot hold the pixels without loss.
    """
    if image.bits_allocated not in (8, 16) or image.samples_per_pixel not in (1, 3):
        raise Invalid(
            f"{image.samples_per_pixel} samples a pixel of {image.bits_allocated} bits are not"
            " compressed"
        )
    if len(native) * 8 != image.full_frame_bits:
        raise Invalid("subsampled colour is not compressed")
    samples: Samples = np.frombuffer(native, f"<u{image.bits_allocated // 8}")
    if image.samples_per_pixel == 1:
        samples = samples.reshape(image.rows, image.columns)
    elif image.planar:
        samples = samples.reshape(image.samples_per_pixel, image.rows, image.columns)
        samples = samples.transpose(1, 2, 0)
    else:
        samples = samples.reshape(image.rows, image.columns, image.samples_per_pixel)
    samples = np.ascontiguousarray(samples)
    encoded = ENCODERS[transfer_syntax_uid](samples, image)
    if len(encoded) % 2:
        encoded += b"\0"
    decoded = decode_codestream(encoded, replace(image, planar=False), transfer_syntax_uid)
    expected = (
        stored_values(samples, image)
        if transfer_syntax_uid == RLE_LOSSLESS
        else _as_numbers(samples, image)
    )
    if not np.array_equal(decoded, expected):
        raise Invalid(f"the pixels are not held without loss by {transfer_syntax_uid}")
    return encoded


def _as_numbers(samples: Samples, image: ImagePixel) -> Samples:
    return samples.view(f"i{samples.dtype.itemsize}") if image.signed else samples


def _rle(samples: Samples, image: ImagePixel) -> bytes:
    """Return a header and a segment for each byte of a sample, the highest first (PS3.5 §G.2)."""
    planes = samples.reshape(image.rows, image.columns, -1).transpose(2, 0, 1)
    octets = planes[..., None].view(np.uint8)[..., ::-1]  # little endian: the highest comes last
    segments = []
    for plane in octets:
        for number in range(octets.shape[-1]):
            # Rows are encoded one by one (§G.3.1).
            segment = imagecodecs.packbits_encode(np.ascontiguousarray(plane[..., number]), axis=-1)
            segments.append(bytes(segment) + b"\0" * (len(segment) % 2))
    offsets = np.zeros(16, "<u4")
    offsets[0] = len(segments)
    offsets[1 : len(segments) + 1] = np.cumsum([64, *map(len, segments[:-1])])
    return offsets.tobytes() + b"".join(segments)


def _jpeg_ls(samples: Samples, image: ImagePixel) -> bytes:
    # It knows no sign: the pattern of bits is encoded (PS3.5 §8.2.3).
    return bytes(imagecodecs.jpegls_encode(samples))


def _jpeg_2000(samples: Samples, image: ImagePixel) -> bytes:
    numbers = _as_numbers(samples, image)
    low, high = int(numbers.min()), int(numbers.max())
    bits = image.bits_stored - image.signed
    fits = high < 1 << bits and low >= (-(1 << bits) if image.signed else 0)
    return bytes(
        imagecodecs.jpeg2k_encode(
            numbers,
            codecformat="J2K",
            reversible=True,
            mct=False,  # Photometric Interpretation stays as it is
            bitspersample=image.bits_stored if fits else image.bits_allocated,
        )
    )


def _htj2k(samples: Samples, image: ImagePixel) -> bytes:
    return bytes(imagecodecs.htj2k_encode(_as_numbers(samples, image), reversible=True, rgb=False))


ENCODERS: Mapping[str, Callable[[Samples, ImagePixel], bytes]] = MappingProxyType(
    {
        JPEG_LS_LOSSLESS: _jpeg_ls,
        JPEG_2000_LOSSLESS: _jpeg_2000,
        HTJ2K_LOSSLESS: _htj2k,
        RLE_LOSSLESS: _rle,
    }
)
