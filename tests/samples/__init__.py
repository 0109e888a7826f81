"""Samples: small DICOM objects with a story, built by code."""

import io
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def ct_instance(*, rows: int = 64, columns: int = 64, **attributes: Any) -> Dataset:
    """A slice of a CT of the thorax; any attribute by keyword."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyDate = "20240305"
    dataset.StudyTime = "101500"
    dataset.AccessionNumber = "US0001"
    dataset.Modality = "CT"
    dataset.ReferringPhysicianName = "Remittentsson^Örjan"
    dataset.StudyDescription = "DT thorax"
    dataset.SeriesDescription = "Axial 5 mm"
    dataset.PatientName = "Testsson^Åsa"
    dataset.PatientID = "198501019801"
    dataset.PatientBirthDate = "19850101"
    dataset.PatientSex = "F"
    dataset.BodyPartExamined = "CHEST"
    dataset.StudyInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.StudyID = "1"
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = rows
    dataset.Columns = columns
    dataset.BitsAllocated = 16
    dataset.BitsStored = 12
    dataset.HighBit = 11
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept = -1024
    dataset.RescaleSlope = 1
    dataset.WindowCenter = 40
    dataset.WindowWidth = 400
    pixels = np.arange(rows * columns, dtype="<u2") % 4096
    dataset.PixelData = pixels.tobytes()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def part10_bytes(dataset: Dataset) -> bytes:
    """The object as a Part 10 file."""
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", CTImageStorage)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2.3")
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
