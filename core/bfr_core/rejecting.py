"""Rejecting: objects deleted by a note that stays (IHE Imaging Object Change Management).

A rejection is a note, a key object selection that names objects of its own study with the reason.
Whoever stores one, by any door, or asks us to write one, has those objects deleted: what is stored
is the note, with a job in the same transaction, so that a crash leaves no note or the whole of it.
"""

import asyncio
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
import zstandard

from bfr_core import cases, jobs, policy
from bfr_core.access import Access, job
from bfr_core.connections import Archive, find_archive
from bfr_core.database import Transaction
from bfr_core.dataset_encoding import encode_dataset
from bfr_core.deleting import REASON_MAX_CHARACTERS, Scope, take_out
from bfr_core.errors import Denied, Invalid, NotFound
from bfr_core.instances import SOP_CLASS_UID, SOP_INSTANCE_UID, Dataset
from bfr_core.receiving import Received, Reception
from bfr_core.rejection_notes import CODES, Rejected, may_be_note, new_note, read_note
from bfr_core.retrieval import FoundInstance, read_series, retrieve_instances
from bfr_core.tombstones import Target, Tombstone, keys_of

if TYPE_CHECKING:
    from bfr_core.store import Store

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"

# Once: what was taken back since is not to go again by a job that comes late.
HAD_EFFECT = """
    SELECT EXISTS (SELECT FROM deletion
        WHERE study_instance_uid = %(study_instance_uid)s AND archive_id = %(archive_id)s
            AND series_instance_uid = %(series_instance_uid)s
            AND sop_instance_uid = %(sop_instance_uid)s AND rejection_code IS NOT NULL)
"""


@dataclass(frozen=True, slots=True)
class Rejection:
    """What was rejected: the note, and the number of objects that it names."""

    note: Target
    instances: int


async def reject(
    store: "Store",
    access: Access,
    door: str,
    archive: Archive,
    target: Target,
    code: str,
    text: str,
) -> Rejection:
    """Reject what the target holds now, and leave a note of it in the study.

    `text` tells more than the code; "" is the meaning of that. Raises Denied, NotFound, Invalid
    for another code than those of `CODES` or for a text that is too long.
    """
    if not policy.may_reject(access, archive.archive_id):
        raise Denied("the caller may not reject objects of the archive")
    if code not in CODES:
        raise Invalid(f"the reason {code[:64]!r} is none of {', '.join(CODES)} (DCM)")
    text = text.strip() or CODES[code]
    if len(text) > REASON_MAX_CHARACTERS:
        raise Invalid(f"a reason has at the most {REASON_MAX_CHARACTERS} characters")
    found = await retrieve_instances(
        store,
        access,
        door,
        archive_id=archive.archive_id,
        study_instance_uid=target.study_instance_uid,
        series_instance_uid=target.series_instance_uid,
        sop_instance_uid=target.sop_instance_uid,
        headers=True,
    )
    found = [one for one in found if not _is_note(one)]
    if not found:
        raise NotFound("there is nothing to reject but notes of rejections")
    rejected = [
        Rejected(
            one.series_instance_uid,
            one.stored.sop_class_uid,
            one.stored.sop_instance_uid,
            one.stored.frames is not None,
        )
        for one in found
    ]
    dataset = new_note(orjson.loads(found[0].header), rejected, code, text, access.subject)
    received = await _store_note(Reception(store, access, archive, door), store, dataset)
    note = (received.study_instance_uid, received.series_instance_uid, received.sop_instance_uid)
    await apply_rejection(store, archive.ae_title, note, access.subject)
    return Rejection(Target(*note), len(rejected))


async def note_arrived(tx: Transaction, one: Received) -> None:
    """Have the objects deleted that an arriving note names, if its sender may reject.

    Somebody has to look at the note of a sender who may not. What an operator imports or takes
    out of our own packs again has no effect by itself.
    """
    reception = one.reception
    if read_note(orjson.loads(zstandard.decompress(one.header))) is None:
        return
    archive_id = reception.archive.archive_id
    note = (one.study_instance_uid, one.series_instance_uid, one.sop_instance_uid)
    if policy.may_reject(reception.access, archive_id):
        await jobs.defer_apply_rejection(
            tx, reception.archive.ae_title, note, reception.access.subject
        )
    elif reception.access.kind in ("node", "local"):
        await cases.open_case(
            tx,
            "rejection_without_effect",
            f"{reception.access.subject} has sent a rejection note and may not reject",
            cases.Place(archive_id, note[0], note[1]),
            sop_instance_uid=note[2],
        )


async def apply_rejection(
    store: "Store", ae_title: str, note: Sequence[str], rejected_by: str
) -> int:
    """Delete what a stored note names and return the number; 0 when that was done.

    `note` is its UIDs, from the study down. Raises Conflict when the objects change all the time,
    Unavailable when they cannot be read.
    """
    study, series, uid = note
    access = job(f"rejection by {rejected_by}")
    async with store.database.transaction() as tx:
        archive = await find_archive(tx, access, ae_title)
    headers = [
        one.header
        for one in await read_series(store, archive.archive_id, study, series)
        if one.stored.sop_instance_uid == uid
    ]
    told = read_note(orjson.loads(headers[0])) if headers else None
    if told is None:
        return 0  # it was deleted itself meanwhile
    tombstone = Tombstone(
        archive.ae_title,
        Target(study, series, uid),
        f"{CODES[told.code]}: {told.text}"[:REASON_MAX_CHARACTERS],
        rejected_by,
        datetime.datetime.now(datetime.UTC),
        told.code,
    )
    async with store.database.statement() as tx:
        if await tx.value(HAD_EFFECT, **keys_of(archive, tombstone.target)):
            return 0
    scope = Scope(study, sop_instance_uids=told.sop_instance_uids - {uid})
    try:
        return await take_out(store, access, "IOCM", archive, scope, tombstone)
    except NotFound:
        return 0


async def _store_note(reception: Reception, store: "Store", note: Dataset) -> Received:
    def receive() -> Received:
        incoming = reception.incoming_dataset(
            transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN,
            sop_class_uid=note[SOP_CLASS_UID]["Value"][0],
            sop_instance_uid=note[SOP_INSTANCE_UID]["Value"][0],
        )
        incoming.write(encode_dataset(note, explicit=True))
        return incoming.finish()

    try:
        [outcome] = await store.commit([await asyncio.to_thread(receive)])
        if outcome.error is not None:
            raise outcome.error
        return outcome.received
    finally:
        await asyncio.to_thread(reception.close)


def _is_note(one: FoundInstance) -> bool:
    return may_be_note(one.stored.sop_class_uid) and read_note(orjson.loads(one.header)) is not None
