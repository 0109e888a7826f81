"""The one DICOM server: every archive's AE title behind one port (PS3.8, S-064).

`services` lists what it offers. A service is one module with a function that returns its
`Service`; adding it to that list is all that the server has to know.
"""

import asyncio
import errno
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from pydicom.uid import UID
from pynetdicom import _config
from pynetdicom._globals import APPLICATION_CONTEXT_NAME
from pynetdicom.ae import ApplicationEntity
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import AssociationServer, RequestHandler

from bfr_core import metrics, roles
from bfr_core.errors import ArchiveError
from bfr_core.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from bfr_core.pixels import PixelPool
from bfr_core.store import Store
from bfr_legacy.dimse import echo, find_scp, peers, retrieve_scp, store_scp
from bfr_legacy.dimse.association import StreamAssociation
from bfr_legacy.dimse.bridge import Bridge
from bfr_legacy.dimse.negotiation import Negotiated, Service, negotiate
from bfr_legacy.dimse.observed import observed
from bfr_legacy.dimse.peers import Peer
from bfr_legacy.dimse.status import (
    APPLICATION_CONTEXT_NAME_NOT_SUPPORTED,
    LOCAL_LIMIT_EXCEEDED,
    REJECTION_REASONS,
    TEMPORARY_CONGESTION,
    Rejection,
    answer_to,
)
from bfr_legacy.dimse.streaming import StreamSocket

REQUEST_TIMEOUT_S = 30.0  # from the connection to the A-ASSOCIATE-RQ (ARTIM, PS3.8 §9.1.5)
P_DATA_MAX_BYTES = 1 << 20  # let through although a peer is told to send less
UNADMITTED_MAX = 64  # connections beyond the associations: being rejected, silent, closing
LISTEN_BACKLOG = 128
STOP_POLL_S = 0.1  # how late the accepting thread may notice that it is to stop

log = logging.getLogger("bfr.dimse")


def services(store: Store, bridge: Bridge, pixels: PixelPool) -> list[Service]:
    """Return everything this door offers; the first that answers for an abstract syntax has it."""
    return [
        echo.verification(),
        find_scp.find(store, bridge),
        *retrieve_scp.retrieve(store, bridge, pixels),
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
        max_pdu_bytes=settings.dimse_max_pdu_bytes,
        max_associations=settings.dimse_max_associations,
        idle_timeout_s=settings.dimse_idle_timeout_s,
        on_stop=pixels.close,
    )


