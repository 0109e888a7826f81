"""The images that pydicom ships, given to the patients of the demonstration.

Pixels, waveforms and report structure stay; nothing that tells whom or where they came from does
(PS3.15 §E.1, Basic Profile). What stays is listed: an unknown attribute is dropped, not kept.
"""

import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from pydicom import DataElement, Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ImplicitVRLittleEndian

from bfr_command.demo.history import Series, Study
from bfr_command.demo.labels import file_meta, label, uid

BUNDLED_DIRECTORY = Path(pydicom.__file__).parent / "data" / "test_files"

_KEPT_GROUPS = {0x0018, 0x0020, 0x0028, 0x003A, 0x0054, 0x0062, 0x0070, 0x2050, 0x3004, 0x3006}
_KEPT_GROUPS |= {0x300A, 0x300C, 0x300E, 0x5200, 0x5400, 0x6000, 0x6002, 0x7FE0}
_KEPT_KEYWORDS = (
    "ImageType SOPClassUID Modality ConversionType Manufacturer ManufacturerModelName"
    " DerivationDescription DerivationCodeSequence DerivationImageSequence SourceImageSequence"
    " ReferencedSeriesSequence ReferencedImageSequence ReferencedInstanceSequence"
    " ReferencedSOPSequence ReferencedSOPClassUID ReferencedSOPInstanceUID"
    " StageNumber NumberOfStages ViewNumber NumberOfViewsInStage"
    " CodeValue CodingSchemeDesignator CodingSchemeVersion CodeMeaning CodingSchemeUID"
    " AcquisitionContextSequence MeasurementUnitsCodeSequence"
)
_DROPPED_KEYWORDS = (
    "DeviceSerialNumber SoftwareVersions ProtocolName AcquisitionDeviceProcessingDescription"
    " StudyID ImageComments LUTExplanation PositionReferenceIndicator VerifyingOrganization"
    " VerifyingObserverName VerifyingObserverIdentificationCodeSequence PersonName"
    " ContentLabel ContentDescription ContentCreatorName"
)
_KEPT_ELEMENTS = {Tag(keyword) for keyword in _KEPT_KEYWORDS.split()}
_DROPPED_ELEMENTS = {Tag(keyword) for keyword in _DROPPED_KEYWORDS.split()}
_MAKERS_OF_TEST_FILES = ("QIICR", "Kuratorium OFFIS e.V.")
# Rows at the top where the scanner wrote hospital, room or patient into the picture.
_BANNER_ROWS = {
    "examples_rgb_color.dcm": 54,
    "examples_jpeg2k.dcm": 108,
    "examples_palette.dcm": 60,
}


def adopt(name: str, study: Study, series: Series, number: int) -> Dataset:
    """Return a file that pydicom ships as an object of the study, in its own transfer syntax.

    Raises FileNotFoundError when the installed pydicom ships no such file.
    """
    with warnings.catch_warnings():
        # Some of the files break a rule of the standard; that is what they are shipped for.
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(BUNDLED_DIRECTORY / name, force=True)
        syntax = UID(dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian))
        _strip(dataset, study)
        _complete(dataset, study)
        if name in _BANNER_ROWS:
            _blank_banner(dataset, syntax, _BANNER_ROWS[name])
        label(dataset, study, series, number)
    dataset.file_meta = file_meta(dataset, syntax)
    dataset.preamble = b"\x00" * 128
    return dataset


def _strip(dataset: Dataset, study: Study) -> None:
    """Drop every attribute that is not kept, at every depth, and move dates and UIDs."""
    for tag in list(dataset.keys()):
        if not _kept(tag):
            del dataset[tag]
            continue
        element = dataset[tag]
        if element.VR == "SQ":
            for item in element.value:
                _strip(item, study)
        else:
            _move(element, study)


def _kept(tag: BaseTag) -> bool:
    if tag.is_private or tag.element == 0 or tag in _DROPPED_ELEMENTS:
        return False
    is_content = tag.group == 0x0040 and tag.element >= 0xA000
    return tag.group in _KEPT_GROUPS or is_content or tag in _KEPT_ELEMENTS


def _move(element: DataElement, study: Study) -> None:
    """Replace what an element says of a time or an object by the study's own."""
    if not element.value:
        return
    if element.VR == "PN":
        element.value = ""
    elif element.VR == "DA":
        element.value = f"{study.started_at:%Y%m%d}"
    elif element.VR == "TM":
        element.value = f"{study.started_at:%H%M%S}"
    elif element.VR == "DT":
        element.value = f"{study.started_at:%Y%m%d%H%M%S}"
    elif element.VR == "UI" and element.keyword != "CodingSchemeUID":
        if UID(element.value).is_private:
            element.value = uid("moved", element.value)
    elif element.keyword in ("Manufacturer", "ManufacturerModelName"):
        if "//" in element.value or element.value in _MAKERS_OF_TEST_FILES:
            element.value = ""


def _complete(dataset: Dataset, study: Study) -> None:
    """Add what the object's class requires and its source lacked or lost."""
    if "Modality" not in dataset:
        dataset.Modality = "OT"
    if dataset.SOPClassUID.name == "Secondary Capture Image Storage":
        dataset.ConversionType = "WSD"
    if "SegmentSequence" in dataset:
        # The source was cut to one frame, its functional groups were not.
        dataset.NumberOfFrames = 1
        dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:1]
        dataset.ContentLabel, dataset.ContentDescription = "LEVER", "Segmentering av levern"
        dataset.ContentCreatorName = ""
    if "StructureSetLabel" in dataset:
        dataset.StructureSetLabel, dataset.StructureSetName = "STRUKTURER", "Strukturer"
    for observer in dataset.get("VerifyingObserverSequence", []):
        observer.VerifyingObserverName = study.referrer
        observer.VerifyingOrganization = study.institution
        observer.VerifyingObserverIdentificationCodeSequence = []
    for item in dataset.iterall():
        if item.keyword == "ContentSequence":
            for content in item.value:
                if content.get("ValueType") == "PNAME":
                    content.PersonName = study.referrer
    if "FrameOfReferenceUID" in dataset:
        dataset.PositionReferenceIndicator = ""


def _blank_banner(dataset: Dataset, syntax: UID, rows: int) -> None:
    """Blacken the top rows of a single picture, re-encoding it without loss when it must be."""
    dataset.BurnedInAnnotation = "NO"
    if syntax.is_compressed:
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        picture = np.array(imagecodecs.jpeg2k_decode(frame))
        picture[:rows] = 0
        encoded = imagecodecs.jpeg2k_encode(
            picture, level=0, codecformat="j2k", reversible=True, mct=True
        )
        dataset.PixelData = encapsulate([bytes(encoded)])
        return
    black = 0
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        brightness = sum(
            np.frombuffer(dataset[f"{colour}PaletteColorLookupTableData"].value, "<u2").astype(int)
            for colour in ("Red", "Green", "Blue")
        )
        black = int(np.argmin(brightness))
    width = dataset.Columns * dataset.SamplesPerPixel
    dataset.PixelData = bytes([black]) * (rows * width) + dataset.PixelData[rows * width :]
