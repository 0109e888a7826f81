"""The upper layer that lets the data sets of C-STORE through as they arrive (PS3.8 §9).

Subclasses of pynetdicom 3.0.4: its state machine, negotiation and services are kept, reading
from the socket and waiting are replaced. Memory per connection is one buffer, whatever the size
of an object. The names with a leading underscore that are overridden or read here are
pynetdicom's own; its version is pinned and the tests of this folder are the contract.
"""

import logging
import os
import queue
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE, A_P_ABORT, A_RELEASE, P_DATA
from pynetdicom.transport import AssociationSocket

from bfr_core.certificates import PeerCertificate, peer_certificate
from bfr_legacy.dimse.pdus import (
    C_CANCEL_RQ,
    C_STORE_RQ,
    C_STORE_RSP,
    COMMAND,
    LAST,
    RESPONSE,
    Command,
    PduReader,
    ProtocolViolation,
    command_pdus,
    read_command,
    store_response,
)
from bfr_legacy.dimse.sending import Piece, acknowledge_at_once, send_pieces
from bfr_legacy.dimse.status import CANNOT_UNDERSTAND, error_comment
from bfr_legacy.dimse.tls import TlsConnection

if TYPE_CHECKING:
    from pynetdicom.pdu_primitives import _PDUPrimitiveType

    from bfr_legacy.dimse.association import StreamAssociation
    from bfr_legacy.dimse.store_scp import StorageStay

BUFFER_BYTES = 1 << 20
COMMAND_SET_MAX_BYTES = 64 * 1024
IDENTIFIER_MAX_BYTES = 16 << 20  # data sets of other services are read into memory
WAIT_S = 1.0  # how late a timer may be noticed
LINGER_S = 2.0  # how long a peer may take to close after the last PDU

log = logging.getLogger("bfr.dimse")


class StreamSocket(AssociationSocket):
    """A socket that sends at once and is closed for certain."""

    def __init__(
        self, association: "StreamAssociation", connection: socket.socket, timeout_s: float
    ) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A peer that no longer reads must not hold the thread for ever. This is the kernel's own
        # timeout, because Python's would add a poll to each read.
        timeval = struct.pack("@ll", int(timeout_s), int(timeout_s % 1 * 1_000_000))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        super().__init__(association, client_socket=connection)
        self._timeout_s = timeout_s
        self._sending = threading.Lock()  # the reader and the association both send
        self.certificate: PeerCertificate | None = None

    def secure(self, context: ssl.SSLContext, timeout_s: float) -> None:
        """Let TLS begin. Raises OSError when the peer does not agree within the time."""
        plain = cast(socket.socket, self.socket)
        secured = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self.socket = secured
        secured.settimeout(timeout_s)
        secured.do_handshake()
        self.certificate = peer_certificate(secured)
        self.socket = cast(socket.socket, TlsConnection(secured, self._timeout_s))

    @property
    def is_secured(self) -> bool:
        """Tell whether TLS is under the association."""
        return isinstance(self.socket, TlsConnection)

    @property
    def has_pending(self) -> bool:
        """Tell whether something can be read although the descriptor does not show it."""
        connection = cast("socket.socket | TlsConnection | None", self.socket)
        return isinstance(connection, TlsConnection) and connection.pending() > 0

    def send(self, bytestream: bytes) -> None:
        """Send whole PDUs; a connection that breaks is told to the state machine."""
        with self._sending:
            super().send(bytestream)

    def send_message(self, pieces: Iterable[Piece]) -> None:
        """Send the PDUs of one message, in pieces as they come.

        Raises OSError when the connection breaks, and whatever `pieces` raises. With a part sent,
        nothing more can be said: the connection is over then.
        """
        connection = self.socket
        if connection is None:
            raise ConnectionResetError("the connection is closed")
        with self._sending:
            try:
                send_pieces(connection, pieces)
            except BaseException:
                try:
                    connection.shutdown(socket.SHUT_RDWR)  # the reader sees it and ends
                except OSError:  # the peer was first
                    pass
                raise

    def _shutdown_socket(self) -> None:
        if self.socket is not None:
            try:
                self.socket.shutdown(socket.SHUT_RDWR)
            except OSError:  # the peer was first
                pass
            self.socket.close()


