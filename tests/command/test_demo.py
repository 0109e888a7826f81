"""The demonstration set: invented people, true geometry, nothing left of where images came from."""

import re
import shutil
import subprocess
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import ComprehensiveSRStorage
from tests.conftest import need
from tests.samples import decoded_frames

from bfr_command.demo import DemoFile, DemoSet, pictures, write_demo_files
from bfr_command.demo.adoption import BUNDLED_DIRECTORY
from bfr_command.demo.anatomy import KNOWN_TISSUE
from bfr_command.demo.canvas import PIXEL_SPACING_MM
from bfr_command.demo.history import STUDIES
from bfr_command.demo.identities import (
    PATIENTS,
    VGR_RESERVE_NUMBER_OID,
    luhn_digit,
    personnummer,
    samordningsnummer,
)
from bfr_command.demo.labels import instance_uid, study_uid

NON_IMAGES = ("RTSTRUCT", "RTPLAN", "SR", "ECG", "DOC")


@dataclass(frozen=True)
class Written:
    directory: Path
    demo_set: DemoSet
    told: list[tuple[int, int]]

    def series(self, study: str, number: int) -> list[Dataset]:
        """The objects of one series, by Instance Number; their pixels are read when used."""
        paths = sorted((self.directory / study).glob(f"{number:03d}-*.dcm"))
        return [pydicom.dcmread(path, defer_size=4096) for path in paths]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    directory = tmp_path_factory.mktemp("demo")
    told: list[tuple[int, int]] = []
    demo_set = write_demo_files(directory, lambda done, total: told.append((done, total)))
    return Written(directory, demo_set, told)


def headers(written: Written) -> Iterator[tuple[DemoFile, Dataset]]:
    for file in written.demo_set.files:
        yield file, pydicom.dcmread(file.path, stop_before_pixels=True)


# People


def test_every_number_is_a_test_number_with_a_right_check_digit() -> None:
    for patient in PATIENTS:
        number = patient.patient_id
        if patient.issuer_oid == VGR_RESERVE_NUMBER_OID:
            assert number == "19810829M071"  # published test number
            continue
        assert re.fullmatch(r"\d{8}98\d\d", number)
        assert luhn_digit(number[2:11]) == int(number[11])
        assert (int(number[10]) % 2 == 1) == (patient.sex == "M")


def test_the_day_of_a_samordningsnummer_is_moved_by_sixty() -> None:
    born = date(1992, 4, 12)
    assert samordningsnummer(born, 985)[:8] == "19920472"
    assert personnummer(born, 985)[:8] == "19920412"


@pytest.mark.parametrize("birth_number", [979, 990, 1])
def test_a_number_that_a_person_may_have_is_refused(birth_number: int) -> None:
    with pytest.raises(ValueError, match="test range"):
        personnummer(date(1985, 1, 1), birth_number)


def test_each_patient_has_two_to_six_studies_over_years() -> None:
    count = Counter(study.patient.patient_id for study in STUDIES)
    assert set(count) == {patient.patient_id for patient in PATIENTS}
    assert all(2 <= number <= 6 for number in count.values())
    assert {study.started_at.year for study in STUDIES} == set(range(2021, 2027))
    assert all(study.started_at.date() > study.patient.birth_date for study in STUDIES)


def test_every_object_belongs_to_its_patient_and_study(written: Written) -> None:
    studies = {str(study_uid(study)): study for study in STUDIES}
    for file, header in headers(written):
        study = studies[header.StudyInstanceUID]
        assert header.PatientID == study.patient.patient_id
        assert header.PatientName == study.patient.name
        assert header.PatientBirthDate == f"{study.patient.birth_date:%Y%m%d}"
        assert header.PatientSex == study.patient.sex
        assert header.AccessionNumber == study.accession_number
        assert header.StudyDescription == study.description
        assert file.door == study.door
        issuer = header.IssuerOfPatientIDQualifiersSequence[0]
        assert issuer.UniversalEntityID == study.patient.issuer_oid


# Nothing of the source


