"""A peer of pynetdicom that queries and retrieves (PS3.4 Annex C)."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from tests.conftest import House
from tests.samples import part10_bytes

from bfr_core.receiving import Reception
from bfr_core.store import Store

PATIENT_ROOT, STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.1", "1.2.840.10008.5.1.4.1.2.2"
FIND, MOVE, GET = ".1", ".2", ".3"


@dataclass
class Answers:
    """Every response to one request, in order."""

    responses: list[Dataset] = field(default_factory=list)
    identifiers: list[Dataset] = field(default_factory=list)

    @property
    def statuses(self) -> list[int]:
        return [int(one.Status) for one in self.responses]

    @property
    def final(self) -> Dataset:
        return self.responses[-1]

    @property
    def counts(self) -> tuple[int, int, int]:
        """Completed, failed and warning sub-operations of the final response."""
        final = self.final
        return (
            final.NumberOfCompletedSuboperations,
            final.NumberOfFailedSuboperations,
            final.NumberOfWarningSuboperations,
        )


def key(level: str, **keys: Any) -> Dataset:
    """An identifier with its level."""
    dataset = Dataset()
    if level:
        dataset.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(dataset, keyword, value)
    return dataset


@contextmanager
def association(
    port: int,
    contexts: Iterable[tuple[str, Sequence[str]]],
    *,
    agreed: dict[str, bytes] | None = None,
    on_store: Callable[[Any], int] | None = None,
    called: str = "ARCHIVE",
    calling: str = "MODALITY",
) -> Iterator[Association]:
    """An association; with `on_store` its storage contexts are for objects that come back."""
    ae = AE(calling)
    negotiation: list[Any] = []
    for number, (abstract, syntaxes) in enumerate(contexts):
        ae.add_requested_context(abstract, list(syntaxes))
        if number and not any(item.sop_class_uid == abstract for item in negotiation):
            negotiation.append(build_role(abstract, scp_role=True))
    for uid, information in (agreed or {}).items():
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid = UID(uid)
        item.service_class_application_information = information
        negotiation.append(item)
    handlers: list[Any] = [(evt.EVT_C_STORE, on_store)] if on_store else []
    made = ae.associate(
        "127.0.0.1", port, ae_title=called, ext_neg=negotiation, evt_handlers=handlers
    )
    assert made.is_established
    try:
        yield made
    finally:
        if made.is_established:
            made.release()


async def find(
    port: int,
    identifier: Dataset,
    *,
    root: str = STUDY_ROOT,
    agreed: bytes = b"",
    syntax: str = ExplicitVRLittleEndian,
    **who: Any,
) -> Answers:
    """The answers to a C-FIND."""

    def talk() -> Answers:
        answers = Answers()
        model = root + FIND
        with association(
            port, [(model, [syntax])], agreed={model: agreed} if agreed else None, **who
        ) as made:
            for response, found in made.send_c_find(identifier, model):
                answers.responses.append(response)
                if found is not None:
                    answers.identifiers.append(found)
        return answers

    return await asyncio.to_thread(talk)


async def get(
    port: int,
    identifier: Dataset,
    storage: Iterable[tuple[str, Sequence[str]]],
    *,
    root: str = STUDY_ROOT,
    agreed: bytes = b"",
    on_store: Callable[[Any], int] = lambda event: 0,
    **who: Any,
) -> Answers:
    """The answers to a C-GET; `storage` are the contexts for what comes back."""

    def talk() -> Answers:
        answers = Answers()
        model = root + GET
        with association(
            port,
            [(model, [ExplicitVRLittleEndian]), *storage],
            agreed={model: agreed} if agreed else None,
            on_store=on_store,
            **who,
        ) as made:
            for response, failed in made.send_c_get(identifier, model):
                answers.responses.append(response)
                if failed is not None:
                    answers.identifiers.append(failed)
        return answers

    return await asyncio.to_thread(talk)


async def move(
    port: int, identifier: Dataset, destination: str, *, root: str = STUDY_ROOT, **who: Any
) -> Answers:
    """The answers to a C-MOVE."""

    def talk() -> Answers:
        answers = Answers()
        model = root + MOVE
        with association(port, [(model, [ExplicitVRLittleEndian])], **who) as made:
            for response, failed in made.send_c_move(identifier, destination, model):
                answers.responses.append(response)
                if failed is not None:
                    answers.identifiers.append(failed)
        return answers

    return await asyncio.to_thread(talk)


async def keep(store: Store, house: House, *datasets: Dataset | bytes) -> None:
    """Store objects, or the bytes of Part 10 files."""
    reception = Reception(store, house.node, house.archive, "test")
    received = []
    for one in datasets:
        incoming = reception.incoming_part10()
        incoming.write(one if isinstance(one, bytes) else part10_bytes(one))
        received.append(incoming.finish())
    outcomes = await store.commit(received)
    reception.close()
    assert [one.error for one in outcomes] == [None] * len(outcomes)
