"""What every object of the demonstration says of its patient, study and series, and its UIDs."""

import uuid
from datetime import date, timedelta

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

from bfr_command.demo.history import Series, Study

# Raised whenever the pictures change: an archive must never see two contents under one UID.
EDITION = 1

_NAMESPACE = uuid.uuid5(uuid.UUID("0f6d3c0e-4d0e-5b56-9a53-2a1f9be1a1f2"), f"edition {EDITION}")
_IMPLEMENTATION_CLASS_UID = UID("2.25.305828488182831875890203105390285383139")


def uid(*names: object) -> UID:
    """Return the UID of what `names` name, the same at every call (PS3.5 §B.2)."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(str(name) for name in names)).int}")


def study_uid(study: Study) -> UID:
    """Return the Study Instance UID."""
    return uid("study", study.key)


def series_uid(study: Study, series: Series) -> UID:
    """Return the Series Instance UID."""
    return uid("series", study.key, series.number)


def instance_uid(study: Study, series: Series, number: int) -> UID:
    """Return the SOP Instance UID of the object with an Instance Number."""
    return uid("instance", study.key, series.number, number)


def label(dataset: Dataset, study: Study, series: Series, number: int) -> None:
    """Give the object its patient, study, series, Instance Number and UIDs."""
    patient = study.patient
    dataset.SpecificCharacterSet = "ISO_IR 192" if study.door == "STOW-RS" else "ISO_IR 100"
    dataset.SOPInstanceUID = instance_uid(study, series, number)
    dataset.StudyInstanceUID = study_uid(study)
    dataset.SeriesInstanceUID = series_uid(study, series)
    begun = study.started_at + timedelta(minutes=2 * min(series.number, 20))
    dataset.StudyDate, dataset.StudyTime = (
        f"{study.started_at:%Y%m%d}",
        f"{study.started_at:%H%M%S}",
    )
    dataset.SeriesDate, dataset.SeriesTime = f"{begun:%Y%m%d}", f"{begun:%H%M%S}"
    dataset.ContentDate, dataset.ContentTime = dataset.SeriesDate, dataset.SeriesTime
    dataset.AccessionNumber = study.accession_number
    dataset.StudyID = study.key[-2:]
    dataset.StudyDescription = study.description
    dataset.ReferringPhysicianName = study.referrer
    dataset.InstitutionName = study.institution
    dataset.SeriesDescription = series.description
    dataset.SeriesNumber = series.number
    dataset.InstanceNumber = number
    dataset.BodyPartExamined = study.body_part
    dataset.PatientName = patient.name
    dataset.PatientID = patient.patient_id
    issuer = Dataset()
    issuer.UniversalEntityID = patient.issuer_oid
    issuer.UniversalEntityIDType = "ISO"
    dataset.IssuerOfPatientIDQualifiersSequence = [issuer]
    dataset.PatientBirthDate = f"{patient.birth_date:%Y%m%d}"
    dataset.PatientSex = patient.sex
    dataset.PatientAge = f"{_years(patient.birth_date, study.started_at.date()):03d}Y"


def file_meta(dataset: Dataset, transfer_syntax_uid: str) -> FileMetaDataset:
    """Return the File Meta Information of a labelled object (PS3.10 §7.1)."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = _IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = "BFR_DEMO"
    return meta


def _years(born: date, at: date) -> int:
    return at.year - born.year - ((at.month, at.day) < (born.month, born.day))
