"""Workitems: the Unified Procedure Steps of an archive's worklist (PS3.4 Annex CC)."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson

from bfr_core import audit, policy, workitem_reports
from bfr_core.access import Access
from bfr_core.connections import Archive
from bfr_core.database import Transaction
from bfr_core.errors import Conflict, Denied, Invalid
from bfr_core.instances import (
    ISSUER_OF_PATIENT_ID,
    PATIENT_ID,
    STUDY_INSTANCE_UID,
    Dataset,
)
from bfr_core.json_model import checked_dataset, first_value
from bfr_core.matching import UID_MAX_CHARACTERS, Match, checked_uid
from bfr_core.workitem_attributes import (
    MODIFICATION_DATETIME,
    PROCEDURE_STEP_STATE,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    TRANSACTION_UID,
    UPS_PUSH,
    WORKLIST_LABEL,
    check_cancel_request,
    check_create,
    check_update,
    date_time,
    final_state_problem,
    with_cancellation,
)
from bfr_core.workitem_reports import lock_worklist
from bfr_core.workitem_rows import COLUMNS, Workitem, find_workitem
from bfr_core.workitem_search import conditions_of, matchable
from bfr_core.workitem_states import CHANGES, Operation, Status, Step, step
from bfr_core.workitem_subscriptions import subscribe_to_new

if TYPE_CHECKING:
    from bfr_core.store import Store

CHARACTER_SET = "00080005"
ACTIONS: Mapping[str, audit.Action] = {"create": "create", "retrieve": "read"}
REQUESTING_AE = "00741236"

IS_TAKEN = "SELECT EXISTS (SELECT FROM workitem WHERE workitem_uid = %(workitem_uid)s)"
ADD = f"""
    INSERT INTO workitem (archive_id, workitem_uid, state, dataset, matchable)
    VALUES (%(archive_id)s, %(workitem_uid)s, 'SCHEDULED', %(dataset)s, %(matchable)s)
    RETURNING {COLUMNS}
"""
CHANGE = """
    UPDATE workitem SET state = %(state)s, transaction_uid = %(transaction_uid)s,
        dataset = %(dataset)s, matchable = %(matchable)s, changed_at = now()
    WHERE workitem_id = %(workitem_id)s
"""
SEARCH = """
    SELECT dataset FROM workitem
    WHERE deleted_at IS NULL
        AND (%(archive_ids)s::integer[] IS NULL OR archive_id = ANY(%(archive_ids)s)) AND {where}
    ORDER BY {order} LIMIT %(limit)s OFFSET %(offset)s
"""
# Whose record is seen, where the archive knows the patient by the same identifier (audit).
PATIENT_OF = """
    SELECT patient_id FROM patient WHERE archive_id = %(archive_id)s
        AND patient_identifier = %(patient_identifier)s AND issuer = %(issuer)s
        AND patient_identifier <> ''
"""
# What nobody keeps by a deletion lock (§CC.2.1.3).
DELETE_OLD = """
    UPDATE workitem SET deleted_at = now(), dataset = '{}', matchable = '{}'
    WHERE deleted_at IS NULL AND state IN ('COMPLETED', 'CANCELED')
        AND changed_at < now() - make_interval(days => %(days)s)
        AND NOT EXISTS (SELECT FROM workitem_subscription
            WHERE workitem_subscription.workitem_id = workitem.workitem_id AND deletion_lock)
    RETURNING workitem_id
"""
DELETE_SUBSCRIPTIONS = """
    DELETE FROM workitem_subscription WHERE workitem_id = ANY(%(workitem_ids)s)
