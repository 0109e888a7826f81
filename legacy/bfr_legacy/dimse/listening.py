"""Listening sockets: what is done with each connection before its own thread has begun."""

import errno
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from pynetdicom.transport import AssociationServer, RequestHandler

from bfr_core import metrics
from bfr_legacy.dimse.association import StreamAssociation
from bfr_legacy.dimse.streaming import StreamSocket

if TYPE_CHECKING:
    from bfr_legacy.dimse.server import DimseServer

LISTEN_BACKLOG = 128
STOP_POLL_S = 0.1  # how late the accepting thread may notice that it is to stop

log = logging.getLogger("bfr.dimse")


class _Handler(RequestHandler):
    """Makes an association of a connection; runs in the accepting thread and never waits."""

    def handle(self) -> None:
        server = cast(Listener, self.server)
        association = server.door.new_association(server.secure)
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


class Listener(AssociationServer):
    """One listening socket with its thread; what it does per connection is quick.

    `secure` is called in each association's own thread and lets TLS begin. `shared` lets further
    processes listen on the same port, among which the kernel shares the connections out.
    """

    request_queue_size = LISTEN_BACKLOG

    def __init__(
        self,
        door: "DimseServer",
        address: tuple[str, int],
        secure: Callable[[StreamAssociation], None] | None,
        *,
        shared: bool,
    ) -> None:
        """Listen. Raises OSError when the address is taken."""
        self.door = door
        self.secure = secure
        self._shared = shared
        super().__init__(door.ae, address, door.ae.ae_title, [], request_handler=_Handler)
        self._thread = threading.Thread(
            target=self.serve_forever,
            kwargs={"poll_interval": STOP_POLL_S},
            name="dimse-accept",
            daemon=True,
        )

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self.server_address[1])

    @property
    def accepts(self) -> bool:
        """Tell whether connections are taken."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Take connections, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more connections."""
        self.shutdown()
        self._thread.join()
        self.server_close()

    def server_bind(self) -> None:
        """Bind, so that others may listen on the same port when it is shared."""
        if self._shared:
            listening = cast(socket.socket, self.socket)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Return the next connection, as it is."""
        try:
            return cast(socket.socket, self.socket).accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                log.error("no more file descriptors for DIMSE connections")
                time.sleep(0.1)  # the connection waits in the kernel, and select reports it again
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Tell whether the connection may be talked to."""
        if self.door.has_room():
            return True
        metrics.of(metrics.ASSOCIATIONS_REJECTED, "too_many_connections").inc()
        self.door.refusals.tell("connection closed: too many, remote=%s", client_address[0])
        return False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of a connection that could not be taken."""
        log.exception("a connection could not be taken: remote=%s", client_address[0])

    def shutdown(self) -> None:
        """Have the thread end."""
        socketserver.BaseServer.shutdown(self)  # pynetdicom's would look for itself in its AE

    def service_actions(self) -> None:
        """Do nothing: pynetdicom would collect garbage, which no association leaves here."""
