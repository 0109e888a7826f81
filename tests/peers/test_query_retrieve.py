"""dcmtk and Orthanc query the archive and retrieve from it (PS3.4 Annex C)."""

import io
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pydicom
import pytest
from tests.conftest import need
from tests.peers.retrieved import dataset_of, files_below, sop_instance_uid_of
from tests.samples import ct_instance, ct_series, mr_instance, part10_bytes
from tests.samples.images import new_uid
from tests.system import System, free_port

WAIT_S = 60.0
# Debian's dcmtk leaves Nagle's algorithm on.
WITHOUT_NAGLE = {**os.environ, "TCP_NODELAY": "1"}


class Archive:
    """An archive of the system with one study of CT and MR in it, and its nodes."""

    def __init__(self, system: System, folder: Path) -> None:
        self.system = system
        self.ae_title = f"QR{free_port()}"
        system.add_archive(self.ae_title, ["PEER"])
        study = new_uid()
        objects = [
            *ct_series(5, StudyInstanceUID=study, PatientName="Ångström^Märta"),
            mr_instance(StudyInstanceUID=study, PatientName="Ångström^Märta"),
            ct_instance(StudyInstanceUID=study, transfer_syntax_uid="1.2.840.10008.1.2.4.90"),
        ]
        for one in objects:
            one.PatientName = "Ångström^Märta"
        self.study_instance_uid = study
        self.sent = {one.SOPInstanceUID: part10_bytes(one) for one in objects}
        folder.mkdir()
        for uid, data in self.sent.items():
            (folder / f"{uid}.dcm").write_bytes(data)
        system.command("import", "--archive", self.ae_title, str(folder))

    def add_node(self, ae_title: str, port: int) -> None:
        """Register a receiver."""
        self.system.command(
            "node", "add", ae_title, "--connection", self.ae_title,
            "--host", "127.0.0.1", "--port", str(port),
        )  # fmt: skip

    def ask(self, program: str, *options: str, directory: Path) -> str:
        """Run a tool of dcmtk as PEER and return what it says."""
        result = subprocess.run(
            [
                *(need(program), "-v", "-aet", "PEER", "-aec", self.ae_title),
                *(*options, "127.0.0.1", str(self.system.dimse_port)),
            ],
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, result.stdout
        return result.stdout

    @property
    def study_keys(self) -> Sequence[str]:
        return ("-k", "QueryRetrieveLevel=STUDY", "-k", f"0020,000d={self.study_instance_uid}")


@pytest.fixture(scope="module")
def archive(system: System, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return Archive(system, tmp_path_factory.mktemp("qr") / "sent")


@contextmanager
def running(*command: str, directory: Path, until: Callable[[], bool]) -> Iterator[None]:
    """A program of a peer, for the length of the block."""
    with (directory / "peer.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=directory, env=WITHOUT_NAGLE, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + WAIT_S
        while not until():
            alive = process.poll() is None and time.monotonic() < deadline
            assert alive, (directory / "peer.log").read_text()
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(WAIT_S)


def echoes(port: int, ae_title: str) -> Callable[[], bool]:
    """Whether a peer answers C-ECHO."""

    def ask() -> bool:
        command = [need("echoscu"), "-aet", "PEER", "-aec", ae_title, "127.0.0.1", str(port)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    return ask


def pixels_of(data: bytes) -> bytes:
    return bytes(pydicom.dcmread(io.BytesIO(data), force=True).PixelData)


def test_findscu_finds_the_study_with_its_swedish_name(archive: Archive, tmp_path: Path) -> None:
    archive.ask(
        *("findscu", "-S", "-X", "-k", "SpecificCharacterSet=ISO_IR 100"),
        *archive.study_keys,
        *("-k", "PatientName", "-k", "ModalitiesInStudy", "-k", "NumberOfStudyRelatedInstances"),
        directory=tmp_path,
    )
    [path] = tmp_path.glob("*.dcm")
    found = pydicom.dcmread(path, force=True)
    assert found.PatientName == "Ångström^Märta"
    assert sorted(found.ModalitiesInStudy) == ["CT", "MR"]
    assert found.NumberOfStudyRelatedInstances == 7


def test_findscu_walks_down_the_patient_root(archive: Archive, tmp_path: Path) -> None:
    for level, keys, count in (
        ("PATIENT", ["PatientName=*STR*"], 1),
        ("STUDY", ["PatientID=198501019809", "StudyInstanceUID"], 1),
        (
            "SERIES",
            [
                "PatientID=198501019809",
                f"StudyInstanceUID={archive.study_instance_uid}",
                "SeriesInstanceUID",
            ],
            3,
        ),
    ):
        options = [word for one in keys for word in ("-k", one)]
        said = archive.ask(
            *("findscu", "-P", "-k", f"QueryRetrieveLevel={level}"), *options, directory=tmp_path
        )
        assert said.count("(Pending)") == count, said
        assert "Success" in said


def test_getscu_brings_every_object_bit_by_bit(archive: Archive, tmp_path: Path) -> None:
    archive.ask(
        *("getscu", "-S", "+B", "-od", str(tmp_path)), *archive.study_keys, directory=tmp_path
    )
    found = {sop_instance_uid_of(path.read_bytes()): path for path in files_below(tmp_path)}
    assert found.keys() == archive.sent.keys()
    for uid, path in found.items():
        original = archive.sent[uid]
        if pydicom.dcmread(io.BytesIO(original)).file_meta.TransferSyntaxUID.is_compressed:
            continue  # getscu has asked for no such syntax: transcoded
        assert dataset_of(path.read_bytes()) == dataset_of(original)


def test_getscu_gets_a_compressed_object_decoded_when_it_takes_no_other(
    archive: Archive, tmp_path: Path
) -> None:
    archive.ask(*("getscu", "-S", "-od", str(tmp_path)), *archive.study_keys, directory=tmp_path)
    for path in files_below(tmp_path):
        found = pydicom.dcmread(path)
        original = pydicom.dcmread(io.BytesIO(archive.sent[found.SOPInstanceUID]))
        assert (found.pixel_array == original.pixel_array).all()


def test_movescu_to_storescp(archive: Archive, tmp_path: Path) -> None:
    port = free_port()
    archive.add_node("STORESCP", port)
    folder = tmp_path / "received"
    folder.mkdir()
    command = (need("storescp"), "+B", "+xa", "-aet", "STORESCP", "-od", str(folder), str(port))
    with running(*command, directory=tmp_path, until=echoes(port, "STORESCP")):
        said = archive.ask(
            *("movescu", "-S", "-aem", "STORESCP"), *archive.study_keys, directory=tmp_path
        )
    assert "Success" in said
    found = {sop_instance_uid_of(path.read_bytes()): path for path in files_below(folder)}
    assert found.keys() == archive.sent.keys()
    for uid, path in found.items():
        assert dataset_of(path.read_bytes()) == dataset_of(archive.sent[uid])


def test_movescu_to_dcmqrscp(archive: Archive, tmp_path: Path) -> None:
    port = free_port()
    archive.add_node("DCMQRSCP", port)
    folder = tmp_path / "DCMQRSCP"
    folder.mkdir()
    configuration = tmp_path / "dcmqrscp.cfg"
    configuration.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nDCMQRSCP {folder} RW (100, 1024mb) ANY\nAETable END\n"
    )
    command = (need("dcmqrscp"), "-c", str(configuration))
    with running(*command, directory=tmp_path, until=echoes(port, "DCMQRSCP")):
        said = archive.ask(
            *("movescu", "-S", "-aem", "DCMQRSCP"), *archive.study_keys, directory=tmp_path
        )
        assert "Success" in said
    found = {sop_instance_uid_of(path.read_bytes()) for path in files_below(folder)}
    assert found == archive.sent.keys()


def test_movescu_to_a_node_that_is_not_registered_is_told_so(
    archive: Archive, tmp_path: Path
) -> None:
    result = subprocess.run(
        [
            *(need("movescu"), "-v", "-S", "-aet", "PEER", "-aec", archive.ae_title),
            *("-aem", "NOBODY", *archive.study_keys, "127.0.0.1", str(archive.system.dimse_port)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert re.search("MoveDestinationUnknown|Move Destination unknown", result.stdout)


def test_getscu_that_cancels_leaves_the_system_well(archive: Archive, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            *(need("getscu"), "-S", "-aet", "PEER", "-aec", archive.ae_title, "--cancel", "2"),
            *("-od", str(tmp_path), *archive.study_keys),
            *("127.0.0.1", str(archive.system.dimse_port)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    process.communicate(timeout=60)
    said = archive.ask("findscu", "-S", *archive.study_keys, directory=tmp_path)
    assert "Success" in said


def test_orthanc_queries_and_retrieves(archive: Archive, tmp_path: Path) -> None:
    orthanc = need("Orthanc")
    http_port, dicom_port = free_port(), free_port()
    archive.add_node("ORTHANC", dicom_port)
    configuration = tmp_path / "orthanc.json"
    configuration.write_text(
        json.dumps(
            {
                "StorageDirectory": str(tmp_path / "storage"),
                "IndexDirectory": str(tmp_path / "storage"),
                "HttpPort": http_port,
                "DicomPort": dicom_port,
                "DicomAet": "ORTHANC",
                "DicomAlwaysAllowStore": True,
                "DicomCheckCalledAet": True,
                "DicomModalities": {
                    "bfr": {
                        "AET": archive.ae_title,
                        "Host": "127.0.0.1",
                        "Port": archive.system.dimse_port,
                    }
                },
            }
        )
    )
    root = f"http://127.0.0.1:{http_port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{root}/system").status_code == 200
        except httpx.TransportError:
            return False

    with running(orthanc, str(configuration), directory=tmp_path, until=answers):
        query = {
            "Level": "Study",
            "Query": {"PatientName": "ångström*", "ModalitiesInStudy": "MR"},
        }
        asked = httpx.post(f"{root}/modalities/bfr/query", json=query, timeout=60)
        assert asked.status_code == 200, asked.text
        path = asked.json()["Path"]
        assert httpx.get(f"{root}{path}/answers").json() == ["0"]
        content = httpx.get(f"{root}{path}/answers/0/content?simplify").json()
        assert content["PatientName"] == "Ångström^Märta"
        assert content["StudyInstanceUID"] == archive.study_instance_uid
        moved = httpx.post(f"{root}{path}/answers/0/retrieve", content="ORTHANC", timeout=60)
        assert moved.status_code == 200, moved.text
        found = {}
        for instance in httpx.get(f"{root}/instances").json():
            data = httpx.get(f"{root}/instances/{instance}/file", timeout=60).content
            found[sop_instance_uid_of(data)] = data
    assert found.keys() == archive.sent.keys()
    for uid, data in found.items():
        assert pixels_of(data) == pixels_of(archive.sent[uid])
