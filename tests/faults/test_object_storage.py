"""Two data centres, either of which may be away: reception goes on, and nothing is lost."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import obstore
import psutil
import pytest
from tests.object_storage import ObjectStorage, running_object_storage
from tests.peers.retrieved import retrieve_study
from tests.peers.test_full_disk import AE_TITLE, NODE, Sending
from tests.system import System, running_system

BUCKET = "packs"
SPOOL_MAX_BYTES = 5_000_000  # five of the objects that are sent here
PATIENCE_S = 120.0


@dataclass
class Region:
    """A system with a store in each of two data centres."""

    system: System
    near: ObjectStorage
    far: ObjectStorage

    @property
    def url(self) -> str:
        """The DICOMweb root of the archive."""
        return f"{self.system.url}/archives/{AE_TITLE}/dicomweb"

    @property
    def folder(self) -> Path:
        """The spool."""
        return self.system.directory / "var" / "blobs"

    def wait_until(self, what: str, condition: Callable[[], bool]) -> None:
        """Return when it is so."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"not {what}:\n{self.system.log[-3000:]}"
            time.sleep(0.2)

    def wait_until_uploaded(self, sending: Sending) -> None:
        """Return when the study is sealed and both buckets hold all that was sent so far."""
        sending.check_sealed()
        self.wait_until(
            "uploaded",
            lambda: "all in the buckets too" in self.system.run("doctor").stdout,
        )
        assert self.near.contents(BUCKET) == self.far.contents(BUCKET)

    def packs_in_spool(self) -> int:
        """The bytes of the packs that are on the disk."""
        return sum(path.stat().st_size for path in self.folder.rglob("*.pack"))


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    directory = tmp_path_factory.mktemp("region")
    with (
        running_object_storage(directory / "near") as near,
        running_object_storage(directory / "far") as far,
    ):
        for storage in (near, far):
            storage.make_bucket(BUCKET)
        with running_system(
            directory / "system",
            BFR_BUCKET_URL=near.url(BUCKET),
            BFR_SECOND_BUCKET_URL=far.url(BUCKET),
            BFR_SPOOL_MAX_BYTES=str(SPOOL_MAX_BYTES),
            **near.environment,
        ) as system:
            system.add_archive(AE_TITLE, [NODE])
            yield Region(system, near, far)


@pytest.fixture(autouse=True)
def whole_afterwards(region: Region) -> Iterator[None]:
    yield
    for storage in (region.near, region.far):
        if not storage.is_running:
            storage.start()


def send(sending: Sending, objects: int) -> None:
    """Send some objects, each again until there is room for it."""
    for uid in list(sending.objects)[:objects]:
        deadline = time.monotonic() + PATIENCE_S
        while sending.stow(uid) != 200:
            assert time.monotonic() < deadline, sending.system.log[-3000:]
            time.sleep(0.5)


def check_bytes(region: Region, sending: Sending) -> None:
    """Fail unless the study comes back as it was sent, byte for byte."""
    found = retrieve_study(region.url, sending.study_instance_uid)
    assert found == {uid: sending.objects[uid] for uid in sending.acknowledged}


def test_what_left_the_disk_comes_back_byte_for_byte(region: Region, tmp_path: Path) -> None:
    sending = Sending(region.system, tmp_path / "objects")
    send(sending, 9)
    region.wait_until_uploaded(sending)
    region.wait_until("room", lambda: region.packs_in_spool() <= 0.8 * SPOOL_MAX_BYTES)
    check_bytes(region, sending)
    study = f"{region.url}/studies/{sending.study_instance_uid}"
    metadata = httpx.get(f"{study}/metadata", timeout=60).json()
    assert {one["00080018"]["Value"][0] for one in metadata} == sending.acknowledged
    for one in metadata:
        series, instance = one["0020000E"]["Value"][0], one["00080018"]["Value"][0]
        frame = httpx.get(
            f"{study}/series/{series}/instances/{instance}/frames/1",
            headers={"Accept": "application/octet-stream"},
            timeout=60,
        )
        assert frame.status_code == 200
        assert sending.objects[instance].endswith(frame.content)


