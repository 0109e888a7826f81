"""Workitem event reports: an outbox row per report and receiver (PS3.4 §CC.2.4).

Every change of the worklist takes one lock first. So the numbers of reports grow in the order in
which they are committed, and who has been sent a number has been sent everything below it.
"""

from typing import TYPE_CHECKING, Any

import orjson

from bfr_core import audit, policy
from bfr_core.access import Access
from bfr_core.connections import checked_ae_title
from bfr_core.database import Transaction
from bfr_core.errors import Denied
from bfr_core.instances import Dataset
from bfr_core.json_model import first_value, items_of
from bfr_core.notifications import notify
from bfr_core.workitem_attributes import (
    HUMAN_PERFORMERS,
    INPUT_READINESS_STATE,
    PROCEDURE_STEP_STATE,
    PROGRESS_INFORMATION,
    STATION_NAME_CODE,
    UPS_PUSH,
)
from bfr_core.workitem_rows import Workitem

if TYPE_CHECKING:
    from bfr_core.store import Store

# Event Type ID (0000,1002), table CC.2.4-1
STATE_REPORT, CANCEL_REQUESTED, PROGRESS_REPORT, ASSIGNED = 1, 2, 3, 5
PROGRESS_REPORTED = ("00741004", "00741006", "00741008")
MESSAGE_IDS = 65_535
BATCH = 200
JOINT = 0  # instead of an archive: the joint root

LOCK_WORKLIST = "SELECT pg_advisory_xact_lock(424653)"
TELL = """
    INSERT INTO workitem_report (receiving_ae, archive_id, report)
    SELECT receiving_ae, %(archive_id)s, %(report)s
    FROM workitem_subscription WHERE workitem_id = %(workitem_id)s
"""
TELL_ONE = """
    INSERT INTO workitem_report (receiving_ae, archive_id, report)
    VALUES (%(receiving_ae)s, %(archive_id)s, %(report)s)
"""
SENT = """
    SELECT sent_id FROM workitem_receiver
    WHERE receiving_ae = %(receiving_ae)s AND archive_id = %(archive_id)s
"""
NEXT = """
    SELECT workitem_report_id, report FROM workitem_report
    WHERE receiving_ae = %(receiving_ae)s AND workitem_report_id > %(after)s
        AND (%(archive_ids)s::integer[] IS NULL OR archive_id = ANY(%(archive_ids)s))
    ORDER BY workitem_report_id LIMIT %(limit)s
"""
MARK_SENT = """
    INSERT INTO workitem_receiver (receiving_ae, archive_id, sent_id)
    VALUES (%(receiving_ae)s, %(archive_id)s, %(sent_id)s)
    ON CONFLICT (receiving_ae, archive_id)
    DO UPDATE SET sent_id = greatest(workitem_receiver.sent_id, excluded.sent_id)
"""
DELETE_OLD = """
    DELETE FROM workitem_report WHERE written_at < now() - make_interval(hours => %(hours)s)
"""


async def lock_worklist(tx: Transaction) -> None:
    """Let no other change of the worklist be until this transaction ends."""
    await tx.run(LOCK_WORKLIST)


async def tell_creation(tx: Transaction, workitem: Workitem) -> None:
    """Report a new workitem, and to whom it is assigned if anybody."""
    await tell_state(tx, workitem)
    if attributes := assigned_attributes(workitem.dataset):
        await _tell(tx, workitem, ASSIGNED, attributes)


async def tell_state(tx: Transaction, workitem: Workitem) -> None:
    """Report the state that the workitem has now."""
    await _tell(tx, workitem, STATE_REPORT, state_attributes(workitem.dataset))


async def tell_update(tx: Transaction, before: Dataset, workitem: Workitem) -> None:
    """Report what of an update is an event: readiness, assignment, progress (§CC.2.4.3)."""
    after = workitem.dataset
    if before.get(INPUT_READINESS_STATE) != after.get(INPUT_READINESS_STATE):
        await tell_state(tx, workitem)
    if any(before.get(tag) != after.get(tag) for tag in (STATION_NAME_CODE, HUMAN_PERFORMERS)):
        await _tell(tx, workitem, ASSIGNED, assigned_attributes(after))
    if _progress(before) != _progress(after):
        progress = after.get(PROGRESS_INFORMATION, {"vr": "SQ"})
        await _tell(tx, workitem, PROGRESS_REPORT, {PROGRESS_INFORMATION: progress})


async def tell_cancel_requested(tx: Transaction, workitem: Workitem, attributes: Dataset) -> int:
    """Report that somebody asks for cancellation; return how many are told."""
    return await _tell(tx, workitem, CANCEL_REQUESTED, attributes)