"""


class WorkitemRefused(Conflict):
    """The request does not fit the workitem; `status` is that of PS3.4 §CC.2."""

    def __init__(self, message: str, status: Status = Status.NO_LONGER_UPDATED) -> None:
        super().__init__(message)
        self.status = status


REASONS = {
    Status.DUPLICATE: "there is a workitem with this UID already",
    Status.NO_LONGER_UPDATED: "the workitem is in a final state and may no longer be updated",
    Status.WRONG_TRANSACTION_UID: "the Transaction UID is missing or not the performer's",
    Status.ALREADY_IN_PROGRESS: "the workitem is in progress already",
    Status.SCHEDULED_BY_CREATION_ONLY: "a workitem becomes SCHEDULED by its creation only",
    Status.NOT_IN_PROGRESS: "the workitem is not yet in progress",
    Status.COMPLETED_ALREADY: "the workitem is completed already",
    Status.PERFORMER_CANNOT_BE_CONTACTED: "nobody subscribes to the workitem who could be told",
}


async def create_workitem(
    store: "Store",
    access: Access,
    door: str,
    archive: Archive,
    workitem_uid: str | None,
    sent: object,
) -> tuple[str, bool]:
    """Add a workitem to the archive's worklist.

    Returns its UID, and whether the archive has filled in an empty Worklist Label (0074,1202).
    Raises Denied, Invalid for what table CC.2.5-3 does not allow, WorkitemRefused for a UID that
    is taken.
    """
    if not policy.may_store(access, archive.archive_id):
        raise Denied("the caller may not create workitems here")
    dataset = checked_dataset(sent, store.settings.header_max_depth)
    check_create(dataset)
    within = first_value(dataset, SOP_INSTANCE_UID)
    uid = _one_uid("the workitem UID", workitem_uid, within)
    if uid is None:
        raise Invalid("the workitem UID is neither in the query nor in the data set")
    _check_study_uid(dataset)
    modified = first_value(dataset, WORKLIST_LABEL) is None
    if modified:
        dataset[WORKLIST_LABEL] = {"vr": "LO", "Value": [archive.name[:64] or archive.ae_title]}
    dataset.pop(TRANSACTION_UID, None)
    dataset[SOP_CLASS_UID] = {"vr": "UI", "Value": [UPS_PUSH]}
    dataset[SOP_INSTANCE_UID] = {"vr": "UI", "Value": [uid]}
    dataset = _stamped(dataset)
    async with store.database.transaction() as tx:
        await lock_worklist(tx)
        taken = await tx.value(IS_TAKEN, workitem_uid=uid)
        if not taken:
            workitem = await tx.one(
                Workitem,
                ADD,
                archive_id=archive.archive_id,
                workitem_uid=uid,
                **_stored(dataset),
            )
            assert workitem is not None
            await subscribe_to_new(tx, workitem)
            await workitem_reports.tell_creation(tx, workitem)
            await _record(tx, access, door, workitem, "create")
    if taken:
        await _refuse(store, access, door, archive.archive_id, uid, Status.DUPLICATE, "create")
    return uid, modified


async def retrieve_workitem(
    store: "Store", access: Access, door: str, archive_id: int | None, workitem_uid: str
) -> Dataset:
    """Return the workitem without its Transaction UID. Raises NotFound, Gone."""
    async with store.database.transaction() as tx:
        workitem = await find_workitem(tx, access, archive_id, workitem_uid)
        await _record(tx, access, door, workitem, "retrieve")
    return workitem.dataset


async def update_workitem(
    store: "Store",
    access: Access,
    door: str,
    archive_id: int | None,
    workitem_uid: str,
    transaction_uid: str | None,
    sent: object,
) -> None:
    """Set the attributes that are sent (§CC.2.6). A sequence replaces the one that was there.

    Raises NotFound, Gone, Denied, Invalid, WorkitemRefused.
    """
    changes = checked_dataset(sent, store.settings.header_max_depth)
    within = first_value(changes, TRANSACTION_UID)
    changes.pop(TRANSACTION_UID, None)
    transaction_uid = _one_uid("the Transaction UID", transaction_uid, within)
    check_update(changes)
    _check_study_uid(changes)
    async with store.database.transaction() as tx:
        await lock_worklist(tx)
        workitem = await _find_to_change(tx, access, archive_id, workitem_uid)
        done = step(Operation.UPDATE, workitem.state, workitem.transaction_uid, transaction_uid)
        if done.status is Status.SUCCESS:
            before = workitem.dataset
            workitem = replace(workitem, dataset=_stamped({**before, **changes}))
            await _change(tx, workitem)
            await workitem_reports.tell_update(tx, before, workitem)
            await _record(tx, access, door, workitem, Operation.UPDATE.value)
    await _raise_refusal(store, access, door, workitem, done, Operation.UPDATE)


async def change_state(
    store: "Store",
    access: Access,
    door: str,
    archive_id: int | None,
    workitem_uid: str,
    sent: object,
) -> Status:
    """Change the state as the sent Procedure Step State and Transaction UID say (§CC.2.1).

    Returns SUCCESS, ALREADY_CANCELED or ALREADY_COMPLETED. Raises NotFound, Gone, Denied, Invalid,
    WorkitemRefused.
    """
    request = checked_dataset(sent, store.settings.header_max_depth)
    wanted = first_value(request, PROCEDURE_STEP_STATE)
    if wanted not in CHANGES:
        raise Invalid("ProcedureStepState (00741000) is IN PROGRESS, COMPLETED or CANCELED")
    if extra := request.keys() - {PROCEDURE_STEP_STATE, TRANSACTION_UID, CHARACTER_SET}:
        raise Invalid(f"{min(extra)} is no part of a change of state")
    operation = CHANGES[wanted]
    transaction_uid = _one_uid("the Transaction UID", None, first_value(request, TRANSACTION_UID))
    async with store.database.transaction() as tx:
        await lock_worklist(tx)
        workitem = await _find_to_change(tx, access, archive_id, workitem_uid)
        done = step(operation, workitem.state, workitem.transaction_uid, transaction_uid)
        problem = None
        if done.states:
            if operation is Operation.CANCEL:
                now = datetime.datetime.now(datetime.UTC)
                workitem = replace(workitem, dataset=with_cancellation(workitem.dataset, now))
            problem = final_state_problem(workitem.dataset, done.states[-1])
        if problem is None:
            if operation is Operation.CLAIM and done.states:
                workitem = replace(workitem, transaction_uid=transaction_uid)
            await _go_through(tx, workitem, done)
            if _is_accepted(done):
                await _record(tx, access, door, workitem, operation.value)
    if problem is not None:
        done = Step(Status.FINAL_STATE_REQUIREMENTS)
    await _raise_refusal(store, access, door, workitem, done, operation, problem)
    return done.status


async def request_cancellation(
    store: "Store",
    access: Access,
    door: str,
    archive_id: int | None,
    workitem_uid: str,
    sent: object,
) -> Status:
    """Cancel what nobody has begun, or ask the performer to (§CC.2.2).

    Returns SUCCESS or ALREADY_CANCELED. Raises NotFound, Gone, Denied, Invalid, WorkitemRefused;
    also when nobody subscribes to a workitem in progress, so that nobody would be told.
    """
    request = checked_dataset(sent, store.settings.header_max_depth)
    check_cancel_request(request)
    operation = Operation.REQUEST_CANCEL
    async with store.database.transaction() as tx:
        await lock_worklist(tx)
        workitem = await _find_to_change(tx, access, archive_id, workitem_uid)
        done = step(operation, workitem.state, workitem.transaction_uid, None)
        if done.states:
            now = datetime.datetime.now(datetime.UTC)
            dataset = with_cancellation(workitem.dataset, now, request)
            await _go_through(tx, replace(workitem, dataset=dataset), done)
        elif done.status is Status.SUCCESS:
            request.pop(CHARACTER_SET, None)
            attributes = {
                REQUESTING_AE: {"vr": "AE", "Value": [access.subject[:16]]},
                **{tag: element for tag, element in request.items() if element.get("Value")},
            }
            if not await workitem_reports.tell_cancel_requested(tx, workitem, attributes):
                done = Step(Status.PERFORMER_CANNOT_BE_CONTACTED)
        if _is_accepted(done):
            await _record(tx, access, door, workitem, operation.value)
    await _raise_refusal(store, access, door, workitem, done, operation)
    return done.status


async def search_workitems(
    store: "Store",
    access: Access,
    door: str,
    *,
    archive_id: int | None,
    matches: Sequence[Match],
    limit: int,
    offset: int,
) -> list[Dataset]:
    """Return the workitems that match every key, in the order of their creation (§CC.2.8).

    Raises Invalid naming a key that cannot be matched.
    """
    conditions = conditions_of(matches)
    async with store.database.transaction() as tx:
        rows = await tx.tuples(
            SEARCH.format(where=conditions.where(), order=_order(matches)),
            **conditions.params,
            archive_ids=policy.visible_archives(access, archive_id),
            limit=limit,
            offset=offset,
        )
        # The keys tell what was searched by; their values may be a person's and stay out.
        await audit.record(
            tx,
            access,
            audit.AuditRecord(
                action="search",
                door=door,
                archive_id=archive_id,
                detail={"keys": [match.tag for match in matches], "results": len(rows)},
            ),
        )
    return [dataset for (dataset,) in rows]


async def delete_old(tx: Transaction, keep_days: int) -> int:
    """Delete what has been final for so long and has no deletion lock; return how many these are.

    Their UIDs stay taken.
    """
    await lock_worklist(tx)
    rows = await tx.tuples(DELETE_OLD, days=keep_days)
    await tx.run(DELETE_SUBSCRIPTIONS, workitem_ids=[workitem_id for (workitem_id,) in rows])
    return len(rows)


async def _find_to_change(
    tx: Transaction, access: Access, archive_id: int | None, workitem_uid: str
) -> Workitem:
    workitem = await find_workitem(tx, access, archive_id, workitem_uid)
    if not policy.may_store(access, workitem.archive_id):
        raise Denied("the caller may not change workitems here")
    return workitem


async def _go_through(tx: Transaction, workitem: Workitem, done: Step) -> None:
    """Put the workitem into each of the states and report each."""
    for state in done.states:
        element = {"vr": "CS", "Value": [state]}
        dataset = {**workitem.dataset, PROCEDURE_STEP_STATE: element}
        workitem = replace(workitem, state=state, dataset=dataset)
        await _change(tx, workitem)
        await workitem_reports.tell_state(tx, workitem)


async def _change(tx: Transaction, workitem: Workitem) -> None:
    await tx.run(
        CHANGE,
        workitem_id=workitem.workitem_id,
        state=workitem.state,
        transaction_uid=workitem.transaction_uid,
        **_stored(workitem.dataset),
    )


def _order(matches: Sequence[Match]) -> str:
    # PostgreSQL takes any containment for common, and would for a small limit walk through the
    # whole worklist in order rather than ask the index on `matchable`: the sum keeps it from that.
    return "workitem_id + 0" if matches else "workitem_id"


def _stored(dataset: Dataset) -> dict[str, str]:
    dataset = dict(sorted(dataset.items()))
    return {
        "dataset": orjson.dumps(dataset).decode(),
        "matchable": orjson.dumps(matchable(dataset)).decode(),
    }


def _stamped(dataset: Dataset) -> Dataset:
    now = date_time(datetime.datetime.now(datetime.UTC))
    dataset = {**dataset, MODIFICATION_DATETIME: {"vr": "DT", "Value": [now]}}
    if CHARACTER_SET in dataset:  # JSON and XML are read into Unicode whatever they came in
        dataset[CHARACTER_SET] = {"vr": "CS", "Value": ["ISO_IR 192"]}
    return dataset


def _one_uid(name: str, one: str | None, other: str | None) -> str | None:
    """Return the UID that is given here or there. Raises Invalid when it is none, or two."""
    if one is not None and other is not None and one != other:
        raise Invalid(f"{name} is given twice and differs")
    uid = other if one is None else one
    return None if uid is None else checked_uid(name, uid[: UID_MAX_CHARACTERS + 1])


def _check_study_uid(dataset: Dataset) -> None:
    uid = first_value(dataset, STUDY_INSTANCE_UID)
    if uid is not None:
        checked_uid(STUDY_INSTANCE_UID, uid)


def _is_accepted(done: Step) -> bool:
    return done.status in (Status.SUCCESS, Status.ALREADY_CANCELED, Status.ALREADY_COMPLETED)


async def _raise_refusal(
    store: "Store",
    access: Access,
    door: str,
    workitem: Workitem,
    done: Step,
    operation: Operation,
    problem: str | None = None,
) -> None:
    if not _is_accepted(done):
        await _refuse(
            store,
            access,
            door,
            workitem.archive_id,
            workitem.workitem_uid,
            done.status,
            operation.value,
            problem,
        )


async def _refuse(
    store: "Store",
    access: Access,
    door: str,
    archive_id: int,
    workitem_uid: str,
    status: Status,
    operation: str,
    problem: str | None = None,
) -> None:
    await audit.refuse(
        store.database,
        access,
        audit.AuditRecord(
            action="update",
            door=door,
            outcome="refused",
            archive_id=archive_id,
            sop_instance_uid=workitem_uid,
            detail={"operation": operation, "status": f"{status.value:04X}H"},
        ),
    )
    raise WorkitemRefused(problem or REASONS[status], status)


async def _record(
    tx: Transaction, access: Access, door: str, workitem: Workitem, operation: str
) -> None:
    patient_id = await tx.value(
        PATIENT_OF,
        archive_id=workitem.archive_id,
        patient_identifier=first_value(workitem.dataset, PATIENT_ID) or "",
        issuer=first_value(workitem.dataset, ISSUER_OF_PATIENT_ID) or "",
    )
    await audit.record(
        tx,
        access,
        audit.AuditRecord(
            action=ACTIONS.get(operation, "update"),
            door=door,
            archive_id=workitem.archive_id,
            patient_id=patient_id,
            study_instance_uid=first_value(workitem.dataset, STUDY_INSTANCE_UID),
            sop_instance_uid=workitem.workitem_uid,
            detail={"operation": operation},
        ),
    )
