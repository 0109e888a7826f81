"""Storage Commitment Push: N-ACTION from nodes, N-EVENT-REPORT both ways (PS3.4 Annex J).

A request is answered at once. Its report goes over the same association when the peer leaves it
open and quiet for a moment, else a job calls the node.
"""

import itertools
import logging
from io import BytesIO

from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT

from bfr_core import commitments
from bfr_core.connections import Archive
from bfr_core.dataset_encoding import encode_dataset
from bfr_core.errors import ArchiveError, Invalid
from bfr_core.instances import Dataset, integer, text
from bfr_core.outgoing import CommitmentResult
from bfr_core.store import Store
from bfr_legacy.dimse.bridge import Bridge
from bfr_legacy.dimse.exchange import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Exchange,
)
from bfr_legacy.dimse.negotiation import Service
from bfr_legacy.dimse.normalised import (
    INVALID_ARGUMENT_VALUE,
    NO_SUCH_ACTION,
    NO_SUCH_EVENT_TYPE,
    NO_SUCH_SOP_INSTANCE,
    NOT_AUTHORISED,
    SUCCESS,
    Failed,
    dataset_of,
    respond,
    served,
)

STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
REQUEST_COMMITMENT = 1  # Action Type ID
SUCCESSFUL, WITH_FAILURES = 1, 2  # Event Type IDs
TIMEOUT_S = 60.0

TRANSACTION_UID, RETRIEVE_AE_TITLE = "00081195", "00080054"
REFERENCED_SOP_SEQUENCE, FAILED_SOP_SEQUENCE = "00081199", "00081198"
REFERENCED_SOP_CLASS_UID, REFERENCED_SOP_INSTANCE_UID = "00081150", "00081155"
FAILURE_REASON = "00081197"

log = logging.getLogger("bfr.dimse")
_message_ids = itertools.cycle(range(1, 1 << 15))


def commitment(store: Store, bridge: Bridge) -> Service:
    """Return the Storage Commitment service of the archive."""
    return Service(
        name="storage commitment",
        answers_for=STORAGE_COMMITMENT.__eq__,
        transfer_syntaxes=frozenset({IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN}),
        serve=served(
            "storage commitment",
            {
                N_ACTION: lambda exchange: _take_request(store, bridge, exchange),
                N_EVENT_REPORT: lambda exchange: _take_report(store, bridge, exchange),
            },
        ),
        both_roles=True,
    )


def _take_request(store: Store, bridge: Bridge, exchange: Exchange) -> None:
    if exchange.request.ActionTypeID != REQUEST_COMMITMENT:
        raise Failed(NO_SUCH_ACTION, "the only action is 1, request commitment")
    if str(exchange.request.RequestedSOPInstanceUID) != STORAGE_COMMITMENT_INSTANCE:
        raise Failed(NO_SUCH_SOP_INSTANCE, "not the well-known instance of storage commitment")
    archive = exchange.peer.archive
    if not isinstance(archive, Archive):
        raise Failed(NOT_AUTHORISED, "a virtual archive commits to nothing")
    dataset = dataset_of(exchange, store)
    references = [
        (text(item, REFERENCED_SOP_CLASS_UID), text(item, REFERENCED_SOP_INSTANCE_UID))
        for item in _items(dataset, REFERENCED_SOP_SEQUENCE)
    ]
    try:
        commitment_id = bridge.run(
            commitments.take_request(
                store,
                exchange.peer.access,
                archive.archive_id,
                text(dataset, TRANSACTION_UID),
                references,
            ),
            TIMEOUT_S,
        )
    except Invalid as error:
        raise Failed(INVALID_ARGUMENT_VALUE, error.message) from error
    respond(exchange, SUCCESS)
    exchange.association.errands.append(lambda: _report(store, bridge, exchange, commitment_id))


