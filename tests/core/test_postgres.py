"""The embedded PostgreSQL: it starts, stops, dies with its parent and recovers."""

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from yoyo import get_backend

from bfr_core.child_process import is_running
from bfr_core.errors import Unavailable
from bfr_core.postgres import (
    APP_ROLE,
    OWNER_ROLE,
    Cluster,
    PostgresProcess,
    embedded_cluster,
    running,
)

SMALL_BYTES = 16 * 1024 * 1024
DEBIAN_BIN_DIR = Path("/usr/lib/postgresql/15/bin")


def wait_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def execute(cluster: Cluster, role: str, *statements: str) -> None:
    with psycopg.connect(cluster.url(role), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def rows(cluster: Cluster, query: str, role: str = OWNER_ROLE) -> list[tuple[object, ...]]:
    with psycopg.connect(cluster.url(role)) as connection:
        return connection.execute(query.encode()).fetchall()


@contextlib.contextmanager
def started(cluster: Cluster) -> Iterator[PostgresProcess]:
    process = PostgresProcess(cluster, shared_buffers_bytes=SMALL_BYTES)
    process.start()
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory after a first start and a clean stop."""
    data_dir = tmp_path_factory.mktemp("made") / "postgres"
    with started(embedded_cluster(data_dir)):
        pass
    return data_dir


@pytest.fixture
def cluster(made_once: Path, tmp_path: Path) -> Iterator[Cluster]:
    """A stopped cluster for one test."""
    data_dir = tmp_path / "postgres"
    shutil.copytree(made_once, data_dir)
    yield embedded_cluster(data_dir)
    shutil.rmtree(data_dir)  # pytest keeps the directories of three runs


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster for the tests that leave it as it is."""
    cluster = embedded_cluster(tmp_path_factory.mktemp("served") / "postgres")
    with started(cluster):
        yield cluster


OWNER_PROGRAM = textwrap.dedent(
    """
    import sys
    from pathlib import Path

    import psycopg
    from bfr_core.postgres import PostgresProcess, embedded_cluster

    cluster = embedded_cluster(Path(sys.argv[1]))
    process = PostgresProcess(cluster, shared_buffers_bytes=16 * 1024 * 1024)
    process.start()
    with psycopg.connect(cluster.url("bfr_owner"), autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS written (number int PRIMARY KEY)")
        number = connection.execute("SELECT coalesce(max(number), 0) FROM written").fetchone()[0]
        while True:
            number += 1
            connection.execute("INSERT INTO written VALUES (%s)", [number])
            print(number, flush=True)
    """
)


class OwnerProgram:
    """Another process that owns a cluster and writes numbers into it until it is killed."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER_PROGRAM, str(cluster.data_dir)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.lines = self.process.stdout
        self.last = 0

    def wait_for(self, count: int) -> None:
        """Return when it has reported another `count` numbers as committed."""
        for _ in range(count):
            self.last = int(self.lines.readline())

    def server_pids(self) -> list[int]:
        server = int((self.cluster.cluster_dir / "postmaster.pid").read_text().split("\n")[0])
        parents = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    status = (folder / "status").read_text()
                    found = re.search(r"^PPid:\s*(\d+)$", status, re.MULTILINE)
                    parents[int(folder.name)] = int(found[1]) if found else 0
        return [server, *(pid for pid, parent in parents.items() if parent == server)]

    def ended(self) -> int:
        """The last number it reported, when it is dead."""
        for line in self.lines:
            if line.endswith("\n"):
                self.last = int(line)
        self.process.wait()
        return self.last

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.lines.close()


@pytest.fixture
def owner_program(cluster: Cluster) -> Iterator[OwnerProgram]:
    program = OwnerProgram(cluster)
    yield program
    program.close()
    with started(cluster):  # waits for the server of the owner that was killed
        pass


def test_first_start_makes_the_database_and_its_roles(tmp_path: Path) -> None:
    cluster = embedded_cluster(tmp_path / "new" / "postgres")
    assert not running(cluster)
    process = PostgresProcess(cluster, shared_buffers_bytes=SMALL_BYTES)
    process.start()
    try:
        assert running(cluster)
        assert process.is_alive()
        assert rows(cluster, "SELECT current_database(), current_user", APP_ROLE) == [
            ("bfr", "bfr_app")
        ]
        owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'bfr'"
        assert rows(cluster, owner) == [("bfr_owner",)]
    finally:
        process.stop()
    assert not running(cluster)
    assert not process.is_alive()
    assert process.wait() == 0


def test_a_warm_start_finds_what_was_stored(cluster: Cluster) -> None:
    with started(cluster):
        execute(cluster, OWNER_ROLE, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
    with started(cluster):
        assert rows(cluster, "SELECT n FROM kept") == [(7,)]


def test_a_first_start_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    unfinished = tmp_path / "postgres" / "cluster.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    cluster = embedded_cluster(tmp_path / "postgres")
    with started(cluster):
        assert running(cluster)
    assert not unfinished.exists()


def test_starting_what_runs_changes_nothing(cluster: Cluster) -> None:
    with started(cluster) as process:
        before = rows(cluster, "SELECT pg_postmaster_start_time()")
        process.start()
        assert rows(cluster, "SELECT pg_postmaster_start_time()") == before


def test_the_server_is_started_from_the_main_thread_only(cluster: Cluster) -> None:
    raised: list[BaseException] = []

    def start() -> None:
        try:
            PostgresProcess(cluster).start()
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert len(raised) == 1


def test_stop_breaks_off_open_transactions(cluster: Cluster) -> None:
    with started(cluster) as process:
        execute(cluster, OWNER_ROLE, "CREATE TABLE kept (n int)")
        with psycopg.connect(cluster.url(OWNER_ROLE)) as connection:
            connection.execute("INSERT INTO kept VALUES (1)")
            process.stop()
            connection.close()
    with started(cluster):
        assert rows(cluster, "SELECT n FROM kept") == []


def test_settings_are_those_of_an_archive(served: Cluster) -> None:
    names = ("fsync", "jit", "shared_buffers", "max_wal_size", "work_mem", "listen_addresses")
    shown = {name: rows(served, f"SHOW {name}")[0][0] for name in names}
    assert shown == {
        "fsync": "on",
        "jit": "off",
        "shared_buffers": "16MB",
        "max_wal_size": "2GB",
        "work_mem": "16MB",
        "listen_addresses": "",
    }
    assert rows(served, "SHOW data_checksums") == [("on",)]


def test_cases_follow_unicode_and_order_follows_code_points(served: Cluster) -> None:
    assert rows(served, "SELECT lower('ÅÄÖ'), 'a' > 'B'") == [("åäö", True)]


def test_nothing_of_the_cluster_is_open_to_other_users(served: Cluster) -> None:
    for path in (served.data_dir, served.cluster_dir, served.socket_dir, served.log_path.parent):
        assert path.stat().st_mode & 0o077 == 0, path


def test_migrations_reach_the_database_by_the_same_address(served: Cluster) -> None:
    url = served.url(OWNER_ROLE).replace("postgresql:", "postgresql+psycopg:", 1)
    backend = get_backend(url)
    try:
        assert backend.execute("SELECT current_user").fetchall() == [("bfr_owner",)]
    finally:
        backend.connection.close()


def test_the_app_role_makes_and_drops_nothing_unless_granted(served: Cluster) -> None:
    execute(served, OWNER_ROLE, "CREATE TABLE owned (n int)")
    for statement in (
        "CREATE TABLE mine (n int)",
        "CREATE SCHEMA mine",
        "SELECT n FROM owned",
        "DROP TABLE owned",
        "ALTER TABLE owned ADD COLUMN m int",
        "DROP DATABASE bfr",
    ):
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectInUse)):
            execute(served, APP_ROLE, statement)
    execute(served, OWNER_ROLE, "GRANT SELECT, INSERT ON owned TO bfr_app")
    execute(served, APP_ROLE, "INSERT INTO owned VALUES (1)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        execute(served, APP_ROLE, "DROP TABLE owned")
    execute(served, OWNER_ROLE, "GRANT CREATE ON SCHEMA public TO bfr_app")
    execute(served, APP_ROLE, "CREATE TABLE mine (n int)", "DROP TABLE mine")


def test_a_role_of_another_database_does_not_reach_ours(served: Cluster) -> None:
    execute(served, "postgres", "CREATE ROLE stranger LOGIN")
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(served.url("stranger"))


@pytest.mark.parametrize("role", [OWNER_ROLE, APP_ROLE])
def test_the_log_names_no_patient(cluster: Cluster, role: str) -> None:
    number = "19850101-9801"
    with started(cluster):
        execute(
            cluster,
            OWNER_ROLE,
            "CREATE TABLE patient (patient_id text PRIMARY KEY)",
            "GRANT INSERT ON patient TO bfr_app",
            f"INSERT INTO patient VALUES ('{number}')",
        )
        with pytest.raises(psycopg.errors.UniqueViolation):
            execute(cluster, role, f"INSERT INTO patient VALUES ('{number}')")
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            execute(cluster, role, f"SELECT '{number}'::int")
    log = cluster.log_path.read_text()
    assert "database system is shut down" in log
    assert number not in log


def test_the_log_has_a_bound(cluster: Cluster) -> None:
    with started(cluster):
        pass
    full = cluster.log_path.with_name("postgres.log.1")
    assert not full.exists()
    with cluster.log_path.open("ab") as log:
        log.truncate(8 * 1024 * 1024)
    with started(cluster):
        pass
    assert full.stat().st_size == 8 * 1024 * 1024
    assert "database system is shut down" in cluster.log_path.read_text()


def test_kill_9_of_the_owner_stops_the_server_and_loses_nothing(
    owner_program: OwnerProgram, cluster: Cluster
) -> None:
    owner_program.wait_for(50)
    pids = owner_program.server_pids()
    owner_program.process.kill()
    last = owner_program.ended()
    wait_until(lambda: not any(is_running(pid) for pid in pids))
    assert not running(cluster)
    assert not (cluster.cluster_dir / "postmaster.pid").exists()  # a shutdown, not a crash
    with started(cluster):
        count, greatest = rows(cluster, "SELECT count(*), max(number) FROM written")[0]
    assert count == greatest
    assert greatest in (last, last + 1)  # the last may be committed and not yet reported


def test_the_next_owner_waits_for_the_server_of_a_killed_one(
    owner_program: OwnerProgram, cluster: Cluster
) -> None:
    owner_program.wait_for(50)
    owner_program.process.kill()
    last = owner_program.ended()
    with started(cluster):
        assert rows(cluster, f"SELECT count(*) >= {last} FROM written") == [(True,)]


def test_kill_9_of_everything_is_recovered_from(
    owner_program: OwnerProgram, cluster: Cluster
) -> None:
    owner_program.wait_for(50)
    for pid in (owner_program.process.pid, *owner_program.server_pids()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    last = owner_program.ended()
    assert (cluster.cluster_dir / "postmaster.pid").exists()
    with started(cluster):
        count, greatest = rows(cluster, "SELECT count(*), max(number) FROM written")[0]
    assert count == greatest
    assert greatest in (last, last + 1)
    assert "database system was not properly shut down" in cluster.log_path.read_text()


def test_a_server_that_was_killed_is_started_again_by_its_owner(cluster: Cluster) -> None:
    with started(cluster) as process:
        execute(cluster, OWNER_ROLE, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
        pid = int((cluster.cluster_dir / "postmaster.pid").read_text().split("\n")[0])
        os.kill(pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not process.is_alive()
        process.start()
        assert rows(cluster, "SELECT n FROM kept") == [(7,)]


def test_a_server_that_does_not_stop_when_asked_is_stopped_all_the_same(cluster: Cluster) -> None:
    with started(cluster) as process:
        execute(cluster, OWNER_ROLE, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
        pid = int((cluster.cluster_dir / "postmaster.pid").read_text().split("\n")[0])
        os.kill(pid, signal.SIGSTOP)
        resume = threading.Timer(1.0, os.kill, (pid, signal.SIGCONT))
        resume.start()
        process.stop(timeout_s=0.1)
        resume.join()
        assert not process.is_alive()
    with started(cluster):
        assert rows(cluster, "SELECT n FROM kept") == [(7,)]


def leave_lock_files(cluster: Cluster, pid: int) -> None:
    start_time_s = 1_700_000_000
    text = f"{pid}\n{cluster.cluster_dir}\n{start_time_s}\n5432\n{cluster.socket_dir}\n\n"
    for path in (
        cluster.cluster_dir / "postmaster.pid",
        cluster.socket_dir / ".s.PGSQL.5432.lock",
    ):
        path.write_text(text)
        path.chmod(0o600)


def test_lock_files_of_a_dead_process_do_not_hinder_a_start(cluster: Cluster) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    leave_lock_files(cluster, dead.pid)
    with started(cluster):
        assert running(cluster)


def test_lock_files_of_a_zombie_do_not_hinder_a_start(cluster: Cluster) -> None:
    zombie = subprocess.Popen(["true"])
    wait_until(lambda: not is_running(zombie.pid))
    os.kill(zombie.pid, 0)  # which is how PostgreSQL looks, and it succeeds
    leave_lock_files(cluster, zombie.pid)
    with started(cluster):
        assert running(cluster)
    zombie.wait()


def test_lock_files_whose_number_another_program_has_got_do_not_hinder_a_start(
    cluster: Cluster,
) -> None:
    other = subprocess.Popen(["sleep", "60"])
    try:
        leave_lock_files(cluster, other.pid)
        with started(cluster):
            assert running(cluster)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_an_empty_pid_file_does_not_hinder_a_start(cluster: Cluster) -> None:
    (cluster.cluster_dir / "postmaster.pid").touch(mode=0o600)
    with started(cluster):
        assert running(cluster)


def test_a_process_that_serves_the_files_is_left_alone(cluster: Cluster) -> None:
    other = subprocess.Popen(["sleep", "60"], cwd=cluster.cluster_dir)
    try:
        leave_lock_files(cluster, other.pid)
        with pytest.raises(Unavailable, match=f"served by process {other.pid}"):
            PostgresProcess(cluster).start()
        assert (cluster.cluster_dir / "postmaster.pid").exists()
    finally:
        other.kill()
        other.wait()


def test_a_second_owner_is_refused(owner_program: OwnerProgram, cluster: Cluster) -> None:
    owner_program.wait_for(1)
    with pytest.raises(Unavailable, match=f"in use by process {owner_program.process.pid}$"):
        PostgresProcess(cluster).start()
    owner_program.wait_for(1)
    assert running(cluster)


@pytest.mark.parametrize("version", ["17", "19"])
def test_a_cluster_of_another_version_is_refused(cluster: Cluster, version: str) -> None:
    (cluster.cluster_dir / "PG_VERSION").write_text(f"{version}\n")
    with pytest.raises(Unavailable, match=f"made by PostgreSQL {version} and the program is"):
        PostgresProcess(cluster).start()


def test_a_directory_without_programs_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be run"):
        PostgresProcess(embedded_cluster(cluster.data_dir, tmp_path)).start()


def test_a_server_that_does_not_start_says_why(cluster: Cluster) -> None:
    with (cluster.cluster_dir / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = on\n")
    process = PostgresProcess(cluster)
    with pytest.raises(Unavailable, match=r"did not start: configuration file .* contains errors"):
        process.start()
    assert not process.is_alive()


def test_a_failed_start_gives_the_cluster_free(cluster: Cluster) -> None:
    version = cluster.cluster_dir / "PG_VERSION"
    version.write_text("17\n")
    with pytest.raises(Unavailable):
        PostgresProcess(cluster).start()
    version.write_text("18\n")
    with started(cluster):
        assert running(cluster)


def test_a_long_path_gets_a_short_socket_directory(
    made_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime_dir = tmp_path / "r"
    runtime_dir.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(runtime_dir))
    data_dir = tmp_path / ("long" * 25) / "postgres"
    shutil.copytree(made_once, data_dir)
    cluster = embedded_cluster(data_dir)
    assert cluster.socket_dir.parent == runtime_dir
    with started(cluster):
        assert running(cluster)
        assert cluster.socket_dir.stat().st_mode & 0o777 == 0o700
    assert embedded_cluster(data_dir) == cluster

    cluster.socket_dir.chmod(0o777)
    with pytest.raises(Unavailable, match="not ours alone"):
        embedded_cluster(data_dir)
    cluster.socket_dir.chmod(0o700)
    elsewhere = tmp_path / "elsewhere"
    cluster.socket_dir.rename(elsewhere)
    cluster.socket_dir.symlink_to(elsewhere)
    with pytest.raises(Unavailable, match="not ours alone"):
        embedded_cluster(data_dir)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_root_serves_the_cluster_of_a_named_user_as_that_user(made_once: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as open_dir:
        os.chmod(open_dir, 0o755)
        data_dir = Path(open_dir, "postgres")
        shutil.copytree(made_once, data_dir)
        cluster = embedded_cluster(data_dir)
        os.chown(cluster.cluster_dir, nobody.pw_uid, nobody.pw_gid)
        for path in cluster.cluster_dir.rglob("*"):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        with started(cluster):
            pid = int((cluster.cluster_dir / "postmaster.pid").read_text().split("\n")[0])
            assert Path(f"/proc/{pid}").stat().st_uid == nobody.pw_uid
            assert rows(cluster, "SELECT current_user") == [("bfr_owner",)]
        with started(cluster):
            assert running(cluster)


@pytest.mark.skipif(not DEBIAN_BIN_DIR.exists(), reason="Debian's PostgreSQL 15 is not installed")
def test_the_programs_of_a_distribution_serve_as_well(tmp_path: Path) -> None:
    cluster = embedded_cluster(tmp_path / "postgres", DEBIAN_BIN_DIR)
    with started(cluster):
        assert rows(cluster, "SHOW server_version_num", APP_ROLE)[0][0] >= "150000"  # type: ignore[operator]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            execute(cluster, APP_ROLE, "CREATE TABLE mine (n int)")
    with pytest.raises(Unavailable, match="made by PostgreSQL 15"):
        PostgresProcess(embedded_cluster(tmp_path / "postgres")).start()
