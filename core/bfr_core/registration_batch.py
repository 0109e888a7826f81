"""The transaction of a registration: a batch of received objects becomes rows of the index."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bfr_core import audit, events, jobs, locator
from bfr_core.database import Transaction
from bfr_core.errors import ArchiveError, Conflict, Unavailable
from bfr_core.manifest import Frames
from bfr_core.placing import DeletedObject, Place, Told, find_places
from bfr_core.receiving import Received
from bfr_core.rejecting import note_arrived
from bfr_core.rejection_notes import may_be_note
from bfr_core.sealed import SealedSeries

log = logging.getLogger("bfr.registration")

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
    SELECT sop_instance_uid, archive_id, digest FROM instance
    WHERE sop_instance_uid = ANY(%(sop_instance_uids)s)
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


class DuplicateUid(Conflict):
    """Another object is stored under the same SOP Instance UID."""


@dataclass(frozen=True, slots=True)
class _Locked:
    """A series that nobody else adds to or seals until the commit."""

    series_id: int
    state: str
    manifest_key: str | None
    manifest_index_bytes: int


class PlaceGone(Exception):
    """A remembered series is no longer there: it was deleted meanwhile."""


class SealedElsewhere(Exception):
    """Objects of the batch lie in other series, which are sealed: their rows must not stay."""

    def __init__(self, known: dict[tuple[str, int], bytes | Unavailable]) -> None:
        self.known = known


class Batch:
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
        unplaced = []
        # One order of studies for all processes keeps two of them from waiting for each other;
        # within a study the first to arrive tells of it.
        for number in sorted(numbers, key=lambda number: place_key(self.batch[number])[:2]):
            one = self.batch[number]
            place = self.places.get(place_key(one))
            if place is not None and place.is_of(one.attributes.patient):
                self.found[place_key(one)] = placed[number] = place
            else:
                unplaced.append(number)
        # Nobody wants an empty study for an object that is refused.
        stored = await self._stored_digests(unplaced)
        told: dict[tuple[object, ...], Told] = {}
        for number in unplaced:
            one = self.batch[number]
            if number in stored:
                self.outcomes[number] = _compared(one, stored[number])
            else:
                archive_id = one.reception.archive.archive_id
                told.setdefault(_telling(one), Told(archive_id, one.attributes, one.received_at))
        places = await find_places(self.tx, list(told.values()), self.seal_quiet_s)
        found = dict(zip(told, places, strict=True))
        for number in unplaced:
            one = self.batch[number]
            if number in stored:
                continue
            place_or_error = found[_telling(one)]
            if isinstance(place_or_error, Conflict):
                self.outcomes[number] = Outcome(one, None, place_or_error)
            else:
                self.found[place_key(one)] = placed[number] = place_or_error
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
            raise PlaceGone
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
        """Raise SealedElsewhere when a new row's UID lies in the manifest of another series.

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
            raise SealedElsewhere(known)

    async def _settle(self, placed: dict[int, Place], inserted: set[tuple[str, int]]) -> None:
        left = []
        for number in placed:
            if number in self.outcomes:
                continue
            if _uid_key(self.batch[number]) in inserted:
                self.outcomes[number] = Outcome(self.batch[number], "new", None)
            else:
                left.append(number)
        stored = await self._stored_digests(left)
        for number in left:
            one = self.batch[number]
            if number in stored:
                self.outcomes[number] = _compared(one, stored[number])
            elif await self._is_deleted(one):
                error = DeletedObject("the object was deleted from this archive")
                self.outcomes[number] = Outcome(one, None, error)
            else:
                raise PlaceGone  # the row that was in the way is gone since

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

    async def _stored_digests(self, numbers: Sequence[int]) -> dict[int, bytes | Unavailable]:
        """Return the digest of what the archive holds under the UIDs of these objects."""
        if not numbers:
            return {}
        keys = {_uid_key(self.batch[number]): number for number in numbers}
        uids = [uid for uid, _ in keys]
        rows = await self.tx.tuples(FIND_RECEIVING, sop_instance_uids=uids)
        stored: dict[int, bytes | Unavailable] = {
            keys[(uid, archive_id)]: digest
            for uid, archive_id, digest in rows
            if (uid, archive_id) in keys
        }
        for place in await locator.find_sealed(self.tx, uids):
            for (_, archive_id), number in keys.items():
                if number not in stored and archive_id == place.archive_id:
                    found = await self._look_in(place, self.batch[number])
                    if found is not None:
                        stored[number] = found
        return stored

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
        for one in reopened.values():
            await events.write(
                self.tx,
                "series_reopened",
                archive_id=one.reception.archive.archive_id,
                study_instance_uid=one.study_instance_uid,
                series_instance_uid=one.series_instance_uid,
            )
        await jobs.defer_seals(self.tx, list(reopened), self.seal_quiet_s)

    async def _audit(self, placed: dict[int, Place]) -> None:
        seen = set()
        records = []
        for number, place in placed.items():
            one = self.batch[number]
            if self.outcomes[number].error is not None:
                continue
            key = (id(one.reception), one.series_instance_uid)
            if one.series_instance_uid in one.reception.audited_series or key in seen:
                continue
            seen.add(key)
            self.audited.append(one)
            entry = audit.AuditRecord(
                action="store",
                door=one.reception.door,
                archive_id=one.reception.archive.archive_id,
                patient_id=place.patient_id,
                study_instance_uid=one.study_instance_uid,
                series_instance_uid=one.series_instance_uid,
            )
            records.append((one.reception.access, entry))
        await audit.record_all(self.tx, records)

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


def _telling(one: Received) -> tuple[object, ...]:
    """Return what objects have in common of which the first tells where all of them belong."""
    patient = one.attributes.patient
    return (*place_key(one), patient.patient_identifier, patient.issuer)


def _uid_key(one: Received) -> tuple[str, int]:
    return (one.sop_instance_uid, one.reception.archive.archive_id)


def _compared(one: Received, digest: bytes | Unavailable) -> Outcome:
    if isinstance(digest, Unavailable):
        return Outcome(one, None, digest)
    if one.digest == digest:
        return Outcome(one, "identical", None)
    return Outcome(one, None, DuplicateUid("another object is stored under this SOP Instance UID"))


def _frames_json(frames: Frames | None) -> bytes | None:
    return None if frames is None else frames.to_json()
