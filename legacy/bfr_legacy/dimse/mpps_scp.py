"""Modality Performed Procedure Step SCP: N-CREATE and N-SET (PS3.4 Annex F.7)."""

import logging

from pydicom.uid import generate_uid
from pynetdicom.dimse_primitives import N_CREATE, N_SET

from bfr_core import performed_procedure_steps as steps
from bfr_core.connections import Archive
from bfr_core.errors import Invalid, NotFound
from bfr_core.store import Store
from bfr_legacy.dimse.bridge import Bridge
from bfr_legacy.dimse.exchange import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Exchange,
)
from bfr_legacy.dimse.negotiation import Service
from bfr_legacy.dimse.normalised import (
    ATTRIBUTE_LIST_ERROR,
    DUPLICATE_SOP_INSTANCE,
    INVALID_ATTRIBUTE_VALUE,
    MISSING_ATTRIBUTE,
    MISSING_ATTRIBUTE_VALUE,
    NO_SUCH_SOP_INSTANCE,
    NOT_AUTHORISED,
    SUCCESS,
    Failed,
    dataset_of,
    encoded_dataset,
    respond,
    served,
)
from bfr_legacy.dimse.status import PROCESSING_FAILURE

MODALITY_PERFORMED_PROCEDURE_STEP = "1.2.840.10008.3.1.2.3.3"
MAY_NO_LONGER_BE_UPDATED = 0xA710  # Error ID (0000,0903), PS3.4 Table F.7.2-2
TIMEOUT_S = 60.0

FAILURES: tuple[tuple[type[Exception], int, int | None], ...] = (
    (steps.StepExists, DUPLICATE_SOP_INSTANCE, None),
    (steps.StepIsFinal, PROCESSING_FAILURE, MAY_NO_LONGER_BE_UPDATED),
    (steps.MissingAttribute, MISSING_ATTRIBUTE, None),
    (steps.MissingAttributeValue, MISSING_ATTRIBUTE_VALUE, None),
    (Invalid, INVALID_ATTRIBUTE_VALUE, None),
    (NotFound, NO_SUCH_SOP_INSTANCE, None),
)

log = logging.getLogger("bfr.dimse")


def performed_procedure_step(store: Store, bridge: Bridge) -> Service:
    """Return the Modality Performed Procedure Step service of the archive."""
    return Service(
        name="performed procedure step",
        answers_for=MODALITY_PERFORMED_PROCEDURE_STEP.__eq__,
        transfer_syntaxes=frozenset({IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN}),
        serve=served(
            "performed procedure step",
            {
                N_CREATE: lambda exchange: _create(store, bridge, exchange),
                N_SET: lambda exchange: _set(store, bridge, exchange),
            },
        ),
    )


def _create(store: Store, bridge: Bridge, exchange: Exchange) -> None:
    # Without a UID the SCP makes one and tells it (PS3.7 §10.1.5.1.4).
    uid = str(exchange.request.AffectedSOPInstanceUID or generate_uid(prefix=None))
    message = _message(store, exchange, uid)
    try:
        bridge.run(
            steps.create_step(store, exchange.peer.access, _archive_id(exchange), message),
            TIMEOUT_S,
        )
    except (steps.StepExists, Invalid) as error:
        raise _failed(error) from error
    respond(exchange, SUCCESS, sop_instance_uid=uid)


def _set(store: Store, bridge: Bridge, exchange: Exchange) -> None:
    message = _message(store, exchange, str(exchange.request.RequestedSOPInstanceUID))
    try:
        unchanged = bridge.run(
            steps.set_step(store, exchange.peer.access, _archive_id(exchange), message), TIMEOUT_S
        )
    except (steps.StepIsFinal, Invalid, NotFound) as error:
        raise _failed(error) from error
    if unchanged:
        tags = ", ".join(sorted(unchanged))
        log.info("N-SET: attributes that may not be changed were left as they are: %s", tags)
        respond(exchange, ATTRIBUTE_LIST_ERROR, "some attributes may not be changed")
    else:
        respond(exchange, SUCCESS)


def _message(store: Store, exchange: Exchange, sop_instance_uid: str) -> steps.Message:
    return steps.Message(
        sop_instance_uid,
        dataset_of(exchange, store),
        encoded_dataset(exchange),
        str(exchange.context.transfer_syntax[0]),
    )


def _archive_id(exchange: Exchange) -> int:
    archive = exchange.peer.archive
    if not isinstance(archive, Archive):
        raise Failed(NOT_AUTHORISED, "a virtual archive keeps no performed procedure steps")
    return archive.archive_id


def _failed(error: steps.StepExists | steps.StepIsFinal | Invalid | NotFound) -> Failed:
    status, error_id = next(
        (status, error_id) for kind, status, error_id in FAILURES if isinstance(error, kind)
    )
    return Failed(status, error.message, error_id)
