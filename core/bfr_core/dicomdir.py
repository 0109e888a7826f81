"""DICOMDIR: the directory of a file-set (PS3.10 §8, PS3.3 Annex F).

What an object does not tell is empty in its records: nothing is made up for a reader to act on.
"""

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydicom.datadict import dictionary_VR, tag_for_keyword

from bfr_core.dataset_encoding import encode_dataset
from bfr_core.frames import EXPLICIT_VR_LITTLE_ENDIAN
from bfr_core.instances import Dataset
from bfr_core.part10 import part10_prefix
from bfr_core.retrieval import FoundInstance

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
NAME = "DICOMDIR"
FOLDER = "DICOM"
FILE_SET_NAMES = (NAME, FOLDER)
FileId = tuple[str, ...]  # components of at most eight characters of A-Z, 0-9, _ (PS3.10 §8.2)

IN_USE = 0xFFFF
WESTERN = ("ISO_IR 100",)  # which readers of discs know better than Unicode; where it is enough
# The three elements that every record begins with, as `encode_dataset` writes them.
NEXT_RECORD_AT = 8  # (0004,1400), within the record
LOWER_RECORD_AT = 30  # (0004,1420)
OFFSET = struct.Struct("<I")
ITEM = struct.Struct("<HHI")
SEQUENCE = struct.Struct("<HH2sHI")


def _tags(keywords: str) -> tuple[str, ...]:
    return tuple(f"{tag_for_keyword(keyword):08X}" for keyword in keywords.split())


STORAGE = "1.2.840.10008.5.1.4.1.1."
# PS3.3 table F.4-1, by how the SOP class is numbered below the root of storage; the longest
# beginning decides.
RECORD_TYPES = {
    "4.2": "SPECTROSCOPY",
    "9.": "WAVEFORM",
    "11.": "PRESENTATION",
    "66": "RAW DATA",
    "66.1": "REGISTRATION",
    "66.2": "FIDUCIAL",
    "66.3": "REGISTRATION",
    "66.4": "IMAGE",
    "66.5": "SURFACE",
    "66.6": "TRACT",
    "66.7": "IMAGE",
    "66.8": "IMAGE",
    "67": "VALUE MAP",
    "68.": "SURFACE SCAN",
    "77.1.5.3": "STEREOMETRIC",
    "78.": "MEASUREMENT",
    "78.6": "SR DOCUMENT",
    "79.1": "SR DOCUMENT",
    "80.1": "MEASUREMENT",
    "88.": "SR DOCUMENT",
    "88.59": "KEY OBJECT DOC",
    "90.1": "ASSESSMENT",
    "104.": "ENCAP DOC",
    "131": "PRESENTATION",
    "481.2": "RT DOSE",
    "481.3": "RT STRUCTURE SET",
    "481.4": "RT TREAT RECORD",
    "481.5": "RT PLAN",
    "481.6": "RT TREAT RECORD",
    "481.7": "RT TREAT RECORD",
    "481.8": "RT PLAN",
    "481.9": "RT TREAT RECORD",
    "481.1": "RADIOTHERAPY",  # .10 to .19
    "481.20": "RADIOTHERAPY",
    "481.21": "RADIOTHERAPY",
    "481.22": "RADIOTHERAPY",
    "481.23": "IMAGE",
    "481.24": "IMAGE",
    "481.25": "RADIOTHERAPY",
}
RT_IMAGE = f"{STORAGE}481.1"
_CONTENT = "InstanceNumber ContentDate ContentTime"
_CONTENT_IDENTIFICATION = f"{_CONTENT} ContentLabel ContentDescription ContentCreatorName"
# PS3.3 §F.5: what a record always has, empty or not.
KEYS = {
    record_type: _tags(keywords)
    for record_type, keywords in {
        "PATIENT": "PatientName PatientID",
        "STUDY": "StudyDate StudyTime AccessionNumber StudyDescription StudyInstanceUID StudyID",
        "SERIES": "Modality SeriesInstanceUID SeriesNumber",
        "IMAGE": "InstanceNumber",
        "RT DOSE": "InstanceNumber DoseSummationType",
        "RT STRUCTURE SET": "InstanceNumber StructureSetLabel StructureSetDate StructureSetTime",
        "RT PLAN": "InstanceNumber RTPlanLabel RTPlanDate RTPlanTime",
        "RT TREAT RECORD": "InstanceNumber TreatmentDate TreatmentTime",
        "PRESENTATION": "PresentationCreationDate PresentationCreationTime InstanceNumber"
        " ContentLabel ContentDescription ContentCreatorName",
        "WAVEFORM": _CONTENT,
        "SR DOCUMENT": f"{_CONTENT} CompletionFlag VerificationFlag ConceptNameCodeSequence",
        "KEY OBJECT DOC": f"{_CONTENT} ConceptNameCodeSequence",
        "SPECTROSCOPY": f"{_CONTENT} ImageType NumberOfFrames Rows Columns DataPointRows"
        " DataPointColumns",
        "RAW DATA": _CONTENT,
        "REGISTRATION": _CONTENT_IDENTIFICATION,
        "FIDUCIAL": _CONTENT_IDENTIFICATION,
        "ENCAP DOC": f"{_CONTENT} DocumentTitle ConceptNameCodeSequence"
        " MIMETypeOfEncapsulatedDocument",
        "VALUE MAP": _CONTENT_IDENTIFICATION,
        "STEREOMETRIC": "",
        "MEASUREMENT": _CONTENT_IDENTIFICATION,
        "SURFACE": _CONTENT_IDENTIFICATION,
        "SURFACE SCAN": "ContentDate ContentTime",
        "TRACT": _CONTENT_IDENTIFICATION,
        "ASSESSMENT": "InstanceNumber InstanceCreationDate InstanceCreationTime",
        "RADIOTHERAPY": "InstanceNumber ContentDescription ContentCreatorName",
    }.items()
}
# What a record has where the object tells it: §F.5, and the keys that PS3.11 §D.3.3 adds.
OPTIONAL_KEYS = {
    record_type: _tags(keywords)
    for record_type, keywords in {
        "PATIENT": "IssuerOfPatientID PatientBirthDate PatientSex",
        "STUDY": "TimezoneOffsetFromUTC",
        "SERIES": "SeriesDescription InstitutionName BodyPartExamined",
        "IMAGE": "ImageType NumberOfFrames Rows Columns FrameOfReferenceUID ImagePositionPatient"
        " ImageOrientationPatient",
        "PRESENTATION": "ReferencedSeriesSequence BlendingSequence",
        "SPECTROSCOPY": "ReferencedImageEvidenceSequence",
        "ENCAP DOC": "HL7InstanceIdentifier",
        "RADIOTHERAPY": "UserContentLabel UserContentLongLabel",
    }.items()
}
WITH_CONCEPT_MODIFIERS = frozenset({"SR DOCUMENT", "KEY OBJECT DOC"})
ROWS = "00280010"
CONTENT_SEQUENCE = "0040A730"
RELATIONSHIP_TYPE = "0040A010"
VERIFYING_OBSERVERS = "0040A073"
VERIFIED_AT = "0040A030"


