"""Rejection notes over C-STORE: of a node that is registered for it, and of another."""

import asyncio
from collections.abc import Sequence

import pynetdicom
import pytest
from pydicom import Dataset
from tests.legacy.test_commitment_scp import until, worker
from tests.legacy.test_tls import set_terms
from tests.samples import ct_series, rejection_note

from bfr_core.store import Store
from bfr_legacy.dimse.server import DimseServer

COUNT = "SELECT count(*) FROM instance"
CASES = "SELECT count(*) FROM archive_case WHERE kind = 'rejection_without_effect'"


async def send_all(port: int, objects: Sequence[Dataset]) -> None:
    """Store the objects over one association, one after the other."""

    def talk() -> None:
        entity = pynetdicom.AE("MODALITY")
        for uid in {one.SOPClassUID for one in objects}:
            entity.add_requested_context(uid, objects[0].file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", port, ae_title="ARCHIVE")
        assert association.is_established
        for one in objects:
            assert association.send_c_store(one).Status == 0
        association.release()

    await asyncio.to_thread(talk)


async def number(store: Store, sql: str) -> int:
    async with store.database.transaction() as tx:
        return int(await tx.value(sql))


@pytest.mark.conforms("PS3.4 beyond", "A rejection note of a registered node rejects what it names")
async def test_the_note_of_a_registered_node_rejects_what_it_names(
    dimse: DimseServer, store: Store
) -> None:
    await set_terms(store, rejections_accepted=True)
    series = ct_series(3)
    notes = [rejection_note(series[at : at + 1], SeriesInstanceUID="1.2.826.7") for at in (0, 1)]
    await send_all(dimse.port, [*series, *notes])

    async def is_gone() -> bool:
        return await number(store, "SELECT count(*) FROM deleted_instance") == 2

    async with worker(store):
        await until(is_gone)
    assert await number(store, CASES) == 0


async def test_the_note_of_another_node_is_stored_and_opens_a_case(
    dimse: DimseServer, store: Store
) -> None:
    series = ct_series(2)
    await send_all(dimse.port, [*series, rejection_note(series)])
    assert await number(store, COUNT) == 3
    assert await number(store, CASES) == 1
    jobs = "SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'apply_rejection'"
    assert await number(store, jobs) == 0
