"""STOW-RS with metadata: data sets in JSON or XML, and their bulk data in other parts (§10.5.2)."""

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO
from urllib.parse import urljoin

import orjson

from bfr_core.composing import BulkValue, Find, Read, compose
from bfr_core.errors import Invalid
from bfr_core.frames import EXPLICIT_VR_LITTLE_ENDIAN
from bfr_core.instances import SOP_CLASS_UID, SOP_INSTANCE_UID, Dataset
from bfr_core.settings import Settings
from bfr_dicomweb.dicom_xml import read_xml
from bfr_dicomweb.media_types import (
    DICOM_JSON,
    DICOM_XML,
    OCTET_STREAM,
    TRANSFER_SYNTAXES,
    MediaType,
    default_transfer_syntax,
    frame_name,
)
from bfr_dicomweb.multipart import Part

JSON_TYPES = frozenset({DICOM_JSON, "application/json"})
XML_TYPES = frozenset({DICOM_XML, "application/xml", "text/xml"})
METADATA_TYPES = JSON_TYPES | XML_TYPES
CHUNK_BYTES = 1024 * 1024


@dataclass(slots=True)
class _Bulk:
    ranges: list[tuple[int, int]] = field(default_factory=list)
    transfer_syntax_uid: str = ""


class MetadataBody:
    """What a request holds beside Part 10 files. Bulk data waits in a file that has no name."""

    def __init__(self, settings: Settings, base: str) -> None:
        """Begin; a relative URI is one below `base`."""
        self._settings = settings
        self._base = base
        self._bulk: dict[str, _Bulk] = {}
        self._kept: IO[bytes] | None = None
        self._size_bytes = 0
        self.datasets: list[tuple[int, object]] = []  # number of the part, and a data set of it

    async def take_metadata(self, part: Part, media_type: str) -> None:
        """Read a part of metadata. Raises Invalid when it is none, or too long."""
        data = bytearray()
        async for chunk in part.body():
            if len(data) <= self._settings.metadata_max_bytes:
                data += chunk
        if len(data) > self._settings.metadata_max_bytes:
            raise Invalid(f"metadata is longer than {self._settings.metadata_max_bytes} bytes")
        self.add_metadata(part.number, bytes(data), media_type)

    def add_metadata(self, number: int, data: bytes, media_type: str) -> None:
        """Add what a body or a part of metadata holds. Raises Invalid."""
        if media_type in XML_TYPES:
            self.datasets.append((number, read_xml(data, self._settings.header_max_depth)))
            return
        try:
            sent = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise Invalid(f"the metadata is no JSON: {error}") from None
        listed = sent if isinstance(sent, list) else [sent]
        self.datasets += [(number, one) for one in listed]

    async def take_bulk_data(self, part: Part, media_type: MediaType) -> None:
        """Keep a part of bulk data; several of one location are the frames of one value.

        Raises Invalid when nothing tells what it belongs to, or how it is encoded.
        """
        location = part.headers.get("content-location", "").strip()
        if not location:
            raise Invalid("bulk data has no Content-Location")
        syntax = _transfer_syntax(media_type)
        start = self._size_bytes
        kept = self._file()
        async for chunk in part.body():
            await asyncio.to_thread(kept.write, chunk)
            self._size_bytes += len(chunk)
        value = self._bulk.setdefault(urljoin(self._base, location), _Bulk())
        if value.ranges and value.transfer_syntax_uid != syntax:
            raise Invalid("the frames of a value are in different transfer syntaxes")
        value.transfer_syntax_uid = syntax
        value.ranges.append((start, self._size_bytes - start))

    def part10(self, dataset: object) -> Iterator[bytes]:
        """Yield the object of a data set as a Part 10 file. Raises Invalid before any of it."""
        settings = self._settings
        find: Find = self._find
        read: Read = self._read
        return compose(dataset, find, read, settings.header_max_depth, settings.header_max_bytes)

    def close(self) -> None:
        """Let go of the bulk data."""
        if self._kept is not None:
            self._kept.close()

    def _file(self) -> IO[bytes]:
        if self._kept is None:
            # On the disk of the archive: /tmp may be memory.
            directory = self._settings.blobs_dir
            directory.mkdir(parents=True, exist_ok=True)
            self._kept = tempfile.TemporaryFile(dir=directory)
        return self._kept

    def _find(self, uri: str) -> BulkValue | None:
        value = self._bulk.get(urljoin(self._base, uri))
        return None if value is None else BulkValue(value.ranges, value.transfer_syntax_uid)

    def _read(self, offset: int, length: int) -> Iterator[bytes]:
        kept = self._file()
        end = offset + length
        while offset < end:
            kept.seek(offset)
            chunk = kept.read(min(CHUNK_BYTES, end - offset))
            offset += len(chunk)
            yield chunk


def reference_of(dataset: object) -> Dataset | None:
    """Return the class and the UID that a data set claims, None when it claims none."""
    if not isinstance(dataset, dict):
        return None
    found: Dataset = {}
    for tag, told in (("00081150", SOP_CLASS_UID), ("00081155", SOP_INSTANCE_UID)):
        element = dataset.get(told)
        values = element.get("Value") if isinstance(element, dict) else None
        if not isinstance(values, list) or not values or not isinstance(values[0], str):
            return None
        found[tag] = {"vr": "UI", "Value": [values[0][:64]]}
    return found


def _transfer_syntax(media_type: MediaType) -> str:
    """Return how a value is encoded: as its media type says, by default in its first syntax."""
    name = frame_name(media_type.name)
    if name not in TRANSFER_SYNTAXES:
        raise Invalid(f"bulk data is not {media_type.name!r}")
    named = media_type.parameters.get("transfer-syntax", "")
    if not named:
        return default_transfer_syntax(name) or EXPLICIT_VR_LITTLE_ENDIAN
    if name != OCTET_STREAM and named not in TRANSFER_SYNTAXES[name]:
        raise Invalid(f"{media_type.name!r} is not of transfer syntax {named}")
    return named
