"""Query SCP: C-FIND of Patient Root and Study Root (PS3.4 §C.4.1)."""

import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from pynetdicom import evt
from pynetdicom.dimse_primitives import C_FIND

from bfr_core import instance_search, study_search
from bfr_core.dataset_encoding import encode_dataset
from bfr_core.errors import ArchiveError, Invalid
from bfr_core.instances import Dataset
from bfr_core.matching import Match, Semantics
from bfr_core.receiving import header_limits
from bfr_core.store import Store
from bfr_legacy.dimse import query_retrieve
from bfr_legacy.dimse.bridge import Bridge
from bfr_legacy.dimse.exchange import Exchange
from bfr_legacy.dimse.negotiation import Service
from bfr_legacy.dimse.pdus import Response
from bfr_legacy.dimse.query_retrieve import LEVEL, UNIQUE_KEYS, Identifier, Refused, agrees
from bfr_legacy.dimse.status import (
    CANCELLED,
    OUT_OF_RESOURCES,
    PENDING,
    PENDING_WITHOUT_SOME_KEYS,
    PROCESSING_FAILURE,
    SUCCESS,
    answer_to,
)

DOOR = "C-FIND"
SEARCH_TIMEOUT_S = 60.0

CHARACTER_SET, RETRIEVE_AE_TITLE, AVAILABILITY = "00080005", "00080054", "00080056"
TIMEZONE, REQUEST_ATTRIBUTES = "00080201", "00400275"
PATIENT_COUNTS = ("00201200", "00201202", "00201204")
# What is answered beside the keys that match, by level; of instances every element is.
STUDY_ONLY = frozenset({"00201206", "00201208"})
SERIES_ONLY = frozenset({"00201209"})
NOT_MATCHED = frozenset({CHARACTER_SET, LEVEL, RETRIEVE_AE_TITLE, AVAILABILITY, TIMEZONE})
KEYS = {
    "PATIENT": frozenset(study_search.PATIENT_KEYS),
    "STUDY": frozenset(study_search.STUDY_KEYS),
    "SERIES": frozenset(study_search.ALL_KEYS),
    "IMAGE": frozenset(study_search.ALL_KEYS) | instance_search.INSTANCE_KEYS,
}
ANSWERED = {
    "PATIENT": KEYS["PATIENT"].union(PATIENT_COUNTS),
    "STUDY": KEYS["STUDY"].union(PATIENT_COUNTS, STUDY_ONLY),
    "SERIES": KEYS["SERIES"].union(STUDY_ONLY, SERIES_ONLY),
}

log = logging.getLogger("bfr.dimse")


@dataclass(frozen=True, slots=True)
class Query:
    """What a C-FIND asks for."""

    identifier: Identifier
    matches: list[Match]
    semantics: Semantics
    wanted: list[str]  # tags of the keys, in which order they came
    without_some_keys: bool  # one is supported neither for matching nor for an answer

    @property
    def level(self) -> str:
        """The level that is searched."""
        return self.identifier.level


def find(store: Store, bridge: Bridge) -> Service:
    """Return the C-FIND service of both roots."""

    def serve(exchange: Exchange) -> None:
        if not isinstance(exchange.request, C_FIND):
            exchange.association.abort()
            return
        try:
            _answer(store, bridge, exchange)
        except Refused as refused:
            log.info("C-FIND refused: status=%04X", refused.status)
            exchange.fail(refused.status, refused.message, refused.offending_element)
        except ArchiveError as error:
            log.warning("C-FIND failed: %s", type(error).__name__)
            exchange.fail(answer_to(error).status, error.message)
        except OSError:
            log.info("C-FIND ended: the peer is gone")
        except Exception:  # the edge: the request fails, whatever the fault, and is answered for
            log.exception("C-FIND failed")
            exchange.fail(PROCESSING_FAILURE, "the archive failed to search")

    return Service(
        name=DOOR,
        answers_for=frozenset(
            root + query_retrieve.FIND for root in query_retrieve.LEVELS
        ).__contains__,
        transfer_syntaxes=query_retrieve.SYNTAXES,
        handlers=((evt.EVT_SOP_EXTENDED, query_retrieve.answer_extended_negotiation),),
        serve=serve,
    )


