"""Whatever is killed whenever: what was acknowledged is there afterwards, byte for byte."""

import abc
import gc
import http.client
import io
import socket
import threading
import time
from collections.abc import Iterator

import psutil
import pydicom
import pynetdicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from tests.samples import ct_instance, part10_bytes
from tests.samples.encoding import dataset_bytes
from tests.samples.images import new_uid
from tests.system import System, running_system

AE_TITLE = "FAULTS"
OBJECTS = 10  # acknowledged before the kill, and after it
PATIENCE_S = 60.0


class Sender(threading.Thread, abc.ABC):
    """Sends object after object and remembers which were acknowledged."""

    def __init__(self, system: System) -> None:
        super().__init__(daemon=True)
        self.system = system
        self.acknowledged: dict[str, bytes] = {}  # SOP Instance UID → data set
        self.study_instance_uid = new_uid()
        self.ending = threading.Event()

    def run(self) -> None:
        series = new_uid()
        for number in range(1, 100_000):
            dataset = ct_instance(
                rows=32,
                columns=32,
                StudyInstanceUID=self.study_instance_uid,
                SeriesInstanceUID=series,
                InstanceNumber=number,
            )
            if self.ending.is_set():
                return
            while not self.ending.is_set():
                try:
                    if self.send(part10_bytes(dataset)):
                        self.acknowledged[dataset.SOPInstanceUID] = dataset_bytes(dataset)
                        break
                except OSError:
                    pass
                time.sleep(0.1)

    def wait_for(self, more: int) -> None:
        """Return when so many more objects have been acknowledged."""
        wanted = len(self.acknowledged) + more
        deadline = time.monotonic() + PATIENCE_S
        while len(self.acknowledged) < wanted:
            assert time.monotonic() < deadline, self.system.log[-3000:]
            time.sleep(0.05)

    @abc.abstractmethod
    def send(self, data: bytes) -> bool:
        """Return whether the object was acknowledged as stored."""


class StowSender(Sender):
    """Sends one object a request."""

    def send(self, data: bytes) -> bool:
        head = b"--B\r\nContent-Type: application/dicom\r\n\r\n"
        connection = http.client.HTTPConnection("127.0.0.1", self.system.http_port, timeout=30)
        try:
            connection.request(
                "POST",
                f"/archives/{AE_TITLE}/dicomweb/studies",
                head + data + b"\r\n--B--\r\n",
                {"Content-Type": 'multipart/related; type="application/dicom"; boundary=B'},
            )
            response = connection.getresponse()
            response.read()
            return response.status == 200
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()


class CStoreSender(Sender):
    """Sends over one association as long as it lives, then over the next."""

    association: pynetdicom.association.Association | None = None

    def send(self, data: bytes) -> bool:
        if self.association is None or not self.association.is_established:
            # pynetdicom throws in a thread of its own when nobody listens.
            socket.create_connection(("127.0.0.1", self.system.dimse_port), 5).close()
            entity = pynetdicom.AE("SENDER")
            entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
            self.association = entity.associate(
                "127.0.0.1", self.system.dimse_port, ae_title=AE_TITLE
            )
            if not self.association.is_established:
                return False
        dataset = pydicom.dcmread(io.BytesIO(data))
        try:
            status = self.association.send_c_store(dataset)
        except (RuntimeError, ValueError):
            return False
        return "Status" in status and status.Status == 0


def victim_process(system: System, name: str) -> psutil.Process:
    if name == "database":
        return next(one for one in system.processes() if one.name().startswith("postgres"))
    return system.role(name)


def retrieved(system: System, sender: Sender) -> dict[str, bytes]:
    """Every stored object of the sender's study: SOP Instance UID → data set."""
    connection = http.client.HTTPConnection("127.0.0.1", system.http_port, timeout=60)
    connection.request(
        "GET",
        f"/archives/{AE_TITLE}/dicomweb/studies/{sender.study_instance_uid}",
        headers={"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'},
    )
    response = connection.getresponse()
    body = response.read()
    assert response.status == 200, body[:300]
    boundary = response.headers["Content-Type"].rpartition("boundary=")[2].encode()
    found = {}
    for part in body.split(b"\r\n--" + boundary):
        data = part.partition(b"\r\n\r\n")[2]
        if data:
            dataset = pydicom.dcmread(io.BytesIO(data))
            found[str(dataset.SOPInstanceUID)] = dataset_bytes(dataset)
    return found


@pytest.fixture
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("faults")) as system:
        system.add_archive(AE_TITLE, ["SENDER"])
        yield system
    gc.collect()


# pynetdicom, which sends here, leaves the socket of a killed peer to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("victim", ["dimse", "web", "worker", "database", "everything"])
def test_every_acknowledged_object_survives_a_kill(system: System, victim: str) -> None:
    senders: list[Sender] = [CStoreSender(system), StowSender(system)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.wait_for(OBJECTS)
    if victim == "everything":
        system.kill()
        system.start()
    else:
        victim_process(system, victim).kill()
    for sender in senders:
        sender.wait_for(OBJECTS)
    system.wait_until_ready()
    for sender in senders:
        sender.ending.set()
    for sender in senders:
        sender.join(60)
        assert not sender.is_alive()
    for sender in senders:
        assert sender.acknowledged
        found = retrieved(system, sender)
        lost = sender.acknowledged.keys() - found.keys()
        assert not lost
        assert all(found[uid] == data for uid, data in sender.acknowledged.items())


def test_one_of_several_web_processes_dies_and_the_others_go_on(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("faults")
    with running_system(directory, BFR_WEB_PROCESSES="2") as system:
        system.add_archive(AE_TITLE, ["SENDER"])
        senders = [StowSender(system), StowSender(system)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.wait_for(OBJECTS)
        first, second = system.role_processes("web")
        first.kill()
        for sender in senders:
            sender.wait_for(OBJECTS)
        assert second.is_running()
        for sender in senders:
            sender.ending.set()
        for sender in senders:
            sender.join(60)
            found = retrieved(system, sender)
            assert all(found[uid] == data for uid, data in sender.acknowledged.items())
        assert "web-1 ended by SIGKILL" in system.log
