"""One association on the acceptor's side, from the request to its end (PS3.8 §7, PS3.7 §7.5)."""

import logging
import queue
from collections import deque
from collections.abc import Callable
from typing import cast

from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import DimseServiceType
from pynetdicom.pdu_primitives import A_ASSOCIATE

from bfr_legacy.dimse.exchange import Exchange
from bfr_legacy.dimse.negotiation import Service
from bfr_legacy.dimse.peers import Peer
from bfr_legacy.dimse.status import Rejection
from bfr_legacy.dimse.streaming import WAIT_S, StreamDUL, StreamSocket

log = logging.getLogger("bfr.dimse")


class StreamAssociation(Association):
    """One association that a peer has asked for, with a thread of its own.

    `secure` lets TLS begin, if it is to; it raises OSError when there is none. `admit` decides on
    the request: it returns None, or how to reject it. `on_end` is called when everything is over.
    """

    def __init__(
        self,
        ae: ApplicationEntity,
        number: int,
        p_data_max_bytes: int,
        admit: Callable[["StreamAssociation", A_ASSOCIATE], Rejection | None],
        on_end: Callable[["StreamAssociation"], None],
        secure: Callable[["StreamAssociation"], None] | None = None,
    ) -> None:
        self.number = number
        super().__init__(ae, MODE_ACCEPTOR)
        self.name = f"dimse-AcceptorThread-{number}"
        self.stream = StreamDUL(self, p_data_max_bytes)
        self.dul = self.stream
        self.acse_timeout = ae.acse_timeout  # once more, for the timers of this reader
        self.network_timeout = ae.network_timeout
        self.peer: Peer | None = None  # who has been admitted
        self.services: dict[int, Service] = {}  # presentation context ID → who answers
        self.answers: dict[int, Callable[[DimseServiceType], None]] = {}  # to requests of ours
        self.errands: deque[Callable[[], None]] = deque()  # to be run when the peer leaves room
        self._admit = admit
        self._on_end = on_end
        self._secure = secure
        self._stopping = False

    def wake(self) -> None:
        """Let the association look around."""
        self.dimse.msg_queue.put((None, None))

    def stop_when_idle(self) -> None:
        """Abort as soon as no object is arriving and no service is at work."""
        self._stopping = True
        self.wake()
        if not self.is_established:
            self.stream.kill_dul()
            if not self._started_dul:  # TLS is being negotiated
                cast(StreamSocket, self.stream.socket)._shutdown_socket()

    def run_reactor(self) -> None:
        """Run from the connection to its end."""
        try:
            self._serve()
        except Exception:  # the edge of the thread
            log.exception("an association failed")
        finally:
            self.stream.kill_dul()
            if self.stream.is_alive():
                self.stream.join()
            cast(StreamSocket, self.stream.socket)._shutdown_socket()
            self._on_end(self)

    def _serve(self) -> None:
        if self._secure is not None:
            try:
                self._secure(self)
            except OSError:
                return
        self._started_dul = True
        self.dul.start()
        self._dul_ready.wait()
        # The reader's ARTIM timer closes a silent connection, which ends the waiting.
        request = self.dul.receive_pdu(wait=True)
        if not isinstance(request, A_ASSOCIATE):
            return
        self.requestor.primitive = request
        rejection = self._admit(self, request)
        if rejection is None:
            self.acse.negotiate_association()
        else:
            self.acse.send_reject(*rejection)
            self.kill()
        if self.is_established:
            self._run_reactor()

    def _serve_request(self, msg: DimseServiceType, context_id: int) -> None:
        if msg.is_valid_response:
            answered = self.answers.pop(getattr(msg, "MessageIDBeingRespondedTo", None) or 0, None)
            if answered is not None:
                answered(msg)
            return
        service, peer = self.services.get(context_id), self.peer
        if service is None or service.serve is None or peer is None:
            super()._serve_request(msg, context_id)
            self.stream.end_request(getattr(msg, "MessageID", None) or 0)
        else:
            service.serve(Exchange(self, peer, self._accepted_cx[context_id], msg))

    def _run_reactor(self) -> None:
        while not self._kill:
            self._is_paused = True
            self._reactor_checkpoint.wait()
            self._is_paused = False
            try:
                context_id, message = self.dimse.msg_queue.get(timeout=WAIT_S)
            except queue.Empty:
                context_id, message = None, None
                if self.errands and self.is_established and not self.stream.storing:
                    self.errands.popleft()()
            if message is not None and context_id is not None:
                if not message.is_valid_request and not message.is_valid_response:
                    log.warning("association aborted: an incomplete %s", message.msg_type)
                    self.abort()
                    return
                self._serve_request(message, context_id)
                self.dul._idle_timer.restart()
            if self.is_established and self.acse.is_release_requested():
                self.acse.send_release(is_response=True)
                self.is_released = True
                self.is_established = False
                self.kill()
            elif self.acse.is_aborted():
                self.is_aborted = True
                self.is_established = False
                self.kill()
            elif self._stopping and not self.stream.storing:
                self.abort()
            elif self.dul.idle_timer_expired() and not self.stream.committing:
                log.info("association aborted: idle for %s s", self.network_timeout)
                self.abort()
