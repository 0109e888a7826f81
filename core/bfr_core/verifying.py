"""Verifying: stored objects read again and held against their digests; what fails is a case.

The worker goes through the series by row, at a set rate, and goes on where it was; when it has
come to the end it begins again.
"""

import asyncio
import contextlib
import datetime
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from bfr_core import cases, non_patient_instances
from bfr_core.database import Transaction
from bfr_core.errors import NotFound, Unavailable
from bfr_core.manifest import StoredInstance
from bfr_core.sealing import receiving_instances
from bfr_core.work_positions import find_position, keep_position

if TYPE_CHECKING:
    from bfr_core.store import Store

log = logging.getLogger("bfr.verifying")

WORK = "verify"
WHILE_S = 50.0  # of each minute, so that the next turn finds this one ended
CHUNK_BYTES = 1024 * 1024
KINDS: tuple[cases.Kind, ...] = ("damaged_object", "missing_object", "damaged_manifest")
DETAILS = {
    "damaged_object": "the stored bytes are not those that came",
    "missing_object": "the pack that held it is missing",
    "damaged_manifest": "the list of the series' objects is missing or damaged",
}


@dataclass(slots=True)
class Verified:
    """What was looked at and what was found."""

    series: int = 0
    instances: int = 0
    size_bytes: int = 0
    found: list[tuple[cases.Kind, str]] = field(default_factory=list)  # with the UID at fault


@dataclass(frozen=True, slots=True)
class _Series:
    series_id: int
    archive_id: int
    study_instance_uid: str
    series_instance_uid: str
    manifest_key: str | None
    manifest_index_bytes: int
    manifest_bytes: int


COLUMNS = """
    SELECT series_id, series.archive_id, study_instance_uid, series_instance_uid, manifest_key,
        coalesce(manifest_index_bytes, 0) AS manifest_index_bytes,
        coalesce(manifest_bytes, 0) AS manifest_bytes
    FROM series JOIN study USING (study_id)
"""
NEXT_SERIES = f"{COLUMNS} WHERE series_id > %(after)s ORDER BY series_id LIMIT 1"
OF_STUDY = f"""
    {COLUMNS} JOIN archive ON archive.archive_id = series.archive_id
    WHERE study_instance_uid = %(study_instance_uid)s
        AND (%(archive)s::text IS NULL OR archive.ae_title = %(archive)s)
    ORDER BY series_id
"""
FIND_SERIES = f"{COLUMNS} WHERE series_id = %(series_id)s"
HAS_SERIES = "SELECT EXISTS (SELECT FROM series WHERE series_id = %(series_id)s)"


class Stopped(Exception):
    """The process is to end: the object at hand is looked at again another time."""


class Pace:
    """Holds reading to a rate; 0 bytes a second holds nothing."""

    def __init__(self, bytes_per_s: int, stopping: Callable[[], bool] = lambda: False) -> None:
        self.bytes_per_s = bytes_per_s
        self._stopping = stopping
        self._began_at = time.monotonic()
        self._read_bytes = 0

    async def wait_after(self, size_bytes: int) -> None:
        """Wait until this much may have been read. Raises Stopped when the process is to end."""
        if self._stopping():
            raise Stopped
        self._read_bytes += size_bytes
        if self.bytes_per_s:
            due_at = self._began_at + self._read_bytes / self.bytes_per_s
            await asyncio.sleep(max(0.0, due_at - time.monotonic()))


async def verify_for_a_while(
    store: "Store",
    should_stop: Callable[[], bool],
    stopping: Callable[[], bool] = lambda: False,
) -> Verified:
    """Go on where verification was, for less than a minute; cases are opened and closed.

    `should_stop` is asked between objects, `stopping` within them.
    """
    verified = Verified()
    if store.settings.verify_bytes_per_s:
        with contextlib.suppress(Stopped):
            await _go_on(store, verified, should_stop, stopping)
    return verified


