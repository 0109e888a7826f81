"""The one DICOM server: every archive's AE title behind one port (PS3.8, S-064).

`services` lists what it offers. A service is one module with a function that returns its
`Service`; adding it to that list is all that the server has to know.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from pydicom.uid import UID
from pynetdicom import _config
from pynetdicom._globals import APPLICATION_CONTEXT_NAME
from pynetdicom.ae import ApplicationEntity
from pynetdicom.pdu_primitives import A_ASSOCIATE, UserIdentityNegotiation

from bfr_core import metrics, roles
from bfr_core.errors import ArchiveError
from bfr_core.node_terms import Shown, UserIdentity
from bfr_core.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from bfr_core.pixels import PixelPool
from bfr_core.store import Store
from bfr_legacy.dimse import (
    commitment_scp,
    echo,
    find_scp,
    mpps_scp,
    peers,
    retrieve_scp,
    store_scp,
    worklist_scp,
)
from bfr_legacy.dimse.association import StreamAssociation
from bfr_legacy.dimse.bridge import Bridge
from bfr_legacy.dimse.limits import NodeLimits
from bfr_legacy.dimse.listening import Listener
from bfr_legacy.dimse.negotiation import Negotiated, Service, negotiate
from bfr_legacy.dimse.observed import observed
from bfr_legacy.dimse.peers import Peer
from bfr_legacy.dimse.refusals import Refusals
from bfr_legacy.dimse.status import (
    APPLICATION_CONTEXT_NAME_NOT_SUPPORTED,
    LOCAL_LIMIT_EXCEEDED,
    REJECTION_REASONS,
    TEMPORARY_CONGESTION,
    Rejection,
    answer_to,
)
from bfr_legacy.dimse.streaming import StreamSocket
from bfr_legacy.dimse.tls import Tls, tls_of

REQUEST_TIMEOUT_S = 30.0  # from the connection to the A-ASSOCIATE-RQ (ARTIM, PS3.8 §9.1.5)
P_DATA_MAX_BYTES = 1 << 20  # let through although a peer is told to send less
UNADMITTED_MAX = 64  # connections beyond the associations: being rejected, silent, closing
TLS_TIMEOUT_S = 10.0  # from the connection to the end of the handshake

log = logging.getLogger("bfr.dimse")


def services(store: Store, bridge: Bridge, pixels: PixelPool) -> list[Service]:
    """Return everything this door offers; the first that answers for an abstract syntax has it."""
    return [
        echo.verification(),
        find_scp.find(store, bridge),
        *retrieve_scp.retrieve(store, bridge, pixels),
        worklist_scp.worklist(store, bridge),
        mpps_scp.performed_procedure_step(store, bridge),
        commitment_scp.commitment(store, bridge),
        store_scp.storage(store, bridge),
    ]


async def serve_dimse(store: Store, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; what is arriving then may still arrive for a while.

    Raises OSError when the address is taken.
    """
    bridge = Bridge(asyncio.get_running_loop())
    server = dimse_server(store, bridge)
    server.start()
    log.info("DIMSE on %s port %d", store.settings.dimse_host, server.port)
    if server.tls_port is not None:
        log.info("DIMSE over TLS on %s port %d", store.settings.dimse_host, server.tls_port)

    async def check() -> str | None:
        return server.problem

    beating = asyncio.create_task(roles.beat(store, "dimse", check, stop))
    try:
        await stop.wait()
    finally:
        stop.set()
        await asyncio.to_thread(server.stop, store.settings.stop_timeout_s)
        bridge.close()
        await beating


def dimse_server(store: Store, bridge: Bridge) -> "DimseServer":
    """Return the server of the store, as its settings want it; not started."""
    settings = store.settings
    pixels = PixelPool(settings.pixel_processes)
    return DimseServer(
        (settings.dimse_host, settings.dimse_port),
        services(store, bridge, pixels),
        peers.admission(store, bridge),
        limits_directory=settings.run_dir / "nodes",
        max_pdu_bytes=settings.dimse_max_pdu_bytes,
        max_associations=settings.dimse_max_associations,
        idle_timeout_s=settings.dimse_idle_timeout_s,
        on_stop=pixels.close,
        tls=tls_of(settings),
        tls_port=settings.dimse_tls_port,
        shares_port=settings.dimse_processes > 1,
    )


class _Rejected(Exception):
    """An association request is rejected; `why` is for the log."""

    def __init__(self, rejection: Rejection, why: str) -> None:
        super().__init__(why)
        self.rejection = rejection
        self.why = why


