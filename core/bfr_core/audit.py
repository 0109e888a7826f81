"""Audit: one append-only record per access, at every door (HSLF-FS 2016:40 4 kap. 9 §).

A record names rows and UIDs, never a person's number or name.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import orjson

from bfr_core.access import Access
from bfr_core.database import Database, Transaction

Action = Literal[
    "search",
    "read",
    "store",
    "delete",
    "undelete",
    "export",
    "list_patients",
    "associate",
    "create",
    "update",
    "administer",
]

RECORD = """
    INSERT INTO audit_record (action, outcome, caller_kind, caller, remote_address, door,
        archive_id, patient_id, study_instance_uid, series_instance_uid, sop_instance_uid, detail)
    SELECT action, outcome, caller_kind, caller, remote_address, door,
        archive_id, patient_id, study_instance_uid, series_instance_uid, sop_instance_uid, detail
    FROM json_to_recordset(%(records)s::json) AS one(action text, outcome text, caller_kind text,
        caller text, remote_address text, door text, archive_id integer, patient_id bigint,
        study_instance_uid text, series_instance_uid text, sop_instance_uid text, detail jsonb)
"""
# Beside the search itself, in one statement: `found` are the rows that it returns.
RECORD_SEARCH = """
    INSERT INTO audit_record (action, outcome, caller_kind, caller, remote_address, door,
        archive_id, detail)
    SELECT 'search', 'success', %(audit_caller_kind)s, %(audit_caller)s,
        %(audit_remote_address)s, %(audit_door)s, %(audit_archive_id)s,
        jsonb_build_object('keys', %(audit_keys)s::text[],
            'results', (SELECT count(*) FROM found))
"""
COALESCED_KEYS_MAX = 100_000


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """What was done, or refused, and to what."""

    action: Action
    door: str  # the transaction of the standard: "C-STORE", "WADO-RS", "QIDO-RS", …
    outcome: Literal["success", "refused"] = "success"
    archive_id: int | None = None
    patient_id: int | None = None
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None
    detail: dict[str, object] | None = None


async def record(tx: Transaction, access: Access, entry: AuditRecord) -> None:
    """Write the record in the caller's transaction."""
    await record_all(tx, [(access, entry)])


async def record_all(tx: Transaction, entries: Sequence[tuple[Access, AuditRecord]]) -> None:
    """Write the records in the caller's transaction."""
    if not entries:
        return
    told = [
        {
            **asdict(entry),
            "caller_kind": access.kind,
            "caller": access.subject,
            "remote_address": access.remote_address,
        }
        for access, entry in entries
    ]
    await tx.run(RECORD, records=orjson.dumps(told).decode())


def search_params(
    access: Access, door: str, archive_id: int | None, keys: Sequence[str]
) -> dict[str, object]:
    """Return the parameters of `RECORD_SEARCH`.

    The keys tell what was searched by; their values may be a person's and stay out.
    """
    return {
        "audit_caller_kind": access.kind,
        "audit_caller": access.subject,
        "audit_remote_address": access.remote_address,
        "audit_door": door,
        "audit_archive_id": archive_id,
        "audit_keys": list(keys),
    }


async def refuse(database: Database, access: Access, entry: AuditRecord) -> None:
    """Write a refusal in a transaction of its own: what was refused has rolled back."""
    async with database.transaction() as tx:
        await record(tx, access, entry)


class RecentReads:
    """Which reads are on record already, so that 300 frames of one series are one access.

    A viewer fetches a series frame by frame. Within `coalesce_s` the same caller, door and
    series make one record, committed before the first byte leaves.
    """

    def __init__(self, coalesce_s: float) -> None:
        self.coalesce_s = coalesce_s
        self._recorded_at: OrderedDict[tuple[object, ...], float] = OrderedDict()

    def is_recorded(self, key: tuple[object, ...]) -> bool:
        """Tell whether a read with this key was recorded less than `coalesce_s` ago."""
        recorded_at = self._recorded_at.get(key)
        return recorded_at is not None and time.monotonic() - recorded_at < self.coalesce_s

    def add(self, key: tuple[object, ...]) -> None:
        """Remember that a record with this key has been committed."""
        self._recorded_at[key] = time.monotonic()
        self._recorded_at.move_to_end(key)
        while len(self._recorded_at) > COALESCED_KEYS_MAX:
            self._recorded_at.popitem(last=False)
