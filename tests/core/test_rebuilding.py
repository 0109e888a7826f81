"""Rebuilding: the index again from packs alone, whatever was interrupted, damaged or missing."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from unittest import mock

import psycopg
import pytest
from tests.conftest import TEMPLATE, House, add_house
from tests.core.one_series import Series, seal, store_files, stored, uid_of

from bfr_core import comparing, connections, patients, rebuilding
from bfr_core.access import operator
from bfr_core.compacting import compact_deletion
from bfr_core.deleting import delete
from bfr_core.errors import Conflict, Denied
from bfr_core.postgres import Cluster
from bfr_core.rebuilding import Rebuilt, keep_connections, rebuild
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store
from bfr_core.sweeping import drop_unreferenced
from bfr_core.tombstones import Target
from bfr_core.undeleting import Undone, undelete

WHO = operator("the operator")


def quietly(_: object) -> None:
    return None


@asynccontextmanager
async def empty(cluster: Cluster, settings: Settings) -> AsyncIterator[Store]:
    """The same blobs with a database in which nothing is."""
    name = f"again_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(cluster.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER bfr_owner".encode())
    async with open_store(replace(settings, database_url=cluster.url("bfr_app", name))) as opened:
        yield opened
    with psycopg.connect(cluster.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


async def different(here: Store, there: Store) -> list[comparing.Difference]:
    return [
        one
        async for one in comparing.differences(
            comparing.contents(here.database, here.sealed),
            comparing.contents(there.database, there.sealed),
        )
        if one is not None
    ]


async def test_everything_comes_back_with_arrival_times_and_ids(
    store: Store, house: House, cluster: Cluster
) -> None:
    other = await add_house(store, "OTHER", "ELSEWHERE")
    first, second = Series(), Series()
    await store_files(store, house, first.file(1), first.file(2))
    await store_files(store, other, second.file(1))
    await seal(store, first)
    await keep_connections(store)
    async with empty(cluster, store.settings) as again:
        rebuilt = await rebuild(again, WHO, quietly)
        assert rebuilt == Rebuilt(packs=2, instances=3)
        assert await stored(again, first) == [first.file(1), first.file(2)]
        assert await different(again, store) == []
        old, new = [
            await patients.latest_studies(one, WHO, modality=None, archive=None, limit=9)
            for one in (store, again)
        ]
        for was, now in zip(old, new, strict=True):
            assert now.study_instance_uid == was.study_instance_uid
            assert abs((now.received_at - was.received_at).total_seconds()) < 60
        for one in (store, again):
            async with one.database.transaction() as tx:
                assert [row.archive_id for row in await connections.list_archives(tx)] == [
                    house.archive.archive_id,
                    other.archive.archive_id,
                ]
        third = await add_house(again, "THIRD", "NEW")  # numbers go on where they were
        assert third.archive.archive_id > other.archive.archive_id


async def test_a_rebuilding_that_was_interrupted_is_begun_again(
    store: Store, house: House, cluster: Cluster
) -> None:
    listed = [Series() for _ in range(3)]
    for one in listed:
        await store_files(store, house, one.file(1), one.file(2))
    await keep_connections(store)

    class Killed(BaseException):
        pass

    def kill(rebuilt: Rebuilt) -> None:
        if rebuilt.packs == 2:
            raise Killed

    async with empty(cluster, store.settings) as again:
        with pytest.raises(Killed):
            await rebuild(again, WHO, kill)
        rebuilt = await rebuild(again, WHO, quietly)
        assert (rebuilt.instances, rebuilt.known) == (2, 4)
        assert await different(again, store) == []


async def test_an_index_that_is_not_empty_is_left_alone_unless_forced(
    store: Store, house: House
) -> None:
    series = Series()
    await store_files(store, house, series.file(1))
    with pytest.raises(Conflict, match="--force"):
        await rebuild(store, WHO, quietly)
    with pytest.raises(Denied):
        await rebuild(store, house.node, quietly, force=True)
    rebuilt = await rebuild(store, WHO, quietly, force=True)
    assert (rebuilt.instances, rebuilt.known) == (0, 1)
    assert await stored(store, series) == [series.file(1)]


async def test_what_is_damaged_is_told_and_the_rest_comes_back(
    store: Store, house: House, cluster: Cluster
) -> None:
    series = Series()
    await store_files(store, house, series.file(1), series.file(2))
    await keep_connections(store)
    (pack,) = store.blobs.directory.rglob("*.pack")
    data = bytearray(pack.read_bytes())
    data[512 + 64 + len(series.file(1)) - 1] ^= 1
    pack.write_bytes(data)
    async with empty(cluster, store.settings) as again:
        rebuilt = await rebuild(again, WHO, quietly)
        assert rebuilt.instances == 1
        (trouble,) = rebuilt.troubles
        assert trouble.endswith("damaged at byte 512")
        assert await stored(again, series) == [series.file(2)]
        (one,) = await different(again, store)
        assert one.here is not None
        assert one.there is not None
        assert (one.here.instances, one.there.instances) == (1, 2)


async def test_without_the_list_of_connections_archives_are_named_by_their_packs(
    store: Store, house: House, cluster: Cluster
) -> None:
    series = Series()
    await store_files(store, house, series.file(1))
    async with empty(cluster, store.settings) as again:
        rebuilt = await rebuild(again, WHO, quietly)
        assert (rebuilt.instances, len(rebuilt.troubles)) == (1, 1)
        assert await different(again, store) == []


async def test_what_was_deleted_stays_deleted_and_can_still_be_undone(
    store: Store, house: House, cluster: Cluster
) -> None:
    whole, part = Series(), Series()
    for one in (whole, part):
        await store_files(store, house, one.file(1), one.file(2))
        await seal(store, one)
    uid = await uid_of(store, part, 1)
    await delete(store, WHO, "ARCHIVE", Target(whole.study), "wrong patient")
    await delete(store, WHO, "ARCHIVE", Target(part.study, part.uid, uid), "blurred")
    await keep_connections(store)
    async with empty(cluster, store.settings) as again:
        rebuilt = await rebuild(again, WHO, quietly)
        assert (rebuilt.instances, rebuilt.deleted, rebuilt.troubles) == (1, 3, [])
        assert await different(again, store) == []
        assert await undelete(again, WHO, "ARCHIVE", Target(whole.study)) == Undone(2, 0)
        assert await stored(again, whole) == [whole.file(1), whole.file(2)]


async def test_an_undone_deletion_does_not_come_back(
    store: Store, house: House, cluster: Cluster
) -> None:
    series = Series()
    await store_files(store, house, series.file(1))
    await delete(store, WHO, "ARCHIVE", Target(series.study), "wrong patient")
    await undelete(store, WHO, "ARCHIVE", Target(series.study))
    async with store.database.transaction() as tx:
        rows = await tx.tuples(
            "SELECT args->>'key' FROM procrastinate_jobs WHERE task_name = 'delete_blob'"
        )
    for (key,) in rows:
        store.blobs.delete(key)
    async with empty(cluster, store.settings) as again:
        assert (await rebuild(again, WHO, quietly)).instances == 1


async def test_after_a_compaction_all_is_where_the_new_packs_say(
    store: Store, house: House, cluster: Cluster
) -> None:
    series = Series()
    await store_files(store, house, *[series.file(number) for number in (1, 2, 3)])
    await seal(store, series)
    targets = [Target(series.study, series.uid, await uid_of(store, series, n)) for n in (1, 2)]
    for target in targets:
        await delete(store, WHO, "ARCHIVE", target, "blurred")
    (pack,) = store.blobs.directory.rglob("*.pack")
    store.settings = replace(store.settings, deleted_keep_days=0)
    async with store.database.transaction() as tx:
        first = await tx.value("SELECT min(deletion_id) FROM deletion")
    assert await compact_deletion(store, first) == 0
    await keep_connections(store)
    assert await drop_unreferenced(store, str(pack.relative_to(store.blobs.directory)))
    async with empty(cluster, store.settings) as again:
        rebuilt = await rebuild(again, WHO, quietly)
        assert (rebuilt.instances, rebuilt.deleted) == (1, 1)
        assert await undelete(again, WHO, "ARCHIVE", targets[0]) == Undone(0, 1)
        assert await undelete(again, WHO, "ARCHIVE", targets[1]) == Undone(1, 0)
        assert await stored(again, series) == [series.file(2), series.file(3)]


async def test_the_batch_size_changes_nothing(store: Store, house: House, cluster: Cluster) -> None:
    series = Series()
    await store_files(store, house, *[series.file(number) for number in range(1, 6)])
    async with empty(cluster, store.settings) as again:
        with mock.patch.object(rebuilding, "BATCH", 2):
            assert (await rebuild(again, WHO, quietly)).instances == 5
        assert await different(again, store) == []
