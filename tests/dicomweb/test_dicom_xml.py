"""The Native DICOM Model: the same data set in XML as in JSON, and nothing else let in."""

import base64
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfr_core.errors import Invalid
from bfr_dicomweb.dicom_xml import NAMESPACE, read_xml, write_xml

HEAD = f'<NativeDicomModel xmlns="{NAMESPACE}" xml:space="preserve">'
END = "</NativeDicomModel>"

text = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="￾￿"))
words = text.map(lambda one: one.replace("^", "").replace("=", ""))
names = st.builds(
    lambda parts: {group: "^".join(part) for group, part in parts.items()},
    st.dictionaries(
        st.sampled_from(["Alphabetic", "Ideographic", "Phonetic"]),
        st.lists(words.filter(bool), min_size=1, max_size=5),
        min_size=1,
    ),
)
elements: st.SearchStrategy[Any] = st.one_of(
    st.builds(lambda v: ("00080050", {"vr": "SH", "Value": v}), st.lists(text, min_size=1)),
    st.builds(lambda v: ("00100010", {"vr": "PN", "Value": v}), st.lists(names, min_size=1)),
    st.builds(
        lambda v: ("00280010", {"vr": "US", "Value": v}),
        st.lists(st.integers(0, 65535), min_size=1),
    ),
    st.builds(
        lambda v: ("00189324", {"vr": "FD", "Value": v}),
        st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1),
    ),
    st.builds(
        lambda v: ("00091010", {"vr": "OB", "InlineBinary": base64.b64encode(v).decode()}),
        st.binary(),
    ),
    st.just(("00080020", {"vr": "DA"})),
)
datasets = st.recursive(
    st.lists(elements, max_size=4).map(dict),
    lambda inner: st.builds(
        lambda dataset, items: {**dataset, "00404018": {"vr": "SQ", "Value": items}},
        st.lists(elements, max_size=4).map(dict),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=8,
)


@pytest.mark.conforms("PS3.18 §8.7.3.2", "XML and JSON hold the same data set")
@given(datasets)
def test_a_data_set_comes_back_from_xml_as_it_went_in(dataset: dict[str, Any]) -> None:
    assert read_xml(write_xml(dataset), 32) == dataset


@given(datasets, st.randoms())
def test_values_are_taken_by_their_number_and_not_by_their_place(
    dataset: dict[str, Any], chance: random.Random
) -> None:
    values = [str(number) for number in range(5)]
    pieces = [f'<Value number="{n}">{value}</Value>' for n, value in enumerate(values, 1)]
    chance.shuffle(pieces)
    xml = HEAD + '<DicomAttribute tag="00080050" vr="SH">' + "".join(pieces)
    read = read_xml((xml + "</DicomAttribute>" + END).encode(), 32)
    assert read["00080050"]["Value"] == values


def test_keywords_are_written_and_not_needed() -> None:
    xml = write_xml({"00080050": {"vr": "SH", "Value": ["A<&>"]}})
    assert b'keyword="AccessionNumber"' in xml
    bare = xml.replace(b' keyword="AccessionNumber"', b"").replace(b' xmlns="', b' x="')
    assert read_xml(bare, 32) == {"00080050": {"vr": "SH", "Value": ["A<&>"]}}


def test_what_xml_cannot_hold_becomes_a_replacement_character() -> None:
    xml = write_xml({"00400400": {"vr": "LT", "Value": ["a\x1bb\rc\nd"]}})
    assert read_xml(xml, 32)["00400400"]["Value"] == ["a\ufffdb\rc\nd"]


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    + HEAD
    + '<DicomAttribute tag="00080050" vr="SH"><Value number="1">&b;</Value></DicomAttribute>'
    + END
)
FILE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>' + HEAD + "&a;" + END
DEEP = (
    HEAD
    + '<DicomAttribute tag="00404018" vr="SQ"><Item number="1">' * 1000
    + "</Item></DicomAttribute>" * 1000
    + END
)


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        (BOMB, "document type"),
        (FILE, "document type"),
        ('<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd">' + HEAD + END, "document type"),
        (DEEP, "too deep"),
        (HEAD, "malformed"),
        ("", "malformed"),
        ("<Other/>", "no NativeDicomModel"),
        (HEAD + "<Value/>" + END, "DicomAttribute"),
        (HEAD + '<x:DicomAttribute xmlns:x="urn:x"/>' + END, "not of the Native"),
        (HEAD + '<DicomAttribute tag="00080020" vr="DA"/>' * 2 + END, "twice"),
        (
            HEAD
            + '<DicomAttribute tag="00280010" vr="US"><Value number="1">x</Value></DicomAttribute>'
            + END,
            "VR US",
        ),
        (
            HEAD
            + '<DicomAttribute tag="00280010" vr="US"><Value number="2">1</Value></DicomAttribute>'
            + END,
            "numbered",
        ),
        (
            HEAD
            + '<DicomAttribute tag="00091010" vr="OB"><InlineBinary>!</InlineBinary>'
            + "</DicomAttribute>"
            + END,
            "base64",
        ),
    ],
)
def test_what_is_no_native_dicom_model_is_refused(xml: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        read_xml(xml.encode(), 32)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for body in (data, HEAD.encode() + data + END.encode()):
        try:
            read_xml(body, 32)
        except Invalid:
            pass
