"""Sweeping: what was killed half-way goes; a pack with one committed instance never does."""

import os
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.conftest import House
from tests.core.one_series import Series, check_whole, seal, store_files, stored

from bfr_core.errors import Unavailable
from bfr_core.packs import PACK_HEADER_BYTES
from bfr_core.receiving import Reception
from bfr_core.sealed import SealedSeries
from bfr_core.store import Store
from bfr_core.sweeping import Swept, drop_unreferenced, sweep_all, sweep_new_days


def blobs(store: Store, suffix: str) -> list[Path]:
    return sorted(store.blobs.directory.rglob(f"*.{suffix}"))


def age(store: Store) -> None:
    for path in store.blobs.directory.rglob("*.*"):
        os.utime(path, (0, 0))


async def sweep_aged(store: Store) -> Swept:
    age(store)
    return await sweep_all(store)


def receive_only(store: Store, house: House, *files: bytes) -> Reception:
    """Receive objects that nobody commits; the sender still stays."""
    reception = Reception(store, house.node, house.archive, "C-STORE")
    for data in files:
        incoming = reception.incoming_part10()
        incoming.write(data)
        incoming.finish()
    return reception


async def test_a_pack_that_was_never_committed_goes(store: Store, house: House) -> None:
    receive_only(store, house, Series().file(1)).close()
    assert len(blobs(store, "pack")) == 1
    swept = await sweep_aged(store)
    assert (len(swept.removed), swept.unclear) == (1, [])
    assert swept.removed_bytes > 0
    assert blobs(store, "pack") == []


async def test_what_is_young_stays(store: Store, house: House) -> None:
    receive_only(store, house, Series().file(1)).close()
    assert (await sweep_all(store)).removed == []
    assert len(blobs(store, "pack")) == 1


async def test_a_pack_that_a_sender_holds_stays_however_old(store: Store, house: House) -> None:
    reception = receive_only(store, house, Series().file(1))
    assert (await sweep_aged(store)).removed == []
    with pytest.raises(Unavailable, match="holds"):
        await drop_unreferenced(
            store, str(blobs(store, "pack")[0].relative_to(store.blobs.directory))
        )
    reception.close()
    assert len((await sweep_aged(store)).removed) == 1


async def test_a_large_object_that_was_cut_off_goes(store: Store, house: House) -> None:
    reception = Reception(store, house.node, house.archive, "C-STORE")
    incoming = reception.incoming_part10()
    incoming.write(bytes(store.settings.object_memory_bytes + 1))
    (pack,) = blobs(store, "pack")
    left = pack.read_bytes()
    incoming.abort()
    pack.write_bytes(left)  # as a killed process leaves it
    assert [store.blobs.path(key) for key in (await sweep_aged(store)).removed] == [pack]


async def test_a_manifest_whose_sealing_was_killed_goes(store: Store, house: House) -> None:
    series = Series()
    await store_files(store, house, series.file(1))
    with (
        mock.patch("bfr_core.events.write", side_effect=Unavailable("killed")),
        pytest.raises(Unavailable),
    ):
        await seal(store, series)
    (orphan,) = blobs(store, "manifest")
    await seal(store, series)
    assert [store.blobs.path(key) for key in (await sweep_aged(store)).removed] == [orphan]
    assert len(blobs(store, "manifest")) == 1
    await check_whole(store, series, {1})


async def test_half_a_blob_without_its_name_goes(store: Store, house: House) -> None:
    series = Series()
    await store_files(store, house, series.file(1))
    await seal(store, series)
    (manifest,) = blobs(store, "manifest")
    part = manifest.with_name("0123.manifest.part")
    part.write_bytes(b"half")
    assert [store.blobs.path(key) for key in (await sweep_aged(store)).removed] == [part]


@pytest.mark.parametrize("damage", ["head", "record", "object"])
async def test_a_pack_that_nobody_can_read_stays(store: Store, house: House, damage: str) -> None:
    series = Series()
    await store_files(store, house, series.file(1))
    await seal(store, series)
    (pack,) = blobs(store, "pack")
    data = bytearray(pack.read_bytes())
    data[{"head": 0, "record": PACK_HEADER_BYTES, "object": len(data) - 1}[damage]] ^= 1
    pack.write_bytes(data)
    swept = await sweep_aged(store)
    assert swept.removed == []
    assert len(swept.unclear) == 1
    assert pack.exists()


async def test_a_pack_stays_while_the_manifest_of_its_series_cannot_be_read(
    store: Store, house: House
) -> None:
    series = Series()
    await store_files(store, house, series.file(1))
    await seal(store, series)
    (manifest,) = blobs(store, "manifest")
    manifest.unlink()
    store.sealed = SealedSeries(store.blobs, cache_bytes=1)
    assert (await sweep_aged(store)).removed == []
    assert len(blobs(store, "pack")) == 1


async def test_days_are_swept_once_each_by_the_daily_job(store: Store, house: House) -> None:
    receive_only(store, house, Series().file(1)).close()
    (pack,) = blobs(store, "pack")
    old = store.blobs.directory / pack.relative_to(store.blobs.directory).parts[0] / "2020/02/03"
    old.mkdir(parents=True)
    pack.rename(old / pack.name)
    age(store)
    assert len((await sweep_new_days(store)).removed) == 1
    (old / "left.pack").write_bytes(b"")
    age(store)
    assert (await sweep_new_days(store)).removed == []
    assert len((await sweep_all(store)).removed) == 1


@given(
    senders=st.lists(
        st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=4),
        min_size=1,
        max_size=3,
    ),
    sealed=st.booleans(),
)
@hypothesis_settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_a_pack_with_one_committed_instance_never_goes(
    store: Store, house: House, senders: list[list[tuple[int, bool]]], sealed: bool
) -> None:
    series = Series()
    before = blobs(store, "pack")  # of the example before this one
    committed: set[int] = set()
    for sent in senders:
        reception = Reception(store, house.node, house.archive, "C-STORE")
        for number, commits in sent:
            incoming = reception.incoming_part10()
            incoming.write(series.file(number))
            received = incoming.finish()
            if commits:
                await store.commit([received])
                committed.add(number)
        reception.close()
    if sealed and committed:
        await seal(store, series)
    await sweep_aged(store)
    assert await stored(store, series) == [series.file(number) for number in sorted(committed)]
    if not committed:
        assert blobs(store, "pack") == before
