"""Import: whatever tree it is given, each file is stored or named with the reason."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.command.commands import Answer, add_archive, bfr, done, write_files
from tests.samples import ct_instance, part10_bytes
from tests.samples.images import new_uid
from tests.samples.non_patient import hanging_protocol

from bfr_command import importing
from bfr_command.importing import Found, Journal
from bfr_core.errors import Unavailable
from bfr_core.postgres import Cluster
from bfr_core.receiving import Received
from bfr_core.registration_batch import Outcome
from bfr_core.settings import Settings
from bfr_core.store import Store

PATIENCE_S = 60.0


def images(number: int, **attributes: object) -> list[bytes]:
    study = new_uid()
    return [
        part10_bytes(
            ct_instance(
                **{"rows": 8, "columns": 8, "StudyInstanceUID": study, "SeriesInstanceUID": study}
                | {"InstanceNumber": instance, **attributes}  # type: ignore[arg-type]
            )
        )
        for instance in range(1, number + 1)
    ]


def told(answer: Answer) -> tuple[int, int, int, int]:
    """The numbers of the last sentence: stored, stored before, skipped, not stored."""
    found = re.fullmatch(
        r"(\d+) stored, (\d+) were stored before, (\d+) done by the interrupted import,"
        r" (\d+) not stored\n",
        answer.out,
    )
    assert found, answer
    new, identical, skipped, failed = map(int, found.groups())
    return new, identical, skipped, failed


def instances(settings: Settings) -> int:
    with psycopg.connect(settings.database_url) as connection:
        row = connection.execute("SELECT coalesce(sum(number_of_instances), 0) FROM study")
        return int((row.fetchone() or (0,))[0])


def journals(settings: Settings) -> list[Path]:
    return list((settings.data_dir / "imports").glob("*"))


def test_a_tree_is_stored_and_a_second_time_changes_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    add_archive(settings)
    tree = tmp_path / "tree"
    write_files(tree / "a" / "b" / "Å och ä", *images(2))
    write_files(tree / ".hidden", *images(1))
    (tree / "a" / "empty").mkdir()
    (tree / "DICOMDIR").write_bytes(b"table of contents")
    answer = bfr(settings, "import", "--archive", "ARCHIVE", tree)
    assert (answer.status, told(answer)) == (0, (3, 0, 0, 0))
    answer = bfr(settings, "import", "--archive", "ARCHIVE", tree, tree / "a")
    assert (answer.status, told(answer)) == (0, (0, 3, 0, 0))
    assert instances(settings) == 3
    assert journals(settings) == []


def test_what_cannot_be_stored_is_named_with_its_reason(settings: Settings, tmp_path: Path) -> None:
    add_archive(settings)
    tree = tmp_path / "tree"
    first, second = images(2)
    write_files(tree, first)
    (tree / "truncated.dcm").write_bytes(second[:-50])
    (tree / "notes.txt").write_text("no image")
    (tree / "empty").touch()
    (tree / "zeros").write_bytes(bytes(1000))
    (tree / "gone").symlink_to(tree / "nowhere")
    (tree / "itself").symlink_to(tree / "itself")
    os.mkfifo(tree / "pipe")
    answer = bfr(settings, "import", "--archive", "ARCHIVE", tree)
    assert (answer.status, told(answer)) == (1, (1, 0, 0, 7))
    reasons = dict(re.findall(rf"not stored: {tree}/(\S+): (.+)", answer.err))
    assert reasons.pop("truncated.dcm")
    assert reasons == {
        "notes.txt": "is no DICOM file (PS3.10 §7.1)",
        "empty": "is no DICOM file (PS3.10 §7.1)",
        "zeros": "is no DICOM file (PS3.10 §7.1)",
        "gone": "No such file or directory",
        "itself": "Too many levels of symbolic links",
        "pipe": "is neither a file nor a folder",
    }
    assert instances(settings) == 1


def test_an_unreadable_folder_is_named_too(settings: Settings, tmp_path: Path) -> None:
    """Silence would look like success. Run as a user who, unlike root, can be kept out."""
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o000)
        found = list(importing._files([tmp_path]))
    else:
        (tmp_path / "closed").mkdir(mode=0o700)
        tmp_path.chmod(0o755)
        os.seteuid(65534)
        try:
            found = list(importing._files([tmp_path / "closed"]))
        finally:
            os.seteuid(0)
    assert [(one.path.name, one.problem) for one in found] == [("closed", "Permission denied")]


def test_links_are_followed_and_loops_end(settings: Settings, tmp_path: Path) -> None:
    add_archive(settings)
    tree, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    write_files(tree, *images(1))
    write_files(elsewhere, *images(1))
    (tree / "up").symlink_to(tree)
    (tree / "away").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(tree)
    answer = bfr(settings, "import", "--archive", "ARCHIVE", tree)
    assert (answer.status, told(answer)) == (0, (2, 0, 0, 0))


def test_file_names_may_be_any_bytes(settings: Settings, tmp_path: Path) -> None:
    add_archive(settings)
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, data in zip((b"\xff\xfe", b"a\nb", b" "), images(3), strict=True):
        (tree / os.fsdecode(name)).write_bytes(data)
    (tree / os.fsdecode(b"\xe5.txt")).touch()
    answer = bfr(settings, "import", "--archive", "ARCHIVE", tree)
    assert (answer.status, told(answer)) == (1, (3, 0, 0, 1))


def test_a_refused_object_keeps_none_of_the_others_out(settings: Settings, tmp_path: Path) -> None:
    add_archive(settings)
    files = images(5)
    other = images(1, SOPInstanceUID="1.2.3", PatientID="199001019802")
    twin = images(1, SOPInstanceUID="1.2.3", PatientID="198501019809")
    write_files(tmp_path / "tree", *files, *other, *twin)
    answer = bfr(settings, "import", "--archive", "ARCHIVE", tmp_path / "tree")
    assert (answer.status, told(answer)) == (1, (6, 0, 0, 1))
    assert "another object is stored under this SOP Instance UID" in answer.err
    assert "9001019802" not in answer.err


def test_nothing_to_import_is_said(settings: Settings, tmp_path: Path) -> None:
    add_archive(settings)
    (tmp_path / "empty").mkdir()
    answer = bfr(settings, "import", "--archive", "ARCHIVE", tmp_path / "empty")
    assert (answer.status, answer.out) == (0, "")
    assert answer.err == "there are no files to import\n"


def test_a_path_or_an_archive_that_is_not_there_is_one_sentence(
    settings: Settings, tmp_path: Path
) -> None:
    answer = bfr(settings, "import", "--archive", "ARCHIVE", tmp_path / "none")
    assert (answer.status, answer.err) == (1, f"bfr: {tmp_path / 'none'} does not exist\n")
    answer = bfr(settings, "import", "--archive", "NONE", tmp_path)
    assert (answer.status, answer.err) == (1, "bfr: there is no archive 'NONE'\n")


def test_a_huge_file_that_is_no_image_is_not_read_to_its_end(
    with_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """It would fill the disk with what is refused in the end, and stop the import."""
    settings = with_settings(object_memory_bytes=100_000, object_max_bytes=10**9)
    add_archive(settings)
    with (tmp_path / "disk.img").open("wb") as file:
        file.truncate(900_000_000)  # sparse
    with (tmp_path / "large.dcm").open("wb") as file:
        file.write(images(1)[0])
        file.truncate(2 * 10**9)
    answer = bfr(settings, "import", "--archive", "ARCHIVE", tmp_path)
    assert answer.status == 1
    assert "disk.img: is no DICOM file" in answer.err
    assert "large.dcm: the object is larger than 1000000000 bytes" in answer.err
    assert list(settings.data_dir.rglob("*.pack")) == []


def test_a_full_disk_ends_the_import_and_the_next_one_goes_on(
    with_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = with_settings()
    add_archive(settings)
    write_files(tmp_path / "tree", *images(3))
    full = with_settings(free_space_min_bytes=1 << 60)
    answer = bfr(full, "import", "--archive", "ARCHIVE", tmp_path / "tree")
    assert (answer.status, answer.err) == (1, "bfr: the disk of the archive is full\n")
    answer = bfr(settings, "import", "--archive", "ARCHIVE", tmp_path / "tree")
    assert (answer.status, told(answer)) == (0, (3, 0, 0, 0))


def test_what_was_read_before_the_disk_was_full_is_stored(
    with_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """A second series needs a pack of its own, which the full disk refuses."""
    settings = with_settings()
    add_archive(settings)
    tree = tmp_path / "tree"
    write_files(tree / "1", *images(2))
    write_files(tree / "2", *images(1))
    room = [1]  # packs

    def require_space(blobs: object) -> None:
        if not room:
            raise Unavailable("the disk of the archive is full")
        room.pop()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("bfr_core.blobs.FileBlobs.require_space", require_space)
        answer = bfr(settings, "import", "--archive", "ARCHIVE", tree)
    assert answer.status == 1
    assert told(answer) == (2, 0, 0, 0)
    assert instances(settings) == 2
    answer = bfr(settings, "import", "--archive", "ARCHIVE", tree)
    assert (answer.status, told(answer)) == (0, (1, 0, 2, 0))


def start_import(settings: Settings, tree: Path) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BFR_")}
    return subprocess.Popen(
        [sys.executable, "-m", "bfr_command", "import", "--archive", "ARCHIVE", str(tree)],
        env={**kept, **settings.to_environment()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupted(settings: Settings, tree: Path, number: signal.Signals) -> tuple[int, str, str]:
    with start_import(settings, tree) as process:
        deadline = time.monotonic() + PATIENCE_S
        while instances(settings) == 0:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_import_goes_on_where_it_was(
    settings: Settings, tmp_path: Path, number: signal.Signals
) -> None:
    add_archive(settings)
    tree = tmp_path / "tree"
    write_files(tree, *images(600))
    status, out, err = interrupted(settings, tree, number)
    stored = instances(settings)
    assert 0 < stored < 600
    if number == signal.SIGINT:
        assert status == 130
        assert "interrupted: the same command goes on where it was" in err
        assert "Traceback" not in err
        assert told(Answer(status, out, err))[0] > 0
    answer = bfr(settings, "import", "--archive", "ARCHIVE", tree)
    new, identical, skipped, failed = told(answer)
    assert (answer.status, failed) == (0, 0)
    assert skipped > 0
    assert new + identical + skipped == 600
    assert new == 600 - stored
    assert instances(settings) == 600
    assert journals(settings) == []


def test_a_file_that_changed_since_the_interruption_is_read_again(
    settings: Settings, tmp_path: Path
) -> None:
    add_archive(settings)
    first, second = images(2)
    (path,) = write_files(tmp_path / "tree", first)
    done(bfr(settings, "import", "--archive", "ARCHIVE", tmp_path / "tree"))
    name = importing.journal_name("ARCHIVE", [tmp_path / "tree"])
    journal = Journal(settings.data_dir / "imports" / name)
    (found,) = importing._files([tmp_path / "tree"])
    journal.add([found.key()])
    journal.close()
    path.write_bytes(second)
    answer = bfr(settings, "import", "--archive", "ARCHIVE", tmp_path / "tree")
    assert (answer.status, told(answer)) == (0, (1, 0, 0, 0))


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=20), st.integers(0, 15))
def test_a_journal_torn_at_any_byte_is_read_as_far_as_it_goes(
    tmp_path_factory: pytest.TempPathFactory, keys: list[bytes], torn: int
) -> None:
    path = tmp_path_factory.mktemp("imports") / "a.journal"
    journal = Journal(path)
    journal.add(keys)
    journal.close()
    with path.open("ab") as file:
        file.write(b"x" * torn)
    journal = Journal(path)
    assert journal.done == {*keys}
    journal.add([b"y" * 16])
    journal.close()
    journal = Journal(path)
    assert journal.done == {*keys, b"y" * 16}
    journal.end()
    assert not path.exists()


def test_a_large_tree_is_walked_without_being_held(tmp_path: Path) -> None:
    """Only one folder's names are known at a time, and every file comes once, in order."""
    for folder in range(20):
        (tmp_path / f"{folder:02d}").mkdir()
        for file in range(20):
            (tmp_path / f"{folder:02d}" / f"{file:02d}").touch()
    walk = importing._files([tmp_path])
    assert not isinstance(walk, list | tuple)
    first = next(iter(walk))
    rest = list(walk)
    assert [str(one.path) for one in (first, *rest)] == sorted(
        str(one.path) for one in (first, *rest)
    )
    assert len(rest) == 399


