"""A DICOM client for the measures: it queries and retrieves with as little of its own as it can.

Data sets of C-STORE are read from the socket and answered; each tenth is kept to be checked.
"""

import io
import socket
import struct
import time
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from bench.http_client import HOST
from bench.servers import CALLED_AE_TITLE, CALLING_AE_TITLE

EXPLICIT = "1.2.840.10008.1.2.1"
STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2"
FIND, MOVE, GET = STUDY_ROOT + ".1", STUDY_ROOT + ".2", STUDY_ROOT + ".3"
CT = "1.2.840.10008.5.1.4.1.1.2"
C_STORE, C_FIND, C_GET, C_MOVE = 0x0001, 0x0020, 0x0010, 0x0021
TIMEOUT_S = 300
MAX_PDU_BYTES = 131_072


class DimseFailure(Exception):
    """A server broke off, or answered with a status of failure."""


@dataclass(slots=True)
class Retrieved:
    """What a C-GET brought."""

    uids: list[str] = field(default_factory=list)
    kept: dict[str, bytes] = field(default_factory=dict)  # data sets of each tenth
    size_bytes: int = 0


class Association:
    """An association with a server, for one kind of request."""

    def __init__(self, port: int, abstract_syntax: str, *, storage: bool = False) -> None:
        self._socket = socket.create_connection((HOST, port), TIMEOUT_S)
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb", 1 << 20)
        self._abstract_syntax = abstract_syntax
        self._message_id = 0
        syntaxes = [abstract_syntax, *([CT] if storage else [])]
        self._socket.sendall(_associate_rq(syntaxes, storage=storage))
        kind, _ = self._pdu()
        if kind != 2:
            raise DimseFailure(f"the association is not accepted: PDU {kind}")

    def close(self) -> None:
        """Release."""
        self._socket.sendall(struct.pack(">BxL4x", 5, 4))
        self._file.read(1)
        self._file.close()
        self._socket.close()

    def find(self, identifier: Dataset) -> tuple[float, list[Dataset]]:
        """Return the seconds that a C-FIND took, and what was found."""
        request = self._request(C_FIND, identifier)
        found = []
        started = time.perf_counter()
        self._socket.sendall(request)
        while True:
            command, data = self._message()
            if command.Status not in (0xFF00, 0xFF01):
                break
            found.append(data)
        elapsed_s = time.perf_counter() - started
        _require_success(command)
        return elapsed_s, [read_dataset(io.BytesIO(data), False, True) for data in found]

    def move(self, identifier: Dataset, destination: str) -> tuple[float, int]:
        """Return the seconds that a C-MOVE took, and how many objects it sent."""
        request = self._request(C_MOVE, identifier, _element(0x0600, _even(destination, b" ")))
        started = time.perf_counter()
        self._socket.sendall(request)
        while True:
            command, _ = self._message()
            if command.Status != 0xFF00:
                break
        elapsed_s = time.perf_counter() - started
        _require_success(command)
        return elapsed_s, int(command.NumberOfCompletedSuboperations)

    def get(self, identifier: Dataset) -> tuple[float, Retrieved]:
        """Return the seconds that a C-GET took, and what it brought."""
        request = self._request(C_GET, identifier)
        retrieved = Retrieved()
        started = time.perf_counter()
        self._socket.sendall(request)
        while True:
            command, data = self._message()
            if command.CommandField == C_STORE:
                uid = str(command.AffectedSOPInstanceUID)
                if len(retrieved.uids) % 10 == 0:
                    retrieved.kept[uid] = data
                retrieved.uids.append(uid)
                retrieved.size_bytes += len(data)
                self._socket.sendall(_store_response(command))
            elif command.Status != 0xFF00:
                break
        elapsed_s = time.perf_counter() - started
        _require_success(command)
        return elapsed_s, retrieved

    def _request(self, command_field: int, identifier: Dataset, more: bytes = b"") -> bytes:
        self._message_id += 1
        elements = _element(0x0002, _even(self._abstract_syntax, b"\0"))
        elements += _element(0x0100, struct.pack("<H", command_field))
        elements += _element(0x0110, struct.pack("<H", self._message_id)) + more
        elements += _element(0x0700, b"\0\0") + _element(0x0800, b"\1\0")
        command = _element(0, struct.pack("<L", len(elements))) + elements
        encoded = DicomBytesIO()
        encoded.is_little_endian, encoded.is_implicit_VR = True, False
        write_dataset(encoded, identifier)
        return _p_data(1, 3, command) + _p_data(1, 2, encoded.getvalue())

    def _message(self) -> tuple[Dataset, bytes]:
        command = self._value()
        elements = read_dataset(io.BytesIO(command), True, True)
        return elements, b"" if elements.CommandDataSetType == 0x0101 else self._value()

    def _value(self) -> bytes:
        pieces = []
        while True:
            kind, body = self._pdu()
            if kind != 4:
                raise DimseFailure(f"the server broke off with a PDU of type {kind}")
            position = 0
            last = False
            while position < len(body):
                length, _, control = struct.unpack_from(">LBB", body, position)
                pieces.append(body[position + 6 : position + 4 + length])
                position += 4 + length
                last = bool(control & 2)
            if last:
                return b"".join(pieces)

    def _pdu(self) -> tuple[int, bytes]:
        header = self._file.read(6)
        if len(header) < 6:
            raise DimseFailure("the server closed the connection")
        kind, length = struct.unpack(">BxL", header)
        return kind, self._file.read(length)


def _require_success(command: Dataset) -> None:
    if command.Status != 0:
        raise DimseFailure(f"a final status of {command.Status:04X}H")


def _store_response(command: Dataset) -> bytes:
    elements = _element(0x0002, _even(str(command.AffectedSOPClassUID), b"\0"))
    elements += _element(0x0100, b"\x01\x80")
    elements += _element(0x0120, struct.pack("<H", command.MessageID))
    elements += _element(0x0800, b"\x01\x01") + _element(0x0900, b"\0\0")
    elements += _element(0x1000, _even(str(command.AffectedSOPInstanceUID), b"\0"))
    return _p_data(3, 3, _element(0, struct.pack("<L", len(elements))) + elements)


def _associate_rq(syntaxes: list[str], *, storage: bool) -> bytes:
    items = _item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, uid in enumerate(syntaxes):
        context = _item(0x30, uid.encode()) + _item(0x40, EXPLICIT.encode())
        items += _item(0x20, bytes([2 * number + 1, 0, 0, 0]) + context)
    user = _item(0x51, struct.pack(">L", MAX_PDU_BYTES)) + _item(0x52, b"2.25.1")
    if storage:  # the server is to send, so the role is turned round
        user += _item(0x54, struct.pack(">H", len(CT)) + CT.encode() + b"\0\1")
    items += _item(0x50, user)
    called, calling = (title.encode().ljust(16) for title in (CALLED_AE_TITLE, CALLING_AE_TITLE))
    body = struct.pack(">HH16s16s32x", 1, 0, called, calling) + items
    return struct.pack(">BxL", 1, len(body)) + body


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, number, len(value)) + value


def _even(text: str, padding: bytes) -> bytes:
    value = text.encode()
    return value + padding * (len(value) % 2)


def _p_data(context_id: int, control: int, value: bytes) -> bytes:
    return struct.pack(">BxLLBB", 4, len(value) + 6, len(value) + 2, context_id, control) + value
