"""Verification SCP: C-ECHO (PS3.4 Annex A, PS3.7 §9.1.5)."""

from pynetdicom import evt
from pynetdicom.events import Event

from bfr_legacy.dimse.negotiation import Service
from bfr_legacy.dimse.peers import Peer
from bfr_legacy.dimse.status import SUCCESS

VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


def verification() -> Service:
    """Return the Verification service; an admitted node always gets Success."""
    return Service(
        name="C-ECHO",
        answers_for=VERIFICATION.__eq__,
        transfer_syntaxes=frozenset({IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN}),
        handlers=((evt.EVT_C_ECHO, answer_echo),),
    )


def answer_echo(event: Event, peer: Peer) -> int:
    """Return Success."""
    return SUCCESS
