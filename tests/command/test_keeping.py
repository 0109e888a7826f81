"""Deleting, verifying, cases, sweeping and comparing as an operator types them."""

import os
import uuid
from pathlib import Path

import psycopg
import pytest
from pydicom import Dataset
from tests.command.commands import Answer, add_archive, bfr, done, write_files
from tests.conftest import TEMPLATE
from tests.samples import ct_instance, part10_bytes

from bfr_core.postgres import Cluster
from bfr_core.settings import Settings


@pytest.fixture
def ct(settings: Settings, tmp_path: Path) -> Dataset:
    """A study of one instance that ARCHIVE holds."""
    one = ct_instance()
    add_archive(settings)
    write_files(tmp_path / "in", part10_bytes(one))
    done(bfr(settings, "import", "--archive", "ARCHIVE", tmp_path / "in"))
    return one


def exported(settings: Settings, tmp_path: Path, ct: Dataset) -> Answer:
    return bfr(
        settings, "export", "--archive", "ARCHIVE", "--to", tmp_path / "out", ct.StudyInstanceUID
    )


@pytest.mark.parametrize("level", [1, 2, 3])
def test_what_is_deleted_is_out_and_undelete_brings_it_back(
    settings: Settings, tmp_path: Path, ct: Dataset, level: int
) -> None:
    uids = [ct.StudyInstanceUID, ct.SeriesInstanceUID, ct.SOPInstanceUID][:level]
    told = done(bfr(settings, "delete", *uids, "--archive", "ARCHIVE", "--reason", "blurred"))
    assert told.startswith("1 objects are deleted")
    assert exported(settings, tmp_path, ct).status == 1
    again = bfr(settings, "import", "--archive", "ARCHIVE", tmp_path / "in")
    assert again.status == 1
    assert "deleted from this archive" in again.err
    assert done(bfr(settings, "undelete", *uids, "--archive", "ARCHIVE")) == "1 objects are back\n"
    assert "1 files written" in done(exported(settings, tmp_path, ct))


def test_a_rejection_leaves_a_note_and_is_taken_back_by_it(
    settings: Settings, tmp_path: Path, ct: Dataset
) -> None:
    study = ct.StudyInstanceUID
    delete = ("delete", study, "--archive", "ARCHIVE", "--reason", "blurred", "--code")
    told = done(bfr(settings, *delete, "113001"))
    assert told.startswith("1 objects are rejected")
    note = told.split(": ")[-1].split()
    assert note[0] == study
    assert "1 files written" in done(exported(settings, tmp_path, ct))
    assert done(bfr(settings, "undelete", *note, "--archive", "ARCHIVE")) == "1 objects are back\n"
    assert bfr(settings, *delete, "113000").status == 2


def test_a_deletion_needs_a_reason_and_something_to_delete(settings: Settings, ct: Dataset) -> None:
    study = ct.StudyInstanceUID
    assert bfr(settings, "delete", study, "--archive", "ARCHIVE").status == 2
    for uid, archive in ((study, "OTHER"), ("1.2.3", "ARCHIVE")):
        answer = bfr(settings, "delete", uid, "--archive", archive, "--reason", "blurred")
        assert (answer.status, answer.out) == (1, "")
        assert answer.err.startswith("bfr: there is no ")
    assert bfr(settings, "undelete", study, "--archive", "ARCHIVE").status == 1


def test_damage_is_found_listed_told_by_doctor_and_closed(settings: Settings, ct: Dataset) -> None:
    assert "1 objects of 1 series looked at" in done(bfr(settings, "verify"))
    assert bfr(settings, "case", "list").out == ""
    (pack,) = settings.blobs_dir.rglob("*.pack")
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(data)
    answer = bfr(settings, "verify", ct.StudyInstanceUID, "--archive", "ARCHIVE")
    assert answer.status == 1
    assert f"damaged_object\t{ct.SOPInstanceUID}" in answer.out
    number, kind, archive, uids, *_ = done(bfr(settings, "case", "list")).split("\t")
    assert (kind, archive) == ("damaged_object", "ARCHIVE")
    assert uids.split("/") == [ct.StudyInstanceUID, ct.SeriesInstanceUID, ct.SOPInstanceUID]
    assert "1 wait for somebody" in bfr(settings, "doctor").out
    done(bfr(settings, "case", "close", number))
    assert bfr(settings, "case", "list").out == ""
    assert "closed by" in done(bfr(settings, "case", "list", "--closed"))
    assert bfr(settings, "case", "close", number).status == 1


def test_verify_says_what_it_does_not_know(settings: Settings, ct: Dataset) -> None:
    assert bfr(settings, "verify", "1.2.3").status == 1
    assert "goes with" in bfr(settings, "verify", "--archive", "ARCHIVE").err


def test_sweep_removes_what_nothing_refers_to(settings: Settings, ct: Dataset) -> None:
    (pack,) = settings.blobs_dir.rglob("*.pack")
    orphan = pack.with_name("0123.pack")
    orphan.write_bytes(b"")
    assert done(bfr(settings, "blobs", "sweep")).startswith("0 blobs")
    os.utime(orphan, (0, 0))
    os.utime(pack, (0, 0))
    assert done(bfr(settings, "blobs", "sweep")) == "1 blobs of 0 bytes removed\n"
    assert (pack.exists(), orphan.exists()) == (True, False)


def test_two_indexes_are_compared(settings: Settings, cluster: Cluster, ct: Dataset) -> None:
    name = f"other_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(cluster.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER bfr_owner".encode())
        try:
            answer = bfr(settings, "index", "compare", cluster.url("bfr_app", name))
            assert answer.status == 1
            assert f"differs: ARCHIVE {ct.StudyInstanceUID}: 1 series, 1 objects" in answer.out
            assert "0 studies are the same in both, 1 differ" in answer.out
            same = bfr(settings, "index", "compare", settings.database_url)
            assert done(same) == "1 studies are the same in both, 0 differ\n"
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_rebuild_compares_when_it_is_asked_to(settings: Settings, ct: Dataset) -> None:
    answer = bfr(settings, "index", "rebuild", "--force", "--compare-with", settings.database_url)
    # No worker has written the connections yet, which is told.
    assert "connections.json is missing" in answer.err
    assert "1 packs read: 0 objects are in the index again, 1 were there" in answer.out
    assert "1 studies are the same in both, 0 differ" in answer.out