def _report(store: Store, bridge: Bridge, exchange: Exchange, commitment_id: int) -> None:
    """Report over the association of the request. If that fails, the job does it."""
    try:
        report = bridge.run(commitments.begin_report(store, commitment_id), TIMEOUT_S)
        if report is None:
            return

        def answered(response: object) -> None:
            told = getattr(response, "Status", None) == SUCCESS
            try:
                bridge.run(commitments.end_report(store, commitment_id, told=told), TIMEOUT_S)
            except ArchiveError as error:
                log.info("commitment %d is reported again: %s", commitment_id, error.message)

        dataset = result_dataset(
            report.transaction_uid, report.result, report.link.calling_ae_title
        )
        request = N_EVENT_REPORT()
        request.MessageID = next(_message_ids)
        request.AffectedSOPClassUID = STORAGE_COMMITMENT
        request.AffectedSOPInstanceUID = STORAGE_COMMITMENT_INSTANCE
        request.EventTypeID = event_type(report.result)
        request.EventInformation = BytesIO(encode_dataset(dataset, explicit=exchange.explicit))
        exchange.association.answers[request.MessageID] = answered
        exchange.association.dimse.send_msg(request, exchange.context_id)
    except ArchiveError as error:
        log.info("commitment %d is reported later: %s", commitment_id, error.message)


def _take_report(store: Store, bridge: Bridge, exchange: Exchange) -> None:
    if exchange.request.EventTypeID not in (SUCCESSFUL, WITH_FAILURES):
        raise Failed(NO_SUCH_EVENT_TYPE, "the events are 1 and 2")
    transaction_uid, result = read_result(dataset_of(exchange, store))
    bridge.run(
        commitments.take_result(store, exchange.peer.access.dicom_node_id, transaction_uid, result),
        TIMEOUT_S,
    )
    respond(exchange, SUCCESS)


def event_type(result: CommitmentResult) -> int:
    """Return the Event Type ID of a result."""
    return WITH_FAILURES if result.failed else SUCCESSFUL


def result_dataset(transaction_uid: str, result: CommitmentResult, ae_title: str) -> Dataset:
    """Return the Event Information of a report (PS3.4 Table J.3-4)."""
    dataset = {
        RETRIEVE_AE_TITLE: _element("AE", ae_title),
        TRANSACTION_UID: _element("UI", transaction_uid),
    }
    if result.failed:
        items = [
            {**_reference(sop_class, uid), FAILURE_REASON: _element("US", reason)}
            for sop_class, uid, reason in result.failed
        ]
        dataset[FAILED_SOP_SEQUENCE] = {"vr": "SQ", "Value": items}
    if result.committed:
        dataset[REFERENCED_SOP_SEQUENCE] = {
            "vr": "SQ",
            "Value": [_reference(*one) for one in result.committed],
        }
    return dataset


def read_result(dataset: Dataset) -> tuple[str, CommitmentResult]:
    """Return Transaction UID and result of an Event Information."""
    return text(dataset, TRANSACTION_UID), CommitmentResult(
        tuple(_referenced(item) for item in _items(dataset, REFERENCED_SOP_SEQUENCE)),
        tuple(
            (*_referenced(item), integer(item, FAILURE_REASON) or commitments.PROCESSING_FAILURE)
            for item in _items(dataset, FAILED_SOP_SEQUENCE)
        ),
    )


def request_dataset(transaction_uid: str, references: list[tuple[str, str]]) -> Dataset:
    """Return the Action Information of a request (PS3.4 Table J.3-1)."""
    return {
        TRANSACTION_UID: _element("UI", transaction_uid),
        REFERENCED_SOP_SEQUENCE: {
            "vr": "SQ",
            "Value": [_reference(*one) for one in references],
        },
    }


def _items(dataset: Dataset, tag: str) -> list[Dataset]:
    items = dataset.get(tag, {}).get("Value")
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _referenced(item: Dataset) -> tuple[str, str]:
    return text(item, REFERENCED_SOP_CLASS_UID), text(item, REFERENCED_SOP_INSTANCE_UID)


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    return {
        REFERENCED_SOP_CLASS_UID: _element("UI", sop_class_uid),
        REFERENCED_SOP_INSTANCE_UID: _element("UI", sop_instance_uid),
    }


def _element(vr: str, value: object) -> dict[str, object]:
    return {"vr": vr, "Value": [value]}
