"""Receiving: the one way in, for C-STORE, STOW-RS, import and whatever comes after.

An object's bytes go to a pack untouched, its header is read once, and only the commit in
`registration` makes it exist. The functions here block and may run in any thread, but one
reception is used by one thread at a time.
"""

import mmap
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import orjson
import zstandard

from bfr_core import metrics, policy
from bfr_core.access import Access
from bfr_core.blobs import BlobRef, FileBlobs
from bfr_core.connections import Archive
from bfr_core.errors import ArchiveError, Denied, Invalid
from bfr_core.frames import frame_ranges
from bfr_core.header import Header, HeaderLimits, read_dataset, read_header
from bfr_core.instances import (
    Dataset,
    InstanceAttributes,
    read_attributes,
    read_non_patient_attributes,
)
from bfr_core.manifest import Frames
from bfr_core.non_patient_categories import CATEGORY_OF, category_of
from bfr_core.packs import PACK_HEADER_BYTES, RECORD, ClosedPack, Pack, digest_of
from bfr_core.part10 import part10_prefix
from bfr_core.settings import Settings

if TYPE_CHECKING:
    from bfr_core.store import Store

HEADER_LEVEL = 1
OPEN_PACKS_MAX = 64


@dataclass(frozen=True, slots=True, eq=False)
class Received:
    """An object whose bytes lie in a pack and whose header was read; it does not exist yet."""

    reception: "Reception"
    pack: Pack | ClosedPack
    blob: BlobRef
    attributes: InstanceAttributes
    transfer_syntax_uid: str
    dataset_offset: int
    digest: bytes  # SHA-256 of the data set
    frames: Frames | None
    header: bytes  # DICOM JSON without pixel data, zstd
    received_at: datetime | None = None  # None: now

    def sync(self) -> None:
        """Make the bytes survive a power cut; the commit does so for those that are not synced.

        Raises Unavailable when the disk fails.
        """
        self.pack.sync()

    @property
    def category(self) -> str | None:
        """The resource that it is one of when it belongs to no patient (PS3.18 §12.1.1)."""
        return None if self.study_instance_uid else CATEGORY_OF.get(self.sop_class_uid)

    @property
    def sop_class_uid(self) -> str:
        """The object's SOP class."""
        return self.attributes.sop_class_uid

    @property
    def sop_instance_uid(self) -> str:
        """The object's own UID."""
        return self.attributes.sop_instance_uid

    @property
    def series_instance_uid(self) -> str:
        """The UID of its series."""
        return self.attributes.series.series_instance_uid

    @property
    def study_instance_uid(self) -> str:
        """The UID of its study."""
        return self.attributes.study.study_instance_uid


