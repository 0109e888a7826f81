"""Return attributes: what `includefield` adds to a match beyond the index (PS3.18 §8.3.4.3).

An attribute is told at the level of its information entity or below: one that differs from image
to image says nothing of a series.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydicom.datadict import tag_for_keyword

from bfr_core.instances import Dataset

# PS3.3 §C.7.1.1, §C.7.1.3, §C.7.2.1, §C.7.2.2, §C.7.2.3.
STUDY_MODULES = """
    IssuerOfPatientIDQualifiersSequence TypeOfPatientID OtherPatientIDs OtherPatientIDsSequence
    PatientBirthName PatientBirthTime OtherPatientNames PatientMotherBirthName EthnicGroup
    PatientComments PatientIdentityRemoved DeidentificationMethod
    DeidentificationMethodCodeSequence ReferencedPatientSequence QualityControlSubject
    PatientSpeciesDescription PatientSpeciesCodeSequence PatientBreedDescription
    ResponsiblePerson ResponsiblePersonRole ResponsibleOrganization
    ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialProtocolName
    ClinicalTrialSubjectID ClinicalTrialSubjectReadingID ClinicalTrialTimePointID
    IssuerOfAccessionNumberSequence PhysiciansOfRecord
    PhysiciansOfRecordIdentificationSequence NameOfPhysiciansReadingStudy
    PhysiciansReadingStudyIdentificationSequence RequestingService
    RequestingServiceCodeSequence ReferencedStudySequence ProcedureCodeSequence
    ReasonForPerformedProcedureCodeSequence ReferringPhysicianIdentificationSequence
    ConsultingPhysicianName AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence
    PatientAge PatientSize PatientWeight PatientBodyMassIndex MedicalAlerts Allergies
    SmokingStatus PregnancyStatus LastMenstrualDate PatientSexNeutered
    ReasonForVisit ReasonForVisitCodeSequence AdmissionID IssuerOfAdmissionIDSequence
    ServiceEpisodeID ServiceEpisodeDescription PatientState Occupation AdditionalPatientHistory
""".split()
# PS3.3 §C.7.3.1, §C.7.3.2, §C.7.4.1, §C.7.5.1.
SERIES_MODULES = """
    Laterality SeriesDate SeriesTime PerformingPhysicianName
    PerformingPhysicianIdentificationSequence ProtocolName SeriesDescriptionCodeSequence
    OperatorsName OperatorIdentificationSequence ReferencedPerformedProcedureStepSequence
    RelatedSeriesSequence PatientPosition PerformedProcedureStepID
    PerformedProcedureStepEndDate PerformedProcedureStepEndTime
    PerformedProcedureStepDescription PerformedProtocolCodeSequence
    CommentsOnThePerformedProcedureStep TreatmentSessionUID AnatomicalOrientationType
    ClinicalTrialCoordinatingCenterName ClinicalTrialSeriesID ClinicalTrialSeriesDescription
    FrameOfReferenceUID PositionReferenceIndicator Manufacturer InstitutionAddress StationName
    InstitutionalDepartmentName InstitutionalDepartmentTypeCodeSequence ManufacturerModelName
    DeviceSerialNumber SoftwareVersions GantryID DeviceUID SpatialResolution
    DateOfLastCalibration TimeOfLastCalibration InstitutionName
""".split()


def _tags(keywords: Iterable[str]) -> frozenset[str]:
    return frozenset(f"{tag_for_keyword(keyword):08X}" for keyword in keywords)


OF_STUDY = _tags(STUDY_MODULES)
OF_SERIES = OF_STUDY | _tags(SERIES_MODULES)


def beyond_index(
    includefield: Sequence[str], known: Iterable[str], of_level: frozenset[str]
) -> list[str]:
    """Return the paths that only a header can answer, of those that this level may tell."""
    index = frozenset(known)
    return [path for path in includefield if path[:8] in of_level and path[:8] not in index]


def picked(dataset: Mapping[str, Any], paths: Iterable[str]) -> Dataset:
    """Return what the paths lead to: whole attributes, and of sequences what is named in them."""
    inner: dict[str, list[str]] = {}
    for path in paths:
        tag, _, rest = path.partition(".")
        inner.setdefault(tag, []).append(rest)
    result: Dataset = {}
    for tag, rests in inner.items():
        element = dataset.get(tag)
        if element is None:
            continue
        if "" in rests:
            result[tag] = element
        elif items := [picked(item, rests) for item in element.get("Value") or []]:
            result[tag] = {**element, "Value": items}
        else:
            result[tag] = element
    return result
