"""Retrieval: the one way out. Each call asks the policy and leaves its audit record."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bfr_core import audit, policy
from bfr_core.access import Access
from bfr_core.errors import NotFound, Unavailable
from bfr_core.instance_rows import read_instance_row
from bfr_core.instances import UID
from bfr_core.manifest import StoredInstance, in_order
from bfr_core.matching import Conditions

if TYPE_CHECKING:
    from bfr_core.store import Store

SERIES = """
    SELECT series.series_id, series.archive_id, study.patient_id, study.study_instance_uid,
        series.series_instance_uid, series.manifest_key, series.manifest_index_bytes,
        series.manifest_bytes, instance.sop_instance_uid, instance.sop_class_uid,
        instance.transfer_syntax_uid, instance.instance_number, instance.pack_key,
        instance.offset_bytes, instance.length_bytes, instance.dataset_offset, instance.digest,
        instance.frames, CASE WHEN %(headers)s THEN instance.header END AS header
    FROM study JOIN series USING (study_id)
    LEFT JOIN instance ON instance.series_id = series.series_id
        AND (%(sop_instance_uid)s::text IS NULL
            OR instance.sop_instance_uid = %(sop_instance_uid)s)
    WHERE study.study_instance_uid = %(study_instance_uid)s
        AND (%(series_instance_uid)s::text IS NULL
            OR series.series_instance_uid = %(series_instance_uid)s)
        AND (%(archive_ids)s::integer[] IS NULL OR study.archive_id = ANY(%(archive_ids)s))
    ORDER BY series.archive_id, series.series_number NULLS LAST, series.series_id
"""
# The series that hold what a retrieval names by the unique keys of any levels.
SELECTED_SERIES = """
    SELECT series.series_id, series.archive_id, study.patient_id, study.study_instance_uid,
        series.series_instance_uid, series.number_of_instances
    FROM study JOIN patient USING (patient_id) JOIN series USING (study_id)
    WHERE {where}
    ORDER BY study.study_id, series.series_number NULLS LAST, series.series_id
