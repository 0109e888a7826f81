"""Tombstones: what was deleted from an archive, with who, when and why.

The rows keep deleted objects from coming back; the same lies as a blob beside the packs, so that
a rebuilt index does not bring them back either. (PDL 3:14, 3:17.)
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from bfr_core import audit, policy
from bfr_core.access import Access
from bfr_core.connections import Archive, find_archive
from bfr_core.database import Transaction
from bfr_core.errors import Denied
from bfr_core.manifest import StoredInstance

if TYPE_CHECKING:
    from bfr_core.store import Store


@dataclass(frozen=True, slots=True)
class Target:
    """What is deleted: a study, one of its series or one instance of that."""

    study_instance_uid: str
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None


@dataclass(frozen=True, slots=True)
class Tombstone:
    """One deletion; of a rejection the target is its note."""

    ae_title: str
    target: Target
    reason: str
    deleted_by: str
    deleted_at: datetime.datetime
    rejection_code: str | None = None

    def to_json(self, gone: "Gone") -> bytes:
        """Return what lies beside the packs: the act, and each object with its place."""
        return orjson.dumps(
            {
                "format": 1,
                "archive": self.ae_title,
                "study": self.target.study_instance_uid,
                "series": self.target.series_instance_uid,
                "instance": self.target.sop_instance_uid,
                "reason": self.reason,
                "deleted_by": self.deleted_by,
                "deleted_at": self.deleted_at,
                "rejection_code": self.rejection_code,
                "instances": [
                    [series_instance_uid, one.sop_instance_uid, *place_of(one), one.digest.hex()]
                    for series_instance_uid, one in gone
                ],
            }
        )


Gone = Sequence[tuple[str, StoredInstance]]  # with the UID of its series


ADD_DELETION = """
    INSERT INTO deletion (archive_id, study_instance_uid, series_instance_uid, sop_instance_uid,
        reason, deleted_by, deleted_at, blob_key, rejection_code)
    VALUES (%(archive_id)s, %(study_instance_uid)s, %(series_instance_uid)s,
        %(sop_instance_uid)s, %(reason)s, %(deleted_by)s, %(deleted_at)s, %(blob_key)s,
        %(rejection_code)s)
    ON CONFLICT DO NOTHING
    RETURNING deletion_id
"""
# A row that is there already is of a deletion that was undone, whose undoing was killed when the
# object was back: the new deletion takes it over, or the undoing would bring it back once more.
ADD_DELETED_INSTANCES = """
    INSERT INTO deleted_instance (deletion_id, archive_id, series_instance_uid,
        sop_instance_uid, pack_key, offset_bytes, length_bytes, dataset_offset, digest)
    SELECT %(deletion_id)s, %(archive_id)s, * FROM unnest(%(series_instance_uids)s::text[],
        %(sop_instance_uids)s::text[], %(pack_keys)s::text[], %(offsets)s::bigint[],
        %(lengths)s::bigint[], %(dataset_offsets)s::integer[], %(digests)s::bytea[])
    ON CONFLICT (sop_instance_uid, archive_id) DO UPDATE SET deletion_id = excluded.deletion_id,
        series_instance_uid = excluded.series_instance_uid, pack_key = excluded.pack_key,
        offset_bytes = excluded.offset_bytes, length_bytes = excluded.length_bytes,
        dataset_offset = excluded.dataset_offset, digest = excluded.digest
"""


async def bury_again(
    tx: Transaction, archive_id: int, blob_key: str, data: bytes, packs: set[str]
) -> int | None:
    """Make the rows of a tombstone that lies beside the packs; None when they are there.

    `packs` are those that exist: what lies in others has no bytes any more. Returns the
    deletion's id.
    """
    told: dict[str, Any] = orjson.loads(data)
    tombstone = Tombstone(
        told["archive"],
        Target(told["study"], told["series"], told["instance"]),
        told["reason"],
        told["deleted_by"],
        datetime.datetime.fromisoformat(told["deleted_at"]),
        told.get("rejection_code"),
    )
    columns: list[Sequence[Any]] = [[], [], [], [], [], [], []]
    if told["instances"]:
        columns = list(zip(*told["instances"], strict=True))
    columns[2] = [key if key in packs else None for key in columns[2]]
    columns[6] = [bytes.fromhex(digest) for digest in columns[6]]
    return await bury(tx, archive_id, tombstone, blob_key, columns)


async def bury(
    tx: Transaction,
    archive_id: int,
    tombstone: Tombstone,
    blob_key: str,
    columns: Sequence[Sequence[Any]],
) -> int | None:
    """Make the rows of a tombstone, whose columns are those of ADD_DELETED_INSTANCES in order.

    Returns the deletion's id; None, and no row is made, when the same is buried already.
    """
    target = tombstone.target
    deletion_id: int | None = await tx.value(
        ADD_DELETION,
        archive_id=archive_id,
        study_instance_uid=target.study_instance_uid,
        series_instance_uid=target.series_instance_uid,
        sop_instance_uid=target.sop_instance_uid,
        reason=tombstone.reason,
        deleted_by=tombstone.deleted_by,
        deleted_at=tombstone.deleted_at,
        blob_key=blob_key,
        rejection_code=tombstone.rejection_code,
    )
    if deletion_id is None:
        return None
    names = (
        "series_instance_uids", "sop_instance_uids", "pack_keys", "offsets", "lengths",
        "dataset_offsets", "digests",
    )  # fmt: skip
    await tx.run(
        ADD_DELETED_INSTANCES,
        deletion_id=deletion_id,
        archive_id=archive_id,
        **{name: list(column) for name, column in zip(names, columns, strict=True)},
    )
    return deletion_id


async def archive_to_delete_from(store: "Store", access: Access, ae_title: str) -> Archive:
    """Return the archive. Raises NotFound, Denied when the caller may not delete from it."""
    async with store.database.transaction() as tx:
        archive = await find_archive(tx, access, ae_title)
    if not policy.may_delete(access, archive.archive_id):
        raise Denied("objects are deleted by operators")
    return archive


def place_of(one: StoredInstance) -> tuple[str, int, int, int]:
    """Return pack, offset, length and data set offset of an object, as a tombstone keeps them."""
    return (one.blob.key, one.blob.offset, one.blob.length, one.dataset_offset)


def keys_of(archive: Archive, target: Target) -> dict[str, object]:
    """Return the parameters that name the deletion of exactly this."""
    return {
        "archive_id": archive.archive_id,
        "study_instance_uid": target.study_instance_uid,
        "series_instance_uid": target.series_instance_uid,
        "sop_instance_uid": target.sop_instance_uid,
    }


async def record_act(
    tx: Transaction,
    access: Access,
    action: audit.Action,
    archive: Archive,
    target: Target,
    patient_id: int | None = None,
    door: str = "bfr",
    **detail: object,
) -> None:
    """Leave the audit record of a deletion or its undoing."""
    await audit.record(
        tx,
        access,
        audit.AuditRecord(
            action=action,
            door=door,
            patient_id=patient_id,
            archive_id=archive.archive_id,
            study_instance_uid=target.study_instance_uid,
            series_instance_uid=target.series_instance_uid,
            sop_instance_uid=target.sop_instance_uid,
            detail=detail,
        ),
    )
