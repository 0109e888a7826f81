"""Study search: matching keys to rows (PS3.4 §C.2.2.2), answers as DICOM JSON (PS3.18 §10.6)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson
from pydicom.datadict import keyword_for_tag

from bfr_core import audit, policy
from bfr_core.access import Access
from bfr_core.errors import Invalid
from bfr_core.instances import Dataset
from bfr_core.matching import (
    LITERAL,
    Column,
    Conditions,
    Match,
    Semantics,
    checked_uid,
    parse_integer,
)
from bfr_core.narrowing import narrow
from bfr_core.retrieval import read_series
from bfr_core.search_results import (
    instance_dataset,
    patient_counts_dataset,
    patient_dataset,
    series_dataset,
    study_dataset,
)

if TYPE_CHECKING:
    from bfr_core.store import Store

# Required matching keys of PS3.18 tables 10.6.1-5 and the ones that users ask for beside them.
PATIENT_KEYS: dict[str, Column] = {
    "00100010": Column("patient.name_normalised", "name"),
    "00100020": Column("patient.patient_identifier", "text"),
    "00100021": Column("patient.issuer", "text"),
    "00100030": Column("patient.birth_date", "date"),
    "00100040": Column("patient.sex", "text"),
}
STUDY_KEYS: dict[str, Column] = {
    **PATIENT_KEYS,
    "00080020": Column("study.study_date", "date"),
    "00080030": Column("study.study_time", "time"),
    "00080050": Column("study.accession_number", "text"),
    "00080061": Column("study.modalities", "list"),
    "00080080": Column("study.institution", "text"),
    "00080090": Column("study.referring_physician_normalised", "name"),
    "00081030": Column("study.description", "text"),
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
ALL_KEYS = {**STUDY_KEYS, **SERIES_KEYS}
# A date and its time, matched as one moment where that is asked for; both are in the time zone
# that the study tells.
MOMENTS = (("00080020", "00080030"), ("00400244", "00400245"))
TIMEZONE = "study.timezone_offset"
SOP_CLASS_UID, SOP_INSTANCE_UID, INSTANCE_NUMBER = "00080016", "00080018", "00200013"
INSTANCE_KEYS = frozenset({SOP_CLASS_UID, SOP_INSTANCE_UID, INSTANCE_NUMBER})

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
# The same person in two archives has the same number and issuer; one without a number is told
# by the row alone.
PATIENTS = """
    SELECT array_agg(patient.patient_id) AS patient_ids, patient_identifier, issuer,
        (array_agg(name ORDER BY updated_at DESC))[1] AS name,
        max(birth_date) AS birth_date, max(sex) AS sex
    FROM patient
    WHERE {where} AND EXISTS (SELECT FROM study WHERE study.patient_id = patient.patient_id)
    GROUP BY patient_identifier, issuer,
        CASE WHEN patient_identifier = '' THEN patient.patient_id END
    ORDER BY max(updated_at) DESC, max(patient.patient_id) DESC
    LIMIT %(limit)s OFFSET %(offset)s
"""
COUNTS_OF_PATIENTS = """
    SELECT patient_id, count(*) AS studies, sum(number_of_series)::integer AS series,
        sum(number_of_instances)::integer AS instances
    FROM study WHERE patient_id = ANY(%(patient_ids)s) GROUP BY patient_id
"""
STUDIES = f"""
    SELECT study.patient_id, {PATIENT_COLUMNS}, {STUDY_COLUMNS}
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


async def search_patients(
    store: "Store",
    access: Access,
    door: str,
    *,
    archive_id: int | None,
    matches: Sequence[Match],
    limit: int,
    offset: int,
    semantics: Semantics = LITERAL,
    with_counts: bool = False,
) -> list[Dataset]:
    """Return the matching patients, the last changed first, as DICOM JSON (PS3.4 §C.6.1.1.2).

    `with_counts` adds how many studies, series and instances each has. Raises Invalid naming an
    attribute that is no key of this level or a value that is none.
    """
    conditions = _conditions(
        access, archive_id, matches, PATIENT_KEYS, semantics, "patient.archive_id"
    )
    record = audit.search_params(access, door, archive_id, [match.tag for match in matches])
    rows = await _recorded_rows(store, PATIENTS, conditions, limit, offset, record)
    ids = [patient_id for row in rows for patient_id in row["patient_ids"]]
    counts = await _counts(store, ids) if with_counts else {}
    return [
        {
            **patient_dataset(row),
            **(_counted(counts, row["patient_ids"]) if with_counts else {}),
        }
        for row in rows
    ]