async def tell_subscriber(tx: Transaction, receiving_ae: str, workitem: Workitem) -> None:
    """Report the current state to one receiver, as at the beginning of a subscription."""
    report = report_of(workitem.workitem_uid, STATE_REPORT, state_attributes(workitem.dataset))
    await tx.run(
        TELL_ONE,
        receiving_ae=receiving_ae,
        archive_id=workitem.archive_id,
        report=orjson.dumps(report).decode(),
    )
    await notify(tx)


async def _tell(tx: Transaction, workitem: Workitem, event_type: int, attributes: Dataset) -> int:
    report = orjson.dumps(report_of(workitem.workitem_uid, event_type, attributes)).decode()
    told = await tx.run(
        TELL, workitem_id=workitem.workitem_id, archive_id=workitem.archive_id, report=report
    )
    if told:
        await notify(tx)
    return told


def _progress(dataset: Dataset) -> list[Dataset]:
    return [
        {tag: item[tag] for tag in PROGRESS_REPORTED if tag in item}
        for item in items_of(dataset, PROGRESS_INFORMATION)
    ]


def report_of(workitem_uid: str, event_type: int, attributes: Dataset) -> Dataset:
    """Return an event report; its Message ID follows when it is sent (PS3.18 §11.13)."""
    return {
        "00000002": {"vr": "UI", "Value": [UPS_PUSH]},
        "00001000": {"vr": "UI", "Value": [workitem_uid]},
        "00001002": {"vr": "US", "Value": [event_type]},
        **attributes,
    }


def state_attributes(dataset: Dataset) -> Dataset:
    """Return what a UPS State Report tells."""
    return {tag: dataset[tag] for tag in (INPUT_READINESS_STATE, PROCEDURE_STEP_STATE)}


def assigned_attributes(dataset: Dataset) -> Dataset:
    """Return what a UPS Assigned report tells; nothing when nobody is assigned."""
    result: Dataset = {}
    if items_of(dataset, STATION_NAME_CODE):
        result[STATION_NAME_CODE] = dataset[STATION_NAME_CODE]
    performers = items_of(dataset, HUMAN_PERFORMERS)
    codes: list[Any] = [code for one in performers for code in items_of(one, "00404009")]
    organisations = [name for one in performers if (name := first_value(one, "00404036"))]
    if codes:
        result["00404009"] = {"vr": "SQ", "Value": codes}
    if organisations:
        result["00404036"] = {"vr": "LO", "Value": organisations[:1]}
    return result


class ReportReader:
    """The reports of one receiver at one root, from where the last connection came to.

    Each connection of a receiver has a reader of its own, so that each gets every report.
    """

    def __init__(
        self, store: "Store", access: Access, receiving_ae: str, archive_id: int | None
    ) -> None:
        self._store = store
        self._receiving_ae = receiving_ae
        self._archive_ids = policy.visible_archives(access, archive_id)
        self._root = JOINT if archive_id is None else archive_id
        self._after = 0

    async def open(self, access: Access, door: str) -> None:
        """Begin after what has been sent to the receiver before; the access is on record."""
        checked_ae_title(self._receiving_ae)
        if self._archive_ids == []:
            raise Denied("the caller may not read the worklist")
        async with self._store.database.transaction() as tx:
            self._after = (
                await tx.value(SENT, receiving_ae=self._receiving_ae, archive_id=self._root) or 0
            )
            await audit.record(
                tx,
                access,
                audit.AuditRecord(
                    action="read",
                    door=door,
                    archive_id=self._root or None,
                    detail={"receiving_ae": self._receiving_ae, "channel": "opened"},
                ),
            )

    async def read(self) -> list[bytes]:
        """Return the next reports as DICOM JSON, in order; none when all have been read."""
        async with self._store.database.transaction() as tx:
            rows = await tx.tuples(
                NEXT,
                receiving_ae=self._receiving_ae,
                after=self._after,
                archive_ids=self._archive_ids,
                limit=BATCH,
            )
        if rows:
            self._after = rows[-1][0]
        return [
            orjson.dumps(
                {**report, "00000110": {"vr": "US", "Value": [number % MESSAGE_IDS + 1]}},
                option=orjson.OPT_SORT_KEYS,
            )
            for number, report in rows
        ]

    async def mark_sent(self) -> None:
        """Remember that what was read has gone out: the next connection begins after it."""
        async with self._store.database.transaction() as tx:
            await tx.run(
                MARK_SENT,
                receiving_ae=self._receiving_ae,
                archive_id=self._root,
                sent_id=self._after,
            )


async def delete_old(tx: Transaction, keep_hours: int) -> int:
    """Delete the reports that no receiver has come for in time, and return their number."""
    return await tx.run(DELETE_OLD, hours=keep_hours)
