"""DICOMDIR: any headers make a directory that is read back (PS3.10 §8, PS3.3 Annex F)."""

import io
from typing import Any

import orjson
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfr_core.blobs import BlobRef
from bfr_core.dicomdir import KEYS, Directory, record_type_of
from bfr_core.manifest import StoredInstance
from bfr_core.retrieval import FoundInstance

STORAGE = "1.2.840.10008.5.1.4.1.1."
CLASSES = ["2", "88.11", "88.59", "11.1", "104.1", "66", "481.3", "481.5", "4.2", "66.5", "12345"]


def found(sop_class_uid: str, uids: tuple[str, str, str], header: dict[str, Any]) -> FoundInstance:
    """An object as the core finds it, with this header."""
    study, series, instance = uids
    stored = StoredInstance(
        sop_instance_uid=instance,
        sop_class_uid=sop_class_uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        instance_number=1,
        blob=BlobRef("pack", 0, 1),
        dataset_offset=0,
        digest=b"",
        frames=None,
    )
    return FoundInstance(study, series, stored, orjson.dumps(header))


def records_of(data: bytes) -> list[pydicom.Dataset]:
    dicomdir = pydicom.dcmread(io.BytesIO(data))
    assert dicomdir.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.1.3.10"
    return list(dicomdir.DirectoryRecordSequence)


def followed(data: bytes, offset: int) -> list[tuple[str, Any]]:
    """The records from an offset on as a tree, by the offsets in the bytes alone."""
    tree = []
    while offset:
        record = pydicom.dcmread(
            io.BytesIO(data[offset + 8 : offset + 8 + int.from_bytes(data[offset + 4 : offset + 8],
            "little")]), force=True)  # fmt: skip
        below = followed(data, record.OffsetOfReferencedLowerLevelDirectoryEntity)
        tree.append((record.DirectoryRecordType, below))
        offset = record.OffsetOfTheNextDirectoryRecord
    return tree


texts = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\\\x00"), max_size=20
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "00100010": st.builds(lambda t: {"vr": "PN", "Value": [{"Alphabetic": t}]}, texts),
        "00100020": st.builds(lambda t: {"vr": "LO", "Value": [t]}, st.sampled_from(["1", "2"])),
        "00080020": st.just({"vr": "DA"}),
        "00081030": st.builds(lambda t: {"vr": "LO", "Value": [t]}, texts),
        "00280010": st.just({"vr": "US", "Value": [64]}),
        "00200013": st.just({"vr": "IS", "Value": [7]}),
    },
)


@given(
    st.lists(
        st.tuples(st.sampled_from(CLASSES), st.sampled_from("12"), st.sampled_from("12"), headers),
        max_size=8,
    )
)
def test_every_object_is_reached_by_the_offsets(objects: list[Any]) -> None:
    directory = Directory()
    for number, (kind, study, series, header) in enumerate(objects):
        uids = (f"1.{study}", f"1.{study}.{series}", f"1.{study}.{series}.{number + 1}")
        one = found(STORAGE + kind, uids, header)
        directory.add(directory.new_file_id(one), one)
    data = directory.to_bytes()
    first = pydicom.dcmread(
        io.BytesIO(data)
    ).OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity
    leaves = []
    for patient, studies in followed(data, first):
        assert patient == "PATIENT"
        for study, all_series in studies:
            assert study == "STUDY"
            for series, files in all_series:
                assert series == "SERIES"
                leaves += files
    assert len(leaves) == len(objects)
    assert all(below == [] for _, below in leaves)
    assert sorted(kind for kind, _ in leaves) == sorted(
        record_type_of(STORAGE + kind, is_image="00280010" in header)
        for kind, _, _, header in objects
    )
    named = [one.ReferencedFileID for one in records_of(data) if "ReferencedFileID" in one]
    assert len({tuple(one) for one in named}) == len(objects)


@pytest.mark.parametrize("kind", sorted(KEYS))
def test_a_record_has_all_its_keys_empty_where_the_object_does_not_tell(kind: str) -> None:
    classes = [STORAGE + number for number in CLASSES]
    directory = Directory()
    for number, sop_class_uid in enumerate(classes, 1):
        one = found(sop_class_uid, ("1", "1.1", f"1.1.{number}"), {})
        directory.add(directory.new_file_id(one), one)
    for record in records_of(directory.to_bytes()):
        if record.DirectoryRecordType == kind:
            assert all(int(tag, 16) in record for tag in KEYS[kind])


@pytest.mark.parametrize(
    ("sop_class_uid", "record_type"),
    [
        (STORAGE + "481.1", "IMAGE"),
        (STORAGE + "481.10", "RADIOTHERAPY"),
        (STORAGE + "481.2", "RT DOSE"),
        (STORAGE + "66.4", "IMAGE"),
        (STORAGE + "9.1.1", "WAVEFORM"),
        (STORAGE + "78.6", "SR DOCUMENT"),
        ("1.2.840.10008.5.1.4.34.7", "PLAN"),
        ("1.2.3.4", "RAW DATA"),
    ],
)
def test_the_sop_class_decides_the_record_type(sop_class_uid: str, record_type: str) -> None:
    assert record_type_of(sop_class_uid, is_image=False) == record_type


def test_a_verified_report_tells_when_it_was_verified_and_its_title_alone() -> None:
    header = {
        "0040A073": {"vr": "SQ", "Value": [
            {"0040A030": {"vr": "DT", "Value": ["20240305150000"]}},
            {"0040A030": {"vr": "DT", "Value": ["20240306150000"]}},
        ]},
        "0040A730": {"vr": "SQ", "Value": [
            {"0040A010": {"vr": "CS", "Value": ["CONTAINS"]}},
            {"0040A010": {"vr": "CS", "Value": ["HAS CONCEPT MOD"]}},
        ]},
    }  # fmt: skip
    directory = Directory()
    one = found(STORAGE + "88.11", ("1", "1.1", "1.1.1"), header)
    directory.add(directory.new_file_id(one), one)
    report = records_of(directory.to_bytes())[-1]
    assert report.VerificationDateTime == "20240306150000"
    assert [item.RelationshipType for item in report.ContentSequence] == ["HAS CONCEPT MOD"]
