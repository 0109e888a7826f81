"""read_header against pydicom, an independent reader of the same bytes."""

import io
from base64 import b64encode
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_fragments
from pydicom.tag import BaseTag

from bfr_core.errors import Invalid
from bfr_core.header import Header, HeaderLimits, find_bulk_data, inflate_dataset, read_header

LIMITS = HeaderLimits()
SYNTAXES = {
    "implicit little endian": "1.2.840.10008.1.2",
    "explicit little endian": "1.2.840.10008.1.2.1",
    "explicit big endian": "1.2.840.10008.1.2.2",
    "deflated": "1.2.840.10008.1.2.1.99",
}
PYDICOM_FILES = Path(pydicom.__file__).parent / "data"
SHARED_FILES = Path(__file__).parents[3] / "shared" / "data" / "dicom"
PIXEL_DATA = (0x7FE00008, 0x7FE00009, 0x7FE00010)
REFUSED = {
    "DICOMDIR-nooffset": r"\(0004,1220\) is truncated",
    "ExplVR_BigEndNoMeta.dcm": "no DICOM prefix",
    "ExplVR_LitEndNoMeta.dcm": "no DICOM prefix",
    "MR_truncated.dcm": r"\(7FE0,0010\) is truncated",
    "meta_missing_tsyntax.dcm": "no Transfer Syntax UID",
    "no_meta.dcm": "no DICOM prefix",
    "rtplan_truncated.dcm": r"\(300A,00B0\) is truncated",
    "rtstruct.dcm": "no DICOM prefix",
}

# pydicom warns of what it finds odd in its own test files.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def pydicom_files() -> Iterator[Path]:
    for folder in ("test_files", "charset_files", "palettes"):
        for path in sorted((PYDICOM_FILES / folder).rglob("*")):
            if path.is_file() and path.suffix in ("", ".dcm") and path.name != "README":
                yield path


