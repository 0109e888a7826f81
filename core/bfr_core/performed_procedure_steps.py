"""Performed procedure steps: what a modality does and has done (PS3.4 Annex F, PS3.3 §C.4.14)."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import orjson
import psycopg

from bfr_core import audit, policy
from bfr_core.access import Access
from bfr_core.database import Transaction
from bfr_core.dataset_matching import values_of
from bfr_core.errors import Conflict, Denied, Invalid, NotFound
from bfr_core.instances import UID, Dataset, clean_json, text
from bfr_core.matching import checked_uid

if TYPE_CHECKING:
    from bfr_core.store import Store

Status = Literal["IN PROGRESS", "COMPLETED", "DISCONTINUED"]

STATUS = "00400252"
SCHEDULED_STEPS = "00400270"  # Scheduled Step Attributes Sequence
STUDY_INSTANCE_UID, ACCESSION_NUMBER, STEP_ID = "0020000D", "00080050", "00400009"
END_DATE, END_TIME, PERFORMED_SERIES = "00400250", "00400251", "00400340"
STATUSES = ("IN PROGRESS", "COMPLETED", "DISCONTINUED")
# Type 1 at its creation (PS3.4 Table F.7.2-1)
REQUIRED = (
    SCHEDULED_STEPS,
    "00080060",
    "00400241",
    "00400244",
    "00400245",
    STATUS,
    "00400253",
)
# What may not be changed later, by the same table
FIXED = frozenset(
    {"00080060", "00081120", "00100010", "00100020", "00100021", "00100030", "00100040"}
    | {"00200010", "00400241", "00400242", "00400243", "00400244", "00400245", "00400253"}
    | {SCHEDULED_STEPS, "00080016", "00080018"}
)

FIND = """
    SELECT performed_procedure_step_id, status, attributes
    FROM performed_procedure_step
    WHERE sop_instance_uid = %(sop_instance_uid)s AND archive_id = %(archive_id)s
    FOR UPDATE
"""
CREATE = """
    INSERT INTO performed_procedure_step (archive_id, sop_instance_uid, status, attributes)
    VALUES (%(archive_id)s, %(sop_instance_uid)s, %(status)s, %(attributes)s)
    RETURNING performed_procedure_step_id
"""
CHANGE = """
    UPDATE performed_procedure_step SET status = %(status)s, attributes = %(attributes)s
    WHERE performed_procedure_step_id = %(step)s
"""
KEEP_MESSAGE = """
    INSERT INTO performed_procedure_step_message
        (performed_procedure_step_id, service, caller, transfer_syntax_uid, dataset)
    VALUES (%(step)s, %(service)s, %(caller)s, %(transfer_syntax_uid)s, %(dataset)s)
"""
LINK = """
    INSERT INTO performed_examination (performed_procedure_step_id, examination_id)
    SELECT %(step)s, examination_id
    FROM examination JOIN service_request USING (service_request_id)
    WHERE examination.archive_id = %(archive_id)s
        AND (study_instance_uid = %(study_instance_uid)s
            OR (accession_number = %(accession_number)s AND accession_number <> ''))
        AND (%(step_id)s = '' OR scheduled_procedure_step_id = %(step_id)s)
    ON CONFLICT DO NOTHING
"""
# In the order of numbers, so that two steps of the same examinations wait for each other.
LINKED = """
    SELECT examination_id FROM examination
    WHERE examination_id IN (SELECT examination_id FROM performed_examination
        WHERE performed_procedure_step_id = %(step)s)
    ORDER BY examination_id FOR UPDATE
"""
STATUSES_OF = """
    SELECT status FROM performed_examination
    JOIN performed_procedure_step USING (performed_procedure_step_id)
    WHERE examination_id = %(examination_id)s
"""
SET_EXAMINATION = """
    UPDATE examination SET status = %(status)s, updated_at = now()
    WHERE examination_id = %(examination_id)s
"""


class MissingAttribute(Invalid):
    """An attribute is not there that has to be."""


class MissingAttributeValue(Invalid):
    """An attribute is empty that has to have a value."""


class StepExists(Conflict):
    """There is a performed procedure step under this UID."""


class StepIsFinal(Conflict):
    """The performed procedure step is over and is changed no more."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a modality has sent, as it came."""

    sop_instance_uid: str
    dataset: Dataset
    encoded: bytes
    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True)
class _Step:
    performed_procedure_step_id: int
    status: str
    attributes: Dataset


