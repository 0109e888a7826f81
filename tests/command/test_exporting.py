"""Export: what was stored comes out byte for byte, under its name only when it is whole."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from tests.command.commands import Answer, add_archive, bfr, done, write_files
from tests.conftest import need
from tests.samples import TRANSFER_SYNTAXES, ct_instance, encoded, part10_bytes
from tests.samples.images import new_uid

from bfr_core.settings import Settings

PATIENCE_S = 60.0


def stored(settings: Settings, folder: Path, *files: bytes, archive: str = "ARCHIVE") -> None:
    write_files(folder, *files)
    done(bfr(settings, "import", "--archive", archive, folder))


def told(answer: Answer) -> list[str]:
    """What was said beside the progress."""
    return [line for line in answer.err.splitlines() if not line.startswith("exporting ")]


def exported(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_every_transfer_syntax_comes_out_byte_for_byte(settings: Settings, tmp_path: Path) -> None:
    add_archive(settings)
    study = new_uid()
    files = [
        part10_bytes(encoded(ct_instance(StudyInstanceUID=study), syntax))
        for syntax in TRANSFER_SYNTAXES
        if syntax != "1.2.840.10008.1.2.4.50"  # holds 8 bits only
    ]
    stored(settings, tmp_path / "in", *files)
    text = done(bfr(settings, "export", "--to", tmp_path / "out", study))
    assert text == f"{len(files)} files written to {tmp_path / 'out'}\n"
    assert exported(tmp_path / "out") == sorted(files)


def test_files_are_named_by_study_series_and_instance(settings: Settings, tmp_path: Path) -> None:
    add_archive(settings)
    uids = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3", "SOPInstanceUID": "1.2.3.4"}
    data = part10_bytes(ct_instance(**uids))  # type: ignore[arg-type]
    stored(settings, tmp_path / "in", data)
    done(bfr(settings, "export", "--archive", "ARCHIVE", "--to", tmp_path / "out", "1.2"))
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [
        tmp_path / "out" / "1.2" / "1.2.3" / "1.2.3.4.dcm"
    ]
    # A second time gives the same.
    done(bfr(settings, "export", "--to", tmp_path / "out", "1.2"))
    assert exported(tmp_path / "out") == [data]


def test_a_study_that_is_not_there_is_named_and_the_others_come(
    settings: Settings, tmp_path: Path
) -> None:
    add_archive(settings)
    add_archive(settings, "OTHER")
    data = part10_bytes(ct_instance(StudyInstanceUID="1.2"))
    stored(settings, tmp_path / "in", data)
    answer = bfr(settings, "export", "--to", tmp_path / "out", "9.9", "1.2", "../../etc")
    assert answer.status == 1
    assert told(answer) == [
        "not exported: 9.9: there is no such study in any archive",
        "not exported: ../../etc: there is no such study in any archive",
    ]
    assert answer.out.startswith("1 files written")
    assert exported(tmp_path / "out") == [data]
    answer = bfr(settings, "export", "--archive", "OTHER", "--to", tmp_path / "other", "1.2")
    assert (answer.status, answer.out.split()[0]) == (1, "0")
    assert "1.2: there is no such study in archive 'OTHER'" in answer.err
    answer = bfr(settings, "export", "--archive", "NONE", "--to", tmp_path / "other", "1.2")
    assert (answer.status, answer.err) == (1, "bfr: there is no archive 'NONE'\n")
    assert not (tmp_path / "other").exists()


def test_damaged_bytes_are_told_and_never_written(settings: Settings, tmp_path: Path) -> None:
    add_archive(settings)
    files = [
        part10_bytes(
            ct_instance(StudyInstanceUID="1.2", SeriesInstanceUID="1.2.3", InstanceNumber=number,
                        SOPInstanceUID=f"1.2.3.{number}")
        )
        for number in (1, 2)
    ]  # fmt: skip
    stored(settings, tmp_path / "in", *files)
    (pack,) = settings.blobs_dir.rglob("*.pack")
    damaged = bytearray(pack.read_bytes())
    damaged[-1] ^= 1
    pack.write_bytes(damaged)
    answer = bfr(settings, "export", "--to", tmp_path / "out", "1.2")
    assert answer.status == 1
    assert told(answer) == [
        "not exported: 1.2.3.2: its bytes are damaged: they are not what was stored"
    ]
    assert exported(tmp_path / "out") == files[:1]
    pack.unlink()
    answer = bfr(settings, "export", "--to", tmp_path / "gone", "1.2")
    assert answer.err.count("is missing") == 2
    assert exported(tmp_path / "gone") == []


def test_a_folder_that_cannot_be_written_is_one_sentence(
    settings: Settings, tmp_path: Path
) -> None:
    add_archive(settings)
    stored(settings, tmp_path / "in", part10_bytes(ct_instance(StudyInstanceUID="1.2")))
    (tmp_path / "file").touch()
    answer = bfr(settings, "export", "--to", tmp_path / "file", "1.2")
    assert (answer.status, answer.err.count("\n")) == (1, 1)
    assert str(tmp_path / "file") in answer.err


@pytest.mark.conforms("PS3.10 §8.6", "bfr export --dicomdir writes a file-set")
def test_studies_are_exported_as_a_file_set(settings: Settings, tmp_path: Path) -> None:
    add_archive(settings)
    files = [part10_bytes(ct_instance(StudyInstanceUID=f"1.{number}")) for number in (1, 2)]
    stored(settings, tmp_path / "in", *files)
    out = tmp_path / "out"
    done(bfr(settings, "export", "--dicomdir", "--to", out, "1.1", "1.2"))
    dump = subprocess.run(
        [need("dcmdump"), out / "DICOMDIR"], capture_output=True, check=True
    ).stdout.decode("latin-1")
    assert dump.count("[STUDY]") == dump.count("[IMAGE]") == 2
    assert dump.count("[PATIENT]") == 1
    names = re.findall(r"CS \[(DICOM.+?)\]", dump)
    assert [out.joinpath(*name.split("\\")).read_bytes() for name in names] == files
    # Another set in the same folder would leave files that no directory tells of.
    answer = bfr(settings, "export", "--dicomdir", "--to", out, "1.1")
    assert (answer.status, answer.err.count("holds a file-set already")) == (1, 1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_export_leaves_only_whole_files_under_their_names(
    settings: Settings, tmp_path: Path, number: signal.Signals
) -> None:
    add_archive(settings)
    study = new_uid()
    files = {
        part10_bytes(
            ct_instance(rows=256, columns=256, StudyInstanceUID=study, InstanceNumber=instance)
        )
        for instance in range(1, 41)
    }
    stored(settings, tmp_path / "in", *files)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BFR_")}
    with subprocess.Popen(
        [sys.executable, "-m", "bfr_command", "export", "--to", str(tmp_path / "out"), study],
        env={**kept, **settings.to_environment()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        deadline = time.monotonic() + PATIENCE_S
        while not list(tmp_path.glob("out/*/*/*.dcm*")):
            assert time.monotonic() < deadline
            assert process.poll() is None
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert b"Traceback" not in err
    named = [path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm")]
    assert {*named} <= files
    if number == signal.SIGINT:
        assert list((tmp_path / "out").rglob("*.part")) == []
    done(bfr(settings, "export", "--to", tmp_path / "out", study))
    assert {*exported(tmp_path / "out")} >= files
    assert list((tmp_path / "out").rglob("*.part")) == []


def test_an_export_is_on_record(settings: Settings, tmp_path: Path) -> None:
    add_archive(settings)
    stored(settings, tmp_path / "in", part10_bytes(ct_instance(StudyInstanceUID="1.2")))
    done(bfr(settings, "export", "--to", tmp_path / "out", "1.2"))
    with psycopg.connect(settings.database_url) as connection:
        rows = connection.execute(
            "SELECT caller_kind, door, study_instance_uid FROM audit_record WHERE action = 'read'"
        ).fetchall()
    assert rows == [("operator", "export", "1.2")]
