"""Whole objects in another transfer syntax, and nothing of them lost (PS3.5 §10 and §A)."""

import io
import struct
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)
from tests.samples import (
    TRANSFER_SYNTAXES,
    ct_instance,
    dataset_bytes,
    encapsulated_pdf,
    part10_bytes,
    secondary_capture,
    sr_report,
    us_multiframe,
)
from tests.samples.encoding import LOSSLESS

from bfr_core.errors import Invalid
from bfr_core.header import HeaderLimits
from bfr_core.transcoding import COMPRESSED_TARGETS, transcode

LIMITS = HeaderLimits()
TARGETS = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


def read(data: bytes, syntax: str) -> Dataset:
    dataset = pydicom.filereader.read_dataset(io.BytesIO(data), UID(syntax).is_implicit_VR, True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return dataset


def as_file(dataset: Dataset, syntax: str) -> bytes:
    """The Part 10 bytes of an object of which no pixels have to be encoded."""
    written = io.BytesIO()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    pydicom.dcmwrite(written, dataset, enforce_file_format=True)
    return written.getvalue()


def pixels_of(dataset: Dataset) -> Any:
    """The pixels of a compressed object, read by codecs that pydicom or imagecodecs bring."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in (JPEGLSLossless, HTJ2KLossless):
        return dataset.pixel_array

    def decode(frame: bytes) -> Any:
        if syntax == JPEGLSLossless:
            return imagecodecs.jpegls_decode(frame)
        return imagecodecs.htj2k_decode(frame, planar=False)

    count = int(dataset.get("NumberOfFrames", 1))
    frames = [decode(one) for one in generate_frames(dataset.PixelData, number_of_frames=count)]
    pixels = np.stack(frames) if count > 1 else frames[0]
    kind = "i" if dataset.PixelRepresentation else "u"
    return pixels.view(f"{kind}{pixels.dtype.itemsize}")


@pytest.mark.conforms("PS3.18 §8.7.3.5.2", "Objects are compressed without loss from every syntax")
@pytest.mark.parametrize("target", COMPRESSED_TARGETS)
@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_every_syntax_is_compressed_without_loss(syntax: str, target: str) -> None:
    original = (
        secondary_capture(transfer_syntax_uid=syntax)
        if syntax == JPEGBaseline8Bit
        else ct_instance(transfer_syntax_uid=syntax)
    )
    file = part10_bytes(original)
    plain = read(transcode(file, ExplicitVRLittleEndian, LIMITS), ExplicitVRLittleEndian)
    found = read(transcode(file, target, LIMITS), target)
    assert found.PixelData != plain.PixelData
    assert (pixels_of(found) == plain.pixel_array).all()
    for element in plain:
        if element.keyword not in ("PixelData", "PlanarConfiguration"):
            assert found[element.tag].value == element.value


@pytest.mark.parametrize("target", COMPRESSED_TARGETS)
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize(("allocated", "stored"), [(8, 8), (16, 10), (16, 12), (16, 16)])
def test_samples_of_every_depth_and_sign_are_compressed(
    target: str, signed: int, allocated: int, stored: int
) -> None:
    numbers = np.random.default_rng(stored).integers(
        -(1 << stored - 1) if signed else 0, 1 << stored - signed, (3, 24, 40)
    )
    pixels = numbers.astype(f"<{'i' if signed else 'u'}{allocated // 8}")
    original = us_multiframe(
        NumberOfFrames=3, Rows=24, Columns=40, SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2", BitsAllocated=allocated, BitsStored=stored,
        HighBit=stored - 1, PixelRepresentation=signed,
    )  # fmt: skip
    original.PixelData = pixels.tobytes()
    original["PixelData"].VR = "OW"
    found = read(transcode(as_file(original, ExplicitVRLittleEndian), target, LIMITS), target)
    assert (pixels_of(found) == pixels).all()


@pytest.mark.parametrize("target", COMPRESSED_TARGETS)
@pytest.mark.parametrize("planar", [0, 1])
def test_colour_is_compressed_by_pixel(target: str, planar: int) -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (16, 20, 3), np.uint8)
    original = secondary_capture(
        Rows=16, Columns=20, SamplesPerPixel=3, PhotometricInterpretation="RGB",
        PlanarConfiguration=planar, BitsAllocated=8, BitsStored=8, HighBit=7,
    )  # fmt: skip
    original.PixelData = (pixels.transpose(2, 0, 1) if planar else pixels).tobytes()
    found = read(transcode(as_file(original, ExplicitVRLittleEndian), target, LIMITS), target)
    assert found.PlanarConfiguration == 0
    assert (pixels_of(found) == pixels).all()


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
@pytest.mark.parametrize("target", TARGETS)
def test_every_syntax_is_decoded_to_little_endian(syntax: str, target: str) -> None:
    original = (
        secondary_capture(transfer_syntax_uid=syntax)
        if syntax == JPEGBaseline8Bit
        else ct_instance(transfer_syntax_uid=syntax)
    )
    found = read(transcode(part10_bytes(original), target, LIMITS), target)
    pixels = found.pixel_array
    assert pixels.shape[:2] == (original.Rows, original.Columns)
    if syntax in LOSSLESS:
        plain = ct_instance(InstanceNumber=1)
        assert (pixels == plain.pixel_array).all()
    for element in original:
        if element.tag.group != 0x7FE0 and element.keyword != "PhotometricInterpretation":
            assert found[element.tag].value == element.value


@pytest.mark.parametrize("syntax", [RLELossless, JPEGBaseline8Bit])
def test_every_frame_is_decoded_and_says_what_its_colour_is(syntax: str) -> None:
    original = us_multiframe(transfer_syntax_uid=syntax)
    found = read(
        transcode(part10_bytes(original), ExplicitVRLittleEndian, LIMITS), ExplicitVRLittleEndian
    )
    assert found.pixel_array.shape == (4, original.Rows, original.Columns, 3)
    assert found.PhotometricInterpretation == "RGB"
    difference = np.abs(found.pixel_array.astype(int) - us_multiframe().pixel_array.astype(int))
    assert difference.mean() < (1 if syntax == RLELossless else 12)


@pytest.mark.parametrize("make", [sr_report, encapsulated_pdf])
@pytest.mark.parametrize("source", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_reports_and_documents_go_there_and_back(make: Any, source: str) -> None:
    original = make()
    expected = dataset_bytes(original)
    there = transcode(as_file(original, source), ExplicitVRLittleEndian, LIMITS)
    assert read(there, ExplicitVRLittleEndian) == read(expected, ExplicitVRLittleEndian)


def test_binary_values_change_their_byte_order() -> None:
    dataset = ct_instance()
    dataset.add_new(0x00281201, "OW", struct.pack("<4H", 1, 2, 3, 0x1234))
    dataset.add_new(0x00189087, "FD", [1.5, -2.25])
    dataset.add_new(0x00280009, "AT", [0x00181063])
    item = Dataset()
    item.add_new(0x00283002, "US", [4, 0, 16])
    item.add_new(0x00283006, "OW", struct.pack("<4H", 9, 8, 7, 6))
    dataset.VOILUTSequence = Sequence([item])
    expected = read(dataset_bytes(dataset), ExplicitVRLittleEndian)
    swapped = read(dataset_bytes(dataset), ExplicitVRLittleEndian)
    for one in (swapped, swapped.VOILUTSequence[0]):
        for element in one:
            if element.VR == "OW":  # pydicom leaves them as they are
                element.value = np.frombuffer(element.value, "<u2").byteswap().tobytes()
    big_endian = as_file(swapped, ExplicitVRBigEndian)
    found = read(transcode(big_endian, ExplicitVRLittleEndian, LIMITS), ExplicitVRLittleEndian)
    assert found == expected


def test_private_and_unknown_elements_are_kept_as_octets() -> None:
    dataset = ct_instance()
    dataset.add_new(0x00090010, "LO", "TEST")
    dataset.add_new(0x00091001, "UN", b"any octets")
    dataset.add_new(0x00091002, "DS", "1.50")
    implicit = transcode(part10_bytes(dataset), ImplicitVRLittleEndian, LIMITS)
    assert read(implicit, ImplicitVRLittleEndian)[0x00091002].value == b"1.50"
    back = transcode(
        as_file(read(implicit, ImplicitVRLittleEndian), ImplicitVRLittleEndian),
        ExplicitVRLittleEndian,
        LIMITS,
    )
    found = read(back, ExplicitVRLittleEndian)
    assert found[0x00091001].value == b"any octets"
    assert found.PatientName == dataset.PatientName


def test_text_keeps_its_octets() -> None:
    dataset = ct_instance(SpecificCharacterSet="ISO_IR 192", PatientName="Ångström^Märta")
    implicit = transcode(part10_bytes(dataset), ImplicitVRLittleEndian, LIMITS)
    assert "Ångström^Märta".encode() in implicit


def test_what_would_be_too_large_or_cannot_be_decoded_is_refused() -> None:
    compressed = part10_bytes(ct_instance(transfer_syntax_uid=RLELossless))
    with pytest.raises(Invalid, match="decoded pixels are more than"):
        transcode(compressed, ExplicitVRLittleEndian, HeaderLimits(inflated_max_bytes=100))
    with pytest.raises(Invalid):
        transcode(compressed[:-200], ExplicitVRLittleEndian, LIMITS)
    with pytest.raises(Invalid, match="not transcoded to"):
        transcode(compressed, JPEGBaseline8Bit, LIMITS)


@given(st.integers(0, 4000), st.integers(0, 255))
def test_damaged_objects_are_refused_or_written_whole(at: int, octet: int) -> None:
    damaged = bytearray(part10_bytes(sr_report(SOPInstanceUID="1.2", StudyInstanceUID="1.3")))
    damaged[at % len(damaged)] = octet
    try:
        data = transcode(bytes(damaged), ExplicitVRLittleEndian, LIMITS)
    except Invalid:
        return
    assert len(data) % 2 == 0
