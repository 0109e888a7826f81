"""Value representations: from the bytes of a value field to the DICOM JSON model.

Sources: PS3.5 §6.2 and §7.1.2 (encoding), PS3.18 §F.2 (JSON model), PS3.6 §6 (data dictionary).
"""

import struct
from array import array
from binascii import b2a_base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from math import isfinite, isnan
from typing import Any, NamedTuple

from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR

from bfr_core.character_sets import TextDecoder

Convert = Callable[[bytes, TextDecoder], list[Any] | None]
"""The values of a value field (None: it is empty); raises Misfit."""


class Misfit(Exception):
    """The value field is no whole number of values of its VR."""


class ValueRepresentation(NamedTuple):
    """One VR: its name, whether its length field has 32 bits, and how its values are read.

    `convert` is None for the VRs that hold other elements or octets: SQ, UN and the O* family.
    """

    name: str
    long: bool
    convert: Convert | None


class DictionaryEntry(NamedTuple):
    """What the data dictionary says of a tag: JSON key, VR ("US or SS" included) and its reader."""

    key: str
    name: str
    convert: Convert | None


@dataclass(frozen=True, slots=True)
class Tables:
    """What a reader looks up under one byte order, by the bytes as they stand in the file."""

    keys: dict[bytes, str]  # no special tag
    by_vr: dict[bytes, ValueRepresentation]
    dictionary: dict[bytes, DictionaryEntry]  # no special tag


SPECIFIC_CHARACTER_SET = "00080005"
DATA_SET_TRAILING_PADDING = "FFFCFFFC"
LUT_DESCRIPTORS = frozenset({"00281101", "00281102", "00281103", "00283002"})
_SPECIAL_KEYS = LUT_DESCRIPTORS | {
    SPECIFIC_CHARACTER_SET,
    DATA_SET_TRAILING_PADDING,
    "FFFEE000",
    "FFFEE00D",
    "FFFEE0DD",
}
_REMEMBERED_TAGS = 8192  # private elements and repeating groups, of which senders use a few each
_NUMBER_BYTES = {
    **dict.fromkeys(("SS", "US", "US or SS"), 2),
    **dict.fromkeys(("AT", "FL", "SL", "UL"), 4),
    **dict.fromkeys(("FD", "SV", "UV"), 8),
}
_WORD_CODE = {"OW": "H", "OF": "I", "OL": "I", "OD": "Q", "OV": "Q"}


def _decimal_strings(raw: bytes, text: TextDecoder) -> list[Any] | None:
    if b"\\" in raw:
        return [_decimal_string(value, text) for value in raw.rstrip(b" \0").split(b"\\")]
    value = _decimal_string(raw, text)
    return None if value is None else [value]


def _decimal_string(raw: bytes, text: TextDecoder) -> float | str | None:
    try:
        number = float(raw)
    except ValueError:
        raw = raw.strip(b" \0")
        if not raw:
            return None
        try:
            number = float(raw)
        except ValueError:
            return text.decode_default(raw)
    if isfinite(number) and b"_" not in raw:  # Python also reads "nan", "inf" and "1_000"
        return number
    return text.decode_default(raw.strip(b" \0"))


def _integer_strings(raw: bytes, text: TextDecoder) -> list[Any] | None:
    if b"\\" in raw:
        return [_integer_string(value, text) for value in raw.rstrip(b" \0").split(b"\\")]
    value = _integer_string(raw, text)
    return None if value is None else [value]


def _integer_string(raw: bytes, text: TextDecoder) -> int | str | None:
    try:
        number = int(raw)
    except ValueError:
        raw = raw.strip(b" \0")
        if not raw:
            return None
        decimal = _decimal_string(raw, text)
        if not isinstance(decimal, float) or not decimal.is_integer():
            return text.decode_default(raw)
        number = int(decimal)
    # Beyond 64 bits JSON readers do not agree on a number.
    if -(1 << 63) <= number < 1 << 63 and b"_" not in raw:
        return number
    return text.decode_default(raw.strip(b" \0"))


