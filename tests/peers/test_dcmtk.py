"""dcmtk, curl and the `bfr` command against a whole system, as a newcomer uses them."""

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import psutil
import pydicom
import pytest
from pydicom.uid import JPEGBaseline8Bit
from tests.conftest import SHARED_DICOM, need
from tests.demo_system import GREETING, archive_url, start_demo
from tests.peers.retrieved import (
    dataset_of,
    files_below,
    retrieve_study,
    sop_instance_uid_of,
    studies_of,
)
from tests.samples import TRANSFER_SYNTAXES, ct_instance, ct_series, part10_bytes
from tests.system import System

from bfr_command.demo import DemoSet, write_demo_files
from bfr_command.demo.history import STUDIES
from bfr_command.demo.labels import study_uid
from bfr_command.demonstration import ARCHIVE_AE_TITLE

README = Path(__file__).parents[2] / "README.md"
PROGRAMS = ("curl", "echoscu", "storescu", ".venv/bin/bfr")
# dcmtk 3.6.7 knows neither HTJ2K nor JPEG XL; JPEG Baseline holds no CT.
NOT_SENT = (JPEGBaseline8Bit, "1.2.840.10008.1.2.4.2", "1.2.840.10008.1.2.4.11")
SENT_BY_DCMTK = [uid for uid in TRANSFER_SYNTAXES if not str(uid).startswith(NOT_SENT)]


def dcmtk(
    system: System, program: str, *options: str, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a tool of dcmtk against the system and return what it says."""
    files = [] if folder is None else [str(folder)]
    return subprocess.run(
        [need(program), "-v", *options, "127.0.0.1", str(system.dimse_port), *files],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one small series, a part of it in a folder of its own."""
    folder = tmp_path / "YOUR_FOLDER"
    (folder / "more").mkdir(parents=True)
    for name, dataset in zip(("1.dcm", "more/2.dcm", "more/3.dcm"), ct_series(3), strict=True):
        (folder / name).write_bytes(part10_bytes(dataset))
    return folder


@pytest.fixture(scope="session")
def demo_set(system: System) -> DemoSet:
    """The files that the demonstration has sent."""
    return write_demo_files(system.directory / "var" / "demo")


def test_echo_with_the_name_dcmtk_gives_itself_is_answered(system: System) -> None:
    answer = dcmtk(system, "echoscu", "-aec", ARCHIVE_AE_TITLE)
    assert answer.returncode == 0, answer.stdout
    assert "Received Echo Response (Success)" in answer.stdout


@pytest.mark.parametrize(
    ("titles", "reason"),
    [
        (("-aet", "STRANGER", "-aec", ARCHIVE_AE_TITLE), "Calling AE Title Not Recognized"),
        (("-aec", "NOBODY"), "Called AE Title Not Recognized"),
        (("-aet", "STRANGER", "-aec", "NOBODY"), "Called AE Title Not Recognized"),
    ],
    ids=["unregistered node", "unknown archive", "both"],
)
def test_an_association_is_refused_in_the_words_of_the_standard(
    system: System, titles: Sequence[str], reason: str
) -> None:
    answer = dcmtk(system, "echoscu", *titles)
    assert answer.returncode != 0
    assert "Result: Rejected Permanent" in answer.stdout
    assert f"Reason: {reason}" in answer.stdout


def test_a_folder_sent_with_storescu_comes_out(system: System, folder: Path) -> None:
    answer = dcmtk(system, "storescu", "-aec", ARCHIVE_AE_TITLE, "+sd", "+r", folder=folder)
    assert answer.returncode == 0, answer.stdout
    sent = {sop_instance_uid_of(path.read_bytes()): path for path in files_below(folder)}
    assert answer.stdout.count("Received Store Response (Success)") == len(sent) == 3
    (study_instance_uid,) = studies_of(list(sent.values()))
    found = retrieve_study(archive_url(system), study_instance_uid)
    assert found.keys() == sent.keys()
    for uid, data in found.items():
        assert pydicom.dcmread(sent[uid]).PixelData in data


def test_dcmsend_stores_every_transfer_syntax_that_it_knows(system: System, tmp_path: Path) -> None:
    add_archive(system, "PEERS", "DCMSEND")
    sent = {}
    for syntax in SENT_BY_DCMTK:
        data = part10_bytes(ct_instance(transfer_syntax_uid=syntax))
        sent[sop_instance_uid_of(data)] = data
        (tmp_path / f"{syntax}.dcm").write_bytes(data)
    answer = dcmtk(system, "dcmsend", "-dn", "-aec", "PEERS", "+sd", folder=tmp_path)
    assert answer.returncode == 0, answer.stdout
    for study_instance_uid in studies_of(list(tmp_path.iterdir())):
        for uid, data in retrieve_study(archive_url(system, "PEERS"), study_instance_uid).items():
            # dcmtk writes what it sends anew, so elements are compared, not bytes.
            found, original = (pydicom.dcmread(io.BytesIO(one)) for one in (data, sent.pop(uid)))
            if original.file_meta.TransferSyntaxUID.is_compressed:
                assert found.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
            else:  # of these dcmtk chooses one
                assert (found.pixel_array == original.pixel_array).all()
                del found.PixelData, original.PixelData
            assert found == original
    assert not sent


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.key)
def test_every_demo_object_comes_out_as_it_was_sent(
    system: System, demo_set: DemoSet, study: object
) -> None:
    uid = str(study_uid(study))  # type: ignore[arg-type]
    files = [file for file in demo_set.files if file.study_instance_uid == uid]
    found = retrieve_study(archive_url(system), uid)
    assert found.keys() == {file.sop_instance_uid for file in files}
    for file in files:
        sent, kept = file.path.read_bytes(), found[file.sop_instance_uid]
        if file.door == "STOW-RS":
            assert kept == sent
        else:
            assert dataset_of(kept) == dataset_of(sent)


