"""A disk without room: senders are told to try later, and nothing acknowledged is lost."""

import http.client
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from tests.conftest import need
from tests.demo_system import archive_url
from tests.peers.retrieved import dataset_of, retrieve_study
from tests.samples import ct_instance, part10_bytes
from tests.samples.images import new_uid
from tests.system import System, running_system

AE_TITLE, NODE = "SMALL", "STORESCU"
DISK_BYTES = 24 * 1024 * 1024
ROOM_BYTES = 5 * 1024 * 1024  # what the filler leaves
SIDE = 700  # pixels: an object of nearly 1 MB
OBJECTS = 9  # more than there is room for
SEALING_TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system whose packs lie on a small disk of their own."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts a disk of its own")
    directory = tmp_path_factory.mktemp("full")
    blobs = directory / "var" / "blobs"
    blobs.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(blobs)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        with running_system(directory) as system:
            system.add_archive(AE_TITLE, [NODE])
            yield system
    finally:
        subprocess.run(["umount", str(blobs)], check=True)


@pytest.fixture
def filler(system: System) -> Iterator[Path]:
    """A file that leaves little room on the disk."""
    file = system.directory / "var" / "blobs" / "filler"
    file.write_bytes(bytes(shutil.disk_usage(file.parent).free - ROOM_BYTES))
    yield file
    file.unlink(missing_ok=True)


@dataclass
class Sending:
    """The objects of one study, and which of them a door acknowledged."""

    system: System
    folder: Path
    study_instance_uid: str = field(default_factory=new_uid)
    objects: dict[str, bytes] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        series = new_uid()
        self.folder.mkdir()
        for number in range(1, OBJECTS + 1):
            dataset = ct_instance(
                rows=SIDE,
                columns=SIDE,
                StudyInstanceUID=self.study_instance_uid,
                SeriesInstanceUID=series,
                InstanceNumber=number,
            )
            self.objects[str(dataset.SOPInstanceUID)] = part10_bytes(dataset)

    def stow(self, uid: str) -> int:
        """Send one object in a request of its own and return the HTTP status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.system.http_port, timeout=60)
        try:
            connection.request(
                "POST",
                f"/archives/{AE_TITLE}/dicomweb/studies",
                b"--B\r\nContent-Type: application/dicom\r\n\r\n"
                + self.objects[uid]
                + b"\r\n--B--\r\n",
                {"Content-Type": 'multipart/related; type="application/dicom"; boundary=B'},
            )
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
        if answer.status == 200:
            self.acknowledged.add(uid)
        return answer.status

    def storescu(self, uids: Sequence[str]) -> list[str]:
        """Send objects over one association and return what was answered to each."""
        paths = []
        for number, uid in enumerate(uids):
            paths.append(self.folder / f"{number:03d}.dcm")
            paths[-1].write_bytes(self.objects[uid])
        result = subprocess.run(
            [need("storescu"), "-v", "-nh", "-aec", AE_TITLE,
             "127.0.0.1", str(self.system.dimse_port), *map(str, paths)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )  # fmt: skip
        answers = re.findall(r"Received Store Response \((.+)\)", result.stdout)
        assert len(answers) == len(uids), result.stdout
        self.acknowledged |= {
            uid for uid, answer in zip(uids, answers, strict=True) if answer == "Success"
        }
        return answers

    def check(self) -> None:
        """Fail unless what was acknowledged is there, whole, and nothing else is."""
        found = retrieve_study(archive_url(self.system, AE_TITLE), self.study_instance_uid)
        assert found.keys() == self.acknowledged
        for uid, data in found.items():
            assert dataset_of(data) == dataset_of(self.objects[uid])

    def check_sealed(self) -> None:
        """Fail unless the study is complete in a while, although its disk was full."""
        path = f"/api/archives/{AE_TITLE}/studies/{self.study_instance_uid}"
        deadline = time.monotonic() + SEALING_TIMEOUT_S
        while httpx.get(self.system.url + path).json()["study"]["state"] != "complete":
            assert time.monotonic() < deadline, self.system.log[-3000:]
            time.sleep(0.2)


def test_a_full_disk_refuses_over_http_and_takes_more_when_there_is_room(
    system: System, filler: Path, tmp_path: Path
) -> None:
    sending = Sending(system, tmp_path / "objects")
    statuses = [sending.stow(uid) for uid in sending.objects]
    assert set(statuses) == {200, 503}
    sending.check()
    refused = sending.objects.keys() - sending.acknowledged
    uid = refused.pop()
    assert sending.storescu([uid]) == ["Refused: OutOfResources"]
    sending.check()
    filler.unlink()
    assert sending.stow(uid) == 200
    assert sending.storescu([refused.pop()]) == ["Success"]
    sending.check()
    sending.check_sealed()


def test_a_full_disk_refuses_over_dimse_and_takes_more_when_there_is_room(
    system: System, filler: Path, tmp_path: Path
) -> None:
    sending = Sending(system, tmp_path / "objects")
    answers = sending.storescu(list(sending.objects))
    assert set(answers) == {"Success", "Refused: OutOfResources"}
    sending.check()
    refused = sending.objects.keys() - sending.acknowledged
    uid = refused.pop()
    assert sending.stow(uid) == 503
    sending.check()
    filler.unlink()
    assert sending.storescu([uid]) == ["Success"]
    assert sending.stow(refused.pop()) == 200
    sending.check()
    sending.check_sealed()
    assert not [line for line in system.command("doctor").splitlines() if line.startswith("fault")]
