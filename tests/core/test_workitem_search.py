"""Workitem search: what is compared, and within which bounds."""

import contextlib
import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfr_core.errors import Invalid
from bfr_core.matching import Match
from bfr_core.workitem_search import conditions_of, matchable

START = "00404005"
BIRTH_TIME = "00100032"
zones = st.integers(-12 * 60, 14 * 60).map(
    lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes))
)
moments = st.datetimes(
    datetime.datetime(1900, 1, 1), datetime.datetime(2199, 12, 31), timezones=zones
)


def compared(tag: str, vr: str, value: str) -> str:
    (text,) = matchable({tag: {"vr": vr, "Value": [value]}})[tag]
    return str(text)


def bounds(tag: str, value: str) -> list[str]:
    return [str(one) for one in conditions_of([Match(tag, (value,))]).params.values()]


@pytest.mark.conforms("PS3.4 §C.2.2.2.5", "A date-time of less precision is all that it names")
@given(moments, st.sampled_from([4, 6, 8, 10, 12, 14]))
def test_a_moment_is_within_each_of_its_shorter_forms(
    moment: datetime.datetime, digits: int
) -> None:
    offset = moment.strftime("%z")[:5]
    text = moment.strftime("%Y%m%d%H%M%S.%f")
    low, high = bounds(START, text[:digits] + offset)
    assert low <= compared(START, "DT", text + offset) <= high


@given(moments, moments)
def test_date_times_are_compared_as_moments(
    one: datetime.datetime, other: datetime.datetime
) -> None:
    def text(moment: datetime.datetime) -> str:
        return compared(START, "DT", moment.strftime("%Y%m%d%H%M%S.%f%z")[:26])

    assert (text(one) < text(other)) == (one < other)


@given(st.times(), st.sampled_from([2, 4, 6]))
def test_a_time_is_within_each_of_its_shorter_forms(time: datetime.time, digits: int) -> None:
    text = time.strftime("%H%M%S.%f")
    low, high = bounds(BIRTH_TIME, text[:digits])
    assert low <= compared(BIRTH_TIME, "TM", text) <= high


@given(st.text(max_size=40))
def test_any_text_is_a_range_or_is_refused(text: str) -> None:
    for tag in (START, BIRTH_TIME, "00100030"):
        try:
            found = bounds(tag, text)
        except Invalid:
            continue
        assert len(found) <= 2


@pytest.mark.parametrize("value", ["999912", "9999", "0001", "00010101+1400", "9999-0100"])
def test_the_ends_of_time_are_values_or_refused(value: str) -> None:
    compared(START, "DT", value)
    with contextlib.suppress(Invalid):
        assert bounds(START, value)[0] <= bounds(START, value)[-1]


@pytest.mark.parametrize(
    ("value", "count"),
    [("2026-2027", 2), ("2026-", 1), ("-2027", 1), ("2026-1100", 2), ("2026+0100-2027+0100", 2)],
)
def test_a_range_is_told_from_an_offset(value: str, count: int) -> None:
    assert len(bounds(START, value)) == count