class _ToUser(queue.Queue["A_ASSOCIATE | A_RELEASE | A_ABORT | A_P_ABORT"]):
    """The queue to the association, which also wakes it where it waits for messages."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def put(
        self,
        item: A_ASSOCIATE | A_RELEASE | A_ABORT | A_P_ABORT,
        block: bool = True,
        timeout: float | None = None,
    ) -> None:
        super().put(item, block, timeout)
        self._wake()


class StreamDUL(DULServiceProvider):
    """The reader and writer of one connection, with a thread of its own."""

    def __init__(self, association: "StreamAssociation", p_data_max_bytes: int) -> None:
        super().__init__(association)
        self.name = f"dimse-reader-{association.number}"
        self.daemon = True
        self.to_user_queue = _ToUser(association.wake)
        self.storage: StorageStay | None = None  # set when the association is admitted
        self.storage_contexts: frozenset[int] = frozenset()
        self.committing = False
        self.outstanding: set[int] = set()  # Message IDs of requests without a final response
        self.cancelled: set[int] = set()  # those of them that a C-CANCEL has named
        self.store_responses: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self.awaited_message_id: int | None = None  # of a C-STORE-RQ of ours
        self._run_loop_delay = 0  # waiting is done in poll
        self._reader = PduReader(self._take_pdu, self._take_fragment, p_data_max_bytes)
        self._buffer = bytearray()
        self._unread = memoryview(b"")
        self._command_set = bytearray()
        self._message_context: int | None = None  # context of the message that is arriving
        self._storing: Command | None = None  # the C-STORE-RQ whose data set is arriving
        self._identifier_bytes: int | None = None  # of another message's data set, so far
        self._linger_until: float | None = None
        self._poll = select.poll()
        self._wake_reader = self._wake_writer = -1
        self._wake_lock = threading.Lock()

    @property
    def storing(self) -> bool:
        """True while an object arrives or is committed."""
        return self._storing is not None

    @property
    def peer_max_pdu_bytes(self) -> int:
        """The largest PDU that the peer takes; 0: any."""
        return self.assoc.requestor.maximum_length or 0

    def end_request(self, message_id: int) -> None:
        """Forget a request that has its final response, and what has cancelled it."""
        self.outstanding.discard(message_id)
        self.cancelled.discard(message_id)

    def run_reactor(self) -> None:
        """Run until the connection is closed; whatever happens, nothing stays open."""
        stream = cast(StreamSocket, self.socket)
        try:
            self._open(cast(socket.socket, stream.socket))
            super().run_reactor()
        except InvalidEventError as error:  # both ends acted at once: the connection is over
            log.debug("association ended in disorder: %s", error)
        except Exception:  # the edge of the thread
            log.exception("the DIMSE reader failed")
        finally:
            self._close(stream)

    def send_pdu(self, primitive: "_PDUPrimitiveType") -> None:
        """Queue a primitive for sending and wake the thread that sends it."""
        super().send_pdu(primitive)
        self._wake()

    def kill_dul(self) -> None:
        """Let the thread end."""
        super().kill_dul()
        self._wake()

    def stop_dul(self) -> bool:
        """Let the thread end when the association is over; return whether it was."""
        if self.state_machine.current_state != "Sta1":
            return False
        self.kill_dul()
        self.join()
        return True

    def _wake(self) -> None:
        with self._wake_lock:
            if self._wake_writer >= 0:
                try:
                    os.write(self._wake_writer, b"\0")
                except BlockingIOError:  # full of wake-ups not yet read
                    pass

    def _open(self, connection: socket.socket) -> None:
        self._buffer = bytearray(BUFFER_BYTES)
        with self._wake_lock:
            self._wake_reader, self._wake_writer = os.pipe()
            os.set_blocking(self._wake_reader, False)
            os.set_blocking(self._wake_writer, False)
        self._poll.register(connection, select.POLLIN)
        self._poll.register(self._wake_reader, select.POLLIN)

    def _close(self, stream: StreamSocket) -> None:
        if self.storage is not None:
            self.storage.close()
        stream._shutdown_socket()
        with self._wake_lock:
            if self._wake_writer >= 0:
                os.close(self._wake_reader)
                os.close(self._wake_writer)
            self._wake_reader = self._wake_writer = -1
        self._unread = memoryview(b"")
        self._buffer = bytearray()
        self._kill_thread = True
        self.store_responses.put(None)
        self.assoc._dul_ready.set()  # the association may wait for this, or for any primitive
        ended = A_P_ABORT()
        ended.provider_reason = 0x00
        self.to_user_queue.put(ended)

    def _process_recv_primitive(self) -> bool:
        # One event at a time: pynetdicom would announce the waiting primitive once per loop.
        return self.event_queue.empty() and super()._process_recv_primitive()

    def _is_transport_event(self) -> bool:
        if not self.event_queue.empty():
            return False
        try:
            if self.state_machine.current_state == "Sta13":
                return self._linger()
            if not self._unread and not self._receive(WAIT_S):
                return False
            self._unread = self._unread[self._reader.feed(self._unread) :]
            # A turn of pynetdicom's loop costs more than what is read in it.
            while self._reads_on() and self._receive(WAIT_S):
                self._unread = self._unread[self._reader.feed(self._unread) :]
        except ProtocolViolation as violation:
            log.warning("association aborted: remote=%s sent %s", self._remote, violation)
            self._unread = memoryview(b"")
            if self.event_queue.empty():
                self.event_queue.put("Evt19")
        except Exception:  # pynetdicom sends the A-ABORT for it, but its own log is off
            log.exception("the DIMSE reader failed")
            raise
        return True

    def _reads_on(self) -> bool:
        """Tell whether an object is arriving and nothing else wants to be looked at."""
        return (
            self._storing is not None
            and not self._unread
            and self.event_queue.empty()
            and self.to_provider_queue.empty()
            and not self._kill_thread
        )

    @property
    def _remote(self) -> str:
        address = self.assoc.requestor.address_info
        return address.address if address else "?"

    def _receive(self, wait_s: float) -> bool:
        stream = cast(StreamSocket, self.socket)
        connection, readable = stream.socket, stream.has_pending
        for descriptor, _ in self._poll.poll(0 if readable else wait_s * 1000):
            if descriptor == self._wake_reader:
                os.read(self._wake_reader, 4096)
            else:
                readable = True
        if not readable or connection is None:
            return False
        try:
            received = connection.recv_into(self._buffer)
            if self.awaited_message_id is not None:
                acknowledge_at_once(connection)
        except BlockingIOError:  # half a record of TLS
            return False
        except OSError:  # reset by the peer: as closed as the orderly way
            received = 0
        if received == 0:
            self.event_queue.put("Evt17")
            return False
        self._unread = memoryview(self._buffer)[:received]
        self._idle_timer.restart()
        return True

    def _linger(self) -> bool:
        """Read and let fall what still comes, so that our last PDU is not lost in a reset."""
        stream = cast(StreamSocket, self.socket)
        if self._linger_until is None:
            self._linger_until = time.monotonic() + LINGER_S
            if self.storage is not None:
                self.storage.abort()
            if stream.socket is not None:
                try:
                    stream.socket.shutdown(socket.SHUT_WR)
                except OSError:  # the peer was first
                    pass
        left_s = self._linger_until - time.monotonic()
        if left_s <= 0:
            stream.close()
            return True
        received = self._receive(min(left_s, WAIT_S))
        self._unread = memoryview(b"")
        return received

    def _take_pdu(self, pdu: bytes) -> None:
        try:
            decoded, event = self._decode_pdu(bytearray(pdu))
            decoded.to_primitive()  # else it would fail inside the state machine
        except Exception as error:  # pynetdicom raises whatever its decoders trip over
            raise ProtocolViolation(
                f"a PDU of type {pdu[0]:02X}H that cannot be decoded ({type(error).__name__})"
            ) from error
        self._recv_pdu.put(decoded)
        self.event_queue.put(event)

    def _take_fragment(
        self, context_id: int, control: int, piece: memoryview, value_ends: bool
    ) -> None:
        if self.state_machine.current_state not in ("Sta6", "Sta7"):
            raise ProtocolViolation("P-DATA outside an association")
        if self._message_context is None:
            self._message_context = context_id
        elif self._message_context != context_id:
            raise ProtocolViolation("a message in two presentation contexts")
        message_ends = value_ends and bool(control & LAST)
        data_set_begun = self._storing is not None or self._identifier_bytes is not None
        if bool(control & COMMAND) == data_set_begun:
            raise ProtocolViolation("a command within a data set, or a data set without command")
        if control & COMMAND:
            self._take_command(context_id, piece, message_ends)
        elif self._storing is not None and self.storage is not None:
            self.storage.write(piece)
            if message_ends:
                self._answer_store(self._storing, context_id)
        else:
            self._take_identifier(context_id, piece, message_ends)

    def _take_command(self, context_id: int, piece: memoryview, ends: bool) -> None:
        self._command_set += piece
        if len(self._command_set) > COMMAND_SET_MAX_BYTES:
            raise ProtocolViolation(f"a command set of more than {COMMAND_SET_MAX_BYTES} bytes")
        if not ends:
            return
        command_set = bytes(self._command_set)
        self._command_set.clear()
        command = read_command(command_set)
        if context_id not in self.assoc._accepted_cx:
            raise ProtocolViolation(f"presentation context {context_id}, which was not accepted")
        if command.command_field == C_STORE_RQ and self.storage is not None:
            self._begin_store(self.storage, command, context_id)
            return
        if command.command_field in (C_CANCEL_RQ, C_STORE_RSP):
            if command.has_data_set:
                raise ProtocolViolation("a C-CANCEL or a C-STORE response with a data set")
            self._message_context = None
            self._take_answer(command)
            return
        if not command.command_field & RESPONSE:
            self.outstanding.add(command.message_id)
        self._pass_on(context_id, COMMAND | LAST, command_set)
        if command.has_data_set:
            self._identifier_bytes = 0
        else:
            self._message_context = None

    def _take_answer(self, command: Command) -> None:
        if command.command_field == C_CANCEL_RQ:
            if command.responded_message_id in self.outstanding:  # else it came too late
                self.cancelled.add(command.responded_message_id)
        elif command.responded_message_id != self.awaited_message_id:
            raise ProtocolViolation("a C-STORE response to nothing that was sent")
        else:
            self.awaited_message_id = None
            self.store_responses.put(command)

    def _take_identifier(self, context_id: int, piece: memoryview, ends: bool) -> None:
        self._identifier_bytes = (self._identifier_bytes or 0) + len(piece)
        if self._identifier_bytes > IDENTIFIER_MAX_BYTES:
            raise ProtocolViolation(f"a data set of more than {IDENTIFIER_MAX_BYTES} bytes")
        self._pass_on(context_id, LAST if ends else 0, bytes(piece))
        if ends:
            self._identifier_bytes = None
            self._message_context = None

    def _pass_on(self, context_id: int, control: int, value: bytes) -> None:
        primitive = P_DATA()
        # pynetdicom documents pairs and takes lists only.
        pair = [context_id, bytes([control]) + value]
        primitive.presentation_data_value_list = cast("list[tuple[int, bytes]]", [pair])
        try:
            self.assoc.dimse.receive_primitive(primitive)
        except Exception as error:  # pynetdicom raises whatever its decoders trip over
            raise ProtocolViolation(
                f"a message that cannot be decoded ({type(error).__name__})"
            ) from error
        if not self.event_queue.empty():  # it was no valid message, and Evt19 is on its way
            raise ProtocolViolation("a message that is not valid")

    def _begin_store(self, storage: "StorageStay", command: Command, context_id: int) -> None:
        context = self.assoc._accepted_cx[context_id]
        self._storing = command
        storage.begin(
            sop_class_uid=_text(command.sop_class_uid),
            sop_instance_uid=_text(command.sop_instance_uid),
            context_sop_class_uid=(
                str(context.abstract_syntax) if context_id in self.storage_contexts else ""
            ),
            transfer_syntax_uid=str(context.transfer_syntax[0]),
        )
        if not command.has_data_set:
            storage.refuse(CANNOT_UNDERSTAND, "the C-STORE request has no data set")
            self._answer_store(command, context_id)

    def _answer_store(self, command: Command, context_id: int) -> None:
        self.committing = True
        try:
            status, message = cast("StorageStay", self.storage).finish()
        finally:
            self._idle_timer.restart()
            self.committing = False
        self._storing = None
        self._message_context = None
        response = store_response(command, status, error_comment(message))
        pdus = command_pdus(context_id, response, self.peer_max_pdu_bytes)
        cast(StreamSocket, self.socket).send(pdus)


def _text(uid: bytes) -> str:
    return uid.rstrip(b"\0 ").decode("ascii", "replace")
