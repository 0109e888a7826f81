"""The pictures made by code, as DICOM objects of their series."""

from collections.abc import Iterator, Sequence
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from bfr_command.demo import brain, echocardiogram, radiograph
from bfr_command.demo.anatomy import Trunk, trunk_slices
from bfr_command.demo.canvas import COLUMNS, PIXEL_SPACING_MM
from bfr_command.demo.history import Series, Study
from bfr_command.demo.labels import file_meta, label, uid

Picture = npt.NDArray[np.uint16]

CT_SLICES, CT_SPACING_MM = 200, 2.0
PRIOR_SLICES, PRIOR_SPACING_MM = 60, 5.0
CORONAL_SLICES, CORONAL_ROWS = 44, 6  # each averages six rows of the axial slices
TOP_OF_TRUNK_MM = 100.0  # z of the topmost slice
FIRST_PIXEL_MM = -(COLUMNS - 1) / 2 * PIXEL_SPACING_MM
COUNTS = {
    "ct": CT_SLICES,
    "ct-scout": 1,
    "ct-coronal": CORONAL_SLICES,
    "ct-prior": PRIOR_SLICES,
    "chest-radiograph": 1,
    "mr-t1": brain.SLICES,
    "mr-t2": brain.SLICES,
    "echocardiogram": 1,
}

_FIRST_CORONAL_ROW = (COLUMNS - CORONAL_SLICES * CORONAL_ROWS) // 2
_TRUNK_SEED, _HEAD_SEED, _HEART_SEED = 7, 3, 5
NODULE_MM, PRIOR_NODULE_MM = 11.0, 6.0

Place = tuple[Study, Series]


def pictures(places: dict[str, Place]) -> Iterator[tuple[Study, Dataset]]:
    """Yield every picture made by code, with its study; `places` says where each kind belongs."""
    yield from _trunk(places)
    yield from _prior(places["ct-prior"])
    tissue = brain.head(_HEAD_SEED)
    for kind in ("T1", "T2"):
        yield from _head(places[f"mr-{kind.lower()}"], kind, tissue)
    yield from _echocardiogram(places["echocardiogram"])


def _trunk(places: dict[str, Place]) -> Iterator[tuple[Study, Dataset]]:
    """Yield the axial slices, and what is reformatted and projected from them."""
    depths = [index * CT_SPACING_MM for index in range(CT_SLICES)]
    absorbed, slabs = [], []
    coronal = slice(_FIRST_CORONAL_ROW, _FIRST_CORONAL_ROW + CORONAL_SLICES * CORONAL_ROWS)
    for number, hu in enumerate(trunk_slices(Trunk(_TRUNK_SEED, 2, NODULE_MM), depths), start=1):
        absorbed.append(radiograph.absorbed_by(hu))
        slabs.append(hu[coronal].reshape(CORONAL_SLICES, CORONAL_ROWS, COLUMNS).mean(axis=1))
        dataset = _axial(places["ct"], number, depths[number - 1], CT_SPACING_MM)
        _put(dataset, [_stored(hu)], ExplicitVRLittleEndian)
        yield places["ct"][0], dataset
    yield places["ct-scout"][0], _scout(places["ct-scout"], absorbed)
    for number, plane in enumerate(_coronals(np.stack(slabs)), start=1):
        yield places["ct-coronal"][0], _coronal(places["ct-coronal"], number, plane)
    yield places["chest-radiograph"][0], _radiograph(places["chest-radiograph"], absorbed)


def _prior(place: Place) -> Iterator[tuple[Study, Dataset]]:
    depths = [index * PRIOR_SPACING_MM for index in range(PRIOR_SLICES)]
    trunk = Trunk(_TRUNK_SEED, 1, PRIOR_NODULE_MM)
    for number, hu in enumerate(trunk_slices(trunk, depths), start=1):
        dataset = _axial(place, number, depths[number - 1], PRIOR_SPACING_MM)
        _put(dataset, [_stored(hu)], JPEGLSLossless)
        yield place[0], dataset


def _axial(place: Place, number: int, depth_mm: float, spacing_mm: float) -> Dataset:
    z = TOP_OF_TRUNK_MM - depth_mm
    dataset = _ct(place, number, ["ORIGINAL", "PRIMARY", "AXIAL"], spacing_mm)
    dataset.ImagePositionPatient = [FIRST_PIXEL_MM, FIRST_PIXEL_MM, z]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.SliceLocation = z
    dataset.PixelSpacing = [PIXEL_SPACING_MM, PIXEL_SPACING_MM]
    return dataset


