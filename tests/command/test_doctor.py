"""Doctor: every fault is found, and with each goes what to do."""

import contextlib
import http.server
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from tests.certificates import new_authority
from tests.command.commands import Answer, bfr
from tests.system import free_port

from bfr_command import doctor
from bfr_core.settings import Settings

BEAT = "INSERT INTO role_beat (role, instance, serving, detail) VALUES (%s, 'a:1', %s, %s)"


@pytest.fixture
def healthy(with_settings: Callable[..., Settings]) -> Settings:
    return with_settings(http_port=free_port(), dimse_port=free_port())


def execute(settings: Settings, statement: str, *parameters: object) -> None:
    with psycopg.connect(settings.database_owner_url, autocommit=True) as connection:
        connection.execute(statement.encode(), parameters)


def findings(answer: Answer) -> dict[str, list[tuple[str, str]]]:
    """What was said by subject: state and text."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in answer.out.splitlines():
        state, subject, text = re.split(r"\s+", line, maxsplit=2)
        found.setdefault(subject, []).append((state, text))
    return found


def faults(answer: Answer) -> list[str]:
    return [text for said in findings(answer).values() for state, text in said if state == "fault"]


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the built browser application."""
    folder = tmp_path / "static"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html>")
    monkeypatch.setattr(doctor, "static_directory", lambda: folder)
    return folder


@pytest.fixture(autouse=True)
def built(pages: Path) -> None:
    """Every test but one looks at a system with its pages."""


def test_nothing_is_wrong_with_a_system_that_has_not_started(healthy: Settings) -> None:
    answer = bfr(healthy, "doctor")
    assert (answer.status, faults(answer), answer.err) == (0, [], "")
    found = findings(answer)
    assert found["database"][0][1].startswith("PostgreSQL ")
    assert found["web"] == [("note", "has not started: start `bfr up`")]
    assert found["ports"] == [
        ("ok", f"127.0.0.1:{healthy.http_port} is free for web"),
        ("ok", f"127.0.0.1:{healthy.dimse_port} is free for dimse"),
    ]


def test_the_embedded_database_that_does_not_run_is_no_fault(tmp_path: Path) -> None:
    environment = {
        "BFR_DATA_DIR": str(tmp_path / "var"),
        "BFR_HTTP_PORT": str(free_port()),
        "BFR_DIMSE_PORT": str(free_port()),
        "BFR_FREE_SPACE_MIN_BYTES": "0",
    }
    answer = bfr(environment, "doctor")
    assert answer.status == 0
    assert ("note", "the embedded one does not run: start `bfr up`") in findings(answer)["database"]
    assert not (tmp_path / "var").exists()


def test_a_database_that_is_away_is_a_fault(healthy: Settings) -> None:
    environment = healthy.to_environment() | {
        "BFR_DATABASE_URL": "postgresql://bfr:hemligt@127.0.0.1:1/bfr",
        "BFR_DATABASE_OWNER_URL": "",
    }
    answer = bfr(environment, "doctor")
    (text,) = faults(answer)
    assert answer.status == 1
    assert "refused" in text
    assert "check BFR_DATABASE_URL and the server" in text
    assert "hemligt" not in answer.out + answer.err
    assert "ports" in findings(answer)


def test_programs_of_the_database_that_are_missing_are_a_fault(tmp_path: Path) -> None:
    environment = {"BFR_DATA_DIR": str(tmp_path / ("x" * 200)), "BFR_FREE_SPACE_MIN_BYTES": "0"}
    environment |= {"TMPDIR": str(tmp_path / ("y" * 90))}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tempfile.tempdir", str(tmp_path / ("y" * 90)))
        answer = bfr(environment, "doctor")
    assert answer.status == 1
    assert any("too long to hold the database's socket" in text for text in faults(answer))


def test_migrations_that_wait_are_a_fault(healthy: Settings) -> None:
    execute(healthy, "DELETE FROM _yoyo_migration WHERE migration_id = '0005_roles'")
    execute(healthy, "DROP TABLE role_beat")
    answer = bfr(healthy, "doctor")
    assert answer.status == 1
    assert faults(answer) == ["1 migrations wait: run `bfr migrate`"]


def test_a_full_disk_is_a_fault(with_settings: Callable[..., Settings]) -> None:
    answer = bfr(with_settings(free_space_min_bytes=1 << 60), "doctor")
    assert answer.status == 1
    (text,) = faults(answer)
    assert "reception stops below 1073741824.0 GiB: make room or move BFR_DATA_DIR" in text


