"""Rebuilding: the whole index again from what lies beside the database, for the day it is lost.

Packs tell everything of objects; connections, archives, nodes and tombstones lie beside them as
small blobs. Every object goes through `registration` in the order in which it came, so that the
same object tells of each study as it did. It may be begun again at any point.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import orjson

from bfr_core import jobs, policy, uploading
from bfr_core.access import Access
from bfr_core.blobs import FileBlobs
from bfr_core.connections import Archive, list_archives
from bfr_core.database import Transaction
from bfr_core.errors import ArchiveError, Conflict, Denied, Unavailable
from bfr_core.packs import (
    DamagedRecord,
    PackRecord,
    first_arrival,
    read_pack_through,
    read_provenance,
)
from bfr_core.receiving import Received, Reception
from bfr_core.restoring import restored_record
from bfr_core.tombstones import bury_again
from bfr_core.work_positions import find_position, keep_position

if TYPE_CHECKING:
    from bfr_core.store import Store

log = logging.getLogger("bfr.rebuilding")

WORK = "rebuild"
CONNECTIONS_KEY = "connections.json"
BATCH = 100
BATCH_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class Rebuilt:
    """What a rebuilding has brought back and what it could not."""

    packs: int = 0
    instances: int = 0  # new in the index
    known: int = 0  # in the index already, or a second time in the packs
    deleted: int = 0  # deleted objects that stay deleted
    troubles: list[str] = field(default_factory=list)  # a pack and why, without a person's id


HAS_STUDIES = "SELECT EXISTS (SELECT FROM study)"
# What packs do not tell, in an order in which each row finds those that it refers to. Secrets of
# nodes are left out: they are to be given again.
TABLES = ("connection", "archive", "dicom_node", "virtual_archive", "audited_node")
SECRETS = ("jwt_secret",)
ROWS = "SELECT to_jsonb({table}) - %(secrets)s::text[] AS row FROM {table}"
COLUMNS = """
    SELECT column_name::text FROM information_schema.columns
    WHERE table_schema = 'public' AND table_name = %(table)s
"""
# With the ids they had: keys of blobs begin with that of the archive.
RESTORE = """
    INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE
    SELECT {columns} FROM jsonb_populate_record(NULL::{table}, %(row)s::jsonb)
    ON CONFLICT DO NOTHING
"""
# The application may draw numbers, not set them.
SKIP_NUMBERS = """
    SELECT nextval(pg_get_serial_sequence(%(table)s, %(column)s))
    FROM generate_series(1, (SELECT coalesce(max({column}), 0) FROM {table}))
"""
NUMBERED = (
    ("connection", "connection_id"),
    ("archive", "archive_id"),
    ("dicom_node", "dicom_node_id"),
    ("virtual_archive", "virtual_archive_id"),
)
FIND_ARCHIVE_OF_TITLE = "SELECT archive_id FROM archive WHERE ae_title = %(ae_title)s"
NAME_CONNECTION = """
    INSERT INTO connection (name, environment) VALUES (%(name)s, 'production')
    ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING connection_id
"""
NAME_ARCHIVE = """
    INSERT INTO archive (connection_id, ae_title, name)
    VALUES (%(connection_id)s, %(ae_title)s, %(ae_title)s)
"""
FIND_DELETED = """
    UPDATE deleted_instance SET
        pack_key = CASE WHEN pack_key IS NULL AND digest = new.found_digest THEN new.found_key
            ELSE pack_key END,
        offset_bytes = CASE WHEN pack_key IS NULL AND digest = new.found_digest
            THEN new.found_offset ELSE offset_bytes END
    FROM unnest(%(uids)s::text[], %(digests)s::bytea[], %(keys)s::text[], %(offsets)s::bigint[])
        AS new(uid, found_digest, found_key, found_offset)
    WHERE archive_id = %(archive_id)s AND sop_instance_uid = new.uid
        AND EXISTS (SELECT FROM deletion WHERE deletion_id = deleted_instance.deletion_id
            AND undone_at IS NULL)
    RETURNING sop_instance_uid
