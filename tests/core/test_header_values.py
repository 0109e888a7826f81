"""What read_header makes of values and text: PS3.5 §6 and PS3.18 §F.2."""

import struct
from base64 import b64decode
from typing import Any

import orjson
import pytest
from tests.core.encoded_elements import (
    EXPLICIT_BIG,
    IMPLICIT_LITTLE,
    SEQUENCE_END,
    UNDEFINED,
    explicit,
    implicit,
    item,
    read,
    values,
)

# Values


@pytest.mark.parametrize(
    ("vr", "raw", "expected"),
    [
        ("AE", b" CT1 \\CT2 ", ["CT1", "CT2"]),
        ("AS", b"041Y", ["041Y"]),
        ("AT", b"\x08\x00\x20\x00\xe0\x7f\x10\x00", ["00080020", "7FE00010"]),
        ("CS", b"A \\\\B ", ["A", None, "B"]),
        ("CS", b"  ", None),
        ("DS", b" 1.50\\-2e3\\\\7 ", [1.5, -2000.0, None, 7.0]),
        ("DS", b"1,5 ", ["1,5"]),
        ("DS", b"nan\\1_0\\inf\\1e999\\2", ["nan", "1_0", "inf", "1e999", 2.0]),
        ("DS", b"1\0", [1.0]),
        ("DS", b" \0", None),
        ("FD", struct.pack("<3d", 1.5, float("nan"), float("-inf")), [1.5, "NaN", "-Infinity"]),
        ("FL", struct.pack("<f", float("inf")), ["Infinity"]),
        ("IS", b"12\\ -3\\\\+4 ", [12, -3, None, 4]),
        ("IS", b"1.0 ", [1]),
        ("IS", b"1.5 ", ["1.5"]),
        ("IS", b"1_0 ", ["1_0"]),
        ("IS", b"99999999999999999999", ["99999999999999999999"]),
        ("IS", b"twelve", ["twelve"]),
        ("LT", b"one\\two  ", ["one\\two"]),
        ("PN", b"A^B=C^D=E^F ", [{"Alphabetic": "A^B", "Ideographic": "C^D", "Phonetic": "E^F"}]),
        ("PN", b"=C^D\\\\A^B", [{"Ideographic": "C^D"}, None, {"Alphabetic": "A^B"}]),
        ("PN", b"= ", None),
        ("SL", b"\xff\xff\xff\xff", [-1]),
        ("SV", b"\xff" * 8, [-1]),
        ("UI", b"1.2\\1.3\0", ["1.2", "1.3"]),
        ("UR", b"http://a/\\b ", ["http://a/\\b"]),
        ("US", b"", None),
        ("UV", b"\xff" * 8, [2**64 - 1]),
    ],
)
@pytest.mark.conforms("PS3.18 §F.2.3", "each VR has its JSON type; an empty value is null")
def test_values_of_each_vr(vr: str, raw: bytes, expected: list[Any] | None) -> None:
    element = read(explicit(0x00091010, vr, raw)).dataset["00091010"]
    assert element == ({"vr": vr} if expected is None else {"vr": vr, "Value": expected})
    assert orjson.loads(orjson.dumps(element)) == element


@pytest.mark.parametrize("vr", ["AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"])
def test_a_number_of_the_wrong_length_keeps_its_bytes(vr: str) -> None:
    element = read(explicit(0x00091010, vr, b"abc")).dataset["00091010"]
    assert element == {"vr": "UN", "InlineBinary": "YWJj"}


@pytest.mark.conforms("PS3.18 §F.2.2", "group lengths are left out, attributes are in order")
def test_group_lengths_and_padding_are_left_out_and_attributes_are_in_order() -> None:
    dataset = read(
        explicit(0x00100020, "LO", b"AB")
        + explicit(0x00080000, "UL", bytes(4))
        + explicit(0x00080060, "CS", b"CT")
        + explicit(0xFFFCFFFC, "OB", bytes(64))
        + bytes(6)
    ).dataset
    assert list(dataset) == ["00080060", "00100020"]


def test_the_last_of_two_elements_with_one_tag_counts() -> None:
    twice = explicit(0x00100020, "LO", b"AB") + explicit(0x00100020, "LO", b"CD")
    assert values(twice, "00100020") == ["CD"]


@pytest.mark.parametrize(("representation", "vr", "value"), [(0, "US", 65535), (1, "SS", -1)])
def test_us_or_ss_follows_pixel_representation_also_from_the_enclosing_data_set(
    representation: int, vr: str, value: int
) -> None:
    smallest = implicit(0x00280106, b"\xff\xff")
    header = read(
        implicit(0x00189810, b"\xff\xff")
        + implicit(0x00221612, item(smallest))
        + smallest
        + implicit(0x00280103, struct.pack("<H", representation)),
        IMPLICIT_LITTLE,
    )
    expected = {"vr": vr, "Value": [value]}
    assert header.dataset["00189810"] == expected
    assert header.dataset["00280106"] == expected
    assert header.dataset["00221612"]["Value"] == [{"00280106": expected}]


def test_the_number_of_entries_of_a_lut_descriptor_is_unsigned() -> None:
    raw = struct.pack("<HhH", 40000, -5, 16)
    assert values(explicit(0x00281101, "SS", raw), "00281101") == [40000, -5, 16]
    signed = implicit(0x00280103, b"\1\0") + implicit(0x00281101, raw)
    assert values(signed, "00281101", IMPLICIT_LITTLE) == [40000, -5, 16]