def test_real_files_come_out_byte_for_byte_and_what_is_refused_has_a_reason(
    system: System, tmp_path: Path
) -> None:
    if not SHARED_DICOM.is_dir():
        pytest.skip("the collection of real files is not here")
    add_archive(system, "FILES")
    result = system.run("import", "--archive", "FILES", str(SHARED_DICOM))
    refused = dict(re.findall(r"^not stored: (.+?): (.+)$", result.stderr, re.MULTILINE))
    stored: dict[str, dict[str, bytes]] = {}
    for study_instance_uid, paths in studies_of(files_below(SHARED_DICOM)).items():
        for path in paths:
            if str(path) in refused:
                continue
            data = path.read_bytes()
            stored.setdefault(study_instance_uid, {})[sop_instance_uid_of(data)] = data
    assert sum(map(len, stored.values())) > 400
    assert set(refused.values()) <= {
        "is no DICOM file (PS3.10 §7.1)",
        "SOP Class UID (0008,0016) is missing",
        "Study Instance UID (0020,000D) is missing",
        "another object is stored under this SOP Instance UID",
    }
    for study_instance_uid, sent in stored.items():
        found = retrieve_study(archive_url(system, "FILES"), study_instance_uid)
        # The File Meta Information of a few names the object otherwise than the data set does.
        assert sorted(found.values()) == sorted(sent.values())


def test_a_folder_is_imported_once_and_exported_byte_for_byte(
    system: System, folder: Path, tmp_path: Path
) -> None:
    first = system.command("import", "--archive", ARCHIVE_AE_TITLE, str(folder))
    assert first.startswith("3 stored, 0 were stored before,")
    second = system.command("import", "--archive", ARCHIVE_AE_TITLE, str(folder))
    assert second.startswith("0 stored, 3 were stored before,")
    (study_instance_uid,) = studies_of(files_below(folder))
    out = tmp_path / "out"
    assert "3 files written" in system.command("export", "--to", str(out), study_instance_uid)
    written = {path.stem: path.read_bytes() for path in files_below(out)}
    sent = {
        sop_instance_uid_of(path.read_bytes()): path.read_bytes() for path in files_below(folder)
    }
    assert written == sent


def test_an_unknown_archive_or_study_is_told_in_one_sentence(
    system: System, folder: Path, tmp_path: Path
) -> None:
    for arguments in (
        ("import", "--archive", "NOWHERE", str(folder)),
        ("import", "--archive", ARCHIVE_AE_TITLE, str(tmp_path / "nothing")),
        ("export", "--to", str(tmp_path / "out"), "1.2.3.4"),
    ):
        result = system.run(*arguments)
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1
        assert "Traceback" not in result.stderr


def test_doctor_finds_nothing_wrong(system: System) -> None:
    lines = system.command("doctor").splitlines()
    assert not [line for line in lines if line.startswith("fault")]
    serving = [line.split()[1] for line in lines if line.endswith("serves")]
    assert serving == ["web", "dimse", "worker"]


