"""Patients: whom the archives hold studies of, and their whole history across archives."""

import datetime
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bfr_core import audit, policy
from bfr_core.access import Access
from bfr_core.errors import NotFound
from bfr_core.matching import ESCAPE
from bfr_core.names import normalise
from bfr_core.narrowing import are_rare

if TYPE_CHECKING:
    from bfr_core.store import Store


@dataclass(frozen=True, slots=True)
class Patient:
    """One patient as the archives last told of them."""

    patient_id: int  # our row, the newest where several archives know the patient
    patient_identifier: str
    issuer: str
    name: str
    birth_date: datetime.date | None
    sex: str
    number_of_studies: int
    latest_study_date: datetime.date | None


@dataclass(frozen=True, slots=True)
class PatientStudy:
    """One study as a list of studies shows it."""

    archive: str  # AE title
    study_instance_uid: str
    study_date: datetime.date | None
    study_time: datetime.time | None
    description: str
    accession_number: str
    modalities: list[str]
    body_parts: list[str]
    institution: str
    referring_physician: str
    number_of_series: int
    number_of_instances: int
    size_bytes: int
    received_at: datetime.datetime
    receiving: bool  # something has arrived and is not sealed yet
    patient_id: int
    patient_identifier: str
    patient_name: str
    thumbnail_series_instance_uid: str | None
    thumbnail_sop_instance_uid: str | None


@dataclass(frozen=True, slots=True)
class StudySeries:
    """One series as a study's list of series shows it."""

    series_instance_uid: str
    modality: str
    series_number: int | None
    description: str
    body_part: str
    number_of_instances: int
    size_bytes: int
    receiving: bool
    representative_sop_instance_uid: str | None  # None: no pixels


FOUND_MAX = 2000
WORDS_MAX = 10
LAST_CHARACTER = "\U0010ffff"  # sorts behind everything that may follow a prefix