"""


async def keep_connections(store: "Store") -> None:
    """Write connections, archives and nodes beside the packs."""
    async with store.database.transaction() as tx:
        told = {
            table: [
                row for (row,) in await tx.tuples(ROWS.format(table=table), secrets=list(SECRETS))
            ]
            for table in TABLES
        }
    data = orjson.dumps({"format": 1, **told})
    await asyncio.to_thread(store.blobs.put, CONNECTIONS_KEY, data)
    async with store.database.transaction() as tx:
        # Forgotten first: the copies that the buckets have are of what it was before.
        await uploading.forget(tx, [CONNECTIONS_KEY])
        await uploading.spool(tx, store, [CONNECTIONS_KEY])


async def count_packs(store: "Store") -> int:
    """Return how many packs there are to read, for the progress."""

    def count() -> int:
        blobs = store.blobs
        return sum(
            key.endswith(".pack") for day in blobs.all_days() for key in blobs.all_of_day(day)
        )

    return await asyncio.to_thread(count)


async def rebuild(
    store: "Store", access: Access, told: Callable[[Rebuilt], None], *, force: bool = False
) -> Rebuilt:
    """Build the index again from the blobs; `told` hears after each pack.

    A rebuilding that was interrupted goes on at the day where it was. Raises Denied, Conflict
    when the index holds studies and `force` is not given.
    """
    if not policy.may_administer(access):
        raise Denied("the index is rebuilt by operators")
    async with store.database.transaction() as tx:
        begun_at = await find_position(tx, WORK)
        if not begun_at and not force and await tx.value(HAS_STUDIES):
            raise Conflict(
                "the index is not empty: give an empty database, or --force to add what it lacks"
            )
        await keep_position(tx, WORK, begun_at or "0")
    rebuilt = Rebuilt()
    await _restore_connections(store, rebuilt)
    days = await asyncio.to_thread(store.blobs.all_days)
    await _restore_tombstones(store, days, rebuilt)
    for day in days:
        if day < begun_at:
            rebuilt.packs += len(await asyncio.to_thread(_packs_of, store.blobs, day))
            continue
        async with store.database.transaction() as tx:
            await keep_position(tx, WORK, day)
        keys = await asyncio.to_thread(_packs_of, store.blobs, day)
        for key in keys:
            await _rebuild_pack(store, access, key, rebuilt)
            rebuilt.packs += 1
            told(rebuilt)
    async with store.database.transaction() as tx:
        await keep_position(tx, WORK, "")
    return rebuilt


def _packs_of(blobs: FileBlobs, day: str) -> list[str]:
    """Return the packs of a day, in the order in which their first instances came."""
    found = []
    for key in blobs.all_of_day(day):
        if key.endswith(".pack"):
            found.append((first_arrival(blobs, key) or 0, key))
    return [key for _, key in sorted(found)]


async def _restore_connections(store: "Store", rebuilt: Rebuilt) -> None:
    data = await asyncio.to_thread(store.blobs.read_whole, CONNECTIONS_KEY)
    if data is None:
        rebuilt.troubles.append(
            f"{CONNECTIONS_KEY} is missing: archives get connections named after their AE titles,"
            " nodes are to be registered again"
        )
        return
    content = orjson.loads(data)
    async with store.database.transaction() as tx:
        for table in TABLES:
            known = {name for (name,) in await tx.tuples(COLUMNS, table=table)}
            for row in content.get(table, ()):
                columns = ", ".join(sorted(known.intersection(row)))
                await tx.run(
                    RESTORE.format(table=table, columns=columns), row=orjson.dumps(row).decode()
                )
        for table, column in NUMBERED:
            await tx.run(
                SKIP_NUMBERS.format(table=table, column=column), table=table, column=column
            )
        await jobs.defer_keep_connections(tx)


async def _restore_tombstones(store: "Store", days: Sequence[str], rebuilt: Rebuilt) -> None:
    """Bury first what was deleted, so that nothing of it is seen for a moment."""
    for day in days:
        for key in await asyncio.to_thread(store.blobs.all_of_day, day):
            if not key.endswith(".deletion"):
                continue
            data = await asyncio.to_thread(store.blobs.read_whole, key) or b""
            try:
                told = orjson.loads(data)
                named = {str(one[2]) for one in told["instances"]}
            except (ValueError, KeyError):
                rebuilt.troubles.append(f"{key}: a tombstone is damaged")
                continue
            packs = await asyncio.to_thread(_existing, store.blobs, named)
            keep = timedelta(days=store.settings.deleted_keep_days)
            async with store.database.transaction() as tx:
                archive_id = await _archive_id(tx, told["archive"])
                deletion_id = await bury_again(tx, archive_id, key, data, packs)
                if deletion_id is not None:
                    await jobs.defer_compact(tx, deletion_id, keep)


def _existing(blobs: FileBlobs, keys: set[str]) -> set[str]:
    return {key for key in keys if blobs.exists(key)}


async def _archive_id(tx: Transaction, ae_title: str) -> int:
    found = await tx.value(FIND_ARCHIVE_OF_TITLE, ae_title=ae_title)
    if found is None:
        connection_id = await tx.value(NAME_CONNECTION, name=ae_title)
        await tx.run(NAME_ARCHIVE, connection_id=connection_id, ae_title=ae_title)
        found = await tx.value(FIND_ARCHIVE_OF_TITLE, ae_title=ae_title)
    return int(found)


async def _rebuild_pack(store: "Store", access: Access, key: str, rebuilt: Rebuilt) -> None:
    provenance = await asyncio.to_thread(read_provenance, store.blobs, key)
    if provenance is None or "archive" not in provenance:
        rebuilt.troubles.append(f"{key}: its header does not tell the archive")
        return
    async with store.database.transaction() as tx:
        archive_id = await _archive_id(tx, provenance["archive"])
        archives = {one.archive_id: one for one in await list_archives(tx)}
    reception = Reception(
        store, access, archives[archive_id], "index rebuild", takes_non_patient=True
    )
    batches = _batches(reception, key, rebuilt)
    # While one batch is committed, the next is read.
    reading = asyncio.create_task(asyncio.to_thread(next, batches, None))
    while (batch := await reading) is not None:
        reading = asyncio.create_task(asyncio.to_thread(next, batches, None))
        try:
            await _commit(store, archives[archive_id], batch, rebuilt)
        except BaseException:
            await asyncio.wait([reading])
            raise


async def _commit(
    store: "Store", archive: Archive, batch: list[Received], rebuilt: Rebuilt
) -> None:
    async with store.database.transaction() as tx:
        deleted = await tx.tuples(
            FIND_DELETED,
            archive_id=archive.archive_id,
            uids=[one.sop_instance_uid for one in batch],
            digests=[one.digest for one in batch],
            keys=[one.blob.key for one in batch],
            offsets=[one.blob.offset for one in batch],
        )
    buried = {str(row[0]) for row in deleted}
    rebuilt.deleted += sum(one.sop_instance_uid in buried for one in batch)
    alive = [one for one in batch if one.sop_instance_uid not in buried]
    for outcome in await store.commit(alive):
        if isinstance(outcome.error, Unavailable):
            raise outcome.error
        if outcome.error is not None:
            rebuilt.troubles.append(
                f"{outcome.received.blob.key}: {outcome.received.sop_instance_uid}:"
                f" {outcome.error.message}"
            )
        elif outcome.stored == "new":
            rebuilt.instances += 1
        else:
            rebuilt.known += 1


def _batches(reception: Reception, key: str, rebuilt: Rebuilt) -> Iterator[list[Received]]:
    batch: list[Received] = []
    size = 0
    for record in read_pack_through(reception.blobs, key):
        one = _read(reception, record, rebuilt)
        if one is None:
            continue
        batch.append(one)
        size += len(one.header)
        if len(batch) >= BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read(
    reception: Reception, record: PackRecord | DamagedRecord, rebuilt: Rebuilt
) -> Received | None:
    if isinstance(record, DamagedRecord):
        rebuilt.troubles.append(f"{record.key}: damaged at byte {record.offset}")
        return None
    try:
        return restored_record(reception, record.ref, record.digest, record.received_at)
    except ArchiveError as error:
        rebuilt.troubles.append(f"{record.ref.key}: {error.message}")
        return None
