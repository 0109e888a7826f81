"""Settings: every variable is read or refused by its name, and children get the same ones."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfr_core.errors import Invalid
from bfr_core.settings import NOT_SETTINGS, PORTS, ROLE_NAMES, STEP_STATUSES, Settings

FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
NUMBERS = [name for name, field in FIELDS.items() if isinstance(field.default, int | float)]


def variable(field: str) -> str:
    return f"BFR_{field.upper()}"


def value_of(name: str) -> st.SearchStrategy[object]:
    default = FIELDS[name].default
    if name in PORTS:
        return st.integers(0, 65535)
    if name == "log_level":
        return st.sampled_from(["debug", "info", "warning", "error"])
    if name == "log_format":
        return st.sampled_from(["text", "json"])
    if name == "traces_endpoint":
        return st.sampled_from(["", "http://127.0.0.1:4318/v1/traces", "https://collector/v1"])
    if name == "roles":
        return st.lists(st.sampled_from(ROLE_NAMES), min_size=1, unique=True).map(tuple)
    if name == "bucket_url":
        return st.just("s3://near/packs?endpoint=https://near.example&region=se-1&profile=near")
    if name == "second_bucket_url":
        return st.just("s3://far?endpoint=http://127.0.0.1:9000")
    if name == "worklist_statuses":
        return st.lists(st.sampled_from(STEP_STATUSES), min_size=1, unique=True).map(tuple)
    if name == "dimse_private_storage_sop_classes":
        return st.lists(st.sampled_from(["*", "1.2.3.", "1.2.3.4"])).map(tuple)
    if name.endswith("_url"):
        return st.sampled_from(["postgresql://user:p%40ss@host:5432/bfr", "postgres:///bfr"])
    if name == "dimse_max_pdu_bytes":
        return st.integers(4096, 2**32 - 1)
    if isinstance(default, int):
        return st.integers(1, 2**40)
    if isinstance(default, float):
        return st.floats(0.001, 1e9)
    names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1)
    return names.map(Path) if isinstance(default, Path) else names


any_settings = st.fixed_dictionaries({name: value_of(name) for name in FIELDS}).map(
    lambda values: Settings(**values)  # type: ignore[arg-type]
)


@given(any_settings)
def test_a_child_process_gets_the_same_settings(settings: Settings) -> None:
    assert Settings.from_environment(settings.to_environment()) == settings


def test_the_defaults_pass_through_the_environment_too() -> None:
    assert Settings.from_environment(Settings().to_environment()) == Settings()


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_environment({}) == Settings()


@pytest.mark.parametrize("field", NUMBERS)
def test_every_number_is_read(field: str) -> None:
    settings = Settings.from_environment({variable(field): "4097"})
    assert getattr(settings, field) == 4097


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("text", ["", "much", "-1", "1e400", "nan", "4 097"])
def test_what_is_no_number_is_named_with_its_variable(field: str, text: str) -> None:
    with pytest.raises(Invalid) as caught:
        Settings.from_environment({variable(field): text})
    assert caught.value.message.startswith(f"{variable(field)}: ")
    assert "literal" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("BFR_HTTP_PORT", "65536"),
        ("BFR_PACK_MAX_BYTES", "0"),
        ("BFR_DATABASE_CONNECTIONS", "0"),
        ("BFR_STOP_TIMEOUT_S", "0"),
        ("BFR_DIMSE_MAX_PDU_BYTES", "16"),
        ("BFR_DIMSE_MAX_PDU_BYTES", str(2**32)),
        ("BFR_ROLES", "web,printer"),
        ("BFR_ROLES", ","),
        ("BFR_ROLES", "web,web"),
        ("BFR_LOG_LEVEL", "loud"),
        ("BFR_LOG_FORMAT", "xml"),
        ("BFR_OBSERVE_PORT", "65536"),
        ("BFR_TRACES_ENDPOINT", "collector:4318"),
        ("BFR_TRACES_ENDPOINT", "http://[collector"),
        ("BFR_DATA_DIR", ""),
        ("BFR_DATABASE_URL", "host=localhost dbname=bfr"),
        ("BFR_DATABASE_URL", "postgresql://host/bfr?colour=blue"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_its_name(name: str, text: str) -> None:
    with pytest.raises(Invalid, match=f"^{name}: "):
        Settings.from_environment({name: text})


def test_no_limit_for_pdus_is_a_value() -> None:
    assert Settings.from_environment({"BFR_DIMSE_MAX_PDU_BYTES": "0"}).dimse_max_pdu_bytes == 0


def test_a_misspelt_variable_is_refused_by_its_name() -> None:
    with pytest.raises(Invalid, match="BFR_HTP_PORT is no setting of BFR"):
        Settings.from_environment({"BFR_HTP_PORT": "80"})


def test_variables_of_others_are_nothing_to_us() -> None:
    environment = {"PATH": "/bin", "bfr_http_port": "x", **dict.fromkeys(NOT_SETTINGS, "1")}
    assert Settings.from_environment(environment) == Settings()


def test_a_password_in_a_database_url_is_never_told() -> None:
    for url in ("mysql://bfr:hemligt@host/bfr", "postgresql://bfr:hemligt@host/bfr?a=b"):
        with pytest.raises(Invalid) as caught:
            Settings.from_environment({"BFR_DATABASE_URL": url})
        assert "hemligt" not in caught.value.message


def test_an_owner_without_a_database_is_refused() -> None:
    with pytest.raises(Invalid, match="BFR_DATABASE_OWNER_URL is given without BFR_DATABASE_URL"):
        Settings.from_environment({"BFR_DATABASE_OWNER_URL": "postgresql://owner@host/bfr"})
