"""What the index keeps of an object fits its columns, whatever the object says."""

import datetime
import itertools
from typing import Any

import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bfr_core import instances
from bfr_core.errors import Invalid
from bfr_core.instances import (
    INDEXED_MAX_CHARACTERS,
    InstanceAttributes,
    parse_date,
    parse_time,
    person_name,
    read_attributes,
    text,
)
from bfr_core.names import normalise
from bfr_core.postgres import Cluster

TAGS = sorted(
    value
    for name, value in vars(instances).items()
    if name.isupper() and len(str(value)) == 8 and isinstance(value, str)
)
UIDS = {
    instances.SOP_CLASS_UID: "1.2.840.10008.5.1.4.1.1.2",
    instances.SOP_INSTANCE_UID: "1.2.3.1",
    instances.STUDY_INSTANCE_UID: "1.2.3",
    instances.SERIES_INSTANCE_UID: "1.2.3.4",
}
odd_text = st.text(st.characters(), max_size=40) | st.sampled_from(
    [
        "\x00",
        "1.2\x003",
        "\ud800",
        "9" * 70,
        "1" + ".2" * 40,
        "9" * 5000,
        "20240230",
        "٣",
        "ﷺ" * 300,
    ]
)
odd_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | odd_text,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["Alphabetic", "Phonetic", "00080050"]), inner, max_size=2
        )
    ),
    max_leaves=4,
)
odd_element = odd_value | st.fixed_dictionaries(
    {}, optional={"vr": odd_value, "Value": st.lists(odd_value, max_size=2) | odd_value}
)


def dataset(**changed: object) -> dict[str, Any]:
    whole: dict[str, Any] = {tag: {"vr": "UI", "Value": [uid]} for tag, uid in UIDS.items()}
    return {**whole, **changed}


def texts_of(read: InstanceAttributes) -> list[str]:
    parts: list[Any] = [read, read.patient, read.study, read.series]
    fields = [getattr(part, name) for part in parts for name in type(part).__slots__]
    return [field for field in fields if isinstance(field, str)]


@given(st.dictionaries(st.sampled_from(TAGS), odd_element, max_size=6), st.booleans())
@hypothesis_settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_an_object_says_is_either_refused_or_fits(
    odd: dict[str, Any], with_uids: bool
) -> None:
    whole = {**odd, **dataset()} if with_uids else {**dataset(), **odd}
    try:
        read = read_attributes(whole)
    except Invalid:
        return
    for value in texts_of(read):
        assert "\x00" not in value
        assert len(value) <= INDEXED_MAX_CHARACTERS
        value.encode()
    for number in (read.instance_number, read.series.series_number):
        assert number is None or -(2**31) <= number < 2**31
    if read.series.request_attributes is not None:
        assert b"\\u0000" not in orjson.dumps(read.series.request_attributes)
        assert all(isinstance(item, dict) for item in read.series.request_attributes)


def test_what_was_read_of_the_oddest_objects_goes_into_the_database(cluster: Cluster) -> None:
    random = "".join(map(chr, itertools.islice(itertools.cycle(range(0x4E00, 0x9000, 41)), 256)))
    values = ["\x00å\x00", "\ud83d", random, "𐍈" * 256, "\\u0000", "\\", 10**100, True, -0.0]
    with psycopg.connect(cluster.url("bfr_owner", "bfr_template")) as connection:
        connection.execute("CREATE TEMPORARY TABLE told (LIKE patient INCLUDING INDEXES)")
        for first, second in itertools.product(values, values):
            read = read_attributes(
                dataset(
                    **{
                        instances.PATIENT_ID: {"Value": [first]},
                        instances.ISSUER_OF_PATIENT_ID: {"Value": [second]},
                        instances.PATIENT_NAME: {"Value": [{"Alphabetic": first}]},
                        instances.REQUEST_ATTRIBUTES: {"Value": [{"00080050": first}, 3]},
                    }
                )
            )
            connection.execute(
                "INSERT INTO told (patient_id, archive_id, patient_identifier, issuer, name,"
                " name_normalised, sex, updated_at) OVERRIDING SYSTEM VALUE"
                " VALUES (0, 0, %s, %s, %s, %s, '', now()) ON CONFLICT DO NOTHING",
                [
                    read.patient.patient_identifier,
                    read.patient.issuer,
                    read.patient.name,
                    normalise(read.patient.name),
                ],
            )
            (items,) = connection.execute(
                "SELECT %s::jsonb", [orjson.dumps(read.series.request_attributes).decode()]
            ).fetchone() or ([],)
            assert items == read.series.request_attributes