def identities_of(source: Dataset) -> set[str]:
    """Everything in a source that tells whom or where it came from."""
    telling = (
        "PatientID OtherPatientIDs PatientAddress InstitutionName InstitutionAddress StationName"
        " InstitutionalDepartmentName AccessionNumber AdmissionID DeviceSerialNumber"
        " VerifyingOrganization CodingSchemeResponsibleOrganization RequestingPhysician"
        " PatientBirthDate StudyID SoftwareVersions ContentDescription"
    ).split()
    found: set[str] = set()
    for element in source.iterall():
        values = element.value if element.VM > 1 else [element.value]
        if element.VR == "PN" or element.keyword in telling:
            found.update(str(value) for value in values)
        elif element.VR == "UI" and element.keyword != "CodingSchemeUID":
            found.update(value for value in values if value and pydicom.uid.UID(value).is_private)
        elif element.tag.is_private and element.VR in ("LO", "SH", "PN", "LT", "ST"):
            found.update(str(value) for value in values)
    # Private attributes repeat what is no secret: the make of the scanner, the kind of image.
    open_values = " ".join(
        str(source.get(keyword, ""))
        for keyword in ("Manufacturer", "ManufacturerModelName", "ImageType", "ImageID")
    )
    open_values += " ".join(e.value for e in source.iterall() if e.keyword == "TextValue")
    stripped = {value.strip() for value in found}
    return {value for value in stripped if value and value not in open_values}


def told_by(dataset: Dataset) -> set[str]:
    """Every text, name, date and UID in an object, at every depth."""
    told: set[str] = set()
    for element in dataset.iterall():
        if element.VR not in ("SQ", "OB", "OW", "OF", "OD", "UN", "DS", "IS", "US", "SS", "UL"):
            values = element.value if element.VM > 1 else [element.value]
            told.update(str(value).strip() for value in values)
    return told


BUNDLED = [
    (name, study.key, series.number, number)
    for study in STUDIES
    for series in study.series
    for number, name in enumerate(series.bundled, start=1)
]


