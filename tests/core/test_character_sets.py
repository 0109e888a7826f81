"""Text goes out in a character set so that it comes in again as it was (PS3.5 §6.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfr_core.character_sets import TextDecoder, TextEncoder
from bfr_core.dataset_encoding import encode_dataset

NAMES = (
    "Ångström^Märta",
    "Люкceмбypг",
    "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "Hong^Gildong=洪^吉洞=홍^길동",
    "Διονυσιος",
    "Wang^XiaoDong=王^小东",
)
SETS = (
    ("ISO_IR 100",),
    ("ISO_IR 144",),
    ("ISO_IR 192",),
    ("GB18030",),
    ("ISO 2022 IR 6", "ISO 2022 IR 100"),
    ("ISO 2022 IR 100", "ISO 2022 IR 144", "ISO 2022 IR 126"),
    ("", "ISO 2022 IR 87"),
    ("ISO 2022 IR 13", "ISO 2022 IR 87"),
    ("", "ISO 2022 IR 149"),
    ("ISO 2022 IR 6", "ISO 2022 IR 58"),
)


@pytest.mark.parametrize(
    ("terms", "name"),
    [
        (("ISO_IR 100",), NAMES[0]),
        (("ISO_IR 144",), NAMES[1]),
        (("ISO 2022 IR 6", "ISO 2022 IR 100"), NAMES[0]),
        (("ISO 2022 IR 100", "ISO 2022 IR 144"), f"{NAMES[1]}^Åsa"),
        (("", "ISO 2022 IR 87"), NAMES[2]),
        (("", "ISO 2022 IR 149"), NAMES[3]),
        (("ISO 2022 IR 6", "ISO 2022 IR 58"), NAMES[5]),
    ],
)
@pytest.mark.conforms("PS3.5 §6.1.2.5", "code extensions are written as they are read")
def test_names_come_back_as_they_were(terms: tuple[str, ...], name: str) -> None:
    assert TextDecoder(terms).decode(TextEncoder(terms).encode(name)) == name


LETTERS = st.sampled_from("aÅäöЛюΔ山田やﾔ¥홍洪东^= ") | st.characters(
    exclude_categories=("Cs", "Cc"), max_codepoint=0xFFFF
)


@given(st.sampled_from(SETS), st.text(LETTERS, max_size=12))
def test_a_text_is_written_so_that_it_is_read_again_or_not_at_all(
    terms: tuple[str, ...], text: str
) -> None:
    try:
        raw = TextEncoder(terms).encode(text)
    except ValueError:
        return
    assert TextDecoder(terms).decode(raw) == text


def test_what_a_character_set_does_not_hold_goes_out_in_unicode() -> None:
    name = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Ångström"}]}}
    as_asked = encode_dataset(name, explicit=True, character_set=("ISO_IR 100",))
    assert b"ISO_IR 100" in as_asked
    assert "Ångström".encode("latin-1") in as_asked
    for terms in (("ISO_IR 144",), ("",), ("no such set",)):
        unicode = encode_dataset(name, explicit=True, character_set=terms)
        assert b"ISO_IR 192" in unicode
        assert "Ångström".encode() in unicode
    plain = encode_dataset({"00100020": {"vr": "LO", "Value": ["1"]}}, explicit=True)
    assert b"ISO_IR" not in plain
