"""Subscriptions to workitems and to the worklist (PS3.4 §CC.2.3)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import orjson

from bfr_core import audit, policy
from bfr_core.access import Access
from bfr_core.connections import checked_ae_title
from bfr_core.database import Transaction
from bfr_core.errors import Denied, NotFound
from bfr_core.matching import Match
from bfr_core.notifications import notify
from bfr_core.workitem_attributes import UPS_PUSH
from bfr_core.workitem_reports import JOINT, STATE_REPORT, lock_worklist, tell_subscriber
from bfr_core.workitem_rows import Workitem, find_workitem
from bfr_core.workitem_search import conditions_of

if TYPE_CHECKING:
    from bfr_core.store import Store

GLOBAL = "1.2.840.10008.5.1.4.34.5"
FILTERED = "1.2.840.10008.5.1.4.34.5.1"

PUT_WORKLIST = """
    INSERT INTO worklist_subscription (receiving_ae, archive_id, worklist_uid, deletion_lock,
        filter)
    VALUES (%(receiving_ae)s, %(root)s, %(worklist_uid)s, %(deletion_lock)s, %(filter)s)
    ON CONFLICT (receiving_ae, archive_id, worklist_uid)
    DO UPDATE SET deletion_lock = excluded.deletion_lock, filter = excluded.filter
"""
# Workitems that are subscribed to already stay as they are (table CC.2.3-2).
SUBSCRIBE_EXISTING = """
    INSERT INTO workitem_subscription (workitem_id, receiving_ae, deletion_lock)
    SELECT workitem_id, %(receiving_ae)s, %(deletion_lock)s FROM workitem
    WHERE deleted_at IS NULL AND (%(archive_ids)s::integer[] IS NULL
        OR archive_id = ANY(%(archive_ids)s)) AND {where}
    ORDER BY workitem_id
    ON CONFLICT DO NOTHING
    RETURNING workitem_id
"""
TELL_STATES = """
    INSERT INTO workitem_report (receiving_ae, archive_id, report)
    SELECT %(receiving_ae)s, archive_id, jsonb_build_object(
        '00000002', jsonb_build_object('vr', 'UI', 'Value', jsonb_build_array(%(sop_class)s::text)),
        '00001000', jsonb_build_object('vr', 'UI', 'Value', jsonb_build_array(workitem_uid)),
        '00001002', jsonb_build_object('vr', 'US', 'Value', jsonb_build_array(%(event)s::integer)),
        '00404041', dataset -> '00404041',
        '00741000', dataset -> '00741000')
    FROM workitem WHERE workitem_id = ANY(%(workitem_ids)s) ORDER BY workitem_id
"""
WORKLIST_SUBSCRIPTIONS = """
    SELECT receiving_ae, deletion_lock, filter FROM worklist_subscription
    WHERE archive_id IN (%(archive_id)s, 0)
    ORDER BY worklist_uid, archive_id DESC
"""
SUBSCRIBE = """
    INSERT INTO workitem_subscription (workitem_id, receiving_ae, deletion_lock)
    VALUES (%(workitem_id)s, %(receiving_ae)s, %(deletion_lock)s)
    ON CONFLICT (workitem_id, receiving_ae)
    DO UPDATE SET deletion_lock = {lock}
"""
MATCHES = "SELECT EXISTS (SELECT FROM workitem WHERE workitem_id = %(workitem_id)s AND {where})"
UNSUBSCRIBE = """
    DELETE FROM workitem_subscription
    WHERE workitem_id = %(workitem_id)s AND receiving_ae = %(receiving_ae)s
"""
UNSUBSCRIBE_WORKLIST = """
    DELETE FROM worklist_subscription
    WHERE receiving_ae = %(receiving_ae)s AND archive_id = %(root)s
        AND worklist_uid = %(worklist_uid)s
"""
UNSUBSCRIBE_ALL = """
    DELETE FROM workitem_subscription USING workitem
    WHERE workitem_subscription.workitem_id = workitem.workitem_id
        AND receiving_ae = %(receiving_ae)s
        AND (%(archive_ids)s::integer[] IS NULL OR archive_id = ANY(%(archive_ids)s))
