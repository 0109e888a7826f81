"""Study search: matching keys to rows (PS3.4 §C.2.2.2), answers as DICOM JSON (PS3.18 §10.6)."""

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson
from pydicom.datadict import keyword_for_tag

from bfr_core import audit, locator, policy
from bfr_core.access import Access
from bfr_core.errors import Invalid
from bfr_core.instances import Dataset, person_name_value
from bfr_core.matching import Column, Conditions, Match, checked_uid, parse_integer
from bfr_core.narrowing import narrow
from bfr_core.retrieval import FoundInstance, read_series

if TYPE_CHECKING:
    from bfr_core.store import Store

# Required matching keys of PS3.18 tables 10.6.1-5 and the ones that users ask for beside them.
STUDY_KEYS: dict[str, Column] = {
    "00080020": Column("study.study_date", "date"),
    "00080030": Column("study.study_time", "time"),
    "00080050": Column("study.accession_number", "text"),
    "00080061": Column("study.modalities", "list"),
    "00080080": Column("study.institution", "text"),
    "00080090": Column("study.referring_physician_normalised", "name"),
    "00081030": Column("study.description", "text"),
    "00100010": Column("patient.name_normalised", "name"),
    "00100020": Column("patient.patient_identifier", "text"),
    "00100021": Column("patient.issuer", "text"),
    "00100030": Column("patient.birth_date", "date"),
    "00100040": Column("patient.sex", "text"),
    "0020000D": Column("study.study_instance_uid", "uid"),
    "00200010": Column("study.study_identifier", "text"),
}
# One value of each item of Request Attributes Sequence (0040,0275).
REQUESTED = """ARRAY(SELECT item #>> '{{{tag},Value,0}}'
    FROM jsonb_array_elements(series.request_attributes) AS item)"""
SERIES_KEYS: dict[str, Column] = {
    "00080060": Column("series.modality", "text"),
    "0008103E": Column("series.description", "text"),
    "00180015": Column("series.body_part", "text"),
    "0020000E": Column("series.series_instance_uid", "uid"),
    "00200011": Column("series.series_number", "integer"),
    "00400244": Column("series.performed_date", "date"),
    "00400245": Column("series.performed_time", "time"),
    "00400275.00400009": Column(REQUESTED.format(tag="00400009"), "list"),
    "00400275.00401001": Column(REQUESTED.format(tag="00401001"), "list"),
}
SOP_CLASS_UID, SOP_INSTANCE_UID, INSTANCE_NUMBER = "00080016", "00080018", "00200013"
INSTANCE_KEYS = frozenset({SOP_CLASS_UID, SOP_INSTANCE_UID, INSTANCE_NUMBER})
INSTANCE_ATTRIBUTES = (
    "00080016",
    "00080018",
    "00080201",
    "00200013",
    "00280008",
    "00280010",
    "00280011",
    "00280100",
)

PATIENT_COLUMNS = """
    patient.patient_identifier, patient.issuer, patient.name, patient.birth_date, patient.sex
"""
STUDY_COLUMNS = """
    study.study_instance_uid, study.study_date, study.study_time, study.timezone_offset,
    study.accession_number, study.study_identifier, study.description AS study_description,
    study.referring_physician, study.institution, study.modalities, study.number_of_series,
    study.number_of_instances
"""
SERIES_COLUMNS = """
    series.series_instance_uid, series.modality, series.series_number,
    series.description AS series_description, series.body_part, series.performed_date,
    series.performed_time, series.request_attributes,
    series.number_of_instances AS number_of_series_instances
"""
STUDIES = f"""
    SELECT {PATIENT_COLUMNS}, {STUDY_COLUMNS}
    FROM study JOIN patient USING (patient_id)
    WHERE {{where}}
    ORDER BY study.study_date DESC NULLS LAST, study.study_id DESC
    LIMIT %(limit)s OFFSET %(offset)s
"""
SERIES = f"""
    SELECT {PATIENT_COLUMNS}, {STUDY_COLUMNS}, {SERIES_COLUMNS}
    FROM study JOIN patient USING (patient_id) JOIN series USING (study_id)
    WHERE {{where}}
    ORDER BY study.study_date DESC NULLS LAST, study.study_id DESC,
        series.series_number NULLS LAST, series.series_id
    LIMIT %(limit)s OFFSET %(offset)s
"""
# The series that may hold the instances that are searched.
SERIES_OF_INSTANCES = f"""
    SELECT study.archive_id, {PATIENT_COLUMNS}, {STUDY_COLUMNS}, {SERIES_COLUMNS}
    FROM study JOIN patient USING (patient_id) JOIN series USING (study_id)
    WHERE {{where}}
    ORDER BY study.study_date DESC NULLS LAST, study.study_id DESC,
        series.series_number NULLS LAST, series.series_id
    LIMIT %(limit)s OFFSET %(offset)s
"""
# One statement where a transaction would be four: most searches cost less than that.
RECORDED = f"""
    WITH found AS MATERIALIZED ({{search}}), recorded AS ({audit.RECORD_SEARCH})
    SELECT * FROM found
"""
SERIES_PAGE = 200


