"""Bulk data: one long binary value of a stored instance (PS3.18 §8.7.3.3.2)."""

from typing import TYPE_CHECKING

from bfr_core.frames import EXPLICIT_VR_BIG_ENDIAN
from bfr_core.header import DEFLATED, find_bulk_data, inflate_dataset, read_header
from bfr_core.manifest import StoredInstance
from bfr_core.receiving import header_limits

if TYPE_CHECKING:
    from bfr_core.store import Store

WORD_BYTES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}


def read_bulk_data(store: "Store", stored: StoredInstance, path: str) -> bytes:
    """Return the little endian bytes of the value that "bulkdata/<path>" names.

    Raises NotFound when the instance has no such value, Unavailable when its bytes are gone.
    """
    limits = header_limits(store.settings)
    with store.blobs.mapped(stored.blob) as data:
        offset, length = find_bulk_data(data, path, limits)
        if stored.transfer_syntax_uid in DEFLATED:
            return inflate_dataset(data, limits)[offset : offset + length]
        value = bytes(data[offset : offset + length])
        if stored.transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN:
            return _swapped(value, _vr_of(read_header(data, limits).dataset, path))
    return value


def _vr_of(dataset: dict[str, object], path: str) -> str:
    element: object = {"Value": [None, dataset]}
    item: object = dataset
    for step in path.split("/"):
        if len(step) == 8:
            element = item[step] if isinstance(item, dict) else {}
        elif isinstance(element, dict):
            item = element["Value"][int(step) - 1]
    return str(element.get("vr", "")) if isinstance(element, dict) else ""


def _swapped(value: bytes, vr: str) -> bytes:
    size = WORD_BYTES.get(vr, 1)
    if size == 1:
        return value
    words = memoryview(value)
    return b"".join(
        bytes(words[start : start + size])[::-1] for start in range(0, len(value), size)
    )
