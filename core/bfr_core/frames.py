"""Frames: where the bytes of each frame lie in a stored object (PS3.5 §8 and §A.4)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bfr_core.errors import Invalid
from bfr_core.header import PixelData

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
NATIVE_TRANSFER_SYNTAXES = frozenset(
    {
        IMPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_LITTLE_ENDIAN,
        DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_BIG_ENDIAN,
    }
)
JPEG_TRANSFER_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70))
JPEG_LS_TRANSFER_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (80, 81))
JPEG_2000_TRANSFER_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 92, 93))
HTJ2K_TRANSFER_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203))
JPEG_XL_TRANSFER_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (110, 111, 112))
VIDEO_TRANSFER_SYNTAXES = frozenset(
    f"1.2.840.10008.1.2.4.{n}{fragmentable}"
    for n in range(100, 109)
    for fragmentable in ("", ".1")
    if n < 107 or not fragmentable
)

_ITEM_HEADER_BYTES = 8  # tag and length of a fragment's item, PS3.5 §A.4
_TAIL_BYTES = 8
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_JPEG_2000_START = b"\xff\x4f\xff\x51"
_JPEG_XL_STARTS = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n")

ByteRange = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ImagePixel:
    """What the Image Pixel module says of every frame of an object (PS3.3 §C.7.6.3)."""

    number_of_frames: int
    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    planar: bool  # colour by plane: Planar Configuration (0028,0006) is 1
    floating: bool  # Float or Double Float Pixel Data, PS3.3 §C.7.6.24 and §C.7.6.25
    photometric_interpretation: str

    @property
    def frame_bits(self) -> int:
        """Bits of one frame of native pixel data, as many for each sample as are allocated."""
        if self.photometric_interpretation in ("YBR_FULL_422", "YBR_PARTIAL_422"):
            return self.rows * 2 * (self.columns + self.columns % 2) * self.bits_allocated
        return self.full_frame_bits

    @property
    def full_frame_bits(self) -> int:
        """Bits of one native frame of which no colour channel is subsampled."""
        return self.rows * self.columns * self.samples_per_pixel * self.bits_allocated


def first_value(dataset: Mapping[str, Any], tag: str) -> Any:
    """Return the first value of an attribute of a DICOM JSON object, None when it has none."""
    element = dataset.get(tag)
    values = element.get("Value") if isinstance(element, Mapping) else None
    return values[0] if isinstance(values, Sequence) and values else None


def _whole(dataset: Mapping[str, Any], tag: str, name: str, default: int | None = None) -> int:
    """Return the whole number that an attribute holds.

    Raises Invalid when it is absent without a default, or is no whole number.
    """
    value = first_value(dataset, tag)
    if value is None:
        if default is None:
            raise Invalid(f"{name} ({tag[:4]},{tag[4:]}) is missing: its frames cannot be told.")
        return default
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise Invalid(f"{name} ({tag[:4]},{tag[4:]}) is not a whole number.") from error
    if isinstance(value, float) and number != value:
        raise Invalid(f"{name} ({tag[:4]},{tag[4:]}) is not a whole number.")
    return number


def image_pixel(dataset: Mapping[str, Any]) -> ImagePixel:
    """Return the Image Pixel module of a DICOM JSON object.

    Raises Invalid when it lacks what tells the size of a frame, or contradicts itself
    (PS3.3 §C.7.6.3).
    """
    bits_allocated = _whole(dataset, "00280100", "Bits Allocated")
    floating = "7FE00010" not in dataset and (
        "7FE00008" in dataset
        or "7FE00009" in dataset
        or (bits_allocated in (32, 64) and first_value(dataset, "00280101") is None)
    )
    bits_stored = _whole(dataset, "00280101", "Bits Stored", bits_allocated)
    high_bit = _whole(dataset, "00280102", "High Bit", bits_stored - 1)
    if not bits_stored - 1 <= high_bit < bits_allocated:
        high_bit = bits_stored - 1
    image = ImagePixel(
        number_of_frames=_whole(dataset, "00280008", "Number of Frames", 1),
        rows=_whole(dataset, "00280010", "Rows"),
        columns=_whole(dataset, "00280011", "Columns"),
        samples_per_pixel=_whole(dataset, "00280002", "Samples per Pixel", 1),
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=high_bit,
        signed=_whole(dataset, "00280103", "Pixel Representation", 0) == 1,
        planar=_whole(dataset, "00280006", "Planar Configuration", 0) == 1,
        floating=floating,
        photometric_interpretation=str(first_value(dataset, "00280004") or "MONOCHROME2").strip(),
    )
    if not (0 < image.rows <= 0xFFFF and 0 < image.columns <= 0xFFFF):
        raise Invalid("Rows (0028,0010) or Columns (0028,0011) is out of range.")
    if image.samples_per_pixel not in (1, 3):
        raise Invalid("Samples per Pixel (0028,0002) is neither 1 nor 3.")
    if bits_allocated not in (1, 8, 16, 32, 64):
        raise Invalid("Bits Allocated (0028,0100) is not 1, 8, 16, 32 or 64.")
    if not 0 < bits_stored <= bits_allocated:
        raise Invalid("Bits Stored (0028,0101) does not fit Bits Allocated (0028,0100).")
    if image.number_of_frames < 1:
        raise Invalid("Number of Frames (0028,0008) is less than 1.")
    return image


def frame_window(
    image: ImagePixel, frame_bits: int, frame_number: int, *, in_words: bool
) -> tuple[int, int, int]:
    """Return where one native frame lies in its Pixel Data: first byte, bytes, bits to skip.

    Frames follow each other without padding (PS3.5 §8.1.1), so that a frame of single bits may
    begin inside a byte, and a frame of bytes sent as big endian words (`in_words`) inside a word:
    then the first and last unit also hold bits of the neighbours.
    """
    unit_bits = 16 if in_words else 8
    start = (frame_number - 1) * frame_bits
    first_unit = start // unit_bits
    end_unit = -(-(start + frame_bits) // unit_bits)
    unit_bytes = unit_bits // 8
    return (
        first_unit * unit_bytes,
        (end_unit - first_unit) * unit_bytes,
        start - first_unit * unit_bits,
    )


def sent_in_words(image: ImagePixel, vr: str, transfer_syntax_uid: str) -> bool:
    """Return whether samples of a byte or less are swapped in pairs of bytes (PS3.5 §A.3)."""
    return (
        transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN and image.bits_allocated <= 8 and vr != "OB"
    )


def frame_ranges(
    pixel_data: PixelData,
    dataset: Mapping[str, Any],
    transfer_syntax_uid: str,
    read: Callable[[int, int], bytes] | None = None,
) -> list[list[ByteRange]]:
    """Return for each frame the (offset, length) ranges that hold its bytes, in order.

    Offsets count as those of `pixel_data` do. Frames of single bits whose size is no multiple of
    eight share a byte with their neighbours: each range then covers every byte that holds a bit of
    the frame, and `decode_frame` and `native_frame` of bfr_core.pixels cut the frame out by its
    number. Encapsulated frames are found by the basic or the extended offset table, by one fragment
    a frame, or, with `read(offset, length)` given, by the markers of their codestreams
    (PS3.5 §A.4, PS3.3 §C.7.6.3.1.8).

    Raises Invalid when Pixel Data is too short for its frames, or when the frames cannot be told.
    """
    image = image_pixel(dataset)
    if (transfer_syntax_uid in NATIVE_TRANSFER_SYNTAXES) != (pixel_data.length is not None):
        raise Invalid(
            f"Pixel Data ({pixel_data.tag[:4]},{pixel_data.tag[4:]}) is not encoded as transfer "
            f"syntax {transfer_syntax_uid} demands."
        )
    if pixel_data.length is not None:
        return _native_ranges(pixel_data, pixel_data.length, image, transfer_syntax_uid)
    if transfer_syntax_uid in VIDEO_TRANSFER_SYNTAXES:
        raise Invalid("The frames of a video cannot be told apart without decoding it.")
    return _encapsulated_ranges(pixel_data, image.number_of_frames, transfer_syntax_uid, read)


def _native_ranges(
    pixel_data: PixelData, length: int, image: ImagePixel, transfer_syntax_uid: str
) -> list[list[ByteRange]]:
    in_words = sent_in_words(image, pixel_data.vr, transfer_syntax_uid)
    frame_bits = image.frame_bits
    # Some senders decompress YBR_FULL_422 and leave the name: the length tells them.
    if length * 8 >= image.number_of_frames * image.full_frame_bits:
        frame_bits = image.full_frame_bits
    first, size, _ = frame_window(image, frame_bits, image.number_of_frames, in_words=in_words)
    if first + size > length:
        raise Invalid(
            f"Pixel Data ({pixel_data.tag[:4]},{pixel_data.tag[4:]}) holds {length} bytes, "
            f"its {image.number_of_frames} frames need {first + size}."
        )
    ranges = []
    for frame_number in range(1, image.number_of_frames + 1):
        first, size, _ = frame_window(image, frame_bits, frame_number, in_words=in_words)
        ranges.append([(pixel_data.offset + first, size)])
    return ranges


def _encapsulated_ranges(
    pixel_data: PixelData,
    number_of_frames: int,
    transfer_syntax_uid: str,
    read: Callable[[int, int], bytes] | None,
) -> list[list[ByteRange]]:
    fragments = list(pixel_data.fragments)
    if not fragments:
        raise Invalid("Encapsulated Pixel Data (7FE0,0010) has no fragment.")
    if number_of_frames == 1:
        return [fragments]
    starts = _starts_by_table(pixel_data.basic_offset_table, fragments, number_of_frames)
    if starts is None:
        starts = _starts_by_table(pixel_data.extended_offset_table, fragments, number_of_frames)
    if starts is None and len(fragments) == number_of_frames:
        starts = list(range(number_of_frames))
    if starts is None and read is not None and len(fragments) > number_of_frames:
        starts = _starts_by_marker(fragments, transfer_syntax_uid, read)
    if starts is None or len(starts) != number_of_frames:
        raise Invalid(
            f"Pixel Data (7FE0,0010) has {len(fragments)} fragments for {number_of_frames} frames, "
            "and nothing tells which belong together."
        )
    return [fragments[start:end] for start, end in pairwise([*starts, len(fragments)])]


def _starts_by_table(
    offsets: Sequence[int], fragments: Sequence[ByteRange], number_of_frames: int
) -> list[int] | None:
    """Return the first fragment of each frame, None when the table is absent or does not fit."""
    if len(offsets) != number_of_frames:
        return None
    origin = fragments[0][0]
    index_at = {offset - origin: index for index, (offset, _) in enumerate(fragments)}
    starts = [index_at.get(offset, -1) for offset in offsets]
    if starts[0] != 0 or any(later <= earlier for earlier, later in pairwise(starts)):
        return None
    return starts


def _starts_by_marker(
    fragments: Sequence[ByteRange], transfer_syntax_uid: str, read: Callable[[int, int], bytes]
) -> list[int] | None:
    """Return the fragments that begin a codestream, None when the encoding has no such marker."""
    if transfer_syntax_uid in JPEG_TRANSFER_SYNTAXES | JPEG_LS_TRANSFER_SYNTAXES:
        beginnings: tuple[bytes, ...] = (_JPEG_START,)
    elif transfer_syntax_uid in JPEG_2000_TRANSFER_SYNTAXES | HTJ2K_TRANSFER_SYNTAXES:
        beginnings = (_JPEG_2000_START,)
    elif transfer_syntax_uid in JPEG_XL_TRANSFER_SYNTAXES:
        beginnings = _JPEG_XL_STARTS
    else:
        return None
    starts = [0]
    for index in range(1, len(fragments)):
        offset, length = fragments[index]
        if not read(offset, min(length, 12)).startswith(beginnings):
            continue
        # The bytes of a start marker also occur inside a frame, as in an embedded thumbnail:
        # a frame has begun only where another has ended. EOC and EOI have the same code.
        previous, previous_length = fragments[index - 1]
        tail_bytes = min(previous_length, _TAIL_BYTES)
        tail = read(previous + previous_length - tail_bytes, tail_bytes).rstrip(b"\x00")
        if beginnings is _JPEG_XL_STARTS or tail.endswith(_JPEG_END):
            starts.append(index)
    return starts