def _code_strings(raw: bytes, text: TextDecoder) -> list[Any] | None:
    string = text.decode_default(raw).rstrip(" \0")
    if "\\" in string:
        return [value.rstrip(" \0") or None for value in string.split("\\")]
    return [string] if string else None


def _identifiers(raw: bytes, text: TextDecoder) -> list[Any] | None:
    string = text.decode_default(raw).strip(" \0\t\n\r\f\v")
    if "\\" in string:
        return [value.strip(" \0\t\n\r\f\v") or None for value in string.split("\\")]
    return [string] if string else None


def _texts(raw: bytes, text: TextDecoder) -> list[Any] | None:
    string = text.decode(raw).rstrip(" \0")
    if "\\" in string:
        return [value.rstrip(" \0") or None for value in string.split("\\")]
    return [string] if string else None


def _single_text(raw: bytes, text: TextDecoder) -> list[Any] | None:
    string = text.decode(raw).rstrip(" \0")
    return [string] if string else None


def _resource_identifier(raw: bytes, text: TextDecoder) -> list[Any] | None:
    string = text.decode_default(raw).rstrip(" \0\t\n\r\f\v")
    return [string] if string else None


def _person_names(raw: bytes, text: TextDecoder) -> list[Any] | None:
    string = text.decode(raw).rstrip(" \0")
    if "\\" in string:
        return [_person_name(value.rstrip(" \0")) for value in string.split("\\")]
    name = _person_name(string)
    return [name] if name else None


def _person_name(name: str) -> dict[str, str] | None:
    if "=" in name:
        groups = zip(("Alphabetic", "Ideographic", "Phonetic"), name.split("="), strict=False)
        return {kind: group for kind, group in groups if group} or None
    return {"Alphabetic": name} if name else None


def _numbers(byte_order: str, code: str) -> Convert:
    single = struct.Struct(byte_order + code)

    def convert(raw: bytes, text: TextDecoder) -> list[Any] | None:
        if len(raw) == single.size:
            return list(single.unpack(raw))
        count, rest = divmod(len(raw), single.size)
        if rest:
            raise Misfit
        return list(struct.unpack(f"{byte_order}{count}{code}", raw)) if count else None

    return convert


def _floats(byte_order: str, code: str) -> Convert:
    convert_numbers = _numbers(byte_order, code)

    def convert(raw: bytes, text: TextDecoder) -> list[Any] | None:
        numbers = convert_numbers(raw, text)
        if numbers is None or all(map(isfinite, numbers)):
            return numbers
        return [number if isfinite(number) else _not_finite(number) for number in numbers]

    return convert


def _not_finite(number: float) -> str:
    # JSON has no such numbers and PS3.18 §F.2.3 does not speak of them; fo-dicom reads these.
    if isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"


def _attribute_tags(byte_order: str) -> Convert:
    def convert(raw: bytes, text: TextDecoder) -> list[Any] | None:
        count, rest = divmod(len(raw), 4)
        if rest:
            raise Misfit
        halves = struct.unpack(f"{byte_order}{count * 2}H", raw)
        tags = zip(halves[::2], halves[1::2], strict=True)
        return [f"{group:04X}{element:04X}" for group, element in tags] or None

    return convert


def with_unsigned_entries(values: list[Any] | None) -> list[Any] | None:
    """Return a LUT descriptor whose number of entries is unsigned (PS3.3 §C.7.6.3.1.5).

    Where the pixels are signed the descriptor is SS, and more than 32 767 entries look negative.
    """
    if values and len(values) > 1 and isinstance(values[0], int) and values[0] < 0:
        return [values[0] + (1 << 16), *values[1:]]
    return values


def pixel_values(key: str, raw: bytes, *, signed: bool, big_endian: bool) -> list[Any] | None:
    """Return the values of a "US or SS" element, which are signed if the pixels are.

    None when it is empty. Raises Misfit.
    """
    convert = _numbers(">" if big_endian else "<", "h" if signed else "H")
    values = convert(raw, TextDecoder(()))
    return with_unsigned_entries(values) if key in LUT_DESCRIPTORS else values


