"""The streaming upper layer, against a recording receiver (PS3.8 §9, PS3.7 §6.3)."""

import io
import itertools
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
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filereader import read_dataset

from bfr_core.access import Access
from bfr_core.connections import Archive
from bfr_core.errors import Conflict, Invalid, Unavailable
from bfr_core.receiving import Received, Reception
from bfr_core.registration import Outcome
from bfr_legacy.dimse import echo
from bfr_legacy.dimse.negotiation import Service
from bfr_legacy.dimse.pdus import (
    CONTROL_PDU_MAX_BYTES,
    Command,
    PduReader,
    ProtocolViolation,
    command_pdus,
    read_command,
    store_response,
)
from bfr_legacy.dimse.peers import Peer
from bfr_legacy.dimse.server import DimseServer
from bfr_legacy.dimse.status import error_comment
from bfr_legacy.dimse.store_scp import StorageStay, is_storage

CT = "1.2.840.10008.5.1.4.1.1.2"
PRIVATE = "1.3.6.1.4.1.9999.1.1"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
JPEG_LS = "1.2.840.10008.1.2.4.80"
INSTANCE = "1.3.6.1.4.1.9999.7.1"

A_ASSOCIATE_AC, A_ASSOCIATE_RJ, P_DATA, A_RELEASE_RP, A_ABORT = 2, 3, 4, 6, 7


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


def admit(called_ae_title: str, calling_ae_title: str, remote_address: str) -> Peer:
    access = Access("node", calling_ae_title, frozenset([1]), remote_address)
    return Peer(access, Archive(1, 1, called_ae_title, "test"), calling_ae_title, remote_address)


@contextmanager
def serving(receiver: Receiver, **options: Any) -> Iterator[DimseServer]:
    settings: dict[str, Any] = {
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


# A peer made of bytes ------------------------------------------------------------------------


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def associate_rq(contexts: list[tuple[str, list[str]]], max_pdu_bytes: int = 16384) -> bytes:
    """An A-ASSOCIATE-RQ; context IDs are 1, 3, 5 …"""
    items = item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (abstract, transfers) in enumerate(contexts):
        syntaxes = item(0x30, abstract.encode())
        syntaxes += b"".join(item(0x40, transfer.encode()) for transfer in transfers)
        items += item(0x20, bytes([2 * number + 1, 0, 0, 0]) + syntaxes)
    items += item(
        0x50, item(0x51, struct.pack(">L", max_pdu_bytes)) + item(0x52, b"1.3.6.1.4.1.9999.2")
    )
    body = struct.pack(">HH16s16s32x", 1, 0, b"BFR".ljust(16), b"TEST".ljust(16)) + items
    return struct.pack(">BxL", 1, len(body)) + body


def element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, number, len(value)) + value


