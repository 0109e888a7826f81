"""Rows of workitems, as every part of the worklist reads them."""

import datetime
from dataclasses import dataclass

from bfr_core import policy
from bfr_core.access import Access
from bfr_core.database import Transaction
from bfr_core.errors import NotFound
from bfr_core.instances import Dataset
from bfr_core.workitem_states import State

COLUMNS = "workitem_id, archive_id, workitem_uid, state, transaction_uid, dataset, deleted_at"
FIND = f"""
    SELECT {COLUMNS} FROM workitem
    WHERE workitem_uid = %(workitem_uid)s
        AND (%(archive_ids)s::integer[] IS NULL OR archive_id = ANY(%(archive_ids)s))
"""


@dataclass(frozen=True, slots=True)
class Workitem:
    """One Unified Procedure Step."""

    workitem_id: int
    archive_id: int
    workitem_uid: str
    state: State
    transaction_uid: str | None  # known to the performer alone
    dataset: Dataset
    deleted_at: datetime.datetime | None


class Gone(NotFound):
    """The workitem has been there and is deleted."""


async def find_workitem(
    tx: Transaction, access: Access, archive_id: int | None, workitem_uid: str
) -> Workitem:
    """Return the workitem. Raises NotFound, also when it may not be known, and Gone."""
    if "\x00" in workitem_uid:
        raise NotFound("there is no such workitem")
    workitem = await tx.one(
        Workitem,
        FIND,
        workitem_uid=workitem_uid,
        archive_ids=policy.visible_archives(access, archive_id),
    )
    if workitem is None:
        raise NotFound("there is no such workitem")
    if workitem.deleted_at is not None:
        raise Gone("the workitem has been deleted")
    return workitem
