"""Observed handlers: each request of a service is one transaction, whichever way it answers."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from pynetdicom.events import Event, InterventionEvent

from bfr_core.observation import Observation
from bfr_legacy.dimse.peers import Peer
from bfr_legacy.dimse.status import SUCCESS, outcome_of_status

Handler = Callable[[Event, Peer], Any]


def observed(event: InterventionEvent, handler: Handler) -> Handler:
    """Return the handler with its transactions observed.

    A handler returns a Status, alone or before a data set, or yields several of them, of which
    the last one counts (pynetdicom's convention for PS3.7 §9.1).
    """
    transaction = event.name.removeprefix("EVT_").replace("_", "-")

    def answer(event: Event, peer: Peer) -> Any:
        observation = Observation(transaction)
        outcome = "failed"
        try:
            result = handler(event, peer)
            outcome = outcome_of_status(_status_in(result, SUCCESS))
            return result
        finally:
            observation.end(outcome)

    def answers(event: Event, peer: Peer) -> Iterator[Any]:
        observation = Observation(transaction)
        outcome, status = "failed", SUCCESS
        try:
            for result in handler(event, peer):
                status = _status_in(result, status)
                yield result
            outcome = outcome_of_status(status)
        except GeneratorExit:  # a final status was sent, or the association is gone
            outcome = outcome_of_status(status)
            raise
        finally:
            observation.end(outcome)

    return answers if inspect.isgeneratorfunction(handler) else answer


def _status_in(result: Any, otherwise: int) -> int:
    status = result[0] if isinstance(result, tuple) else result
    status = getattr(status, "Status", status)
    return status if isinstance(status, int) else otherwise
