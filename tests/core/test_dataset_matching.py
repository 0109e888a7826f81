"""Matching of whole data sets: every attribute can be a key (PS3.4 §C.2.2.2, §K.6.1.2.2)."""

import datetime
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfr_core.dataset_matching import answer, matches
from bfr_core.errors import Invalid

Dataset = dict[str, Any]

TEXT = st.text("ab*?. ", max_size=6).map(str.strip)
PLAIN = st.text("abcåÄ", min_size=1, max_size=6)
TAGS = ["00080050", "00100020", "00321060"]


def element(vr: str, *values: object) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def sequence(*items: Dataset) -> dict[str, Any]:
    return {"vr": "SQ", "Value": list(items)}


datasets = st.recursive(
    st.dictionaries(st.sampled_from(TAGS), PLAIN.map(lambda value: element("LO", value))),
    lambda inner: st.builds(
        lambda flat, items: {**flat, "00400100": sequence(*items)},
        st.dictionaries(st.sampled_from(TAGS), PLAIN.map(lambda value: element("LO", value))),
        st.lists(inner, min_size=1, max_size=2),
    ),
    max_leaves=4,
)


def first_items(dataset: Dataset) -> Dataset:
    """The data set as keys: of each sequence one item."""
    return {
        tag: sequence(first_items(one["Value"][0])) if one["vr"] == "SQ" else one
        for tag, one in dataset.items()
    }


def emptied(keys: Dataset) -> Dataset:
    """The keys without their values."""
    return {
        tag: sequence(emptied(one["Value"][0])) if one["vr"] == "SQ" else {"vr": one["vr"]}
        for tag, one in keys.items()
    }


@given(datasets)
def test_a_data_set_matches_what_it_holds(dataset: Dataset) -> None:
    keys = first_items(dataset)
    assert matches(dataset, keys)
    assert matches(dataset, emptied(keys))


@given(datasets, datasets)
def test_empty_keys_match_everything_and_are_answered(dataset: Dataset, other: Dataset) -> None:
    keys = emptied(first_items(other))
    assert matches(dataset, keys)
    assert answer(dataset, keys).keys() == keys.keys()


@given(TEXT, TEXT)
def test_wild_cards_of_text(wanted: str, held: str) -> None:
    pattern = "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in wanted)
    expected = not wanted or wanted.strip("*") == "" or bool(re.fullmatch(pattern, held))
    assert matches({"00080050": element("LO", held)}, {"00080050": element("LO", wanted)}) == (
        expected
    )


days = st.dates(datetime.date(2020, 1, 1), datetime.date(2020, 3, 1))


@given(days, days, days)
def test_a_range_of_dates_holds_what_lies_in_it(
    low: datetime.date, high: datetime.date, held: datetime.date
) -> None:
    dataset = {"00080020": element("DA", f"{held:%Y%m%d}")}
    keys = {"00080020": element("DA", f"{low:%Y%m%d}-{high:%Y%m%d}")}
    assert matches(dataset, keys) == (low <= held <= high)


@pytest.mark.parametrize(
    ("vr", "held", "wanted", "expected"),
    [
        ("PN", {"Alphabetic": "Öberg^Åsa"}, {"Alphabetic": "oberg^asa"}, True),
        ("PN", {"Alphabetic": "Öberg"}, {"Alphabetic": "oberg^*"}, True),
        ("PN", {"Alphabetic": "A", "Ideographic": "山"}, {"Ideographic": "山"}, True),
        ("PN", {"Alphabetic": "A"}, {"Ideographic": "山"}, False),
        ("IS", "7", "07", True),
        ("DS", "1.50", "1.5", True),
        ("UI", "1.2", "1.2", True),
        ("UI", "1.2.3", "1.2", False),
        ("TM", "101530", "1015", True),
        ("TM", "101530", "1000-1015", True),
        ("TM", "101630", "1000-1015", False),
        ("CS", "CT", "ct", False),
    ],
)
def test_values_match_by_their_kind(vr: str, held: Any, wanted: Any, *, expected: bool) -> None:
    keys = {"00080050": element(vr, wanted)}
    assert matches({"00080050": element(vr, held)}, keys) == expected
    assert not matches({}, keys)


@pytest.mark.parametrize(("vr", "value"), [("DA", "soon"), ("TM", "late"), ("IS", "many")])
def test_a_value_that_is_none_of_its_kind_is_named(vr: str, value: str) -> None:
    with pytest.raises(Invalid, match="00080050"):
        matches({}, {"00080050": element(vr, value)})


def test_several_values_of_a_key_are_alternatives() -> None:
    keys = {"00080050": element("CS", "CT", "MR")}
    assert matches({"00080050": element("CS", "MR")}, keys)
    assert not matches({"00080050": element("CS", "US")}, keys)


def test_of_a_sequence_all_is_answered_when_its_item_is_empty() -> None:
    dataset = {"00400100": sequence({"00080050": element("LO", "a")})}
    assert answer(dataset, {"00400100": {"vr": "SQ"}}) == dataset
    assert answer({}, {"00400100": {"vr": "SQ"}}) == {"00400100": {"vr": "SQ"}}
