"""Instances: what the index keeps of one DICOM object, read from its header."""

import datetime
import re
from dataclasses import dataclass
from typing import Any

from bfr_core.errors import Invalid

Dataset = dict[str, Any]  # DICOM JSON model (PS3.18 Annex F)

SOP_CLASS_UID = "00080016"
SOP_INSTANCE_UID = "00080018"
STUDY_DATE = "00080020"
STUDY_TIME = "00080030"
ACCESSION_NUMBER = "00080050"
MODALITY = "00080060"
INSTITUTION_NAME = "00080080"
REFERRING_PHYSICIAN_NAME = "00080090"
TIMEZONE_OFFSET = "00080201"
STUDY_DESCRIPTION = "00081030"
SERIES_DESCRIPTION = "0008103E"
PATIENT_NAME = "00100010"
PATIENT_ID = "00100020"
ISSUER_OF_PATIENT_ID = "00100021"
PATIENT_BIRTH_DATE = "00100030"
PATIENT_SEX = "00100040"
BODY_PART_EXAMINED = "00180015"
STUDY_INSTANCE_UID = "0020000D"
SERIES_INSTANCE_UID = "0020000E"
STUDY_ID = "00200010"
SERIES_NUMBER = "00200011"
INSTANCE_NUMBER = "00200013"
NUMBER_OF_FRAMES = "00280008"
PERFORMED_DATE = "00400244"
PERFORMED_TIME = "00400245"
REQUEST_ATTRIBUTES = "00400275"

# PS3.5 §9.1: components of digits without leading zeros. Leading zeros are seen in real
# archives, so only what could not be a UID at all is refused.
UID = re.compile(r"[0-9]+(\.[0-9]+)*")
DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")
# Four times what PS3.5 §6.2 allows an LO. What the index keeps must fit into its B-trees, whose
# entries PostgreSQL bounds to a third of a page; the header keeps all that was sent.
INDEXED_MAX_CHARACTERS = 256
TIME = re.compile(r"(\d{2}):?(\d{2})?:?(\d{2})?(?:\.(\d{1,6}))?")


@dataclass(frozen=True, slots=True)
class PatientAttributes:
    """A patient as one object tells of them."""

    patient_identifier: str  # "" when not sent
    issuer: str
    name: str  # groups joined by "="
    birth_date: datetime.date | None
    sex: str


@dataclass(frozen=True, slots=True)
class StudyAttributes:
    """A study as one of its objects tells of it."""

    study_instance_uid: str
    study_date: datetime.date | None
    study_time: datetime.time | None
    timezone_offset: str
    accession_number: str
    study_identifier: str
    description: str
    referring_physician: str
    institution: str


@dataclass(frozen=True, slots=True)
class SeriesAttributes:
    """A series as one of its objects tells of it."""

    series_instance_uid: str
    modality: str
    series_number: int | None
    description: str
    body_part: str
    performed_date: datetime.date | None
    performed_time: datetime.time | None
    request_attributes: list[Dataset] | None


@dataclass(frozen=True, slots=True)
class InstanceAttributes:
    """What the index keeps of one object."""

    sop_class_uid: str
    sop_instance_uid: str
    instance_number: int | None
    patient: PatientAttributes
    study: StudyAttributes
    series: SeriesAttributes


def read_attributes(dataset: Dataset) -> InstanceAttributes:
    """Return what the index keeps of the object.

    Raises Invalid naming the attribute when one of the four UIDs is missing or no UID, or when
    the patient's identity is too long to be kept. Every value fits its column, whatever was sent.
    """
    return InstanceAttributes(
        sop_class_uid=_uid(dataset, SOP_CLASS_UID, "SOP Class UID (0008,0016)"),
        sop_instance_uid=_uid(dataset, SOP_INSTANCE_UID, "SOP Instance UID (0008,0018)"),
        instance_number=integer(dataset, INSTANCE_NUMBER),
        patient=PatientAttributes(
            patient_identifier=_identity(dataset, PATIENT_ID, "Patient ID (0010,0020)"),
            issuer=_identity(dataset, ISSUER_OF_PATIENT_ID, "Issuer of Patient ID (0010,0021)"),
            name=person_name(dataset, PATIENT_NAME)[:INDEXED_MAX_CHARACTERS],
            birth_date=parse_date(text(dataset, PATIENT_BIRTH_DATE)),
            sex=_short_text(dataset, PATIENT_SEX),
        ),
        study=StudyAttributes(
            study_instance_uid=_uid(dataset, STUDY_INSTANCE_UID, "Study Instance UID (0020,000D)"),
            study_date=parse_date(text(dataset, STUDY_DATE)),
            study_time=parse_time(text(dataset, STUDY_TIME)),
            timezone_offset=_short_text(dataset, TIMEZONE_OFFSET),
            accession_number=_short_text(dataset, ACCESSION_NUMBER),
            study_identifier=_short_text(dataset, STUDY_ID),
            description=_short_text(dataset, STUDY_DESCRIPTION),
            referring_physician=person_name(dataset, REFERRING_PHYSICIAN_NAME)[
                :INDEXED_MAX_CHARACTERS
            ],
            institution=_short_text(dataset, INSTITUTION_NAME),
        ),
        series=SeriesAttributes(
            series_instance_uid=_uid(
                dataset, SERIES_INSTANCE_UID, "Series Instance UID (0020,000E)"
            ),
            modality=_short_text(dataset, MODALITY),
            series_number=integer(dataset, SERIES_NUMBER),
            description=_short_text(dataset, SERIES_DESCRIPTION),
            body_part=_short_text(dataset, BODY_PART_EXAMINED),
            performed_date=parse_date(text(dataset, PERFORMED_DATE)),
            performed_time=parse_time(text(dataset, PERFORMED_TIME)),
            request_attributes=_items(dataset, REQUEST_ATTRIBUTES),
        ),
    )


