"""The streaming upper layer, against a recording receiver (PS3.8 §9, PS3.7 §6.3)."""

import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from tests.legacy.raw_peer import (
    A_ABORT,
    A_ASSOCIATE_AC,
    A_ASSOCIATE_RJ,
    A_RELEASE_RP,
    ABORT,
    CT,
    EXPLICIT,
    INSTANCE,
    P_DATA,
    RELEASE_RQ,
    RawPeer,
    accepted,
    associate_rq,
    c_store_rq,
    element,
    even,
    p_data,
)

from bfr_core.access import Access
from bfr_core.connections import Archive
from bfr_core.errors import Conflict, Invalid, Unavailable
from bfr_core.node_terms import Shown
from bfr_core.receiving import Received, Reception
from bfr_core.registration_batch import Outcome
from bfr_legacy.dimse import echo
from bfr_legacy.dimse.negotiation import Service
from bfr_legacy.dimse.peers import Peer
from bfr_legacy.dimse.server import DimseServer
from bfr_legacy.dimse.store_scp import StorageStay, is_storage

PRIVATE = "1.3.6.1.4.1.9999.1.1"
VERIFICATION = "1.2.840.10008.1.1"
JPEG_LS = "1.2.840.10008.1.2.4.80"


# A receiver that records what the door does with it -----------------------------------------


@dataclass
class Recorded:
    """What became of one object."""

    sop_instance_uid: str
    transfer_syntax_uid: str
    data: bytearray = field(default_factory=bytearray)
    state: str = "arriving"


@dataclass
class Receiver:
    """Stands in for the core: keeps every object and may be told to fail."""

    objects: list[Recorded] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)
    on_begin: Exception | None = None
    on_write: Exception | None = None
    on_finish: Exception | None = None
    on_commit: Exception | None = None
    outcome_error: Exception | None = None
    commit_waits_for: threading.Event | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    def storage(self) -> Service:
        def stay(peer: Peer) -> StorageStay:
            return StorageStay(lambda: cast(Reception, self), self.commit)

        return Service(name="C-STORE", answers_for=is_storage, stay=stay)

    def incoming_dataset(
        self, *, transfer_syntax_uid: str, sop_class_uid: str, sop_instance_uid: str
    ) -> "RecordedIncoming":
        if self.on_begin:
            raise self.on_begin
        recorded = Recorded(sop_instance_uid, transfer_syntax_uid)
        self.objects.append(recorded)
        return RecordedIncoming(self, recorded)

    def commit(self, received: Received) -> Outcome:
        if self.commit_waits_for:
            self.commit_waits_for.wait(30)
        if self.on_commit:
            raise self.on_commit
        return Outcome(received, "new", cast(Any, self.outcome_error))

    def close(self) -> None:
        self.closed.set()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, 30)


@dataclass
class RecordedIncoming:
    receiver: Receiver
    recorded: Recorded

    def write(self, data: memoryview) -> None:
        if self.receiver.on_write:
            raise self.receiver.on_write
        with self.receiver.changed:
            self.recorded.data += data
            self.receiver.changed.notify_all()

    def finish(self) -> Any:
        if self.receiver.on_finish:
            raise self.receiver.on_finish
        self.recorded.state = "finished"
        return self.recorded

    def abort(self) -> None:
        with self.receiver.changed:
            self.recorded.state = "aborted"
            self.receiver.changed.notify_all()


def admit(called_ae_title: str, calling_ae_title: str, remote_address: str, shown: Shown) -> Peer:
    access = Access("node", calling_ae_title, frozenset([1]), remote_address)
    return Peer(access, Archive(1, 1, called_ae_title, "test"), calling_ae_title, remote_address)


@contextmanager
def serving(receiver: Receiver, **options: Any) -> Iterator[DimseServer]:
    settings: dict[str, Any] = {
        "limits_directory": Path("no node here has limits"),
        "max_pdu_bytes": 131_072,
        "max_associations": 50,
        "idle_timeout_s": 60.0,
        **options,
    }
    server = DimseServer(
        ("127.0.0.1", 0), [echo.verification(), receiver.storage()], admit, **settings
    )
    server.start()
    try:
        yield server
    finally:
        server.stop(0.0)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def server(receiver: Receiver) -> Iterator[DimseServer]:
    with serving(receiver) as running:
        yield running


