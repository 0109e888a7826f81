"""The DICOM JSON model as callers send it: what is let in (PS3.18 Annex F)."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from pydicom.datadict import dictionary_VR

from bfr_core.errors import Invalid
from bfr_core.instances import Dataset

TAG = re.compile(r"[0-9A-Fa-f]{8}")
NUMBERS = frozenset({"FL", "FD", "SL", "SS", "SV", "UL", "US", "UV"})
NUMBERS_OR_TEXT = frozenset({"DS", "IS"})
BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
TEXT = frozenset("AE AS AT CS DA DT LO LT SH ST TM UC UI UR UT".split())
NAME_GROUPS = frozenset({"Alphabetic", "Ideographic", "Phonetic"})


def checked_dataset(
    dataset: object, max_depth: int, path: str = "", *, bulk_data: bool = False
) -> Dataset:
    """Return the data set in one form: tags in upper case and in order, empty values without Value.

    Raises Invalid naming the attribute that is malformed, has another VR than the dictionary
    says, refers to bulk data unless it may (PS3.18 §11.1.3), or lies deeper than `max_depth`
    sequences.
    """
    if not isinstance(dataset, Mapping):
        raise Invalid(f"{path or 'the data set'} is no DICOM JSON object")
    if max_depth < 0:
        raise Invalid(f"{path}: sequences are nested too deep")
    result: Dataset = {}
    for key, element in dataset.items():
        if not isinstance(key, str) or not TAG.fullmatch(key):
            raise Invalid(f"{path}{str(key)[:64]!r} is no tag of eight hexadecimal digits")
        tag = key.upper()
        if tag in result:
            raise Invalid(f"{path}{tag} is there twice")
        result[tag] = _element(element, tag, path + tag, max_depth, bulk_data)
    return dict(sorted(result.items()))


def _element(
    element: object, tag: str, path: str, max_depth: int, bulk_data: bool
) -> dict[str, Any]:
    if not isinstance(element, Mapping) or not isinstance(element.get("vr"), str):
        raise Invalid(f"{path} has no vr")
    vr = element["vr"]
    _check_vr(tag, vr, path)
    unknown = element.keys() - {"vr", "Value", "InlineBinary"}
    if bulk_data and unknown == {"BulkDataURI"} and len(element) == 2 and vr != "SQ":
        if not isinstance(element["BulkDataURI"], str) or not element["BulkDataURI"]:
            raise Invalid(f"{path}: BulkDataURI is no URI")
        return {"vr": vr, "BulkDataURI": element["BulkDataURI"]}
    if "BulkDataURI" in unknown:
        raise Invalid(f"{path} refers to bulk data, which does not come with it")
    if unknown or {"Value", "InlineBinary"} <= element.keys():
        raise Invalid(f"{path} has other parts than vr and one of Value or InlineBinary")
    if "InlineBinary" in element:
        return {"vr": vr, "InlineBinary": _inline_binary(element["InlineBinary"], vr, path)}
    values = element.get("Value", [])
    if not isinstance(values, list):
        raise Invalid(f"{path}: Value is no array")
    if vr == "SQ":
        values = [
            checked_dataset(
                {} if item is None else item, max_depth - 1, f"{path}.", bulk_data=bulk_data
            )
            for item in values
        ]
    else:
        for value in values:
            _check_value(value, vr, path)
        if all(value in (None, "", {}) for value in values):
            values = []
    return {"vr": vr, "Value": values} if values else {"vr": vr}


def _check_vr(tag: str, vr: str, path: str) -> None:
    try:
        known = dictionary_VR(int(tag, 16))
    except KeyError:
        known = ""
    if vr not in TEXT | NUMBERS | NUMBERS_OR_TEXT | BINARY | {"SQ", "PN"}:
        raise Invalid(f"{path}: {vr[:16]!r} is no value representation")
    if known and vr not in known.split(" or ") and vr != "UN":
        raise Invalid(f"{path} has the VR {known}, not {vr}")


def _check_value(value: object, vr: str, path: str) -> None:
    if value is None:
        return
    if vr in NUMBERS or (vr in NUMBERS_OR_TEXT and not isinstance(value, str)):
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    elif vr == "PN":
        fits = isinstance(value, Mapping) and all(
            group in NAME_GROUPS and isinstance(name, str) and "\x00" not in name
            for group, name in value.items()
        )
    else:
        fits = vr not in BINARY and isinstance(value, str) and "\x00" not in value
    if not fits:
        raise Invalid(f"{path}: a value is not of the VR {vr}")


def _inline_binary(value: object, vr: str, path: str) -> str:
    try:
        if not isinstance(value, str) or vr not in BINARY:
            raise ValueError
        base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        raise Invalid(f"{path}: InlineBinary is no base64 of a binary VR") from None
    return value


def first_value(dataset: Mapping[str, Any], tag: str) -> Any:
    """Return the first value of an attribute; None when it is missing or empty."""
    values = dataset.get(tag, {}).get("Value")
    return values[0] if values else None


def items_of(dataset: Mapping[str, Any], tag: str) -> list[Dataset]:
    """Return the items of a sequence; none when it is missing or empty."""
    return list(dataset.get(tag, {}).get("Value", []))
