"""Codestreams: the samples of one compressed frame (PS3.5 §8.2 and §A.4)."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from bfr_core.errors import Invalid
from bfr_core.frames import (
    HTJ2K_TRANSFER_SYNTAXES,
    JPEG_2000_TRANSFER_SYNTAXES,
    JPEG_LS_TRANSFER_SYNTAXES,
    JPEG_TRANSFER_SYNTAXES,
    JPEG_XL_TRANSFER_SYNTAXES,
    ImagePixel,
)

Samples = npt.NDArray[Any]  # (rows, columns), or (rows, columns, 3) for colour

LOSSY_JPEG_TRANSFER_SYNTAXES = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
DEFLATED_IMAGE_FRAME = "1.2.840.10008.1.2.8.1"

_CODEC_ERRORS = (RuntimeError, ValueError, MemoryError)
_JPEG_2000_SIZE = struct.Struct(">HH8IH")  # Lsiz … Csiz, ISO/IEC 15444-1 §A.5.1
_JPEG_2000_START = b"\xff\x4f\xff\x51"
_END_SEARCH_BYTES = 1024
CODESTREAM_START_BYTES = 8192  # holds the main header, also behind the JP2 boxes that some leave
_START_SEARCH_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Codestream:
    """What a codestream says of itself before it is decoded."""

    rows: int
    columns: int
    components: int
    precision: int  # bits of a sample
    signed: bool = False
    components_are_rgb: bool | None = None  # of a JPEG; None: it does not say


def decode_codestream(frame: bytes, image: ImagePixel, transfer_syntax_uid: str) -> Samples:
    """Return the samples of a compressed frame, signed as the header says.

    Colour is as `decoded_photometric_interpretation` says.
    Raises Invalid when the transfer syntax is not decoded here, the codestream is damaged, or its
    size or depth is not what the header says.
    """
    if transfer_syntax_uid == RLE_LOSSLESS:
        return _decode_rle(frame, image)
    decoder = _decoder(transfer_syntax_uid)
    if decoder is None:
        raise Invalid(f"Frames of transfer syntax {transfer_syntax_uid} are not decoded.")
    return decoder(frame, image)


def can_decode(transfer_syntax_uid: str) -> bool:
    """Tell whether compressed frames of the syntax are read here."""
    return _decoder(transfer_syntax_uid) is not None or transfer_syntax_uid in (
        RLE_LOSSLESS,
        ENCAPSULATED_UNCOMPRESSED,
        DEFLATED_IMAGE_FRAME,
    )


def decoded_photometric_interpretation(image: ImagePixel, transfer_syntax_uid: str) -> str:
    """Return the Photometric Interpretation of a frame's samples once they are decoded.

    The codecs of lossy JPEG, JPEG 2000 and JPEG XL undo their own colour transform; the others,
    and native frames, keep the colour space of the header, its chroma brought to full resolution.
    """
    photometric_interpretation = image.photometric_interpretation
    if image.samples_per_pixel == 1:
        return photometric_interpretation
    if transfer_syntax_uid in LOSSY_JPEG_TRANSFER_SYNTAXES | JPEG_XL_TRANSFER_SYNTAXES:
        return "RGB"
    if photometric_interpretation in ("YBR_ICT", "YBR_RCT"):
        return "RGB"
    return photometric_interpretation.removesuffix("_422")


def sign_contradicts(start: bytes, image: ImagePixel, transfer_syntax_uid: str) -> bool:
    """Return whether a JPEG 2000 frame has another sign than Pixel Representation (0028,0103).

    Decoders differ in which of the two they believe. `start` is the first CODESTREAM_START_BYTES
    of the frame, or all of it; of a damaged one nothing is said.
    """
    if transfer_syntax_uid not in JPEG_2000_TRANSFER_SYNTAXES | HTJ2K_TRANSFER_SYNTAXES:
        return False
    try:
        return _read_jpeg_2000(start).signed != image.signed
    except Invalid:
        return False


def inflate_frame(frame: bytes, size_bytes: int) -> bytes:
    """Return a frame of Deflated Image Frame Compression, with up to 2 bytes more than its size.

    Raises Invalid when it is damaged (PS3.5 §A.4.13).
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(frame, size_bytes + 2)
    except zlib.error as error:
        raise Invalid("The frame is damaged: it cannot be inflated.") from error
    if not inflater.eof and not inflater.unconsumed_tail and len(inflated) < size_bytes:
        raise Invalid("The frame is damaged: its deflated data end too early.")
    return inflated


def _decoder(transfer_syntax_uid: str) -> Callable[[bytes, ImagePixel], Samples] | None:
    if transfer_syntax_uid in LOSSY_JPEG_TRANSFER_SYNTAXES:
        return _decode_lossy_jpeg
    if transfer_syntax_uid in JPEG_TRANSFER_SYNTAXES:
        return _decode_lossless_jpeg
    if transfer_syntax_uid in JPEG_LS_TRANSFER_SYNTAXES:
        return _decode_jpeg_ls
    if transfer_syntax_uid in JPEG_2000_TRANSFER_SYNTAXES | HTJ2K_TRANSFER_SYNTAXES:
        return _decode_jpeg_2000
    if transfer_syntax_uid in JPEG_XL_TRANSFER_SYNTAXES:
        return _decode_jpeg_xl
    return None


