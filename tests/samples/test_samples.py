"""The samples are what they say they are; tests of the archive rest on them."""

import io
from collections.abc import Callable

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import UID, JPEGBaseline8Bit, JPEGExtended12Bit
from tests.samples import (
    ct_instance,
    ct_series,
    dataset_bytes,
    decoded_frames,
    dx_instance,
    encapsulated_pdf,
    mr_instance,
    part10_bytes,
    secondary_capture,
    sr_report,
    us_multiframe,
)
from tests.samples.encoding import LOSSLESS, LOSSY, NATIVE


def stored(dataset: Dataset) -> Dataset:
    """The object as a receiver reads it."""
    read = pydicom.dcmread(io.BytesIO(part10_bytes(dataset)))
    read.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    return read


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("make", [ct_instance, dx_instance, us_multiframe])
def test_a_lossless_transfer_syntax_keeps_every_value(
    syntax: UID, make: Callable[..., Dataset]
) -> None:
    plain = decoded_frames(make())
    frames = decoded_frames(stored(make(transfer_syntax_uid=syntax)))
    assert all(np.array_equal(a, b) for a, b in zip(plain, frames, strict=True))


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_negative_values_survive(syntax: UID) -> None:
    pixels = (np.arange(64 * 64).reshape(64, 64) % 3000 - 1500).astype(np.int16)
    (frame,) = decoded_frames(stored(ct_instance(pixels=pixels, transfer_syntax_uid=syntax)))
    assert np.array_equal(frame, pixels)


@pytest.mark.parametrize("syntax", [s for s in LOSSY if s != JPEGBaseline8Bit])
def test_a_lossy_transfer_syntax_stays_near(syntax: UID) -> None:
    (plain,) = decoded_frames(ct_instance())
    dataset = ct_instance(transfer_syntax_uid=syntax)
    (frame,) = decoded_frames(stored(dataset))
    assert np.abs(plain.astype(int) - frame.astype(int)).mean() < 25
    assert dataset.LossyImageCompression == "01"


@pytest.mark.parametrize("syntax", [s for s in LOSSY if s != JPEGExtended12Bit])
def test_colours_stay_near(syntax: UID) -> None:
    (plain,) = decoded_frames(secondary_capture())
    (frame,) = decoded_frames(stored(secondary_capture(transfer_syntax_uid=syntax)))
    assert np.abs(plain.astype(int) - frame.astype(int)).mean() < 12


@pytest.mark.parametrize("syntax", NATIVE)
def test_the_data_set_follows_the_file_meta_information(syntax: UID) -> None:
    dataset = mr_instance(transfer_syntax_uid=syntax)
    file, carried = part10_bytes(dataset), dataset_bytes(dataset)
    assert file.endswith(carried)
    assert 300 < len(file) - len(carried) < 600


def test_a_series_goes_down_from_the_head() -> None:
    slices = ct_series(3, spacing_mm=2.5, PatientID="199001019802")
    assert [s.ImagePositionPatient[2] for s in slices] == [0, -2.5, -5]
    assert len({s.SeriesInstanceUID for s in slices}) == 1
    assert len({s.SOPInstanceUID for s in slices}) == 3
    assert {s.PatientID for s in slices} == {"199001019802"}


def test_an_object_is_as_large_as_asked() -> None:
    (frame,) = decoded_frames(ct_instance(rows=512, columns=512))
    assert frame.shape == (512, 512)


def test_documents_hold_their_text() -> None:
    report = stored(sr_report(answer="Ingen förtätning."))
    assert report.ContentSequence[1].ContentSequence[0].TextValue == "Ingen förtätning."
    assert stored(encapsulated_pdf()).EncapsulatedDocument.startswith(b"%PDF-1.4")
