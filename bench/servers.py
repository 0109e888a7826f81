"""The servers: BFR, Orthanc, and DCMTK's storescp as the reference for C-STORE."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import processes
from bench.http_client import HOST

BFR = "bfr"
ORTHANC = "orthanc"
STORESCP = "storescp"
FILE_SERVER = "nginx"
CALLED_AE_TITLE = "BENCH"
CALLING_AE_TITLE = "BENCHSCU"
RECEIVER_AE_TITLE = "STORESCP"
READY_TIMEOUT_S = 90.0
POLL_S = 0.01
# Where packages put the DICOMweb plugin, from the folder above that of the Orthanc program.
PLUGIN_FOLDERS = ("share/orthanc/plugins", "lib/orthanc/plugins", "local/share/orthanc/plugins")
PLUGIN = "libOrthancDicomWeb.so"


class Missing(Exception):
    """A program that the benchmark needs is not installed."""


class ServerFailure(Exception):
    """A server did not start, or ended."""


@dataclass(frozen=True, slots=True)
class Peers:
    """The programs that are not ours."""

    orthanc: Path
    plugin: Path
    storescu: Path
    storescp: Path
    nginx: Path


@dataclass(slots=True, eq=False)
class Server:
    """A server of the benchmark; its directory holds everything that it writes."""

    name: str
    directory: Path
    command: tuple[str, ...]
    environment: Mapping[str, str]
    dicom_port: int
    http_port: int = 0  # 0: speaks no HTTP
    dicomweb_root: str = ""
    ready_path: str = ""
    register: Callable[[], None] | None = None
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def pid(self) -> int:
        """The process id while it runs. Raises ServerFailure when it does not."""
        if self.process is None or self.process.poll() is not None:
            raise ServerFailure(f"{self.name} does not run; see {self.log}")
        return self.process.pid

    @property
    def log(self) -> Path:
        """What the server printed."""
        return self.directory.with_name(f"{self.directory.name}.log")

    def start(self) -> float:
        """Start and return the seconds until it answers at each of its ports."""
        self.directory.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        self.process = processes.start(self.command, self.environment, self.directory, self.log)
        while not self._is_ready():
            if time.perf_counter() - started > READY_TIMEOUT_S:
                raise ServerFailure(f"{self.name} was not ready in time; see {self.log}")
            time.sleep(POLL_S)
        return time.perf_counter() - started

    def ask_to_stop(self) -> None:
        """Let the server begin to end."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def stop(self) -> None:
        """End the server and everything that it started."""
        if self.process is not None:
            processes.stop(self.process)
            self.process = None

    def clear(self) -> None:
        """Remove everything that the server has written."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _is_ready(self) -> bool:
        if self.pid and self.http_port:
            url = f"http://{HOST}:{self.http_port}{self.ready_path}"
            try:
                with urllib.request.urlopen(url, timeout=5):
                    pass
            except (OSError, urllib.error.URLError):
                return False
        try:
            socket.create_connection((HOST, self.dicom_port), timeout=1).close()
        except OSError:
            return False
        return True


def find_peers(orthanc: str | None, plugin: str | None) -> Peers:
    """Return the programs. Raises Missing naming the one that is not there."""
    program = _program(orthanc or "Orthanc", "the package orthanc, or give --orthanc")
    if plugin is not None:
        library = Path(plugin)
    else:
        prefix = program.resolve().parent.parent
        places = [prefix / folder / PLUGIN for folder in PLUGIN_FOLDERS]
        library = next((place for place in places if place.exists()), places[0])
    if not library.exists():
        raise Missing(
            f"{PLUGIN} is not installed: the package orthanc-dicomweb, or give --orthanc-plugin"
        )
    return Peers(
        program,
        library.resolve(),
        _program("storescu", "the package dcmtk"),
        _program("storescp", "the package dcmtk"),
        _program("nginx", "the package nginx-light"),
    )


def _program(name: str, where: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is not installed: {where}")
    return Path(found)


def without_nagle() -> dict[str, str]:
    """Return our environment for Orthanc and DCMTK.

    Their packages leave Nagle's algorithm on, which costs 40 ms a DIMSE message.
    """
    return {**os.environ, "TCP_NODELAY": "1"}


def bfr(directory: Path, first_port: int) -> Server:
    """Return BFR with every setting at its default but ports and folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BFR_")}
    environment |= {
        "BFR_DATA_DIR": str(directory / "var"),
        "BFR_HTTP_PORT": str(first_port),
        "BFR_DIMSE_PORT": str(first_port + 1),
        "PYTHONUNBUFFERED": "1",
    }
    command = (sys.executable, "-m", "bfr_command")

    address = ("--host", HOST, "--port", str(first_port + 9))
    receiver = ("--host", HOST, "--port", str(first_port + 4))

    def register() -> None:
        for words in (
            ("connection", "add", "Bench"),
            ("archive", "add", CALLED_AE_TITLE, "--connection", "Bench"),
            ("node", "add", CALLING_AE_TITLE, "--connection", "Bench", *address),
            ("node", "add", RECEIVER_AE_TITLE, "--connection", "Bench", *receiver),
        ):
            done = subprocess.run(
                [*command, *words],
                env=environment,
                cwd=directory,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise ServerFailure(f"bfr {' '.join(words)}: {done.stderr.strip()}")

    return Server(
        BFR,
        directory,
        (*command, "up"),
        environment,
        dicom_port=first_port + 1,
        http_port=first_port,
        dicomweb_root="/dicomweb",
        ready_path="/readyz",
        register=register,
    )


def orthanc(directory: Path, first_port: int, peers: Peers) -> Server:
    """Return Orthanc with SQLite and DICOMweb; what is not named here is at its default."""
    configuration = {
        "Name": "bench",
        "StorageDirectory": str(directory / "storage"),
        "IndexDirectory": str(directory / "storage"),
        "StorageCompression": False,
        "OverwriteInstances": False,
        "StableAge": 60,
        "SyncStorageArea": True,
        "DicomAet": CALLED_AE_TITLE,
        "DicomPort": first_port + 3,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {
            RECEIVER_AE_TITLE: [RECEIVER_AE_TITLE, HOST, first_port + 4],
            CALLING_AE_TITLE: [CALLING_AE_TITLE, HOST, first_port + 9],
        },
        "HttpPort": first_port + 2,
        "HttpThreadsCount": 50,
        "KeepAlive": True,
        "TcpNoDelay": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "IndexConnectionsCount": 5,
        "Plugins": [str(peers.plugin)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    path = directory.with_name("orthanc.json")
    path.write_text(json.dumps(configuration, indent=2))
    return Server(
        ORTHANC,
        directory,
        (str(peers.orthanc), str(path)),
        without_nagle(),
        dicom_port=first_port + 3,
        http_port=first_port + 2,
        dicomweb_root="/dicom-web",
        ready_path="/dicom-web/studies?limit=1",
    )


def storescp(directory: Path, first_port: int, peers: Peers) -> Server:
    """Return DCMTK's receiver, which writes the bytes and keeps no index."""
    port = first_port + 4
    options = ("--fork", "+B", "-pdu", "131072", "-od", str(directory))
    return Server(
        STORESCP,
        directory,
        (str(peers.storescp), *options, str(port)),
        without_nagle(),
        dicom_port=port,
    )


def file_server(directory: Path, first_port: int, peers: Peers) -> Server:
    """Return nginx, which gives the files below its directory and does nothing else."""
    port = first_port + 5
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "ready").write_bytes(b"")
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = f"""
        daemon off; worker_processes auto; pid {directory}.pid; error_log stderr;
        {"user root;" if os.geteuid() == 0 else ""}
        events {{ worker_connections 64; }}
        http {{
            access_log off; sendfile off; output_buffers 2 1m; {temporary}
            server {{ listen {HOST}:{port}; root {directory}; }}
        }}
    """
    path = directory.with_name("nginx.conf")
    path.write_text(configuration)
    return Server(
        FILE_SERVER,
        directory,
        (str(peers.nginx), "-c", str(path), "-e", "stderr"),
        os.environ,
        dicom_port=port,
        http_port=port,
        ready_path="/ready",
    )


def versions(peers: Peers) -> dict[str, str]:
    """Return the versions of the programs as they tell them."""
    result = {}
    for name, program in (("orthanc", peers.orthanc), ("dcmtk", peers.storescu)):
        told = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, check=False
        )
        lines = (told.stdout + told.stderr).strip().splitlines()
        result[name] = lines[0].strip() if lines else "?"
    return result
