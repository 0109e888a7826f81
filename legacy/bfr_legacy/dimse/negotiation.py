"""Services and the presentation contexts they accept (PS3.7 Annex D.3, PS3.8 §9.3.2)."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pynetdicom.events import Event, InterventionEvent
from pynetdicom.presentation import PresentationContext, build_context

from bfr_legacy.dimse.peers import Peer

if TYPE_CHECKING:
    from bfr_legacy.dimse.exchange import Exchange
    from bfr_legacy.dimse.store_scp import StorageStay

UID = re.compile(r"[0-9]+(\.[0-9]+)+")
DICOM_ROOT = "1.2.840.10008."
DICOM_TRANSFER_SYNTAXES = "1.2.840.10008.1.2"  # and .1.20, the retired Papyrus


@dataclass(frozen=True, slots=True)
class Service:
    """One DIMSE service of this door: what it answers for and who answers."""

    name: str
    answers_for: Callable[[str], bool]  # abstract syntax → whether this service takes it
    transfer_syntaxes: frozenset[str] | None = None  # None: any
    handlers: tuple[tuple[InterventionEvent, Callable[[Event, Peer], Any]], ...] = ()
    serve: "Callable[[Exchange], None] | None" = None  # who answers requests, if no handler does
    stay: "Callable[[Peer], StorageStay] | None" = None  # who takes the data sets of C-STORE
    both_roles: bool = False  # the peer may be SCU or SCP, whichever it asks for

    @property
    def takes_both_roles(self) -> bool:
        """Tell whether the peer may have either role; in C-GET it stores (PS3.4 §C.5.3)."""
        return self.both_roles or self.stay is not None


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What was made of an association request."""

    supported: list[PresentationContext]  # for pynetdicom: one for each abstract syntax taken
    services: dict[int, Service]  # presentation context ID → who answers


def negotiate(services: Sequence[Service], proposed: Sequence[PresentationContext]) -> Negotiated:
    """Return what the services take of the proposed contexts.

    A context that is taken is narrowed to the first of its transfer syntaxes that the service
    takes, so that the sender's own preference counts in each context.
    """
    syntaxes: dict[str, list[str]] = {}
    taken: dict[int, Service] = {}
    for context in proposed:
        service = _service_for(services, str(context.abstract_syntax or ""))
        chosen = _first_transfer_syntax(service, context.transfer_syntax) if service else None
        if service is None or chosen is None or context.context_id is None:
            continue
        context.transfer_syntax = [chosen]
        taken[context.context_id] = service
        chosen_so_far = syntaxes.setdefault(str(context.abstract_syntax), [])
        if chosen not in chosen_so_far:
            chosen_so_far.append(chosen)
    supported = [build_context(abstract, chosen) for abstract, chosen in syntaxes.items()]
    either = {
        str(context.abstract_syntax)
        for context in proposed
        if context.context_id in taken and taken[context.context_id].takes_both_roles
    }
    for context in supported:
        if context.abstract_syntax in either:
            context.scu_role = context.scp_role = True
    return Negotiated(supported=supported, services=taken)


def _service_for(services: Sequence[Service], abstract_syntax: str) -> Service | None:
    if not is_uid(abstract_syntax):
        return None
    return next((s for s in services if s.answers_for(abstract_syntax)), None)


def _first_transfer_syntax(service: Service, proposed: Sequence[str]) -> str | None:
    for uid in map(str, proposed):
        if service.transfer_syntaxes is not None:
            if uid in service.transfer_syntaxes:
                return uid
        elif is_uid(uid) and (
            not uid.startswith(DICOM_ROOT) or uid.startswith(DICOM_TRANSFER_SYNTAXES)
        ):
            return uid
    return None


def is_uid(text: str) -> bool:
    """Tell whether the text has the form of a UID (PS3.5 §9.1; leading zeros are let through)."""
    return len(text) <= 64 and UID.fullmatch(text) is not None
