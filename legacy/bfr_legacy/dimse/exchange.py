"""One request of a peer, and the way back to it (PS3.7 §9.1, §9.3)."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext

from bfr_legacy.dimse.pdus import (
    Response,
    command_pdus,
    data_set_pdus,
    fragment_bytes,
    query_response,
)
from bfr_legacy.dimse.peers import Peer
from bfr_legacy.dimse.status import PENDING, PENDING_WITHOUT_SOME_KEYS, error_comment

if TYPE_CHECKING:
    from bfr_legacy.dimse.association import StreamAssociation
    from bfr_legacy.dimse.streaming import StreamSocket

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
log = logging.getLogger("bfr.dimse")

COMMAND_FIELDS = {"C_FIND": 0x0020, "C_GET": 0x0010, "C_MOVE": 0x0021}


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that is being served in the association's own thread."""

    association: "StreamAssociation"
    peer: Peer
    context: PresentationContext
    request: Any  # a DIMSE primitive of pynetdicom

    @property
    def context_id(self) -> int:
        """The presentation context of the request and of its responses."""
        return self.context.context_id or 0

    @property
    def message_id(self) -> int:
        """Message ID (0000,0110) of the request."""
        return int(self.request.MessageID)

    @property
    def sop_class_uid(self) -> str:
        """The abstract syntax of the presentation context."""
        return str(self.context.abstract_syntax)

    @property
    def explicit(self) -> bool:
        """Tell whether data sets are in Explicit VR."""
        return str(self.context.transfer_syntax[0]) == EXPLICIT_VR_LITTLE_ENDIAN

    @property
    def identifier(self) -> bytes:
        """The identifier of the request, as encoded."""
        return cast(bytes, self.request.Identifier.getvalue())

    @property
    def agreed(self) -> bytes:
        """What the peer has proposed for the SOP class in extended negotiation; b"" for nothing."""
        asked = self.association.requestor.sop_class_extended
        return asked.get(UID(self.sop_class_uid), b"")

    @property
    def is_cancelled(self) -> bool:
        """Tell whether a C-CANCEL has named the request."""
        return self.message_id in self.association.stream.cancelled

    @property
    def is_over(self) -> bool:
        """Tell whether the association has ended meanwhile."""
        return self.association.stream.state_machine.current_state != "Sta6"

    def respond(self, response: Response, identifier: bytes | None = None) -> None:
        """Send a response. Raises OSError when the peer is gone."""
        command_field = COMMAND_FIELDS[type(self.request).__name__]
        command = query_response(
            command_field,
            self.message_id,
            self.sop_class_uid,
            response,
            identifier=identifier is not None,
        )
        stream = self.association.stream
        if response.status not in (PENDING, PENDING_WITHOUT_SOME_KEYS):
            # Before it is sent: the peer may use the Message ID again at once.
            stream.end_request(self.message_id)
        max_pdu_bytes = stream.peer_max_pdu_bytes
        pieces: list[bytes | memoryview] = [command_pdus(self.context_id, command, max_pdu_bytes)]
        if identifier is not None:
            fragment = fragment_bytes(max_pdu_bytes)
            pieces += data_set_pdus(self.context_id, memoryview(identifier), fragment, ends=True)
        cast("StreamSocket", stream.socket).send_message(pieces)

    def fail(self, status: int, message: str, offending_element: int | None = None) -> None:
        """Send a final response that tells why, to a peer that may be gone."""
        try:
            self.respond(Response(status, error_comment(message), offending_element))
        except OSError:
            log.info("the peer is gone before it could be told: status=%04X", status)