# Storing -------------------------------------------------------------------------------------


def test_a_data_set_arrives_byte_for_byte_whatever_the_pieces(
    server: DimseServer, receiver: Receiver
) -> None:
    data = bytes(range(256)) * 40
    stream = p_data((1, 1, c_store_rq()[:30])) + p_data((1, 3, c_store_rq()[30:]), (1, 0, b""))
    stream += p_data((1, 0, data[:1000]), (1, 0, data[1000:1001])) + p_data((1, 2, data[1001:]))
    with RawPeer(server.port) as peer:
        peer.associate((CT, [JPEG_LS]))
        for start in range(0, len(stream), 777):
            peer.send(stream[start : start + 777])
        assert peer.response().Status == 0
    assert [bytes(one.data) for one in receiver.objects] == [data]
    assert receiver.objects[0].transfer_syntax_uid == JPEG_LS


def test_the_response_names_the_request_and_the_object(server: DimseServer) -> None:
    with RawPeer(server.port) as peer:
        peer.associate()
        peer.send(p_data((1, 3, c_store_rq(message_id=513))) + p_data((1, 2, b"abcd")))
        response = peer.response()
    assert response.CommandField == 0x8001
    assert response.MessageIDBeingRespondedTo == 513
    assert response.AffectedSOPClassUID == CT
    assert response.AffectedSOPInstanceUID == INSTANCE
    assert response.CommandDataSetType == 0x0101


def test_a_peer_that_takes_small_pdus_gets_small_pdus(server: DimseServer) -> None:
    with RawPeer(server.port) as peer:
        peer.associate(max_pdu_bytes=40)
        peer.send(p_data((1, 3, c_store_rq())) + p_data((1, 2, b"abcd")))
        kind, body = peer.read()
        assert kind == P_DATA
        assert len(body) == 40
        assert body[5] == 1


@pytest.mark.parametrize(
    ("moment", "error", "status"),
    [
        ("on_begin", Unavailable("no room"), 0xA700),
        ("on_write", Unavailable("the disk is full"), 0xA700),
        ("on_finish", Invalid("no Study Instance UID"), 0xC000),
        ("on_commit", Unavailable("the database is away"), 0xA700),
        ("outcome_error", Conflict("the study is another patient's"), 0xC001),
        ("on_finish", RuntimeError("a fault of ours"), 0x0110),
    ],
)
def test_an_object_that_fails_is_read_to_its_end_and_the_association_lives_on(
    server: DimseServer, receiver: Receiver, moment: str, error: Exception, status: int
) -> None:
    setattr(receiver, moment, error)
    with RawPeer(server.port) as peer:
        peer.associate()
        peer.send(p_data((1, 3, c_store_rq())))
        for _ in range(100):
            peer.send(p_data((1, 0, bytes(10_000))))
        peer.send(p_data((1, 2, bytes(10_000))))
        response = peer.response()
        assert response.Status == status
        if not isinstance(error, RuntimeError):
            assert response.ErrorComment == str(error)
        setattr(receiver, moment, None)
        assert peer.store(b"good", sop_instance_uid=INSTANCE + ".2") == 0
    assert bytes(receiver.objects[-1].data) == b"good"


def test_an_object_of_another_class_than_its_context_is_refused(server: DimseServer) -> None:
    with RawPeer(server.port) as peer:
        peer.associate((CT, [EXPLICIT]), (VERIFICATION, [EXPLICIT]))
        assert peer.store(b"x" * 8, sop_class_uid=CT + ".1") == 0x0122
        peer.send(p_data((3, 3, c_store_rq())) + p_data((3, 2, b"abcd")))
        assert peer.response().Status == 0x0122
        assert peer.store(b"good") == 0


def test_a_store_request_without_data_set_is_refused(server: DimseServer) -> None:
    with RawPeer(server.port) as peer:
        peer.associate()
        peer.send(p_data((1, 3, c_store_rq(data_set_type=0x0101))))
        assert peer.response().Status == 0xC000
        assert peer.store(b"good") == 0