def even(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def c_store_rq(
    sop_class_uid: str = CT,
    sop_instance_uid: str = INSTANCE,
    message_id: int = 7,
    data_set_type: int = 1,
) -> bytes:
    elements = element(0x0002, even(sop_class_uid))
    elements += element(0x0100, b"\x01\x00") + element(0x0110, struct.pack("<H", message_id))
    elements += element(0x0700, b"\0\0") + element(0x0800, struct.pack("<H", data_set_type))
    elements += element(0x1000, even(sop_instance_uid))
    return element(0x0000, struct.pack("<L", len(elements))) + elements


def p_data(*values: tuple[int, int, bytes]) -> bytes:
    """A P-DATA-TF PDU of (presentation context ID, message control header, value)."""
    body = b"".join(
        struct.pack(">LBB", len(value) + 2, context_id, control) + value
        for context_id, control, value in values
    )
    return struct.pack(">BxL", 4, len(body)) + body


RELEASE_RQ = struct.pack(">BxL4x", 5, 4)
ABORT = struct.pack(">BxL4x", 7, 4)


class RawPeer:
    """A peer that sends what it likes."""

    def __init__(self, server: DimseServer) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), 30)

    def __enter__(self) -> "RawPeer":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> tuple[int, bytes]:
        """The next PDU as (type, body); (0, b"") when the connection was closed."""
        header = self._read_exactly(6)
        if not header:
            return 0, b""
        kind, length = struct.unpack(">BxL", header)
        return kind, self._read_exactly(length)

    def _read_exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except ConnectionResetError:
                more = b""
            if not more:
                return b""
            data += more
        return data

    def associate(self, *contexts: tuple[str, list[str]], max_pdu_bytes: int = 16384) -> bytes:
        self.send(associate_rq(list(contexts) or [(CT, [EXPLICIT])], max_pdu_bytes))
        kind, body = self.read()
        assert kind == A_ASSOCIATE_AC
        return body

    def response(self) -> Any:
        """The command set of the next message, its PDUs joined."""
        command = b""
        while True:
            kind, body = self.read()
            assert kind == P_DATA
            command += body[6:]
            if body[5] & 2:
                return read_dataset(io.BytesIO(command), True, True)

    def store(self, data: bytes, **request: Any) -> int:
        """Store one object on context 1; the status."""
        self.send(p_data((1, 3, c_store_rq(**request))) + p_data((1, 2, data)))
        return int(self.response().Status)


def accepted(associate_ac: bytes) -> dict[int, str]:
    """Presentation context ID → transfer syntax, of the contexts that were accepted."""
    result, position = {}, 68
    while position < len(associate_ac):
        kind, length = struct.unpack_from(">BxH", associate_ac, position)
        value = associate_ac[position + 4 : position + 4 + length]
        if kind == 0x21 and value[2] == 0:
            result[value[0]] = value[8:].decode()
        position += 4 + length
    return result


# Storing -------------------------------------------------------------------------------------


def test_a_data_set_arrives_byte_for_byte_whatever_the_pieces(
    server: DimseServer, receiver: Receiver
) -> None:
    data = bytes(range(256)) * 40
    stream = p_data((1, 1, c_store_rq()[:30])) + p_data((1, 3, c_store_rq()[30:]), (1, 0, b""))
    stream += p_data((1, 0, data[:1000]), (1, 0, data[1000:1001])) + p_data((1, 2, data[1001:]))
    with RawPeer(server) as peer:
        peer.associate((CT, [JPEG_LS]))
        for start in range(0, len(stream), 777):
            peer.send(stream[start : start + 777])
        assert peer.response().Status == 0
    assert [bytes(one.data) for one in receiver.objects] == [data]
    assert receiver.objects[0].transfer_syntax_uid == JPEG_LS


def test_the_response_names_the_request_and_the_object(server: DimseServer) -> None:
    with RawPeer(server) as peer:
        peer.associate()
        peer.send(p_data((1, 3, c_store_rq(message_id=513))) + p_data((1, 2, b"abcd")))
        response = peer.response()
    assert response.CommandField == 0x8001
    assert response.MessageIDBeingRespondedTo == 513
    assert response.AffectedSOPClassUID == CT
    assert response.AffectedSOPInstanceUID == INSTANCE
    assert response.CommandDataSetType == 0x0101


def test_a_peer_that_takes_small_pdus_gets_small_pdus(server: DimseServer) -> None:
    with RawPeer(server) as peer:
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
    with RawPeer(server) as peer:
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
    with RawPeer(server) as peer:
        peer.associate((CT, [EXPLICIT]), (VERIFICATION, [EXPLICIT]))
        assert peer.store(b"x" * 8, sop_class_uid=CT + ".1") == 0x0122
        peer.send(p_data((3, 3, c_store_rq())) + p_data((3, 2, b"abcd")))
        assert peer.response().Status == 0x0122
        assert peer.store(b"good") == 0


def test_a_store_request_without_data_set_is_refused(server: DimseServer) -> None:
    with RawPeer(server) as peer:
        peer.associate()
        peer.send(p_data((1, 3, c_store_rq(data_set_type=0x0101))))
        assert peer.response().Status == 0xC000
        assert peer.store(b"good") == 0


