"""Registration: received objects become studies in the index, in one transaction.

Senders that wait at the same moment share a transaction (group commit). An object exists when
the commit has returned, never before.
"""

import asyncio
import contextvars
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import psycopg

from bfr_core import audit, events, jobs, locator, metrics, tracing
from bfr_core.database import Database, Transaction
from bfr_core.errors import ArchiveError, Conflict, Unavailable
from bfr_core.manifest import Frames
from bfr_core.placing import DeletedObject, Place, find_place
from bfr_core.receiving import Received
from bfr_core.rejecting import note_arrived
from bfr_core.rejection_notes import may_be_note
from bfr_core.sealed import SealedSeries

if TYPE_CHECKING:
    from opentelemetry.trace import Span

log = logging.getLogger("bfr.registration")

BATCH_MAX = 500
PLACES_MAX = 50_000
ATTEMPTS = 4
SYNC_THREADS = 4

LOCK_SERIES = """
    SELECT series_id, state, manifest_key,
        coalesce(manifest_index_bytes, 0) AS manifest_index_bytes
    FROM series
    WHERE series_id = ANY(%(series_ids)s)
    ORDER BY series_id FOR NO KEY UPDATE
"""
# One statement: a round trip to the database costs as much as the rows it carries.
INSERT_INSTANCES = """
    WITH inserted AS (
        INSERT INTO instance (series_id, archive_id, sop_instance_uid, sop_class_uid,
            transfer_syntax_uid, instance_number, pack_key, offset_bytes, length_bytes,
            dataset_offset, digest, frames, header)
        SELECT new.series_id, new.archive_id, new.sop_instance_uid, new.sop_class_uid,
            new.transfer_syntax_uid, new.instance_number, new.pack_key, new.offset_bytes,
            new.length_bytes, new.dataset_offset, new.digest, new.frames, new.header
        FROM unnest(%(series_id)s::bigint[], %(archive_id)s::integer[],
            %(sop_instance_uid)s::text[], %(sop_class_uid)s::text[],
            %(transfer_syntax_uid)s::text[], %(instance_number)s::integer[],
            %(pack_key)s::text[], %(offset_bytes)s::bigint[], %(length_bytes)s::bigint[],
            %(dataset_offset)s::integer[], %(digest)s::bytea[], %(frames)s::bytea[],
            %(header)s::bytea[])
            AS new(series_id, archive_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid,
                instance_number, pack_key, offset_bytes, length_bytes, dataset_offset, digest,
                frames, header)
        WHERE NOT EXISTS (
            SELECT FROM deleted_instance AS gone JOIN deletion USING (deletion_id)
            WHERE gone.sop_instance_uid = new.sop_instance_uid
                AND gone.archive_id = new.archive_id AND deletion.undone_at IS NULL)
        ON CONFLICT (sop_instance_uid, archive_id) DO NOTHING
        RETURNING sop_instance_uid, archive_id, series_id, length_bytes,
            frames IS NOT NULL AS has_pixels
    ), arrived AS (
        SELECT series_id, count(*)::integer AS instances, sum(length_bytes)::bigint AS size_bytes,
            min(sop_instance_uid) FILTER (WHERE has_pixels) AS representative
        FROM inserted GROUP BY series_id
    ), counted AS (
        UPDATE series SET
            number_of_instances = number_of_instances + arrived.instances,
            size_bytes = series.size_bytes + arrived.size_bytes,
            representative_sop_instance_uid =
                coalesce(representative_sop_instance_uid, arrived.representative),
            state = 'receiving', last_received_at = clock_timestamp(), revision = revision + 1
        FROM arrived WHERE series.series_id = arrived.series_id
        RETURNING series.study_id, arrived.instances, arrived.size_bytes
    ), counted_studies AS (
        UPDATE study SET
            number_of_instances = number_of_instances + new.instances,
            size_bytes = study.size_bytes + new.size_bytes
        FROM (
            SELECT study_id, sum(instances) AS instances, sum(size_bytes) AS size_bytes
            FROM counted GROUP BY study_id
        ) AS new
        WHERE study.study_id = new.study_id
    )
    SELECT sop_instance_uid, archive_id FROM inserted
"""
FIND_RECEIVING = """
    SELECT digest FROM instance
    WHERE sop_instance_uid = %(sop_instance_uid)s AND archive_id = %(archive_id)s
"""
FIND_DELETED = """
    SELECT deletion_id FROM deleted_instance JOIN deletion USING (deletion_id)
    WHERE deleted_instance.sop_instance_uid = %(sop_instance_uid)s
        AND deleted_instance.archive_id = %(archive_id)s AND undone_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one received object."""

    received: Received
    stored: Literal["new", "identical"] | None  # None: see `error`
    error: ArchiveError | None


