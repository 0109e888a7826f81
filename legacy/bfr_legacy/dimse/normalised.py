"""DIMSE-N: requests about managed objects and the way back (PS3.7 §10)."""

import logging
from collections.abc import Callable
from io import BytesIO
from typing import Any

from pynetdicom.dimse_primitives import N_ACTION, N_CREATE, N_EVENT_REPORT, N_SET

from bfr_core.data_elements import DataElementReader
from bfr_core.errors import ArchiveError
from bfr_core.instances import Dataset
from bfr_core.receiving import header_limits
from bfr_core.store import Store
from bfr_legacy.dimse.exchange import Exchange
from bfr_legacy.dimse.status import PROCESSING_FAILURE, answer_to, error_comment

# Status (0000,0900), PS3.7 Annex C
SUCCESS = 0x0000
ATTRIBUTE_LIST_ERROR = 0x0107
INVALID_ATTRIBUTE_VALUE = 0x0106
DUPLICATE_SOP_INSTANCE = 0x0111
NO_SUCH_SOP_INSTANCE = 0x0112
INVALID_ARGUMENT_VALUE = 0x0115
INVALID_SOP_INSTANCE = 0x0117
MISSING_ATTRIBUTE = 0x0120
MISSING_ATTRIBUTE_VALUE = 0x0121
NO_SUCH_ACTION = 0x0123
NO_SUCH_EVENT_TYPE = 0x0113
NOT_AUTHORISED = 0x0124

DATA_SETS = {
    N_ACTION: "ActionInformation",
    N_CREATE: "AttributeList",
    N_EVENT_REPORT: "EventInformation",
    N_SET: "ModificationList",
}

log = logging.getLogger("bfr.dimse")


class Failed(Exception):
    """The request cannot be done; it says with which status that is answered."""

    def __init__(self, status: int, message: str, error_id: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.error_id = error_id


def served(
    name: str, answers: dict[type, Callable[[Exchange], None]]
) -> Callable[[Exchange], None]:
    """Return who serves the requests of a service: one function for each kind it knows."""

    def serve(exchange: Exchange) -> None:
        answer = answers.get(type(exchange.request))
        if answer is None:
            request = type(exchange.request).__name__
            log.info("association aborted: %s is no request of %s", request, name)
            exchange.association.abort()
            return
        try:
            answer(exchange)
        except Failed as failed:
            respond(exchange, failed.status, failed.message, error_id=failed.error_id)
        except ArchiveError as error:
            log.warning("%s failed: %s", name, error.message)
            respond(exchange, normalised_status(error), error.message)
        except Exception:  # the edge: the request fails, whatever the fault, and is answered for
            log.exception("%s failed", name)
            respond(exchange, PROCESSING_FAILURE, "the archive failed to process the request")

    return serve


def normalised_status(error: ArchiveError) -> int:
    """Return the status of an error: DIMSE-N knows none of the codes from A000H on."""
    status = answer_to(error).status
    return status if status < 0xA000 else PROCESSING_FAILURE


def encoded_dataset(exchange: Exchange) -> bytes:
    """Return the data set of a request as it came; b"" without one."""
    stream = getattr(exchange.request, DATA_SETS[type(exchange.request)])
    return stream.getvalue() if isinstance(stream, BytesIO) else b""


def dataset_of(exchange: Exchange, store: Store) -> Dataset:
    """Return the data set of a request. Raises Invalid when it cannot be decoded."""
    data = encoded_dataset(exchange)
    reader = DataElementReader(data, header_limits(store.settings))
    return reader.read(0, len(data), explicit=exchange.explicit)


def respond(
    exchange: Exchange,
    status: int,
    message: str = "",
    *,
    error_id: int | None = None,
    sop_instance_uid: str | None = None,
) -> None:
    """Send the response to a request."""
    request = exchange.request
    response: Any = type(request)()
    response.MessageIDBeingRespondedTo = request.MessageID
    response.AffectedSOPClassUID = exchange.sop_class_uid
    response.AffectedSOPInstanceUID = sop_instance_uid or _instance_of(request)
    for kind, keyword in ((N_ACTION, "ActionTypeID"), (N_EVENT_REPORT, "EventTypeID")):
        if isinstance(request, kind):
            setattr(response, keyword, getattr(request, keyword))
    response.Status = status
    if message:
        response.ErrorComment = error_comment(message)
    if error_id is not None:
        response.ErrorID = error_id
    exchange.association.dimse.send_msg(response, exchange.context_id)


def _instance_of(request: Any) -> str | None:
    for keyword in ("AffectedSOPInstanceUID", "RequestedSOPInstanceUID"):
        if getattr(request, keyword, None) is not None:
            return str(getattr(request, keyword))
    return None