@pytest.mark.parametrize("ending", [ABORT, b""], ids=["abort", "close"])
def test_nothing_stays_of_an_object_that_does_not_arrive_whole(
    server: DimseServer, receiver: Receiver, ending: bytes
) -> None:
    with RawPeer(server.port) as peer:
        peer.associate()
        peer.send(p_data((1, 3, c_store_rq())) + p_data((1, 0, b"half")))
        receiver.wait_for(lambda: any(one.data == b"half" for one in receiver.objects))
        peer.send(ending)
    assert receiver.closed.wait(30)
    assert [one.state for one in receiver.objects] == ["aborted"]


def test_a_released_association_ends_the_stay(server: DimseServer, receiver: Receiver) -> None:
    with RawPeer(server.port) as peer:
        peer.associate()
        assert peer.store(b"good") == 0
        peer.send(RELEASE_RQ)
        assert peer.read()[0] == A_RELEASE_RP
        assert peer.read() == (0, b"")
    assert receiver.closed.wait(30)
    assert [one.state for one in receiver.objects] == ["finished"]


# Negotiation ---------------------------------------------------------------------------------


def test_each_context_gets_the_first_real_transfer_syntax_it_proposes(
    server: DimseServer,
) -> None:
    with RawPeer(server.port) as peer:
        answer = peer.associate(
            (CT, [EXPLICIT, JPEG_LS]),
            (CT, [JPEG_LS, EXPLICIT]),
            (CT, ["1.2.840.10008.5.1.4.1.1.4", "1.2.840.113619.5.2"]),
            (CT, ["1.2.840.10008.1.1"]),
            (PRIVATE, ["1.2.840.10008.1.2.4.999"]),
            (VERIFICATION, [JPEG_LS]),
            ("1.2.840.10008.5.1.4.1.2.2.1", [EXPLICIT]),
        )
    assert accepted(answer) == {
        1: EXPLICIT,
        3: JPEG_LS,
        5: "1.2.840.113619.5.2",
        9: "1.2.840.10008.1.2.4.999",
    }


@pytest.mark.parametrize(
    ("uid", "expected"),
    [
        (CT, True),
        ("1.2.840.10008.5.1.4.34.7", True),
        ("1.2.840.10008.5.1.4.34.10", True),
        ("1.2.840.10008.5.1.4.1.1.66.99", True),  # newer than any list
        (PRIVATE, True),
        ("1.2.840.10008.1.1", False),
        ("1.2.840.10008.1.20.1", False),
        ("1.2.840.10008.5.1.4.31", False),
        ("1.2.840.10008.5.1.4.1.2.1.1", False),
        ("1.2.840.10008.5.1.4.1.1.200.4", False),
        ("1.2.840.10008.5.1.4.1.1.201.2", False),
        ("1.2.840.10008.5.1.4.38.1", True),  # of no patient
        ("1.2.840.10008.5.1.4.38.2", False),
        ("1.2.840.10008.3.1.2.3.3", False),
        ("", False),
        ("no uid", False),
    ],
)
def test_storage_classes_are_told_from_other_services(uid: str, expected: bool) -> None:
    assert is_storage(uid) is expected


def test_the_association_that_is_one_too_many_is_rejected_for_the_moment(
    receiver: Receiver,
) -> None:
    with serving(receiver, max_associations=1) as server:
        with RawPeer(server.port) as first, RawPeer(server.port) as second:
            first.associate()
            second.send(associate_rq([(CT, [EXPLICIT])]))
            assert second.read() == (A_ASSOCIATE_RJ, bytes([0, 2, 3, 2]))
            first.send(RELEASE_RQ)
            assert first.read()[0] == A_RELEASE_RP
            assert first.read() == (0, b"")
        first.socket.close()
        for _ in range(100):
            with RawPeer(server.port) as third:
                third.send(associate_rq([(CT, [EXPLICIT])]))
                if third.read()[0] == A_ASSOCIATE_AC:
                    break
        else:
            pytest.fail("the place of the released association was not given back")


def test_an_unknown_application_context_is_rejected(server: DimseServer) -> None:
    request = associate_rq([(CT, [EXPLICIT])]).replace(
        b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.9"
    )
    with RawPeer(server.port) as peer:
        peer.send(request)
        assert peer.read() == (A_ASSOCIATE_RJ, bytes([0, 1, 1, 2]))


# Disorder ------------------------------------------------------------------------------------


def echo_works(server: DimseServer) -> bool:
    result = subprocess.run(
        ["echoscu", "127.0.0.1", str(server.port)], capture_output=True, timeout=60, check=False
    )
    return result.returncode == 0


