"""Retrieve SCP: C-MOVE and C-GET of both roots, which share one loop (PS3.4 §C.4.2–C.4.3)."""

import logging
import queue
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from pynetdicom import evt
from pynetdicom.dimse_primitives import C_GET, C_MOVE

from bfr_core import connections
from bfr_core.dataset_encoding import encode_dataset
from bfr_core.errors import ArchiveError, Unavailable
from bfr_core.manifest import StoredInstance
from bfr_core.node_terms import terms_of
from bfr_core.pixels import PixelPool
from bfr_core.receiving import header_limits
from bfr_core.retrieval import UniqueKeys, retrieve_selected
from bfr_core.store import Store
from bfr_legacy.dimse import query_retrieve
from bfr_legacy.dimse.bridge import Bridge
from bfr_legacy.dimse.exchange import Exchange
from bfr_legacy.dimse.negotiation import Service
from bfr_legacy.dimse.pdus import Command, Response
from bfr_legacy.dimse.query_retrieve import UNIQUE_KEYS, Identifier, Refused, misfit
from bfr_legacy.dimse.sending import Piece, acknowledge_at_once
from bfr_legacy.dimse.status import (
    CANCELLED,
    CANNOT_COUNT_MATCHES,
    CANNOT_PERFORM_SUB_OPERATIONS,
    MOVE_DESTINATION_UNKNOWN,
    PENDING,
    PROCESSING_FAILURE,
    SUB_OPERATIONS_WITH_FAILURES,
    SUCCESS,
    answer_to,
    error_comment,
)
from bfr_legacy.dimse.store_scu import Destination, Kind, NotSent, ObjectSender, Receiver
from bfr_legacy.dimse.streaming import StreamSocket
from bfr_legacy.dimse.tls import securing

SELECT_TIMEOUT_S = 60.0
PENDING_INTERVAL_S = 0.5  # pending responses are for people who wait (§C.4.2.1.4.1, §C.4.3.1.4)
SUB_OPERATIONS_MAX = 65_535  # their number is a US
FAILED_SOP_INSTANCE_UID_LIST = "00080058"

log = logging.getLogger("bfr.dimse")

# Sends one object; returns the receiver's status. Raises NotSent, and OSError when its association
# is over.
Send = Callable[[StoredInstance], int]


def retrieve(store: Store, bridge: Bridge, pixels: PixelPool) -> list[Service]:
    """Return the C-MOVE and C-GET services of both roots."""
    kinds = (
        ("C-MOVE", query_retrieve.MOVE, C_MOVE, _move),
        ("C-GET", query_retrieve.GET, C_GET, _get),
    )
    return [
        Service(
            name=name,
            answers_for=frozenset(root + suffix for root in query_retrieve.LEVELS).__contains__,
            transfer_syntaxes=query_retrieve.SYNTAXES,
            handlers=((evt.EVT_SOP_EXTENDED, query_retrieve.answer_extended_negotiation),),
            serve=_served(name, request, answer, store, bridge, pixels),
        )
        for name, suffix, request, answer in kinds
    ]


def _served(
    door: str,
    request: type,
    answer: Callable[[Store, Bridge, ObjectSender, Exchange], None],
    store: Store,
    bridge: Bridge,
    pixels: PixelPool,
) -> Callable[[Exchange], None]:
    def serve(exchange: Exchange) -> None:
        if not isinstance(exchange.request, request):
            exchange.association.abort()
            return
        sender = ObjectSender(store, bridge, pixels)
        try:
            answer(store, bridge, sender, exchange)
        except Refused as refused:
            log.info("%s refused: status=%04X", door, refused.status)
            exchange.fail(refused.status, refused.message, refused.offending_element)
        except Unavailable as error:
            log.warning("%s failed: %s", door, error.message)
            exchange.fail(CANNOT_COUNT_MATCHES, error.message)
        except ArchiveError as error:
            log.warning("%s failed: %s", door, type(error).__name__)
            exchange.fail(answer_to(error).status, error.message)
        except OSError:
            log.info("%s ended: the peer is gone", door)
        except Exception:  # the edge: the request fails, whatever the fault, and is answered for
            log.exception("%s failed", door)
            exchange.fail(PROCESSING_FAILURE, "the archive failed to retrieve")
        finally:
            sender.close()

    return serve