async def search_studies(
    store: "Store",
    access: Access,
    door: str,
    *,
    archive_id: int | None,
    matches: Sequence[Match],
    limit: int,
    offset: int,
) -> list[Dataset]:
    """Return the matching studies, newest first, as DICOM JSON (PS3.18 table 10.6.3-3).

    Raises Invalid naming an attribute that is no key of this level or a value that is none.
    """
    conditions = _conditions(access, archive_id, matches, STUDY_KEYS)
    record = audit.search_params(access, door, archive_id, [match.tag for match in matches])
    await narrow(store.database, conditions, matches)
    rows = await _recorded_rows(store, STUDIES, conditions, limit, offset, record)
    return [study_dataset(row) for row in rows]


async def search_series(
    store: "Store",
    access: Access,
    door: str,
    *,
    archive_id: int | None,
    matches: Sequence[Match],
    limit: int,
    offset: int,
    with_study: bool,
    includefield: Sequence[str] = (),
) -> list[Dataset]:
    """Return the matching series as DICOM JSON (PS3.18 table 10.6.3-4).

    `with_study` adds the attributes of study and patient, `includefield` those of them that it
    names by tag. Raises Invalid as for studies.
    """
    conditions = _conditions(access, archive_id, matches, {**STUDY_KEYS, **SERIES_KEYS})
    record = audit.search_params(access, door, archive_id, [match.tag for match in matches])
    await narrow(store.database, conditions, matches)
    rows = await _recorded_rows(store, SERIES, conditions, limit, offset, record)
    return [
        {
            **_chosen(study_dataset(row), includefield, everything=with_study),
            **series_dataset(row),
        }
        for row in rows
    ]


async def search_instances(
    store: "Store",
    access: Access,
    door: str,
    *,
    archive_id: int | None,
    matches: Sequence[Match],
    limit: int,
    offset: int,
    includefield: Sequence[str],
    with_study: bool = False,
    with_series: bool = False,
) -> list[Dataset]:
    """Return the matching instances as DICOM JSON (PS3.18 table 10.6.3-5).

    `includefield` names further attributes by tag, of the instance, its series or its study;
    `with_study` and `with_series` add all of theirs. A BulkDataURI is "bulkdata/<path>".
    Raises Invalid as for studies.
    """
    own = [match for match in matches if match.tag in INSTANCE_KEYS]
    parents = [match for match in matches if match.tag not in INSTANCE_KEYS]
    conditions = _conditions(access, archive_id, parents, {**STUDY_KEYS, **SERIES_KEYS})
    tests = [(match.tag, _wanted(match)) for match in own]
    for tag, wanted in tests:
        if tag == SOP_INSTANCE_UID and wanted:
            listed = [str(uid) for uid in wanted]
            uids = conditions.param(listed)
            keys = conditions.param(locator.search_keys(listed))
            # Without this a search for one instance would look through every series.
            conditions.parts.append(locator.SERIES_WITH_INSTANCES.format(uids=uids, keys=keys))
    await narrow(store.database, conditions, parents)
    record = audit.search_params(access, door, archive_id, [match.tag for match in matches])
    page = await _recorded_rows(store, SERIES_OF_INSTANCES, conditions, SERIES_PAGE, 0, record)
    result: list[Dataset] = []
    skipped = 0
    series_offset = 0
    while len(result) < limit:
        for series in page:
            above = {
                **_chosen(study_dataset(series), includefield, everything=with_study),
                **_chosen(series_dataset(series), includefield, everything=with_series),
            }
            for found in await read_series(
                store,
                series["archive_id"],
                series["study_instance_uid"],
                series["series_instance_uid"],
            ):
                dataset = orjson.loads(found.header)
                if not all(_matches(dataset, tag, wanted) for tag, wanted in tests):
                    continue
                if skipped < offset:
                    skipped += 1
                elif len(result) < limit:
                    result.append({**above, **instance_dataset(found, dataset, includefield)})
            if len(result) >= limit:
                break
        if len(page) < SERIES_PAGE:
            break
        series_offset += SERIES_PAGE
        page = await _rows(store, SERIES_OF_INSTANCES, conditions, SERIES_PAGE, series_offset)
    return result


def study_dataset(row: Mapping[str, Any]) -> Dataset:
    """Return the patient and study attributes of a row as DICOM JSON, ordered by tag."""
    return {
        "00080005": _element("CS", "ISO_IR 192"),
        "00080020": _element("DA", _date(row["study_date"])),
        "00080030": _element("TM", _time(row["study_time"])),
        "00080050": _element("SH", row["accession_number"]),
        "00080056": _element("CS", "ONLINE"),
        "00080061": {"vr": "CS", "Value": row["modalities"]} if row["modalities"] else {"vr": "CS"},
        "00080080": _element("LO", row["institution"]),
        "00080090": _element("PN", person_name_value(row["referring_physician"])),
        **({"00080201": _element("SH", row["timezone_offset"])} if row["timezone_offset"] else {}),
        "00081030": _element("LO", row["study_description"]),
        "00100010": _element("PN", person_name_value(row["name"])),
        "00100020": _element("LO", row["patient_identifier"]),
        **({"00100021": _element("LO", row["issuer"])} if row["issuer"] else {}),
        "00100030": _element("DA", _date(row["birth_date"])),
        "00100040": _element("CS", row["sex"]),
        "0020000D": _element("UI", row["study_instance_uid"]),
        "00200010": _element("SH", row["study_identifier"]),
        "00201206": _element("IS", row["number_of_series"]),
        "00201208": _element("IS", row["number_of_instances"]),
    }


