"""A DICOM peer made of bytes, for what no well-behaved peer would send (PS3.8 §9.3)."""

import io
import socket
import struct
from typing import Any

from pydicom.filereader import read_dataset

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
INSTANCE = "1.3.6.1.4.1.9999.7.1"

A_ASSOCIATE_AC, A_ASSOCIATE_RJ, P_DATA, A_RELEASE_RP, A_ABORT = 2, 3, 4, 6, 7


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def associate_rq(
    contexts: list[tuple[str, list[str]]],
    max_pdu_bytes: int = 16384,
    called: str = "ARCHIVE",
    calling: str = "MODALITY",
) -> bytes:
    """An A-ASSOCIATE-RQ; context IDs are 1, 3, 5 …"""
    items = item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (abstract, transfers) in enumerate(contexts):
        syntaxes = item(0x30, abstract.encode())
        syntaxes += b"".join(item(0x40, transfer.encode()) for transfer in transfers)
        items += item(0x20, bytes([2 * number + 1, 0, 0, 0]) + syntaxes)
    items += item(
        0x50, item(0x51, struct.pack(">L", max_pdu_bytes)) + item(0x52, b"1.3.6.1.4.1.9999.2")
    )
    body = (
        struct.pack(">HH16s16s32x", 1, 0, called.encode().ljust(16), calling.encode().ljust(16))
        + items
    )
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

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 30)

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