class Reception:
    """One sender's stay: an association, a request, an import. It owns the packs it opens."""

    def __init__(
        self,
        store: "Store",
        access: Access,
        archive: Archive,
        door: str,
        *,
        takes_non_patient: bool = False,
    ) -> None:
        """Begin. Raises Denied when the caller may not store in the archive.

        `takes_non_patient`: objects that belong to no study may come too.
        """
        if not policy.may_store(access, archive.archive_id):
            raise Denied(f"the caller may not store in archive {archive.ae_title!r}")
        self.settings: Settings = store.settings
        self.blobs: FileBlobs = store.blobs
        self.access = access
        self.archive = archive
        self.door = door
        self.takes_non_patient = takes_non_patient
        self.audited_series: set[str] = set()
        self.limits = header_limits(store.settings)
        self.compressor = zstandard.ZstdCompressor(level=HEADER_LEVEL)
        self._packs: dict[str, Pack] = {}
        self._lock = threading.Lock()

    def incoming_dataset(
        self, *, transfer_syntax_uid: str, sop_class_uid: str, sop_instance_uid: str
    ) -> "Incoming":
        """Begin an object whose data set is to come without a Part 10 header (PS3.7 §9.1.1)."""
        prefix = part10_prefix(
            transfer_syntax_uid=transfer_syntax_uid,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            source_ae_title=self.access.subject if self.access.kind == "node" else "",
        )
        incoming = Incoming(
            self, _Announced(sop_class_uid, sop_instance_uid, transfer_syntax_uid, len(prefix))
        )
        incoming.write(prefix)
        return incoming

    def incoming_part10(self) -> "Incoming":
        """Begin an object that is to come as a whole Part 10 file (PS3.10 §7.1)."""
        return Incoming(self, announced=None)

    def pack_for(self, series_instance_uid: str) -> Pack:
        """Return the open pack of the series, a fresh one when the last has grown large."""
        with self._lock:
            pack = self._packs.pop(series_instance_uid, None)
            if pack is not None and pack.size_bytes > self.settings.pack_max_bytes:
                pack.close()
                pack = None
            if pack is None:
                pack = self.new_pack()
            self._packs[series_instance_uid] = pack
            while len(self._packs) > OPEN_PACKS_MAX:
                self._packs.pop(next(iter(self._packs))).close()
            return pack

    def new_pack(self) -> Pack:
        """Return a new pack. Raises Unavailable when the disk is full."""
        return Pack(
            self.blobs,
            self.blobs.new_key(self.archive.archive_id, "pack"),
            {"archive": self.archive.ae_title, "door": self.door, "sender": self.access.subject},
        )

    def read_attributes(self, dataset: Dataset) -> InstanceAttributes:
        """Return what the index keeps of an object. Raises Invalid."""
        if self.takes_non_patient and category_of(dataset) is not None:
            return read_non_patient_attributes(dataset)
        return read_attributes(dataset)

    def discard(self, received: Sequence[Received]) -> None:
        """Take objects back that were not committed; their bytes go."""
        for one in reversed(received):
            one.pack.discard_last(one.blob)

    def close(self) -> None:
        """End the stay; what was committed stays, whatever else happened."""
        with self._lock:
            for pack in self._packs.values():
                pack.close()
            self._packs.clear()


