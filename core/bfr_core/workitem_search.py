"""Workitem search: any attribute at any depth, matched in one form (PS3.4 §C.2.2.2, §CC.2.8)."""

import calendar
import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from pydicom.datadict import dictionary_VR

from bfr_core.errors import Invalid
from bfr_core.instances import TIMEZONE_OFFSET, Dataset
from bfr_core.json_model import TAG, first_value
from bfr_core.matching import ESCAPE, Conditions, Match, has_wildcard
from bfr_core.names import normalise
from bfr_core.workitem_attributes import TRANSACTION_UID

# PS3.5 §6.2: each component but the year may be missing. An offset is at most fourteen hours, so
# that "2026-2027" is a range.
_OFFSET = r"[+-](?:0\d|1[0-4])[0-5]\d"
OFFSET = re.compile(_OFFSET)
UTC = "+0000"
DATE_TIME = re.compile(rf"(\d{{4}}(?:\d\d){{0,5}})(?:\.(\d{{1,6}}))?({_OFFSET})?")
DATE_TIME_RANGE = re.compile(
    rf"(\d{{4,14}}(?:\.\d{{1,6}})?(?:{_OFFSET})?)?-(\d{{4,14}}(?:\.\d{{1,6}})?(?:{_OFFSET})?)?"
)
TIME = re.compile(r"(\d\d(?:\d\d){0,2})(?:\.(\d{1,6}))?")
FIRST, LAST = "00010101000000", "99991231235959"
DEPTH_MAX = 8


def matchable(dataset: Dataset, offset: str = UTC) -> dict[str, list[Any]]:
    """Return the values of the data set in the form that they are compared in.

    Names without case and accents, a value per group; dates and times as digits of one length,
    date-times in UTC: without an offset of their own they have that of the data set (0008,0201).
    """
    own = str(first_value(dataset, TIMEZONE_OFFSET) or offset)
    if not OFFSET.fullmatch(own):
        own = UTC
    return {
        tag: _matchable_values(element["vr"], element.get("Value", []), own)
        for tag, element in dataset.items()
    }


def _matchable_values(vr: str, values: Sequence[Any], offset: str) -> list[Any]:
    if vr == "SQ":
        return [matchable(item, offset) for item in values]
    if vr == "PN":
        return [_name(group) for value in values if value for group in value.values() if group]
    return [_comparable(vr, value, offset) for value in values if value is not None]


def _comparable(vr: str, value: object, offset: str) -> str:
    text = str(value).strip()
    if vr in ("DA", "TM", "DT"):
        try:
            return _moments(vr, text, offset)[0]
        except ValueError:
            return text
    return text


def _name(group: str) -> str:
    return normalise(group.strip()).rstrip("^")


def _moments(vr: str, text: str, offset: str = UTC) -> tuple[str, str]:
    """Return the first and the last moment that a value names. Raises ValueError for none."""
    if vr == "DA":
        datetime.datetime.strptime(text, "%Y%m%d")
        if len(text) != 8:
            raise ValueError
        return text, text
    if vr == "TM":
        match = TIME.fullmatch(text)
        if match is None:
            raise ValueError
        digits, fraction = match[1], match[2] or ""
        datetime.datetime.strptime(digits.ljust(6, "0"), "%H%M%S")
        return (
            digits.ljust(6, "0") + fraction.ljust(6, "0"),
            digits + "235959"[len(digits) :] + (fraction or "999999").ljust(6, "9"),
        )
    match = DATE_TIME.fullmatch(text)
    if match is None:
        raise ValueError
    digits, fraction = match[1], match[2] or ""
    zone = datetime.datetime.strptime(match[3] or offset, "%z").tzinfo
    first = datetime.datetime.strptime(
        (digits + FIRST[len(digits) :]) + fraction.ljust(6, "0"), "%Y%m%d%H%M%S%f"
    )
    last_digits = digits + LAST[len(digits) :]
    if len(digits) == 6:
        last_digits = f"{digits}{calendar.monthrange(first.year, first.month)[1]}{LAST[8:]}"
    last = datetime.datetime.strptime(
        last_digits + (fraction or "999999").ljust(6, "9"), "%Y%m%d%H%M%S%f"
    )
    return _utc(first, zone), _utc(last, zone)


def _utc(moment: datetime.datetime, zone: datetime.tzinfo | None) -> str:
    try:
        moment = moment.replace(tzinfo=zone).astimezone(datetime.UTC)
    except OverflowError:
        raise ValueError from None
    return moment.strftime("%Y").rjust(4, "0") + moment.strftime("%m%d%H%M%S%f")