@pytest.mark.parametrize("ending", [ABORT, b""], ids=["abort", "close"])
def test_nothing_stays_of_an_object_that_does_not_arrive_whole(
    server: DimseServer, receiver: Receiver, ending: bytes
) -> None:
    with RawPeer(server) as peer:
        peer.associate()
        peer.send(p_data((1, 3, c_store_rq())) + p_data((1, 0, b"half")))
        receiver.wait_for(lambda: any(one.data == b"half" for one in receiver.objects))
        peer.send(ending)
    assert receiver.closed.wait(30)
    assert [one.state for one in receiver.objects] == ["aborted"]


def test_a_released_association_ends_the_stay(server: DimseServer, receiver: Receiver) -> None:
    with RawPeer(server) as peer:
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
    with RawPeer(server) as peer:
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
        ("1.2.840.10008.5.1.4.38.1", False),
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
        with RawPeer(server) as first, RawPeer(server) as second:
            first.associate()
            second.send(associate_rq([(CT, [EXPLICIT])]))
            assert second.read() == (A_ASSOCIATE_RJ, bytes([0, 2, 3, 2]))
            first.send(RELEASE_RQ)
            assert first.read()[0] == A_RELEASE_RP
            assert first.read() == (0, b"")
        first.socket.close()
        for _ in range(100):
            with RawPeer(server) as third:
                third.send(associate_rq([(CT, [EXPLICIT])]))
                if third.read()[0] == A_ASSOCIATE_AC:
                    break
        else:
            pytest.fail("the place of the released association was not given back")


def test_an_unknown_application_context_is_rejected(server: DimseServer) -> None:
    request = associate_rq([(CT, [EXPLICIT])]).replace(
        b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.9"
    )
    with RawPeer(server) as peer:
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
        b"TEST    ", b"\x01\x02\x03\x04    "
    ),
}


