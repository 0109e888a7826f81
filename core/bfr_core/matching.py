"""Matching: one key of a search becomes one condition (PS3.4 §C.2.2.2)."""

import datetime
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bfr_core import locator
from bfr_core.errors import Invalid
from bfr_core.instances import UID, parse_date, parse_time
from bfr_core.names import normalise

Kind = Literal["uid", "text", "name", "date", "time", "integer", "list"]
UID_MAX_CHARACTERS = 64
INTEGER = re.compile(r"[+-]?[0-9]{1,12}")
EMPTY_VALUE = '""'
NAME_DELIMITERS = re.compile(r"[\^=\s,]+|(?<![^\^=\s,])\*(?![^\^=\s,])")
OFFSET = re.compile(r"([+-])([0-9]{2})([0-5][0-9])")
ESCAPE = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_", "*": "%", "?": "_"})


@dataclass(frozen=True, slots=True)
class Match:
    """One matching key: an attribute and the values of which one must match."""

    tag: str  # "00100020"
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Semantics:
    """What a search has agreed on beside literal matching (PS3.4 §C.5.1)."""

    fuzzy_names: bool = False
    combined_moments: bool = False  # a date and its time are one moment
    empty_values: bool = False  # two quotation marks match what is empty (§C.2.2.2.7)
    timezone_offset: str = ""  # of the dates and times searched for: "+0100"; "": as stored

    @property
    def as_moments(self) -> bool:
        """Tell whether dates and times are matched together."""
        return self.combined_moments or bool(self.timezone_offset)


LITERAL = Semantics()


@dataclass(frozen=True, slots=True)
class Column:
    """Where an attribute is searched and how."""

    expression: str
    kind: Kind


class Conditions:
    """The conditions of one search with their parameters."""

    def __init__(self, semantics: Semantics = LITERAL) -> None:
        self.semantics = semantics
        self.parts: list[str] = []
        self.params: dict[str, object] = {}

    def param(self, value: object) -> str:
        """Return a placeholder for the value."""
        name = f"p{len(self.params)}"
        self.params[name] = value
        return f"%({name})s"

    def add(self, column: Column, match: Match) -> None:
        """Add the condition of one key; an empty key matches everything (§C.2.2.2.3).

        Spaces around a value mean nothing. Raises Invalid naming the attribute and the value.
        """
        values = [value for text in match.values if (value := text.strip())]
        if not values:
            return
        test = TESTS[column.kind]
        parts = [
            f"{column.expression} {EMPTY[column.kind]}"
            if self.semantics.empty_values and value == EMPTY_VALUE
            else test(self, column.expression, match.tag, value)
            for value in values
        ]
        self.parts.append("(" + " OR ".join(parts) + ")")

    def add_moment(
        self, date: Column, time: Column, timezone: str, day: Match | None, clock: Match | None
    ) -> bool:
        """Add the condition of a date and its time as one moment; tell whether there was one.

        There is none without a date, and none of several dates. Where an object tells its time
        zone, moments are compared in the zone of the search. Raises Invalid as `add` does.
        """
        days = [value.strip() for value in day.values if value.strip()] if day else []
        clocks = [value.strip() for value in clock.values if value.strip()] if clock else []
        if day is None or len(days) != 1 or len(clocks) > 1 or days[0] == "*":
            return False
        if not clocks and not self.semantics.timezone_offset:
            return False
        first_day, last_day = range_bounds(day.tag, days[0], "date", parse_date, None)
        first_time, last_time = (None, None)
        if clock is not None and clocks and clocks[0] != "*":
            first_time, last_time = range_bounds(
                clock.tag, clocks[0], "time", parse_time, end_of_time
            )
        stored = f"({date.expression} + COALESCE({time.expression}, '00:00'))"
        slack = datetime.timedelta()
        if self.semantics.timezone_offset:
            own = self.param(_offset(self.semantics.timezone_offset))
            stored += (
                f" - CASE WHEN {timezone} ~ '^[+-][0-9]{{4}}$'"
                f" THEN (left({timezone}, 3) || ':' || right({timezone}, 2))::interval"
                f" ELSE {own} END + {own}"
            )
            slack = datetime.timedelta(days=2)  # zones are at most 26 hours apart
        for bound, clock_bound, whole, operator, sign in (
            (first_day, first_time, datetime.time.min, ">=", -1),
            (last_day, last_time, datetime.time.max, "<=", 1),
        ):
            if bound is not None:
                moment = datetime.datetime.combine(bound, clock_bound or whole)
                self.parts.append(f"{stored} {operator} {self.param(moment)}")
                # Follows from it, and is what the index on dates answers.
                near = bound + sign * slack if _has_room(bound) else bound
                self.parts.append(f"{date.expression} {operator} {self.param(near)}")
        return True

    def add_instances(self, sop_instance_uids: Sequence[str]) -> None:
        """Add that a series has, or may have, one of the instances: the hash may collide."""
        uids = self.param(list(sop_instance_uids))
        keys = self.param(locator.search_keys(sop_instance_uids))
        self.parts.append(locator.SERIES_WITH_INSTANCES.format(uids=uids, keys=keys))

    def where(self) -> str:
        """Return all conditions as one expression."""
        return " AND ".join(self.parts) if self.parts else "true"


