"""Pixel data in every transfer syntax our codecs write, and back."""

import io
from collections.abc import Callable
from typing import Any, Literal

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

Frame = npt.NDArray[Any]

JPEGXL_LOSSLESS = UID("1.2.840.10008.1.2.4.110")
JPEGXL = UID("1.2.840.10008.1.2.4.112")

NATIVE = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
LOSSLESS = (
    *NATIVE,
    RLELossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEGXL_LOSSLESS,
)
# JPEG Baseline holds 8 bits only, JPEG Extended is written with 12.
LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K, JPEGXL)
TRANSFER_SYNTAXES = (*LOSSLESS, *LOSSY)


def part10_bytes(dataset: Dataset) -> bytes:
    """The object as a Part 10 file."""
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", CTImageStorage)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2.3")
    syntax = dataset.file_meta.TransferSyntaxUID
    file = io.BytesIO()
    if syntax.is_transfer_syntax:
        dataset.save_as(file, enforce_file_format=True)
        return file.getvalue()
    # pydicom knows no JPEG XL yet; its encoding of the data set is that of JPEG 2000.
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.save_as(file, enforce_file_format=True)
    dataset.file_meta.TransferSyntaxUID = syntax
    old, new = (_transfer_syntax_element(uid) for uid in (JPEG2000Lossless, syntax))
    data = file.getvalue().replace(old, new, 1)
    length = int.from_bytes(data[140:144], "little") + len(new) - len(old)
    return data[:140] + length.to_bytes(4, "little") + data[144:]


def dataset_bytes(dataset: Dataset) -> bytes:
    """The object as DIMSE carries it: the data set without preamble and File Meta Information."""
    data = part10_bytes(dataset)
    return data[144 + int.from_bytes(data[140:144], "little") :]


def encoded(dataset: Dataset, transfer_syntax_uid: str) -> Dataset:
    """The object with its native pixel data moved to a transfer syntax, in place."""
    syntax = UID(transfer_syntax_uid)
    frames = _native_frames(dataset)
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax in NATIVE:
        order: Literal["<", ">"] = ">" if syntax == ExplicitVRBigEndian else "<"
        data = b"".join(f.astype(f.dtype.newbyteorder(order)).tobytes() for f in frames)
        vr = "OW" if dataset.BitsAllocated > 8 else "OB"
        dataset.add_new(0x7FE00010, vr, data + b"\x00" * (len(data) % 2))
        return dataset
    if syntax == RLELossless:
        fragments = [_encoded_rle(frame, dataset) for frame in frames]
    else:
        fragments = [_encoded(frame, dataset, syntax) for frame in frames]
    if dataset.SamplesPerPixel == 3:
        dataset.PhotometricInterpretation = _colour_model(syntax)
    if syntax in LOSSY:
        dataset.LossyImageCompression = "01"
        ratio = sum(frame.nbytes for frame in frames) / sum(map(len, fragments))
        dataset.LossyImageCompressionRatio = round(ratio, 2)
    dataset.add_new(0x7FE00010, "OB", encapsulate(fragments))
    return dataset


def decoded_frames(dataset: Dataset) -> list[Frame]:
    """The frames as stored values: rows, columns and, for colour, samples (native YBR stays so)."""
    syntax = dataset.file_meta.TransferSyntaxUID
    count = int(dataset.get("NumberOfFrames", 1) or 1)
    if syntax in (*NATIVE, RLELossless):
        values = pixel_array(dataset, raw=True)
        return list(values) if count > 1 else [values]
    fragments = generate_frames(dataset.PixelData, number_of_frames=count)
    return [_decoded(fragment, dataset, syntax) for fragment in fragments]


def _native_frames(dataset: Dataset) -> list[Frame]:
    if dataset.file_meta.TransferSyntaxUID not in NATIVE:
        raise ValueError("the pixel data are not native")
    frames = decoded_frames(dataset)
    return [np.ascontiguousarray(frame, frame.dtype.newbyteorder("=")) for frame in frames]


def _encoded(frame: Frame, dataset: Dataset, syntax: UID) -> bytes:
    # JPEG, JPEG-LS and JPEG XL know no sign: they carry the bits as they are.
    bits = frame.view(frame.dtype.str.replace("i", "u"))
    stored = int(dataset.BitsStored)
    if stored < 8 * frame.itemsize:
        bits = bits & np.asarray((1 << stored) - 1, bits.dtype)
    return bytes(_ENCODERS[syntax](frame, bits, stored))


