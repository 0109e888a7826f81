"""Sealing while instances arrive: nothing lost, nothing doubled, whatever the order."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.conftest import House, add_house
from tests.core.one_series import (
    READER,
    Series,
    check_whole,
    places_of,
    seal,
    series_row,
    store_files,
)

from bfr_core.blobs import BlobRef
from bfr_core.errors import Unavailable
from bfr_core.locator import find_sealed
from bfr_core.retrieval import retrieve_instances
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store

numbers = st.integers(1, 4)
stores = st.tuples(st.just("store"), st.lists(numbers, min_size=1, max_size=3))
within = st.lists(stores | st.just(("seal", [])), max_size=2)
seals = st.tuples(st.just("seal"), within)
crashes: st.SearchStrategy[tuple[str, list[object]]] = st.just(("crash", []))
plans = st.lists(stores | seals | crashes, min_size=1, max_size=6)


class Act:
    """Carries out a plan; what lies within a sealing happens after it read and before it ends."""

    def __init__(self, store: Store, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = store
        self.house = house
        self.series = Series()
        self.acknowledged: set[int] = set()
        self.loop = asyncio.get_running_loop()
        self.put = store.blobs.put
        self.within: list[tuple[str, list[object]]] = []
        self.dies = False
        monkeypatch.setattr(store.blobs, "put", self.put_and_more)

    def put_and_more(self, key: str, data: bytes) -> None:
        steps, self.within = self.within, []
        for step in steps:
            asyncio.run_coroutine_threadsafe(self.carry_out(step), self.loop).result()
        self.put(key, data)
        if self.dies:
            raise Unavailable("the worker was killed here")

    async def carry_out(self, step: tuple[str, list[object]]) -> None:
        kind, content = step
        if kind == "store":
            wanted = [int(str(number)) for number in content]
            outcomes = await store_files(
                self.store, self.house, *(self.series.file(number) for number in wanted)
            )
            for number, outcome in zip(wanted, outcomes, strict=True):
                known = "identical" if number in self.acknowledged else "new"
                assert outcome.stored == known
                self.acknowledged.add(number)
        elif self.acknowledged:
            self.within = list(content)  # type: ignore[arg-type]
            self.dies = kind == "crash"
            try:
                await seal(self.store, self.series)
            except Unavailable:
                assert self.dies
            self.dies = False
            self.within = []


@given(plan=plans)
@hypothesis_settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_sealing_in_any_order_loses_and_doubles_nothing(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    plan: list[tuple[str, list[object]]],
) -> None:
    with monkeypatch.context() as patched:
        house = await add_house(store, f"A{next(titles)}", "MODALITY")
        act = Act(store, house, patched)
        for step in plan:
            await act.carry_out(step)
            if act.acknowledged:
                await check_whole(store, act.series, act.acknowledged)
        if not act.acknowledged:
            return
        while await seal(store, act.series):
            pass
        row = await series_row(store, act.series)
        assert row is not None
        assert row["state"] == "sealed"
        await check_whole(store, act.series, act.acknowledged)


titles = itertools.count()


@pytest.fixture
async def second_store(settings: Settings, store: Store) -> AsyncIterator[Store]:
    """The same archive, opened by another process: only database and files are shared."""
    async with open_store(settings) as opened:
        yield opened


async def test_two_doors_and_two_workers_at_once(
    store: Store, second_store: Store, house: House
) -> None:
    listed = [Series() for _ in range(3)]
    for one in listed[1:]:
        one.study = listed[0].study
    choice = random.Random(4)
    done = asyncio.Event()

    async def send(door: Store, chunk: int) -> list[str | None]:
        sent = [(one, number) for one in listed for number in range(1, 13)]
        choice.shuffle(sent)
        outcomes: list[str | None] = []
        for start in range(0, len(sent), chunk):
            files = [one.file(number) for one, number in sent[start : start + chunk]]
            outcomes += [outcome.stored for outcome in await store_files(door, house, *files)]
        return outcomes

    async def seal_on(worker: Store) -> None:
        while not done.is_set():
            for one in listed:
                if await series_row(worker, one) is not None:
                    await seal(worker, one)
            await asyncio.sleep(0)

    workers = [asyncio.create_task(seal_on(worker)) for worker in (store, second_store)]
    # Both doors get every file: one of them is first.
    answers = await asyncio.gather(send(store, 1), send(second_store, 5))
    done.set()
    await asyncio.gather(*workers)
    flat = [stored for answer in answers for stored in answer]
    assert sorted(map(str, flat)) == ["identical"] * 36 + ["new"] * 36
    for one in listed:
        while await seal(store, one):
            pass
        assert len(await places_of(second_store, one)) == 12
    found = await retrieve_instances(
        second_store, READER, "test", archive_id=None, study_instance_uid=listed[0].study
    )
    files = {second_store.blobs.read(one.stored.blob) for one in found}
    assert len(found) == 36
    assert files == {one.file(number) for one in listed for number in range(1, 13)}
    async with store.database.transaction() as tx:
        counted = await tx.tuples("SELECT number_of_series, number_of_instances FROM study")
        assert counted == [(3, 36)]
        assert await tx.value("SELECT count(*) FROM instance") == 0


async def test_a_manifest_that_was_replaced_is_deleted_only_later(
    store: Store, house: House
) -> None:
    series = Series()
    await store_files(store, house, series.file(1))
    await seal(store, series)
    row = await series_row(store, series)
    assert row is not None
    old = str(row["manifest_key"])
    await store_files(store, house, series.file(2))
    await seal(store, series)
    assert store.blobs.path(old).exists()
    async with store.database.transaction() as tx:
        jobs = await tx.tuples(
            "SELECT args->>'key', scheduled_at > now() + interval '50 min' FROM procrastinate_jobs"
            " WHERE task_name = 'delete_blob'"
        )
    assert jobs == [(old, True)]


async def test_a_sealing_that_came_too_late_leaves_no_manifest(
    store: Store, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = Act(store, house, monkeypatch)
    await act.carry_out(("store", [1]))
    act.within = [("store", [2])]
    assert await seal(store, act.series) == store.settings.seal_quiet_s
    assert list(store.blobs.directory.rglob("*.manifest")) == []
    await check_whole(store, act.series, {1, 2})


async def test_a_series_that_is_not_quiet_yet_waits(
    with_settings: Callable[..., Settings],
) -> None:
    async with open_store(with_settings(seal_quiet_s=60.0)) as store:
        house = await add_house(store, "ARCHIVE", "MODALITY")
        series = Series()
        await store_files(store, house, series.file(1))
        assert 50 < await seal(store, series) <= 60
        row = await series_row(store, series)
        assert row is not None
        assert row["state"] == "receiving"


async def test_sealing_twice_changes_nothing(store: Store, house: House) -> None:
    series = Series()
    await store_files(store, house, series.file(1))
    assert await seal(store, series) == 0
    before = await series_row(store, series)
    assert await seal(store, series) == 0
    assert await series_row(store, series) == before


async def test_a_lost_manifest_is_told_and_spoils_nothing(store: Store, house: House) -> None:
    series = Series()
    await store_files(store, house, series.file(1))
    await seal(store, series)
    row = await series_row(store, series)
    assert row is not None
    await store_files(store, house, series.file(2))
    path = store.blobs.path(str(row["manifest_key"]))
    kept = path.read_bytes()
    path.unlink()
    async with open_store(store.settings) as worker:
        with pytest.raises(Unavailable, match="is missing"):
            await seal(worker, series)
        path.write_bytes(kept)
        assert await seal(worker, series) == 0
        await check_whole(worker, series, {1, 2})


async def test_every_sealed_instance_can_be_located(store: Store, house: House) -> None:
    series = Series()
    for number in (1, 2, 3):
        await store_files(store, house, series.file(number))
        await seal(store, series)
    found = await retrieve_instances(
        store, READER, "test", archive_id=None, study_instance_uid=series.study
    )
    row = await series_row(store, series)
    assert row is not None
    async with store.database.transaction() as tx:
        for one in found:
            (place,) = await find_sealed(tx, [one.stored.sop_instance_uid])
            assert place.series_id == row["series_id"]
    assert [one.stored.blob for one in found] == [
        BlobRef(one.stored.blob.key, one.stored.blob.offset, len(series.file(number)))
        for one, number in zip(found, (1, 2, 3), strict=True)
    ]
