"""Placing: the patient, study and series that a received object belongs to, made when missing."""

import datetime
from dataclasses import dataclass

import orjson

from bfr_core import events, jobs
from bfr_core.database import Transaction
from bfr_core.errors import Conflict
from bfr_core.instances import InstanceAttributes, PatientAttributes
from bfr_core.names import normalise


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object belongs in the index."""

    series_id: int
    study_id: int
    patient_id: int
    patient_identifier: str
    issuer: str

    def is_of(self, patient: PatientAttributes) -> bool:
        """Tell whether the study is this patient's."""
        return (self.patient_identifier, self.issuer) == (
            patient.patient_identifier,
            patient.issuer,
        )


@dataclass(frozen=True, slots=True)
class _Study:
    study_id: int
    patient_id: int
    patient_identifier: str
    issuer: str


@dataclass(frozen=True, slots=True)
class _Series:
    series_id: int
    study_id: int


FIND_STUDY = """
    SELECT study.study_id, study.patient_id, patient.patient_identifier, patient.issuer
    FROM study JOIN patient USING (patient_id)
    WHERE study.study_instance_uid = %(study_instance_uid)s
        AND study.archive_id = %(archive_id)s
"""
TELL_PATIENT = """
    INSERT INTO patient (archive_id, patient_identifier, issuer, name, name_normalised,
        birth_date, sex, updated_at)
    VALUES (%(archive_id)s, %(patient_identifier)s, %(issuer)s, %(name)s, %(name_normalised)s,
        %(birth_date)s, %(sex)s, coalesce(%(received_at)s::timestamptz, now()))
    ON CONFLICT (archive_id, patient_identifier, issuer) WHERE patient_identifier <> ''
    DO UPDATE SET name = excluded.name, name_normalised = excluded.name_normalised,
        birth_date = coalesce(excluded.birth_date, patient.birth_date),
        sex = CASE WHEN excluded.sex = '' THEN patient.sex ELSE excluded.sex END,
        updated_at = excluded.updated_at
    WHERE %(received_at)s::timestamptz IS NULL OR patient.updated_at <= excluded.updated_at
    RETURNING patient_id
"""
FIND_PATIENT = """
    SELECT patient_id FROM patient
    WHERE archive_id = %(archive_id)s AND patient_identifier = %(patient_identifier)s
        AND issuer = %(issuer)s AND patient_identifier <> ''
"""
ADD_STUDY = """
    INSERT INTO study (archive_id, patient_id, study_instance_uid, study_date, study_time,
        timezone_offset, accession_number, study_identifier, description, referring_physician,
        referring_physician_normalised, institution, modalities, body_parts, received_at)
    VALUES (%(archive_id)s, %(patient_id)s, %(study_instance_uid)s, %(study_date)s,
        %(study_time)s, %(timezone_offset)s, %(accession_number)s, %(study_identifier)s,
        %(description)s, %(referring_physician)s, %(referring_physician_normalised)s,
        %(institution)s, %(modalities)s, '{}', coalesce(%(received_at)s::timestamptz, now()))
    ON CONFLICT (study_instance_uid, archive_id) DO NOTHING
    RETURNING study_id
"""
FIND_SERIES = """
    SELECT series_id, study_id FROM series
    WHERE series_instance_uid = %(series_instance_uid)s AND archive_id = %(archive_id)s
"""
# The index of series does not keep two of one UID apart (0006): who adds one is alone with it.
LOCK_UID = "SELECT pg_advisory_xact_lock(%(archive_id)s, hashtext(%(series_instance_uid)s))"
ADD_SERIES = """
    INSERT INTO series (study_id, archive_id, series_instance_uid, modality, series_number,
        description, body_part, performed_date, performed_time, request_attributes, state)
    VALUES (%(study_id)s, %(archive_id)s, %(series_instance_uid)s, %(modality)s,
        %(series_number)s, %(description)s, %(body_part)s, %(performed_date)s,
        %(performed_time)s, %(request_attributes)s, 'receiving')
    RETURNING series_id, study_id
"""
ADD_SERIES_TO_STUDY = """
    UPDATE study SET number_of_series = number_of_series + 1,
        modalities = (SELECT coalesce(array_agg(DISTINCT one ORDER BY one), '{}')
            FROM unnest(modalities || %(modality)s::text) AS one WHERE one <> ''),
        body_parts = (SELECT coalesce(array_agg(DISTINCT one ORDER BY one), '{}')
            FROM unnest(body_parts || %(body_part)s::text) AS one WHERE one <> '')
    WHERE study_id = %(study_id)s
"""
FIND_DELETION = """
    SELECT deletion_id FROM deletion
    WHERE study_instance_uid = %(study_instance_uid)s AND archive_id = %(archive_id)s
        AND undone_at IS NULL AND sop_instance_uid IS NULL
        AND (series_instance_uid IS NULL OR series_instance_uid = %(series_instance_uid)s)
"""


class DeletedObject(Conflict):
    """The object, its series or its study was deleted from the archive."""


