"""Each DIMSE request is one transaction, whether its handler returns or yields its statuses."""

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.events import Event, InterventionEvent
from tests.core.test_observation import Change
from tests.dicomweb.conftest import until

from bfr_legacy.dimse.observed import observed
from bfr_legacy.dimse.peers import Peer
from bfr_legacy.dimse.server import DimseServer
from bfr_legacy.dimse.status import OUTCOMES, outcome_of_status

DURATION = "bfr_transaction_duration_seconds_count"
NOBODY = cast(tuple[Event, Peer], (None, None))


def status(value: int) -> Dataset:
    dataset = Dataset()
    dataset.Status = value
    return dataset


async def test_an_echo_and_its_association_are_counted(dimse: DimseServer) -> None:
    echoed = Change(DURATION, transaction="C-ECHO", resource="", outcome="success")
    accepted = Change("bfr_associations_accepted_total")
    open_now = Change("bfr_associations_open")

    def talk() -> None:
        ae = AE("MODALITY")
        ae.add_requested_context("1.2.840.10008.1.1")
        association = ae.associate("127.0.0.1", dimse.port, ae_title="ARCHIVE")
        assert association.is_established
        association.send_c_echo()
        assert open_now() == 1
        association.release()

    await asyncio.to_thread(talk)
    await until(lambda: open_now() == 0)
    assert (echoed(), accepted()) == (1, 1)


async def test_an_association_that_is_turned_away_is_counted_by_its_reason(
    dimse: DimseServer,
) -> None:
    reason = "calling_ae_title_not_recognised"
    rejected = Change("bfr_associations_rejected_total", reason=reason)

    def talk() -> None:
        ae = AE("STRANGER")
        ae.add_requested_context("1.2.840.10008.1.1")
        assert ae.associate("127.0.0.1", dimse.port, ae_title="ARCHIVE").is_rejected

    await asyncio.to_thread(talk)
    assert rejected() == 1


@pytest.mark.parametrize(
    ("event", "answers", "outcome"),
    [
        (evt.EVT_C_FIND, [(0xFF00, Dataset()), (0xFF00, Dataset())], "success"),
        (evt.EVT_C_FIND, [(0xFF00, Dataset()), (0xFE00, None)], "aborted"),
        (evt.EVT_C_FIND, [(status(0xC000), None)], "invalid"),
        (evt.EVT_C_FIND, [], "success"),
        (evt.EVT_C_MOVE, [("192.0.2.1", 104), 2, (0xFF00, None), (0xA700, None)], "unavailable"),
        (evt.EVT_C_GET, [2, (0xFF00, Dataset()), (0xB000, Dataset())], "success"),
    ],
)
def test_the_last_status_that_a_handler_yields_is_the_outcome(
    event: InterventionEvent, answers: list[Any], outcome: str
) -> None:
    def handler(_: Event, peer: Peer) -> Iterator[Any]:
        yield from answers

    name = event.name.removeprefix("EVT_").replace("_", "-")
    ended = Change(DURATION, transaction=name, resource="", outcome=outcome)
    assert list(observed(event, handler)(*NOBODY)) == answers
    assert ended() == 1


def test_a_handler_that_fails_is_told_as_failed() -> None:
    def handler(_: Event, peer: Peer) -> int:
        raise ValueError("a fault of ours")

    failed = Change(DURATION, transaction="N-ACTION", resource="", outcome="failed")
    with pytest.raises(ValueError, match="a fault of ours"):
        observed(evt.EVT_N_ACTION, handler)(*NOBODY)
    assert failed() == 1


def test_every_status_has_an_outcome() -> None:
    words = {"success", "invalid", "denied", "not_found", "conflict", "unavailable", "failed"}
    assert {outcome_of_status(one) for one in range(0x10000)} == {*words, "aborted"}
    assert outcome_of_status(0x0000) == outcome_of_status(0xB000) == "success"
    assert outcome_of_status(0x0110) == outcome_of_status(0x1234) == "failed"
    assert set(OUTCOMES.values()) == {*words, "aborted"}
