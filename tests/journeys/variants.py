"""Pictures that viewers get wrong: one object for each way to write down the same kind of image."""

from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from tests.samples import TRANSFER_SYNTAXES, ct_instance, secondary_capture, us_multiframe
from tests.samples.images import new_uid

Pixels = npt.NDArray[Any]

ROWS, COLUMNS = 96, 128
# Of 8 bits, of 12 without a sign, of 16 with one.
_EIGHT_BITS_ONLY = (JPEGBaseline8Bit,)
_TWELVE_BITS_ONLY = (JPEGExtended12Bit,)


def variants() -> dict[str, Dataset]:
    """Return the objects by what is particular of each, as the series of one study."""
    study = new_uid()
    found = dict(_all())
    for number, (name, dataset) in enumerate(found.items(), start=1):
        dataset.StudyInstanceUID = study
        dataset.SeriesInstanceUID = new_uid()
        dataset.SeriesNumber = number
        dataset.SeriesDescription = name
    return found


def body(bits: int = 12) -> Pixels:
    """A body with air around it and a ramp through it, 0 to the greatest value of so many bits."""
    y = np.linspace(-1, 1, ROWS)[:, None]
    x = np.linspace(-1, 1, COLUMNS)[None, :]
    inside = (x / 0.9) ** 2 + (y / 0.8) ** 2 < 1
    shade = np.where(inside, 0.3 + 0.35 * x + 0.3 * y * x, 0.02)
    return np.asarray(np.clip(shade, 0, 1) * ((1 << bits) - 1))


def hounsfield() -> Pixels:
    """The body as a signed picture of 16 bits, its air below zero."""
    return (body(11) - 1024).astype(np.int16)


def colours() -> Pixels:
    """A picture whose three colours go three ways, smooth as codecs of YCbCr need it."""
    y = np.linspace(0, 1, ROWS)[:, None] * np.ones((1, COLUMNS))
    x = np.linspace(0, 1, COLUMNS)[None, :] * np.ones((ROWS, 1))
    return (np.stack((x, y, 1 - x), axis=2) * 255).astype(np.uint8)


def _grey(pixels: Pixels, **attributes: Any) -> Dataset:
    """A CT of these pixels, with neither rescale nor window unless they are given."""
    dataset = ct_instance(pixels=pixels, **attributes)
    for keyword in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"):
        if keyword not in attributes:
            delattr(dataset, keyword)
    return dataset


def _compressed(dataset: Dataset, syntax: str, *frames: Any) -> Dataset:
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.add_new(0x7FE00010, "OB", encapsulate([bytes(frame) for frame in frames]))
    return dataset


def _table(first: int, values: Pixels, bits: int = 16, *, signed: bool = False) -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "SS" if signed else "US", [len(values) % 65536, first, bits])
    item.add_new(0x00283006, "OW", values.astype("<u2").tobytes())
    return item


def _all() -> Iterator[tuple[str, Dataset]]:
    yield from _every_syntax()
    yield from _lossless_predictors()
    yield from _odd_bits()
    yield from _jpeg_2000_signs()
    yield from _transforms()
    yield from _windows()
    yield from _in_colour()
    yield from _palettes()


def _every_syntax() -> Iterator[tuple[str, Dataset]]:
    window = {"WindowCenter": 40, "WindowWidth": 1200}
    unsigned = {"WindowCenter": 1800, "WindowWidth": 3000}
    twelve = body(12).astype(np.uint16)
    eight = body(8).astype(np.uint8)
    for syntax in TRANSFER_SYNTAXES:
        name = syntax.keyword or syntax
        if syntax not in (*_EIGHT_BITS_ONLY, *_TWELVE_BITS_ONLY):
            yield f"signed {name}", _grey(hounsfield(), transfer_syntax_uid=syntax, **window)
        if syntax not in _EIGHT_BITS_ONLY:
            yield f"12 bits {name}", _grey(twelve, transfer_syntax_uid=syntax, **unsigned)
        if syntax not in _TWELVE_BITS_ONLY:
            eights = {"WindowCenter": 128, "WindowWidth": 256, "transfer_syntax_uid": syntax}
            yield f"8 bits {name}", _grey(eight, **eights)
            colour = secondary_capture(pixels=colours(), transfer_syntax_uid=syntax)
            yield f"colour {name}", colour


def _lossless_predictors() -> Iterator[tuple[str, Dataset]]:
    for predictor in range(1, 8):
        for signed in (False, True):
            pixels = hounsfield() if signed else body(12).astype(np.uint16)
            dataset = _grey(pixels, WindowCenter=40 if signed else 1800, WindowWidth=1500)
            bits = pixels.view(np.uint16)
            frame = imagecodecs.jpeg_encode(
                bits, lossless=True, predictor=predictor, bitspersample=16
            )
            name = f"predictor {predictor} {'signed' if signed else 'unsigned'}"
            yield name, _compressed(dataset, JPEGLossless, frame)