def test_implicit_vr_takes_the_vr_from_the_dictionary_and_private_elements_are_unknown() -> None:
    header = read(
        implicit(0x00091001, b"AB")
        + implicit(0x00090010, b"MAKER ")
        + implicit(0x60020010, b"\1\0")
        + implicit(0x60023000, b"\1\2")
        + implicit(0x00777777, b"CD"),
        IMPLICIT_LITTLE,
    )
    assert header.dataset == {
        "00090010": {"vr": "LO", "Value": ["MAKER"]},
        "00091001": {"vr": "UN", "InlineBinary": "QUI="},
        "00777777": {"vr": "UN", "InlineBinary": "Q0Q="},
        "60020010": {"vr": "US", "Value": [1]},
        "60023000": {"vr": "OW", "InlineBinary": "AQI="},
    }


@pytest.mark.conforms("PS3.5 §6.2.2", "UN of undefined length is a sequence in Implicit VR")
def test_unknown_vr_of_undefined_length_is_a_sequence_in_implicit_vr() -> None:
    content = item(implicit(0x00100020, b"AB"))
    assert values(explicit(0x00091001, "UN", content + SEQUENCE_END, UNDEFINED), "00091001") == [
        {"00100020": {"vr": "LO", "Value": ["AB"]}}
    ]


def test_unknown_vr_of_a_tag_in_the_dictionary_has_the_vr_of_the_dictionary() -> None:
    header = read(
        explicit(0x00080005, "UN", b"ISO_IR 100")
        + explicit(0x00081140, "UN", item(implicit(0x00081150, b"1.2\0")))
        + explicit(0x00081155, "UN", b"1.3\0")
        + explicit(0x00081199, "UN", b"no sequence at all")
        + explicit(0x00100010, "UN", b"\xc5sa")
    )
    assert header.character_set == ("ISO_IR 100",)
    assert header.dataset["00081140"]["Value"] == [{"00081150": {"vr": "UI", "Value": ["1.2"]}}]
    assert header.dataset["00081155"] == {"vr": "UI", "Value": ["1.3"]}
    assert header.dataset["00100010"]["Value"] == [{"Alphabetic": "Åsa"}]
    assert b64decode(header.dataset["00081199"]["InlineBinary"]) == b"no sequence at all"


def test_big_endian_numbers_and_words_come_out_as_in_little_endian() -> None:
    header = read(
        explicit(0x00280010, "US", b"\1\2", order=">")
        + explicit(0x00281201, "OW", b"\1\2\3\4", order=">")
        + explicit(0x00420011, "OB", b"\1\2\3\4", order=">"),
        EXPLICIT_BIG,
    )
    assert header.dataset["00280010"]["Value"] == [0x0102]
    assert b64decode(header.dataset["00281201"]["InlineBinary"]) == b"\2\1\4\3"
    assert b64decode(header.dataset["00420011"]["InlineBinary"]) == b"\1\2\3\4"


# Character sets


@pytest.mark.parametrize(
    ("character_set", "raw", "expected"),
    [
        ("ISO_IR 100", "Ångström".encode("latin-1"), "Ångström"),
        ("ISO-IR 100", "Ångström".encode("latin-1"), "Ångström"),
        ("ISO_IR 101", "Łódź".encode("iso8859-2"), "Łódź"),
        ("ISO_IR 144", "Люкceмбypг".encode("iso8859-5"), "Люкceмбypг"),
        ("ISO_IR 192", "Ångström 東京".encode(), "Ångström 東京"),
        ("UTF-8", "Ångström".encode(), "Ångström"),
        ("GB18030", "王小东".encode("gb18030"), "王小东"),
        ("ISO 2022 IR 6\\ISO 2022 IR 58", b"\x1b$)A\xcd\xf5", "王"),
        ("\\ISO 2022 IR 87", b"Yamada \x1b$B;3ED\x1b(B!", "Yamada 山田!"),
        ("\\ISO 2022 IR 149", b"\x1b$)C\xb1\xe8\xc8\xf1\xc1\xdf", "김희중"),
        ("no such set", "Ö".encode("latin-1"), "Ö"),
        ("ISO_IR 192", b"\xc5ngstr\xf6m", "�ngstr�m"),
        ("ISO_IR 192", b"\xed\xa0\x80", "���"),
        ("", b"\xc5\x1b(Q\xd6", "Å\x1b(QÖ"),
    ],
)
def test_text_is_decoded_and_what_cannot_be_is_replaced(
    character_set: str, raw: bytes, expected: str
) -> None:
    declared = explicit(0x00080005, "CS", character_set.encode())
    header = read(declared + explicit(0x00081030, "LO", raw))
    assert header.dataset["00081030"] == {"vr": "LO", "Value": [expected]}
    assert header.dataset["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert header.character_set == (tuple(character_set.split("\\")) if character_set else ())
    orjson.dumps(header.dataset)


def test_iso_ir_192_is_declared_where_text_goes_beyond_ascii_without_a_character_set() -> None:
    assert "00080005" not in read(explicit(0x00081030, "LO", b"Angstrom")).dataset
    header = read(
        explicit(0x00080000, "UL", bytes(4))
        + explicit(0x00080001, "UL", bytes(4))
        + explicit(0x00081140, "SQ", item(explicit(0x00081030, "LO", b"\xc5ngstr\xf6m")))
    )
    assert list(header.dataset) == ["00080001", "00080005", "00081140"]
    assert header.character_set == ()


def test_an_item_has_its_own_character_set_and_else_that_of_the_data_set() -> None:
    text = explicit(0x00080104, "LO", "Ö".encode())
    own = explicit(0x00080005, "CS", b"ISO_IR 192")
    header = read(
        explicit(0x00080005, "CS", b"ISO_IR 100")
        + explicit(0x00081140, "SQ", item(own + text) + item(text))
    )
    first, second = header.dataset["00081140"]["Value"]
    assert first["00080104"]["Value"] == ["Ö"]
    assert second["00080104"]["Value"] == ["Ã\x96"]
