"""Images of a patient who does not exist, tiny unless asked for larger."""

import itertools
import uuid
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundMultiFrameImageStorage,
)
from tests.samples.encoding import NATIVE, encoded

Pixels = npt.NDArray[Any]

_NAMESPACE = uuid.UUID("3c0f7c52-7f0a-5b0e-8d7e-5a1b8f3f6f4e")
_calls = itertools.count(1)


def new_uid() -> str:
    """A UID that no other call of this run returns, the same in every run of the same calls."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, str(next(_calls))).int}"


def object_of(sop_class_uid: str, modality: str, **attributes: Any) -> Dataset:
    """What every object says of patient, study and series; any attribute by keyword."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = new_uid()
    dataset.StudyDate = "20240305"
    dataset.SeriesDate = "20240305"
    dataset.StudyTime = "101500"
    dataset.SeriesTime = "101700"
    dataset.AccessionNumber = "US0001"
    dataset.Modality = modality
    dataset.InstitutionName = "Provsjukhuset Väster"
    dataset.ReferringPhysicianName = "Remittentsson^Örjan"
    dataset.PatientName = "Testsson^Åsa"
    dataset.PatientID = "198501019809"
    dataset.PatientBirthDate = "19850101"
    dataset.PatientSex = "F"
    dataset.StudyInstanceUID = new_uid()
    dataset.SeriesInstanceUID = new_uid()
    dataset.StudyID = "1"
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def ct_instance(
    *,
    rows: int = 64,
    columns: int = 64,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
    pixels: Pixels | None = None,
    **attributes: Any,
) -> Dataset:
    """A slice of a CT of the thorax, 12 bits; signed `pixels` make it signed, 16 bits."""
    dataset = object_of(CTImageStorage, "CT", StudyDescription="DT thorax")
    dataset.SeriesDescription = "Axial 5 mm"
    dataset.BodyPartExamined = "CHEST"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PatientPosition = "HFS"
    dataset.SliceThickness = 5
    dataset.ImagePositionPatient = [-160, -160, 0]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.FrameOfReferenceUID = new_uid()
    dataset.PixelSpacing = [320 / rows, 320 / columns]
    dataset.RescaleIntercept = -1024
    dataset.RescaleSlope = 1
    dataset.WindowCenter = 40
    dataset.WindowWidth = 400
    number = int(attributes.get("InstanceNumber", 1))
    return _with_pixels(
        dataset,
        _thorax(rows, columns, number) if pixels is None else pixels,
        transfer_syntax_uid,
        attributes,
    )


def ct_series(
    count: int,
    *,
    rows: int = 64,
    columns: int = 64,
    spacing_mm: float = 5.0,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
    **attributes: Any,
) -> list[Dataset]:
    """The slices of one series from the head down, numbered from 1."""
    shared: dict[str, Any] = {"StudyInstanceUID": new_uid(), "SeriesInstanceUID": new_uid()}
    shared = {**shared, "FrameOfReferenceUID": new_uid(), **attributes}
    return [
        ct_instance(
            rows=rows,
            columns=columns,
            transfer_syntax_uid=transfer_syntax_uid,
            **{
                **shared,
                "InstanceNumber": number,
                "ImagePositionPatient": [-160, -160, -spacing_mm * (number - 1)],
                "SliceThickness": spacing_mm,
            },
        )
        for number in range(1, count + 1)
    ]


def mr_instance(
    *,
    rows: int = 64,
    columns: int = 64,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
    **attributes: Any,
) -> Dataset:
    """A slice of an MR of the head, 12 bits."""
    dataset = object_of(MRImageStorage, "MR", StudyDescription="MR hjärna")
    dataset.SeriesDescription = "T1 tra"
    dataset.BodyPartExamined = "HEAD"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    dataset.ScanningSequence, dataset.SequenceVariant = "SE", "NONE"
    dataset.ScanOptions, dataset.MRAcquisitionType = "", "2D"
    dataset.RepetitionTime, dataset.EchoTime, dataset.EchoTrainLength = 500, 12, 1
    dataset.SliceThickness = 4
    dataset.ImagePositionPatient = [-120, -120, 0]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.FrameOfReferenceUID = new_uid()
    dataset.PixelSpacing = [240 / rows, 240 / columns]
    dataset.WindowCenter, dataset.WindowWidth = 1000, 2000
    number = int(attributes.get("InstanceNumber", 1))
    pixels = _thorax(rows, columns, number) // 2
    return _with_pixels(dataset, pixels, transfer_syntax_uid, attributes)


