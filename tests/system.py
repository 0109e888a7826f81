"""A whole system started by the `bfr` command, as a user starts it."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0


class System:
    """`bfr up` in a folder and on ports of its own."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        self.http_port, self.dimse_port = free_port(), free_port()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("BFR_")},
            "BFR_DATA_DIR": str(directory / "var"),
            "BFR_HTTP_PORT": str(self.http_port),
            "BFR_DIMSE_PORT": str(self.dimse_port),
            "BFR_SEAL_QUIET_S": "1",
            "BFR_FREE_SPACE_MIN_BYTES": "0",
            "BFR_POSTGRES_SHARED_BUFFERS_BYTES": str(64 * 1024 * 1024),
            "PYTHONUNBUFFERED": "1",
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the web role answers."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def log(self) -> str:
        """What the system has said."""
        return (self.directory / "up.log").read_text(errors="replace")

    def start(self, *arguments: str) -> None:
        """Start and return when every role serves."""
        with (self.directory / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bfr_command", "up", *arguments],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Return when `/readyz` says so."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                raise AssertionError(f"the system ended:\n{self.log[-3000:]}")
            try:
                with urllib.request.urlopen(self.url + "/readyz", timeout=5):
                    return
            except (urllib.error.HTTPError, OSError):
                time.sleep(0.1)
        raise AssertionError(f"the system is not ready:\n{self.log[-3000:]}")

    def role(self, name: str) -> psutil.Process:
        """Return the process of a role, the first of several."""
        return self.role_processes(name)[0]

    def role_processes(self, name: str) -> list[psutil.Process]:
        """Return the processes of a role. Raises AssertionError when there is none."""
        assert self.process is not None
        found = [
            child for child in psutil.Process(self.process.pid).children() if serves(child, name)
        ]
        assert found, f"no process serves {name}"
        return found

    def processes(self) -> list[psutil.Process]:
        """Return every process of the system."""
        assert self.process is not None
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def stop(self) -> int:
        """Stop as Ctrl-C does and return the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """End every process without warning."""
        for process in self.processes():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        assert self.process is not None
        self.process.wait()

    def command(self, *arguments: str) -> str:
        """Run the `bfr` command beside the system and return what it printed."""
        result = self.run(*arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the `bfr` command beside the system."""
        return subprocess.run(
            [sys.executable, "-m", "bfr_command", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def add_archive(self, ae_title: str, nodes: Sequence[str]) -> None:
        """Register a connection with its archive and nodes."""
        self.command("connection", "add", ae_title)
        self.command("archive", "add", ae_title, "--connection", ae_title)
        for number, node in enumerate(nodes):
            self.command(
                "node", "add", node, "--connection", ae_title,
                "--host", "127.0.0.1", "--port", str(11200 + number),
            )  # fmt: skip


@contextmanager
def running_system(directory: Path, *arguments: str, **settings: str) -> Iterator[System]:
    """Run a system for the length of the block."""
    directory.mkdir(parents=True, exist_ok=True)
    system = System(directory, **settings)
    system.start(*arguments)
    try:
        yield system
    finally:
        if system.process is not None and system.process.poll() is None:
            system.stop()


def serves(process: psutil.Process, role: str) -> bool:
    """Tell whether the process is one of the role's."""
    try:
        return f" serve {role} " in " ".join([*process.cmdline(), ""])
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