async def search_studies(
    store: "Store",
    access: Access,
    door: str,
    *,
    archive_id: int | None,
    matches: Sequence[Match],
    limit: int,
    offset: int,
    semantics: Semantics = LITERAL,
    with_patient_counts: bool = False,
) -> list[Dataset]:
    """Return the matching studies, newest first, as DICOM JSON (PS3.18 table 10.6.3-3).

    `with_patient_counts` adds how many studies, series and instances the patient has. Raises
    Invalid naming an attribute that is no key of this level or a value that is none.
    """
    conditions = _conditions(access, archive_id, matches, STUDY_KEYS, semantics)
    record = audit.search_params(access, door, archive_id, [match.tag for match in matches])
    await narrow(store.database, conditions, matches)
    rows = await _recorded_rows(store, STUDIES, conditions, limit, offset, record)
    ids = [row["patient_id"] for row in rows]
    counts = await _counts(store, ids) if with_patient_counts else {}
    return [
        {
            **study_dataset(row),
            **(_counted(counts, [row["patient_id"]]) if with_patient_counts else {}),
        }
        for row in rows
    ]


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
    semantics: Semantics = LITERAL,
) -> list[Dataset]:
    """Return the matching series as DICOM JSON (PS3.18 table 10.6.3-4).

    `with_study` adds the attributes of study and patient, `includefield` those of them that it
    names by tag. Raises Invalid as for studies.
    """
    conditions = _conditions(access, archive_id, matches, ALL_KEYS, semantics)
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
    semantics: Semantics = LITERAL,
) -> list[Dataset]:
    """Return the matching instances as DICOM JSON (PS3.18 table 10.6.3-5).

    `includefield` names further attributes by tag, of the instance, its series or its study;
    `with_study` and `with_series` add all of theirs. A BulkDataURI is "bulkdata/<path>".
    Raises Invalid as for studies.
    """
    own = [match for match in matches if match.tag in INSTANCE_KEYS]
    parents = [match for match in matches if match.tag not in INSTANCE_KEYS]
    conditions = _conditions(access, archive_id, parents, ALL_KEYS, semantics)
    tests = [(match.tag, _wanted(match)) for match in own]
    for tag, wanted in tests:
        if tag == SOP_INSTANCE_UID and wanted:
            # Without this a search for one instance would look through every series.
            conditions.add_instances([str(uid) for uid in wanted])
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


def level_conditions(
    access: Access, archive_id: int | None, matches: Sequence[Match], *, of_series: bool
) -> Conditions:
    """Return the conditions that a search for studies, or for series, has. Raises Invalid."""
    keys = ALL_KEYS if of_series else STUDY_KEYS
    return _conditions(access, archive_id, matches, keys, LITERAL)


def _conditions(
    access: Access,
    archive_id: int | None,
    matches: Sequence[Match],
    keys: Mapping[str, Column],
    semantics: Semantics,
    archive_column: str = "study.archive_id",
) -> Conditions:
    conditions = Conditions(semantics)
    archive_ids = policy.visible_archives(access, archive_id)
    if archive_ids is not None:
        conditions.parts.append(f"{archive_column} = ANY({conditions.param(archive_ids)})")
    left = list(matches)
    if semantics.as_moments:
        for date_tag, time_tag in MOMENTS:
            date, time = _only(left, date_tag), _only(left, time_tag)
            if date_tag in keys and conditions.add_moment(
                keys[date_tag], keys[time_tag], TIMEZONE, date, time
            ):
                left = [match for match in left if match not in (date, time)]
    for match in left:
        column = keys.get(match.tag)
        if column is None:
            raise Invalid(f"{_name_of(match.tag)} is no search key at this level")
        conditions.add(column, match)
    return conditions


def _only(matches: Sequence[Match], tag: str) -> Match | None:
    found = [match for match in matches if match.tag == tag]
    return found[0] if len(found) == 1 else None


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


async def _counts(store: "Store", patient_ids: Sequence[int]) -> dict[int, tuple[int, int, int]]:
    """Return (studies, series, instances) of each patient."""
    async with store.database.statement() as tx:
        rows = await tx.tuples(COUNTS_OF_PATIENTS, patient_ids=list(patient_ids))
    return {
        patient_id: (studies, series, instances) for patient_id, studies, series, instances in rows
    }


def _counted(counts: Mapping[int, tuple[int, int, int]], patient_ids: Sequence[int]) -> Dataset:
    found = [counts.get(patient_id, (0, 0, 0)) for patient_id in patient_ids]
    return patient_counts_dataset(*(sum(column) for column in zip(*found, strict=True)))


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
