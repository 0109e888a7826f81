"""Modality Worklist SCP: C-FIND of scheduled procedure steps (PS3.4 Annex K)."""

import logging

from pynetdicom.dimse_primitives import C_FIND

from bfr_core.connections import Archive
from bfr_core.data_elements import DataElementReader
from bfr_core.dataset_encoding import encode_dataset
from bfr_core.errors import ArchiveError, Invalid
from bfr_core.receiving import header_limits
from bfr_core.service_requests import search_worklist
from bfr_core.store import Store
from bfr_legacy.dimse.bridge import Bridge
from bfr_legacy.dimse.exchange import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Exchange,
)
from bfr_legacy.dimse.negotiation import Service
from bfr_legacy.dimse.pdus import Response
from bfr_legacy.dimse.status import (
    CANCELLED,
    CANNOT_UNDERSTAND,
    NOT_AUTHORISED,
    OUT_OF_RESOURCES,
    PENDING,
    PROCESSING_FAILURE,
    SUCCESS,
    answer_to,
)

MODALITY_WORKLIST = "1.2.840.10008.5.1.4.31"
TIMEOUT_S = 60.0

log = logging.getLogger("bfr.dimse")


def worklist(store: Store, bridge: Bridge) -> Service:
    """Return the Modality Worklist service of the archive."""

    def serve(exchange: Exchange) -> None:
        if not isinstance(exchange.request, C_FIND):
            exchange.association.abort()
            return
        try:
            _answer(store, bridge, exchange)
        except Invalid as error:
            exchange.fail(CANNOT_UNDERSTAND, error.message)
        except ArchiveError as error:
            log.warning("worklist failed: %s", error.message)
            exchange.fail(answer_to(error).status, error.message)
        except OSError:
            log.info("worklist ended: the peer is gone")
        except Exception:  # the edge: the request fails, whatever the fault, and is answered for
            log.exception("worklist failed")
            exchange.fail(PROCESSING_FAILURE, "the archive failed to search")

    return Service(
        name="worklist",
        answers_for=MODALITY_WORKLIST.__eq__,
        transfer_syntaxes=frozenset({IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN}),
        serve=serve,
    )


def _answer(store: Store, bridge: Bridge, exchange: Exchange) -> None:
    archive = exchange.peer.archive
    if not isinstance(archive, Archive):
        exchange.fail(NOT_AUTHORISED, "a virtual archive has no worklist")
        return
    data = exchange.identifier
    reader = DataElementReader(data, header_limits(store.settings))
    keys = reader.read(0, len(data), explicit=exchange.explicit)
    most = store.settings.dimse_find_matches_max
    found = bridge.run(
        search_worklist(store, exchange.peer.access, archive.archive_id, keys, most + 1), TIMEOUT_S
    )
    for item in found[:most]:
        if exchange.is_over:
            return
        if exchange.is_cancelled:
            exchange.respond(Response(CANCELLED))
            return
        exchange.respond(
            Response(PENDING),
            encode_dataset(
                item,
                explicit=exchange.explicit,
                character_set=reader.character_set or ("ISO_IR 192",),
            ),
        )
    if len(found) > most:
        exchange.fail(OUT_OF_RESOURCES, f"there are more than {most} matches")
    else:
        exchange.respond(Response(SUCCESS))
