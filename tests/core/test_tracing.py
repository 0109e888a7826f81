"""Traces: what several transactions share, and what an error leaves in a span."""

import asyncio
from collections.abc import Callable

import psycopg
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.conftest import House
from tests.otlp_receiver import Receiver, running_receiver
from tests.samples import ct_instance, part10_bytes

from bfr_core import observation, tracing
from bfr_core.observation import Observation
from bfr_core.receiving import Reception
from bfr_core.registration import Registration
from bfr_core.settings import Settings
from bfr_core.store import Store

PERSON = "191212121212"


def of_name(receiver: Receiver, name: str) -> list[Span]:
    return [span for _, span in receiver.spans() if span.name == name]


async def test_senders_that_share_a_commit_share_its_span(
    store: Store,
    house: House,
    with_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    working_for = []
    take_turn = Registration._take_turn

    def noted(registration: Registration) -> object:
        working_for.append(observation.current())
        return take_turn(registration)

    monkeypatch.setattr(Registration, "_take_turn", noted)

    async def send() -> None:
        transaction = Observation("C-STORE")
        reception = Reception(store, house.node, house.archive, "C-STORE")
        incoming = reception.incoming_part10()
        incoming.write(part10_bytes(ct_instance()))
        received = incoming.finish()
        received.sync()
        (outcome,) = await store.commit([received])
        assert outcome.error is None
        reception.close()
        transaction.end("success")

    with running_receiver() as receiver:
        with tracing.exported(with_settings(traces_endpoint=receiver.endpoint), "dimse"):
            await asyncio.gather(send(), send())
        (commit,) = of_name(receiver, "commit")
        first, other = of_name(receiver, "C-STORE")
        if commit.parent_span_id != first.span_id:
            first, other = other, first
        assert (commit.trace_id, commit.parent_span_id) == (first.trace_id, first.span_id)
        assert [link.span_id for link in commit.links] == [other.span_id]
        (inner,) = of_name(receiver, "database transaction")
        assert inner.parent_span_id == commit.span_id
        assert len(of_name(receiver, "blob sync")) == 2
    assert working_for == [None]  # what the commit logs has the id of neither


async def test_an_error_leaves_its_kind_in_a_span_and_not_its_text(
    store: Store, with_settings: Callable[..., Settings]
) -> None:
    with running_receiver() as receiver:
        with tracing.exported(with_settings(traces_endpoint=receiver.endpoint), "web"):
            transaction = Observation("STOW-RS")
            with pytest.raises(psycopg.errors.NumericValueOutOfRange):
                async with store.database.transaction() as tx:
                    await tx.value("SELECT %(text)s::integer", text=PERSON + "x")
            transaction.end("failed")
        (inner,) = of_name(receiver, "database transaction")
        assert inner.status.code == Status.STATUS_CODE_ERROR
        assert inner.status.message == "NumericValueOutOfRange"
        (whole,) = of_name(receiver, "STOW-RS")
        assert whole.status.code == Status.STATUS_CODE_ERROR
        assert PERSON.encode() not in b"".join(receiver.bodies)


async def test_what_belongs_to_no_transaction_makes_no_trace(
    store: Store, with_settings: Callable[..., Settings]
) -> None:
    with running_receiver() as receiver:
        with tracing.exported(with_settings(traces_endpoint=receiver.endpoint), "web"):
            async with store.database.transaction() as tx:
                assert await tx.value("SELECT 1") == 1
        assert receiver.bodies == []
