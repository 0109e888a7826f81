"""The objects of the benchmark: the same bytes in every run, of patients who do not exist."""

import datetime
import io
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)

Plane = npt.NDArray[np.uint16]

NAMESPACE = uuid.UUID("6a0c39a2-26b4-5c8d-9d16-2d1f0e6f7b11")
SIZE = 512
SMALL_SIZE = 64
PLANES = 8
STUDIES_A_NAME = 12
FIRST_DAY = datetime.date(2023, 1, 1)
DAYS = 730
MODALITIES = ("CT", "CT", "MR")  # of the small studies, in turn

# Values that each object replaces by its own of the same length: encoding a header costs more
# than everything else.
STUDY = f"2.25.{10**38 + 1}"
SERIES = f"2.25.{10**38 + 2}"
SOP_INSTANCE = f"2.25.{10**38 + 3}"
PATIENT = "BENCHPATIENT"
NAME = "Provsson0000^Test000000"
ACCESSION = "ACCESSION000"
DATE = "19000101"
INSTANCE_NUMBER = "987654"
CONTENT_TIME = "101502.987654"
SLICE_LOCATION = "-98765.4"

# What a CT scanner says of every slice of a series.
SCANNER: dict[str, object] = {
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_PROV SPI"],
    "InstanceCreationDate": "20190612",
    "InstanceCreationTime": "101502.118000",
    "SeriesDate": "20190612",
    "AcquisitionDate": "20190612",
    "ContentDate": "20190612",
    "AcquisitionDateTime": "20190612101455.250000",
    "SeriesTime": "101441.968000",
    "AcquisitionTime": "101455.250000",
    "Manufacturer": "Bench Medical Systems",
    "InstitutionName": "Provsjukhuset",
    "InstitutionAddress": "Provgatan 1, 123 45 Provstad",
    "ReferringPhysicianName": "Remittentsson^Örjan",
    "StationName": "CTPROV01",
    "PerformingPhysicianName": "Radiologsson^Ärla",
    "OperatorsName": "Skötarsson^Liv",
    "ManufacturerModelName": "Bench 64",
    "BodyPartExamined": "CHEST",
    "ScanOptions": "FAST_SPIRAL",
    "SliceThickness": "1.5",
    "KVP": "120",
    "DataCollectionDiameter": "500",
    "SpacingBetweenSlices": "1.0",
    "DeviceSerialNumber": "0099887",
    "SoftwareVersions": "prov 1.0",
    "ProtocolName": "Thorax rutin",
    "ContrastBolusAgent": "Prov 350",
    "ContrastBolusRoute": "IV",
    "ContrastBolusVolume": "80",
    "ContrastFlowRate": "3.0",
    "ReconstructionDiameter": "380",
    "DistanceSourceToDetector": "1085.6",
    "DistanceSourceToPatient": "595",
    "GantryDetectorTilt": "0",
    "TableHeight": "152",
    "RotationDirection": "CW",
    "ExposureTime": "500",
    "XRayTubeCurrent": "220",
    "Exposure": "110",
    "FilterType": "FLAT",
    "GeneratorPower": "26",
    "FocalSpots": "1.2",
    "ConvolutionKernel": "B31f",
    "PatientPosition": "HFS",
    "SingleCollimationWidth": 0.6,
    "TotalCollimationWidth": 38.4,
    "TableSpeed": 46.0,
    "TableFeedPerRotation": 23.0,
    "SpiralPitchFactor": 0.6,
    "ExposureModulationType": "XYZ_EC",
    "EstimatedDoseSaving": 22.5,
    "CTDIvol": 7.41,
    "AcquisitionNumber": "2",
    "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "PixelSpacing": ["0.7421875", "0.7421875"],
    "BitsAllocated": 16,
    "BitsStored": 12,
    "HighBit": 11,
    "PixelRepresentation": 0,
    "SmallestImagePixelValue": 0,
    "LargestImagePixelValue": 4095,
    "WindowCenter": ["40", "-600"],
    "WindowWidth": ["400", "1500"],
    "RescaleIntercept": "-1024",
    "RescaleSlope": "1",
    "RescaleType": "HU",
    "WindowCenterWidthExplanation": ["MJUKDEL", "LUNGA"],
    "RequestingPhysician": "Remittentsson^Örjan",
    "RequestedProcedureDescription": "DT thorax med kontrast",
    "PerformedStationAETitle": "CTPROV01",
    "PerformedProcedureStepStartDate": "20190612",
    "PerformedProcedureStepStartTime": "101400",
    "PerformedProcedureStepID": "P4711",
    "PerformedProcedureStepDescription": "DT thorax",
    "RequestedProcedureID": "R4711",
    "PatientAge": "061Y",
    "PatientWeight": "81",
    "BurnedInAnnotation": "NO",
    "LossyImageCompression": "00",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One object as a file."""

    path: Path
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str

    def part10(self) -> bytes:
        """Return the whole file."""
        return self.path.read_bytes()


@dataclass(frozen=True, slots=True)
class SmallStudy:
    """A study of one small image, for the index."""

    sample: Sample
    patient_identifier: str
    family_name: str
    accession_number: str
    study_date: str
    modality: str


def dataset_of(part10: bytes) -> bytes:
    """Return the data set of a Part 10 file: what a server has to keep as it is."""
    if part10[128:132] != b"DICM" or part10[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        raise ValueError("no Part 10 file with the length of its file meta information")
    return part10[144 + int.from_bytes(part10[140:144], "little") :]


def same_elements(one: bytes, other: bytes) -> bool:
    """Tell whether two Part 10 files hold the same elements, however they are encoded.

    A sender such as storescu may write the lengths of sequences in another way than its file.
    """
    return bool(dcmread(io.BytesIO(one)) == dcmread(io.BytesIO(other)))


def pixels_of(part10: bytes, size: int = SIZE) -> bytes:
    """Return the pixels of a file of ours: they are its last element."""
    return part10[-size * size * 2 :]


def write_series(
    directory: Path, label: str, counts: Sequence[int], size: int = SIZE
) -> list[Sample]:
    """Write one CT study with a series for each count; the label gives the UIDs."""
    directory.mkdir(parents=True)
    planes = _planes(size)
    study = uid(label)
    samples = []
    for number, count in enumerate(counts, 1):
        series = uid(label, number)
        dataset = _dataset(CTImageStorage, "CT", size)
        dataset.StudyInstanceUID = study
        dataset.SeriesInstanceUID = series
        dataset.FrameOfReferenceUID = uid(label, number, "frame of reference")
        dataset.SeriesNumber = number
        dataset.PatientID = f"BENCH-{label}"[:64]
        dataset.PatientName = "Lagringsson^Prov"
        dataset.StudyDate = "20190612"
        dataset.AccessionNumber = "LAGRING"
        dataset.SOPInstanceUID = SOP_INSTANCE
        dataset.InstanceNumber = INSTANCE_NUMBER
        dataset.ContentTime = CONTENT_TIME
        dataset.SliceLocation = SLICE_LOCATION
        dataset.ImagePositionPatient = ["-190", "-190", SLICE_LOCATION]
        header = _header(dataset)
        for slice_number in range(1, count + 1):
            own = {
                SOP_INSTANCE: uid(label, number, slice_number),
                CONTENT_TIME: f"101502.{slice_number:06d}",
                SLICE_LOCATION: f"{-slice_number:<8}",
                INSTANCE_NUMBER: f"{slice_number:<6}",
            }
            plane = np.roll(planes[slice_number % PLANES], slice_number, axis=0)
            path = directory / f"{number:02d}-{slice_number:04d}.dcm"
            _write(path, header, own, plane)
            samples.append(Sample(path, study, series, own[SOP_INSTANCE]))
    os.sync()  # or the servers' disk would be busy with it later
    return samples


def write_small_studies(directory: Path, count: int) -> list[SmallStudy]:
    """Write studies of one small image each, spread over names, days and two modalities."""
    directory.mkdir(parents=True)
    planes = _planes(SMALL_SIZE)
    headers = {modality: _small_header(modality) for modality in set(MODALITIES)}
    studies = []
    for number in range(count):
        modality = MODALITIES[number % len(MODALITIES)]
        day = FIRST_DAY + datetime.timedelta(days=number * 397 % DAYS)
        family_name = f"Provsson{number // STUDIES_A_NAME:04d}"
        own = {
            STUDY: uid("small", number),
            SERIES: uid("small", number, "series"),
            SOP_INSTANCE: uid("small", number, "instance"),
            PATIENT: f"BENCH{number:07d}",
            NAME: f"{family_name}^Test{number:06d}",
            ACCESSION: f"ACC{number:09d}",
            DATE: day.strftime("%Y%m%d"),
        }
        plane = np.roll(planes[number % PLANES], number, axis=0)
        path = directory / f"{number:06d}.dcm"
        _write(path, headers[modality], own, plane)
        studies.append(
            SmallStudy(
                Sample(path, own[STUDY], own[SERIES], own[SOP_INSTANCE]),
                patient_identifier=own[PATIENT],
                family_name=family_name,
                accession_number=own[ACCESSION],
                study_date=own[DATE],
                modality=modality,
            )
        )
    os.sync()
    return studies


def huge_header(side: int, frames: int) -> tuple[bytes, str]:
    """Return what precedes the pixels of an object of so many frames, and its study."""
    dataset = _dataset(SecondaryCaptureImageStorage, "OT", side)
    dataset.StudyInstanceUID = uid("huge")
    dataset.SeriesInstanceUID = uid("huge", 1)
    dataset.SOPInstanceUID = uid("huge", 1, 1)
    dataset.PatientID = "BENCH-huge"
    dataset.NumberOfFrames = frames
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    length = (side * side * frames).to_bytes(4, "little")
    header = _header(dataset) + b"\xe0\x7f\x10\x00OB\x00\x00" + length
    return header, dataset.StudyInstanceUID


def uid(*parts: object) -> str:
    """Return the UID that belongs to these words, the same in every run and always as long."""
    number = uuid.uuid5(NAMESPACE, " ".join(map(str, parts))).int
    return f"2.25.{10**38 + number % 10**38}"


def in_shares(samples: Sequence[Sample], shares: int) -> Iterator[Sequence[Sample]]:
    """Yield the samples in so many runs of nearly the same length."""
    for number in range(shares):
        start = len(samples) * number // shares
        yield samples[start : len(samples) * (number + 1) // shares]


def _planes(size: int) -> list[Plane]:
    random = np.random.default_rng(20190612)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    planes = []
    for number in range(PLANES):
        body = np.where(x * x / 0.6 + y * y / 0.4 < 1, 1040.0, 20.0)
        lung = (np.abs(x) - 0.35) ** 2 + y * y < 0.05 + 0.004 * number
        plane = np.where(lung, 180.0, body) + random.normal(0, 18, (size, size))
        planes.append(np.clip(plane, 0, 4095).astype(np.uint16))
    return planes


def _dataset(sop_class_uid: str, modality: str, size: int) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = sop_class_uid
    dataset.Modality = modality
    dataset.StudyTime = "101400"
    dataset.StudyID = "4711"
    dataset.StudyDescription = "DT thorax med kontrast"
    dataset.SeriesDescription = "Thorax 1.5 B31f"
    dataset.PatientBirthDate = "19580214"
    dataset.PatientSex = "O"
    dataset.Rows = dataset.Columns = size
    for keyword, value in SCANNER.items():
        setattr(dataset, keyword, value)
    request = Dataset()
    request.ScheduledProcedureStepDescription = "DT thorax"
    request.ScheduledProcedureStepID = "S4711"
    request.RequestedProcedureID = "R4711"
    dataset.RequestAttributesSequence = [request]
    code = Dataset()
    code.CodeValue = "81100"
    code.CodingSchemeDesignator = "99PROV"
    code.CodeMeaning = "DT thorax"
    dataset.ProcedureCodeSequence = [code]
    return dataset


def _small_header(modality: str) -> bytes:
    dataset = _dataset(CTImageStorage if modality == "CT" else MRImageStorage, modality, SMALL_SIZE)
    dataset.StudyInstanceUID = STUDY
    dataset.SeriesInstanceUID = SERIES
    dataset.SOPInstanceUID = SOP_INSTANCE
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    dataset.PatientID = PATIENT
    dataset.PatientName = NAME
    dataset.AccessionNumber = ACCESSION
    dataset.StudyDate = DATE
    return _header(dataset)


def _header(dataset: Dataset) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    header = io.BytesIO()
    dcmwrite(header, dataset, enforce_file_format=True)
    return header.getvalue()


def _write(path: Path, header: bytes, own: Mapping[str, str], plane: Plane) -> None:
    """Write the header with its placeholders replaced by values of the same length."""
    for placeholder, value in own.items():
        if len(placeholder) != len(value):
            raise ValueError(f"{value!r} is not as long as {placeholder!r}")
        header = header.replace(placeholder.encode(), value.encode())
    pixels = plane.astype("<u2").tobytes()
    with path.open("wb") as file:
        file.write(header)
        file.write(b"\xe0\x7f\x10\x00OW\x00\x00" + len(pixels).to_bytes(4, "little"))
        file.write(pixels)