"""


async def subscribe(
    store: "Store",
    access: Access,
    door: str,
    *,
    archive_id: int | None,
    workitem_uid: str,
    receiving_ae: str,
    deletion_lock: bool,
    matches: Sequence[Match] = (),
) -> None:
    """Subscribe the receiver to a workitem, to all (GLOBAL) or to those that match (FILTERED).

    Raises NotFound for the workitem, Invalid for the title or a key, Denied.
    """
    receiving_ae = checked_ae_title(receiving_ae)
    archive_ids = _readable(access, archive_id)
    conditions = conditions_of(matches)
    async with store.database.transaction() as tx:
        await lock_worklist(tx)
        if workitem_uid in (GLOBAL, FILTERED):
            await tx.run(
                PUT_WORKLIST,
                receiving_ae=receiving_ae,
                root=_root(archive_id),
                worklist_uid=workitem_uid,
                deletion_lock=deletion_lock,
                filter=orjson.dumps([[one.tag, one.values] for one in matches]).decode(),
            )
            rows = await tx.tuples(
                SUBSCRIBE_EXISTING.format(where=conditions.where()),
                **conditions.params,
                receiving_ae=receiving_ae,
                deletion_lock=deletion_lock,
                archive_ids=archive_ids,
            )
            if deletion_lock and rows:
                await tx.run(
                    TELL_STATES,
                    receiving_ae=receiving_ae,
                    sop_class=UPS_PUSH,
                    event=STATE_REPORT,
                    workitem_ids=[workitem_id for (workitem_id,) in rows],
                )
                await notify(tx)
        else:
            workitem = await find_workitem(tx, access, archive_id, workitem_uid)
            await tx.run(
                SUBSCRIBE.format(lock="excluded.deletion_lock"),
                workitem_id=workitem.workitem_id,
                receiving_ae=receiving_ae,
                deletion_lock=deletion_lock,
            )
            await tell_subscriber(tx, receiving_ae, workitem)
        await _record(tx, access, door, archive_id, workitem_uid, receiving_ae, "subscribe")


async def subscribe_to_new(tx: Transaction, workitem: Workitem) -> None:
    """Subscribe those to a new workitem who have subscribed to the worklist and whose keys match.

    Called in the transaction that creates it. A lock from one of several subscriptions stays.
    """
    subscriptions = await tx.tuples(WORKLIST_SUBSCRIPTIONS, archive_id=workitem.archive_id)
    for receiving_ae, deletion_lock, keys in subscriptions:
        conditions = conditions_of([Match(tag, tuple(values)) for tag, values in keys])
        if await tx.value(
            MATCHES.format(where=conditions.where()),
            **conditions.params,
            workitem_id=workitem.workitem_id,
        ):
            await tx.run(
                SUBSCRIBE.format(
                    lock="workitem_subscription.deletion_lock OR excluded.deletion_lock"
                ),
                workitem_id=workitem.workitem_id,
                receiving_ae=receiving_ae,
                deletion_lock=deletion_lock,
            )


async def unsubscribe(
    store: "Store",
    access: Access,
    door: str,
    *,
    archive_id: int | None,
    workitem_uid: str,
    receiving_ae: str,
) -> None:
    """End a subscription; one to the worklist takes those to its workitems along (table CC.2.3-2).

    Raises NotFound when there is none, Invalid for the title, Denied.
    """
    receiving_ae = checked_ae_title(receiving_ae)
    archive_ids = _readable(access, archive_id)
    async with store.database.transaction() as tx:
        await lock_worklist(tx)
        if workitem_uid in (GLOBAL, FILTERED):
            removed = await tx.run(
                UNSUBSCRIBE_WORKLIST,
                receiving_ae=receiving_ae,
                root=_root(archive_id),
                worklist_uid=workitem_uid,
            )
            removed += await tx.run(
                UNSUBSCRIBE_ALL, receiving_ae=receiving_ae, archive_ids=archive_ids
            )
        else:
            workitem = await find_workitem(tx, access, archive_id, workitem_uid)
            removed = await tx.run(
                UNSUBSCRIBE, workitem_id=workitem.workitem_id, receiving_ae=receiving_ae
            )
        if not removed:
            raise NotFound("there is no such subscription")
        await _record(tx, access, door, archive_id, workitem_uid, receiving_ae, "unsubscribe")


async def suspend(
    store: "Store",
    access: Access,
    door: str,
    *,
    archive_id: int | None,
    worklist_uid: str,
    receiving_ae: str,
) -> None:
    """Let the receiver keep its workitems and get no new ones (PS3.18 §11.12).

    Raises NotFound when it has no such subscription, Invalid for the title, Denied.
    """
    receiving_ae = checked_ae_title(receiving_ae)
    _readable(access, archive_id)
    async with store.database.transaction() as tx:
        await lock_worklist(tx)
        removed = await tx.run(
            UNSUBSCRIBE_WORKLIST,
            receiving_ae=receiving_ae,
            root=_root(archive_id),
            worklist_uid=worklist_uid,
        )
        if not removed:
            raise NotFound("there is no such subscription")
        await _record(tx, access, door, archive_id, worklist_uid, receiving_ae, "suspend")


def _readable(access: Access, archive_id: int | None) -> list[int] | None:
    archive_ids = policy.visible_archives(access, archive_id)
    if archive_ids == [] or (archive_id is None and archive_ids is not None):
        # A subscription outlives the request, so it may not span more than can be asked again.
        raise Denied("the caller may not subscribe here: use the root of its archive")
    return archive_ids


def _root(archive_id: int | None) -> int:
    return JOINT if archive_id is None else archive_id


async def _record(
    tx: Transaction,
    access: Access,
    door: str,
    archive_id: int | None,
    workitem_uid: str,
    receiving_ae: str,
    operation: str,
) -> None:
    await audit.record(
        tx,
        access,
        audit.AuditRecord(
            action="update",
            door=door,
            archive_id=archive_id,
            sop_instance_uid=workitem_uid,
            detail={"operation": operation, "receiving_ae": receiving_ae},
        ),
    )