@dataclass(frozen=True, slots=True)
class _Announced:
    """What a sender said of an object before it sent the data set."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset_offset: int  # behind the Part 10 header that we put before it


class Incoming:
    """One object on its way in: in memory while it is small, in a pack of its own when large."""

    def __init__(self, reception: Reception, announced: _Announced | None) -> None:
        self._reception = reception
        self._announced = announced
        self._buffer = bytearray()
        self._large: Pack | None = None
        self._size_bytes = 0

    @property
    def in_memory(self) -> bool:
        """True while `write` does not touch the disk."""
        return self._large is None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes; the caller may reuse `data` afterwards.

        Raises Invalid when the object is larger than allowed, Unavailable when the disk is full.
        """
        try:
            self._write(data)
        except ArchiveError as error:
            metrics.count_refused(self._reception.door, error)
            raise

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        self._size_bytes += len(data)
        if self._size_bytes > self._reception.settings.object_max_bytes:
            raise Invalid(
                f"the object is larger than {self._reception.settings.object_max_bytes} bytes"
            )
        if self._large is not None:
            self._large.extend(data)
            return
        self._buffer += data
        if len(self._buffer) > self._reception.settings.object_memory_bytes:
            self._large = self._reception.new_pack()
            self._large.begin_large()
            self._large.extend(self._buffer)
            self._buffer = bytearray()

    def finish(self) -> Received:
        """Read the header and put the bytes into a pack.

        Raises Invalid naming what is wrong with the object, Unavailable when the disk is full;
        nothing stays then.
        """
        try:
            if self._large is not None:
                return self._finish_large(self._large)
            return self._finish_small()
        except BaseException as error:
            self.abort()
            if isinstance(error, ArchiveError):
                metrics.count_refused(self._reception.door, error)
            raise

    def abort(self) -> None:
        """Forget the object; nothing of it stays."""
        self._buffer = bytearray()
        if self._large is not None:
            self._large.remove()
            self._large = None

    def _finish_small(self) -> Received:
        data = bytes(self._buffer)
        header = self._read_header(data)
        attributes = self._read_attributes(header)
        digest = digest_of(memoryview(data)[header.dataset_offset :])
        frames = find_frames(header, data)
        pack = self._reception.pack_for(attributes.series.series_instance_uid)
        blob = pack.append(data, header.dataset_offset, digest)
        return self._received(header, attributes, digest, frames, pack, blob)

    def _finish_large(self, pack: Pack) -> Received:
        start = PACK_HEADER_BYTES + RECORD.size
        with pack.map_large() as mapped, memoryview(mapped) as whole, whole[start:] as data:
            header = self._read_header(data)
            attributes = self._read_attributes(header)
            with data[header.dataset_offset :] as dataset:
                digest = digest_of(dataset)
            frames = find_frames(header, data)
            prefix = bytes(data[: header.dataset_offset])
        blob = pack.end_large(prefix, header.dataset_offset, digest)
        received = self._received(header, attributes, digest, frames, pack, blob)
        pack.close()
        self._large = None
        return received

    def _read_header(self, data: bytes | memoryview) -> Header:
        told, limits = self._announced, self._reception.limits
        if told is None:
            return read_header(data, limits)
        return read_dataset(data, told.dataset_offset, told.transfer_syntax_uid, limits)

    def _read_attributes(self, header: Header) -> InstanceAttributes:
        attributes = self._reception.read_attributes(header.dataset)
        told = self._announced
        if told is not None and (told.sop_class_uid, told.sop_instance_uid) != (
            attributes.sop_class_uid,
            attributes.sop_instance_uid,
        ):
            raise MismatchedObject(
                "SOP Class UID or SOP Instance UID of the data set is not what was announced"
            )
        return attributes

    def _received(
        self,
        header: Header,
        attributes: InstanceAttributes,
        digest: bytes,
        frames: Frames | None,
        pack: Pack,
        blob: BlobRef,
    ) -> Received:
        return Received(
            reception=self._reception,
            pack=pack,
            blob=blob,
            attributes=attributes,
            transfer_syntax_uid=header.transfer_syntax_uid,
            dataset_offset=header.dataset_offset,
            digest=digest,
            frames=frames,
            header=self._reception.compressor.compress(orjson.dumps(header.dataset)),
        )


class MismatchedObject(Invalid):
    """The data set is another object than the one that the sender announced."""


def header_limits(settings: Settings) -> HeaderLimits:
    """Return the limits of header reading that the settings give."""
    return HeaderLimits(
        header_max_bytes=settings.header_max_bytes,
        max_depth=settings.header_max_depth,
        max_elements=settings.header_max_elements,
        inline_binary_max_bytes=settings.inline_binary_max_bytes,
        inflated_max_bytes=settings.inflated_max_bytes,
    )


def find_frames(header: Header, data: bytes | memoryview | mmap.mmap) -> Frames | None:
    """Return where the frames lie; None without pixels or when their places cannot be told.

    An object whose frames cannot be told is still stored as it is: its sender may have no other
    copy. Frame retrieval answers for it with an error.
    """
    pixel_data = header.pixel_data
    if pixel_data is None:
        return None

    def read(offset: int, length: int) -> bytes:
        return bytes(data[offset : offset + length])

    try:
        ranges = frame_ranges(pixel_data, header.dataset, header.transfer_syntax_uid, read)
    except Invalid:
        return None
    frame_bytes = ranges[0][0][1] if ranges else 0
    first = ranges[0][0][0] if ranges else 0
    evenly_spaced = pixel_data.length is not None and all(
        frame == [(first + number * frame_bytes, frame_bytes)]
        for number, frame in enumerate(ranges)
    )
    if evenly_spaced:
        return Frames(pixel_data.tag, pixel_data.vr, len(ranges), first, frame_bytes)
    return Frames(
        pixel_data.tag, pixel_data.vr, len(ranges), ranges=tuple(tuple(frame) for frame in ranges)
    )
