"""Availability: which nodes are told that a study is here, and what they hear (PS3.4 Annex R)."""

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bfr_core import access, audit, jobs
from bfr_core.database import Transaction
from bfr_core.errors import NotFound
from bfr_core.instances import Dataset
from bfr_core.outgoing import Link, find_link
from bfr_core.retrieval import FoundInstance, retrieve_instances

if TYPE_CHECKING:
    from bfr_core.store import Store

DOOR = "IAN"
PERFORMED_PROCEDURE_STEP_CLASS = "1.2.840.10008.3.1.2.3.3"

NODES = """
    SELECT study_id, dicom_node_id
    FROM series JOIN archive USING (archive_id) JOIN dicom_node USING (connection_id)
    WHERE series_id = %(series_id)s AND availability_wanted
    ORDER BY dicom_node_id
"""
LOCK_STUDY = "SELECT FROM study WHERE study_id = %(study_id)s FOR NO KEY UPDATE"
IS_RECEIVING = """
    SELECT EXISTS (SELECT FROM series WHERE study_id = %(study_id)s AND state = 'receiving')
"""
FIND_STUDY = """
    SELECT archive_id, patient_id, study_instance_uid
    FROM study WHERE study_id = %(study_id)s
"""
PERFORMED_STEPS = """
    SELECT DISTINCT sop_instance_uid
    FROM examination JOIN performed_examination USING (examination_id)
    JOIN performed_procedure_step AS step USING (performed_procedure_step_id)
    WHERE study_instance_uid = %(study_instance_uid)s AND step.archive_id = %(archive_id)s
    ORDER BY sop_instance_uid
"""


@dataclass(frozen=True, slots=True)
class Notice:
    """One Instance Availability Notification."""

    link: Link
    sop_instance_uid: str
    dataset: Dataset


async def announce(tx: Transaction, series_id: int) -> None:
    """Have the nodes that want it told of a study, when its last series has just been sealed."""
    nodes = await tx.tuples(NODES, series_id=series_id)
    if not nodes:
        return
    study_id = int(nodes[0][0])
    # Of two series that are sealed at the same moment, the second one sees the first.
    await tx.run(LOCK_STUDY, study_id=study_id)
    if await tx.value(IS_RECEIVING, study_id=study_id):
        return
    for _, dicom_node_id in nodes:
        await jobs.defer_notify_availability(tx, study_id, dicom_node_id)


async def find_notice(store: "Store", study_id: int, dicom_node_id: int) -> Notice | None:
    """Return what the node is told of the study as it is now; None when either is gone."""
    caller = access.job("availability")
    try:
        async with store.database.transaction() as tx:
            rows = await tx.rows(FIND_STUDY, study_id=study_id)
            if not rows:
                return None
            study = rows[0]
            link = await find_link(tx, study["archive_id"], dicom_node_id)
            steps = await tx.tuples(
                PERFORMED_STEPS,
                study_instance_uid=study["study_instance_uid"],
                archive_id=study["archive_id"],
            )
            await audit.record(
                tx,
                caller,
                audit.AuditRecord(
                    action="export",
                    door=DOOR,
                    archive_id=study["archive_id"],
                    patient_id=study["patient_id"],
                    study_instance_uid=study["study_instance_uid"],
                    detail={"destination": link.node.ae_title},
                ),
            )
        instances = await retrieve_instances(
            store,
            caller,
            DOOR,
            archive_id=study["archive_id"],
            study_instance_uid=study["study_instance_uid"],
        )
    except NotFound:
        return None
    # The same notice sent twice is one: its UID says what it tells of.
    told = f"{study['study_instance_uid']} {len(instances)} {dicom_node_id}"
    return Notice(
        link,
        f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, told).int}",
        notice_dataset(link.calling_ae_title, instances, [str(uid) for (uid,) in steps]),
    )


def notice_dataset(
    ae_title: str, instances: list[FoundInstance], performed_step_uids: list[str]
) -> Dataset:
    """Return the attributes of the notice (PS3.3 §C.23.1)."""
    series: dict[str, list[Dataset]] = {}
    for one in instances:
        series.setdefault(one.series_instance_uid, []).append(
            {
                "00080054": _element("AE", ae_title),
                "00080056": _element("CS", "ONLINE"),
                "00081150": _element("UI", one.stored.sop_class_uid),
                "00081155": _element("UI", one.stored.sop_instance_uid),
            }
        )
    steps = [
        {
            "00081150": _element("UI", PERFORMED_PROCEDURE_STEP_CLASS),
            "00081155": _element("UI", uid),
            "00404019": {"vr": "SQ"},
        }
        for uid in performed_step_uids
    ]
    return {
        "00081111": {"vr": "SQ", "Value": steps} if steps else {"vr": "SQ"},
        "00081115": {
            "vr": "SQ",
            "Value": [
                {"00081199": {"vr": "SQ", "Value": objects}, "0020000E": _element("UI", uid)}
                for uid, objects in series.items()
            ],
        },
        "0020000D": _element("UI", instances[0].study_instance_uid),
    }


def _element(vr: str, value: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}