BAD_BEFORE_ASSOCIATION = {
    "another protocol": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "unknown PDU type": b"\x09\0\0\0\0\x04abcd",
    "a request of 4 GiB": b"\x01\0\xff\xff\xff\xff" + bytes(100),
    "data of 4 GiB": b"\x04\0\xff\xff\xff\xff" + bytes(100),
    "a request of nothing": b"\x01\0\0\0\0\0",
    "a request of zeros": b"\x01\0\0\0\0\x64" + bytes(100),
    "data too early": p_data((1, 3, c_store_rq())),
    "release too early": RELEASE_RQ,
    "a request cut short inside": associate_rq([(CT, [EXPLICIT])]).replace(
        b"\x10\0\0\x15", b"\x10\0\xff\x15"
    ),
    "an AE title of control characters": associate_rq([(CT, [EXPLICIT])]).replace(
        b"MODALITY", b"\x01\x02\x03\x04    "
    ),
}


@pytest.mark.parametrize("data", BAD_BEFORE_ASSOCIATION.values(), ids=BAD_BEFORE_ASSOCIATION)
def test_disorder_before_an_association_ends_only_that_connection(
    server: DimseServer, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with RawPeer(server.port) as peer:
        peer.send(data)
        assert peer.read()[0] == A_ABORT
        assert peer.read() == (0, b"")
    assert echo_works(server)
    assert [record for record in caplog.records if record.exc_info] == []


BAD_WITHIN_ASSOCIATION = {
    "another request": associate_rq([(CT, [EXPLICIT])]),
    "unknown PDU type": b"\x7f\0\0\0\0\x04abcd",
    "data of 4 GiB": b"\x04\0\xff\xff\xff\xff\0\0\0\x10\x01\x03" + bytes(100),
    "data of nothing": b"\x04\0\0\0\0\0",
    "a value beyond its PDU": b"\x04\0\0\0\0\x0a\0\0\0\xff\x01\x03abcd",
    "a value of one byte": b"\x04\0\0\0\0\x06\0\0\0\x01\x01\x03",
    "a PDU that ends in a header": b"\x04\0\0\0\0\x0c\0\0\0\x04\x01\x03ab\0\0\0\0",
    "a context that was not accepted": p_data((99, 3, c_store_rq())),
    "a data set without command": p_data((1, 2, b"abcd")),
    "a command within a data set": p_data((1, 3, c_store_rq()), (1, 3, c_store_rq())),
    "a data set in another context": p_data((1, 3, c_store_rq()), (3, 0, b"abcd")),
    "a command set of noise": p_data((1, 3, bytes(range(100)))),
    "a command set cut short": p_data((1, 3, c_store_rq()[:-3])),
    "an unknown command": p_data((1, 3, element(0x0100, b"\x77\x07") + element(0x0800, b"\1\1"))),
    "an echo without message ID": p_data(
        (1, 3, element(0x0100, b"\x30\x00") + element(0x0110, b"") + element(0x0800, b"\1\1"))
    ),
    "an echo without SOP class": p_data(
        (1, 3, element(0x0100, b"\x30\x00") + element(0x0110, b"\1\0") + element(0x0800, b"\1\1"))
    ),
    "a command set without end": p_data((1, 1, bytes(60_000))) * 2,
}


@pytest.mark.parametrize("data", BAD_WITHIN_ASSOCIATION.values(), ids=BAD_WITHIN_ASSOCIATION)
def test_disorder_within_an_association_aborts_it_and_nothing_else(
    server: DimseServer, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with RawPeer(server.port) as peer:
        peer.associate((CT, [EXPLICIT]), (CT, [JPEG_LS]))
        peer.send(data)
        assert peer.read()[0] == A_ABORT
        assert peer.read() == (0, b"")
    assert echo_works(server)
    assert [record for record in caplog.records if record.exc_info] == []


def test_a_service_we_do_not_offer_is_aborted_when_asked_for_under_a_storage_context(
    server: DimseServer,
) -> None:
    c_find_rq = element(0x0002, even(PRIVATE)) + element(0x0100, b"\x20\0")
    c_find_rq += element(0x0110, b"\1\0") + element(0x0700, b"\0\0") + element(0x0800, b"\1\0")
    with RawPeer(server.port) as peer:
        peer.associate((PRIVATE, [EXPLICIT]))
        peer.send(p_data((1, 3, c_find_rq)) + p_data((1, 2, b"\x10\0\x20\0LO\0\0")))
        assert peer.read()[0] == A_ABORT
    assert echo_works(server)


def test_a_query_finds_no_presentation_context(server: DimseServer) -> None:
    command = ["findscu", "-S", "-k", "QueryRetrieveLevel=STUDY", "127.0.0.1", str(server.port)]
    result = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert b"No Acceptable Presentation Contexts" in result.stderr
    assert echo_works(server)


# Time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("beginning", [b"", associate_rq([(CT, [EXPLICIT])])[:50]])
def test_a_connection_that_asks_for_nothing_is_closed(receiver: Receiver, beginning: bytes) -> None:
    with serving(receiver, request_timeout_s=0.2) as server, RawPeer(server.port) as peer:
        peer.send(beginning)
        assert peer.read() == (0, b"")


@pytest.mark.parametrize("beginning", [b"", p_data((1, 3, c_store_rq()), (1, 0, b"half"))])
def test_a_silent_association_is_aborted(receiver: Receiver, beginning: bytes) -> None:
    with serving(receiver, idle_timeout_s=0.2) as server, RawPeer(server.port) as peer:
        peer.associate()
        peer.send(beginning)
        assert peer.read()[0] == A_ABORT
        assert peer.read() == (0, b"")
        assert all(one.state == "aborted" for one in receiver.objects)


def test_an_association_is_not_idle_while_its_object_is_committed(receiver: Receiver) -> None:
    receiver.commit_waits_for = threading.Event()
    with serving(receiver, idle_timeout_s=0.2) as server, RawPeer(server.port) as peer:
        peer.associate()
        peer.send(p_data((1, 3, c_store_rq())) + p_data((1, 2, b"good")))
        peer.socket.settimeout(1.5)
        with pytest.raises(TimeoutError):
            peer.socket.recv(1, socket.MSG_PEEK)
        peer.socket.settimeout(30)
        receiver.commit_waits_for.set()
        assert peer.response().Status == 0


def test_an_object_that_is_arriving_may_arrive_when_the_server_stops(receiver: Receiver) -> None:
    with serving(receiver) as server, RawPeer(server.port) as peer, RawPeer(server.port) as idle:
        idle.associate()
        peer.associate()
        peer.send(p_data((1, 3, c_store_rq())) + p_data((1, 0, b"half")))
        receiver.wait_for(lambda: any(one.data == b"half" for one in receiver.objects))
        stopping = threading.Thread(target=server.stop, args=(30.0,))
        stopping.start()
        assert idle.read()[0] == A_ABORT
        peer.send(p_data((1, 2, b"done")))
        assert peer.response().Status == 0
        assert peer.read()[0] == A_ABORT
        stopping.join(30)
        assert not stopping.is_alive()
        with pytest.raises(ConnectionRefusedError):
            RawPeer(server.port)
    assert [(bytes(one.data), one.state) for one in receiver.objects] == [(b"halfdone", "finished")]


# Peers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pdu_bytes", [4096, 16384, 131072])
def test_dcmtk_stores_in_pdus_of_any_size(
    server: DimseServer, receiver: Receiver, pdu_bytes: int, tmp_path: Path
) -> None:
    data = element_le(0x0008, 0x0016, b"UI", even(CT))
    data += element_le(0x0008, 0x0018, b"UI", even(INSTANCE))
    data += struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 500_000) + bytes(500_000)
    meta = element_le(2, 2, b"UI", even(CT)) + element_le(2, 3, b"UI", even(INSTANCE))
    meta += element_le(2, 0x10, b"UI", even(EXPLICIT))
    meta = element_le(2, 0, b"UL", struct.pack("<L", len(meta))) + meta
    path = tmp_path / "object.dcm"
    path.write_bytes(bytes(128) + b"DICM" + meta + data)
    command = ["storescu", "-xe", "--max-send-pdu", str(pdu_bytes), "127.0.0.1"]
    subprocess.run([*command, str(server.port), str(path)], timeout=60, check=True)
    assert bytes(receiver.objects[0].data) == data


def element_le(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value
