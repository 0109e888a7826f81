"""Matching keys become conditions of the database that mean what PS3.4 §C.2.2.2 says."""

import datetime
import re
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.dicomweb.conftest import new_settings

from bfr_core.errors import Invalid
from bfr_core.matching import Column, Conditions, Kind, Match, has_wildcard
from bfr_core.names import normalise
from bfr_core.postgres import Cluster
from bfr_core.store import Store, open_store

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = settings(max_examples=120, deadline=None)
SQL_TYPE: dict[Kind, str] = {
    "uid": "text",
    "text": "text",
    "name": "text",
    "date": "date",
    "time": "time",
    "integer": "integer",
    "list": "text[]",
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def database(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Store]:
    directory: Path = tmp_path_factory.mktemp("matching")
    with new_settings(cluster, directory) as chosen:
        async with open_store(chosen) as store:
            yield store


async def matching(store: Store, kind: Kind, rows: list[object], *values: str) -> list[int]:
    """The numbers of the rows that the key matches in PostgreSQL."""
    conditions = Conditions()
    conditions.add(Column("one.value", kind), Match("00100010", values))
    sql = f"""
        SELECT one.number FROM unnest(%(rows)s::{SQL_TYPE[kind]}[])
            WITH ORDINALITY AS one(value, number)
        WHERE {conditions.where()} ORDER BY one.number
    """
    async with store.database.transaction() as tx:
        found = await tx.tuples(sql, rows=rows, **conditions.params)
    return [number - 1 for (number,) in found]


# The model: what the standard says, in Python


def wildcard(pattern: str, value: str) -> bool:
    """§C.2.2.2.4: "*" is any sequence of characters, "?" is any one of them."""
    parts = {"*": ".*", "?": "."}
    expression = "".join(parts.get(letter) or re.escape(letter) for letter in pattern)
    return re.fullmatch(expression, value, re.DOTALL) is not None


def folded(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def text_matches(key: str, value: str) -> bool:
    key = key.strip()
    return key == "" or wildcard(key, value)


def name_matches(key: str, value: str) -> bool:
    """Each component group that the key has, without the empty components behind (PS3.5 §6.2)."""
    if key.strip() == "":
        return True
    groups = [*folded(value).split("="), "", ""]
    for asked, told in zip(folded(key.strip()).split("=")[:3], groups, strict=False):
        asked, told = asked.strip().rstrip("^"), told.rstrip("^")
        if asked.strip("*") == "":
            continue
        if not has_wildcard(asked):
            if asked != told:
                return False
        elif not any(wildcard(asked, told + empty) for empty in ("", "^^^^")):
            return False
    return True


DATES = st.dates(datetime.date(2020, 1, 1), datetime.date(2020, 3, 5))
TIMES = st.builds(
    datetime.time,
    st.integers(8, 10),
    st.integers(0, 59),
    st.integers(0, 59),
    st.integers(0, 999999),
)
LETTERS = st.sampled_from("aAbB _%\\.-")
TEXTS = st.text(LETTERS, max_size=5).map(str.strip)
KEYS = st.text(LETTERS | st.sampled_from("*?"), max_size=6)
NAME_LETTERS = st.sampled_from("aAåÄöÖéß^^=_%")
NAMES = st.text(NAME_LETTERS, max_size=8).map(lambda name: name.rstrip("="))
NAME_KEYS = st.text(NAME_LETTERS | st.sampled_from("*?"), max_size=8)


@pytest.mark.conforms("PS3.4 §C.2.2.2.4", "Wild card matching of text")
@EXAMPLES
@example(rows=["a\\b"], key="a\\*")
@example(rows=["a_b", "axb"], key="a_*")
@example(rows=["a%b", "axb"], key="a%?")
@given(rows=st.lists(TEXTS, min_size=1, max_size=8), key=KEYS)
async def test_text_matches_as_the_standard_says(
    database: Store, rows: list[str], key: str
) -> None:
    expected = [number for number, value in enumerate(rows) if text_matches(key, value)]
    assert await matching(database, "text", list(rows), key) == expected


@pytest.mark.conforms("PS3.4 §C.2.2.2.4", "Wild card matching of values of several")
@EXAMPLES
@given(rows=st.lists(st.lists(TEXTS.filter(bool), max_size=3), min_size=1, max_size=6), key=KEYS)
async def test_a_list_matches_when_one_of_its_values_does(
    database: Store, rows: list[list[str]], key: str
) -> None:
    conditions = Conditions()
    conditions.add(Column("one.value", "list"), Match("00080061", (key,)))
    found = []
    async with database.database.transaction() as tx:
        for number, row in enumerate(rows):
            one = "(SELECT %(row)s::text[]) AS one(value)"
            sql = f"SELECT true FROM {one} WHERE {conditions.where()}"
            if await tx.value(sql, row=row, **conditions.params):
                found.append(number)
    expected = [
        number
        for number, row in enumerate(rows)
        if key.strip() in ("", "*") or any(text_matches(key, value) for value in row)
    ]
    assert found == expected


@pytest.mark.conforms("PS3.4 §C.2.2.2.1", "Names match without case and accents, group by group")
@EXAMPLES
@example(rows=["a", "a^b", "a^^c"], key="a^*")
@example(rows=["a^b=c^d"], key="a^b=c*")
@example(rows=["a^b=c^d"], key="a^b")
@example(rows=["ab"], key="a?")
@given(rows=st.lists(NAMES, min_size=1, max_size=8), key=NAME_KEYS)
async def test_names_match_as_the_standard_says(database: Store, rows: list[str], key: str) -> None:
    expected = [number for number, value in enumerate(rows) if name_matches(key, value)]
    found = await matching(database, "name", [normalise(value) for value in rows], key)
    assert found == expected


@pytest.mark.conforms("PS3.4 §C.2.2.2.5.1", "Range matching of dates")
@EXAMPLES
@given(
    rows=st.lists(st.none() | DATES, min_size=1, max_size=8),
    low=st.none() | DATES,
    high=st.none() | DATES,
    single=st.booleans(),
)
async def test_dates_match_as_the_standard_says(
    database: Store,
    rows: list[datetime.date | None],
    low: datetime.date | None,
    high: datetime.date | None,
    single: bool,
) -> None:
    if single or (low is None and high is None):
        low = high = low or high or datetime.date(2020, 2, 1)
        key = low.strftime("%Y%m%d")
    else:
        key = "-".join("" if one is None else one.strftime("%Y%m%d") for one in (low, high))
    expected = [
        number
        for number, value in enumerate(rows)
        if value is not None and (low is None or low <= value) and (high is None or value <= high)
    ]
    assert await matching(database, "date", list(rows), key) == expected


@pytest.mark.conforms("PS3.4 §C.2.2.2.5.2", "Range matching of times")
@EXAMPLES
@given(
    rows=st.lists(st.none() | TIMES, min_size=1, max_size=8),
    low=TIMES,
    high=TIMES,
    digits=st.sampled_from([2, 4, 6]),
)
async def test_times_match_to_the_precision_that_is_given(
    database: Store,
    rows: list[datetime.time | None],
    low: datetime.time,
    high: datetime.time,
    digits: int,
) -> None:
    start, end = (one.strftime("%H%M%S")[:digits] for one in (low, high))
    expected = [
        number
        for number, value in enumerate(rows)
        if value is not None and start <= value.strftime("%H%M%S")[:digits] <= end
    ]
    assert await matching(database, "time", list(rows), f"{start}-{end}") == expected
    exact = [
        number
        for number, value in enumerate(rows)
        if value is not None and value.strftime("%H%M%S")[:digits] == start
    ]
    assert await matching(database, "time", list(rows), start) == exact


@EXAMPLES
@given(rows=st.lists(st.integers(-3, 3), min_size=1, max_size=6), key=st.integers(-4, 4))
async def test_numbers_match_by_value(database: Store, rows: list[int], key: int) -> None:
    expected = [number for number, value in enumerate(rows) if value == key]
    assert await matching(database, "integer", list(rows), f"{key:+04d}") == expected


@pytest.mark.conforms("PS3.4 §C.2.2.2.2", "A list of UIDs matches each of them")
async def test_one_of_several_values_is_enough(database: Store) -> None:
    rows: list[object] = ["1.2", "1.3", "1.4"]
    assert await matching(database, "uid", rows, "1.4", "1.2", "") == [0, 2]
    assert await matching(database, "uid", rows, "", "") == [0, 1, 2]
    assert await matching(database, "uid", rows) == [0, 1, 2]


@given(
    kind=st.sampled_from(sorted(SQL_TYPE)),
    value=st.text(max_size=12) | st.from_regex(r"[-0-9:.]{0,12}", fullmatch=True),
)
@settings(max_examples=200, deadline=None)
async def test_any_value_is_a_condition_or_is_named_as_invalid(
    database: Store, kind: Kind, value: str
) -> None:
    conditions = Conditions()
    try:
        conditions.add(Column(f"NULL::{SQL_TYPE[kind]}", kind), Match("00100010", (value,)))
    except Invalid as error:
        # pytest.raises would ask for an error of every value.
        named = error.message
    else:
        named = "00100010"
        async with database.database.transaction() as tx:
            await tx.value(f"SELECT {conditions.where()}", **conditions.params)
    assert named.startswith("00100010")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("uid", "1.2.*"),
        ("uid", "1..2"),
        ("uid", "1" * 65),
        ("uid", "١.٢"),
        ("date", "2024"),
        ("date", "20240230"),
        ("date", "-"),
        ("time", "24"),
        ("time", "1"),
        ("integer", "1.0"),
        ("integer", "x"),
        ("integer", "9" * 5000),
        ("text", "a\0"),
        ("name", "a\0"),
        ("list", "a\0"),
    ],
)
async def test_a_bad_value_is_named(kind: Kind, value: str) -> None:
    with pytest.raises(Invalid, match="00100010"):
        Conditions().add(Column("x", kind), Match("00100010", (value,)))