def value_count_max(name: str, raw: bytes) -> int:
    """Return how many values `raw` may hold, found without reading them."""
    size_bytes = _NUMBER_BYTES.get(name)
    return len(raw) // size_bytes if size_bytes else raw.count(b"\\") + 1


def inline_binary(name: str, raw: bytes, *, big_endian: bool) -> str:
    """Return `raw` in base64, its words in little endian order whatever the file's (§F.2.7)."""
    if big_endian and name in _WORD_CODE:
        words = array(_WORD_CODE[name])
        if len(raw) % words.itemsize == 0:
            words.frombytes(raw)
            words.byteswap()
            raw = words.tobytes()
    return b2a_base64(raw, newline=False).decode("ascii")


def _is_special(key: str) -> bool:
    return key in _SPECIAL_KEYS or key.endswith("0000")  # group lengths


@cache
def tables(*, big_endian: bool) -> Tables:
    """Return the tables for one byte order."""
    order = ">" if big_endian else "<"
    converts: dict[str, Convert | None] = {
        **dict.fromkeys(("AS", "CS", "DA", "DT", "TM"), _code_strings),
        **dict.fromkeys(("LO", "SH", "UC"), _texts),
        **dict.fromkeys(("LT", "ST", "UT"), _single_text),
        **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UN")),
        **dict.fromkeys(("AE", "UI"), _identifiers),
        "AT": _attribute_tags(order),
        "DS": _decimal_strings,
        "FD": _floats(order, "d"),
        "FL": _floats(order, "f"),
        "IS": _integer_strings,
        "PN": _person_names,
        "SL": _numbers(order, "i"),
        "SS": _numbers(order, "h"),
        "SV": _numbers(order, "q"),
        "UL": _numbers(order, "I"),
        "UR": _resource_identifier,
        "US": _numbers(order, "H"),
        "UV": _numbers(order, "Q"),
    }
    long = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
    layout = struct.Struct(order + "HH")
    keys = {}
    dictionary = {}
    for tag, (name, *_) in DicomDictionary.items():
        key = f"{tag:08X}"
        if _is_special(key):
            continue
        encoded = layout.pack(tag >> 16, tag & 0xFFFF)
        keys[encoded] = key
        dictionary[encoded] = DictionaryEntry(key, name, converts.get(name))
    return Tables(
        keys,
        {n.encode(): ValueRepresentation(n, n in long, c) for n, c in converts.items()},
        dictionary,
    )


@lru_cache(maxsize=_REMEMBERED_TAGS)
def look_up(key: str, big_endian: bool) -> DictionaryEntry:
    """Return the entry of a tag that is not in `Tables.dictionary`.

    Repeating groups have their VR, group lengths UL, private creators LO; all others are UN,
    private elements among them (PS3.5 §6.2.2).
    """
    group, element = int(key[:4], 16), int(key[4:], 16)
    if key == SPECIFIC_CHARACTER_SET:
        name = "CS"
    elif element == 0:
        name = "UL"
    elif group & 1:
        name = "LO" if 0x10 <= element <= 0xFF else "UN"
    else:
        try:
            name = dictionary_VR(group << 16 | element)
        except KeyError:
            name = "UN"
    found = tables(big_endian=big_endian).by_vr.get(name.encode())
    return DictionaryEntry(key, name, found.convert if found else None)


@lru_cache(maxsize=_REMEMBERED_TAGS)
def key_of(tag: bytes, big_endian: bool) -> str:
    """Return the JSON key of a tag as it stands in the file."""
    octets = tag if big_endian else tag[1::-1] + tag[:1:-1]
    return octets.hex().upper()


@lru_cache(maxsize=_REMEMBERED_TAGS)
def unusual_key(tag: bytes, big_endian: bool) -> tuple[str, bool]:
    """Return the JSON key of a tag that `Tables.keys` lacks, and whether it is special.

    Special are those that a data set holds but its JSON does not, or not as they stand.
    """
    key = key_of(tag, big_endian)
    return key, _is_special(key)
