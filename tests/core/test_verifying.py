"""Verification: what is not what came is a case, once, which closes when it is mended."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.conftest import House, add_house
from tests.core.one_series import Series, seal, store_files

from bfr_core import cases, jobs
from bfr_core.access import operator
from bfr_core.deleting import delete
from bfr_core.errors import Denied, NotFound
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store
from bfr_core.tombstones import Target
from bfr_core.verifying import verify_all, verify_for_a_while, verify_study

WHO = operator("the operator")


def quietly(_: object) -> None:
    return None


def never() -> bool:
    return False


async def open_cases(store: Store) -> list[tuple[str, str, str]]:
    async with store.database.transaction() as tx:
        listed = await cases.list_cases(tx, WHO)
    return sorted((one.kind, one.series_instance_uid, one.sop_instance_uid) for one in listed)


async def a_series(store: Store, house: House, *, sealed: bool = True) -> tuple[Series, Path]:
    series = Series()
    before = set(store.blobs.directory.rglob("*.pack"))
    await store_files(store, house, series.file(1), series.file(2))
    if sealed:
        await seal(store, series)
    (pack,) = set(store.blobs.directory.rglob("*.pack")) - before
    return series, pack


def flip_last(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("sealed", [False, True])
async def test_what_is_whole_is_looked_at_and_opens_no_case(
    store: Store, house: House, sealed: bool
) -> None:
    series, _ = await a_series(store, house, sealed=sealed)
    verified = await verify_all(store, quietly)
    assert (verified.series, verified.instances, verified.found) == (1, 2, [])
    assert verified.size_bytes == len(series.file(1)) + len(series.file(2))
    assert await open_cases(store) == []


@pytest.mark.parametrize("sealed", [False, True])
async def test_a_damaged_object_is_one_case_until_it_is_mended(
    store: Store, house: House, sealed: bool
) -> None:
    series, pack = await a_series(store, house, sealed=sealed)
    flip_last(pack)
    for _ in range(2):
        ((kind, uid),) = (await verify_all(store, quietly)).found
        assert kind == "damaged_object"
        assert await open_cases(store) == [("damaged_object", series.uid, uid)]
    flip_last(pack)
    await verify_all(store, quietly)
    assert await open_cases(store) == []


async def test_missing_and_short_packs_are_cases_of_each_object(store: Store, house: House) -> None:
    first, missing = await a_series(store, house)
    second, short = await a_series(store, house)
    missing.unlink()
    short.write_bytes(short.read_bytes()[:600])
    await verify_all(store, quietly)
    assert sorted((kind, series) for kind, series, _ in await open_cases(store)) == sorted(
        [("missing_object", first.uid)] * 2 + [("damaged_object", second.uid)] * 2
    )


@pytest.mark.parametrize("missing", [False, True])
async def test_a_lost_manifest_is_a_case_of_its_series(
    store: Store, house: House, missing: bool
) -> None:
    series, _ = await a_series(store, house)
    (manifest,) = store.blobs.directory.rglob("*.manifest")
    data = manifest.read_bytes()
    if missing:
        manifest.unlink()
    else:
        manifest.write_bytes(data[:-3])
    await verify_all(store, quietly)
    assert await open_cases(store) == [("damaged_manifest", series.uid, "")]
    manifest.write_bytes(data)
    await verify_all(store, quietly)
    assert await open_cases(store) == []


async def test_one_study_is_verified_alone(store: Store, house: House) -> None:
    series, pack = await a_series(store, house)
    _, other = await a_series(store, house)
    flip_last(pack)
    flip_last(other)
    verified = await verify_study(store, "ARCHIVE", series.study, quietly)
    assert (verified.series, len(verified.found)) == (1, 1)
    for archive, study in (("ARCHIVE", "1.2.3"), ("OTHER", series.study)):
        with pytest.raises(NotFound):
            await verify_study(store, archive, study, quietly)


async def test_no_case_for_what_was_deleted(store: Store, house: House) -> None:
    series, pack = await a_series(store, house)
    pack.unlink()
    await delete(store, WHO, "ARCHIVE", Target(series.study), "because")
    assert (await verify_all(store, quietly)).found == []


@pytest.fixture
async def fast(with_settings: Callable[..., Settings]) -> AsyncIterator[Store]:
    async with open_store(with_settings(verify_bytes_per_s=1 << 40)) as opened:
        yield opened


async def test_the_worker_goes_on_where_it_was_and_looks_at_everything(fast: Store) -> None:
    house = await add_house(fast, "ARCHIVE", "MODALITY")
    for _ in range(3):
        await a_series(fast, house)
    turns, instances = 0, 0
    while True:
        looks = iter([False, True, True])  # one object a turn
        verified = await verify_for_a_while(fast, lambda looks=looks: next(looks))  # type: ignore[misc]
        if not verified.series:
            break
        turns += 1
        instances += verified.instances
        assert turns < 20
    assert instances == 6
    # Everything was looked at: it begins again another day.
    assert (await verify_for_a_while(fast, never)).series == 0
    async with fast.database.transaction() as tx:
        await tx.run("UPDATE work_position SET place = 'done 2020-01-01' WHERE work = 'verify'")
    assert (await verify_for_a_while(fast, never)).instances == 6


async def test_a_turn_that_sees_half_a_series_closes_no_case_of_the_other_half(
    fast: Store,
) -> None:
    house = await add_house(fast, "ARCHIVE", "MODALITY")
    _, pack = await a_series(fast, house)
    flip_last(pack)
    await verify_all(fast, quietly)
    assert len(await open_cases(fast)) == 1
    looks = iter([False, True, True])
    assert (await verify_for_a_while(fast, lambda: next(looks))).instances == 1
    assert len(await open_cases(fast)) == 1


async def test_a_process_that_is_to_end_leaves_the_object_for_another_time(fast: Store) -> None:
    house = await add_house(fast, "ARCHIVE", "MODALITY")
    await a_series(fast, house)
    assert (await verify_for_a_while(fast, never, lambda: True)).instances == 0
    assert (await verify_for_a_while(fast, never)).instances == 2


async def test_the_worker_verifies_by_itself(fast: Store) -> None:
    house = await add_house(fast, "ARCHIVE", "MODALITY")
    series, pack = await a_series(fast, house)
    flip_last(pack)
    async with fast.database.transaction() as tx:
        await jobs.verify.configure(connection=tx.connection).defer_async(timestamp=0)
    stop = asyncio.Event()
    running = asyncio.create_task(jobs.run_worker(fast, stop))
    async with asyncio.timeout(60):
        while True:
            if await open_cases(fast):
                break
            await asyncio.sleep(0.05)
    stop.set()
    await running
    assert [one[:2] for one in await open_cases(fast)] == [("damaged_object", series.uid)]


async def test_a_rate_of_nothing_verifies_nothing(
    with_settings: Callable[..., Settings],
) -> None:
    async with open_store(with_settings(verify_bytes_per_s=0)) as store:
        house = await add_house(store, "ARCHIVE", "MODALITY")
        await a_series(store, house)
        assert (await verify_for_a_while(store, never)).series == 0


async def test_a_case_is_closed_by_an_operator_and_may_open_again(
    store: Store, house: House
) -> None:
    _, pack = await a_series(store, house)
    flip_last(pack)
    await verify_all(store, quietly)
    async with store.database.transaction() as tx:
        (case,) = await cases.list_cases(tx, WHO)
        with pytest.raises(Denied):
            await cases.close_case(tx, house.node, case.case_id)
        await cases.close_case(tx, WHO, case.case_id)
        with pytest.raises(NotFound):
            await cases.close_case(tx, WHO, case.case_id)
        assert await cases.count_open_cases(tx) == 0
        (closed,) = await cases.list_cases(tx, WHO, closed=True)
        assert closed.closed_by == "the operator"
    await verify_all(store, quietly)
    async with store.database.transaction() as tx:
        assert await cases.count_open_cases(tx) == 1