def _encoded_rle(frame: Frame, dataset: Dataset) -> bytes:
    return RLELosslessEncoder.encode(
        frame,
        rows=dataset.Rows,
        columns=dataset.Columns,
        samples_per_pixel=dataset.SamplesPerPixel,
        number_of_frames=1,
        bits_allocated=dataset.BitsAllocated,
        bits_stored=dataset.BitsStored,
        pixel_representation=dataset.PixelRepresentation,
        photometric_interpretation=dataset.PhotometricInterpretation,
        planar_configuration=dataset.get("PlanarConfiguration", 0),
        encoding_plugin="pydicom",
    )


def _jpeg8(frame: Frame, bits: Frame, stored: int) -> Any:
    if stored != 8:
        raise ValueError("JPEG Baseline holds 8 bits")
    return imagecodecs.jpeg8_encode(bits, level=92, subsampling="422")


def _jpeg12(frame: Frame, bits: Frame, stored: int) -> Any:
    if stored != 12:
        raise ValueError("JPEG Extended is written with 12 bits")
    return imagecodecs.jpeg_encode(bits, level=97, bitspersample=12)


def _jpeg_lossless(predictor: int) -> Callable[[Frame, Frame, int], Any]:
    def encode(frame: Frame, bits: Frame, stored: int) -> Any:
        return imagecodecs.jpeg_encode(
            bits, lossless=True, predictor=predictor, bitspersample=8 * frame.itemsize
        )

    return encode


_ENCODERS: dict[UID, Callable[[Frame, Frame, int], Any]] = {
    JPEGBaseline8Bit: _jpeg8,
    JPEGExtended12Bit: _jpeg12,
    JPEGLossless: _jpeg_lossless(6),
    JPEGLosslessSV1: _jpeg_lossless(1),
    JPEGLSLossless: lambda frame, bits, stored: imagecodecs.jpegls_encode(bits),
    JPEGLSNearLossless: lambda frame, bits, stored: imagecodecs.jpegls_encode(bits, level=2),
    JPEG2000Lossless: lambda frame, bits, stored: imagecodecs.jpeg2k_encode(
        frame, level=0, codecformat="j2k", reversible=True
    ),
    JPEG2000: lambda frame, bits, stored: imagecodecs.jpeg2k_encode(
        frame, level=80, codecformat="j2k", reversible=False
    ),
    HTJ2KLossless: lambda frame, bits, stored: imagecodecs.htj2k_encode(frame, reversible=True),
    HTJ2KLosslessRPCL: lambda frame, bits, stored: imagecodecs.htj2k_encode(
        frame, reversible=True, tlm=True
    ),
    HTJ2K: lambda frame, bits, stored: imagecodecs.htj2k_encode(
        frame, level=0.0005, reversible=False
    ),
    JPEGXL_LOSSLESS: lambda frame, bits, stored: imagecodecs.jpegxl_encode(
        bits, lossless=True, effort=3, usecontainer=False
    ),
    JPEGXL: lambda frame, bits, stored: imagecodecs.jpegxl_encode(
        bits, level=95, effort=3, usecontainer=False
    ),
}


def _decoded(fragment: bytes, dataset: Dataset, syntax: UID) -> Frame:
    if syntax in (JPEGLSLossless, JPEGLSNearLossless):
        values = imagecodecs.jpegls_decode(fragment)
    elif syntax in (JPEG2000, JPEG2000Lossless):
        values = imagecodecs.jpeg2k_decode(fragment)
    elif syntax in (HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL):
        values = imagecodecs.htj2k_decode(fragment)
    elif syntax in (JPEGXL, JPEGXL_LOSSLESS):
        values = imagecodecs.jpegxl_decode(fragment)
    else:
        values = imagecodecs.jpeg_decode(fragment)
    frame: Frame = np.array(values)
    if dataset.PixelRepresentation == 1 and frame.dtype.kind == "u":
        shift = 8 * frame.itemsize - int(dataset.BitsStored)
        frame = (frame << shift).view(frame.dtype.str.replace("u", "i")) >> shift
    return frame


def _colour_model(syntax: UID) -> str:
    if syntax == JPEGBaseline8Bit:
        return "YBR_FULL_422"
    if syntax in (JPEG2000Lossless, HTJ2KLossless, HTJ2KLosslessRPCL):
        return "YBR_RCT"
    return "YBR_ICT" if syntax in (JPEG2000, HTJ2K) else "RGB"


def _transfer_syntax_element(uid: UID) -> bytes:
    value = uid.encode("ascii") + b"\x00" * (len(uid) % 2)
    return b"\x02\x00\x10\x00UI" + len(value).to_bytes(2, "little") + value