def _answer(store: Store, bridge: Bridge, exchange: Exchange) -> None:
    query = read_query(exchange, store)
    matches_max = store.settings.dimse_find_matches_max
    try:
        found = bridge.run(_search(store, exchange, query, matches_max + 1), SEARCH_TIMEOUT_S)
    except Invalid as error:
        raise query_retrieve.not_understood(error) from error
    status = PENDING_WITHOUT_SOME_KEYS if query.without_some_keys else PENDING
    told: set[tuple[str, ...]] = set()
    for result in found[:matches_max]:
        if exchange.is_over:
            return
        if exchange.is_cancelled:
            exchange.respond(Response(CANCELLED))
            return
        # What lies in two archives is one entity, told once by a virtual archive.
        key = query_retrieve.values_of(result.get(UNIQUE_KEYS[query.level], {}))
        if query.level != "PATIENT":
            if key in told:
                continue
            told.add(key)
        exchange.respond(
            Response(status),
            encode_dataset(
                _answered(query, result, exchange.peer.archive.ae_title),
                explicit=exchange.explicit,
                character_set=query.identifier.character_set or ("ISO_IR 192",),
            ),
        )
    if len(found) > matches_max:
        raise Refused(OUT_OF_RESOURCES, f"there are more than {matches_max} matches")
    exchange.respond(Response(SUCCESS))


def read_query(exchange: Exchange, store: Store) -> Query:
    """Return what the request asks for. Raises Refused."""
    identifier = query_retrieve.read_identifier(exchange, header_limits(store.settings))
    if not agrees(exchange, query_retrieve.RELATIONAL):
        query_retrieve.require_keys_above(identifier)
    matches: list[Match] = []
    wanted: list[str] = []
    unsupported = False
    for tag, element in identifier.dataset.items():
        wanted.append(tag)
        for match in _matches(tag, element):
            if match.tag in KEYS[identifier.level]:
                matches.append(match)
            elif match.tag not in NOT_MATCHED and match.values:
                unsupported = True
        answered = ANSWERED.get(identifier.level)
        if answered is not None and tag not in answered | NOT_MATCHED:
            unsupported = unsupported or not any(one.startswith(tag + ".") for one in answered)
    zone = "".join(identifier.values(TIMEZONE))
    return Query(
        identifier=identifier,
        matches=matches,
        semantics=Semantics(
            fuzzy_names=agrees(exchange, query_retrieve.FUZZY_NAMES),
            combined_moments=agrees(exchange, query_retrieve.COMBINED_MOMENTS),
            timezone_offset=zone if agrees(exchange, query_retrieve.TIMEZONES) else "",
        ),
        wanted=wanted,
        without_some_keys=unsupported,
    )


def _matches(tag: str, element: dict[str, Any]) -> list[Match]:
    """Return the matching keys that an element is: those of its item when it is a sequence."""
    if element["vr"] != "SQ":
        return [Match(tag, query_retrieve.values_of(element))]
    items = element.get("Value") or [{}]
    return [
        Match(f"{tag}.{match.tag}", match.values)
        for inner, value in items[0].items()
        for match in _matches(inner, value)
    ]


def _search(
    store: Store, exchange: Exchange, query: Query, limit: int
) -> Coroutine[Any, Any, list[Dataset]]:
    """Return the search of the core that answers the query."""
    peer = exchange.peer
    common: dict[str, Any] = {
        "archive_id": peer.archive_id,
        "matches": query.matches,
        "limit": limit,
        "offset": 0,
        "semantics": query.semantics,
    }
    counts = any(tag in query.wanted for tag in PATIENT_COUNTS)
    if query.level == "PATIENT":
        return study_search.search_patients(store, peer.access, DOOR, with_counts=counts, **common)
    if query.level == "STUDY":
        return study_search.search_studies(
            store, peer.access, DOOR, with_patient_counts=counts, **common
        )
    if query.level == "SERIES":
        return study_search.search_series(store, peer.access, DOOR, with_study=True, **common)
    return instance_search.search_instances(
        store,
        peer.access,
        DOOR,
        includefield=query.wanted,
        with_study=True,
        with_series=True,
        **common,
    )


def _answered(query: Query, result: Dataset, ae_title: str) -> Dataset:
    """Return the identifier of one match (§C.4.1.1.3.2)."""
    answer: Dataset = {
        LEVEL: {"vr": "CS", "Value": [query.level]},
        RETRIEVE_AE_TITLE: {"vr": "AE", "Value": [ae_title]},
        AVAILABILITY: {"vr": "CS", "Value": ["ONLINE"]},
    }
    if TIMEZONE in result:
        answer[TIMEZONE] = result[TIMEZONE]
    for tag in query.wanted:
        if tag in NOT_MATCHED:
            continue
        asked = query.identifier.dataset[tag]
        # What is not known, or not supported, is there and empty.
        answer[tag] = result.get(tag, {"vr": asked["vr"]})
        if asked["vr"] == "SQ" and answer[tag]["vr"] == "SQ":
            answer[tag] = _asked_items(asked, answer[tag])
    return answer


def _asked_items(asked: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return the items with the elements that the item of the key names; all when it is empty."""
    names: Sequence[str] = list((asked.get("Value") or [{}])[0])
    items = found.get("Value") or []
    if not names or not items:
        return found
    chosen = [{tag: item[tag] for tag in names if tag in item} for item in items]
    return {"vr": "SQ", "Value": chosen}
