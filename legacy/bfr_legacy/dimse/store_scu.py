"""Storage SCU: stored objects to a receiver, as they are when it can take them (PS3.4 Annex B).

An object is transcoded only when the receiver takes its SOP class in no other way.
"""

import itertools
import logging
import socket
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydicom.uid import UID
from pynetdicom._globals import APPLICATION_CONTEXT_NAME
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

from bfr_core.blobs import BlobReader
from bfr_core.errors import ArchiveError
from bfr_core.manifest import StoredInstance
from bfr_core.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from bfr_core.pixels import PixelPool
from bfr_core.receiving import header_limits
from bfr_core.store import Store
from bfr_core.transcoding import TARGETS, transcode
from bfr_legacy.dimse.bridge import Bridge
from bfr_legacy.dimse.pdus import (
    C_STORE_RSP,
    COMMAND,
    LAST,
    Command,
    PduReader,
    ProtocolViolation,
    command_pdus,
    data_set_pdus,
    fragment_bytes,
    read_command,
    store_request,
)
from bfr_legacy.dimse.sending import Piece, acknowledge_at_once, send_pieces, stored_pdus

CONTEXTS_MAX = 128  # odd numbers up to 255 (PS3.8 §9.3.2.2)
ASSOCIATE_TIMEOUT_S = 30.0
TRANSCODE_TIMEOUT_S = 120.0
RECEIVE_BYTES = 64 * 1024
MAX_PDU_BYTES = 16 * 1024  # of what a receiver says: responses are short
ASSOCIATE_AC, ASSOCIATE_RJ, RELEASE_RP = 0x02, 0x03, 0x06
RELEASE_RQ = b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00"
ABORT = b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00"

Kind = tuple[str, str]  # SOP class and transfer syntax

log = logging.getLogger("bfr.dimse")


class NotSent(Exception):
    """An object could not be sent, for a reason of its own; the association goes on."""


class Channel(Protocol):
    """An association by which objects are sent, whoever has asked for it."""

    @property
    def contexts(self) -> Mapping[Kind, int]:
        """The presentation contexts in which the receiver takes objects."""

    @property
    def max_pdu_bytes(self) -> int:
        """The largest PDU that the receiver takes; 0: any."""

    def exchange(self, message_id: int, pieces: Iterable[Piece]) -> Command:
        """Send a C-STORE request and return its response.

        Raises OSError when the association is over, and whatever `pieces` raises.
        """


class ObjectSender:
    """Sends stored objects over a channel, one after the other."""

    def __init__(self, store: Store, bridge: Bridge, pixels: PixelPool) -> None:
        self._store = store
        self._bridge = bridge
        self._pixels = pixels
        self._reader = BlobReader(store.blobs)
        self._message_ids = itertools.cycle(range(1, 1 << 16))

    def send(
        self, channel: Channel, stored: StoredInstance, originator: tuple[str, int] | None = None
    ) -> int:
        """Return the receiver's status. Raises NotSent, or OSError when the channel is over."""
        context_id, target = _choose(channel.contexts, stored)
        max_pdu_bytes = channel.max_pdu_bytes
        message_id = next(self._message_ids)
        request = store_request(
            message_id, stored.sop_class_uid, stored.sop_instance_uid, originator
        )
        if target is None:
            data_set = stored_pdus(self._reader, stored, context_id, max_pdu_bytes)
        else:
            data = memoryview(self._transcoded(stored, target))
            fragment = fragment_bytes(max_pdu_bytes)
            data_set = data_set_pdus(context_id, data, fragment, ends=True)
        try:  # what is not there must not be found out in the midst of a message
            first = next(data_set, None)
        except ArchiveError as error:
            raise NotSent(error.message) from error
        pieces = itertools.chain(
            [command_pdus(context_id, request, max_pdu_bytes)],
            [] if first is None else [first],
            data_set,
        )
        try:
            return channel.exchange(message_id, pieces).status
        except ArchiveError as error:  # a part is sent, and the rest cannot be read
            raise ConnectionAbortedError(error.message) from error

    def close(self) -> None:
        """Close the packs."""
        self._reader.close()

    def _transcoded(self, stored: StoredInstance, target: str) -> bytes:
        limits = header_limits(self._store.settings)
        if stored.blob.length > limits.inflated_max_bytes:
            raise NotSent("the object is too large to be transcoded")
        try:
            return self._bridge.run(
                self._pixels.run(transcode, self._store.blobs.read(stored.blob), target, limits),
                TRANSCODE_TIMEOUT_S,
            )
        except ArchiveError as error:
            raise NotSent(error.message) from error
        except Exception as error:  # the edge: a codec's fault costs this object alone
            log.exception("an object could not be transcoded")
            raise NotSent("the object cannot be transcoded") from error


