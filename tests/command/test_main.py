"""The command line: one sentence for what is wrong, and the exit status that scripts go by."""

import dataclasses
import getpass
import re
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from tests.command.commands import add_archive, bfr, done

from bfr_core.settings import Settings

NOBODY_THERE = "postgresql://bfr:hemligt@127.0.0.1:1/bfr"


@pytest.mark.parametrize(
    "arguments",
    [(), ("fly",), ("import",), ("node", "add", "X", "--connection", "Y"), ("serve", "printer")],
)
def test_wrong_arguments_are_status_2_and_name_the_usage(arguments: tuple[str, ...]) -> None:
    answer = bfr({}, *arguments)
    assert answer.status == 2
    assert "usage: bfr" in answer.err


def test_help_names_every_command() -> None:
    text = done(bfr({}, "--help"))
    for name in (
        "up",
        "serve",
        "migrate",
        "import",
        "export",
        "connection",
        "node",
        "worklist",
        "doctor",
    ):
        assert re.search(rf"^    {name}\s", text, re.MULTILINE), name


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"BFR_HTP_PORT": "1"}, "bfr: BFR_HTP_PORT is no setting of BFR\n"),
        ({"BFR_HTTP_PORT": "x"}, "bfr: BFR_HTTP_PORT: 'x' is no whole number\n"),
        (
            {"BFR_LOG_LEVEL": "loud"},
            "bfr: BFR_LOG_LEVEL: 'loud' is none of debug, info, warning, error\n",
        ),
    ],
)
def test_a_bad_setting_is_one_sentence_and_status_1(environment: dict[str, str], said: str) -> None:
    answer = bfr(environment, "archive", "list")
    assert (answer.status, answer.out, answer.err) == (1, "", said)


def test_a_data_folder_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    answer = bfr({"BFR_DATA_DIR": str(file)}, "archive", "list")
    assert answer.status == 1
    assert answer.err.startswith("bfr: ")
    assert str(file) in answer.err
    assert answer.err.count("\n") == 1


def test_a_database_that_is_away_is_told_at_once_with_its_reason(tmp_path: Path) -> None:
    environment = {"BFR_DATABASE_URL": NOBODY_THERE, "BFR_DATA_DIR": str(tmp_path)}
    for arguments in (("archive", "list"), ("migrate",), ("export", "--to", "x", "1.2")):
        answer = bfr(environment, *arguments)
        assert answer.status == 1
        assert answer.err.startswith("bfr: the database is not available: ")
        assert "refused" in answer.err
        assert "hemligt" not in answer.err


def test_a_database_of_an_older_version_says_what_to_run(settings: Settings) -> None:
    with psycopg.connect(settings.database_owner_url, autocommit=True) as connection:
        connection.execute("DELETE FROM _yoyo_migration WHERE migration_id = '0005_roles'")
        connection.execute("DROP TABLE role_beat")
    answer = bfr(settings, "archive", "list")
    assert (answer.status, answer.err) == (1, "bfr: 1 migrations wait: run `bfr migrate`\n")
    assert "applied: 0005_roles" in bfr(settings, "migrate").err
    assert done(bfr(settings, "archive", "list")) == ""
    assert "nothing to apply" in bfr(settings, "migrate").err


def test_what_is_registered_is_listed(settings: Settings) -> None:
    done(bfr(settings, "connection", "add", "Röntgen Norr", "--environment", "production"))
    done(bfr(settings, "archive", "add", "NORR", "--connection", "Röntgen Norr"))
    done(
        bfr(settings, "node", "add", "CT1", "--connection", "Röntgen Norr",
            "--host", "10.0.0.7", "--port", "104")
    )  # fmt: skip
    assert done(bfr(settings, "connection", "list")) == "Röntgen Norr\tproduction\n"
    assert done(bfr(settings, "archive", "list")) == "NORR\tRöntgen Norr\tRöntgen Norr\n"
    assert done(bfr(settings, "node", "list")) == "CT1\t10.0.0.7\t104\tRöntgen Norr\n"


def test_a_virtual_archive_and_who_may_call_it_are_listed(settings: Settings) -> None:
    add_archive(settings)
    done(bfr(settings, "archive", "add", "EVERYTHING", "--virtual", "--name", "All of it"))
    node = ("--connection", "PACS of ARCHIVE", "--host", "10.0.0.7", "--port", "104")
    done(bfr(settings, "node", "add", "READER", *node))
    assert "EVERYTHING\tAll of it\tvirtual\n" in done(bfr(settings, "archive", "list"))
    row = "READER\t10.0.0.7\t104\tPACS of ARCHIVE"
    audited = ("READER", "--connection", "PACS of ARCHIVE", "--virtual", "EVERYTHING")
    assert "may call" in done(bfr(settings, "node", "audited", *audited))
    assert done(bfr(settings, "node", "list")) == f"{row}\tEVERYTHING\n"
    assert "may no longer" in done(bfr(settings, "node", "audited", *audited, "--revoke"))
    assert done(bfr(settings, "node", "list")) == f"{row}\n"


def test_what_cannot_be_registered_is_told_in_one_sentence(settings: Settings) -> None:
    add_archive(settings)
    name = "PACS of ARCHIVE"
    node = ("node", "add", "CT1", "--connection")
    for arguments, said in (
        (("connection", "add", name), f"there is a connection {name!r} already"),
        (("connection", "add", " "), "a connection needs a name"),
        (("archive", "add", "X", "--connection", name), "has its archive already"),
        (("archive", "add", "X", "--connection", "none"), "there is no connection 'none'"),
        ((*node, name, "--host", "h", "--port", "0"), "port 0 is not between 1 and 65535"),
        ((*node, name, "--host", "", "--port", "1"), "a DICOM node needs a host"),
    ):
        answer = bfr(settings, *arguments)
        assert answer.status == 1
        assert said in answer.err
        assert answer.err.count("\n") == 1


@pytest.mark.parametrize("title", ["", "SEVENTEEN_LETTERS", "A\\B", "Å", "A\nB"])
def test_what_is_no_ae_title_is_refused(settings: Settings, title: str) -> None:
    done(bfr(settings, "connection", "add", "PACS"))
    answer = bfr(settings, "archive", "add", title, "--connection", "PACS")
    assert answer.status == 1
    assert "is no AE title" in answer.err


def test_a_user_without_a_name_may_run_commands(
    with_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose user id stands in no password file."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 10001")

    monkeypatch.setattr(getpass, "getuser", nameless)
    settings = with_settings()
    assert done(bfr(settings, "connection", "add", "PACS")) == "connection PACS (test)\n"
    with psycopg.connect(settings.database_owner_url) as connection:
        callers = connection.execute("SELECT caller FROM audit_record").fetchall()
    assert len(callers) == 1
    assert str(callers[0][0]).startswith("user ")


def test_every_setting_of_a_command_comes_from_the_environment(settings: Settings) -> None:
    changed = dataclasses.replace(settings, database_connections=1, log_level="error")
    assert done(bfr(changed, "archive", "list")) == ""