def _decode_rle(frame: bytes, image: ImagePixel) -> Samples:
    """Return the samples of a frame of RLE segments, which hold one plane each (PS3.5 §G)."""
    sample_bytes = image.bits_allocated // 8
    planes = image.samples_per_pixel * sample_bytes
    size_bytes = planes * image.rows * image.columns
    if image.bits_allocated < 8 or len(frame) < 64 or frame[:4] != planes.to_bytes(4, "little"):
        raise Invalid("The RLE frame does not have the segments that its header calls for.")
    try:
        decoded = imagecodecs.dicomrle_decode(frame, f"<u{sample_bytes}", out=size_bytes)
    except _CODEC_ERRORS as error:
        raise Invalid("The RLE frame is damaged.") from error
    if len(decoded) != size_bytes:
        raise Invalid(
            f"The RLE frame holds {len(decoded)} bytes, its header calls for {size_bytes}."
        )
    samples: Samples = np.frombuffer(decoded, f"<u{sample_bytes}")
    samples = samples.reshape(image.samples_per_pixel, image.rows, image.columns)
    samples = samples[0] if image.samples_per_pixel == 1 else samples.transpose(1, 2, 0)
    return stored_values(samples, image)


def _decode_lossless_jpeg(frame: bytes, image: ImagePixel) -> Samples:
    codestream = _read_jpeg(frame)
    _check_end(frame, "JPEG")
    # Its components come as they are: a lossless process has no colour transform.
    colour = {"colorspace": "RGB", "outcolorspace": "RGB"} if image.samples_per_pixel == 3 else {}
    return _decode("JPEG", imagecodecs.jpeg8_decode, frame, codestream, image, **colour)


def _decode_lossy_jpeg(frame: bytes, image: ImagePixel) -> Samples:
    codestream = _read_jpeg(frame)
    _check_end(frame, "JPEG")
    colour: dict[str, str] = {}
    if image.samples_per_pixel == 3:
        rgb = codestream.components_are_rgb
        if rgb is None:
            rgb = image.photometric_interpretation == "RGB"
        colour = {"colorspace": "RGB" if rgb else "YCBCR", "outcolorspace": "RGB"}
    return _decode("JPEG", imagecodecs.jpeg8_decode, frame, codestream, image, **colour)


def _decode_jpeg_ls(frame: bytes, image: ImagePixel) -> Samples:
    codestream = _read_jpeg(frame)
    _check_end(frame, "JPEG-LS")
    return _decode("JPEG-LS", imagecodecs.jpegls_decode, frame, codestream, image)


def _decode_jpeg_2000(frame: bytes, image: ImagePixel) -> Samples:
    # HTJ2K too: OpenJPEG takes twice the time of OpenJPH over it (2.2 ms for 512 x 512 pixels),
    # but OpenJPH dies of damaged frames, or never returns.
    codestream = _read_jpeg_2000(frame)
    return _decode("JPEG 2000", imagecodecs.jpeg2k_decode, frame, codestream, image)


def _decode_jpeg_xl(frame: bytes, image: ImagePixel) -> Samples:
    # The size is coded in single bits; the codec compares it with the array it is given.
    codestream = Codestream(
        image.rows,
        image.columns,
        image.samples_per_pixel,
        precision=8 if image.bits_allocated == 8 else 16,
    )
    return _decode("JPEG XL", imagecodecs.jpegxl_decode, frame, codestream, image, numthreads=1)


def _decode(
    name: str,
    codec: Callable[..., Samples],
    frame: bytes,
    codestream: Codestream,
    image: ImagePixel,
    **options: Any,
) -> Samples:
    """Return the samples that a codec makes of a frame, checked against the header on both sides.

    The array is made here, so that a codestream cannot ask for more memory than its header does.
    """
    size = (codestream.rows, codestream.columns, codestream.components)
    if size != (image.rows, image.columns, image.samples_per_pixel):
        raise Invalid(
            f"The {name} frame has {size[0]} rows, {size[1]} columns and {size[2]} components, "
            f"its header says {image.rows}, {image.columns} and {image.samples_per_pixel}."
        )
    if not 0 < codestream.precision <= min(image.bits_allocated, 32):
        raise Invalid(
            f"The {name} frame has {codestream.precision} bits a sample, its header has room "
            f"for {image.bits_allocated}."
        )
    depth = 8 if codestream.precision <= 8 else 16 if codestream.precision <= 16 else 32
    shape = size if image.samples_per_pixel > 1 else size[:2]
    # Zeros: a codec that gives up half-way must not leave what the memory held before.
    out: Samples = np.zeros(shape, f"{'i' if codestream.signed else 'u'}{depth // 8}")
    try:
        samples = codec(frame, out=out, **options)
    except _CODEC_ERRORS as error:
        raise Invalid(f"The {name} frame is damaged or not as its header says.") from error
    if image.signed and not codestream.signed:
        bits = min(image.bits_stored, codestream.precision)
        samples = _sign_extended(samples, bits)
    return samples.astype(f"{'i' if image.signed else 'u'}{image.bits_allocated // 8}", copy=False)


