"""Uploading: what lies in the spool is copied to the buckets, read back, and then may leave it.

The rows of `spooled_blob` are the promise: a row is written in the transaction that makes a blob
known (a sealing), its copies are told when they have been read back whole, and it goes with the
file. One uploader works at a time and takes the oldest first, so that a store that is away costs
one attempt and not one for every blob.
"""

import asyncio
import datetime
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bfr_core import jobs
from bfr_core.blobs import is_growing
from bfr_core.buckets import Bucket, staged
from bfr_core.database import Transaction
from bfr_core.errors import ArchiveError, NotFound
from bfr_core.spool import SpooledBlobs

if TYPE_CHECKING:
    from bfr_core.store import Store

log = logging.getLogger("bfr.uploading")

BLOBS_AT_ONCE = 4
PAGE = 64
BUDGET_S = 5.0  # after which a job begins no further blob, so that a worker can stop
AWAY_RETRY_S = 10.0
GROWING_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class SpooledBlob:
    """A blob in the spool."""

    key: str
    spooled_at: datetime.datetime
    copies: list[str]  # the buckets, by their address, where it has been read back whole


@dataclass(frozen=True, slots=True)
class SpoolState:
    """How far the buckets are behind."""

    blobs: int  # in the spool and known to the index
    waiting: int  # of them, without a copy that should exist
    waiting_since: datetime.datetime | None


SPOOL = """
    INSERT INTO spooled_blob (key) SELECT unnest(%(keys)s::text[]) ON CONFLICT DO NOTHING
"""
# Buckets are told by their address: the copy in one says nothing of another put in its place.
WAITING = "NOT copies @> %(buckets)s::text[]"
NEXT = f"""
    SELECT key, spooled_at, copies FROM spooled_blob
    WHERE {WAITING} AND (spooled_at, key) > (%(spooled_at)s::timestamptz, %(key)s)
    ORDER BY spooled_at, key LIMIT %(limit)s
"""
TELL_COPIES = """
    UPDATE spooled_blob
    SET copies = ARRAY(SELECT unnest(copies) UNION SELECT unnest(%(copies)s::text[]))
    WHERE key = %(key)s
"""
ADOPT = """
    INSERT INTO spooled_blob (key, copies) VALUES (%(key)s, %(copies)s)
    ON CONFLICT (key) DO UPDATE SET copies = excluded.copies
"""
# Manifests stay longest: they are small, and with them metadata is there when the store is not.
MAY_LEAVE = f"""
    SELECT key FROM spooled_blob WHERE NOT ({WAITING})
    ORDER BY key LIKE '%%.manifest', spooled_at, key LIMIT %(limit)s
"""
FORGET = "DELETE FROM spooled_blob WHERE key = ANY(%(keys)s)"
STATE = f"""
    SELECT count(*) AS blobs, count(*) FILTER (WHERE {WAITING}) AS waiting,
        min(spooled_at) FILTER (WHERE {WAITING}) AS waiting_since
    FROM spooled_blob
"""


async def spool(tx: Transaction, store: "Store", keys: Sequence[str]) -> None:
    """Have the blobs copied to the buckets; nothing where there are none."""
    if store.settings.bucket_url:
        await tx.run(SPOOL, keys=sorted(keys))
        await jobs.defer_upload(tx)


async def forget(tx: Transaction, keys: Sequence[str]) -> None:
    """Strike blobs from the spool's list: they are deleted, or have left it."""
    await tx.run(FORGET, keys=list(keys))


async def adopt(tx: Transaction, key: str, buckets: Sequence[str]) -> None:
    """Record that a blob of the folder lies in these buckets, whether it was known or not."""
    await tx.run(ADOPT, key=key, copies=list(buckets))


async def spool_state(tx: Transaction, buckets: Sequence[str]) -> SpoolState:
    """Return how far these buckets are behind."""
    return await tx.one(SpoolState, STATE, buckets=list(buckets)) or SpoolState(0, 0, None)