"""
NOTHING = "there is no such study, series or instance"


@dataclass(frozen=True, slots=True)
class FoundInstance:
    """One instance with the study and series it belongs to."""

    study_instance_uid: str
    series_instance_uid: str
    stored: StoredInstance
    header: bytes  # DICOM JSON; b"" when not asked for


async def retrieve_instances(
    store: "Store",
    access: Access,
    door: str,
    *,
    archive_id: int | None,
    study_instance_uid: str,
    series_instance_uid: str | None = None,
    sop_instance_uid: str | None = None,
    headers: bool = False,
) -> list[FoundInstance]:
    """Return the instances of a study, a series or one instance, series by series in order.

    `archive_id` None looks in every archive that the caller may read; an instance that lies in
    two of them comes once. Raises NotFound, also when the caller may not know.
    """
    for uid in (study_instance_uid, series_instance_uid, sop_instance_uid):
        if uid is not None and not UID.fullmatch(uid):
            raise NotFound(NOTHING)
    archive_ids = policy.visible_archives(access, archive_id)
    key = (
        access.kind,
        access.subject,
        access.remote_address,
        door,
        archive_id,
        study_instance_uid,
        series_instance_uid,
    )
    recorded = store.recent_reads.is_recorded(key)
    # A read that is on record already needs one statement, which is its own transaction.
    begin = store.database.statement if recorded else store.database.transaction
    async with begin() as tx:
        # One statement, so that a sealing under way shows either its rows or its manifest.
        rows = await tx.rows(
            SERIES,
            headers=headers,
            study_instance_uid=study_instance_uid,
            series_instance_uid=series_instance_uid,
            sop_instance_uid=sop_instance_uid,
            archive_ids=archive_ids,
        )
        if rows and not recorded:
            await audit.record(
                tx,
                access,
                audit.AuditRecord(
                    action="read",
                    door=door,
                    archive_id=rows[0]["archive_id"],
                    patient_id=rows[0]["patient_id"],
                    study_instance_uid=study_instance_uid,
                    series_instance_uid=series_instance_uid,
                ),
            )
    if rows and not recorded:
        store.recent_reads.add(key)
    found: list[FoundInstance] = []
    for series_rows in _by_series(rows):
        found += await _instances_of(store, series_rows, sop_instance_uid, headers=headers)
    result = list({one.stored.sop_instance_uid: one for one in reversed(found)}.values())[::-1]
    if not result:
        raise NotFound(NOTHING)
    return result


@dataclass(frozen=True, slots=True)
class UniqueKeys:
    """What a retrieval names (PS3.4 §C.4.2.2.1); None: no value of that level."""

    patient_identifier: str | None = None
    issuer: str | None = None  # of the Patient ID
    study_instance_uids: tuple[str, ...] | None = None
    series_instance_uids: tuple[str, ...] | None = None
    sop_instance_uids: tuple[str, ...] | None = None


async def retrieve_selected(
    store: "Store",
    access: Access,
    door: str,
    *,
    archive_id: int | None,
    keys: UniqueKeys,
    instances_max: int,
    destination: str = "",
) -> list[FoundInstance]:
    """Return the instances that the keys name, without headers; each series is read once.

    Series follow each other, an instance that lies in two archives comes once, and what is not
    here is left out. Each series makes its audit record, which names the destination. Raises
    Unavailable when there are more than `instances_max`.
    """
    wanted = None if keys.sop_instance_uids is None else frozenset(keys.sop_instance_uids)
    conditions = _selecting(access, archive_id, keys)
    async with store.database.transaction() as tx:
        selected = await tx.rows(
            SELECTED_SERIES.format(where=conditions.where()), **conditions.params
        )
    found: dict[str, FoundInstance] = {}
    read: list[dict[str, Any]] = []
    for series in selected:
        if wanted is None and len(found) + series["number_of_instances"] > instances_max:
            raise Unavailable(f"more than {instances_max} instances are asked for")
        held = await _read_series(store, series, headers=False)
        chosen = [one for one in held if wanted is None or one.stored.sop_instance_uid in wanted]
        if chosen:
            read.append(series)
        for one in chosen:
            found.setdefault(one.stored.sop_instance_uid, one)
    await _record_reads(store, access, door, read, destination)
    return list(found.values())


def _selecting(access: Access, archive_id: int | None, keys: UniqueKeys) -> Conditions:
    conditions = Conditions()
    archive_ids = policy.visible_archives(access, archive_id)
    if archive_ids is not None:
        conditions.parts.append(f"study.archive_id = ANY({conditions.param(archive_ids)})")
    if keys.patient_identifier is not None:
        identifier = conditions.param(keys.patient_identifier)
        conditions.parts.append(f"patient.patient_identifier = {identifier}")
    if keys.issuer is not None:
        conditions.parts.append(f"patient.issuer = {conditions.param(keys.issuer)}")
    for column, uids in (
        ("study.study_instance_uid", keys.study_instance_uids),
        ("series.series_instance_uid", keys.series_instance_uids),
    ):
        if uids is not None:
            conditions.parts.append(f"{column} = ANY({conditions.param(list(uids))})")
    if keys.sop_instance_uids is not None:
        conditions.add_instances(keys.sop_instance_uids)
    return conditions


async def _record_reads(
    store: "Store",
    access: Access,
    door: str,
    read: list[dict[str, Any]],
    destination: str,
) -> None:
    """Write the record of each series, unless the same read is on record already."""
    caller = (access.kind, access.subject, access.remote_address, door, destination)
    unrecorded = {
        (*caller, series["archive_id"], series["series_id"]): series
        for series in read
        if not store.recent_reads.is_recorded((*caller, series["archive_id"], series["series_id"]))
    }
    if not unrecorded:
        return
    async with store.database.transaction() as tx:
        for series in unrecorded.values():
            await audit.record(
                tx,
                access,
                audit.AuditRecord(
                    action="read",
                    door=door,
                    archive_id=series["archive_id"],
                    patient_id=series["patient_id"],
                    study_instance_uid=series["study_instance_uid"],
                    series_instance_uid=series["series_instance_uid"],
                    detail={"destination": destination} if destination else None,
                ),
            )
    for key in unrecorded:
        store.recent_reads.add(key)


async def read_series(
    store: "Store", archive_id: int, study_instance_uid: str, series_instance_uid: str
) -> list[FoundInstance]:
    """Return the instances of a series in order, with their headers; [] when it is gone.

    For a search, which has asked the policy and left its own record: looking through a series
    for what matches is no access to the rest of it.
    """
    series = {
        "archive_id": archive_id,
        "study_instance_uid": study_instance_uid,
        "series_instance_uid": series_instance_uid,
    }
    return await _read_series(store, series, headers=True)


async def _read_series(
    store: "Store", series: dict[str, Any], *, headers: bool
) -> list[FoundInstance]:
    async with store.database.statement() as tx:
        rows = await tx.rows(
            SERIES,
            headers=headers,
            study_instance_uid=series["study_instance_uid"],
            series_instance_uid=series["series_instance_uid"],
            sop_instance_uid=None,
            archive_ids=[series["archive_id"]],
        )
    return await _instances_of(store, rows, None, headers=headers) if rows else []


def _by_series(rows: list[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["series_id"], []).append(row)
    return groups.values()


async def _instances_of(
    store: "Store",
    rows: list[dict[str, Any]],
    sop_instance_uid: str | None,
    *,
    headers: bool,
) -> list[FoundInstance]:
    series = rows[0]
    entries: list[tuple[StoredInstance, bytes]] = []
    if series["manifest_key"] is not None:
        index = await store.sealed.read_index(
            series["manifest_key"], series["manifest_index_bytes"]
        )
        texts: list[bytes] | None = None
        if headers:
            texts = await store.sealed.read_headers(
                series["manifest_key"], series["manifest_index_bytes"], series["manifest_bytes"]
            )
        if sop_instance_uid is None:
            wanted: Iterable[int] = range(len(index.instances))
        else:
            position = index.position.get(sop_instance_uid)
            wanted = () if position is None else (position,)
        entries = [
            (index.instances[number], b"" if texts is None else texts[number]) for number in wanted
        ]
    fresh = [read_instance_row(row) for row in rows if row["sop_instance_uid"] is not None]
    if fresh:
        entries = sorted([*entries, *fresh], key=lambda entry: in_order(entry[0]))
    return [
        FoundInstance(series["study_instance_uid"], series["series_instance_uid"], stored, header)
        for stored, header in entries
    ]