@pytest.mark.parametrize("data", BAD_BEFORE_ASSOCIATION.values(), ids=BAD_BEFORE_ASSOCIATION)
def test_disorder_before_an_association_ends_only_that_connection(
    server: DimseServer, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with RawPeer(server) as peer:
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
    with RawPeer(server) as peer:
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
    with RawPeer(server) as peer:
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
    with serving(receiver, request_timeout_s=0.2) as server, RawPeer(server) as peer:
        peer.send(beginning)
        assert peer.read() == (0, b"")


@pytest.mark.parametrize("beginning", [b"", p_data((1, 3, c_store_rq()), (1, 0, b"half"))])
def test_a_silent_association_is_aborted(receiver: Receiver, beginning: bytes) -> None:
    with serving(receiver, idle_timeout_s=0.2) as server, RawPeer(server) as peer:
        peer.associate()
        peer.send(beginning)
        assert peer.read()[0] == A_ABORT
        assert peer.read() == (0, b"")
        assert all(one.state == "aborted" for one in receiver.objects)


def test_an_association_is_not_idle_while_its_object_is_committed(receiver: Receiver) -> None:
    receiver.commit_waits_for = threading.Event()
    with serving(receiver, idle_timeout_s=0.2) as server, RawPeer(server) as peer:
        peer.associate()
        peer.send(p_data((1, 3, c_store_rq())) + p_data((1, 2, b"good")))
        peer.socket.settimeout(2.5)
        with pytest.raises(TimeoutError):
            peer.socket.recv(1, socket.MSG_PEEK)
        peer.socket.settimeout(30)
        receiver.commit_waits_for.set()
        assert peer.response().Status == 0


def test_an_object_that_is_arriving_may_arrive_when_the_server_stops(receiver: Receiver) -> None:
    with serving(receiver) as server, RawPeer(server) as peer, RawPeer(server) as idle:
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
            RawPeer(server)
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


# The reader on its own -----------------------------------------------------------------------

Read = list[tuple[Any, ...]]


def read_in_pieces(stream: bytes, cuts: list[int]) -> Read:
    """What the reader makes of the stream; pieces of one value joined."""
    events: Read = []

    def fragment(context_id: int, control: int, piece: memoryview, ends: bool) -> None:
        if events and events[-1][0] == "open":
            _, _, _, before = events.pop()
            events.append(("open", context_id, control, before + bytes(piece)))
        else:
            events.append(("open", context_id, control, bytes(piece)))
        if ends:
            events[-1] = ("value", *events[-1][1:])

    reader = PduReader(lambda pdu: events.append(("pdu", pdu)), fragment, 1 << 20)
    edges = [0, *sorted(cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        unread = memoryview(stream[start:end])
        while unread:
            unread = unread[reader.feed(unread) :]
    return events


values = st.tuples(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=40))
p_data_pdus = st.lists(values, min_size=1, max_size=4).map(lambda v: ([*v], p_data(*v)))
control_pdus = st.tuples(st.sampled_from([1, 2, 3, 5, 6, 7]), st.binary(max_size=40)).map(
    lambda p: (None, struct.pack(">BxL", p[0], len(p[1])) + p[1])
)


@given(st.lists(p_data_pdus | control_pdus, max_size=6), st.data())
def test_the_reader_finds_the_same_wherever_the_stream_is_cut(
    pdus: list[tuple[list[tuple[int, int, bytes]] | None, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(pdu for _, pdu in pdus)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    expected: Read = []
    for fragments, pdu in pdus:
        expected += [("pdu", pdu)] if fragments is None else [("value", *f) for f in fragments]
    assert read_in_pieces(stream, cuts) == expected


def test_the_reader_finds_the_same_cut_at_every_byte() -> None:
    stream = associate_rq([(CT, [EXPLICIT])]) + p_data((1, 3, c_store_rq()), (1, 0, b""))
    stream += p_data((1, 2, b"data")) + RELEASE_RQ
    whole = read_in_pieces(stream, [])
    assert len(whole) == 5
    assert read_in_pieces(stream, list(range(len(stream)))) == whole
    for cut in range(len(stream)):
        assert read_in_pieces(stream, [cut]) == whole


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x04\0\0\0\0\x40", b"\x01\0\0\0\1\0"]))
def test_noise_gives_the_reader_nothing_but_a_violation(noise: bytes, start: bytes) -> None:
    try:
        events = read_in_pieces(start + noise, [])
    except ProtocolViolation:
        return
    assert sum(len(event[-1]) for event in events) <= len(start + noise)


@given(st.integers(CONTROL_PDU_MAX_BYTES + 1, 2**32 - 1), st.sampled_from([1, 2, 3, 4, 5, 6, 7]))
def test_no_length_beyond_the_limits_is_believed(length: int, kind: int) -> None:
    with pytest.raises(ProtocolViolation):
        read_in_pieces(struct.pack(">BxL", kind, length), [])


@given(st.binary(max_size=200) | st.binary(max_size=40).map(lambda noise: c_store_rq() + noise))
def test_noise_as_a_command_set_is_a_violation_or_a_command(noise: bytes) -> None:
    try:
        command = read_command(noise)
    except ProtocolViolation:
        return
    assert isinstance(command, Command)


@given(st.text(max_size=200), st.integers(0, 0xFFFF), st.integers(0, 200))
def test_a_store_response_reads_back_in_pdus_of_any_size(
    message: str, status: int, max_pdu_bytes: int
) -> None:
    request = read_command(c_store_rq(message_id=65535))
    response = store_response(request, status, error_comment(message))
    values = read_in_pieces(command_pdus(5, response, max_pdu_bytes), [])
    assert b"".join(value[3] for value in values) == response
    assert [value[2] for value in values] == [1] * (len(values) - 1) + [3]
    read = read_dataset(io.BytesIO(response), True, True)
    assert (read.Status, read.MessageIDBeingRespondedTo) == (status, 65535)
    assert len(read.get("ErrorComment", "")) <= 64
    assert read.CommandGroupLength == len(response) - 12