@pytest.mark.parametrize("tag", UIDS)
@pytest.mark.parametrize(
    "value",
    ["1.2." + "3" * 70, "9" * 65, "1.2\x003", "1..2", "1.2.", ".1", "1.2 3", "1.2\\3", "ett",
     1.2, 12, {"Alphabetic": "1.2"}, ["1.2"], True],
)  # fmt: skip
def test_what_is_no_uid_is_refused_by_the_name_of_its_attribute(tag: str, value: object) -> None:
    with pytest.raises(Invalid, match=rf"\({tag[:4]},{tag[4:]}\) is no UID"):
        read_attributes(dataset(**{tag: {"vr": "UI", "Value": [value]}}))


@pytest.mark.parametrize("tag", UIDS)
@pytest.mark.parametrize("element", [{}, {"Value": []}, {"Value": [None]}, {"Value": [""]}, None])
def test_a_missing_uid_is_refused_by_the_name_of_its_attribute(tag: str, element: object) -> None:
    with pytest.raises(Invalid, match=rf"\({tag[:4]},{tag[4:]}\) is missing"):
        read_attributes(dataset(**{tag: element}))


def test_the_padding_of_a_uid_is_no_part_of_it() -> None:
    padded = dataset(**{instances.STUDY_INSTANCE_UID: {"Value": ["1.2.3\x00"]}})
    assert read_attributes(padded).study.study_instance_uid == "1.2.3"


def test_a_uid_of_64_characters_is_one() -> None:
    uid = "1." + "2" * 62
    whole = dataset(**{instances.SOP_INSTANCE_UID: {"Value": [uid]}})
    assert read_attributes(whole).sop_instance_uid == uid


@pytest.mark.parametrize("tag", [instances.PATIENT_ID, instances.ISSUER_OF_PATIENT_ID])
def test_an_identity_is_never_cut(tag: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_attributes(dataset(**{tag: {"Value": ["198501019809" * 30]}}))
    assert "longer than 256 characters" in caught.value.message
    assert "1985" not in caught.value.message


@pytest.mark.parametrize(
    ("value", "number"),
    [("7", 7), (" 7 ", 7), (7, 7), ("7.0", 7), ("2147483647", 2147483647), ("2147483648", None),
     ("1e400", None), ("inf", None), ("nan", None), ("sju", None), (10**400, None), (True, None)],
)  # fmt: skip
def test_an_instance_number_is_a_number_of_32_bits_or_none(
    value: object, number: int | None
) -> None:
    whole = dataset(**{instances.INSTANCE_NUMBER: {"vr": "IS", "Value": [value]}})
    assert read_attributes(whole).instance_number == number


def test_a_number_of_thousands_of_digits_is_no_text() -> None:
    assert text({"00100020": {"Value": [10**5000]}}, "00100020") == ""


@given(st.dates())
def test_every_date_is_read(date: datetime.date) -> None:
    assert parse_date(date.strftime("%Y%m%d").rjust(8, "0")) == date


@given(odd_text)
def test_a_date_is_a_date_or_none(value: str) -> None:
    assert parse_date(value) is None or isinstance(parse_date(value), datetime.date)


@given(odd_text | st.from_regex(r"\d{2}(:?\d{2}){0,2}(\.\d{1,6})?", fullmatch=True))
def test_a_time_is_a_time_or_none(value: str) -> None:
    assert parse_time(value) is None or isinstance(parse_time(value), datetime.time)


@pytest.mark.parametrize(
    ("value", "time"),
    [
        ("10", datetime.time(10)),
        ("1015", datetime.time(10, 15)),
        ("101530.5", datetime.time(10, 15, 30, 500_000)),
        ("10:15:30", datetime.time(10, 15, 30)),
        ("235960", datetime.time(23, 59, 59)),  # a leap second
        ("240000", None),
    ],
)
def test_a_time_of_any_length_is_read(value: str, time: datetime.time | None) -> None:
    assert parse_time(value) == time


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"Alphabetic": "Testsson^Åsa"}, "Testsson^Åsa"),
        ({"Alphabetic": "Yamada^Taro", "Ideographic": "山田^太郎"}, "Yamada^Taro=山田^太郎"),
        ({"Phonetic": "やまだ"}, "==やまだ"),
        ({"Alphabetic": None, "Ideographic": 7}, ""),
        ("Testsson", ""),
        (None, ""),
    ],
)
def test_a_person_name_has_its_groups_in_order(value: object, name: str) -> None:
    assert person_name({"00100010": {"vr": "PN", "Value": [value]}}, "00100010") == name


def test_long_descriptions_are_cut_for_the_index_only() -> None:
    whole = dataset(**{instances.STUDY_DESCRIPTION: {"Value": ["å" * 300]}})
    assert read_attributes(whole).study.description == "å" * INDEXED_MAX_CHARACTERS
    assert text(whole, instances.STUDY_DESCRIPTION) == "å" * 300
