"""Manifest: one compressed blob with everything that is known of the instances of a sealed series.

Two zstd frames back to back: the index (where each instance and its frames lie) and the headers
(DICOM JSON, one a line). Series metadata is one read and needs no JSON parsing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import zstandard

from bfr_core.blobs import BlobRef
from bfr_core.errors import Unavailable

LEVEL = 3
FORMAT = 1
INDEX_MAX_BYTES = 1 << 30
HEADERS_MAX_BYTES = 4 << 30
PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Frames:
    """Where the frames of an instance lie, from the first byte of its Part 10 file.

    Native frames lie at equal distances: `offset`, `frame_bytes`, `number_of_frames`.
    Encapsulated ones have a list of (offset, length) each.
    """

    tag: str
    vr: str
    number_of_frames: int
    offset: int = 0
    frame_bytes: int = 0
    ranges: tuple[tuple[tuple[int, int], ...], ...] = ()

    def range_of(self, frame_number: int) -> tuple[tuple[int, int], ...]:
        """Return the byte ranges of a frame; frames count from 1."""
        if self.ranges:
            return self.ranges[frame_number - 1]
        return ((self.offset + (frame_number - 1) * self.frame_bytes, self.frame_bytes),)

    def to_json(self) -> bytes:
        """Return the frames as compact JSON."""
        return orjson.dumps(
            [
                self.tag,
                self.vr,
                self.number_of_frames,
                self.offset,
                self.frame_bytes,
                self.ranges,
            ]
        )

    @classmethod
    def from_json(cls, values: list[Any]) -> "Frames":
        """Return what `to_json` wrote."""
        tag, vr, number_of_frames, offset, frame_bytes, ranges = values
        return cls(
            tag,
            vr,
            number_of_frames,
            offset,
            frame_bytes,
            tuple(tuple((start, length) for start, length in frame) for frame in ranges),
        )


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """One published instance: what it is and where its bytes lie."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    instance_number: int | None
    blob: BlobRef  # the Part 10 bytes
    dataset_offset: int  # of the data set in them
    digest: bytes  # SHA-256 of the data set
    frames: Frames | None  # None: no pixels, or their place cannot be told


@dataclass(frozen=True, slots=True)
class Manifest:
    """A written manifest: its bytes and the length of the index at their beginning."""

    data: bytes
    index_bytes: int


def in_order(instance: StoredInstance) -> tuple[int, str]:
    """Return the sort key of instances within a series: instance number, then UID."""
    number = instance.instance_number
    return (2**31 if number is None else number, instance.sop_instance_uid)


def write_manifest(entries: Sequence[tuple[StoredInstance, bytes]]) -> Manifest:
    """Return the manifest of the instances, each with its header as DICOM JSON."""
    # With checksums: no other copy is needed to see that a manifest is damaged.
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
    keys = sorted({instance.blob.key for instance, _ in entries})
    number_of_key = {key: number for number, key in enumerate(keys)}
    rows = [
        [
            instance.sop_instance_uid,
            instance.sop_class_uid,
            instance.transfer_syntax_uid,
            instance.instance_number,
            number_of_key[instance.blob.key],
            instance.blob.offset,
            instance.blob.length,
            instance.dataset_offset,
            instance.digest.hex(),
            None if instance.frames is None else orjson.loads(instance.frames.to_json()),
        ]
        for instance, _ in entries
    ]
    index = compressor.compress(orjson.dumps({"format": FORMAT, "packs": keys, "instances": rows}))
    headers = compressor.compress(b"\n".join(header for _, header in entries))
    return Manifest(index + headers, len(index))


def read_index(data: bytes) -> list[StoredInstance]:
    """Return the instances of a manifest in its order, from the bytes of its index.

    Raises Unavailable when the bytes are damaged or another version of the program wrote them.
    """
    try:
        content = orjson.loads(
            zstandard.ZstdDecompressor().decompress(data, max_output_size=INDEX_MAX_BYTES)
        )
    except (zstandard.ZstdError, orjson.JSONDecodeError) as error:
        raise Unavailable("the index of a manifest is damaged") from error
    if content["format"] != FORMAT:
        raise Unavailable(
            f"the manifest has format {content['format']} and this version reads {FORMAT}"
        )
    keys = content["packs"]
    return [
        StoredInstance(
            sop_instance_uid=row[0],
            sop_class_uid=row[1],
            transfer_syntax_uid=row[2],
            instance_number=row[3],
            blob=BlobRef(keys[row[4]], row[5], row[6]),
            dataset_offset=row[7],
            digest=bytes.fromhex(row[8]),
            frames=None if row[9] is None else Frames.from_json(row[9]),
        )
        for row in content["instances"]
    ]


def read_headers(data: bytes) -> list[bytes]:
    """Return the headers of a manifest in its order, from the bytes behind its index.

    Raises Unavailable when the bytes are damaged.
    """
    try:
        text = zstandard.ZstdDecompressor().decompress(data, max_output_size=HEADERS_MAX_BYTES)
    except zstandard.ZstdError as error:
        raise Unavailable("the headers of a manifest are damaged") from error
    return text.split(b"\n") if text else []


def first_header(data: bytes) -> bytes:
    """Return the first header of a whole manifest, whose index need not be known.

    Raises Unavailable when the bytes are damaged.
    """
    index = zstandard.ZstdDecompressor().decompressobj()
    try:
        index.decompress(data)
        with zstandard.ZstdDecompressor().stream_reader(index.unused_data) as headers:
            line = b""
            while b"\n" not in line and (piece := headers.read(PIECE_BYTES)):
                line += piece
    except zstandard.ZstdError as error:
        raise Unavailable("a manifest is damaged") from error
    return line.partition(b"\n")[0]