def series_dataset(row: Mapping[str, Any]) -> Dataset:
    """Return the series attributes of a row as DICOM JSON."""
    result = {
        "00080005": _element("CS", "ISO_IR 192"),
        "00080056": _element("CS", "ONLINE"),
        "00080060": _element("CS", row["modality"]),
        "0008103E": _element("LO", row["series_description"]),
        "00180015": _element("CS", row["body_part"]),
        "0020000D": _element("UI", row["study_instance_uid"]),
        "0020000E": _element("UI", row["series_instance_uid"]),
        "00200011": _element("IS", row["series_number"]),
        "00201209": _element("IS", row["number_of_series_instances"]),
    }
    if row["performed_date"] is not None:
        result["00400244"] = _element("DA", _date(row["performed_date"]))
    if row["performed_time"] is not None:
        result["00400245"] = _element("TM", _time(row["performed_time"]))
    if row["request_attributes"]:
        result["00400275"] = {"vr": "SQ", "Value": row["request_attributes"]}
    return result


def instance_dataset(
    found: FoundInstance, dataset: Dataset, includefield: Sequence[str]
) -> Dataset:
    """Return the attributes of an instance that an answer holds, from its header."""
    result: Dataset = {
        "00080005": _element("CS", "ISO_IR 192"),
        "00080056": _element("CS", "ONLINE"),
        "0020000D": _element("UI", found.study_instance_uid),
        "0020000E": _element("UI", found.series_instance_uid),
    }
    for tag in (*INSTANCE_ATTRIBUTES, *includefield):
        if tag in dataset:
            result[tag] = dataset[tag]
    return result


def _conditions(
    access: Access,
    archive_id: int | None,
    matches: Sequence[Match],
    keys: Mapping[str, Column],
) -> Conditions:
    conditions = Conditions()
    archive_ids = policy.visible_archives(access, archive_id)
    if archive_ids is not None:
        conditions.parts.append(f"study.archive_id = ANY({conditions.param(archive_ids)})")
    for match in matches:
        column = keys.get(match.tag)
        if column is None:
            raise Invalid(f"{_name_of(match.tag)} is no search key at this level")
        conditions.add(column, match)
    return conditions


async def _rows(
    store: "Store", sql: str, conditions: Conditions, limit: int, offset: int
) -> list[dict[str, Any]]:
    sql = sql.format(where=conditions.where())
    async with store.database.statement() as tx:
        return await tx.rows(sql, **conditions.params, limit=limit, offset=offset)


async def _recorded_rows(
    store: "Store",
    sql: str,
    conditions: Conditions,
    limit: int,
    offset: int,
    record: Mapping[str, object],
) -> list[dict[str, Any]]:
    """Return the rows of a search that leaves its audit record in the same statement."""
    sql = RECORDED.format(search=sql.format(where=conditions.where()))
    async with store.database.statement() as tx:
        return await tx.rows(sql, **conditions.params, **record, limit=limit, offset=offset)


def _name_of(tag: str) -> str:
    """Return the attribute as people know it: its keyword, where it has one, and its tag."""
    steps = tag.split(".")
    keyword = ".".join(keyword_for_tag(int(step, 16)) or step for step in steps)
    return keyword if keyword == tag else f"{keyword} ({tag})"


def _chosen(dataset: Dataset, includefield: Sequence[str], *, everything: bool) -> Dataset:
    if everything:
        return dataset
    return {tag: dataset[tag] for tag in includefield if tag in dataset}


def _wanted(match: Match) -> frozenset[str | int]:
    """Return the values of which an instance must have one; none when it may have any."""
    values = [value for text in match.values if (value := text.strip())]
    if match.tag == INSTANCE_NUMBER:
        return frozenset(parse_integer(match.tag, value) for value in values)
    return frozenset(checked_uid(match.tag, value) for value in values)


def _matches(dataset: Dataset, tag: str, wanted: frozenset[str | int]) -> bool:
    return not wanted or not wanted.isdisjoint(dataset.get(tag, {}).get("Value", []))


def _element(vr: str, value: Any) -> dict[str, Any]:
    if value is None or value == "" or value == {}:
        return {"vr": vr}
    return {"vr": vr, "Value": [value]}


def _date(value: datetime.date | None) -> str:
    return "" if value is None else value.isoformat().replace("-", "")


def _time(value: datetime.time | None) -> str:
    if value is None:
        return ""
    return value.strftime("%H%M%S.%f" if value.microsecond else "%H%M%S")
