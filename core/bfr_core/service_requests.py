"""Service requests: what is to be examined, by accession number, with its examinations.

A request is told of in worklist items (PS3.4 Table K.6-1), one for each examination: that is, for
each scheduled procedure step. Whoever feeds them (a command today, a RIS over HL7 later) gives
DICOM JSON; what is searched most is kept in columns beside it.
"""

import datetime
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from bfr_core import audit, policy
from bfr_core.access import Access
from bfr_core.database import Transaction
from bfr_core.dataset_matching import answer, matches, values_of
from bfr_core.errors import Denied, Invalid
from bfr_core.instances import Dataset, clean_json, parse_date, text
from bfr_core.matching import checked_uid, range_bounds
from bfr_core.settings import STEP_STATUSES

if TYPE_CHECKING:
    from bfr_core.store import Store

DOOR = "worklist"
STEPS = "00400100"  # Scheduled Procedure Step Sequence
ACCESSION_NUMBER, STUDY_INSTANCE_UID = "00080050", "0020000D"
STEP_ID, STEP_DATE, STEP_STATUS = "00400009", "00400002", "00400020"
# Of the requested procedure (PS3.3 §C.4.11); all else but the step is of the whole request.
PROCEDURE = frozenset(
    {"00081110", "0020000D", "00321060", "00321064", "00400026", "00400027", "00401001", "00401002"}
    | {"00401003", "00401004", "00401005", "00401008", "0040100A", "00401010", "00401400", STEPS}
)
REQUIRED = {  # type 1 of a worklist item, by sequence and attribute
    ACCESSION_NUMBER: "Accession Number (0008,0050)",
    "00100010": "Patient's Name (0010,0010)",
    "00100020": "Patient ID (0010,0020)",
}
REQUIRED_OF_STEP = {
    "00080060": "Modality (0008,0060)",
    "00400001": "Scheduled Station AE Title (0040,0001)",
    STEP_DATE: "Scheduled Procedure Step Start Date (0040,0002)",
}
PAGE = 500

PUT_REQUEST = """
    INSERT INTO service_request (archive_id, accession_number, attributes)
    VALUES (%(archive_id)s, %(accession_number)s, %(attributes)s)
    ON CONFLICT (accession_number, archive_id)
    DO UPDATE SET attributes = excluded.attributes, updated_at = now()
    RETURNING service_request_id
"""
PUT_EXAMINATION = """
    INSERT INTO examination (service_request_id, archive_id, scheduled_procedure_step_id,
        study_instance_uid, scheduled_on, status, attributes)
    VALUES (%(service_request_id)s, %(archive_id)s, %(step_id)s, %(study_instance_uid)s,
        %(scheduled_on)s, coalesce(%(status)s, 'SCHEDULED'), %(attributes)s)
    ON CONFLICT (service_request_id, scheduled_procedure_step_id)
    DO UPDATE SET study_instance_uid = excluded.study_instance_uid,
        scheduled_on = excluded.scheduled_on, attributes = excluded.attributes,
        status = coalesce(%(status)s, examination.status), updated_at = now()
    RETURNING examination_id
"""
WORKLIST = """
    SELECT examination_id, scheduled_on, status, examination.attributes,
        service_request.attributes AS request_attributes
    FROM examination JOIN service_request USING (service_request_id)
    WHERE examination.archive_id = %(archive_id)s AND status = ANY(%(statuses)s)
        AND scheduled_on >= %(first_day)s AND scheduled_on <= %(last_day)s
        AND (scheduled_on, examination_id) > (%(after_day)s, %(after_id)s)
    ORDER BY scheduled_on, examination_id
    LIMIT %(page)s
"""


@dataclass(frozen=True, slots=True)
class Examination:
    """One scheduled procedure step, as a worklist item."""

    examination_id: int
    scheduled_on: datetime.date
    status: str  # Scheduled Procedure Step Status, or how it was performed
    attributes: Dataset
    request_attributes: Dataset

    @property
    def item(self) -> Dataset:
        """The worklist item, with the status of this moment."""
        steps = [
            {**step, STEP_STATUS: {"vr": "CS", "Value": [self.status]}}
            for step in self.attributes[STEPS]["Value"]
        ]
        return {
            **self.request_attributes,
            **self.attributes,
            STEPS: {"vr": "SQ", "Value": steps},
        }