def has_wildcard(value: str) -> bool:
    """Tell whether the value asks for wildcard matching (§C.2.2.2.4)."""
    return "*" in value or "?" in value


def _text(conditions: Conditions, expression: str, tag: str, value: str) -> str:
    _refuse_nul(tag, value)
    if value == "*":
        return "true"
    if has_wildcard(value):
        return f"{expression} LIKE {conditions.param(value.translate(ESCAPE))}"
    return f"{expression} = {conditions.param(value)}"


def checked_uid(tag: str, value: str) -> str:
    """Return the UID. Raises Invalid naming the attribute when the value is none (PS3.5 §9.1)."""
    if len(value) > UID_MAX_CHARACTERS or not UID.fullmatch(value) or not value.isascii():
        raise Invalid(f"{tag}: {value!r} is no UID")
    return value


def parse_integer(tag: str, value: str) -> int:
    """Return the number. Raises Invalid naming the attribute when the value is none."""
    if not INTEGER.fullmatch(value):
        raise Invalid(f"{tag}: {value!r} is no integer")
    return int(value)


def _uid(conditions: Conditions, expression: str, tag: str, value: str) -> str:
    return f"{expression} = {conditions.param(checked_uid(tag, value))}"


def _name(conditions: Conditions, expression: str, tag: str, value: str) -> str:
    """Match the component groups that the value has; one without "=" is alphabetic (§6.2.1)."""
    _refuse_nul(tag, value)
    if conditions.semantics.fuzzy_names:
        return _fuzzy_name(conditions, expression, value)
    groups = [normalise(group.strip()).rstrip("^") for group in value.split("=")]
    parts = []
    for number, group in enumerate(groups[:3], 1):
        if group.strip("*") == "":
            continue
        pattern = conditions.param(group.translate(ESCAPE))
        stored = f"rtrim(split_part({expression}, '=', {number}), '^')"
        if has_wildcard(group):
            # Components that are not sent are empty: "A^*" also means a name of one component.
            parts.append(f"({stored} LIKE {pattern} OR {stored} || '^^^^' LIKE {pattern})")
        else:
            parts.append(f"{stored} = {conditions.param(group)}")
        if number == 1:
            # Needed by both, and what the index on the whole name answers.
            start = conditions.param(group.split("^", 1)[0].translate(ESCAPE) + "%")
            parts.append(f"{expression} LIKE {start}")
    return "(" + " AND ".join(parts) + ")" if parts else "true"


def _fuzzy_name(conditions: Conditions, expression: str, value: str) -> str:
    """Match when every word is in the name, or is much like a part of it, in any order."""
    words = [word for word in NAME_DELIMITERS.split(normalise(value)) if word]
    parts = []
    for word in words:
        pattern = conditions.param(f"%{word.translate(ESCAPE)}%")
        similar = f" OR {conditions.param(word)} <%% {expression}"
        parts.append(f"({expression} LIKE {pattern}{'' if has_wildcard(word) else similar})")
    return "(" + " AND ".join(parts) + ")" if parts else "true"


def _list(conditions: Conditions, expression: str, tag: str, value: str) -> str:
    _refuse_nul(tag, value)
    if value == "*":
        return "true"
    if has_wildcard(value):
        pattern = conditions.param(value.translate(ESCAPE))
        return f"EXISTS (SELECT FROM unnest({expression}) AS one WHERE one LIKE {pattern})"
    return f"{expression} @> ARRAY[{conditions.param(value)}]::text[]"


def _integer(conditions: Conditions, expression: str, tag: str, value: str) -> str:
    number = parse_integer(tag, value)
    if not -(2**31) <= number < 2**31:
        return "false"
    return f"{expression} = {conditions.param(number)}"


def _date(conditions: Conditions, expression: str, tag: str, value: str) -> str:
    return _range(conditions, expression, tag, value, "date", parse_date, None)


def _time(conditions: Conditions, expression: str, tag: str, value: str) -> str:
    return _range(conditions, expression, tag, value, "time", parse_time, end_of_time)


def _range(
    conditions: Conditions,
    expression: str,
    tag: str,
    value: str,
    noun: str,
    parse: Callable[[str], Any],
    end_of: Callable[[str, Any], Any] | None,
) -> str:
    bounds = [
        f"{expression} {operator} {conditions.param(bound)}"
        for bound, operator in zip(
            range_bounds(tag, value, noun, parse, end_of), (">=", "<="), strict=True
        )
        if bound is not None
    ]
    return "(" + " AND ".join(bounds) + ")"


def range_bounds(
    tag: str,
    value: str,
    noun: str,
    parse: Callable[[str], Any],
    end_of: Callable[[str, Any], Any] | None,
) -> tuple[Any, Any]:
    """Return the least and the greatest that a single value or a range names; None is open."""
    low_text, dash, high_text = value.partition("-")
    if not dash:
        high_text = low_text
    low, high = (_bound(tag, text.strip(), noun, parse) for text in (low_text, high_text))
    if low is None and high is None:
        raise Invalid(f"{tag}: {value!r} is no range of {noun}s")
    if high is not None and end_of is not None:
        high = end_of(high_text.strip(), high)
    return low, high


def _bound(tag: str, text: str, noun: str, parse: Callable[[str], Any]) -> Any:
    if not text:
        return None
    bound = parse(text)
    if bound is None:
        raise Invalid(f"{tag}: {text!r} is no {noun}")
    return bound


def _offset(text: str) -> datetime.timedelta:
    """Return a Timezone Offset From UTC (0008,0201). Raises Invalid."""
    match = OFFSET.fullmatch(text)
    if match is None:
        raise Invalid("00080201: the value is no offset from UTC")
    offset = datetime.timedelta(hours=int(match[2]), minutes=int(match[3]))
    return -offset if match[1] == "-" else offset


def _has_room(day: datetime.date) -> bool:
    """Tell whether there are days some days away."""
    return datetime.MINYEAR < day.year < datetime.MAXYEAR


def end_of_time(text: str, start: datetime.time) -> datetime.time:
    """Return the last moment that a time of lower precision names: "10" means until 10:59:59."""
    digits = text.replace(":", "")
    if "." in digits:
        return start
    if len(digits) <= 2:
        return start.replace(minute=59, second=59, microsecond=999999)
    if len(digits) <= 4:
        return start.replace(second=59, microsecond=999999)
    return start.replace(microsecond=999999)


def _refuse_nul(tag: str, value: str) -> None:
    if "\x00" in value:
        raise Invalid(f"{tag}: a value holds a NUL character")


TESTS: dict[Kind, Callable[[Conditions, str, str, str], str]] = {
    "uid": _uid,
    "text": _text,
    "name": _name,
    "date": _date,
    "time": _time,
    "integer": _integer,
    "list": _list,
}
EMPTY: dict[Kind, str] = {
    **dict.fromkeys(("uid", "text", "name"), "= ''"),
    **dict.fromkeys(("date", "time", "integer"), "IS NULL"),
    "list": "= '{}'",
}