def test_reception_goes_on_while_both_are_away_and_all_is_uploaded_later(
    region: Region, tmp_path: Path
) -> None:
    before = Sending(region.system, tmp_path / "before")
    send(before, 5)
    region.wait_until_uploaded(before)
    during = Sending(region.system, tmp_path / "during")
    region.near.stop()
    region.far.stop()
    # Until the spool is full: then senders keep what they have.
    statuses = []
    for uid in during.objects:
        statuses.append(during.stow(uid))
        time.sleep(1.1)  # the spool is measured again once a second
    assert statuses[0] == 200
    assert statuses[-1] == 503
    refused = next(uid for uid in during.objects if uid not in during.acknowledged)
    assert during.storescu([refused]) == ["Refused: OutOfResources"]
    check_bytes(region, during)
    during.check_sealed()
    region.far.start()
    region.near.start()
    region.wait_until_uploaded(during)
    send(during, 9)
    check_bytes(region, during)
    check_bytes(region, before)


def test_either_data_centre_answers_and_none_is_told_as_such(
    region: Region, tmp_path: Path
) -> None:
    old = Sending(region.system, tmp_path / "old")
    send(old, 5)
    region.wait_until_uploaded(old)
    new = Sending(region.system, tmp_path / "new")
    send(new, 5)
    region.wait_until_uploaded(new)
    for away in (region.near, region.far):
        away.stop()
        check_bytes(region, old)
        check_bytes(region, new)
        away.start()
    region.near.stop()
    region.far.stop()
    answer = httpx.get(f"{region.url}/studies/{old.study_instance_uid}", timeout=120)
    assert answer.status_code == 503
    # Metadata is on the disk for longer.
    metadata = httpx.get(f"{region.url}/studies/{old.study_instance_uid}/metadata", timeout=60)
    assert len(metadata.json()) == 5


def test_a_worker_killed_in_the_middle_of_an_upload(region: Region, tmp_path: Path) -> None:
    sending = Sending(region.system, tmp_path / "objects")
    region.near.freeze()
    try:
        send(sending, 3)
        sending.check_sealed()
        worker = region.system.role("worker")
        region.wait_until("uploading", lambda: region.near.port in ports_of(worker))
        worker.kill()
    finally:
        region.near.thaw()
    region.wait_until_uploaded(sending)
    check_bytes(region, sending)


def ports_of(process: psutil.Process) -> set[int]:
    """The ports that the process has connections to."""
    return {one.raddr.port for one in process.net_connections(kind="tcp") if one.raddr}


def test_a_data_centre_whose_disks_have_failed_is_healed_from_the_other(
    region: Region, tmp_path: Path
) -> None:
    sending = Sending(region.system, tmp_path / "objects")
    send(sending, 2)
    region.wait_until_uploaded(sending)
    whole = region.near.contents(BUCKET)
    bucket = region.far.bucket(BUCKET)
    for number, (key, data) in enumerate(whole.items()):
        middle = len(data) // 2
        noise = data[:middle] + os.urandom(16) + data[middle + 16 :]
        if number % 3 == 0:
            obstore.delete(bucket, key)
        else:
            obstore.put(bucket, key, (noise, data[:middle])[number % 3 - 1])
    answer = region.system.command("blobs", "heal", "--read")
    looked_at = int(answer.split(" with ")[1].split()[0])
    assert f": {looked_at} copies made" in answer
    assert answer.endswith(" 0 lost\n")
    # Manifests that were replaced a moment ago are nobody's any more and left alone.
    healed = region.far.contents(BUCKET)
    assert sum(healed.get(key) == data for key, data in whole.items()) == looked_at
    assert region.near.contents(BUCKET) == whole
    region.near.stop()
    check_bytes(region, sending)