@pytest.fixture(autouse=True)
def no_private_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refinement 1: a private element whose VR the sender did not tell is UN, not a guess."""
    monkeypatch.setattr("pydicom.datadict.private_dictionaries", {})


def as_pydicom(dataset: Dataset, *, top: bool = True) -> dict[str, Any]:
    """The JSON of `dataset` as pydicom makes it, each of its elements refined."""
    elements = {}
    for tag in sorted(dataset.keys()):
        assert isinstance(tag, BaseTag)
        # Refinement 2: group lengths (PS3.18 §F.2.2), the instance's own pixel data and padding
        # are left out.
        if tag.element == 0 or tag == 0xFFFCFFFC:
            continue
        if top and tag in PIXEL_DATA:
            continue
        elements[f"{tag:08X}"] = refined(dataset, tag)
    return elements


def refined(dataset: Dataset, tag: BaseTag) -> dict[str, Any]:
    raw = dataset.get_item(tag)
    encoded = getattr(raw, "value", None)
    element = dataset[tag]
    # Refinement 3: all strings are Unicode here, so that is what Specific Character Set says.
    if tag == 0x00080005:
        return {"vr": "CS", "Value": ["ISO_IR 192"]}
    if element.VR == "SQ":
        items = [as_pydicom(item, top=False) for item in element.value]
        # Refinement 4: a sequence without items is empty, so it has no Value (PS3.18 §F.2.5).
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    try:
        found: dict[str, Any] = element.to_json_dict(None, 0)
    except ValueError:
        # Refinement 5: a DS or IS that is no number keeps its text (pydicom raises).
        assert element.VR in ("DS", "IS")
        assert isinstance(encoded, bytes)
        return {"vr": element.VR, "Value": [encoded.decode().strip()]}
    if "Value" in found:
        # Refinement 6: an empty value among several is null (PS3.18 §F.2.5), and each of them is
        # without its trailing padding, not only the last.
        found["Value"] = [
            (value.rstrip(" ") or None) if isinstance(value, str) else value
            for value in found["Value"]
        ]
    return found


def with_bulk_data_inline(elements: dict[str, Any], data: bytes, octets: bytes) -> dict[str, Any]:
    """`elements` with the bytes that each BulkDataURI names."""
    shown: dict[str, Any] = {}
    for key, element in elements.items():
        shown[key] = dict(element)
        if "BulkDataURI" in element:
            path = shown[key].pop("BulkDataURI").removeprefix("bulkdata/")
            offset, length = find_bulk_data(data, path, LIMITS)
            shown[key]["InlineBinary"] = b64encode(octets[offset : offset + length]).decode()
        if element["vr"] == "SQ" and "Value" in element:
            shown[key]["Value"] = [
                with_bulk_data_inline(item, data, octets) for item in element["Value"]
            ]
    return shown


def assert_same(data: bytes) -> Header:
    header = read_header(data, LIMITS)
    octets = inflate_dataset(data, LIMITS) if header.inflated else data
    expected = pydicom.dcmread(io.BytesIO(data))
    assert with_bulk_data_inline(header.dataset, data, octets) == as_pydicom(expected)
    assert header.file_meta == as_pydicom(expected.file_meta)
    pixels = [expected[tag].value for tag in PIXEL_DATA if tag in expected]
    assert (header.pixel_data is not None) == bool(pixels)
    if header.pixel_data is not None and header.pixel_data.length is not None:
        start = header.pixel_data.offset
        assert octets[start : start + header.pixel_data.length] == (pixels[0] or b"")
    elif header.pixel_data is not None:
        _, *fragments = generate_fragments(pixels[0])
        found_fragments = [octets[at : at + length] for at, length in header.pixel_data.fragments]
        assert found_fragments == fragments
    return header


@pytest.mark.parametrize("path", list(pydicom_files()), ids=lambda path: path.name)
def test_every_file_that_pydicom_ships_reads_as_pydicom_reads_it(path: Path) -> None:
    data = path.read_bytes()
    if path.name in REFUSED:
        with pytest.raises(Invalid, match=REFUSED[path.name]):
            read_header(data, LIMITS)
    else:
        assert_same(data)


@pytest.mark.skipif(not SHARED_FILES.is_dir(), reason="no real files beside this repository")
def test_real_files_read_as_pydicom_reads_them() -> None:
    paths = sorted(SHARED_FILES.rglob("*.dcm"))
    assert paths
    chosen = {path.parent: path for path in paths}.values()  # one of each folder
    for path in [*chosen, *(path for path in paths if path.parent.name != "ct")][:150]:
        assert_same(path.read_bytes())


WORDS = st.text("abcXYZ 019åäöÅÄÖéß漢字かな'.-", min_size=1, max_size=16)
CODES = st.text("ABCXYZ_ 0189", min_size=1, max_size=16)
UIDS = st.integers(1, 10**20).map(lambda number: f"1.2.826.{number}")
NUMBERS = {"SL": -(2**31), "SS": -(2**15), "UL": 2**32, "US": 2**16, "UV": 2**64, "SV": -(2**63)}


def integers(vr: str) -> st.SearchStrategy[int]:
    bound = NUMBERS[vr]
    return st.integers(0, bound - 1) if bound > 0 else st.integers(bound, -bound - 1)


def several(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, max_size=3)


PEOPLE = st.lists(st.text("abcÅÄÖ漢字 ^", min_size=1, max_size=10), min_size=1, max_size=3)
VALUES: dict[tuple[int, str], st.SearchStrategy[Any]] = {
    (0x00080008, "CS"): several(CODES),
    (0x00080018, "UI"): UIDS,
    (0x00080020, "DA"): st.dates(date(1900, 1, 1)).map(lambda day: f"{day:%Y%m%d}"),
    (0x00080030, "TM"): st.times().map(lambda time: f"{time:%H%M%S.%f}"),
    (0x0008002A, "DT"): st.datetimes(datetime(1900, 1, 1)).map(lambda when: f"{when:%Y%m%d%H%M%S}"),
    (0x00080054, "AE"): several(CODES),
    (0x00081030, "LO"): WORDS,
    (0x00090010, "LO"): WORDS,
    (0x00091001, "UN"): st.binary(max_size=64).filter(lambda raw: len(raw) % 2 == 0),
    (0x00100010, "PN"): PEOPLE.map("=".join).filter(lambda name: not name.startswith("=")),
    (0x00101010, "AS"): st.integers(0, 999).map(lambda age: f"{age:03}Y"),
    (0x00102160, "SH"): several(WORDS),
    (0x001021B0, "LT"): WORDS,
    (0x00180015, "CS"): st.just(""),
    (0x00189073, "FD"): st.floats(allow_nan=False, allow_infinity=False),
    (0x00186020, "SL"): integers("SL"),
    (0x00189219, "SS"): integers("SS"),
    (0x00200013, "IS"): several(st.integers(-(2**31), 2**31 - 1)),
    (0x00200032, "DS"): several(st.decimals(-9999, 9999, places=4)),
    (0x00280009, "AT"): several(st.integers(0, 2**32 - 1)),
    (0x00280010, "US"): several(integers("US")),
    (0x00080081, "ST"): WORDS,
    (0x0040A160, "UT"): WORDS,
    (0x00420011, "OB"): st.binary(max_size=3000).map(lambda raw: raw + raw),
    (0x00720083, "UV"): integers("UV"),
    (0x00720082, "SV"): integers("SV"),
    (0x00720076, "FL"): st.floats(width=32, allow_nan=False, allow_infinity=False),
    (0x00720078, "UL"): integers("UL"),
    (0x00080120, "UR"): st.just("https://example.org/a"),
    (0x00080119, "UC"): several(WORDS),
}


@st.composite
def datasets(draw: st.DrawFn, depth: int = 2) -> Dataset:
    dataset = Dataset()
    for tag, vr in sorted(draw(st.sets(st.sampled_from(sorted(VALUES)), max_size=10))):
        dataset.add_new(tag, vr, draw(VALUES[tag, vr]))
    if depth:
        items = draw(st.lists(datasets(depth - 1), max_size=2))
        if draw(st.booleans()):
            dataset.add_new(0x00081140, "SQ", items)
            dataset[0x00081140].is_undefined_length = draw(st.booleans())
            for item in items:
                item.is_undefined_length_sequence_item = draw(st.booleans())
    return dataset


def written(dataset: Dataset, transfer_syntax_uid: str) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(transfer_syntax_uid)
    dataset.preamble = bytes(128)
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset)
    return file.getvalue()


@settings(deadline=None)
@given(datasets(), st.sampled_from(["ISO_IR 192", "GB18030"]), st.binary(max_size=2000))
def test_a_data_set_reads_the_same_in_every_transfer_syntax(
    dataset: Dataset, character_set: str, pixels: bytes
) -> None:
    dataset.SpecificCharacterSet = character_set
    dataset.BitsAllocated = 8
    dataset.add_new(0x7FE00010, "OB", pixels + pixels)
    found = []
    for uid in SYNTAXES.values():
        data = written(dataset, uid)
        header = assert_same(data)
        assert header.character_set == (character_set,)
        octets = inflate_dataset(data, LIMITS) if header.inflated else data
        found.append(with_bulk_data_inline(header.dataset, data, octets))
    assert all(elements == found[0] for elements in found)