class DimseServer:
    """A DICOM server with its threads.

    `admit` gets the called AE title, the calling AE title, the remote address and what else the
    caller shows, and returns the peer or raises the ArchiveError that becomes the rejection.
    """

    def __init__(
        self,
        address: tuple[str, int],
        services: Sequence[Service],
        admit: Callable[[str, str, str, Shown], Peer],
        *,
        limits_directory: Path,
        max_pdu_bytes: int,
        max_associations: int,
        idle_timeout_s: float,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        on_stop: Callable[[], None] = lambda: None,
        tls: Tls | None = None,
        tls_port: int = 0,
        shares_port: bool = False,
    ) -> None:
        self._address = address
        self._services = services
        self._admit_peer = admit
        self._on_stop = on_stop
        self._max_associations = max_associations
        self._lock = threading.Lock()
        self._connections: dict[StreamAssociation, Peer | None] = {}  # None: not admitted
        self._admitted = 0  # also those that are being decided on
        self._count = 0
        self._stopping = False
        self._tls = tls
        self._tls_port = tls_port
        self._shares_port = shares_port
        self._listener: Listener | None = None
        self._tls_listener: Listener | None = None
        self._limits = NodeLimits(limits_directory)
        self.refusals = Refusals()
        self._p_data_max_bytes = max(max_pdu_bytes, P_DATA_MAX_BYTES) if max_pdu_bytes else 2**32
        silence_pynetdicom()
        self.ae = ApplicationEntity("BFR")
        self.ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        self.ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self.ae.maximum_pdu_size = max_pdu_bytes
        self.ae.maximum_associations = 1 << 30  # counted here, before the core is asked
        self.ae.acse_timeout = request_timeout_s
        self.ae.network_timeout = idle_timeout_s
        self.idle_timeout_s = idle_timeout_s

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return self._listener.port if self._listener else self._address[1]

    @property
    def tls_port(self) -> int | None:
        """The port of associations over TLS; None when there are none."""
        return self._tls_listener.port if self._tls_listener else None

    @property
    def problem(self) -> str | None:
        """What keeps the server from taking calls; None when all is well."""
        if self._listener is None or not all(one.accepts for one in self._listeners):
            return "takes no connections"
        return None

    @property
    def _listeners(self) -> list[Listener]:
        return [one for one in (self._listener, self._tls_listener) if one is not None]

    def start(self) -> None:
        """Listen and serve in threads.

        Raises OSError when an address is taken, Unavailable when the TLS files cannot be read.
        """
        if self._tls is not None:
            self._tls.server()
            address = (self._address[0], self._tls_port)
            self._tls_listener = Listener(self, address, self._secure, shared=self._shares_port)
        self._listener = Listener(self, self._address, None, shared=self._shares_port)
        for listener in self._listeners:
            listener.start()

    def stop(self, timeout_s: float) -> None:
        """Take no more calls, let what is arriving end for `timeout_s`, then abort."""
        if self._stopping or self._listener is None:
            return
        self._stopping = True
        for listener in self._listeners:
            listener.stop()
        for association in self._open():
            association.stop_when_idle()
        self._wait_until_ended(time.monotonic() + timeout_s)
        for association in self._open():
            association.abort(block=False)
        self._wait_until_ended(time.monotonic() + 1.0)
        self._on_stop()

    def has_room(self) -> bool:
        """Tell whether one more connection may be talked to at all."""
        with self._lock:
            return len(self._connections) < self._max_associations + UNADMITTED_MAX

    def new_association(
        self, secure: Callable[[StreamAssociation], None] | None
    ) -> StreamAssociation:
        """Return an association for a connection that was just accepted."""
        with self._lock:
            self._count += 1
        return StreamAssociation(
            self.ae, self._count, self._p_data_max_bytes, self._admit, self._ended, secure
        )

    def begin(self, association: StreamAssociation) -> None:
        """Start the association's thread."""
        with self._lock:
            self._connections[association] = None
        try:
            association.start()
        except RuntimeError:  # no more threads
            with self._lock:
                self._connections.pop(association)
            raise

    def _secure(self, association: StreamAssociation) -> None:
        """Let TLS begin. Raises OSError when it does not."""
        stream = cast(StreamSocket, association.stream.socket)
        address = association.requestor.address_info
        try:
            stream.secure(cast(Tls, self._tls).server(), TLS_TIMEOUT_S)
        except (OSError, ArchiveError) as error:
            reason = getattr(error, "verify_message", None) or getattr(error, "reason", None)
            self.refusals.tell(
                "TLS refused: remote=%s reason=%s",
                *(address.address if address else "", reason or type(error).__name__),
            )
            raise ConnectionAbortedError from error

    def _open(self) -> list[StreamAssociation]:
        with self._lock:
            return list(self._connections)

    def _wait_until_ended(self, deadline: float) -> None:
        for association in self._open():
            association.join(max(deadline - time.monotonic(), 0.0))

    def _admit(self, association: StreamAssociation, request: A_ASSOCIATE) -> Rejection | None:
        called = str(request.called_ae_title or "").strip()
        calling = str(request.calling_ae_title or "").strip()
        address = association.requestor.address_info
        remote = address.address if address else ""
        with self._lock:
            full = self._admitted >= self._max_associations
            self._admitted += not full
        try:
            if full:
                raise _Rejected(LOCAL_LIMIT_EXCEEDED, "there are as many associations as can be")
            try:
                peer = self._decide(association, request, called, calling, remote)
            except _Rejected:
                with self._lock:
                    self._admitted -= 1
                raise
        except _Rejected as rejected:
            _count_rejected(rejected.rejection)
            self.refusals.tell(
                "association rejected: calling=%r called=%r remote=%s result=%d source=%d"
                " reason=%d: %s",
                *(calling, called, remote, *rejected.rejection, rejected.why),
            )
            return rejected.rejection
        with self._lock:
            self._connections[association] = peer
        proposed = request.presentation_context_definition_list
        metrics.ASSOCIATIONS_ACCEPTED.inc()
        metrics.ASSOCIATIONS_OPEN.inc()
        negotiated = negotiate(self._services, proposed)
        self._prepare(association, peer, negotiated)
        log.info(
            "association accepted: calling=%r called=%r remote=%s contexts=%d of %d",
            *(calling, called, remote, len(negotiated.services), len(proposed)),
        )
        return None

    def _decide(
        self,
        association: StreamAssociation,
        request: A_ASSOCIATE,
        called: str,
        calling: str,
        remote: str,
    ) -> Peer:
        """Return the peer. Raises _Rejected."""
        if request.application_context_name != APPLICATION_CONTEXT_NAME:
            raise _Rejected(APPLICATION_CONTEXT_NAME_NOT_SUPPORTED, "another application context")
        stream = cast(StreamSocket, association.stream.socket)
        shown = Shown(stream.is_secured, stream.certificate, _identity(association))
        try:
            peer = self._admit_peer(called, calling, remote, shown)
        except ArchiveError as error:
            raise _Rejected(answer_to(error).rejection, error.message) from error
        except Exception as error:  # the edge: the caller is told to come back, whatever the fault
            log.exception("admission failed")
            raise _Rejected(TEMPORARY_CONGESTION, "admission failed") from error
        node_id = peer.access.dicom_node_id
        if node_id is not None and not self._limits.enter(node_id, peer.terms):
            raise _Rejected(LOCAL_LIMIT_EXCEEDED, "the node calls more than was agreed")
        return peer

    def _prepare(self, association: StreamAssociation, peer: Peer, negotiated: Negotiated) -> None:
        association.acceptor.supported_contexts = negotiated.supported
        maximum, ours = peer.terms.pdu_max_bytes, self.ae.maximum_pdu_size
        if maximum is not None:
            association.acceptor.maximum_length = min(maximum, ours) if ours else maximum
        if (answer := _identity_answer(association, peer)) is not None:
            association.acceptor.add_negotiation_item(answer)
        association.peer, association.services = peer, negotiated.services
        for service in self._services:
            for event, handler in service.handlers:
                association.bind(event, observed(event, handler), [peer])
            if service.stay is not None:
                association.stream.storage = service.stay(peer)
                association.stream.storage_contexts = frozenset(
                    context_id
                    for context_id, taker in negotiated.services.items()
                    if taker is service
                )

    def _ended(self, association: StreamAssociation) -> None:
        with self._lock:
            peer = self._connections.pop(association)
            self._admitted -= peer is not None
        if peer is not None:
            metrics.ASSOCIATIONS_OPEN.dec()
        if peer is not None and peer.access.dicom_node_id is not None:
            self._limits.leave(peer.access.dicom_node_id)
        storage = association.stream.storage
        if peer is not None and storage is not None:
            log.info(
                "association ended: calling=%r called=%r %s stored=%d refused=%d",
                *(peer.calling_ae_title, peer.archive.ae_title),
                *("released" if association.is_released else "aborted",),
                *(storage.stored, storage.refused),
            )


def _identity(association: StreamAssociation) -> UserIdentity | None:
    asked = association.requestor.user_identity
    if asked is None or asked.user_identity_type is None:
        return None
    primary, secondary = asked.primary_field or b"", asked.secondary_field or b""
    return UserIdentity(asked.user_identity_type, primary, secondary)


def _identity_answer(association: StreamAssociation, peer: Peer) -> UserIdentityNegotiation | None:
    """Return the answer to a user identity that was looked at, when one is asked for.

    Of user names it has no content; no token is answered with another.
    """
    asked = association.requestor.user_identity
    if asked is None or not asked.positive_response_requested or not peer.access.names_user:
        return None
    answer = UserIdentityNegotiation()
    answer.server_response = b""
    return answer


def _count_rejected(rejection: Rejection) -> None:
    metrics.of(metrics.ASSOCIATIONS_REJECTED, REJECTION_REASONS[rejection]).inc()


def silence_pynetdicom() -> None:
    """Turn off pynetdicom's own log: it writes data sets and stack traces."""
    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