@dataclass(slots=True)
class _Record:
    data: bytearray
    below: list["_Record"] = field(default_factory=list)
    offset: int = 0  # of its item, within the file


class Directory:
    """The directory of a file-set as its files are added."""

    def __init__(self) -> None:
        self._root = _Record(bytearray())
        self._known: dict[tuple[str, ...], _Record] = {}
        self._series: dict[str, int] = {}
        self._files = 0

    def new_file_id(self, one: FoundInstance) -> FileId:
        """Return a File ID that no file of the set has, in the folder of the object's series."""
        number = self._series.setdefault(one.series_instance_uid, len(self._series) + 1)
        self._files += 1
        return (FOLDER, f"S{number:07d}", f"I{self._files:07d}")

    def add(self, file_id: FileId, one: FoundInstance) -> None:
        """Add an object, whose header is given, as the file of this ID."""
        header: Dataset = orjson.loads(one.header)
        patient = _text(header, "00100020"), _text(header, "00100021")
        study = (*patient, one.study_instance_uid)
        series = (*study, one.series_instance_uid)
        place = self._root
        for record_type, key in (("PATIENT", patient), ("STUDY", study), ("SERIES", series)):
            if key not in self._known:
                self._known[key] = _Record(_encoded(record_type, header, {}))
                place.below.append(self._known[key])
            place = self._known[key]
        stored = one.stored
        record_type = record_type_of(stored.sop_class_uid, is_image=ROWS in header)
        file = {
            "00041500": _element("CS", *file_id),
            "00041510": _element("UI", stored.sop_class_uid),
            "00041511": _element("UI", stored.sop_instance_uid),
            "00041512": _element("UI", stored.transfer_syntax_uid),
        }
        place.below.append(_Record(_encoded(record_type, header, file)))

    def to_bytes(self) -> bytes:
        """Return the DICOMDIR file (PS3.10 §8.6)."""
        prefix = part10_prefix(
            transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
            sop_class_uid=MEDIA_STORAGE_DIRECTORY,
            sop_instance_uid=f"2.25.{uuid.uuid4().int}",
            source_ae_title="",
        )
        records = list(_walk(self._root.below))
        end = len(prefix) + len(_file_set(0, 0)) + SEQUENCE.size
        for record in records:
            record.offset = end
            end += ITEM.size + len(record.data)
        _link(self._root)
        offsets = [record.offset for record in self._root.below] or [0]
        items = [ITEM.pack(0xFFFE, 0xE000, len(one.data)) + one.data for one in records]
        length = sum(map(len, items))
        sequence = SEQUENCE.pack(0x0004, 0x1220, b"SQ", 0, length)
        return b"".join([prefix, _file_set(offsets[0], offsets[-1]), sequence, *items])