async def find_place(
    tx: Transaction,
    archive_id: int,
    attributes: InstanceAttributes,
    seal_quiet_s: float,
    received_at: datetime.datetime | None = None,
) -> Place:
    """Return the object's place in the archive, made when it is the first of its series.

    `received_at` is when it came, None for now: what came later tells of the patient. Raises
    Conflict when the study is stored for another patient, or the series in another study: nobody
    may guess which of the two is right; DeletedObject when study or series was deleted.
    """
    study = await _find_or_add_study(tx, archive_id, attributes, received_at)
    identity = (attributes.patient.patient_identifier, attributes.patient.issuer)
    if (study.patient_identifier, study.issuer) != identity:
        raise Conflict("the study is stored for another Patient ID (0010,0020)")
    series = await _find_or_add_series(tx, archive_id, study.study_id, attributes, seal_quiet_s)
    if series.study_id != study.study_id:
        raise Conflict("the series is stored in another study")
    return Place(series.series_id, study.study_id, study.patient_id, *identity)


async def _find_or_add_study(
    tx: Transaction,
    archive_id: int,
    attributes: InstanceAttributes,
    received_at: datetime.datetime | None,
) -> _Study:
    told, patient = attributes.study, attributes.patient
    key = {"study_instance_uid": told.study_instance_uid, "archive_id": archive_id}
    study = await tx.one(_Study, FIND_STUDY, **key)
    if study is not None:
        return study
    await _refuse_deleted(tx, archive_id, attributes)
    who = {
        "archive_id": archive_id,
        "patient_identifier": patient.patient_identifier,
        "issuer": patient.issuer,
    }
    patient_id = await tx.value(
        TELL_PATIENT,
        **who,
        name=patient.name,
        name_normalised=normalise(patient.name),
        birth_date=patient.birth_date,
        sex=patient.sex,
        received_at=received_at,
    )
    if patient_id is None:  # something newer has told of the patient
        patient_id = await tx.value(FIND_PATIENT, **who)
    study_id = await tx.value(
        ADD_STUDY,
        **key,
        patient_id=patient_id,
        study_date=told.study_date,
        study_time=told.study_time,
        timezone_offset=told.timezone_offset,
        accession_number=told.accession_number,
        study_identifier=told.study_identifier,
        description=told.description,
        referring_physician=told.referring_physician,
        referring_physician_normalised=normalise(told.referring_physician),
        institution=told.institution,
        # Known from the first: the modality is indexed, and a change of it costs a new entry in
        # every index of the study.
        modalities=[modality] if (modality := attributes.series.modality) else [],
        received_at=received_at,
    )
    if study_id is None:  # another process was first
        study = await tx.one(_Study, FIND_STUDY, **key)
        if study is None:
            raise Conflict("the study was removed while it was stored")
        return study
    await events.write(
        tx,
        "study_created",
        archive_id=archive_id,
        study_instance_uid=told.study_instance_uid,
    )
    return _Study(study_id, patient_id, patient.patient_identifier, patient.issuer)


async def _find_or_add_series(
    tx: Transaction,
    archive_id: int,
    study_id: int,
    attributes: InstanceAttributes,
    seal_quiet_s: float,
) -> _Series:
    told = attributes.series
    key = {"series_instance_uid": told.series_instance_uid, "archive_id": archive_id}
    series = await tx.one(_Series, FIND_SERIES, **key)
    if series is not None:
        return series
    await tx.run(LOCK_UID, **key)
    series = await tx.one(_Series, FIND_SERIES, **key)
    if series is not None:  # another process was first
        return series
    await _refuse_deleted(tx, archive_id, attributes)
    requests = told.request_attributes
    added = await tx.one(
        _Series,
        ADD_SERIES,
        **key,
        study_id=study_id,
        modality=told.modality,
        series_number=told.series_number,
        description=told.description,
        body_part=told.body_part,
        performed_date=told.performed_date,
        performed_time=told.performed_time,
        request_attributes=_json(requests),
    )
    if added is None:
        raise RuntimeError("an INSERT returned no row")
    await tx.run(
        ADD_SERIES_TO_STUDY, study_id=study_id, modality=told.modality, body_part=told.body_part
    )
    await events.write(
        tx,
        "series_created",
        archive_id=archive_id,
        study_instance_uid=attributes.study.study_instance_uid,
        series_instance_uid=told.series_instance_uid,
    )
    await jobs.defer_seal(tx, added.series_id, seal_quiet_s)
    return added


async def _refuse_deleted(tx: Transaction, archive_id: int, attributes: InstanceAttributes) -> None:
    # Asked after study or series was not found: whoever deletes them commits both at once.
    deletion_id = await tx.value(
        FIND_DELETION,
        archive_id=archive_id,
        study_instance_uid=attributes.study.study_instance_uid,
        series_instance_uid=attributes.series.series_instance_uid,
    )
    if deletion_id is not None:
        raise DeletedObject("the study or series was deleted from this archive")


def _json(items: list[dict[str, object]] | None) -> str | None:
    return None if items is None else orjson.dumps(items).decode()