def dx_instance(
    *,
    rows: int = 80,
    columns: int = 96,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
    **attributes: Any,
) -> Dataset:
    """A radiograph of the chest, MONOCHROME1, 12 bits."""
    dataset = object_of(DigitalXRayImageStorageForPresentation, "DX")
    dataset.StudyDescription = "Lungröntgen"
    dataset.SeriesDescription = "Frontal PA"
    dataset.BodyPartExamined = "CHEST"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImagerPixelSpacing = [0.16, 0.16]
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    pixels = 4095 - _thorax(rows, columns, 1)
    dataset = _with_pixels(dataset, pixels, transfer_syntax_uid, attributes)
    if "PhotometricInterpretation" not in attributes:
        dataset.PhotometricInterpretation = "MONOCHROME1"
    return dataset


def us_multiframe(
    *,
    frames: int = 4,
    rows: int = 48,
    columns: int = 64,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
    **attributes: Any,
) -> Dataset:
    """A cine loop of ultrasound, RGB of 8 bits."""
    dataset = object_of(UltrasoundMultiFrameImageStorage, "US")
    dataset.StudyDescription = "Ultraljud hjärta"
    dataset.SeriesDescription = "Apikal fyrkammarbild"
    dataset.BodyPartExamined = "HEART"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.NumberOfFrames = frames
    dataset.FrameTime = 33.333
    dataset.FrameIncrementPointer = 0x00181063
    pixels = np.stack([_colours(rows, columns, number) for number in range(frames)])
    return _with_pixels(dataset, pixels, transfer_syntax_uid, attributes)


def secondary_capture(
    *,
    rows: int = 48,
    columns: int = 64,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
    pixels: Pixels | None = None,
    **attributes: Any,
) -> Dataset:
    """A screenshot: RGB of 8 bits, or what the given pixels are."""
    dataset = object_of(SecondaryCaptureImageStorage, "OT", StudyDescription="Skärmdump")
    dataset.ConversionType = "WSD"
    drawn = _colours(rows, columns, 0) if pixels is None else pixels
    return _with_pixels(dataset, drawn, transfer_syntax_uid, attributes)


def _with_pixels(
    dataset: Dataset, pixels: Pixels, transfer_syntax_uid: str, attributes: dict[str, Any]
) -> Dataset:
    """Add the pixels, move them to the transfer syntax, and let the caller's attributes win."""
    colour = pixels.ndim >= 3 and pixels.shape[-1] == 3
    signed = pixels.dtype.kind == "i"
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    dataset.BitsAllocated = 8 * pixels.itemsize
    dataset.BitsStored = 12 if pixels.dtype == np.uint16 else dataset.BitsAllocated
    dataset.BitsStored = attributes.get("BitsStored", dataset.BitsStored)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(signed)
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    vr = "OW" if pixels.itemsize > 1 else "OB"
    dataset.add_new(0x7FE00010, vr, data + b"\x00" * (len(data) % 2))
    if transfer_syntax_uid != ExplicitVRLittleEndian:
        if UID(transfer_syntax_uid) not in NATIVE or pixels.itemsize > 1:
            encoded(dataset, transfer_syntax_uid)
        else:
            dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def _thorax(rows: int, columns: int, number: int) -> Pixels:
    """A body with two lungs, a spine and grain, other in each slice; values of 0 to 4095."""
    y = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, columns, dtype=np.float32)[None, :]
    values = np.zeros((rows, columns), np.float32)
    for centre_x, centre_y, wide, tall, value in (
        (0.0, 0.0, 0.9, 0.7, 1064.0),
        (-0.42, -0.05, 0.3, 0.48, 160.0),
        (0.42, -0.05, 0.3, 0.48, 160.0),
        (0.1, -0.1, 0.22, 0.25, 1180.0 + number % 7),
        (0.0, 0.42, 0.12, 0.14, 1700.0),
    ):
        values[((x - centre_x) / wide) ** 2 + ((y - centre_y) / tall) ** 2 < 1] = value
    grain = np.random.default_rng(number).integers(0, 24, values.shape)
    return np.asarray(np.clip(values + grain, 0, 4095), np.uint16)


def _colours(rows: int, columns: int, number: int) -> Pixels:
    """A grey ramp with a red, a green and a blue bar that move from frame to frame."""
    ramp = np.linspace(0, 255, columns).astype(np.uint8)
    picture = np.repeat(np.broadcast_to(ramp, (rows, columns))[..., None], 3, axis=2).copy()
    height = max(rows // 8, 1)
    for bar in range(3):
        top = (number + bar * rows // 3) % max(rows - height, 1)
        picture[top : top + height] = 0
        picture[top : top + height, :, bar] = 220
    return picture
