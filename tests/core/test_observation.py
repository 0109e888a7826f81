"""Figures: what is counted where, and that the exposition is what Prometheus reads."""

import asyncio
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.conftest import House
from tests.samples import ct_instance, part10_bytes

from bfr_core import jobs, metrics
from bfr_core.errors import ArchiveError, Invalid, Unavailable
from bfr_core.exposition import exposition, merged
from bfr_core.observation import Observation
from bfr_core.pixel_pool import PixelPool
from bfr_core.receiving import Reception
from bfr_core.registration_batch import DuplicateUid
from bfr_core.sealing import seal_series
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: bytes) -> Samples:
    """Every sample of an exposition, read by the parser of the client library."""
    families = text_string_to_metric_families(text.decode())
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in families
        for one in family.samples
    }


def figure(name: str, **labels: str) -> float:
    """The figure at this moment; 0 when it has not been told yet."""
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


class Change:
    """How much a figure has changed since it was looked at first."""

    def __init__(self, name: str, **labels: str) -> None:
        self.name, self.labels = name, labels
        self.before = figure(name, **labels)

    def __call__(self) -> float:
        return figure(self.name, **self.labels) - self.before


async def test_an_object_is_counted_once_by_what_became_of_it(store: Store, house: House) -> None:
    outcomes = ("new", "identical", "duplicate_uid", "conflict", "invalid")
    counted = {one: Change("bfr_objects_total", door="TEST", outcome=one) for one in outcomes}
    stored = Change("bfr_stored_bytes_total", door="TEST")
    synced = Change("bfr_blob_duration_seconds_count", operation="sync")
    committed = Change("bfr_commit_objects_sum")
    packs = Change("bfr_packs_open")
    reception = Reception(store, house.node, house.archive, "TEST")

    async def send(data: bytes) -> None:
        incoming = reception.incoming_part10()
        incoming.write(data)
        await store.commit([incoming.finish()])

    one = ct_instance()
    await send(part10_bytes(one))
    assert packs() == 1
    await send(part10_bytes(one))
    one.InstanceNumber = 2
    await send(part10_bytes(one))
    other = ct_instance(StudyInstanceUID=one.StudyInstanceUID, PatientID="190001019999")
    await send(part10_bytes(other))
    with pytest.raises(Invalid):
        await send(b"no DICOM")
    reception.close()
    assert {name: change() for name, change in counted.items()} == dict.fromkeys(outcomes, 1)
    assert stored() > len(part10_bytes(one)) - 100
    assert synced() >= 1
    assert committed() == 4
    assert packs() == 0


async def test_an_object_that_is_too_large_is_counted_as_refused(
    with_settings: Callable[..., Settings], house: House
) -> None:
    refused = Change("bfr_objects_total", door="TEST", outcome="invalid")
    async with open_store(with_settings(object_max_bytes=100)) as store:
        incoming = Reception(store, house.node, house.archive, "TEST").incoming_part10()
        with pytest.raises(Invalid):
            incoming.write(bytes(101))
    assert refused() == 1


async def test_a_sealing_tells_of_its_manifest(store: Store, house: House) -> None:
    sealed = Change("bfr_sealing_duration_seconds_count")
    instances = Change("bfr_manifest_instances_sum")
    size = Change("bfr_manifest_bytes_sum")
    reception = Reception(store, house.node, house.archive, "TEST")
    incoming = reception.incoming_part10()
    incoming.write(part10_bytes(ct_instance()))
    await store.commit([incoming.finish()])
    reception.close()
    async with store.database.transaction() as tx:
        series_id = await tx.value("SELECT series_id FROM series")
    assert await seal_series(store, series_id) == 0
    assert (sealed(), instances()) == (1, 1)
    manifests = [path.stat().st_size for path in store.blobs.directory.rglob("*.manifest")]
    assert [size()] == manifests


def fail_for_its_argument(error: ArchiveError) -> None:
    raise error


async def test_pixel_calls_are_counted_by_function_and_outcome() -> None:
    labels = {"call": "fail_for_its_argument", "outcome": "invalid"}
    failed = Change("bfr_pixel_call_duration_seconds_count", **labels)
    pool = PixelPool(1)
    try:
        with pytest.raises(Invalid):
            await pool.run(fail_for_its_argument, Invalid("no picture"))
    finally:
        await asyncio.to_thread(pool.close)
    assert failed() == 1
    assert figure("bfr_pixel_calls_open") == 0
    assert figure("bfr_pixel_processes_busy") == 0


async def test_the_worker_tells_how_its_work_stands(store: Store) -> None:
    async with store.database.transaction() as tx:
        await jobs.defer_seals(tx, [1], 3600)
        await jobs.defer_seals(tx, [2], 3600)
        await tx.run(
            "UPDATE procrastinate_jobs SET scheduled_at = now() - interval '100 s'"
            " WHERE lock = 'series-1'"
        )
    told = samples(await exposition(store, "worker"))
    of_worker = [(name, dict(labels), value) for (name, labels), value in told.items()]
    (waiting,) = [
        value
        for name, labels, value in of_worker
        if name == "bfr_jobs" and labels["task"] == "seal" and labels["state"] == "todo"
    ]
    assert waiting == 2
    (oldest,) = [value for name, _, value in of_worker if name == "bfr_oldest_waiting_job_seconds"]
    assert oldest >= 100


async def test_a_database_that_is_away_leaves_the_other_figures(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with store.database.transaction() as tx:
        await jobs.defer_seals(tx, [1], 3600)
    assert any(name == "bfr_jobs" for name, _ in samples(await exposition(store, "worker")))

    def away() -> None:
        raise Unavailable("the database is not available")

    monkeypatch.setattr(store.database, "transaction", away)
    told = {name for name, _ in samples(await exposition(store, "worker"))}
    assert "bfr_jobs" not in told
    assert {"bfr_disk_free_bytes", "bfr_build_info", "process_cpu_seconds_total"} <= told


async def test_the_expositions_of_processes_become_one(store: Store) -> None:
    metrics.of(metrics.OBJECTS, "C-STORE", "new").inc()
    one, other = await exposition(store, "web"), await exposition(store, "dimse")
    both = merged([one, b"", other])
    assert samples(both) == {**samples(one), **samples(other)}
    heads = [line for line in both.splitlines() if line.startswith(b"# TYPE ")]
    assert len(heads) == len({*heads})  # the lines of a figure stand together
    assert merged([]) == b""


def test_every_error_is_an_outcome() -> None:
    errors = (DuplicateUid("x"), Invalid("x"), ValueError("x"), asyncio.CancelledError())
    words = [metrics.outcome_of(error) for error in errors]
    assert words == ["conflict", "invalid", "failed", "aborted"]


def test_a_transaction_is_told_by_name_outcome_and_bytes() -> None:
    labels = {"transaction": "TEST", "resource": "/studies/{study}", "outcome": "success"}
    ended = Change("bfr_transaction_duration_seconds_count", **labels)
    received = Change("bfr_transaction_received_bytes_total", transaction="TEST")
    observation = Observation("HTTP")
    observation.transaction, observation.resource = "TEST", "/studies/{study}"
    observation.received_bytes = 7
    observation.end("success")
    assert (ended(), received()) == (1, 7)
