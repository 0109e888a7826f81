"""Restoring: an object that lies in a pack already, read again as if it had just come.

`registration` makes it exist, as it does with what the doors receive: there is one truth.
"""

import datetime

import orjson

from bfr_core.blobs import BlobRef
from bfr_core.errors import Unavailable
from bfr_core.header import read_header
from bfr_core.packs import RECORD, ClosedPack, digest_of
from bfr_core.receiving import Received, Reception, find_frames


def restored(reception: Reception, ref: BlobRef, dataset_offset: int, digest: bytes) -> Received:
    """Return the object, with the moment at which it came.

    Raises Unavailable when its bytes are gone or not what was stored, Invalid when this version
    of the program cannot read its header.
    """
    with reception.blobs.mapped(ref) as data:
        with data[dataset_offset:] as dataset:
            if digest_of(dataset) != digest:
                raise Unavailable(f"an object in pack {ref.key} is damaged")
        return _received(reception, ref, digest, data, _arrival(reception, ref))


def restored_record(
    reception: Reception, ref: BlobRef, digest: bytes, received_at: datetime.datetime
) -> Received:
    """Return the object of a pack record whose digest was checked. Raises as `restored` does."""
    with reception.blobs.mapped(ref) as data:
        return _received(reception, ref, digest, data, received_at)


def _received(
    reception: Reception,
    ref: BlobRef,
    digest: bytes,
    data: memoryview,
    received_at: datetime.datetime,
) -> Received:
    header = read_header(data, reception.limits)
    return Received(
        reception=reception,
        pack=ClosedPack(ref.key),
        blob=ref,
        attributes=reception.read_attributes(header.dataset),
        transfer_syntax_uid=header.transfer_syntax_uid,
        dataset_offset=header.dataset_offset,
        digest=digest,
        frames=find_frames(header, data),
        header=reception.compressor.compress(orjson.dumps(header.dataset)),
        received_at=received_at,
    )


def _arrival(reception: Reception, ref: BlobRef) -> datetime.datetime:
    record = BlobRef(ref.key, ref.offset - RECORD.size, RECORD.size)
    arrived_us: int = RECORD.unpack(reception.blobs.read(record))[-1]
    return datetime.datetime.fromtimestamp(arrived_us / 1_000_000, datetime.UTC)