def read_non_patient_attributes(dataset: Dataset) -> InstanceAttributes:
    """Return what the index keeps of an object that belongs to no study; all else is empty.

    Raises Invalid naming the attribute when one of its two UIDs is missing or no UID.
    """
    return InstanceAttributes(
        sop_class_uid=_uid(dataset, SOP_CLASS_UID, "SOP Class UID (0008,0016)"),
        sop_instance_uid=_uid(dataset, SOP_INSTANCE_UID, "SOP Instance UID (0008,0018)"),
        instance_number=None,
        patient=PatientAttributes("", "", "", None, ""),
        study=StudyAttributes("", None, None, "", "", "", "", "", ""),
        series=SeriesAttributes("", "", None, "", "", None, None, None),
    )


def text(dataset: Dataset, tag: str) -> str:
    """Return the first value of the attribute as text; "" when it is absent, empty or no text.

    NUL characters, which PostgreSQL cannot hold and DICOM does not allow, are left out.
    """
    value = _first(dataset, tag)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    try:
        return _clean(str(value)).strip()
    except ValueError:  # a number of thousands of digits
        return ""


def integer(dataset: Dataset, tag: str) -> int | None:
    """Return the first value of the attribute as a number of 32 bits, or None."""
    try:
        value = int(float(text(dataset, tag)))
    except (ValueError, OverflowError):
        return None
    return value if -(2**31) <= value < 2**31 else None


def person_name(dataset: Dataset, tag: str) -> str:
    """Return a person name with its groups joined by "=" (PS3.5 §6.2.1); "" when empty."""
    value = _first(dataset, tag)
    if not isinstance(value, dict):
        return ""
    groups = [value.get(key) for key in ("Alphabetic", "Ideographic", "Phonetic")]
    joined = "=".join(group if isinstance(group, str) else "" for group in groups)
    return _clean(joined).rstrip("=").strip()


def person_name_value(name: str) -> dict[str, str]:
    """Return a person name as its DICOM JSON value (PS3.18 §F.2.2)."""
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), name.split("="), strict=False)
    return {key: group for key, group in groups if group}


def parse_date(value: str) -> datetime.date | None:
    """Return a DA value as a date; None when it is empty or none (PS3.5 §6.2)."""
    match = DATE.fullmatch(value.strip())
    if match is None:
        return None
    try:
        return datetime.date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return None


def parse_time(value: str) -> datetime.time | None:
    """Return a TM value as a time; None when it is empty or none (PS3.5 §6.2)."""
    match = TIME.fullmatch(value.strip())
    if match is None:
        return None
    hour, minute, second, fraction = match.groups()
    try:
        return datetime.time(
            int(hour),
            int(minute or 0),
            min(int(second or 0), 59),
            int((fraction or "0").ljust(6, "0")),
        )
    except ValueError:
        return None


def _first(dataset: Dataset, tag: str) -> object:
    element = dataset.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _short_text(dataset: Dataset, tag: str) -> str:
    return text(dataset, tag)[:INDEXED_MAX_CHARACTERS]


def _identity(dataset: Dataset, tag: str, name: str) -> str:
    # Not cut: two patients could become one.
    value = text(dataset, tag)
    if len(value) > INDEXED_MAX_CHARACTERS:
        raise Invalid(f"{name} is longer than {INDEXED_MAX_CHARACTERS} characters")
    return value


def _uid(dataset: Dataset, tag: str, name: str) -> str:
    value = _first(dataset, tag)
    if value is None or value == "":
        raise Invalid(f"{name} is missing")
    # Only what pads it is taken off: anything else within would make it another UID.
    uid = value.strip(" \x00") if isinstance(value, str) else ""
    if len(uid) > 64 or not UID.fullmatch(uid):
        raise Invalid(f"{name} is no UID")
    return uid


def _items(dataset: Dataset, tag: str) -> list[Dataset] | None:
    element = dataset.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    if not isinstance(values, list):
        return None
    return [clean_json(item) for item in values if isinstance(item, dict)]


def clean_json(value: Any) -> Any:
    """Return the value as jsonb can hold it."""
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, dict):
        return {_clean(str(key)): clean_json(one) for key, one in value.items()}
    if isinstance(value, list):
        return [clean_json(one) for one in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return None
    return value


def _clean(value: str) -> str:
    # Halves of surrogate pairs have no UTF-8.
    return value.replace("\x00", "").encode("utf-8", "replace").decode()
