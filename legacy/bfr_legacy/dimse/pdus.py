"""PDUs, presentation data values and command sets as bytes (PS3.8 §9.3, PS3.7 §6.3 and Annex E)."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

P_DATA_TF = 0x04
PDU_TYPES = frozenset(range(0x01, 0x08))
# PS3.8 sets no limit; 128 presentation contexts with 30 transfer syntaxes each are 270 KB.
CONTROL_PDU_MAX_BYTES = 1 << 20

# Message control header (PS3.8 §E.2)
COMMAND = 0x01
LAST = 0x02

C_STORE_RQ = 0x0001
C_STORE_RSP = 0x8001
C_CANCEL_RQ = 0x0FFF
RESPONSE = 0x8000
NO_DATA_SET = 0x0101
HAS_DATA_SET = 0x0001
MEDIUM_PRIORITY = 0x0000
FRAGMENT_MAX_BYTES = 128 * 1024  # larger PDUs bring nothing
# PS3.7 Annex E: requests and responses that a peer may send
COMMAND_FIELDS = frozenset(
    {0x0001, 0x0010, 0x0020, 0x0021, 0x0030, 0x0FFF, 0x0100, 0x0110, 0x0120, 0x0130, 0x0140}
    | {0x0150, 0x8001, 0x8010, 0x8020, 0x8021, 0x8030, 0x8100, 0x8110, 0x8120, 0x8130, 0x8140}
    | {0x8150}
)
COMMAND_FIELD_BYTES = {0x0100: 2, 0x0110: 2, 0x0120: 2, 0x0700: 2, 0x0800: 2, 0x0900: 2}

_HEADER_BYTES = 6  # of a PDU: type, reserved, length; of a PDV: length, context, control
_PDU_HEADER = struct.Struct(">BxL")
_PDV_HEADER = struct.Struct(">LBB")


class ProtocolViolation(Exception):
    """What arrived breaks PS3.8 or PS3.7: the association cannot go on."""


class PduReader:
    """Cuts what arrives into PDUs, and P-DATA into pieces, without ever holding a P-DATA PDU.

    `on_pdu` gets each PDU other than P-DATA-TF whole, with its header. `on_fragment` gets the
    presentation context ID, the message control header, a piece of the value (valid during the
    call) and whether the value ends with it.
    """

    def __init__(
        self,
        on_pdu: Callable[[bytes], None],
        on_fragment: Callable[[int, int, memoryview, bool], None],
        p_data_max_bytes: int,
    ) -> None:
        self._on_pdu = on_pdu
        self._on_fragment = on_fragment
        self._p_data_max_bytes = p_data_max_bytes
        self._header = bytearray()
        self._pdu: bytearray | None = None  # a PDU other than P-DATA-TF that is arriving
        self._pdu_left = 0
        self._pdv_left = 0
        self._context_id = 0
        self._control = 0

    def feed(self, data: memoryview) -> int:
        """Return how many bytes of `data` were used: all, or up to the end of an `on_pdu`.

        Raises ProtocolViolation, and whatever the two callbacks raise; the reader is of no
        further use then.
        """
        position, end = 0, len(data)
        while position < end:
            if self._pdv_left:
                take = min(self._pdv_left, end - position)
                piece = data[position : position + take]
                position += take
                self._pdv_left -= take
                self._pdu_left -= take
                self._on_fragment(self._context_id, self._control, piece, self._pdv_left == 0)
            elif self._pdu is not None:
                take = min(self._pdu_left, end - position)
                self._pdu += data[position : position + take]
                position += take
                self._pdu_left -= take
                if self._pdu_left == 0:
                    self._finish_pdu(self._pdu)
                    return position
            else:
                take = min(_HEADER_BYTES - len(self._header), end - position)
                self._header += data[position : position + take]
                position += take
                if len(self._header) == _HEADER_BYTES:
                    header = bytes(self._header)
                    self._header.clear()
                    if self._pdu_left:
                        self._begin_pdv(header)
                    elif self._begin_pdu(header):
                        return position
        return position

    def _begin_pdu(self, header: bytes) -> bool:
        pdu_type, length = _PDU_HEADER.unpack(header)
        if pdu_type not in PDU_TYPES:
            raise ProtocolViolation(f"PDU type {pdu_type:02X}H does not exist")
        if pdu_type == P_DATA_TF:
            if not _HEADER_BYTES <= length <= self._p_data_max_bytes:
                raise ProtocolViolation(f"a P-DATA-TF PDU of {length} bytes")
            self._pdu_left = length
            return False
        if length > CONTROL_PDU_MAX_BYTES:
            raise ProtocolViolation(f"a PDU of type {pdu_type:02X}H of {length} bytes")
        self._pdu = bytearray(header)
        self._pdu_left = length
        if length == 0:
            self._finish_pdu(self._pdu)
            return True
        return False

    def _finish_pdu(self, pdu: bytearray) -> None:
        self._pdu = None
        self._on_pdu(bytes(pdu))

    def _begin_pdv(self, header: bytes) -> None:
        length, self._context_id, self._control = _PDV_HEADER.unpack(header)
        if not 2 <= length <= self._pdu_left - 4:
            raise ProtocolViolation(f"a presentation data value of {length} bytes in its PDU")
        self._pdu_left -= _HEADER_BYTES
        self._pdv_left = length - 2
        if self._pdu_left - self._pdv_left in range(1, _HEADER_BYTES):
            raise ProtocolViolation("a PDU that ends within the header of a value")
        if self._pdv_left == 0:
            self._on_fragment(self._context_id, self._control, memoryview(b""), True)


@dataclass(frozen=True, slots=True)
class Command:
    """What has to be known of a command set to route it (PS3.7 §6.3)."""

    command_field: int
    message_id: int
    has_data_set: bool
    sop_class_uid: bytes  # Affected SOP Class UID as sent, empty when absent
    sop_instance_uid: bytes  # Affected SOP Instance UID as sent, empty when absent
    responded_message_id: int  # Message ID Being Responded To, 0 when absent
    status: int  # of a response, 0 when absent
    error_comment: bytes


def read_command(command_set: bytes) -> Command:
    """Return the routing elements of a command set. Raises ProtocolViolation (PS3.7 §6.3.1)."""
    elements: dict[int, bytes] = {}
    position = 0
    while position < len(command_set):
        if len(command_set) - position < 8:
            raise ProtocolViolation("a command set that ends within an element")
        group, element, length = struct.unpack_from("<HHL", command_set, position)
        position += 8
        value = command_set[position : position + length]
        if group != 0 or len(value) != length:
            raise ProtocolViolation(f"element ({group:04X},{element:04X}) in a command set")
        if len(value) not in (COMMAND_FIELD_BYTES.get(element, length), 0):
            raise ProtocolViolation(f"command element (0000,{element:04X}) of {length} bytes")
        elements[element] = value
        position += length
    if not elements.get(0x0100) or not elements.get(0x0800):
        raise ProtocolViolation("a command set without Command Field or Data Set Type")
    command_field = int.from_bytes(elements[0x0100], "little")
    if command_field not in COMMAND_FIELDS:
        raise ProtocolViolation(f"Command Field {command_field:04X}H does not exist")
    is_request = not command_field & RESPONSE and command_field != C_CANCEL_RQ
    if is_request and not elements.get(0x0110):
        raise ProtocolViolation("a request without Message ID")
    return Command(
        command_field=command_field,
        message_id=int.from_bytes(elements.get(0x0110, b""), "little"),
        has_data_set=int.from_bytes(elements[0x0800], "little") != NO_DATA_SET,
        sop_class_uid=elements.get(0x0002, b""),
        sop_instance_uid=elements.get(0x1000, b""),
        responded_message_id=int.from_bytes(elements.get(0x0120, b""), "little"),
        status=int.from_bytes(elements.get(0x0900, b""), "little"),
        error_comment=elements.get(0x0902, b""),
    )


def store_response(command: Command, status: int, comment: str) -> bytes:
    """Return the command set of the C-STORE-RSP to `command` (PS3.7 §9.3.1.2)."""
    elements = _element(0x0002, command.sop_class_uid)
    elements += _element(0x0100, C_STORE_RSP.to_bytes(2, "little"))
    elements += _element(0x0120, command.message_id.to_bytes(2, "little"))
    elements += _element(0x0800, NO_DATA_SET.to_bytes(2, "little"))
    elements += _element(0x0900, status.to_bytes(2, "little"))
    if comment:
        text = comment.encode("ascii")
        elements += _element(0x0902, text + b" " * (len(text) % 2))
    elements += _element(0x1000, command.sop_instance_uid)
    return _element(0x0000, len(elements).to_bytes(4, "little")) + elements


@dataclass(frozen=True, slots=True)
class Response:
    """What a response to C-FIND, C-MOVE or C-GET says beside its identifier (PS3.7 §9.1)."""

    status: int
    error_comment: str = ""
    offending_element: int | None = None
    # Sub-operations that remain, are completed, have failed, have completed with a warning.
    counts: tuple[int | None, int, int, int] | None = None


def query_response(
    command_field: int, message_id: int, sop_class_uid: str, response: Response, *, identifier: bool
) -> bytes:
    """Return the command set of a response to the request with that Command Field."""
    elements = _element(0x0002, _padded_uid(sop_class_uid))
    elements += _element(0x0100, (command_field | RESPONSE).to_bytes(2, "little"))
    elements += _element(0x0120, message_id.to_bytes(2, "little"))
    elements += _element(
        0x0800, (HAS_DATA_SET if identifier else NO_DATA_SET).to_bytes(2, "little")
    )
    elements += _element(0x0900, response.status.to_bytes(2, "little"))
    if response.offending_element is not None:
        group, element = divmod(response.offending_element, 1 << 16)
        elements += _element(0x0901, struct.pack("<HH", group, element))
    if response.error_comment:
        text = response.error_comment.encode("ascii")
        elements += _element(0x0902, text + b" " * (len(text) % 2))
    for number, count in zip(range(0x1020, 0x1024), response.counts or (), strict=False):
        if count is not None:
            elements += _element(number, count.to_bytes(2, "little"))
    return _element(0x0000, len(elements).to_bytes(4, "little")) + elements


def store_request(
    message_id: int,
    sop_class_uid: str,
    sop_instance_uid: str,
    originator: tuple[str, int] | None,
) -> bytes:
    """Return the command set of a C-STORE-RQ (PS3.7 §9.3.1.1).

    `originator` is the AE title and the Message ID of the C-MOVE that it is a part of.
    """
    elements = _element(0x0002, _padded_uid(sop_class_uid))
    elements += _element(0x0100, C_STORE_RQ.to_bytes(2, "little"))
    elements += _element(0x0110, message_id.to_bytes(2, "little"))
    elements += _element(0x0700, MEDIUM_PRIORITY.to_bytes(2, "little"))
    elements += _element(0x0800, HAS_DATA_SET.to_bytes(2, "little"))
    elements += _element(0x1000, _padded_uid(sop_instance_uid))
    if originator is not None:
        title = originator[0].encode("ascii", "replace")
        elements += _element(0x1030, title + b" " * (len(title) % 2))
        elements += _element(0x1031, originator[1].to_bytes(2, "little"))
    return _element(0x0000, len(elements).to_bytes(4, "little")) + elements


def fragment_bytes(max_pdu_bytes: int) -> int:
    """Return how many bytes of a data set one PDU may hold: an even number, at least 2."""
    return max((min(max_pdu_bytes or FRAGMENT_MAX_BYTES, FRAGMENT_MAX_BYTES) - 12) & ~1, 2)


def data_set_pdus(
    context_id: int, data: memoryview, fragment: int, *, ends: bool
) -> Iterator[bytes | memoryview]:
    """Yield the P-DATA-TF PDUs of a part of a data set: headers, and slices of `data` itself."""
    for start in range(0, max(len(data), 1), fragment):
        piece = data[start : start + fragment]
        control = LAST if ends and start + fragment >= len(data) else 0
        yield _PDU_HEADER.pack(P_DATA_TF, len(piece) + _HEADER_BYTES) + _PDV_HEADER.pack(
            len(piece) + 2, context_id, control
        )
        yield piece


def command_pdus(context_id: int, command_set: bytes, max_pdu_bytes: int) -> bytes:
    """Return the P-DATA-TF PDUs of a command set; `max_pdu_bytes` 0 means one PDU, any length."""
    chunk = max(max_pdu_bytes - _HEADER_BYTES, 1) if max_pdu_bytes else len(command_set)
    pdus = bytearray()
    for start in range(0, len(command_set), chunk):
        value = command_set[start : start + chunk]
        control = COMMAND | (LAST if start + chunk >= len(command_set) else 0)
        pdus += _PDU_HEADER.pack(P_DATA_TF, len(value) + _HEADER_BYTES)
        pdus += _PDV_HEADER.pack(len(value) + 2, context_id, control)
        pdus += value
    return bytes(pdus)


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, element, len(value)) + value


def _padded_uid(uid: str) -> bytes:
    value = uid.encode("ascii", "replace")
    return value + b"\0" * (len(value) % 2)