async def upload_spool(store: "Store") -> float | None:
    """Copy what waits to the buckets, and make room in the spool, for a few seconds.

    Returns the seconds after which to go on; None when nothing waits.
    """
    if not isinstance(store.blobs, SpooledBlobs):
        return None
    again_s = await _Uploader(store, store.blobs).run()
    await make_room(store, store.blobs)
    return again_s


async def make_room(store: "Store", blobs: SpooledBlobs) -> int:
    """Let the oldest blobs that every bucket holds leave the spool until there is room.

    Returns how many left.
    """
    left = 0
    excess = await asyncio.to_thread(blobs.excess_bytes)
    while excess > 0:
        async with store.database.transaction() as tx:
            rows = await tx.tuples(MAY_LEAVE, buckets=blobs.addresses, limit=PAGE)
        gone: list[str] = []
        for (key,) in rows:
            if excess > 0:
                excess -= await asyncio.to_thread(blobs.evict, key)
                gone.append(key)
        # After the files: what is killed in between finds a file gone, never one without a row.
        async with store.database.transaction() as tx:
            await forget(tx, gone)
        left += len(gone)
        if not gone:
            break
    return left


class _Uploader:
    """One turn of uploading."""

    def __init__(self, store: "Store", blobs: SpooledBlobs) -> None:
        self._store = store
        self._blobs = blobs
        self._away: set[Bucket] = set()
        self._growing = False
        self._failed = False
        self._copied = False

    async def run(self) -> float | None:
        ends_at = time.monotonic() + BUDGET_S
        spooled_at, key = datetime.datetime(1, 1, 1, tzinfo=datetime.UTC), ""
        while len(self._away) < len(self._blobs.buckets):
            async with self._store.database.transaction() as tx:
                page = await tx.all(
                    SpooledBlob,
                    NEXT,
                    buckets=self._blobs.addresses,
                    spooled_at=spooled_at,
                    key=key,
                    limit=PAGE,
                )
            if not page:
                break
            for start in range(0, len(page), BLOBS_AT_ONCE):
                await asyncio.gather(*map(self._copy, page[start : start + BLOBS_AT_ONCE]))
                if time.monotonic() > ends_at and self._copied:
                    return 0.0
            spooled_at, key = page[-1].spooled_at, page[-1].key
        if self._away or self._failed:
            return AWAY_RETRY_S
        return GROWING_RETRY_S if self._growing else None

    async def _copy(self, blob: SpooledBlob) -> None:
        """Bring the blob to every bucket that is to have it and record what is done."""
        done = []
        for bucket in self._blobs.buckets:
            if bucket in self._away or str(bucket.address) in blob.copies:
                continue
            try:
                if await asyncio.to_thread(self._copy_to, bucket, blob.key):
                    done.append(str(bucket.address))
                else:
                    self._growing = True
            except ArchiveError as error:
                self._failed = True
                if bucket.is_away:
                    self._away.add(bucket)
                log.warning("not uploaded yet: %s", error.message)
        if not done:
            return
        self._copied = True
        async with self._store.database.transaction() as tx:
            known = await tx.run(TELL_COPIES, key=blob.key, copies=done)
        if not known:  # it was deleted meanwhile
            await asyncio.to_thread(self._blobs.delete_everywhere, blob.key)

    def _copy_to(self, bucket: Bucket, key: str) -> bool:
        """Return False for a pack that may still grow. Raises NotFound, Unavailable."""
        path = self._blobs.path(key)
        if path.exists():
            if is_growing(path):
                return False
            bucket.put(key, path)
        elif not self._is_in(bucket, key):
            with staged(self._blobs, key, self._blobs.directory) as copy:
                bucket.put(key, copy)
        return True

    def _is_in(self, bucket: Bucket, key: str) -> bool:
        # It had left the folder when a second sealing told of it again.
        try:
            return bucket.size_bytes(key) == self._blobs.size_bytes(key)
        except NotFound:
            return False