def _odd_bits() -> Iterator[tuple[str, Dataset]]:
    overlay = (np.indices((ROWS, COLUMNS)).sum(axis=0) // 8 % 2 * 0x5000).astype(np.uint16)
    window = {"WindowCenter": 1800, "WindowWidth": 3000, "BitsStored": 12}
    twelve = body(12).astype(np.uint16)
    yield "overlay in the high bits", _grey(twelve | overlay, **window)
    yield (
        "overlay in the high bits RLE",
        _grey(twelve | overlay, transfer_syntax_uid=RLELossless, **window),
    )
    signed = ((body(12) - 2048).astype(np.int16) & 0x0FFF).astype(np.int16)
    around_zero = {"WindowCenter": 0, "WindowWidth": 3000, "BitsStored": 12}
    yield "signed 12 bits without extension", _grey(signed, **around_zero)
    dirty = (signed | overlay.view(np.int16)).astype(np.int16)
    yield "signed 12 bits under an overlay", _grey(dirty, **around_zero)
    high = _grey(twelve << 4, **window)
    high.HighBit = 15
    yield "the bits at the top", high
    high_signed = _grey(((body(12) - 2048).astype(np.int16) << 4), **around_zero)
    high_signed.HighBit = 15
    yield "the signed bits at the top", high_signed
    for kind, shift in ((np.uint32, 0), (np.int32, 60_000)):
        wide = (body(17) - shift).astype(kind)
        name = f"32 bits {'signed' if shift else 'unsigned'}"
        values = {"WindowCenter": 70_000 - shift, "WindowWidth": 110_000}
        yield name, _grey(wide, **values)
        yield (
            f"{name} big endian",
            _grey(wide, transfer_syntax_uid=ExplicitVRBigEndian, **values),
        )
    # What half floats would round: every odd number above 2,048, and more the higher.
    stairs = (np.arange(ROWS)[:, None] // 12 + np.arange(COLUMNS)[None, :] // 16) % 8
    for least in (40_000, 4_080, -30_000):
        narrow_kind = np.uint16 if least > 0 else np.int16
        narrow = {"WindowCenter": least + 4, "WindowWidth": 8, "BitsStored": 16}
        yield f"narrow window at {least}", _grey((least + stairs).astype(narrow_kind), **narrow)
    two = (60_001 + stairs // 4).astype(np.uint16)
    yield "window of two values", _grey(two, WindowCenter=60_002, WindowWidth=2, BitsStored=16)
    yield "8 bits signed", _grey((body(8) - 128).astype(np.int8), WindowCenter=0, WindowWidth=200)
    yield (
        "near-lossless signed",
        _grey(
            hounsfield(), transfer_syntax_uid=JPEGLSNearLossless, WindowCenter=40, WindowWidth=800
        ),
    )
    floats = _grey(body(12).astype(np.uint16))
    del floats.PixelData, floats.BitsStored, floats.HighBit, floats.PixelRepresentation
    floats.BitsAllocated = 32
    floats.add_new(0x7FE00008, "OF", (body(12) / 7).astype("<f4").tobytes())
    floats.WindowCenter, floats.WindowWidth = 250, 400
    yield "floating point", floats


def _encode_jpeg_2000(pixels: Pixels) -> Any:
    return imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k")


def _encode_htj2k(pixels: Pixels) -> Any:
    return imagecodecs.htj2k_encode(pixels, reversible=True)


def _jpeg_2000_signs() -> Iterator[tuple[str, Dataset]]:
    for name, syntax, encode in (
        ("JPEG 2000", JPEG2000Lossless, _encode_jpeg_2000),
        ("HTJ2K", HTJ2KLossless, _encode_htj2k),
    ):
        signed = _grey(hounsfield(), WindowCenter=40, WindowWidth=1200)
        yield (
            f"{name} unsigned in a signed picture",
            _compressed(signed, syntax, encode(hounsfield().view(np.uint16))),
        )
        positive = body(12).astype(np.int16)
        unsigned = _grey(positive.view(np.uint16), WindowCenter=1800, WindowWidth=3000)
        yield (
            f"{name} signed in an unsigned picture",
            _compressed(unsigned, syntax, encode(positive)),
        )


def _transforms() -> Iterator[tuple[str, Dataset]]:
    twelve = body(12).astype(np.uint16)
    yield (
        "fractional slope",
        _grey(
            twelve, RescaleSlope=0.25, RescaleIntercept=-100.5, WindowCenter=350, WindowWidth=800
        ),
    )
    yield (
        "negative slope",
        _grey(twelve, RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2300, WindowWidth=3000),
    )
    yield (
        "slope of nought",
        _grey(twelve, RescaleSlope=0, RescaleIntercept=0, WindowCenter=1800, WindowWidth=3000),
    )
    bent = (np.sqrt(np.arange(4096) / 4095) * 4095).astype(np.uint16)
    with_table = _grey(twelve, WindowCenter=2600, WindowWidth=3000)
    with_table.ModalityLUTSequence = [_table(0, bent, 12)]
    with_table.ModalityLUTSequence[0].ModalityLUTType = "US"
    yield "modality table", with_table
    both = _grey(twelve)
    both.VOILUTSequence = [_table(0, bent, 12)]
    yield "VOI table", both
    windowed = _grey(twelve, WindowCenter=1800, WindowWidth=3000)
    windowed.VOILUTSequence = [_table(0, bent, 12)]
    yield "VOI table and window", windowed
    signed = _grey(hounsfield())
    signed.VOILUTSequence = [_table(-1024, bent[:2048], 12, signed=True)]
    yield "VOI table from below zero", signed
    both_tables = _grey(twelve)
    both_tables.ModalityLUTSequence = [_table(0, bent, 12)]
    both_tables.VOILUTSequence = [_table(500, bent[::2], 12)]
    yield "modality and VOI table", both_tables
    dose = _grey(body(17).astype(np.uint32))
    dose.Modality, dose.SOPClassUID = "RTDOSE", "1.2.840.10008.5.1.4.1.1.481.2"
    dose.DoseGridScaling, dose.DoseUnits = 1.5e-5, "GY"
    yield "dose", dose
    pet = _grey(
        body(15).astype(np.int16), RescaleSlope=0.37, RescaleIntercept=0,
        WindowCenter=3000, WindowWidth=6000,
    )  # fmt: skip
    pet.Modality, pet.SOPClassUID = "PT", "1.2.840.10008.5.1.4.1.1.128"
    pet.Units, pet.DecayCorrection, pet.CorrectedImage = "BQML", "START", ["ATTN", "DECY"]
    pet.PatientWeight, pet.AcquisitionTime = 70, "101600"
    isotope = Dataset()
    isotope.RadionuclideTotalDose, isotope.RadionuclideHalfLife = 370e6, 6586.2
    isotope.RadiopharmaceuticalStartTime = "091600"
    pet.RadiopharmaceuticalInformationSequence = [isotope]
    yield "uptake", pet


def _windows() -> Iterator[tuple[str, Dataset]]:
    twelve = body(12).astype(np.uint16)
    window = {"WindowCenter": 1800, "WindowWidth": 1500}
    for function in ("SIGMOID", "LINEAR_EXACT"):
        yield f"window {function}", _grey(twelve, VOILUTFunction=function, **window)
    yield "several windows", _grey(twelve, WindowCenter=[1800, 500], WindowWidth=[1500, 300])
    halves = np.where(np.indices((ROWS, COLUMNS))[1] < COLUMNS // 2, 1799, 1800)
    yield "window of 1", _grey(halves.astype(np.uint16), WindowCenter=1800, WindowWidth=1)
    yield (
        "narrow window",
        _grey(twelve, WindowCenter=0.4, WindowWidth=0.7, RescaleSlope=1 / 4096, RescaleIntercept=0),
    )
    yield "no window", _grey(twelve)
    yield "no window signed", _grey(hounsfield())
    for name in ("MONOCHROME1", "MONOCHROME1 without a window"):
        dataset = _grey(twelve, **(window if name == "MONOCHROME1" else {}))
        dataset.PhotometricInterpretation = "MONOCHROME1"
        yield name, dataset
    inverse = _grey(twelve, **window)
    inverse.PresentationLUTShape = "INVERSE"
    yield "inverse shape", inverse
    negative = _grey(twelve, **window)
    negative.PhotometricInterpretation = "MONOCHROME1"
    negative.PresentationLUTShape = "INVERSE"
    yield "MONOCHROME1 inverse shape", negative
    padded = hounsfield()
    padded[:20] = -2000
    padding = _grey(padded)
    padding.add_new(0x00280120, "SS", -2000)
    yield "padding without a window", padding
    tall = _grey(twelve, **window)
    tall.PixelSpacing = [2.0, 1.0]
    yield "pixels twice as high", tall
    plain = secondary_capture(pixels=body(8).astype(np.uint8))
    plain.PixelAspectRatio = [1, 2]
    yield "pixels twice as wide", plain


def _in_colour() -> Iterator[tuple[str, Dataset]]:
    rgb = colours()
    planes = secondary_capture(pixels=rgb)
    planes.PlanarConfiguration = 1
    planes.PixelData = rgb.transpose(2, 0, 1).tobytes()
    yield "colour by plane", planes
    ybr = np.empty_like(rgb)
    red, green, blue = (rgb[:, :, n].astype(float) for n in range(3))
    ybr[:, :, 0] = (0.299 * red + 0.587 * green + 0.114 * blue).round()
    ybr[:, :, 1] = (-0.168736 * red - 0.331264 * green + 0.5 * blue + 128).round().clip(0, 255)
    ybr[:, :, 2] = (0.5 * red - 0.418688 * green - 0.081312 * blue + 128).round().clip(0, 255)
    full = secondary_capture(pixels=ybr)
    full.PhotometricInterpretation = "YBR_FULL"
    yield "YBR_FULL", full
    planar = secondary_capture(pixels=ybr)
    planar.PhotometricInterpretation, planar.PlanarConfiguration = "YBR_FULL", 1
    planar.PixelData = ybr.transpose(2, 0, 1).tobytes()
    yield "YBR_FULL by plane", planar
    compressed = secondary_capture(pixels=ybr, transfer_syntax_uid=RLELossless)
    compressed.PhotometricInterpretation = "YBR_FULL"
    yield "YBR_FULL RLE", compressed
    wavelets = secondary_capture(pixels=ybr)
    wavelets.PhotometricInterpretation = "YBR_FULL"
    frame = imagecodecs.jpeg2k_encode(ybr, level=0, codecformat="j2k", mct=False)
    yield "YBR_FULL JPEG 2000", _compressed(wavelets, JPEG2000Lossless, frame)
    lossless = secondary_capture(pixels=ybr)
    lossless.PhotometricInterpretation = "YBR_FULL"
    frame = imagecodecs.jpeg_encode(ybr, lossless=True, predictor=1, bitspersample=8)
    yield "YBR_FULL JPEG lossless", _compressed(lossless, JPEGLossless, frame)
    half = secondary_capture(pixels=ybr)
    half.PhotometricInterpretation = "YBR_FULL_422"
    pairs = ybr.reshape(ROWS, -1, 2, 3)
    half.PixelData = np.stack(
        (pairs[:, :, 0, 0], pairs[:, :, 1, 0], pairs[:, :, 0, 1], pairs[:, :, 0, 2]), axis=2
    ).tobytes()
    yield "YBR_FULL_422", half
    mislabelled = secondary_capture(pixels=rgb, transfer_syntax_uid=JPEGBaseline8Bit)
    mislabelled.PhotometricInterpretation = "RGB"
    yield "JPEG called RGB", mislabelled
    really = secondary_capture(pixels=rgb)
    frame = imagecodecs.jpeg8_encode(rgb, level=95, colorspace="RGB", outcolorspace="RGB")
    yield "JPEG of RGB", _compressed(really, JPEGBaseline8Bit, frame)
    deep = secondary_capture(pixels=rgb.astype(np.uint16) * 257, BitsStored=16)
    yield "colour of 16 bits", deep
    film = us_multiframe(frames=2, rows=ROWS, columns=COLUMNS)
    film.PlanarConfiguration = 1
    frames = np.frombuffer(film.PixelData, np.uint8).reshape(2, ROWS, COLUMNS, 3)
    film.PixelData = frames.transpose(0, 3, 1, 2).tobytes()
    yield "film by plane", film


def _palettes() -> Iterator[tuple[str, Dataset]]:
    eight = body(8).astype(np.uint8)
    ramp = np.arange(256)
    whole = (ramp * 257, (255 - ramp) * 257, (ramp * 3 % 256) * 257)
    yield "palette of 16 bits", _palette(eight, whole)
    narrow = tuple(table // 257 for table in whole)
    yield "palette of 8 bits", _palette(eight, narrow, bits=8)
    yield "palette of 8 bits in bytes", _palette(eight, narrow, bits=8, packed=True)
    yield "palette from 64", _palette(eight, tuple(t[:128] for t in whole), first=64)
    dark = tuple(table // 2570 for table in whole)
    yield "dark palette of 16 bits", _palette(eight, (*dark[:2], dark[2] + 200))
    yield "palette RLE", _palette(eight, whole, transfer_syntax_uid=RLELossless)
    wide = body(12).astype(np.uint16)
    ramp = np.arange(4096) * 16
    yield "palette of 4096 colours", _palette(wide, (ramp, 65_535 - ramp, ramp // 2))


def _palette(
    pixels: Pixels,
    tables: tuple[Pixels, ...],
    *,
    bits: int = 16,
    first: int = 0,
    packed: bool = False,
    **attributes: Any,
) -> Dataset:
    dataset = secondary_capture(pixels=pixels, **attributes)
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    kind = "<u1" if packed else "<u2"
    for number, table in enumerate(tables, start=1):
        dataset.add_new(0x00281100 + number, "US", [len(table), first, bits])
        dataset.add_new(0x00281200 + number, "OW", table.astype(kind).tobytes())
    return dataset