async def put_examination(tx: Transaction, access: Access, archive_id: int, item: Dataset) -> int:
    """Keep a worklist item and return the number of its examination.

    The same accession number and step again replace what was kept, but for a status that the item
    does not tell. Without a Study Instance UID or Scheduled Procedure Step ID it gets one. Raises
    Denied, Invalid naming what is missing.
    """
    if not policy.may_store(access, archive_id):
        raise Denied("requests of this archive are not the caller's")
    steps = item.get(STEPS, {}).get("Value") or []
    if len(steps) != 1:
        raise Invalid("Scheduled Procedure Step Sequence (0040,0100) has one item")
    step = steps[0]
    for source, required in ((item, REQUIRED), (step, REQUIRED_OF_STEP)):
        for tag, name in required.items():
            if not any(values_of(source.get(tag, {}))):
                raise Invalid(f"{name} is missing")
    scheduled_on = parse_date(text(step, STEP_DATE))
    if scheduled_on is None:
        raise Invalid(f"{REQUIRED_OF_STEP[STEP_DATE]} is no date")
    status = text(step, STEP_STATUS) or None
    if status is not None and status not in STEP_STATUSES:
        raise Invalid("Scheduled Procedure Step Status (0040,0020) is none of its terms")
    accession_number = text(item, ACCESSION_NUMBER)
    step_id = text(step, STEP_ID) or accession_number
    study_uid = text(item, STUDY_INSTANCE_UID) or _study_uid(archive_id, accession_number)
    procedure = {
        **{tag: element for tag, element in item.items() if tag in PROCEDURE},
        STUDY_INSTANCE_UID: {
            "vr": "UI",
            "Value": [checked_uid(STUDY_INSTANCE_UID, study_uid)],
        },
        STEPS: {"vr": "SQ", "Value": [{**step, STEP_ID: {"vr": "SH", "Value": [step_id]}}]},
    }
    request = {tag: element for tag, element in item.items() if tag not in PROCEDURE}
    request_id = await tx.value(
        PUT_REQUEST,
        archive_id=archive_id,
        accession_number=accession_number,
        attributes=orjson.dumps(clean_json(request)).decode(),
    )
    examination_id = await tx.value(
        PUT_EXAMINATION,
        service_request_id=request_id,
        archive_id=archive_id,
        step_id=step_id,
        study_instance_uid=study_uid,
        scheduled_on=scheduled_on,
        status=status,
        attributes=orjson.dumps(clean_json(procedure)).decode(),
    )
    await audit.record(
        tx,
        access,
        audit.AuditRecord(
            action="create",
            door=DOOR,
            archive_id=archive_id,
            study_instance_uid=study_uid,
            detail={"examination": examination_id},
        ),
    )
    return int(examination_id)


def _study_uid(archive_id: int, accession_number: str) -> str:
    """Return the same UID for each message about a request that names none."""
    name = uuid.uuid5(uuid.NAMESPACE_OID, f"{archive_id} {accession_number}")
    return f"2.25.{name.int}"


async def search_worklist(
    store: "Store", access: Access, archive_id: int, keys: Dataset, limit: int
) -> list[Dataset]:
    """Return the worklist items that match, by day, with what the keys ask for (PS3.4 §K.4.1).

    Of examinations whose status is in the worklist. Raises Denied, Invalid naming a key.
    """
    if not policy.may_read(access, archive_id):
        raise Denied("the worklist of this archive is not the caller's")
    first_day, last_day = _days(keys)
    answers: list[Dataset] = []
    after_day, after_id = datetime.date.min, 0
    while len(answers) < limit:
        async with store.database.transaction() as tx:
            page = await tx.all(
                Examination,
                WORKLIST,
                archive_id=archive_id,
                statuses=list(store.settings.worklist_statuses),
                first_day=first_day,
                last_day=last_day,
                after_day=after_day,
                after_id=after_id,
                page=PAGE,
            )
        found = [one.item for one in page]
        answers += [answer(item, keys) for item in found if matches(item, keys)]
        if len(page) < PAGE:
            break
        after_day, after_id = page[-1].scheduled_on, page[-1].examination_id
    answers = answers[:limit]
    async with store.database.transaction() as tx:
        await audit.record(
            tx,
            access,
            audit.AuditRecord(
                action="search", door=DOOR, archive_id=archive_id, detail={"results": len(answers)}
            ),
        )
    return answers


def _days(keys: Dataset) -> tuple[datetime.date, datetime.date]:
    """Return the days that a query can mean, so that an index finds them."""
    steps: list[Any] = keys.get(STEPS, {}).get("Value") or [{}]
    wanted = values_of(steps[0].get(STEP_DATE, {}))
    low, high = (None, None)
    if len(wanted) == 1 and wanted[0] not in ("", "*"):
        low, high = range_bounds(STEP_DATE, wanted[0], "date", parse_date, None)
    return low or datetime.date.min, high or datetime.date.max