async def _go_on(
    store: "Store",
    verified: Verified,
    should_stop: Callable[[], bool],
    stopping: Callable[[], bool],
) -> None:
    pace = Pace(store.settings.verify_bytes_per_s, stopping)
    until = time.monotonic() + WHILE_S

    def ending() -> bool:
        return should_stop() or time.monotonic() >= until

    async with store.database.transaction() as tx:
        place = await find_position(tx, WORK)
    done = f"done {datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    if place == done:
        return  # a small archive is not read over and over: it begins again tomorrow
    series_text, _, skip_text = ("" if place.startswith("done") else place).partition(" ")
    after, skip = int(series_text or 0), int(skip_text or 0)
    async for series in _series_after(store, after):
        # A huge series may take longer than our turn: its own place is kept too.
        begin = skip if series.series_id == after + 1 else 0
        looked_at = await _verify_series(store, series, verified, pace, begin, ending)
        place = str(series.series_id)
        if looked_at is not None:
            place = f"{series.series_id - 1} {looked_at}"
        async with store.database.transaction() as tx:
            await keep_position(tx, WORK, place)
        if ending():
            return
    # They are few: not done with in this turn, they are begun again in the next.
    if not await _verify_non_patient(store, verified, pace, ending):
        return
    log.info("every stored object was held against its digest")
    async with store.database.transaction() as tx:
        await keep_position(tx, WORK, done)


async def verify_all(store: "Store", told: Callable[[Verified], None]) -> Verified:
    """Verify everything as fast as it goes; `told` hears after each series."""
    verified = Verified()
    async for series in _series_after(store, 0):
        await _verify_series(store, series, verified, Pace(0))
        told(verified)
    await _verify_non_patient(store, verified, Pace(0))
    return verified


async def verify_study(
    store: "Store", archive: str | None, study_instance_uid: str, told: Callable[[Verified], None]
) -> Verified:
    """Verify one study, in one archive or in all. Raises NotFound."""
    async with store.database.transaction() as tx:
        listed = await tx.all(
            _Series, OF_STUDY, study_instance_uid=study_instance_uid, archive=archive
        )
    if not listed:
        raise NotFound("there is no such study")
    verified = Verified()
    for series in listed:
        await _verify_series(store, series, verified, Pace(0))
        told(verified)
    return verified


async def _series_after(store: "Store", after: int) -> AsyncIterator[_Series]:
    # One by one: what a row tells of blobs is true for an hour.
    while True:
        async with store.database.transaction() as tx:
            series = await tx.one(_Series, NEXT_SERIES, after=after)
        if series is None:
            return
        yield series
        after = series.series_id


async def _verify_series(
    store: "Store",
    series: _Series,
    verified: Verified,
    pace: Pace,
    skip: int = 0,
    ending: Callable[[], bool] = lambda: False,
) -> int | None:
    """Verify the series from instance number `skip` on.

    Returns None when that was all of it, else how many have been looked at.
    """
    verified.series += 1
    try:
        instances = await _instances(store, series)
    except Unavailable:
        await _settle(store, series, [("damaged_manifest", "")], verified, [])
        return None
    bad: list[tuple[cases.Kind, str]] = []
    good: list[str] = []
    looked_at = None
    for number, one in enumerate(instances[skip:], skip):
        if ending():
            looked_at = number
            break
        kind = await check_instance(store, one, pace.wait_after)
        verified.instances += 1
        verified.size_bytes += one.blob.length
        if kind is None:
            good.append(one.sop_instance_uid)
        else:
            bad.append((kind, one.sop_instance_uid))
    if bad:  # compacted or deleted while we read? Then it lies elsewhere, or nowhere.
        bad = await _still_bad(store, series, bad)
    still = [uid for _, uid in bad]
    if skip or looked_at is not None:
        known = set(good)
        still += [one.sop_instance_uid for one in instances if one.sop_instance_uid not in known]
    await _settle(store, series, bad, verified, still)
    return looked_at