@dataclass(frozen=True, slots=True)
class _Locked:
    """A series that nobody else adds to or seals until the commit."""

    series_id: int
    state: str
    manifest_key: str | None
    manifest_index_bytes: int


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One sender that waits for a commit."""

    received: Sequence[Received]
    future: asyncio.Future[list[Outcome]]
    since_s: float = field(default_factory=perf_counter)
    span: "Span | None" = field(default_factory=tracing.current)


class Registration:
    """Commits what the doors of this process have received."""

    def __init__(self, database: Database, sealed: SealedSeries, seal_quiet_s: float) -> None:
        self._database = database
        self._sealed = sealed
        self._seal_quiet_s = seal_quiet_s
        self._waiting: list[_Waiting] = []
        self._committer: asyncio.Task[None] | None = None
        self.places: dict[tuple[int, str, str], Place] = {}
        # Threads of its own: a commit never waits for what else the process does in threads.
        self._syncing = ThreadPoolExecutor(SYNC_THREADS, "sync")

    async def commit(self, received: Sequence[Received]) -> list[Outcome]:
        """Return what became of each object, in order, when that can no longer be lost.

        Errors of single objects stand in their outcome and do not touch the others. When
        database or disk fail, every outcome holds Unavailable.
        """
        if not received:
            return []
        # A door whose thread has synced its packs already saves us a thread.
        unsynced = {one.pack for one in received if not one.pack.is_synced}
        try:
            if unsynced:
                loop = asyncio.get_running_loop()
                context = contextvars.copy_context()
                await loop.run_in_executor(self._syncing, context.run, _sync, unsynced)
        except Unavailable as error:
            return counted([Outcome(one, None, error) for one in received])
        future: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(received, future))
        if self._committer is None or self._committer.done():
            # It works for many: what it logs belongs to none of their transactions.
            context = contextvars.Context()
            self._committer = asyncio.create_task(self._commit_waiting(), context=context)
        outcomes = await future
        for outcome in reversed(outcomes):
            if outcome.stored == "identical" or isinstance(outcome.error, Conflict):
                outcome.received.pack.discard_last(outcome.received.blob)
        return counted(outcomes)

    async def _commit_waiting(self) -> None:
        while self._waiting:
            turn = self._take_turn()
            if len(turn) > 1:
                try:
                    await self._commit_together(turn)
                    continue
                except Exception:
                    # One sender's objects may be at fault: the others must not pay for them.
                    log.exception("%d senders' objects are committed one by one", len(turn))
            for one in turn:
                try:
                    await self._commit_together([one])
                except Exception as error:
                    if not one.future.done():
                        one.future.set_exception(error)

    async def _commit_together(self, turn: Sequence[_Waiting]) -> None:
        batch = [received for one in turn for received in one.received]
        began_s = perf_counter()
        for one in turn:
            metrics.COMMIT_WAIT.observe(began_s - one.since_s)
        metrics.COMMIT_OBJECTS.observe(len(batch))
        try:
            with tracing.shared_span("commit", [one.span for one in turn], objects=len(batch)):
                outcomes = await self._register(batch)
        except Unavailable as error:
            outcomes = [Outcome(one, None, error) for one in batch]
        finally:
            metrics.COMMIT_DURATION.observe(perf_counter() - began_s)
        start = 0
        for one in turn:
            if not one.future.done():
                one.future.set_result(outcomes[start : start + len(one.received)])
            start += len(one.received)

    def _take_turn(self) -> list[_Waiting]:
        turn = [self._waiting.pop(0)]
        size = len(turn[0].received)
        while self._waiting and size + len(self._waiting[0].received) <= BATCH_MAX:
            turn.append(self._waiting.pop(0))
            size += len(turn[-1].received)
        return turn

    async def _register(self, batch: Sequence[Received]) -> list[Outcome]:
        known: dict[tuple[str, int], bytes | Unavailable] = {}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self._database.transaction() as tx:
                    work = _Work(tx, batch, self._sealed, self._seal_quiet_s, self.places, known)
                    outcomes = await work.register()
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                self.places.clear()
                if attempt == ATTEMPTS:
                    raise Unavailable("the database is too busy") from None
                continue
            except (_PlaceGone, psycopg.errors.ForeignKeyViolation):
                self.places.clear()
                continue
            except _SealedElsewhere as found:
                known |= found.known
                continue
            break
        else:
            raise Unavailable("the study changed while it was stored")
        if len(self.places) > PLACES_MAX:
            self.places.clear()
        self.places.update(work.found)
        for one in work.audited:
            one.reception.audited_series.add(one.series_instance_uid)
        return outcomes


class _PlaceGone(Exception):
    """A remembered series is no longer there: it was deleted meanwhile."""


class _SealedElsewhere(Exception):
    """Objects of the batch lie in other series, which are sealed: their rows must not stay."""

    def __init__(self, known: dict[tuple[str, int], bytes | Unavailable]) -> None:
        self.known = known


class _Work:
    """One transaction of registration."""

    def __init__(
        self,
        tx: Transaction,
        batch: Sequence[Received],
        sealed: SealedSeries,
        seal_quiet_s: float,
        places: dict[tuple[int, str, str], Place],
        known: dict[tuple[str, int], bytes | Unavailable],
    ) -> None:
        self.tx = tx
        self.batch = batch
        self.sealed = sealed
        self.seal_quiet_s = seal_quiet_s
        self.places = places
        self.known = known  # digests of objects that an earlier attempt found sealed
        self.found: dict[tuple[int, str, str], Place] = {}
        self.audited: list[Received] = []
        self.outcomes: dict[int, Outcome] = {}

    async def register(self) -> list[Outcome]:
        """Return the outcome of each object of the batch."""
        first, repeated = self._distinct()
        placed = await self._place_all(first)
        states, inserted = await self._lock_and_insert(placed)
        await self._settle(placed, inserted)
        for number, earlier in repeated.items():
            error = self.outcomes[earlier].error
            one = self.batch[number]
            self.outcomes[number] = (
                Outcome(one, None, error) if error else _compared(one, self.batch[earlier].digest)
            )
        await self._reopen(placed, states)
        await self._audit(placed)
        for outcome in self.outcomes.values():
            if outcome.stored == "new" and may_be_note(outcome.received.sop_class_uid):
                await note_arrived(self.tx, outcome.received)
        for number, outcome in self.outcomes.items():
            if outcome.error is not None:
                await self._audit_refusal(self.batch[number], outcome.error)
        return [self.outcomes[number] for number in range(len(self.batch))]

    def _distinct(self) -> tuple[list[int], dict[int, int]]:
        """Return the first object of each UID, and the later ones with the one they repeat."""
        first: dict[tuple[str, int], int] = {}
        repeated = {}
        for number, one in enumerate(self.batch):
            earlier = first.setdefault(_uid_key(one), number)
            if earlier != number:
                repeated[number] = earlier
        return list(first.values()), repeated

    async def _place_all(self, numbers: list[int]) -> dict[int, Place]:
        """Return the place of each object that may be stored; the outcome of the others is set."""
        placed = {}
        # One order of studies for all processes keeps two of them from waiting for each other;
        # within a study the first to arrive tells of it.
        for number in sorted(numbers, key=lambda number: place_key(self.batch[number])[:2]):
            one = self.batch[number]
            key = place_key(one)
            place = self.found.get(key) or self.places.get(key)
            if place is None or not place.is_of(one.attributes.patient):
                # Nobody wants an empty study for an object that is refused.
                stored = await self._stored_digest(one)
                if stored is not None:
                    self.outcomes[number] = _compared(one, stored)
                    continue
                try:
                    place = await find_place(
                        self.tx, key[0], one.attributes, self.seal_quiet_s, one.received_at
                    )
                except Conflict as error:
                    self.outcomes[number] = Outcome(one, None, error)
                    continue
            self.found[key] = place
            placed[number] = place
        return placed

    async def _lock_and_insert(
        self, placed: dict[int, Place]
    ) -> tuple[dict[int, str], set[tuple[str, int]]]:
        """Return the state each series had, and the UIDs that were new to the archive.

        The lock comes first: a sealing that ends while we wait for it must be seen by what
        follows, in statements of their own for that reason.
        """
        if not placed:
            return {}, set()
        series_ids = sorted({place.series_id for place in placed.values()})
        locked = await self.tx.all(_Locked, LOCK_SERIES, series_ids=series_ids)
        if len(locked) != len(series_ids):
            raise _PlaceGone
        by_id = {series.series_id: series for series in locked}
        fresh = []
        for number, place in placed.items():
            one = self.batch[number]
            found = self.known.get(_uid_key(one))
            if found is None:
                found = await self._look_in(by_id[place.series_id], one)
            if found is None:
                fresh.append(number)
            else:
                self.outcomes[number] = _compared(one, found)
        states = {series.series_id: series.state for series in locked}
        if not fresh:
            return states, set()
        rows = self._rows(fresh, placed)
        inserted = set(await self.tx.tuples(INSERT_INSTANCES, **rows))
        await self._refuse_sealed(fresh, inserted)
        return states, inserted

    async def _look_in(
        self, series: "_Locked | locator.SealedPlace", one: Received
    ) -> bytes | Unavailable | None:
        """Return the digest under which the manifest of the series holds the UID, None without.

        Unavailable when the manifest cannot be read just now: this object has to wait then, and
        the others of the batch do not.
        """
        if series.manifest_key is None:
            return None
        try:
            return await self.sealed.find_digest(
                series.manifest_key, series.manifest_index_bytes, one.sop_instance_uid
            )
        except Unavailable as error:
            return error

    async def _refuse_sealed(self, numbers: list[int], inserted: set[tuple[str, int]]) -> None:
        """Raise _SealedElsewhere when a new row's UID lies in the manifest of another series.

        After the insert: while another series holds the UID as a row, the insert waits for its
        sealing to end, and whatever has ended by then this statement sees.
        """
        if not inserted:
            return
        known = {}
        for place in await locator.find_sealed(self.tx, (uid for uid, _ in inserted)):
            for number in numbers:
                one = self.batch[number]
                if _uid_key(one) in inserted and _uid_key(one)[1] == place.archive_id:
                    found = await self._look_in(place, one)
                    if found is not None:
                        known[_uid_key(one)] = found
        if known:
            raise _SealedElsewhere(known)

    async def _settle(self, placed: dict[int, Place], inserted: set[tuple[str, int]]) -> None:
        for number in placed:
            if number in self.outcomes:
                continue
            one = self.batch[number]
            if _uid_key(one) in inserted:
                self.outcomes[number] = Outcome(one, "new", None)
                continue
            found = await self._stored_digest(one)
            if found is not None:
                self.outcomes[number] = _compared(one, found)
            elif await self._is_deleted(one):
                error = DeletedObject("the object was deleted from this archive")
                self.outcomes[number] = Outcome(one, None, error)
            else:
                raise _PlaceGone  # the row that was in the way is gone since

    def _rows(self, numbers: list[int], placed: dict[int, Place]) -> dict[str, object]:
        batch = [self.batch[number] for number in numbers]
        return {
            "series_id": [placed[number].series_id for number in numbers],
            "archive_id": [one.reception.archive.archive_id for one in batch],
            "sop_instance_uid": [one.sop_instance_uid for one in batch],
            "sop_class_uid": [one.sop_class_uid for one in batch],
            "transfer_syntax_uid": [one.transfer_syntax_uid for one in batch],
            "instance_number": [one.attributes.instance_number for one in batch],
            "pack_key": [one.blob.key for one in batch],
            "offset_bytes": [one.blob.offset for one in batch],
            "length_bytes": [one.blob.length for one in batch],
            "dataset_offset": [one.dataset_offset for one in batch],
            "digest": [one.digest for one in batch],
            "frames": [_frames_json(one.frames) for one in batch],
            "header": [one.header for one in batch],
        }

    async def _stored_digest(self, one: Received) -> bytes | Unavailable | None:
        """Return the digest of the object that the archive holds under this UID, if any."""
        archive_id = one.reception.archive.archive_id
        digest: bytes | None = await self.tx.value(
            FIND_RECEIVING, sop_instance_uid=one.sop_instance_uid, archive_id=archive_id
        )
        if digest is not None:
            return digest
        for place in await locator.find_sealed(self.tx, [one.sop_instance_uid]):
            if place.archive_id == archive_id:
                found = await self._look_in(place, one)
                if found is not None:
                    return found
        return None

    async def _is_deleted(self, one: Received) -> bool:
        archive_id = one.reception.archive.archive_id
        deletion_id = await self.tx.value(
            FIND_DELETED, sop_instance_uid=one.sop_instance_uid, archive_id=archive_id
        )
        return deletion_id is not None

    async def _reopen(self, placed: dict[int, Place], states: dict[int, str]) -> None:
        reopened: dict[int, Received] = {}
        for number, place in placed.items():
            if self.outcomes[number].stored == "new" and states[place.series_id] == "sealed":
                reopened[place.series_id] = self.batch[number]
        for series_id, one in reopened.items():
            await events.write(
                self.tx,
                "series_reopened",
                archive_id=one.reception.archive.archive_id,
                study_instance_uid=one.study_instance_uid,
                series_instance_uid=one.series_instance_uid,
            )
            await jobs.defer_seal(self.tx, series_id, self.seal_quiet_s)

    async def _audit(self, placed: dict[int, Place]) -> None:
        seen = set()
        for number, place in placed.items():
            one = self.batch[number]
            if self.outcomes[number].error is not None:
                continue
            key = (id(one.reception), one.series_instance_uid)
            if one.series_instance_uid in one.reception.audited_series or key in seen:
                continue
            seen.add(key)
            self.audited.append(one)
            await audit.record(
                self.tx,
                one.reception.access,
                audit.AuditRecord(
                    action="store",
                    door=one.reception.door,
                    archive_id=one.reception.archive.archive_id,
                    patient_id=place.patient_id,
                    study_instance_uid=one.study_instance_uid,
                    series_instance_uid=one.series_instance_uid,
                ),
            )

    async def _audit_refusal(self, one: Received, error: ArchiveError) -> None:
        log.warning(
            "refused %s from %s at %s: %s",
            one.sop_instance_uid,
            one.reception.access.subject,
            one.reception.door,
            error.message,
        )
        await audit.record(
            self.tx,
            one.reception.access,
            audit.AuditRecord(
                action="store",
                door=one.reception.door,
                outcome="refused",
                archive_id=one.reception.archive.archive_id,
                study_instance_uid=one.study_instance_uid,
                series_instance_uid=one.series_instance_uid,
                sop_instance_uid=one.sop_instance_uid,
                detail={"reason": error.message},
            ),
        )


def place_key(one: Received) -> tuple[int, str, str]:
    """Return the key under which the object's place is remembered."""
    return (one.reception.archive.archive_id, one.study_instance_uid, one.series_instance_uid)


def _uid_key(one: Received) -> tuple[str, int]:
    return (one.sop_instance_uid, one.reception.archive.archive_id)


def _compared(one: Received, digest: bytes | Unavailable) -> Outcome:
    if isinstance(digest, Unavailable):
        return Outcome(one, None, digest)
    if one.digest == digest:
        return Outcome(one, "identical", None)
    return Outcome(one, None, DuplicateUid("another object is stored under this SOP Instance UID"))


class DuplicateUid(Conflict):
    """Another object is stored under the same SOP Instance UID."""


def _frames_json(frames: Frames | None) -> bytes | None:
    return None if frames is None else frames.to_json()


def counted(outcomes: list[Outcome]) -> list[Outcome]:
    """Return the outcomes, which the metrics have counted."""
    for one in outcomes:
        door = one.received.reception.door
        if one.error is not None:
            metrics.count_refused(door, one.error)
        elif one.stored is not None:
            metrics.of(metrics.OBJECTS, door, one.stored).inc()
            if one.stored == "new":
                metrics.of(metrics.STORED_BYTES, door).inc(one.received.blob.length)
    return outcomes


def _sync(packs: set[Any]) -> None:
    for pack in packs:
        pack.sync()