async def create_step(store: "Store", access: Access, archive_id: int, message: Message) -> None:
    """Keep a step that has begun, and what was scheduled becomes STARTED (N-CREATE).

    Raises Denied, StepExists, MissingAttribute, MissingAttributeValue, Invalid for a status or UID.
    """
    _require_permission(access, archive_id)
    checked_uid("00080018", message.sop_instance_uid)
    _require(message.dataset, REQUIRED)
    scheduled = message.dataset[SCHEDULED_STEPS]["Value"]
    for item in scheduled:
        _require(item, (STUDY_INSTANCE_UID,))
    if text(message.dataset, STATUS) != "IN PROGRESS":
        raise Invalid("Performed Procedure Step Status (0040,0252) begins with IN PROGRESS")
    try:
        async with store.database.transaction() as tx:
            step = int(
                await tx.value(
                    CREATE,
                    archive_id=archive_id,
                    sop_instance_uid=message.sop_instance_uid,
                    status="IN PROGRESS",
                    attributes=_json(message.dataset),
                )
            )
            for item in scheduled:
                await tx.run(
                    LINK,
                    step=step,
                    archive_id=archive_id,
                    study_instance_uid=text(item, STUDY_INSTANCE_UID),
                    accession_number=text(item, ACCESSION_NUMBER),
                    step_id=text(item, STEP_ID),
                )
            await _keep(tx, access, archive_id, step, "N-CREATE", message)
    except psycopg.errors.UniqueViolation as error:
        raise StepExists("there is a performed procedure step under this UID") from error


async def set_step(
    store: "Store", access: Access, archive_id: int, message: Message
) -> frozenset[str]:
    """Change a step and return the tags that may not be changed, which stay as they were (N-SET).

    Raises Denied, NotFound, StepIsFinal, MissingAttribute or MissingAttributeValue when it is to
    end without what has to be told by then, Invalid for a status.
    """
    _require_permission(access, archive_id)
    if not UID.fullmatch(message.sop_instance_uid):
        raise NotFound("there is no such performed procedure step")
    changes = {tag: one for tag, one in message.dataset.items() if tag not in FIXED}
    async with store.database.transaction() as tx:
        step = await tx.one(
            _Step, FIND, sop_instance_uid=message.sop_instance_uid, archive_id=archive_id
        )
        if step is None:
            raise NotFound("there is no such performed procedure step")
        if step.status != "IN PROGRESS":
            raise StepIsFinal("the performed procedure step may no longer be updated")
        merged = {**step.attributes, **changes}
        status = text(merged, STATUS)
        if status not in STATUSES:
            raise Invalid("Performed Procedure Step Status (0040,0252) is none of its terms")
        if status != "IN PROGRESS":
            _require(merged, (END_DATE, END_TIME))
        if status == "COMPLETED":
            _require(merged, (PERFORMED_SERIES,))
        await tx.run(
            CHANGE,
            step=step.performed_procedure_step_id,
            status=status,
            attributes=_json(merged),
        )
        await _keep(tx, access, archive_id, step.performed_procedure_step_id, "N-SET", message)
    return frozenset(message.dataset) & FIXED


def examination_status(statuses: Collection[str]) -> str:
    """Return the status of an examination with performed steps of these statuses."""
    if "IN PROGRESS" in statuses:
        return "STARTED"
    return "COMPLETED" if "COMPLETED" in statuses else "DISCONTINUED"


async def _keep(
    tx: Transaction,
    access: Access,
    archive_id: int,
    step: int,
    service: Literal["N-CREATE", "N-SET"],
    message: Message,
) -> None:
    """Keep the message, let the examinations follow, and leave the record."""
    await tx.run(
        KEEP_MESSAGE,
        step=step,
        service=service,
        caller=access.subject,
        transfer_syntax_uid=message.transfer_syntax_uid,
        dataset=message.encoded,
    )
    for (examination_id,) in await tx.tuples(LINKED, step=step):
        statuses = [one for (one,) in await tx.tuples(STATUSES_OF, examination_id=examination_id)]
        await tx.run(
            SET_EXAMINATION, examination_id=examination_id, status=examination_status(statuses)
        )
    await audit.record(
        tx,
        access,
        audit.AuditRecord(
            action="store",
            door=service,
            archive_id=archive_id,
            sop_instance_uid=message.sop_instance_uid,
        ),
    )


def _json(dataset: Dataset) -> str:
    return orjson.dumps(clean_json(dataset)).decode()


def _require_permission(access: Access, archive_id: int) -> None:
    if not policy.may_store(access, archive_id):
        raise Denied("who may not store cannot tell of performed procedure steps")


def _require(dataset: Dataset, tags: Collection[str]) -> None:
    for tag in tags:
        if tag not in dataset:
            raise MissingAttribute(f"({tag[:4]},{tag[4:]}) is missing")
        values: list[Any] = dataset[tag].get("Value") or []
        present = any(values) if dataset[tag]["vr"] == "SQ" else any(values_of(dataset[tag]))
        if not present:
            raise MissingAttributeValue(f"({tag[:4]},{tag[4:]}) has no value")