@pytest.mark.parametrize(("name", "study", "series", "number"), BUNDLED)
def test_nothing_tells_whom_a_picture_showed(
    written: Written, name: str, study: str, series: int, number: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = pydicom.dcmread(BUNDLED_DIRECTORY / name, force=True)
        secrets = identities_of(source)
    path = written.directory / study / f"{series:03d}-{number:04d}.dcm"
    adopted = pydicom.dcmread(path)
    label_says = {"1", "01", "02", "03", "04", "05"}
    assert told_by(adopted) & (secrets - label_says) == set()
    assert not [element for element in adopted.iterall() if element.tag.is_private]
    data = path.read_bytes()
    assert [secret for secret in secrets if len(secret) > 6 and secret.encode() in data] == []
    assert adopted.file_meta.TransferSyntaxUID == source.file_meta.get(
        "TransferSyntaxUID", "1.2.840.10008.1.2"
    )


@pytest.mark.parametrize(("name", "study", "series", "number"), BUNDLED)
def test_the_pixels_are_those_of_the_source_but_for_a_burned_in_banner(
    written: Written, name: str, study: str, series: int, number: int
) -> None:
    path = written.directory / study / f"{series:03d}-{number:04d}.dcm"
    adopted = pydicom.dcmread(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = pydicom.dcmread(BUNDLED_DIRECTORY / name, force=True)
    if adopted.get("BurnedInAnnotation") != "NO":
        assert adopted.get("PixelData") == source.get("PixelData")
        return
    (before,), (after,) = decoded_frames(source), decoded_frames(adopted)
    banner = np.argmax(np.any(after != after[0, 0], axis=tuple(range(1, after.ndim))))
    assert banner > 50
    rows = 54 if source.Rows == 240 else 108 if source.Rows == 480 else 60
    assert np.array_equal(before[rows:], after[rows:])


# The set


def test_progress_reaches_its_end(written: Written) -> None:
    total = len(written.demo_set.files)
    assert written.told == [(done, total) for done in range(1, total + 1)]


def test_uids_are_unique(written: Written) -> None:
    uids = [file.sop_instance_uid for file in written.demo_set.files]
    assert len(set(uids)) == len(uids)
    assert all(re.fullmatch(r"2\.25\.\d{1,39}", uid) for uid in uids)


def test_a_set_that_lost_a_file_is_written_again_and_is_the_same(
    written: Written, tmp_path: Path
) -> None:
    shutil.copytree(written.directory, tmp_path, dirs_exist_ok=True)
    (tmp_path / "asa-01" / "001-0001.dcm").unlink()
    (tmp_path / "marta-01" / "001-0001.dcm").write_bytes(b"cut short")
    again = write_demo_files(tmp_path)
    for first, second in zip(written.demo_set.files, again.files, strict=True):
        assert first.sop_instance_uid == second.sop_instance_uid
        assert first.path.read_bytes() == second.path.read_bytes()


def test_a_set_that_is_there_is_used_again(written: Written) -> None:
    before = [file.path.stat().st_mtime_ns for file in written.demo_set.files]
    told: list[tuple[int, int]] = []
    again = write_demo_files(written.directory, lambda done, total: told.append((done, total)))
    assert again == written.demo_set
    assert [file.path.stat().st_mtime_ns for file in again.files] == before
    assert told == [(len(before), len(before))]


def test_the_doors_get_about_half_of_the_studies_each(written: Written) -> None:
    doors = Counter(study.door for study in STUDIES)
    assert abs(doors["C-STORE"] - doors["STOW-RS"]) <= 2
    through = written.demo_set.through("C-STORE") + written.demo_set.through("STOW-RS")
    assert set(through) == {file.path for file in written.demo_set.files}


def test_the_set_stays_small_and_has_many_forms(written: Written) -> None:
    assert sum(file.size_bytes for file in written.demo_set.files) < 250_000_000
    assert len({file.transfer_syntax_uid for file in written.demo_set.files}) >= 12
    assert len({file.sop_class_uid for file in written.demo_set.files}) >= 12
    assert ComprehensiveSRStorage in {file.sop_class_uid for file in written.demo_set.files}


def test_all_pixels_can_be_decoded(written: Written) -> None:
    for file in written.demo_set.files:
        dataset = pydicom.dcmread(file.path)
        if dataset.Modality in NON_IMAGES:
            assert "PixelData" not in dataset
            continue
        frames = decoded_frames(dataset)
        assert len(frames) == int(dataset.get("NumberOfFrames", 1))
        assert {frame.shape[:2] for frame in frames} == {(dataset.Rows, dataset.Columns)}


def test_dcmtk_takes_every_file_for_dicom(written: Written) -> None:
    program = need("dcmftest")
    paths = [str(file.path) for file in written.demo_set.files]
    told = subprocess.run([program, *paths], capture_output=True, text=True, check=False).stdout
    assert [line for line in told.splitlines() if not line.startswith("yes:")] == []
    assert len(told.splitlines()) == len(paths)


# The generated volume


def test_the_volume_has_two_hundred_slices_in_order(written: Written) -> None:
    slices = written.series("asa-04", 2)
    assert [s.InstanceNumber for s in slices] == list(range(1, 201))
    assert len({s.FrameOfReferenceUID for s in slices}) == 1
    heights = [float(s.ImagePositionPatient[2]) for s in slices]
    assert np.allclose(np.diff(heights), -pictures.CT_SPACING_MM)
    assert all(s.SliceThickness == pictures.CT_SPACING_MM for s in slices)
    assert {s.BitsStored for s in slices} == {12}


@pytest.mark.parametrize("name", KNOWN_TISSUE)
def test_known_places_have_the_tissue_they_should(written: Written, name: str) -> None:
    (x, y, depth), expected = KNOWN_TISSUE[name]
    slices = written.series("asa-04", 2)
    image = min(slices, key=lambda s: abs(s.SliceLocation - pictures.TOP_OF_TRUNK_MM + depth))
    first_x, first_y, _ = image.ImagePositionPatient
    row_mm, column_mm = image.PixelSpacing
    row, column = round((y - first_y) / row_mm), round((x - first_x) / column_mm)
    (frame,) = decoded_frames(image)
    around = frame[row - 2 : row + 3, column - 2 : column + 3]
    units = around * float(image.RescaleSlope) + float(image.RescaleIntercept)
    assert abs(units.mean() - expected) < 30


def test_coronal_and_axial_planes_agree_where_they_cross(written: Written) -> None:
    axial, coronal = written.series("asa-04", 2), written.series("asa-04", 3)
    plane = coronal[len(coronal) // 2]
    assert plane.FrameOfReferenceUID == axial[0].FrameOfReferenceUID
    first_y = float(axial[0].ImagePositionPatient[1])
    row_of_axial = (float(plane.ImagePositionPatient[1]) - first_y) / PIXEL_SPACING_MM
    half = pictures.CORONAL_ROWS / 2
    crossing = slice(round(row_of_axial - half + 0.5), round(row_of_axial + half + 0.5))
    cut = axial[100]
    down = float(plane.ImagePositionPatient[2]) - float(cut.ImagePositionPatient[2])
    (across,), (reformatted,) = decoded_frames(cut), decoded_frames(plane)
    expected = across[crossing].mean(axis=0)
    found = reformatted[round(down / PIXEL_SPACING_MM)]
    assert np.corrcoef(expected, found)[0, 1] > 0.99


def test_the_prior_shows_the_same_person_with_a_smaller_nodule(written: Written) -> None:
    current, prior = written.series("asa-04", 2), written.series("asa-02", 2)
    assert len(prior) == pictures.PRIOR_SLICES
    widths = []
    (x, y, depth), _ = KNOWN_TISSUE["nodule"]
    for slices in (current, prior):
        z = pictures.TOP_OF_TRUNK_MM - depth
        image = min(slices, key=lambda s: abs(s.ImagePositionPatient[2] - z))
        (frame,) = decoded_frames(image)
        row = round((y - image.ImagePositionPatient[1]) / image.PixelSpacing[0])
        column = round((x - image.ImagePositionPatient[0]) / image.PixelSpacing[1])
        line = frame[row, column - 12 : column + 13].astype(int) - 1024
        widths.append(np.count_nonzero(line > -300) * image.PixelSpacing[1])
    assert widths[0] == pytest.approx(pictures.NODULE_MM, abs=2.5)
    assert widths[1] < widths[0] - 2


def test_the_radiograph_is_large_and_uses_its_twelve_bits(written: Written) -> None:
    (image,) = written.series("asa-03", 1)
    (frame,) = decoded_frames(image)
    assert frame.shape == (2048, 2500)
    assert frame.max() <= 4095
    assert np.percentile(frame, 99) - np.percentile(frame, 5) > 2000


def test_the_cine_moves(written: Written) -> None:
    (image,) = written.series("orjan-03", 1)
    frames = decoded_frames(image)
    assert len(frames) == 30
    assert frames[0].shape == (600, 800, 3)
    assert np.abs(frames[0].astype(int) - frames[10].astype(int)).mean() > 3


def test_the_report_points_at_an_image_of_its_study(written: Written) -> None:
    (report,) = written.series("asa-04", 99)
    study = next(study for study in STUDIES if study.key == "asa-04")
    referenced = report.CurrentRequestedProcedureEvidenceSequence[0]
    assert referenced.StudyInstanceUID == study_uid(study)
    image = referenced.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert image.ReferencedSOPInstanceUID == instance_uid(study, study.series[1], 43)
    assert image.ReferencedSOPInstanceUID in {s.SOPInstanceUID for s in written.series("asa-04", 2)}


def test_the_referral_is_a_pdf(written: Written) -> None:
    (referral,) = written.series("signe-02", 1)
    document = referral.EncapsulatedDocument[: referral.EncapsulatedDocumentLength]
    assert document.startswith(b"%PDF-")
    assert document.rstrip().endswith(b"%%EOF")


def test_the_brain_is_stored_as_high_throughput_jpeg_2000(written: Written) -> None:
    slices = written.series("marta-03", 1)
    assert len(slices) == 40
    fragment = next(pydicom.encaps.generate_frames(slices[20].PixelData, number_of_frames=1))
    assert imagecodecs.htj2k_check(fragment)