def test_connections_archives_and_nodes_are_listed(system: System) -> None:
    assert "Demo-PACS\ttest" in system.command("connection", "list").splitlines()
    archives = [line.split("\t") for line in system.command("archive", "list").splitlines()]
    assert [ARCHIVE_AE_TITLE, "Demonstrationsarkiv", "Demo-PACS"] in archives
    nodes = [line.split("\t") for line in system.command("node", "list").splitlines()]
    own = {line[0] for line in nodes if line[-1] == "Demo-PACS"}
    assert own == {"DEMOPACS", "STORESCU", "ECHOSCU", "FINDSCU", "GETSCU", "MOVESCU"}


def commands_of(text: str) -> list[str]:
    """Return the lines of a text that run a program we know, without their comments."""
    lines = (line.strip().removeprefix("$ ") for line in text.splitlines())
    return [line for line in lines if line.startswith(tuple(f"{name} " for name in PROGRAMS))]


README_COMMANDS = commands_of("".join(re.findall(r"```\w*\n(.*?)```", README.read_text(), re.S)))


def test_the_readme_has_commands_to_try() -> None:
    assert {command.split()[0] for command in README_COMMANDS} >= {"curl", "storescu"}


@pytest.mark.parametrize("command", README_COMMANDS)
def test_the_commands_of_the_readme_work_as_written(
    system: System, folder: Path, tmp_path: Path, command: str
) -> None:
    command = command.replace("127.0.0.1:8080", system.url.removeprefix("http://"))
    command = re.sub(r"\b11112\b", str(system.dimse_port), command)
    output = carry_out(command, system, folder, tmp_path)
    if "/studies?" in command:
        assert json.loads(output), "the search of the README finds nothing"
    for written in re.findall(r" -o (\S+)", command):
        assert (tmp_path / written).stat().st_size > 10_000


def test_the_commands_of_the_greeting_work_as_written(
    system: System, folder: Path, tmp_path: Path
) -> None:
    greeting = system.log.rpartition(GREETING)[2]
    commands = commands_of(greeting.replace("  bfr ", "  .venv/bin/bfr "))
    assert {command.split()[0] for command in commands} == set(PROGRAMS)
    for command in commands:
        carry_out(command, system, folder, tmp_path)


def carry_out(command: str, system: System, folder: Path, directory: Path) -> str:
    """Run a printed command with its placeholders filled in and return what it prints."""
    words = [
        {
            "YOUR_FOLDER": str(folder),
            "OUT": str(directory / "out"),
            "STUDY_INSTANCE_UID": str(study_uid(STUDIES[0])),
        }.get(word, word.replace("STUDY_INSTANCE_UID", str(study_uid(STUDIES[0]))))
        for word in shlex.split(command, comments=True)
    ]
    program = [sys.executable, "-m", "bfr_command"] if "bfr" in words[0] else [need(words[0])]
    # curl calls an answer of 404 a success unless it is told otherwise.
    (directory / ".curlrc").write_text("fail\n")
    result = subprocess.run(
        [*program, *words[1:]],
        cwd=directory,
        env={**system.environment, "CURL_HOME": str(directory)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def add_archive(system: System, ae_title: str, *nodes: str) -> None:
    """Register an archive of its own for a test, unless it is there."""
    if ae_title not in system.command("archive", "list"):
        system.add_archive(ae_title, nodes)


def test_ctrl_c_in_a_terminal_stops_every_process(tmp_path: Path) -> None:
    system = System(tmp_path)
    with (tmp_path / "up.log").open("ab") as log:
        # In a terminal every process of the group gets the signal, not the first one alone.
        system.process = subprocess.Popen(
            [sys.executable, "-m", "bfr_command", "up"],
            env=system.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        system.wait_until_ready()
        processes = system.processes()
        assert len(processes) > 4
        os.killpg(system.process.pid, signal.SIGINT)
        assert system.process.wait(60) == 0, system.log
        _, alive = psutil.wait_procs(processes[1:], timeout=10)
        assert not alive
    finally:
        if system.process.poll() is None:
            system.kill()
    assert "Traceback" not in system.log


def test_a_second_start_finds_everything_and_sends_no_demonstration_again(
    system: System, demo_set: DemoSet
) -> None:
    processes = system.processes()
    assert system.stop() == 0
    _, alive = psutil.wait_procs(processes[1:], timeout=10)
    assert not alive
    before = len(system.log)
    start_demo(system)
    assert "loading" not in system.log[before:]
    assert "making demo objects" not in system.log[before:]
    answer = httpx.get(f"{archive_url(system)}/studies", params={"limit": 1000}, timeout=30)
    found = {study["0020000D"]["Value"][0] for study in answer.json()}
    assert found >= {file.study_instance_uid for file in demo_set.files}