def conditions_of(matches: Sequence[Match], column: str = "workitem.matchable") -> Conditions:
    """Return the conditions on a row under which its `matchable` values match every key.

    Keys of one sequence must match in one item of it (PS3.4 §C.2.2.2.6).
    Raises Invalid naming the key with a value that its VR cannot have.
    """
    tree: dict[str, Any] = {}
    for match in matches:
        steps = match.tag.split(".")
        if not all(TAG.fullmatch(one) for one in steps):
            raise Invalid(f"{match.tag[:64]!r} is no attribute")
        if steps[-1] == TRANSACTION_UID:
            raise Invalid(f"{match.tag} is a lock and no search key")
        if len(steps) > DEPTH_MAX:
            raise Invalid(f"{match.tag} is too deep for a search key")
        values = [value for text in match.values if (value := text.strip())]
        if any("\x00" in value for value in values):
            raise Invalid(f"{match.tag}: a value holds a NUL character")
        if not values:
            continue  # matches everything (§C.2.2.2.3)
        place = tree
        for step in steps[:-1]:
            place = place.setdefault(step, {})
            if not isinstance(place, dict):
                raise Invalid(f"{match.tag}: {step} is asked for itself and for what is in it")
        if steps[-1] in place or _vr(steps[-1]) == "SQ":
            raise Invalid(f"{match.tag} is asked for twice, or is a sequence")
        place[steps[-1]] = values
    conditions = Conditions()
    conditions.parts += _tests(conditions, column, tree, 0)
    return conditions


def _tests(
    conditions: Conditions, expression: str, tree: Mapping[str, Any], depth: int
) -> list[str]:
    parts = []
    exact = _exact(tree)
    if exact and depth == 0:
        # What the index answers; the rest is tested on what it leaves.
        parts.append(f"{expression} @> {conditions.param(orjson.dumps(exact).decode())}::jsonb")
    for tag, inner in tree.items():
        place = f"{expression} -> '{tag}'"
        if isinstance(inner, dict):
            item = f"item{depth}"
            tests = " AND ".join(_tests(conditions, item, inner, depth + 1)) or "true"
            parts.append(
                f"EXISTS (SELECT FROM jsonb_array_elements({place}) AS {item} WHERE {tests})"
            )
        else:
            tests = " OR ".join(_test(conditions, tag, value) for value in inner)
            parts.append(
                f"EXISTS (SELECT FROM jsonb_array_elements_text({place}) AS one WHERE {tests})"
            )
    return parts


def _exact(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the keys that is containment: one value each, no range, no wildcard."""
    result: dict[str, Any] = {}
    for tag, inner in tree.items():
        if isinstance(inner, dict):
            if item := _exact(inner):
                result[tag] = [item]
        elif len(inner) == 1 and _vr(tag) not in ("DA", "TM", "DT", "PN"):
            if not has_wildcard(inner[0]):
                result[tag] = [inner[0]]
    return result


def _test(conditions: Conditions, tag: str, value: str) -> str:
    """Return the condition that the text `one` of an attribute matches the value."""
    vr = _vr(tag)
    if vr in ("DA", "TM", "DT"):
        return _range(conditions, vr, tag, value)
    if vr == "PN":
        parts = []
        for group in value.split("="):
            pattern = conditions.param(_name(group).translate(ESCAPE))
            # Components that are not sent are empty: "A^*" also means a name of one component.
            parts.append(f"(one LIKE {pattern} OR one || '^^^^' LIKE {pattern})")
        return "(" + " OR ".join(parts) + ")"
    if has_wildcard(value) and vr not in ("UI", "IS", "DS"):
        return f"one LIKE {conditions.param(value.translate(ESCAPE))}"
    return f"one = {conditions.param(value)}"


def _range(conditions: Conditions, vr: str, tag: str, value: str) -> str:
    low, high = value, value
    if vr == "DT":
        if DATE_TIME.fullmatch(value) is None and (match := DATE_TIME_RANGE.fullmatch(value)):
            low, high = match[1] or "", match[2] or ""
    elif "-" in value:
        low, _, high = value.partition("-")
    bounds = []
    try:
        if low.strip():
            bounds.append(f'one COLLATE "C" >= {conditions.param(_moments(vr, low.strip())[0])}')
        if high.strip():
            bounds.append(f'one COLLATE "C" <= {conditions.param(_moments(vr, high.strip())[1])}')
    except ValueError:
        raise Invalid(f"{tag}: {value[:64]!r} is no value or range of the VR {vr}") from None
    if not bounds:
        raise Invalid(f"{tag}: {value[:64]!r} is no value or range of the VR {vr}")
    return "(" + " AND ".join(bounds) + ")"


def _vr(tag: str) -> str:
    try:
        return dictionary_VR(int(tag, 16))
    except KeyError:
        return "LO"
