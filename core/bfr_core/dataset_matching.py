"""Matching of data sets: does one have what a key names, and what of it is answered (PS3.4 §C.2.2).

For what is kept as a whole, such as worklist items: there any attribute can be a key.
"""

import datetime
import re
from collections.abc import Callable, Sequence
from typing import Any

from pydicom.datadict import dictionary_VR

from bfr_core.errors import Invalid
from bfr_core.instances import Dataset, parse_date, parse_time
from bfr_core.matching import (
    EMPTY_VALUE,
    Match,
    Semantics,
    end_of_time,
    has_wildcard,
    range_bounds,
)
from bfr_core.names import normalise

NO_KEYS = frozenset({"00080005", "00080201"})  # character set and time zone of the query itself
# dcmjs-dimse sends Pregnancy Status 0 where it means none, and nobody searches by it.
NOT_MATCHED = NO_KEYS | {"001021C0"}
# Dates and times that are one moment when a range of both is asked for (PS3.4 §K.6.1.2.2).
MOMENTS = {"00400002": "00400003", "00400004": "00400005"}

Element = dict[str, Any]


def matches(dataset: Dataset, keys: Dataset) -> bool:
    """Tell whether the data set has what each of the keys names; an empty key names nothing.

    Raises Invalid naming the key whose value is none of its kind.
    """
    moments = {tag: other for tag, other in MOMENTS.items() if _is_range(keys, tag, other)}
    for tag, key in keys.items():
        if tag in NOT_MATCHED or tag in moments or tag in moments.values():
            continue
        if not _element_matches(tag, dataset.get(tag, {}), key):
            return False
    return all(_moment_matches(dataset, keys, day, clock) for day, clock in moments.items())


def header_keys(searched: Sequence[Match], semantics: Semantics) -> tuple[Dataset, list[str]]:
    """Return the keys as a data set, those in sequences as items, and the paths to be empty."""
    keys: Dataset = {}
    empty = []
    for match in searched:
        if semantics.empty_values and match.values == (EMPTY_VALUE,):
            empty.append(match.tag)
            continue
        *sequences, tag = match.tag.split(".")
        place = keys
        for step in sequences:
            place = place.setdefault(step, {"vr": "SQ", "Value": [{}]})["Value"][0]
        place[tag] = {"vr": _vr_of(tag), "Value": list(match.values)}
    return keys, empty


def are_empty(dataset: Dataset, paths: Sequence[str]) -> bool:
    """Tell whether none of the paths leads to a value."""
    for path in paths:
        tag, _, rest = path.partition(".")
        values = dataset.get(tag, {}).get("Value") or []
        if any(not are_empty(item, [rest]) for item in values) if rest else any(values):
            return False
    return True


def _vr_of(tag: str) -> str:
    try:
        return dictionary_VR(int(tag, 16))[:2]
    except KeyError:
        return "UN"