def test_a_deep_tree_is_no_trouble(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(1500):
        folder = folder / "d"
        folder.mkdir()
    (folder / "file").touch()
    assert [one.path for one in importing._files([tmp_path])] == [folder / "file"]
    (folder / "file").unlink()  # pytest's own removal does not go that deep
    while folder != tmp_path:
        folder.rmdir()
        folder = folder.parent


def test_the_key_of_a_file_tells_its_path_size_and_time() -> None:
    found = Found(Path("/a"), 1, 2)
    others = [Found(Path("/b"), 1, 2), Found(Path("/a"), 2, 2), Found(Path("/a"), 1, 3)]
    assert len({one.key() for one in (found, *others)}) == 4
    assert found.key() == Found(Path("/a"), 1, 2).key()


def test_when_the_database_breaks_off_what_was_stored_is_told(
    settings: Settings, cluster: Cluster, database_name: str, tmp_path: Path
) -> None:
    add_archive(settings)
    write_files(tmp_path / "tree", *images(150))
    commit = Store.commit
    batches = []

    async def commit_without_database(store: Store, received: Sequence[Received]) -> list[Outcome]:
        batches.append(received)
        if len(batches) == 2:
            url = cluster.url("postgres", database_name)
            async with await psycopg.AsyncConnection.connect(url) as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND usename = 'bfr_app'"
                )
        return await commit(store, received)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Store, "commit", commit_without_database)
        answer = bfr(settings, "import", "--archive", "ARCHIVE", tmp_path / "tree")
    assert answer.status == 1
    assert told(answer) == (100, 0, 0, 0)
    assert "bfr: the database is not available" in answer.err
    answer = bfr(settings, "import", "--archive", "ARCHIVE", tmp_path / "tree")
    assert (answer.status, told(answer)) == (0, (50, 0, 100, 0))


def test_what_belongs_to_no_patient_is_imported_too(settings: Settings, tmp_path: Path) -> None:
    add_archive(settings)
    files = write_files(tmp_path, part10_bytes(hanging_protocol()), part10_bytes(ct_instance()))
    assert done(bfr(settings, "import", "--archive", "ARCHIVE", *files)).startswith("2 stored")
    with psycopg.connect(settings.database_url) as connection:
        count = "SELECT (SELECT count(*) FROM non_patient_instance), count(*) FROM study"
        assert connection.execute(count).fetchone() == (1, 1)