# The same person in two archives has the same number and issuer; one without a number is told
# by the row alone.
PATIENT = """
    SELECT max(patient.patient_id) AS patient_id, patient_identifier, issuer,
        (array_agg(name ORDER BY patient.updated_at DESC))[1] AS name,
        max(birth_date) AS birth_date, max(sex) AS sex,
        count(study.study_id)::integer AS number_of_studies,
        max(study_date) AS latest_study_date
    FROM patient JOIN study USING (patient_id)
"""
GROUP = """
    GROUP BY patient_identifier, issuer,
        CASE WHEN patient_identifier = '' THEN patient.patient_id END
    ORDER BY max(study.received_at) DESC, max(patient.patient_id) DESC
    LIMIT %(limit)s
"""
VISIBLE = "(%(archive_ids)s::integer[] IS NULL OR patient.archive_id = ANY(%(archive_ids)s))"
# Who was found in one archive is told of with what the others hold of them. The array is made
# first, and OFFSET keeps the planner from reading all patients for a few.
OF_FOUND = f"""
    WHERE {VISIBLE} AND patient.patient_id = ANY(ARRAY(
        SELECT patient_id FROM found
        UNION SELECT same.patient_id FROM found CROSS JOIN LATERAL (
            SELECT patient_id FROM patient
            WHERE patient.patient_identifier = found.patient_identifier
                AND patient.issuer = found.issuer
            OFFSET 0) AS same
        WHERE found.patient_identifier <> ''))
"""
# Two searches, each on an index of its own; the bound keeps "an" from sorting half a region.
SEARCH_PATIENTS = f"""
    WITH found AS MATERIALIZED (
        (SELECT patient_id, patient_identifier, issuer FROM patient
        WHERE {VISIBLE} AND %(low)s <> ''
            AND replace(patient_identifier, '-', '') COLLATE "C" >= %(low)s
            AND replace(patient_identifier, '-', '') COLLATE "C" < %(high)s
        LIMIT {FOUND_MAX})
        UNION
        (SELECT patient_id, patient_identifier, issuer FROM patient
        WHERE {VISIBLE} AND {{names}}
        LIMIT {FOUND_MAX}))
    {PATIENT} {OF_FOUND} {GROUP}
"""
NEWEST_PATIENTS = f"""
    WITH found AS (
        SELECT patient_id, patient_identifier, issuer FROM patient WHERE patient_id = ANY(ARRAY(
            SELECT patient_id FROM study
            WHERE %(archive_ids)s::integer[] IS NULL OR archive_id = ANY(%(archive_ids)s)
            ORDER BY received_at DESC, study_id DESC LIMIT 1000)))
    {PATIENT} {OF_FOUND} {GROUP}
"""
SAME_PATIENT = """
    patient.patient_id IN (
        SELECT other.patient_id FROM patient AS one JOIN patient AS other
            ON other.patient_id = one.patient_id
            OR (one.patient_identifier <> ''
                AND other.patient_identifier = one.patient_identifier
                AND other.issuer = one.issuer)
        WHERE one.patient_id = %(patient_id)s)
"""
FIND_PATIENT = f"{PATIENT} WHERE {VISIBLE} AND {SAME_PATIENT} {GROUP}"
STUDY = """
    SELECT archive.ae_title AS archive, study_instance_uid, study_date, study_time, description,
        accession_number, modalities, body_parts, institution, referring_physician,
        number_of_series, number_of_instances, size_bytes, received_at, patient.patient_id,
        patient_identifier, patient.name AS patient_name,
        EXISTS (SELECT FROM series WHERE series.study_id = study.study_id
            AND series.state = 'receiving') AS receiving,
        thumbnail.series_instance_uid AS thumbnail_series_instance_uid,
        thumbnail.representative_sop_instance_uid AS thumbnail_sop_instance_uid
    FROM study JOIN patient USING (patient_id)
    JOIN archive ON archive.archive_id = study.archive_id
    LEFT JOIN LATERAL (
        SELECT series_instance_uid, representative_sop_instance_uid FROM series
        WHERE series.study_id = study.study_id AND representative_sop_instance_uid IS NOT NULL
        ORDER BY series_number NULLS LAST, series_id LIMIT 1) AS thumbnail ON true
"""
VISIBLE_STUDY = "(%(archive_ids)s::integer[] IS NULL OR study.archive_id = ANY(%(archive_ids)s))"
STUDIES_OF_PATIENT = f"""
    {STUDY} WHERE {VISIBLE_STUDY} AND {SAME_PATIENT}
    ORDER BY study_date DESC NULLS LAST, study_time DESC NULLS LAST, study.study_id DESC
"""
# For a modality that few studies have: by arrival all others would be looked through.
OF_RARE_MODALITY = """
        AND study.study_id = ANY(ARRAY(
            SELECT study_id FROM study AS rare WHERE rare.modalities @> ARRAY[%(modality)s::text]))
"""
LATEST_STUDIES = f"""
    {STUDY} WHERE {VISIBLE_STUDY}
        AND (%(modality)s::text IS NULL OR modalities @> ARRAY[%(modality)s::text]) {{rare}}
        AND (%(archive)s::text IS NULL OR archive.ae_title = %(archive)s)
    ORDER BY received_at DESC, study.study_id DESC LIMIT %(limit)s
"""
FIND_STUDY = f"""
    {STUDY} WHERE {VISIBLE_STUDY} AND archive.ae_title = %(archive)s
        AND study_instance_uid = %(study_instance_uid)s
"""
SERIES_OF_STUDY = """
    SELECT series_instance_uid, modality, series_number, series.description, body_part,
        series.number_of_instances, series.size_bytes, state = 'receiving' AS receiving,
        representative_sop_instance_uid
    FROM series JOIN study USING (study_id) JOIN archive ON archive.archive_id = study.archive_id
    WHERE archive.ae_title = %(archive)s AND study_instance_uid = %(study_instance_uid)s
    ORDER BY series_number NULLS LAST, series_id
"""