def answer(dataset: Dataset, keys: Dataset) -> Dataset:
    """Return what the keys ask for: each with its value here, or empty.

    Of a sequence the attributes of the key's item; all when that is empty.
    """
    result: Dataset = {}
    for tag, key in keys.items():
        if tag in NO_KEYS:
            continue
        found = dataset.get(tag) or {"vr": key["vr"]}
        wanted = (_items(key) or [{}])[0]
        if key["vr"] == "SQ" and wanted:
            items = [answer(item, wanted) for item in _items(found)]
            found = {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
        result[tag] = found
    return result


def _element_matches(tag: str, element: Element, key: Element) -> bool:
    if key["vr"] == "SQ":
        wanted = (_items(key) or [{}])[0]
        if not any(_has_value(inner) for inner in wanted.values()):
            return True
        return any(matches(item, wanted) for item in _items(element))
    wanted_values = [value for value in values_of(key) if value]
    if not wanted_values:
        return True
    held = values_of(element)
    test = TESTS.get(str(key["vr"]), _text_matches)
    return any(test(tag, wanted, held) for wanted in wanted_values)


def _has_value(key: Element) -> bool:
    if key["vr"] == "SQ":
        return any(_has_value(inner) for item in _items(key) for inner in item.values())
    return any(values_of(key))


def _text_matches(tag: str, wanted: str, held: Sequence[str]) -> bool:
    if wanted.strip("*") == "":
        return True
    if has_wildcard(wanted):
        pattern = _pattern(wanted)
        return any(pattern.fullmatch(value) for value in held)
    return wanted in held


def _name_matches(tag: str, wanted: str, held: Sequence[str]) -> bool:
    """Match the component groups that the key has, without case and accents."""
    groups = [normalise(group.strip()).rstrip("^") for group in wanted.split("=")]
    for value in held:
        stored = [normalise(group.strip()).rstrip("^") for group in value.split("=")]
        stored += [""] * (len(groups) - len(stored))
        if all(map(_group_matches, groups, stored)):
            return True
    return all(group.strip("*") == "" for group in groups)


def _group_matches(wanted: str, stored: str) -> bool:
    if wanted.strip("*") == "":
        return True
    if not has_wildcard(wanted):
        return wanted == stored
    pattern = _pattern(wanted)
    # Components that are not sent are empty: "A^*" also means a name of one component.
    return any(pattern.fullmatch(one) is not None for one in (stored, stored + "^^^^"))


def _uid_matches(tag: str, wanted: str, held: Sequence[str]) -> bool:
    return wanted in held


def _number_matches(tag: str, wanted: str, held: Sequence[str]) -> bool:
    try:
        number = float(wanted)
    except ValueError:
        raise Invalid(f"{tag}: {wanted!r} is no number") from None
    return any(_number(value) == number for value in held)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _date_matches(tag: str, wanted: str, held: Sequence[str]) -> bool:
    if wanted == "*":
        return True
    low, high = range_bounds(tag, wanted, "date", parse_date, None)
    return _within(low, high, [parse_date(value) for value in held])


def _time_matches(tag: str, wanted: str, held: Sequence[str]) -> bool:
    if wanted == "*":
        return True
    low, high = range_bounds(tag, wanted, "time", parse_time, end_of_time)
    return _within(low, high, [parse_time(value) for value in held])


def _within(low: Any, high: Any, held: Sequence[Any]) -> bool:
    return any(
        (low is None or value >= low) and (high is None or value <= high)
        for value in held
        if value is not None
    )


def _is_range(keys: Dataset, day: str, clock: str) -> bool:
    return all(any("-" in value for value in values_of(keys.get(tag, {}))) for tag in (day, clock))


def _moment_matches(dataset: Dataset, keys: Dataset, day: str, clock: str) -> bool:
    [wanted_day, *_], [wanted_clock, *_] = values_of(keys[day]), values_of(keys[clock])
    first_day, last_day = range_bounds(day, wanted_day, "date", parse_date, None)
    first_time, last_time = range_bounds(clock, wanted_clock, "time", parse_time, end_of_time)
    held_days = [parse_date(value) for value in values_of(dataset.get(day, {}))]
    held_times = [parse_time(value) for value in values_of(dataset.get(clock, {}))]
    if not held_days or held_days[0] is None:
        return False
    moment = datetime.datetime.combine(
        held_days[0], (held_times[0] if held_times else None) or datetime.time.min
    )
    low = _combined(first_day, first_time or datetime.time.min)
    high = _combined(last_day, last_time or datetime.time.max)
    return _within(low, high, [moment])


def _combined(day: datetime.date | None, clock: datetime.time) -> datetime.datetime | None:
    return None if day is None else datetime.datetime.combine(day, clock)


def values_of(element: Element) -> list[str]:
    """Return the values as text, a person name with its groups joined by "="."""
    return [_text(value) for value in element.get("Value") or []]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        groups = ("Alphabetic", "Ideographic", "Phonetic")
        return "=".join(str(value.get(group, "")) for group in groups).rstrip("=")
    return "" if value is None else str(value).strip()


def _items(element: Element) -> list[Dataset]:
    return [item for item in element.get("Value") or [] if isinstance(item, dict)]


def _pattern(wanted: str) -> "re.Pattern[str]":
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in wanted)
    return re.compile("".join(parts), re.DOTALL)


TESTS: dict[str, Callable[[str, str, Sequence[str]], bool]] = {
    "DA": _date_matches,
    "TM": _time_matches,
    "PN": _name_matches,
    "UI": _uid_matches,
    **dict.fromkeys(("DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"), _number_matches),
}