class DimseServer:
    """A DICOM server with its threads.

    `admit` gets the called AE title, the calling AE title and the remote address and returns
    the peer, or raises the ArchiveError that becomes the rejection.
    """

    def __init__(
        self,
        address: tuple[str, int],
        services: Sequence[Service],
        admit: Callable[[str, str, str], Peer],
        *,
        max_pdu_bytes: int,
        max_associations: int,
        idle_timeout_s: float,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        on_stop: Callable[[], None] = lambda: None,
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
        self._listener: _Listener | None = None
        self._thread: threading.Thread | None = None
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
        return int(self._listener.server_address[1] if self._listener else self._address[1])

    @property
    def problem(self) -> str | None:
        """What keeps the server from taking calls; None when all is well."""
        accepting = self._thread is not None and self._thread.is_alive()
        return None if accepting else "takes no connections"

    def start(self) -> None:
        """Listen and serve in threads. Raises OSError when the address is taken."""
        self._listener = _Listener(self, self._address)
        self._thread = threading.Thread(
            target=self._listener.serve_forever,
            kwargs={"poll_interval": STOP_POLL_S},
            name="dimse-accept",
            daemon=True,
        )
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Take no more calls, let what is arriving end for `timeout_s`, then abort."""
        listener, thread = self._listener, self._thread
        if self._stopping or listener is None or thread is None:
            return
        self._stopping = True
        listener.shutdown()
        thread.join()
        listener.server_close()
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

    def new_association(self) -> StreamAssociation:
        """Return an association for a connection that was just accepted."""
        self._count += 1
        return StreamAssociation(
            self.ae, self._count, self._p_data_max_bytes, self._admit, self._ended
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
        if full:
            decision: Peer | Rejection = LOCAL_LIMIT_EXCEEDED
        else:
            decision = self._decide(request, called, calling, remote)
            with self._lock:
                if isinstance(decision, Rejection):
                    self._admitted -= 1
                else:
                    self._connections[association] = decision
        if isinstance(decision, Rejection):
            _count_rejected(decision)
            log.warning(
                "association rejected: calling=%r called=%r remote=%s result=%d source=%d"
                " reason=%d",
                *(calling, called, remote, *decision),
            )
            return decision
        proposed = request.presentation_context_definition_list
        metrics.ASSOCIATIONS_ACCEPTED.inc()
        metrics.ASSOCIATIONS_OPEN.inc()
        negotiated = negotiate(self._services, proposed)
        self._prepare(association, decision, negotiated)
        log.info(
            "association accepted: calling=%r called=%r remote=%s contexts=%d of %d",
            *(calling, called, remote, len(negotiated.services), len(proposed)),
        )
        return None

    def _decide(
        self, request: A_ASSOCIATE, called: str, calling: str, remote: str
    ) -> Peer | Rejection:
        if request.application_context_name != APPLICATION_CONTEXT_NAME:
            return APPLICATION_CONTEXT_NAME_NOT_SUPPORTED
        try:
            return self._admit_peer(called, calling, remote)
        except ArchiveError as error:
            return answer_to(error).rejection
        except Exception:  # the edge: the caller is told to come back, whatever the fault
            log.exception("admission failed")
            return TEMPORARY_CONGESTION

    def _prepare(self, association: StreamAssociation, peer: Peer, negotiated: Negotiated) -> None:
        association.acceptor.supported_contexts = negotiated.supported
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
        storage = association.stream.storage
        if peer is not None and storage is not None:
            log.info(
                "association ended: calling=%r called=%r %s stored=%d refused=%d",
                *(peer.calling_ae_title, peer.archive.ae_title),
                *("released" if association.is_released else "aborted",),
                *(storage.stored, storage.refused),
            )


class _Handler(RequestHandler):
    """Makes an association of a connection; runs in the accepting thread and never waits."""

    def handle(self) -> None:
        server = cast(_Listener, self.server)
        association = server.door.new_association()
        association._server = server
        connection = cast(socket.socket, self.request)
        association.set_socket(StreamSocket(association, connection, server.door.idle_timeout_s))
        acceptor = association.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = self.ae.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        association.requestor.address_info = self.remote
        server.door.begin(association)


class _Listener(AssociationServer):
    """The listening socket; what it does per connection is quick, handshakes come later."""

    request_queue_size = LISTEN_BACKLOG

    def __init__(self, door: DimseServer, address: tuple[str, int]) -> None:
        self.door = door
        super().__init__(door.ae, address, door.ae.ae_title, [], request_handler=_Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return cast(socket.socket, self.socket).accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                log.error("no more file descriptors for DIMSE connections")
                time.sleep(0.1)  # the connection waits in the kernel, and select reports it again
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        if self.door.has_room():
            return True
        metrics.of(metrics.ASSOCIATIONS_REJECTED, "too_many_connections").inc()
        log.warning("connection closed: too many connections, remote=%s", client_address[0])
        return False

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.exception("a connection could not be taken: remote=%s", client_address[0])

    def shutdown(self) -> None:
        socketserver.BaseServer.shutdown(self)  # pynetdicom's would look for itself in its AE

    def service_actions(self) -> None:
        """Do nothing: pynetdicom would collect garbage, which no association leaves here."""


def _count_rejected(rejection: Rejection) -> None:
    metrics.of(metrics.ASSOCIATIONS_REJECTED, REJECTION_REASONS[rejection]).inc()


def silence_pynetdicom() -> None:
    """Turn off pynetdicom's own log: it writes data sets and stack traces."""
    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