def _coronal(place: Place, number: int, plane: npt.NDArray[np.floating[Any]]) -> Dataset:
    dataset = _ct(place, number, ["DERIVED", "SECONDARY", "REFORMATTED"], 4.6875)
    row = _FIRST_CORONAL_ROW + (number - 1) * CORONAL_ROWS + (CORONAL_ROWS - 1) / 2
    y = FIRST_PIXEL_MM + row * PIXEL_SPACING_MM
    dataset.ImagePositionPatient = [FIRST_PIXEL_MM, y, TOP_OF_TRUNK_MM]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    dataset.SliceLocation = y
    dataset.PixelSpacing = [PIXEL_SPACING_MM, PIXEL_SPACING_MM]
    _put(dataset, [_stored(plane)], HTJ2KLossless)
    return dataset


def _coronals(
    slabs: npt.NDArray[np.floating[Any]],
) -> Iterator[npt.NDArray[np.floating[Any]]]:
    """Yield the coronal planes with square pixels, between the axial slices by straight lines."""
    rows = int((CT_SLICES - 1) * CT_SPACING_MM / PIXEL_SPACING_MM) + 1
    position = np.arange(rows) * PIXEL_SPACING_MM / CT_SPACING_MM
    above = np.minimum(position.astype(np.intp), CT_SLICES - 2)
    share = (position - above)[:, None].astype(np.float32)
    for index in range(CORONAL_SLICES):
        yield slabs[above, index] * (1 - share) + slabs[above + 1, index] * share


def _scout(place: Place, absorbed: Sequence[npt.NDArray[np.floating[Any]]]) -> Dataset:
    dataset = _ct(place, 1, ["ORIGINAL", "PRIMARY", "LOCALIZER"], 1.0)
    dataset.ImagePositionPatient = [FIRST_PIXEL_MM, 0, TOP_OF_TRUNK_MM]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    dataset.PixelSpacing = [PIXEL_SPACING_MM, PIXEL_SPACING_MM]
    dataset.RescaleIntercept = 0
    dataset.RescaleType = "US"
    dataset.WindowCenter, dataset.WindowWidth = 900, 1700
    _put(dataset, [radiograph.scout_view(absorbed, CT_SPACING_MM)], ExplicitVRLittleEndian)
    return dataset


def _ct(place: Place, number: int, image_type: list[str], thickness_mm: float) -> Dataset:
    study, _ = place
    dataset = _grey(place, number, CTImageStorage, "CT", image_type)
    dataset.FrameOfReferenceUID = uid("frame of reference", study.key)
    dataset.PositionReferenceIndicator = ""
    dataset.PatientPosition = "HFS"
    dataset.KVP = 120
    dataset.SliceThickness = thickness_mm
    dataset.ScanOptions = "HELICAL MODE"
    dataset.ConvolutionKernel = "STANDARD"
    dataset.ContrastBolusAgent = "Jodkontrast 350 mg/ml"
    dataset.AcquisitionNumber = 1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = -1024, 1, "HU"
    dataset.WindowCenter, dataset.WindowWidth = [40, -600], [400, 1500]
    dataset.WindowCenterWidthExplanation = ["MJUKDEL", "LUNGA"]
    return dataset


def _radiograph(place: Place, absorbed: Sequence[npt.NDArray[np.floating[Any]]]) -> Dataset:
    dataset = _grey(
        place, 1, DigitalXRayImageStorageForPresentation, "DX", ["ORIGINAL", "PRIMARY", ""]
    )
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.PatientOrientation = ["L", "F"]
    dataset.ViewPosition = "PA"
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = [_code("51185008", "SCT", "Thorax")]
    dataset.ViewCodeSequence = [_code("272479007", "SCT", "Postero-anterior projection")]
    dataset.ImagerPixelSpacing = [radiograph.RADIOGRAPH_SPACING_MM] * 2
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", 1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    dataset.KVP = 125
    dataset.WindowCenter, dataset.WindowWidth = 1900, 3400
    _put(dataset, [radiograph.chest_radiograph(absorbed, CT_SPACING_MM)], JPEGLosslessSV1)
    return dataset