def _check_end(frame: bytes, name: str) -> None:
    """Raise Invalid unless the EOI marker is near the end of a frame.

    Of what is cut off, libjpeg makes grey, and CharLS takes seconds to find that it ends.
    """
    if b"\xff\xd9" not in frame[-_END_SEARCH_BYTES:]:
        raise Invalid(f"The {name} frame is damaged: it ends before its end marker.")


def _sign_extended(samples: Samples, bits: int) -> Samples:
    """Return unsigned samples read as two's complement numbers of so many bits."""
    spare = samples.dtype.itemsize * 8 - bits
    signed: Samples = (samples << spare).view(f"i{samples.dtype.itemsize}")
    return signed >> spare


def stored_values(samples: Samples, image: ImagePixel) -> Samples:
    """Return what allocated samples store: the bits from High Bit down (PS3.5 §8.1.1).

    Bits outside may hold a graphic overlay, as older objects have it.
    """
    spare = image.bits_allocated - image.bits_stored
    if spare:
        low_bit = image.high_bit + 1 - image.bits_stored
        samples = (samples >> low_bit) & ((1 << image.bits_stored) - 1)
    if image.signed:
        samples = samples.astype(f"u{image.bits_allocated // 8}", copy=False)
        return _sign_extended(samples, image.bits_stored)
    return samples


def _read_jpeg(frame: bytes) -> Codestream:
    """Return what the markers before the first scan say (ISO/IEC 10918-1 §B, 14495-1 §C).

    Raises Invalid when there is no frame header among them.
    """
    position = 2
    adobe_transform: int | None = None
    jfif = False
    while frame.startswith(b"\xff\xd8") and position + 4 <= len(frame):
        if frame[position] != 0xFF or frame[position + 1] == 0xFF:
            position += 1
            continue
        marker = frame[position + 1]
        if marker in (0x00, 0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
            position += 2
            continue
        if marker in (0xDA, 0xD9):
            break
        length = int.from_bytes(frame[position + 2 : position + 4])
        segment = frame[position + 4 : position + 2 + length]
        if marker == 0xE0 and segment.startswith(b"JFIF\x00"):
            jfif = True
        elif marker == 0xEE and segment.startswith(b"Adobe") and len(segment) >= 12:
            adobe_transform = segment[11]
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            if len(segment) < 6 or len(segment) < 6 + 3 * segment[5]:
                break
            precision, rows, columns, components = struct.unpack_from(">BHHB", segment)
            return Codestream(
                rows,
                columns,
                components,
                precision,
                components_are_rgb=_components_are_rgb(segment[6::3], adobe_transform, jfif),
            )
        position += 2 + length
    raise Invalid("The JPEG frame is damaged: it has no frame header.")


def _components_are_rgb(
    component_identifiers: bytes, adobe_transform: int | None, jfif: bool
) -> bool | None:
    """Return whether a JPEG says it holds RGB, not YCbCr; None when it says neither.

    What the codestream says goes before Photometric Interpretation, which is often left at RGB by
    senders that let a JPEG library convert.
    """
    if adobe_transform is not None:
        return adobe_transform == 0
    if component_identifiers == b"RGB":
        return True
    return False if jfif else None


def _read_jpeg_2000(frame: bytes) -> Codestream:
    """Return what the SIZ marker segment says (ISO/IEC 15444-1 §A.5.1).

    Raises Invalid when it is missing, or its components differ in size or depth.
    """
    start = frame.find(_JPEG_2000_START, 0, _START_SEARCH_BYTES)
    if start < 0 or len(frame) < start + 4 + _JPEG_2000_SIZE.size:
        raise Invalid("The JPEG 2000 frame is damaged: it has no image size.")
    _, _, right, bottom, left, top, *tile, components = _JPEG_2000_SIZE.unpack_from(
        frame, start + 4
    )
    tile_width, tile_height, tile_left, tile_top = tile
    # The first tile holds the first pixel (ISO/IEC 15444-1 §B.3).
    if not (tile_left <= left < tile_left + tile_width and left < right) or not (
        tile_top <= top < tile_top + tile_height and top < bottom
    ):
        raise Invalid("The JPEG 2000 frame is damaged: its tiles do not cover it.")
    begin = start + 4 + _JPEG_2000_SIZE.size
    segments = frame[begin : begin + 3 * components]
    if len(segments) < 3 * components or len(set(zip(*[iter(segments)] * 3, strict=True))) != 1:
        raise Invalid("The JPEG 2000 frame has components of different kinds.")
    depth, horizontal, vertical = segments[:3]
    if (horizontal, vertical) != (1, 1):
        raise Invalid("The JPEG 2000 frame has subsampled components.")
    return Codestream(
        bottom - top, right - left, components, (depth & 0x7F) + 1, signed=bool(depth & 0x80)
    )
