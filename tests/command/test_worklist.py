"""The worklist and the terms of nodes from the command line."""

import json
from pathlib import Path
from unittest import mock

import pytest
from tests.command.commands import add_archive, bfr, done
from tests.legacy.test_worklist_scp import item

from bfr_core.settings import Settings

OPTIONS = {
    "--accession": "ACC7",
    "--patient-id": "TEST-7",
    "--patient-name": "Test^Person",
    "--station": "CT1",
    "--modality": "CT",
    "--date": "20260310",
    "--time": "0915",
}


def test_an_item_is_added_by_options_and_listed(settings: Settings) -> None:
    add_archive(settings)
    options = [part for pair in OPTIONS.items() for part in pair]
    done(bfr(settings, "worklist", "add", "--archive", "ARCHIVE", *options))
    listed = done(bfr(settings, "worklist", "list", "--archive", "ARCHIVE"))
    assert listed == "20260310\t0915\tCT1\tCT\tACC7\tSCHEDULED\n"


def test_items_are_added_from_files(settings: Settings, tmp_path: Path) -> None:
    add_archive(settings)
    file = tmp_path / "items.json"
    file.write_text(json.dumps([item(1), item(2)]))
    said = done(bfr(settings, "worklist", "add", "--archive", "ARCHIVE", file))
    assert said == "2 in the worklist of ARCHIVE\n"
    listed = done(bfr(settings, "worklist", "list", "--archive", "ARCHIVE"))
    assert listed.count("\n") == 2


@pytest.mark.parametrize("text", ["no JSON", "[1]", '{"00100010": "X"}', "{}"])
def test_what_is_no_item_is_told_in_one_sentence(
    settings: Settings, tmp_path: Path, text: str
) -> None:
    add_archive(settings)
    file = tmp_path / "items.json"
    file.write_text(text)
    answer = bfr(settings, "worklist", "add", "--archive", "ARCHIVE", file)
    assert answer.status == 1
    assert answer.err.startswith("bfr: ")
    assert answer.err.count("\n") == 1


def test_without_a_file_the_options_that_are_missing_are_named(settings: Settings) -> None:
    add_archive(settings)
    answer = bfr(settings, "worklist", "add", "--archive", "ARCHIVE", "--modality", "CT")
    assert answer.status == 1
    assert "--accession" in answer.err
    assert "--modality" not in answer.err


def test_what_a_node_has_agreed_on_is_set_and_told(settings: Settings, tmp_path: Path) -> None:
    add_archive(settings)
    of_connection = ("--connection", "PACS of ARCHIVE")
    address = ("--host", "127.0.0.1", "--port", "11113")
    done(bfr(settings, "node", "add", "CT1", *of_connection, *address, "--no-check-host"))
    secret = tmp_path / "secret"
    secret.write_text("a secret of this node\n")
    said = done(
        bfr(
            settings, "node", "set", "CT1", *of_connection, "--tls", "--associations-max", "3",
            "--jwt-secret-file", secret,
        )
    )  # fmt: skip
    told = dict(line.split("\t") for line in said.splitlines())
    assert told["host_checked"] == "False"
    assert told["tls_required"] == "True"
    assert told["associations_max"] == "3"
    assert "a secret" not in said
    answer = bfr(settings, "node", "set", "CT1", *of_connection, "--pdu-max-bytes", "5")
    assert (answer.status, answer.err) == (1, "bfr: pdu_max_bytes is 4096 or more\n")


def test_the_passcode_of_a_user_comes_by_standard_input(settings: Settings) -> None:
    add_archive(settings)
    of_connection = ("--connection", "PACS of ARCHIVE")
    done(bfr(settings, "node", "add", "CT1", *of_connection, "--host", "h", "--port", "104"))
    command = ("node", "user", "CT1", *of_connection, "--username", "bo", "--with-passcode")
    with mock.patch("sys.stdin.readline", return_value="a passcode\n"):
        assert "passcode" not in done(bfr(settings, *command))
    with mock.patch("sys.stdin.readline", return_value=""):
        assert bfr(settings, *command).status == 1