async def _verify_non_patient(
    store: "Store", verified: Verified, pace: Pace, ending: Callable[[], bool] = lambda: False
) -> bool:
    """Verify the instances that belong to no patient. Returns False when it was ended before."""
    async with store.database.transaction() as tx:
        by_archive = await non_patient_instances.all_by_archive(tx)
    for archive_id, instances in by_archive.items():
        bad: list[tuple[cases.Kind, str]] = []
        for one in instances:
            if ending():
                return False
            kind = await check_instance(store, one, pace.wait_after)
            verified.instances += 1
            verified.size_bytes += one.blob.length
            if kind is not None:
                bad.append((kind, one.sop_instance_uid))
        async with store.database.transaction() as tx:
            await _tell(tx, cases.Place(archive_id), bad, [uid for _, uid in bad])
        verified.found += bad
    return True


async def check_instance(
    store: "Store", one: StoredInstance, wait_after: Callable[[int], Awaitable[None]]
) -> Literal["damaged_object", "missing_object"] | None:
    """Return what is wrong with the stored bytes; None when they are what came.

    Raises Unavailable when the store cannot be asked at all.
    """
    if not await asyncio.to_thread(store.blobs.exists, one.blob.key):
        return "missing_object"
    digest = hashlib.sha256()
    try:
        for start in range(one.dataset_offset, one.blob.length, CHUNK_BYTES):
            length = min(CHUNK_BYTES, one.blob.length - start)
            chunk = await asyncio.to_thread(store.blobs.read, one.blob, start, length)
            await asyncio.to_thread(digest.update, chunk)
            await wait_after(length)
    except Unavailable:
        # What lies in buckets alone may be out of reach for a while; they are healed by `heal`.
        if not await asyncio.to_thread(store.blobs.path(one.blob.key).exists):
            raise
        return "damaged_object"
    return None if digest.digest() == one.digest else "damaged_object"


async def _instances(store: "Store", series: _Series) -> list[StoredInstance]:
    async with store.database.transaction() as tx:
        fresh = [entry[0] for entry in await receiving_instances(tx, [series.series_id])]
    if series.manifest_key is None:
        return fresh
    # Not from memory: the manifest on the disk is what is verified.
    index = await store.sealed.verified_index(
        series.manifest_key, series.manifest_index_bytes, series.manifest_bytes
    )
    return [*index, *fresh]


async def _still_bad(
    store: "Store", series: _Series, bad: Sequence[tuple[cases.Kind, str]]
) -> list[tuple[cases.Kind, str]]:
    async with store.database.transaction() as tx:
        now = await tx.one(_Series, FIND_SERIES, series_id=series.series_id)
    if now == series:
        return list(bad)
    places = {} if now is None else {
        one.sop_instance_uid: one for one in await _instances(store, now)
    }  # fmt: skip
    still: list[tuple[cases.Kind, str]] = []
    for _, uid in bad:
        if uid in places:
            kind = await check_instance(store, places[uid], Pace(0).wait_after)
            if kind is not None:
                still.append((kind, uid))
    return still


async def _settle(
    store: "Store",
    series: _Series,
    bad: Sequence[tuple[cases.Kind, str]],
    verified: Verified,
    still: Sequence[str],
) -> None:
    """Open a case for what is bad and close those of the series whose reason is gone."""
    place = cases.Place(series.archive_id, series.study_instance_uid, series.series_instance_uid)
    async with store.database.transaction() as tx:
        if not await tx.value(HAS_SERIES, series_id=series.series_id):
            return  # deleted meanwhile
        await _tell(tx, place, bad, still)
    verified.found += [(kind, uid or series.series_instance_uid) for kind, uid in bad]


async def _tell(
    tx: Transaction, place: cases.Place, bad: Sequence[tuple[cases.Kind, str]], still: Sequence[str]
) -> None:
    for kind, uid in bad:
        if await cases.open_case(tx, kind, DETAILS[kind], place, sop_instance_uid=uid):
            series = place.series_instance_uid or "-"
            log.error("%s: series %s instance %s", kind, series, uid or "-")
    if not any(kind == "damaged_manifest" for kind, _ in bad):
        await cases.settle_cases(tx, WORK, KINDS, place, still=still)