def _head(
    place: Place, kind: str, tissue: npt.NDArray[np.uint8]
) -> Iterator[tuple[Study, Dataset]]:
    images = brain.weighted(tissue, kind, _HEAD_SEED)
    first_mm = -(brain.ROWS - 1) / 2 * brain.PIXEL_SPACING_MM
    for number, image in enumerate(images, start=1):
        z = brain.LOWEST_MM + (number - 1) * brain.SLICE_SPACING_MM
        dataset = _grey(place, number, MRImageStorage, "MR", ["ORIGINAL", "PRIMARY", "OTHER"])
        dataset.FrameOfReferenceUID = uid("frame of reference", place[0].key)
        dataset.PositionReferenceIndicator = ""
        dataset.PatientPosition = "HFS"
        dataset.ScanningSequence, dataset.SequenceVariant = "SE", "NONE"
        dataset.ScanOptions, dataset.MRAcquisitionType = "", "2D"
        dataset.RepetitionTime, dataset.EchoTime = (500, 12) if kind == "T1" else (4500, 95)
        dataset.EchoTrainLength = 1 if kind == "T1" else 15
        dataset.MagneticFieldStrength = 1.5
        dataset.SliceThickness, dataset.SpacingBetweenSlices = 3.6, brain.SLICE_SPACING_MM
        dataset.ImagePositionPatient = [first_mm, first_mm, z]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.SliceLocation = z
        dataset.PixelSpacing = [brain.PIXEL_SPACING_MM] * 2
        dataset.WindowCenter, dataset.WindowWidth = 1000, 2000
        _put(dataset, [image], HTJ2KLossless)
        yield place[0], dataset


def _echocardiogram(place: Place) -> Iterator[tuple[Study, Dataset]]:
    frames = list(echocardiogram.echocardiogram(_HEART_SEED))
    dataset = Dataset()
    dataset.SOPClassUID = UltrasoundMultiFrameImageStorage
    dataset.Modality = "US"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "", "0011"]
    label(dataset, *place, 1)
    dataset.FrameTime = echocardiogram.FRAME_TIME_MS
    dataset.FrameIncrementPointer = 0x00181063
    dataset.CineRate = dataset.RecommendedDisplayFrameRate = 30
    dataset.NumberOfFrames = len(frames)
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    _size(dataset, echocardiogram.ROWS, echocardiogram.COLUMNS, 8, 8)
    region = Dataset()
    region.RegionSpatialFormat = region.RegionDataType = 1
    region.RegionFlags = 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 70, 36
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 730, 548
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3  # centimetres
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.1 / echocardiogram.PIXELS_PER_MM
    dataset.SequenceOfUltrasoundRegions = [region]
    encoded = [
        bytes(imagecodecs.jpeg8_encode(frame, level=85, subsampling="422")) for frame in frames
    ]
    ratio = sum(frame.nbytes for frame in frames) / sum(len(frame) for frame in encoded)
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = round(ratio, 2)
    dataset.LossyImageCompressionMethod = "ISO_10918_1"
    dataset.add_new(0x7FE00010, "OB", encapsulate(encoded))
    dataset.file_meta = file_meta(dataset, JPEGBaseline8Bit)
    yield place[0], dataset


def _grey(
    place: Place, number: int, sop_class_uid: str, modality: str, image_type: list[str]
) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = sop_class_uid
    dataset.Modality = modality
    dataset.ImageType = image_type
    dataset.Manufacturer = "BFR"
    dataset.ManufacturerModelName = "Demonstration"
    label(dataset, *place, number)
    dataset.AcquisitionDate, dataset.AcquisitionTime = dataset.SeriesDate, dataset.SeriesTime
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    return dataset


def _put(dataset: Dataset, frames: Sequence[Picture], transfer_syntax_uid: str) -> None:
    """Store grey frames of 12 bits in a transfer syntax, without loss."""
    rows, columns = frames[0].shape
    _size(dataset, rows, columns, 16, 12)
    if transfer_syntax_uid == ExplicitVRLittleEndian:
        dataset.add_new(0x7FE00010, "OW", b"".join(frame.tobytes() for frame in frames))
    else:
        encoded = [_encoded(frame, transfer_syntax_uid) for frame in frames]
        dataset.add_new(0x7FE00010, "OB", encapsulate(encoded))
    dataset.file_meta = file_meta(dataset, transfer_syntax_uid)


def _encoded(frame: Picture, transfer_syntax_uid: str) -> bytes:
    if transfer_syntax_uid == JPEGLSLossless:
        return bytes(imagecodecs.jpegls_encode(frame))
    if transfer_syntax_uid == JPEGLosslessSV1:
        return bytes(imagecodecs.jpeg_encode(frame, lossless=True, predictor=1, bitspersample=12))
    return bytes(imagecodecs.htj2k_encode(frame, reversible=True))


def _size(dataset: Dataset, rows: int, columns: int, allocated: int, stored: int) -> None:
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated, dataset.BitsStored = allocated, stored
    dataset.HighBit, dataset.PixelRepresentation = stored - 1, 0


def _stored(hu: npt.NDArray[np.floating[Any]]) -> Picture:
    """Return Hounsfield units as the 12 bits of a CT image with an intercept of -1024."""
    return np.asarray(np.clip(np.rint(hu + 1024), 0, 4095), np.uint16)


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code
