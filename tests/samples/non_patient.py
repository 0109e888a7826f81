"""Instances that belong to no patient: how a reader hangs images, and in which colours."""

from typing import Any

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ColorPaletteStorage, ExplicitVRLittleEndian, HangingProtocolStorage
from tests.samples.images import new_uid


def _instance(sop_class_uid: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = new_uid()
    return dataset


def hanging_protocol(**attributes: Any) -> Dataset:
    """How a radiologist wants a CT of the thorax beside its prior (PS3.3 §A.44)."""
    dataset = _instance(HangingProtocolStorage)
    dataset.HangingProtocolName = "DT thorax"
    dataset.HangingProtocolDescription = "Aktuell och äldre bredvid varandra"
    dataset.HangingProtocolLevel = "SITE"
    dataset.HangingProtocolCreator = "Granskarsson^Ylva"
    dataset.HangingProtocolCreationDateTime = "20240305101500"
    definition = Dataset()
    definition.Modality = "CT"
    definition.Laterality = ""
    dataset.HangingProtocolDefinitionSequence = [definition]
    dataset.NumberOfPriorsReferenced = 1
    dataset.HangingProtocolUserIdentificationCodeSequence = []
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def color_palette(**attributes: Any) -> Dataset:
    """A palette from black over red to white, 256 entries (PS3.3 §A.58)."""
    dataset = _instance(ColorPaletteStorage)
    dataset.ContentLabel = "GLOED"
    dataset.ContentDescription = "Glöd"
    dataset.ContentCreatorName = "Granskarsson^Ylva"
    ramp = bytes(range(256))
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 8])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", ramp)
    dataset.PaletteColorLookupTableUID = new_uid()
    dataset.ICCProfile = bytes(4096)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset
