"""Matching: one key of a search becomes one condition (PS3.4 §C.2.2.2)."""

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from bfr_core.errors import Invalid
from bfr_core.instances import UID, parse_date, parse_time
from bfr_core.names import normalise

Kind = Literal["uid", "text", "name", "date", "time", "integer", "list"]
UID_MAX_CHARACTERS = 64
INTEGER = re.compile(r"[+-]?[0-9]{1,12}")
ESCAPE = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_", "*": "%", "?": "_"})


@dataclass(frozen=True, slots=True)
class Match:
    """One matching key: an attribute and the values of which one must match."""

    tag: str  # "00100020"
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """Where an attribute is searched and how."""

    expression: str
    kind: Kind


class Conditions:
    """The conditions of one search with their parameters."""

    def __init__(self) -> None:
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
        parts = [test(self, column.expression, match.tag, value) for value in values]
        self.parts.append("(" + " OR ".join(parts) + ")")

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
    return _range(conditions, expression, tag, value, "time", parse_time, _end_of_time)


def _range(
    conditions: Conditions,
    expression: str,
    tag: str,
    value: str,
    noun: str,
    parse: Callable[[str], Any],
    end_of: Callable[[str, Any], Any] | None,
) -> str:
    low_text, dash, high_text = value.partition("-")
    if not dash:
        high_text = low_text
    bounds = []
    for text, operator in ((low_text.strip(), ">="), (high_text.strip(), "<=")):
        if not text:
            continue
        bound = parse(text)
        if bound is None:
            raise Invalid(f"{tag}: {text!r} is no {noun}")
        if operator == "<=" and end_of is not None:
            bound = end_of(text, bound)
        bounds.append(f"{expression} {operator} {conditions.param(bound)}")
    if not bounds:
        raise Invalid(f"{tag}: {value!r} is no range of {noun}s")
    return "(" + " AND ".join(bounds) + ")"


def _end_of_time(text: str, start: datetime.time) -> datetime.time:
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