def _move(store: Store, bridge: Bridge, sender: ObjectSender, exchange: Exchange) -> None:
    keys = read_keys(exchange, store)
    archive = exchange.peer.archive
    title = str(exchange.request.MoveDestination or "").strip()
    node = bridge.run(
        connections.find_destination(store.database, archive, title), SELECT_TIMEOUT_S
    )
    if node is None:
        raise Refused(MOVE_DESTINATION_UNKNOWN, "the move destination is no registered node")
    instances = _select(store, bridge, exchange, "C-MOVE", keys, title)
    terms = bridge.run(terms_of(store.database, node.dicom_node_id), SELECT_TIMEOUT_S)
    secure = securing(store.settings, terms, node.host)
    receiver = Receiver(node.ae_title, node.host, node.port, archive.ae_title, secure)
    destination = Destination(receiver, instances, store.settings.dimse_idle_timeout_s)
    originator = (exchange.peer.calling_ae_title, exchange.message_id)

    def send(stored: StoredInstance) -> int:
        try:
            channel = destination.channel(stored)
            return sender.send(channel, stored, originator)
        except OSError as error:
            log.warning("C-MOVE: %s sends no answer: %s", node.ae_title, error)
            destination.give_up()
            raise NotSent("the move destination does not answer") from error

    try:
        _perform(exchange, destination.in_order(instances), send)
    finally:
        destination.release()


def _get(store: Store, bridge: Bridge, sender: ObjectSender, exchange: Exchange) -> None:
    keys = read_keys(exchange, store)
    instances = _select(store, bridge, exchange, "C-GET", keys, "")
    channel = _OwnChannel(exchange, store.settings.dimse_idle_timeout_s)
    _perform(exchange, instances, lambda stored: sender.send(channel, stored))


def _select(
    store: Store,
    bridge: Bridge,
    exchange: Exchange,
    door: str,
    keys: UniqueKeys,
    destination: str,
) -> list[StoredInstance]:
    found = bridge.run(
        retrieve_selected(
            store,
            exchange.peer.access,
            door,
            archive_id=exchange.peer.archive_id,
            keys=keys,
            instances_max=SUB_OPERATIONS_MAX,
            destination=destination,
        ),
        SELECT_TIMEOUT_S,
    )
    return [one.stored for one in found]


def read_keys(exchange: Exchange, store: Store) -> UniqueKeys:
    """Return what the request names. Raises Refused."""
    identifier = query_retrieve.read_identifier(exchange, header_limits(store.settings))
    if not query_retrieve.agrees(exchange, query_retrieve.RELATIONAL):
        query_retrieve.require_keys_above(identifier)
    own = UNIQUE_KEYS[identifier.level]
    if not identifier.values(own):
        raise misfit(f"the unique key of the {identifier.level} level is missing", own)
    patients = _checked(identifier, query_retrieve.PATIENT_ID)
    if patients is not None and len(patients) > 1:
        raise misfit("Patient ID is not a single value", query_retrieve.PATIENT_ID)
    return UniqueKeys(
        patient_identifier=patients[0] if patients else None,
        issuer=next(iter(identifier.values(query_retrieve.ISSUER)), None),
        study_instance_uids=_checked(identifier, query_retrieve.STUDY_UID),
        series_instance_uids=_checked(identifier, query_retrieve.SERIES_UID),
        sop_instance_uids=_checked(identifier, query_retrieve.INSTANCE_UID),
    )


def _checked(identifier: Identifier, tag: str) -> tuple[str, ...] | None:
    values = identifier.values(tag)
    if any("*" in value or "?" in value for value in values):
        raise misfit("a unique key has a wild card", tag)
    return values or None


