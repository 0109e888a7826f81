"""Instance rows: what a row of a series that is still receiving holds."""

from typing import Any

import orjson
import zstandard

from bfr_core.blobs import BlobRef
from bfr_core.manifest import Frames, StoredInstance

HEADER_MAX_BYTES = 1 << 30


def read_instance_row(row: dict[str, Any]) -> tuple[StoredInstance, bytes]:
    """Return the instance of a row and its header as DICOM JSON; b"" when it was not selected."""
    header, frames = row["header"], row["frames"]
    stored = StoredInstance(
        sop_instance_uid=row["sop_instance_uid"],
        sop_class_uid=row["sop_class_uid"],
        transfer_syntax_uid=row["transfer_syntax_uid"],
        instance_number=row["instance_number"],
        blob=BlobRef(row["pack_key"], row["offset_bytes"], row["length_bytes"]),
        dataset_offset=row["dataset_offset"],
        digest=row["digest"],
        frames=None if frames is None else Frames.from_json(orjson.loads(frames)),
    )
    if header is None:
        return stored, b""
    decompressor = zstandard.ZstdDecompressor()
    return stored, decompressor.decompress(header, max_output_size=HEADER_MAX_BYTES)
