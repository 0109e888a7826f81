"""The documents of the demonstration: a report (PS3.3 §A.35.1) and a scanned referral (PDF)."""

from pydicom import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
)

from bfr_command.demo.history import Series, Study
from bfr_command.demo.labels import file_meta, instance_uid, label, series_uid, study_uid

_READER = "Granskare^Ylva^^Dr"
_QUESTION = "Rökare med hosta sedan två månader. Nytillkommen förtätning? Jämför med tidigare DT."
_FINDINGS = (
    "Jämförs med DT thorax 2024-11-12. I höger lunga ses en rund förtätning, nu 11 mm mot "
    "tidigare 6 mm. Inga förstorade körtlar. Ingen pleuravätska. Lever, mjälte, njurar och "
    "bukspottkörtel utan anmärkning. Inga skelettförändringar."
)
_CONCLUSION = "Växande lungförtätning höger sida, 11 mm. Fortsatt utredning rekommenderas."
_REFERRAL = (
    "REMISS (demonstration, ingen verklig person)",
    "Till: Exempelröntgen Åby",
    "Önskad undersökning: Mammografi, båda sidor",
    "Frågeställning: Knöl sedan tre veckor?",
    "Remittent: Maj Vårdström, Provvårdcentralen",
)


def report(study: Study, series: Series, evidence: tuple[Series, int]) -> Dataset:
    """Return the signed report of a study; it points at one image, by series and number."""
    image_series, image_number = evidence
    dataset = Dataset()
    dataset.SOPClassUID = BasicTextSRStorage
    dataset.Modality = "SR"
    dataset.Manufacturer = "BFR"
    label(dataset, study, series, 1)
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "VERIFIED"
    observer = Dataset()
    observer.VerifyingOrganization = study.institution
    observer.VerificationDateTime = f"{study.started_at:%Y%m%d}170000"
    observer.VerifyingObserverName = _READER
    observer.VerifyingObserverIdentificationCodeSequence = []
    dataset.VerifyingObserverSequence = [observer]
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.PerformedProcedureCodeSequence = []
    image = Dataset()
    image.ReferencedSOPClassUID = CTImageStorage
    image.ReferencedSOPInstanceUID = instance_uid(study, image_series, image_number)
    dataset.CurrentRequestedProcedureEvidenceSequence = [_evidence(study, image_series, image)]
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.ConceptNameCodeSequence = [_code("18748-4", "LN", "Diagnostic imaging report")]
    shown = Dataset()
    shown.RelationshipType, shown.ValueType = "INFERRED FROM", "IMAGE"
    shown.ReferencedSOPSequence = [image]
    findings = _text("121071", "Finding", _FINDINGS)
    findings.ContentSequence = [shown]
    dataset.ContentSequence = [
        _language(),
        _observer(),
        _section("121060", "History", _text("121060", "History", _QUESTION)),
        _section("121070", "Findings", findings),
        _section("121076", "Conclusions", _text("121077", "Conclusion", _CONCLUSION)),
    ]
    dataset.file_meta = file_meta(dataset, ExplicitVRLittleEndian)
    return dataset


def referral(study: Study, series: Series) -> Dataset:
    """Return a referral as an Encapsulated PDF (PS3.3 §A.45.1)."""
    document = pdf(_REFERRAL)
    dataset = Dataset()
    dataset.SOPClassUID = EncapsulatedPDFStorage
    dataset.Modality = "DOC"
    dataset.Manufacturer = "BFR"
    label(dataset, study, series, 1)
    dataset.ConversionType = "SD"
    dataset.AcquisitionDateTime = f"{study.started_at:%Y%m%d%H%M%S}"
    dataset.BurnedInAnnotation = "NO"
    dataset.DocumentTitle = "Remiss"
    dataset.ConceptNameCodeSequence = [_code("57133-1", "LN", "Referral note")]
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocumentLength = len(document)
    dataset.EncapsulatedDocument = document + b"\x00" * (len(document) % 2)
    dataset.file_meta = file_meta(dataset, ExplicitVRLittleEndian)
    return dataset


def pdf(lines: tuple[str, ...]) -> bytes:
    """Return one A4 page with the lines of text (ISO 32000-1), no compression."""
    drawn = b"BT /F1 14 Tf 60 770 Td 22 TL\n"
    for line in lines:
        escaped = line.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
        drawn += b"(" + escaped.encode("cp1252") + b") Tj T*\n"
    drawn += b"ET"
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawn), drawn),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    )
    file, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, len(file))
    return file + b"xref\n0 %d\n0000000000 65535 f \n" % size + table + trailer


def _evidence(study: Study, series: Series, image: Dataset) -> Dataset:
    referenced = Dataset()
    referenced.SeriesInstanceUID = series_uid(study, series)
    referenced.ReferencedSOPSequence = [image]
    evidence = Dataset()
    evidence.StudyInstanceUID = study_uid(study)
    evidence.ReferencedSeriesSequence = [referenced]
    return evidence


def _language() -> Dataset:
    item = _item("HAS CONCEPT MOD", "CODE", "121049", "Language of Content Item and Descendants")
    item.ConceptCodeSequence = [_code("sv", "RFC5646", "Swedish")]
    return item


def _observer() -> Dataset:
    item = _item("HAS OBS CONTEXT", "PNAME", "121008", "Person Observer Name")
    item.PersonName = _READER
    return item


def _section(value: str, meaning: str, *content: Dataset) -> Dataset:
    item = _item("CONTAINS", "CONTAINER", value, meaning)
    item.ContinuityOfContent = "SEPARATE"
    item.ContentSequence = list(content)
    return item


def _text(value: str, meaning: str, text: str) -> Dataset:
    item = _item("CONTAINS", "TEXT", value, meaning)
    item.TextValue = text
    return item


def _item(relationship: str, value_type: str, value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = relationship, value_type
    item.ConceptNameCodeSequence = [_code(value, "DCM", meaning)]
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code