def record_type_of(sop_class_uid: str, *, is_image: bool) -> str:
    """Return the Directory Record Type for objects of the SOP class (PS3.3 table F.4-1).

    Images of any class that is not in the table are IMAGE, its other objects RAW DATA.
    """
    if sop_class_uid == RT_IMAGE:
        return "IMAGE"
    if sop_class_uid in ("1.2.840.10008.5.1.4.34.7", "1.2.840.10008.5.1.4.34.10"):
        return "PLAN"
    number = sop_class_uid.removeprefix(STORAGE)
    if number != sop_class_uid:
        for end in range(len(number), 0, -1):
            if (found := RECORD_TYPES.get(number[:end])) is not None:
                return found
    return "IMAGE" if is_image else "RAW DATA"


def _encoded(record_type: str, header: Dataset, file: Dataset) -> bytearray:
    keys = {tag: header.get(tag) or _element(_vr(tag)) for tag in KEYS.get(record_type, ())}
    optional = {tag: header[tag] for tag in OPTIONAL_KEYS.get(record_type, ()) if tag in header}
    if record_type in WITH_CONCEPT_MODIFIERS:
        # Of the content only what modifies the title (§F.5.15): the rest is not for a directory.
        items = [
            item
            for item in header.get(CONTENT_SEQUENCE, {}).get("Value", [])
            if _text(item, RELATIONSHIP_TYPE) == "HAS CONCEPT MOD"
        ]
        if items:
            optional[CONTENT_SEQUENCE] = _element("SQ", *items)
    if record_type == "SR DOCUMENT":
        observers = header.get(VERIFYING_OBSERVERS, {}).get("Value", [])
        if verified := [moment for one in observers if (moment := _text(one, VERIFIED_AT))]:
            optional[VERIFIED_AT] = _element("DT", max(verified))
    record: Dataset = {
        "00041400": _element("UL", 0),
        "00041410": _element("US", IN_USE),
        "00041420": _element("UL", 0),
        "00041430": _element("CS", record_type),
        **file,
        **keys,
        **optional,
    }
    return bytearray(encode_dataset(record, explicit=True, character_set=WESTERN))


def _file_set(first: int, last: int) -> bytes:
    dataset: Dataset = {
        "00041130": _element("CS"),
        "00041200": _element("UL", first),
        "00041202": _element("UL", last),
        "00041212": _element("US", 0),
    }
    return encode_dataset(dataset, explicit=True)


def _walk(records: list[_Record]) -> Iterator[_Record]:
    for record in records:
        yield record
        yield from _walk(record.below)


def _link(parent: _Record) -> None:
    """Write into each record where the next of its level and the first below it begin."""
    offsets = [record.offset for record in parent.below]
    for record, following in zip(parent.below, [*offsets[1:], 0], strict=False):
        OFFSET.pack_into(record.data, NEXT_RECORD_AT, following)
        if record.below:
            OFFSET.pack_into(record.data, LOWER_RECORD_AT, record.below[0].offset)
        _link(record)


def _element(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def _vr(tag: str) -> str:
    return dictionary_VR(int(tag, 16)).split(" or ")[0]


def _text(dataset: Dataset, tag: str) -> str:
    values = dataset.get(tag, {}).get("Value")
    return str(values[0]).strip() if values and values[0] is not None else ""
