"""Storage Commitment Push in both roles (PS3.4 Annex J)."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pynetdicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from tests.certificates import new_authority
from tests.command.commands import Answer, bfr
from tests.conftest import House, add_house
from tests.legacy.nodes import move_node, running_node
from tests.legacy.raw_peer import CT
from tests.legacy.test_store_scp import data_set, send
from tests.legacy.test_tls import set_terms

from bfr_core import commitments, jobs
from bfr_core.access import operator
from bfr_core.outgoing import CommitmentResult, Outgoing
from bfr_core.sealing import seal_series
from bfr_core.store import Store
from bfr_legacy.dimse.node_calls import NodeCalls
from bfr_legacy.dimse.server import DimseServer
from bfr_legacy.dimse.tls import Tls

COMMITMENT = "1.2.840.10008.1.20.1"
INSTANCE = "1.2.840.10008.1.20.1.1"
MR = "1.2.840.10008.5.1.4.1.1.4"
TRANSACTION = "1.2.3.4.5"
PATIENCE_S = 60.0
KEPT = """
    SELECT role, result IS NOT NULL AS has_result, reported_at IS NOT NULL AS reported
    FROM commitment ORDER BY commitment_id
"""


def uids(count: int) -> list[str]:
    return [f"1.2.3.{number}" for number in range(1, count + 1)]


async def store_objects(port: int, count: int) -> list[str]:
    for uid in uids(count):
        [(status, _)] = await send(port, data_set(SOPInstanceUID=uid), sop_instance_uid=uid)
        assert status == 0
    return uids(count)


def action(references: Sequence[tuple[str, str]], transaction: str = TRANSACTION) -> Dataset:
    dataset = Dataset()
    dataset.TransactionUID = transaction
    dataset.ReferencedSOPSequence = []
    for sop_class, uid in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        dataset.ReferencedSOPSequence.append(item)
    return dataset


class Requester:
    """A node that asks for commitment, and hears of it as long as it stays."""

    def __init__(self, port: int, called: str = "ARCHIVE", calling: str = "MODALITY") -> None:
        self.reports: list[tuple[int, Dataset]] = []
        self.reported = threading.Event()
        entity = pynetdicom.AE(calling)
        entity.add_requested_context(COMMITMENT)
        self.association: Association = entity.associate(
            "127.0.0.1", port, ae_title=called, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take)]
        )
        assert self.association.is_established

    def _take(self, event: evt.Event) -> tuple[int, None]:
        self.reports.append((int(event.event_type or 0), event.event_information))
        self.reported.set()
        return 0x0000, None

    def ask(self, references: Sequence[tuple[str, str]], **options: Any) -> int:
        status, _ = self.association.send_n_action(
            action(references, options.pop("transaction", TRANSACTION)),
            options.pop("action_type", 1),
            COMMITMENT,
            UID(options.pop("instance", INSTANCE)),
        )
        return int(status.Status)

    def wait(self) -> tuple[int, Dataset]:
        assert self.reported.wait(PATIENCE_S)
        self.reported.clear()
        return self.reports[-1]


@contextmanager
def requester(port: int, **titles: str) -> Iterator[Requester]:
    asking = Requester(port, **titles)
    try:
        yield asking
    finally:
        asking.association.release()


async def report_of(
    port: int, references: Sequence[tuple[str, str]], **options: Any
) -> tuple[int, Dataset]:
    """Ask, stay, and return Event Type ID and Event Information."""

    def talk() -> tuple[int, Dataset]:
        with requester(port) as asking:
            assert asking.ask(references, **options) == 0
            return asking.wait()

    return await asyncio.to_thread(talk)


def committed(report: Dataset) -> list[str]:
    return [str(item.ReferencedSOPInstanceUID) for item in report.get("ReferencedSOPSequence", [])]


def failures(report: Dataset) -> dict[str, int]:
    return {
        str(item.ReferencedSOPInstanceUID): int(item.FailureReason)
        for item in report.get("FailedSOPSequence", [])
    }


@asynccontextmanager
async def worker(store: Store, outgoing: Outgoing | None = None) -> AsyncIterator[None]:
    stop = asyncio.Event()
    running = asyncio.create_task(jobs.run_worker(store, stop, outgoing or NodeCalls(None)))
    try:
        yield
    finally:
        stop.set()
        await running


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 (the database is asked)
            await asyncio.sleep(0.02)


async def kept(store: Store) -> list[dict[str, Any]]:
    async with store.database.transaction() as tx:
        return await tx.rows(KEPT)


async def is_reported(store: Store) -> bool:
    rows = await kept(store)
    return bool(rows) and all(row["reported"] for row in rows)


# As SCP --------------------------------------------------------------------------------------


@pytest.mark.conforms("PS3.4 §J.3.3", "the report comes over the association that stays open")
@pytest.mark.parametrize("sealed", [False, True])
async def test_stored_objects_are_committed_over_the_same_association(
    dimse: DimseServer, store: Store, *, sealed: bool
) -> None:
    stored = await store_objects(dimse.port, 3)
    if sealed:
        async with store.database.transaction() as tx:
            assert (
                await seal_series(store, int(await tx.value("SELECT series_id FROM series"))) == 0
            )
    event_type, report = await report_of(dimse.port, [(CT, uid) for uid in stored])
    assert event_type == 1
    assert report.TransactionUID == TRANSACTION
    assert sorted(committed(report)) == stored
    assert "FailedSOPSequence" not in report
    await until(lambda: is_reported(store))


@pytest.mark.conforms("PS3.4 §J.3.3.1", "each object that is not committed has its reason")
async def test_each_object_has_its_own_reason(dimse: DimseServer, store: Store) -> None:
    await add_house(store, "OTHER", "OTHERNODE")
    await store_objects(dimse.port, 2)
    references = [(CT, "1.2.3.1"), (MR, "1.2.3.2"), (CT, "1.2.3.99")]
    event_type, report = await report_of(dimse.port, references)
    assert event_type == 2
    assert committed(report) == ["1.2.3.1"]
    assert failures(report) == {"1.2.3.2": 0x0119, "1.2.3.99": 0x0112}

    def elsewhere() -> tuple[int, Dataset]:
        with requester(dimse.port, called="OTHER", calling="OTHERNODE") as asking:
            assert asking.ask([(CT, "1.2.3.1")]) == 0
            return asking.wait()

    _, report = await asyncio.to_thread(elsewhere)
    assert failures(report) == {"1.2.3.1": 0x0112}


async def test_an_object_whose_bytes_are_gone_is_not_committed(
    dimse: DimseServer, store: Store
) -> None:
    await store_objects(dimse.port, 1)
    async with store.database.transaction() as tx:
        key = str(await tx.value("SELECT pack_key FROM instance"))
    with store.blobs.path(key).open("r+b") as pack:
        pack.truncate(100)
    _, report = await report_of(dimse.port, [(CT, "1.2.3.1")])
    assert failures(report) == {"1.2.3.1": 0x0110}


async def test_the_same_request_twice_is_reported_twice_and_another_refused(
    dimse: DimseServer,
) -> None:
    await store_objects(dimse.port, 2)
    for _ in range(2):
        event_type, _ = await report_of(dimse.port, [(CT, "1.2.3.1")])
        assert event_type == 1
    _, report = await report_of(dimse.port, [(CT, "1.2.3.2")])
    assert failures(report) == {"1.2.3.2": 0x0131}


@pytest.mark.conforms("PS3.4 §J.3.2", "what is no request of storage commitment is refused")
async def test_what_is_no_request_is_refused(dimse: DimseServer, store: Store) -> None:
    def talk() -> list[int]:
        with requester(dimse.port) as asking:
            good = [(CT, "1.2.3.1")]
            return [
                asking.ask(good, action_type=2),
                asking.ask(good, instance="1.2.3"),
                asking.ask([]),
                asking.ask([(CT, "")]),
                asking.ask(good, transaction=""),
            ]

    assert await asyncio.to_thread(talk) == [0x0123, 0x0112, 0x0115, 0x0115, 0x0115]
    assert await kept(store) == []


@pytest.mark.conforms("PS3.4 §J.3.3", "a node that has left is called, and we ask to be SCP")
async def test_a_node_that_has_left_is_called(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await store_objects(dimse.port, 1)
    with running_node([COMMITMENT]) as node:
        await move_node(store, house, node.port)

        def ask() -> None:
            with requester(dimse.port) as asking:
                assert asking.ask([(CT, "1.2.3.1")]) == 0

        await asyncio.to_thread(ask)
        async with worker(store):
            await until(lambda: is_reported(store))
    [(service, event_type, report)] = node.told
    assert (service, event_type, committed(report)) == ("N-EVENT-REPORT", 1, ["1.2.3.1"])
    assert node.callers == ["ARCHIVE"]


async def attempts(store: Store, task: str) -> int:
    async with store.database.transaction() as tx:
        return int(
            await tx.value(
                "SELECT coalesce(max(attempts), 0) FROM procrastinate_jobs"
                " WHERE task_name = %(task)s AND status = 'todo'",
                task=task,
            )
        )


async def hasten(store: Store) -> None:
    async with store.database.transaction() as tx:
        await tx.run("UPDATE procrastinate_jobs SET scheduled_at = now() WHERE status = 'todo'")


@pytest.mark.parametrize("trouble", ["away", "refuses"])
async def test_a_node_that_does_not_listen_is_called_again(
    dimse: DimseServer, store: Store, house: House, trouble: str
) -> None:
    await store_objects(dimse.port, 1)
    with running_node([COMMITMENT]) as node:
        await move_node(store, house, node.port if trouble == "refuses" else 1)
        node.status = 0x0110

        def ask() -> None:
            with requester(dimse.port) as asking:
                assert asking.ask([(CT, "1.2.3.1")]) == 0

        await asyncio.to_thread(ask)
        async with worker(store):
            await hasten(store)

            async def has_failed() -> bool:
                return await attempts(store, "report_commitment") > 0

            await until(has_failed)
            assert not await is_reported(store)
            node.status = 0x0000
            await move_node(store, house, node.port)
            await hasten(store)
            await until(lambda: is_reported(store))
        assert committed(node.told[-1][2]) == ["1.2.3.1"]


async def test_a_node_that_has_to_use_tls_is_called_over_it(
    dimse: DimseServer, store: Store, house: House, tmp_path: Path
) -> None:
    await store_objects(dimse.port, 1)
    authority = new_authority(tmp_path / "region")
    ours, theirs = authority.issue("archive"), authority.issue("modality")
    theirs_tls = Tls(str(theirs.certificate), str(theirs.key), str(authority.certificate))
    ours_tls = Tls(str(ours.certificate), str(ours.key), str(authority.certificate))
    with running_node([COMMITMENT], tls=theirs_tls.server()) as node:
        await move_node(store, house, node.port)

        def ask() -> None:
            with requester(dimse.port) as asking:
                assert asking.ask([(CT, "1.2.3.1")]) == 0

        await asyncio.to_thread(ask)
        await set_terms(store, tls_required=True, certificate="CN=another,O=Region")
        async with worker(store, NodeCalls(ours_tls)):
            await hasten(store)

            async def has_failed() -> bool:
                return await attempts(store, "report_commitment") > 0

            await until(has_failed)
            assert node.told == []
            await set_terms(store, certificate="CN=modality,O=Region")
            await hasten(store)
            await until(lambda: is_reported(store))
    assert len(node.told) == 1


# As SCU --------------------------------------------------------------------------------------


async def ask_node(store: Store, house: House, port: int) -> int:
    node_id = await move_node(store, house, port)
    return await commitments.request_commitment(
        store,
        operator("test"),
        house.archive.archive_id,
        node_id,
        TRANSACTION,
        [(CT, "1.2.3.1"), (CT, "1.2.3.2")],
    )


EXPECTED = CommitmentResult(((CT, "1.2.3.1"),), ((CT, "1.2.3.2", 0x0112),))


def report_dataset() -> Dataset:
    report = action([(CT, "1.2.3.1")])
    failed = action([(CT, "1.2.3.2")]).ReferencedSOPSequence
    failed[0].FailureReason = 0x0112
    report.FailedSOPSequence = failed
    return report


@pytest.mark.conforms("PS3.4 §J.3.3", "as SCU: the report over the association of the request")
async def test_a_node_answers_over_the_same_association(store: Store, house: House) -> None:
    def act(event: evt.Event) -> tuple[int, None]:
        def report() -> None:
            event.assoc.send_n_event_report(report_dataset(), 2, COMMITMENT, UID(INSTANCE))

        threading.Timer(0.2, report).start()
        return 0x0000, None

    with running_node([COMMITMENT], [(evt.EVT_N_ACTION, act)]) as node:
        commitment_id = await ask_node(store, house, node.port)
        async with worker(store):

            async def answered() -> bool:
                return await commitments.find_result(store, commitment_id) is not None

            await until(answered)
    assert await commitments.find_result(store, commitment_id) == EXPECTED


@pytest.mark.conforms("PS3.4 §J.3.3", "as SCU: the report over an association of the node's own")
async def test_a_node_calls_back(dimse: DimseServer, store: Store, house: House) -> None:
    asked = threading.Event()

    def act(event: evt.Event) -> tuple[int, None]:
        asked.set()
        event.assoc.abort()
        return 0x0000, None

    def call_back(transaction: str) -> int:
        entity = pynetdicom.AE("MODALITY")
        entity.add_requested_context(COMMITMENT)
        association = entity.associate(
            "127.0.0.1",
            dimse.port,
            ae_title="ARCHIVE",
            ext_neg=[build_role(COMMITMENT, scp_role=True)],
        )
        assert association.is_established
        report = report_dataset()
        report.TransactionUID = transaction
        status, _ = association.send_n_event_report(report, 2, COMMITMENT, UID(INSTANCE))
        association.release()
        return int(status.Status)

    with running_node([COMMITMENT], [(evt.EVT_N_ACTION, act)]) as node:
        commitment_id = await ask_node(store, house, node.port)
        async with worker(store):
            assert await asyncio.to_thread(asked.wait, PATIENCE_S)
            assert await asyncio.to_thread(call_back, TRANSACTION) == 0
    assert await commitments.find_result(store, commitment_id) == EXPECTED
    assert await asyncio.to_thread(call_back, "1.2.3.4.999") != 0


async def test_the_command_asks_for_studies_and_shows_the_answer(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await store_objects(dimse.port, 2)
    async with store.database.transaction() as tx:
        studies = [str(uid) for (uid,) in await tx.tuples("SELECT study_instance_uid FROM study")]

    def act(event: evt.Event) -> tuple[int, None]:
        asked = event.action_information
        answer = action([], str(asked.TransactionUID))
        first, *others = asked.ReferencedSOPSequence
        first.FailureReason = 0x0112
        answer.ReferencedSOPSequence, answer.FailedSOPSequence = others, [first]
        threading.Timer(
            0.2, lambda: event.assoc.send_n_event_report(answer, 2, COMMITMENT, UID(INSTANCE))
        ).start()
        return 0x0000, None

    async def command(*arguments: str) -> Answer:
        return await asyncio.to_thread(bfr, store.settings, "commitment", *arguments)

    with running_node([COMMITMENT], [(evt.EVT_N_ACTION, act)]) as node:
        await move_node(store, house, node.port)
        asked = await command("ask", "--archive", "ARCHIVE", "--node", "MODALITY", *studies)
        number = asked.out.partition("\t")[0]
        assert asked.out == f"{number}\tasked MODALITY for 2 objects\n", asked.err
        assert (await command("show", number)).status == 2
        async with worker(store):

            async def answered() -> bool:
                return await commitments.find_result(store, int(number)) is not None

            await until(answered)
    shown = await command("show", number)
    assert shown.status == 1
    assert shown.out.splitlines()[1:] == ["1 committed, 1 failed"]
    assert shown.out.startswith("failed\t1.2.3.")
    unknown = await command("ask", "--archive", "ARCHIVE", "--node", "NOBODY", *studies)
    assert unknown.status == 1
    assert "has no node 'NOBODY'" in unknown.err