@dataclass(slots=True)
class _Progress:
    """What has become of the sub-operations (§C.4.2.1.5, §C.4.3.1.4)."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warning: int = 0
    failed_uids: list[str] = field(default_factory=list)
    reason: str = ""  # of the first failure

    def take(self, stored: StoredInstance, status: int) -> None:
        self.remaining -= 1
        if status == SUCCESS:
            self.completed += 1
        elif status >> 12 == 0xB or status in (0x0001, 0x0107, 0x0116):  # PS3.7 §C.4
            self.warning += 1
        else:
            self.fail(stored, f"the receiver answers {status:04X}H")

    def fail(self, stored: StoredInstance, reason: str) -> None:
        self.failed += 1
        self.failed_uids.append(stored.sop_instance_uid)
        self.reason = self.reason or reason

    def final_status(self) -> int:
        if self.failed and not self.completed and not self.warning:
            return CANNOT_PERFORM_SUB_OPERATIONS
        if self.failed or self.warning:
            return SUB_OPERATIONS_WITH_FAILURES
        return SUCCESS

    def response(self, status: int) -> Response:
        # The number that remains is told while some do (§C.4.2.1.6).
        remaining = self.remaining if status in (PENDING, CANCELLED) else None
        return Response(
            status,
            error_comment(self.reason) if status not in (PENDING, CANCELLED, SUCCESS) else "",
            counts=(remaining, self.completed, self.failed, self.warning),
        )


def _perform(exchange: Exchange, instances: Sequence[StoredInstance], send: Send) -> None:
    """Send the objects, tell how far it is, and answer. Raises OSError when the peer is gone."""
    progress = _Progress(len(instances))
    told_at = time.monotonic()
    for stored in instances:
        if exchange.is_over:
            return
        if exchange.is_cancelled:
            _end(exchange, progress, CANCELLED)
            return
        try:
            progress.take(stored, send(stored))
        except NotSent as error:
            progress.remaining -= 1
            progress.fail(stored, str(error))
        if progress.remaining and time.monotonic() - told_at >= PENDING_INTERVAL_S:
            exchange.respond(progress.response(PENDING))
            told_at = time.monotonic()
    _end(exchange, progress, progress.final_status())


def _end(exchange: Exchange, progress: _Progress, status: int) -> None:
    identifier = None
    if progress.failed_uids:
        failed = {"vr": "UI", "Value": progress.failed_uids}
        identifier = encode_dataset(
            {FAILED_SOP_INSTANCE_UID_LIST: failed}, explicit=exchange.explicit
        )
    log.info(
        "sub-operations ended: calling=%r status=%04X completed=%d warning=%d failed=%d left=%d",
        *(exchange.peer.calling_ae_title, status, progress.completed, progress.warning),
        *(progress.failed, progress.remaining),
    )
    exchange.respond(progress.response(status), identifier)


class _OwnChannel:
    """The association of a C-GET, by which its objects go back."""

    def __init__(self, exchange: Exchange, timeout_s: float) -> None:
        self._exchange = exchange
        self._stream = exchange.association.stream
        self._timeout_s = timeout_s
        self.contexts: Mapping[Kind, int] = {
            (str(context.abstract_syntax), str(context.transfer_syntax[0])): context_id
            for context_id, context in exchange.association._accepted_cx.items()
            if context.as_scu
        }
        self.max_pdu_bytes = self._stream.peer_max_pdu_bytes

    def exchange(self, message_id: int, pieces: Iterable[Piece]) -> Command:
        """Send a C-STORE request and return its response. Raises OSError."""
        stream = self._stream
        connection = cast(StreamSocket, stream.socket)
        stream.awaited_message_id = message_id
        connection.send_message(pieces)
        if connection.socket is not None:
            acknowledge_at_once(connection.socket)
        try:
            response = stream.store_responses.get(timeout=self._timeout_s)
        except queue.Empty as error:
            self._exchange.association.abort()
            raise ConnectionAbortedError("the peer does not answer") from error
        if response is None:
            raise ConnectionResetError("the association is over")
        return response