async def search_patients(store: "Store", access: Access, text: str, limit: int) -> list[Patient]:
    """Return patients whose number begins with the text or whose name holds all its words.

    Hyphens in numbers, and case, accents and the order of names mean nothing. An empty text
    gives the patients with the newest arrivals.
    """
    words = re.sub(r"[\x00^,]", " ", text).split()
    number = "".join(words).replace("-", "")
    names = {
        f"name{position}": f"%{name.translate(ESCAPE)}%"
        for position, word in enumerate(words[:WORDS_MAX])
        if (name := normalise(word))
    }
    archive_ids = policy.visible_archives(access, None)
    async with store.database.transaction() as tx:
        if words:
            conditions = [f"name_normalised LIKE %({name})s" for name in names]
            patients = await tx.all(
                Patient,
                SEARCH_PATIENTS.format(names=" AND ".join(conditions) or "false"),
                archive_ids=archive_ids,
                low=number,
                high=number + LAST_CHARACTER,
                limit=limit,
                **names,
            )
        else:
            patients = await tx.all(Patient, NEWEST_PATIENTS, archive_ids=archive_ids, limit=limit)
        await audit.record(
            tx,
            access,
            audit.AuditRecord(
                action="list_patients", door="viewer", detail={"results": len(patients)}
            ),
        )
    return patients


async def find_patient(
    store: "Store", access: Access, patient_id: int
) -> tuple[Patient, list[PatientStudy]]:
    """Return the patient and all their studies, newest first. Raises NotFound."""
    archive_ids = policy.visible_archives(access, None)
    async with store.database.transaction() as tx:
        patient = await tx.one(
            Patient, FIND_PATIENT, archive_ids=archive_ids, patient_id=patient_id, limit=1
        )
        if patient is None:
            raise NotFound("there is no such patient")
        studies = await tx.all(
            PatientStudy, STUDIES_OF_PATIENT, archive_ids=archive_ids, patient_id=patient_id
        )
        await audit.record(
            tx,
            access,
            audit.AuditRecord(action="read", door="viewer", patient_id=patient_id),
        )
    return patient, studies


async def find_study(
    store: "Store", access: Access, archive: str, study_instance_uid: str
) -> tuple[Patient, PatientStudy, list[StudySeries]]:
    """Return the study with its patient and its series. Raises NotFound."""
    archive_ids = policy.visible_archives(access, None)
    async with store.database.transaction() as tx:
        study = await tx.one(
            PatientStudy,
            FIND_STUDY,
            archive_ids=archive_ids,
            archive=archive,
            study_instance_uid=study_instance_uid,
        )
        if study is None:
            raise NotFound("there is no such study")
        patient = await tx.one(
            Patient, FIND_PATIENT, archive_ids=archive_ids, patient_id=study.patient_id, limit=1
        )
        if patient is None:
            raise NotFound("there is no such patient")
        series = await tx.all(
            StudySeries, SERIES_OF_STUDY, archive=archive, study_instance_uid=study_instance_uid
        )
        await audit.record(
            tx,
            access,
            audit.AuditRecord(
                action="read",
                door="viewer",
                patient_id=study.patient_id,
                study_instance_uid=study_instance_uid,
            ),
        )
    return patient, study, series


async def latest_studies(
    store: "Store", access: Access, *, modality: str | None, archive: str | None, limit: int
) -> list[PatientStudy]:
    """Return the studies that arrived last, newest arrival first."""
    async with store.database.transaction() as tx:
        rare = modality is not None and await are_rare(tx, [modality])
        studies = await tx.all(
            PatientStudy,
            LATEST_STUDIES.format(rare=OF_RARE_MODALITY if rare else ""),
            archive_ids=policy.visible_archives(access, None),
            modality=modality,
            archive=archive,
            limit=limit,
        )
        await audit.record(
            tx,
            access,
            audit.AuditRecord(
                action="list_patients", door="worklist", detail={"results": len(studies)}
            ),
        )
    return studies