def _choose(contexts: Mapping[Kind, int], stored: StoredInstance) -> tuple[int, str | None]:
    """Return the context, and the transfer syntax that the object is to be transcoded to.

    Raises NotSent when the receiver takes the object in no way.
    """
    as_stored = contexts.get((stored.sop_class_uid, stored.transfer_syntax_uid))
    if as_stored is not None:
        return as_stored, None
    for target in TARGETS:
        context_id = contexts.get((stored.sop_class_uid, target))
        if context_id is not None:
            return context_id, target
    raise NotSent("the receiver takes no such object")


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where objects go, and as whom we call."""

    ae_title: str
    host: str
    port: int
    calling_ae_title: str
    secure: Callable[[socket.socket, float], socket.socket] | None = None  # lets TLS begin


def proposals(instances: Iterable[StoredInstance]) -> list[list[Kind]]:
    """Return what to propose for the objects, a list for each association that is needed.

    Each context has one transfer syntax, so that the receiver cannot choose another than the
    stored one when it takes both. All contexts of a SOP class are in one association.
    """
    stored: dict[str, list[str]] = {}
    for one in instances:
        syntaxes = stored.setdefault(one.sop_class_uid, [])
        if one.transfer_syntax_uid not in syntaxes:
            syntaxes.append(one.transfer_syntax_uid)
    associations: list[list[Kind]] = []
    for sop_class_uid, syntaxes in stored.items():
        kinds = [(sop_class_uid, one) for one in dict.fromkeys([*syntaxes, *TARGETS])]
        if not associations or len(associations[-1]) + len(kinds) > CONTEXTS_MAX:
            associations.append([])
        associations[-1] += kinds[:CONTEXTS_MAX]
    return associations


class RequestedAssociation:
    """An association that we have asked a receiver for; a thread waits for each answer.

    `timeout_s` bounds each wait for the receiver: to read, and to answer.
    """

    def __init__(self, receiver: Receiver, kinds: Sequence[Kind], timeout_s: float) -> None:
        """Ask. Raises OSError when there is nobody, ConnectionRefusedError when it is rejected."""
        self.contexts: Mapping[Kind, int] = {}
        self.max_pdu_bytes = 0
        self._pdus: list[bytes] = []
        self._command = bytearray()
        self._responses: list[Command] = []
        self._reader = PduReader(self._pdus.append, self._take_fragment, 1 << 20)
        address = (receiver.host, receiver.port)
        self._connection = socket.create_connection(address, min(ASSOCIATE_TIMEOUT_S, timeout_s))
        try:
            # The kernel's own timeouts: Python's would make the socket non-blocking.
            self._connection.settimeout(None)
            timeval = struct.pack("@ll", int(timeout_s), int(timeout_s % 1 * 1_000_000))
            for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                self._connection.setsockopt(socket.SOL_SOCKET, option, timeval)
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if receiver.secure is not None:
                self._connection = receiver.secure(self._connection, timeout_s)
            self._associate(receiver, kinds)
        except BaseException:
            self._connection.close()
            raise

    def exchange(self, message_id: int, pieces: Iterable[Piece]) -> Command:
        """Send a C-STORE request and return its response.

        Raises OSError when the association is over, and whatever `pieces` raises.
        """
        try:
            send_pieces(self._connection, pieces)
        except BlockingIOError as error:
            raise ConnectionAbortedError("the receiver has stopped reading") from error
        while not self._responses:
            self._receive()
            if self._pdus:
                raise ConnectionAbortedError("the receiver has ended the association")
        response = self._responses.pop(0)
        if response.responded_message_id != message_id or response.command_field != C_STORE_RSP:
            raise ConnectionAbortedError("the receiver has answered something else")
        return response

    def release(self) -> None:
        """End the association in order."""
        try:
            self._connection.sendall(RELEASE_RQ)
            while not self._pdus:
                self._receive()
        except OSError:  # the receiver was first, or does not care
            pass
        self._connection.close()

    def abort(self) -> None:
        """End the association at once."""
        try:
            self._connection.setblocking(False)  # who does not read is not waited for
            self._connection.send(ABORT)
        except OSError:
            pass
        self._connection.close()

    def _associate(self, receiver: Receiver, kinds: Sequence[Kind]) -> None:
        request = A_ASSOCIATE()
        request.application_context_name = UID(APPLICATION_CONTEXT_NAME)
        request.calling_ae_title = receiver.calling_ae_title
        request.called_ae_title = receiver.ae_title
        contexts = []
        for number, (sop_class_uid, transfer_syntax_uid) in enumerate(kinds):
            context = build_context(sop_class_uid, transfer_syntax_uid)
            context.context_id = 2 * number + 1
            contexts.append(context)
        request.presentation_context_definition_list = contexts
        maximum = MaximumLengthNotification()
        maximum.maximum_length_received = MAX_PDU_BYTES
        implementation = ImplementationClassUIDNotification()
        implementation.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        version = ImplementationVersionNameNotification()
        version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        request.user_information = [maximum, implementation, version]
        pdu = A_ASSOCIATE_RQ()
        pdu.from_primitive(request)
        self._connection.sendall(pdu.encode())
        while not self._pdus:
            self._receive()
        answer = self._pdus.pop()
        if answer[0] == ASSOCIATE_RJ:
            raise ConnectionRefusedError(
                "the receiver rejects the association: result {}, source {}, reason {}".format(
                    *answer[7:10]
                )
            )
        if answer[0] != ASSOCIATE_AC:
            raise ConnectionAbortedError("the receiver has aborted the association")
        self._accept(answer, kinds)

    def _accept(self, answer: bytes, kinds: Sequence[Kind]) -> None:
        accepted = A_ASSOCIATE_AC()
        try:
            accepted.decode(answer)
            result = accepted.to_primitive()
            contexts = {
                kinds[(context.context_id - 1) // 2]: context.context_id
                for context in result.presentation_context_definition_results_list
                if context.result == 0 and context.context_id is not None
            }
            maximum = result.maximum_length_received or 0
        except Exception as error:  # pynetdicom raises whatever its decoders trip over
            raise ConnectionAbortedError("the receiver's answer cannot be decoded") from error
        self.contexts, self.max_pdu_bytes = contexts, maximum

    def _receive(self) -> None:
        """Take what comes next. Raises OSError when nothing does, or the connection is closed."""
        acknowledge_at_once(self._connection)
        try:
            data = self._connection.recv(RECEIVE_BYTES)
        except BlockingIOError as error:
            raise ConnectionAbortedError("the receiver does not answer in time") from error
        if not data:
            raise ConnectionResetError("the receiver has closed the connection")
        unread = memoryview(data)
        try:
            while unread:
                unread = unread[self._reader.feed(unread) :]
        except ProtocolViolation as error:
            raise ConnectionAbortedError(f"the receiver sent {error}") from error

    def _take_fragment(
        self, context_id: int, control: int, piece: memoryview, value_ends: bool
    ) -> None:
        if not control & COMMAND:
            raise ProtocolViolation("a data set in answer to C-STORE")
        self._command += piece
        if len(self._command) > RECEIVE_BYTES:
            raise ProtocolViolation("a command set without end")
        if value_ends and control & LAST:
            command = bytes(self._command)
            self._command.clear()
            self._responses.append(read_command(command))


class Destination:
    """A receiver with the association that the object at hand needs."""

    REASSOCIATIONS_MAX = 3

    def __init__(
        self, receiver: Receiver, instances: Sequence[StoredInstance], timeout_s: float
    ) -> None:
        self._receiver = receiver
        self._proposals = proposals(instances)
        self._timeout_s = timeout_s
        self._proposal_of = {
            sop_class_uid: number
            for number, kinds in enumerate(self._proposals)
            for sop_class_uid, _ in kinds
        }
        self._number = -1  # of the proposal that the association is of
        self._association: RequestedAssociation | None = None
        self._failures = 0

    def in_order(self, instances: Iterable[StoredInstance]) -> list[StoredInstance]:
        """Return the objects so that each association is needed once."""
        return sorted(instances, key=lambda one: self._proposal_of[one.sop_class_uid])

    def channel(self, stored: StoredInstance) -> RequestedAssociation:
        """Return the association for the object. Raises OSError when none can be had."""
        number = self._proposal_of[stored.sop_class_uid]
        if self._association is not None and number != self._number:
            self.release()
        if self._association is None:
            if self._failures > self.REASSOCIATIONS_MAX:
                raise ConnectionAbortedError("the receiver has broken off too often")
            try:
                self._association = RequestedAssociation(
                    self._receiver, self._proposals[number], self._timeout_s
                )
            except OSError:
                self._failures = self.REASSOCIATIONS_MAX + 1  # nobody is there: not asked again
                raise
            self._number = number
        return self._association

    def give_up(self) -> None:
        """Abort the association: something has broken. Another is asked for by the next object."""
        self._failures += 1
        association, self._association = self._association, None
        if association is not None:
            association.abort()

    def release(self) -> None:
        """End the association in order."""
        association, self._association = self._association, None
        if association is not None:
            association.release()