def test_a_data_folder_that_is_a_file_is_a_fault(healthy: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = healthy.to_environment() | {"BFR_DATA_DIR": str(tmp_path / "file" / "var")}
    answer = bfr(environment, "doctor")
    assert answer.status == 1
    assert f"{tmp_path / 'file'} is no folder: set BFR_DATA_DIR to one" in faults(answer)


def test_pages_that_were_not_built_are_a_fault(healthy: Settings, pages: Path) -> None:
    (pages / "index.html").unlink()
    answer = bfr(healthy, "doctor")
    assert answer.status == 1
    assert faults(answer) == ["the browser application is missing: run `make web`"]


@contextlib.contextmanager
def listener(port: int) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", port)):
        yield


def test_ports_of_somebody_else_are_faults(healthy: Settings) -> None:
    with listener(healthy.dimse_port):
        answer = bfr(healthy, "doctor")
    assert answer.status == 1
    assert faults(answer) == [
        f"127.0.0.1:{healthy.dimse_port} is taken by another program:"
        " stop it or set BFR_DIMSE_PORT to another port"
    ]


class AnswersEverything(http.server.BaseHTTPRequestHandler):
    """A web server that is not ours and says 200 to every question."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "UP"}')

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_another_web_server_is_not_taken_for_ours(healthy: Settings) -> None:
    with http.server.HTTPServer(("127.0.0.1", healthy.http_port), AnswersEverything) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        answer = bfr(healthy, "doctor")
        server.shutdown()
        thread.join()
    assert answer.status == 1
    (text,) = faults(answer)
    assert text.startswith(f"127.0.0.1:{healthy.http_port} is taken by another program")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"http_host": "0.0.0.0"}, "without a login the web role listens on a loopback address"),
        ({"dimse_host": "203.0.113.9"}, "is no address of this machine: set BFR_DIMSE_HOST"),
        ({"dimse_host": "no.such.host.invalid"}, "is no address of this machine"),
    ],
)
def test_an_address_that_cannot_be_used_is_a_fault(
    with_settings: Callable[..., Settings], changed: dict[str, str], said: str
) -> None:
    answer = bfr(with_settings(**changed), "doctor")
    assert answer.status == 1
    (text,) = faults(answer)
    assert said in text


def test_only_the_roles_of_the_settings_are_looked_at(
    with_settings: Callable[..., Settings],
) -> None:
    taken = free_port()
    with listener(taken):
        answer = bfr(with_settings(roles=("web", "worker"), dimse_port=taken), "doctor")
    assert (answer.status, faults(answer)) == (0, [])
    assert "dimse" not in findings(answer)


def test_jobs_that_failed_are_a_fault_with_their_kind(healthy: Settings) -> None:
    for task, status, attempts in (("seal", "failed", 20), ("delete_blob", "todo", 9)):
        execute(
            healthy,
            "INSERT INTO procrastinate_jobs (queue_name, task_name, args, status, attempts)"
            " VALUES ('default', %s, '{}', %s::procrastinate_job_status, %s)",
            *(task, status, attempts),
        )
    answer = bfr(healthy, "doctor")
    assert answer.status == 1
    assert faults(answer) == [
        "delete_blob: 1 failed several times and are tried again:"
        " the worker's log says why, mend that",
        "seal: 1 failed for good, tried again every night: the worker's log says why, mend that",
    ]


def test_a_role_that_is_down_while_others_serve_is_a_fault(healthy: Settings) -> None:
    execute(healthy, BEAT, "web", True, "")
    execute(healthy, BEAT, "worker", False, "cannot reach the moon")
    answer = bfr(healthy, "doctor")
    found = findings(answer)
    assert answer.status == 1
    assert found["web"] == [("ok", "serves")]
    assert found["worker"] == [("fault", "cannot reach the moon: look at the output of `bfr up`")]
    assert found["dimse"] == [("fault", "has not started: look at the output of `bfr up`")]


def test_a_clock_that_is_off_is_a_fault(healthy: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 90)
    answer = bfr(healthy, "doctor")
    assert answer.status == 1
    (text,) = faults(answer)
    assert "clock is +9" in text
    assert "synchronise both (NTP)" in text


@pytest.mark.parametrize(
    ("days", "state"), [(90, "ok"), (5, "note"), (-1, "fault")], ids=["long", "soon", "over"]
)
def test_certificates_are_told_with_the_day_they_end(
    healthy: Settings, tmp_path: Path, days: int, state: str
) -> None:
    authority = new_authority(tmp_path / "region")
    own = authority.issue("archive", days=days)
    settings = replace(
        healthy,
        dimse_tls_port=free_port(),
        dimse_tls_certificate_file=str(own.certificate),
        dimse_tls_key_file=str(own.key),
        dimse_tls_ca_file=str(authority.certificate),
    )
    told = findings(bfr(settings, "doctor"))["certificates"]
    assert told[0][0] == state
    assert str(own.certificate) in told[0][1]


def test_a_certificate_that_cannot_be_read_is_a_fault(healthy: Settings, tmp_path: Path) -> None:
    (tmp_path / "own.pem").write_text("nothing")
    settings = replace(
        healthy,
        dimse_tls_port=free_port(),
        dimse_tls_certificate_file=str(tmp_path / "own.pem"),
        dimse_tls_ca_file=str(tmp_path / "own.pem"),
    )
    [(state, text)] = findings(bfr(settings, "doctor"))["certificates"]
    assert state == "fault"
    assert "own.pem" in text
