"""`bfr up`: it comes up, keeps itself up, says what is wrong once, and leaves nothing behind."""

import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.command.commands import add_archive, bfr, done, write_files
from tests.samples import ct_instance, part10_bytes
from tests.system import System, free_port, running_system, serves

from bfr_command import up
from bfr_command.up import greeting
from bfr_core.connections import Archive, DicomNode
from bfr_core.postgres import embedded_cluster, running
from bfr_core.settings import Settings

PATIENCE_S = 60.0


def wait_until(condition: Callable[[], bool], system: System) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, system.log[-3000:]
        time.sleep(0.05)


def stopped(system: System, number: signal.Signals = signal.SIGINT) -> int:
    """Stop the system; afterwards none of its processes may be there."""
    assert system.process is not None
    processes = system.processes()
    system.process.send_signal(number)
    status = system.process.wait(PATIENCE_S)
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert alive == []
    return status


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for the tests that leave it running."""
    with running_system(tmp_path_factory.mktemp("up")) as system:
        yield system


def run_up(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bfr_command", "up", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_it_greets_with_its_addresses(system: System) -> None:
    wait_until(lambda: "BFR is running." in system.log, system)
    assert f"DICOMweb                 {system.url}/dicomweb" in system.log
    assert "bfr connection add" in system.log


def test_a_second_one_on_the_same_data_is_refused_in_one_sentence(system: System) -> None:
    result = run_up({**system.environment, "BFR_HTTP_PORT": "0", "BFR_DIMSE_PORT": "0"})
    assert result.returncode == 1
    assert result.stdout == ""
    assert re.fullmatch(r"bfr: The database in .* is in use by process \d+\n", result.stderr)
    with urllib.request.urlopen(system.url + "/readyz") as response:
        assert response.status == 200


@pytest.mark.parametrize(("door", "setting"), [("http_port", "HTTP"), ("dimse_port", "DIMSE")])
def test_a_port_that_is_taken_is_told_once_instead_of_starting_again_and_again(
    system: System,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    door: str,
    setting: str,
) -> None:
    """The other database keeps it from being refused for the data folder."""
    taken = getattr(system, door)
    changed = dataclasses.replace(settings, **{door: taken}, data_dir=system.directory / "other")
    monkeypatch.setattr(up, "PREDECESSOR_TIMEOUT_S", 0.3)
    answer = bfr(changed, "up")
    assert (answer.status, answer.out) == (1, "")
    assert answer.err == (
        f"bfr: 127.0.0.1:{taken} is taken by another program:"
        f" stop it or set BFR_{setting}_PORT to another port\n"
    )


@pytest.mark.parametrize(
    ("changed", "arguments", "said"),
    [
        (
            {"http_host": "0.0.0.0"},
            (),
            "BFR_HTTP_HOST=0.0.0.0: without a login the web role listens on a loopback address",
        ),
        ({"roles": ("web", "worker")}, ("--demo",), "BFR_ROLES must name web and dimse"),
        ({"dimse_host": "203.0.113.9"}, (), "203.0.113.9:0 is no address of this machine"),
    ],
)
def test_what_no_role_could_run_with_is_refused_at_once(
    with_settings: Callable[..., Settings],
    changed: dict[str, object],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    answer = bfr(with_settings(**changed), "up", *arguments)
    assert (answer.status, answer.out, answer.err.count("\n")) == (1, "", 1)
    assert said in answer.err


def test_one_port_for_both_doors_is_refused(with_settings: Callable[..., Settings]) -> None:
    port = free_port()
    answer = bfr(with_settings(http_port=port, dimse_port=port), "up")
    assert answer.err == "bfr: BFR_HTTP_PORT and BFR_DIMSE_PORT name the same port\n"
    assert answer.status == 1


@pytest.mark.parametrize("role", ["web", "dimse", "worker"])
def test_a_role_that_is_killed_comes_back(system: System, role: str) -> None:
    process = system.role(role)
    process.kill()
    wait_until(lambda: f"{role} ended by SIGKILL" in system.log, system)
    wait_until(lambda: any(serves(one, role) for one in system.processes()), system)
    assert system.role(role).pid != process.pid
    system.wait_until_ready()


def test_the_database_that_is_killed_comes_back(system: System) -> None:
    server = next(one for one in system.processes() if one.name().startswith("postgres"))
    server.kill()
    wait_until(lambda: "the database has died and starts again" in system.log, system)
    wait_until(lambda: running(embedded_cluster(system.directory / "var" / "postgres")), system)
    system.wait_until_ready()
    assert system.run("connection", "list").returncode == 0
    assert "Traceback" not in system.log


def test_commands_work_beside_it_and_the_doctor_is_content(system: System, tmp_path: Path) -> None:
    environment = {
        name: value for name, value in system.environment.items() if name.startswith("BFR_")
    }
    add_archive(environment)
    data = part10_bytes(ct_instance(StudyInstanceUID="1.2.3"))
    write_files(tmp_path / "in", data)
    out = done(bfr(environment, "import", "--archive", "ARCHIVE", tmp_path / "in"))
    assert out.startswith("1 stored")
    done(bfr(environment, "export", "--to", tmp_path / "out", "1.2.3"))
    (path,) = (tmp_path / "out").rglob("*.dcm")
    assert path.read_bytes() == data
    system.wait_until_ready()
    out = bfr(environment, "doctor").out
    for line in ("ok     database", "ok     web", "ok     dimse", "ok     worker"):
        assert line in out
    assert f"ok     ports        web answers at 127.0.0.1:{system.http_port}" in out
    assert f"ok     ports        dimse answers at 127.0.0.1:{system.dimse_port}" in out


def test_commands_work_without_it_and_stop_the_database_again(tmp_path: Path) -> None:
    environment = {
        "BFR_DATA_DIR": str(tmp_path / "var"),
        "BFR_FREE_SPACE_MIN_BYTES": "0",
        "BFR_POSTGRES_SHARED_BUFFERS_BYTES": str(16 * 1024 * 1024),
    }
    done(bfr(environment, "connection", "add", "PACS"))
    done(bfr(environment, "archive", "add", "ALONE", "--connection", "PACS"))
    write_files(tmp_path / "in", part10_bytes(ct_instance(StudyInstanceUID="1.2.3")))
    out = done(bfr(environment, "import", "--archive", "ALONE", tmp_path / "in"))
    assert out.startswith("1 stored")
    assert not running(embedded_cluster(tmp_path / "var" / "postgres"))


def test_some_roles_run_without_the_others_and_sigterm_ends_them(
    tmp_path: Path, settings: Settings
) -> None:
    system = System(tmp_path)
    system.environment |= settings.to_environment() | {
        "BFR_ROLES": "dimse,worker",
        "BFR_HTTP_PORT": "1",  # nobody listens there
        "BFR_DIMSE_PORT": "0",  # any free one
    }
    with (tmp_path / "up.log").open("wb") as log:
        system.process = subprocess.Popen(
            [sys.executable, "-m", "bfr_command", "up"],
            env=system.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    wait_until(lambda: "BFR is running." in system.log, system)
    assert "DICOMweb" not in system.log
    assert "web started" not in system.log
    (port,) = re.findall(r"DIMSE on 127\.0\.0\.1 port (\d+)", system.log)
    socket.create_connection(("127.0.0.1", int(port))).close()
    assert stopped(system, signal.SIGTERM) == 0
    assert system.log.endswith("bfr: stopped\n")


def test_ctrl_c_while_the_demonstration_loads_ends_soon_and_the_next_start_completes_it(
    tmp_path: Path,
) -> None:
    system = System(tmp_path)
    system.start("--demo")
    wait_until(lambda: "association accepted" in system.log, system)
    assert stopped(system) == 0
    assert system.log.endswith("bfr: stopped\n")
    assert "Traceback" not in system.log
    assert "was not stored" not in system.log
    (loading,) = re.findall(r"loading (\d+) demo objects", system.log)
    assert int(re.findall(r"released stored=(\d+)", system.log)[0]) < int(loading)
    system.start("--demo")
    wait_until(lambda: "BFR is running." in system.log, system)
    assert "was not stored" not in system.log
    with urllib.request.urlopen(f"{system.url}/archives/BFRDEMO/dicomweb/instances") as response:
        assert response.read().count(b'"00080018"') == int(loading)
    assert stopped(system) == 0


ARCHIVE = Archive(1, 1, "NORR", "Röntgen Norr")
NODE = DicomNode(1, 1, "CT1", "10.0.0.7", 104)


def test_the_greeting_tells_only_of_the_roles_that_run() -> None:
    whole = greeting(Settings(), [ARCHIVE], [NODE])
    assert "storescu -aet CT1 -aec NORR 127.0.0.1 11112" in whole
    assert "http://127.0.0.1:8080/archives/NORR/dicomweb" in whole
    web = greeting(Settings(roles=("web", "worker")), [ARCHIVE], [NODE])
    assert "DIMSE" not in web
    assert "storescu" not in web
    dimse = greeting(Settings(roles=("dimse",)), [ARCHIVE], [NODE])
    assert "http://" not in dimse
    assert "DIMSE NORR at 127.0.0.1:11112 for nodes CT1" in dimse


def test_an_address_of_version_6_is_written_as_one() -> None:
    text = greeting(Settings(http_host="::1"), [], [])
    assert "http://[::1]:8080/" in text


def test_a_role_that_cannot_serve_ends_with_one_sentence(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = subprocess.run(
            [sys.executable, "-m", "bfr_command", "serve", "dimse"],
            env={**os.environ, **settings.to_environment(), "BFR_DIMSE_PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr == "bfr: the role cannot serve: Address already in use\n"
