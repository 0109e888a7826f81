"""Reports and documents of a patient who does not exist."""

from collections.abc import Sequence
from typing import Any

from pydicom import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    EncapsulatedPDFStorage,
    KeyObjectSelectionDocumentStorage,
)
from tests.samples.images import object_of

SMALL_PDF = (
    b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n"
    b"2 0 obj\n<< /Type /Pages /Kids [3 0 R] /Count 1 >>\nendobj\n"
    b"3 0 obj\n<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] >>\nendobj\n"
    b"xref\n0 4\n0000000000 65535 f \n0000000009 00000 n \n0000000058 00000 n \n"
    b"0000000115 00000 n \ntrailer\n<< /Size 4 /Root 1 0 R >>\nstartxref\n187\n%%EOF\n"
)


def sr_report(
    *,
    question: str = "Hosta sedan två månader. Förtätning?",
    answer: str = "Ingen förtätning. Inga tecken på hjärtsvikt.",
    **attributes: Any,
) -> Dataset:
    """A signed report with the referrer's question and the answer (PS3.16 TID 2000)."""
    dataset = object_of(BasicTextSRStorage, "SR", StudyDescription="DT thorax")
    dataset.SeriesDescription = "Utlåtande"
    dataset.ContentDate, dataset.ContentTime = "20240305", "150000"
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "VERIFIED"
    observer = Dataset()
    observer.VerifyingOrganization = "Provsjukhuset Väster"
    observer.VerificationDateTime = "20240305150000"
    observer.VerifyingObserverName = "Granskarsson^Ylva"
    observer.VerifyingObserverIdentificationCodeSequence = []
    dataset.VerifyingObserverSequence = [observer]
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.PerformedProcedureCodeSequence = []
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.ConceptNameCodeSequence = [_code("18748-4", "LN", "Diagnostic imaging report")]
    dataset.ContentSequence = [
        _section("121060", "History", question),
        _section("121070", "Findings", answer),
    ]
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def rejection_note(of: Sequence[Dataset], code: str = "113001", **attributes: Any) -> Dataset:
    """A note, as a modality sends it, that objects of one series are rejected (PS3.16 CID 7011)."""
    first = of[0]
    note = object_of(
        KeyObjectSelectionDocumentStorage, "KO", StudyInstanceUID=first.StudyInstanceUID
    )
    references = []
    for one in of:
        item = Dataset()
        item.ReferencedSOPClassUID = one.SOPClassUID
        item.ReferencedSOPInstanceUID = one.SOPInstanceUID
        references.append(item)
    series, study, title = Dataset(), Dataset(), Dataset()
    series.ReferencedSOPSequence = references
    series.SeriesInstanceUID = first.SeriesInstanceUID
    study.ReferencedSeriesSequence = [series]
    study.StudyInstanceUID = first.StudyInstanceUID
    title.CodeValue, title.CodingSchemeDesignator = code, "DCM"
    title.CodeMeaning = "Rejected"
    note.CurrentRequestedProcedureEvidenceSequence = [study]
    note.ConceptNameCodeSequence = [title]
    note.ValueType, note.ContinuityOfContent = "CONTAINER", "SEPARATE"
    for keyword, value in attributes.items():
        setattr(note, keyword, value)
    return note


def encapsulated_pdf(*, document: bytes = SMALL_PDF, **attributes: Any) -> Dataset:
    """A PDF in an object of its own (PS3.3 §A.45.1)."""
    dataset = object_of(EncapsulatedPDFStorage, "DOC", StudyDescription="Inskannad remiss")
    dataset.SeriesDescription = "Remiss"
    dataset.ConversionType = "SD"
    dataset.BurnedInAnnotation = "NO"
    dataset.DocumentTitle = "Remiss"
    dataset.ConceptNameCodeSequence = [_code("57133-1", "LN", "Referral note")]
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocumentLength = len(document)
    dataset.EncapsulatedDocument = document + b"\x00" * (len(document) % 2)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def _section(value: str, meaning: str, text: str) -> Dataset:
    content = Dataset()
    content.RelationshipType, content.ValueType = "CONTAINS", "TEXT"
    content.ConceptNameCodeSequence = [_code(value, "DCM", meaning)]
    content.TextValue = text
    section = Dataset()
    section.RelationshipType, section.ValueType = "CONTAINS", "CONTAINER"
    section.ConceptNameCodeSequence = [_code(value, "DCM", meaning)]
    section.ContinuityOfContent = "SEPARATE"
    section.ContentSequence = [content]
    return section


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code
