"""What is stored goes on to the buckets, is read back there, and only then may leave the disk."""

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import obstore
import pytest
from tests.conftest import add_house
from tests.core.one_series import Series, seal, store_files, stored
from tests.core.spooled_site import Site, sealed_series, with_buckets
from tests.object_storage import ObjectStorage
from tests.samples import ct_instance, part10_bytes

from bfr_core import jobs
from bfr_core.blobs import BlobReader, BlobRef, is_growing
from bfr_core.bulk_data import read_bulk_data
from bfr_core.errors import NotFound, Unavailable
from bfr_core.packs import read_pack
from bfr_core.rebuilding import CONNECTIONS_KEY
from bfr_core.receiving import Reception
from bfr_core.retrieval import retrieve_instances
from bfr_core.sealed import SealedSeries
from bfr_core.sealing import seal_series
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store
from bfr_core.uploading import spool_state, upload_spool


async def test_a_sealed_series_lies_in_both_buckets_byte_for_byte(site: Site) -> None:
    await sealed_series(site, 1, 2)
    assert site.contents(0) == site.contents(1) == {}
    assert await upload_spool(site.store) is None
    assert len(site.local()) == 2
    assert site.contents(0) == site.contents(1) == site.local()
    async with site.store.database.transaction() as tx:
        state = await spool_state(tx, site.blobs.addresses)
    assert (state.blobs, state.waiting) == (2, 0)


async def test_what_left_the_disk_is_read_from_the_bucket(site: Site) -> None:
    series = await sealed_series(site, 1, 2, 3)
    await upload_spool(site.store)
    await site.evict_all()
    assert site.local_keys() == []
    assert await stored(site.store, series) == [series.file(number) for number in (1, 2, 3)]
    async with site.store.database.transaction() as tx:
        assert (await spool_state(tx, site.blobs.addresses)).blobs == 0


@pytest.mark.parametrize("how", ["missing", "short"])
async def test_the_second_bucket_answers_for_the_first(site: Site, how: str) -> None:
    series = await sealed_series(site, 1, 2)
    await upload_spool(site.store)
    await site.evict_all()
    for key, data in site.contents(0).items():
        site.damage(0, key, None if how == "missing" else data[: len(data) // 2])
    assert await stored(site.store, series) == [series.file(1), series.file(2)]


async def test_what_no_bucket_has_is_unavailable_never_shorter(site: Site) -> None:
    series = await sealed_series(site, 1)
    await upload_spool(site.store)
    await site.evict_all()
    for number in (0, 1):
        for key, data in site.contents(number).items():
            if key.endswith(".pack"):
                site.damage(number, key, data[:-1] if number else None)
    with pytest.raises(Unavailable, match=r"cannot be read: bucket near.*; .*too short"):
        await stored(site.store, series)


async def test_nothing_leaves_the_disk_before_both_buckets_hold_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sealed_series(site, 1)

    def fails(key: str, content: object) -> None:
        raise Unavailable("the second data centre is away")

    with monkeypatch.context() as patched:
        patched.setattr(site.blobs.buckets[1], "put", fails)
        assert await upload_spool(site.store) == 10.0
    assert site.contents(0) == site.local()
    await site.evict_all()
    assert len(site.local_keys()) == 2
    assert await upload_spool(site.store) is None
    await site.evict_all()
    assert site.local_keys() == []


async def test_a_bucket_in_the_place_of_another_is_taken_for_an_empty_one(
    bucketed: Settings, object_storage: ObjectStorage
) -> None:
    async with open_store(bucketed) as store:
        site = Site(store, await add_house(store, "ARCHIVE", "MODALITY"), object_storage)
        await sealed_series(site, 1)
        await upload_spool(store)
    fresh = with_buckets(bucketed, object_storage)
    changed = replace(bucketed, second_bucket_url=fresh.second_bucket_url)
    async with open_store(changed) as store:
        site = Site(store, site.house, object_storage)
        await site.evict_all()
        assert len(site.local_keys()) == 2
        assert await upload_spool(store) is None
        assert site.contents(1) == site.contents(0) == site.local()
        await site.evict_all()
        assert site.local_keys() == []


async def test_what_comes_back_otherwise_is_not_counted_as_a_copy(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sealed_series(site, 1)
    put = obstore.put

    def puts_something_else(store: Any, key: str, content: Path, **options: Any) -> Any:
        data = bytearray(content.read_bytes())
        data[len(data) // 2] ^= 1
        return put(store, key, bytes(data), **options)

    with monkeypatch.context() as patched:
        patched.setattr(obstore, "put", puts_something_else)
        assert await upload_spool(site.store) is not None
    await site.evict_all()
    assert len(site.local_keys()) == 2


async def test_an_open_pack_waits_until_its_sender_has_ended(site: Site) -> None:
    series = Series()
    reception = Reception(site.store, site.house.node, site.house.archive, "C-STORE")
    for number in (1, 2):
        incoming = reception.incoming_part10()
        incoming.write(series.file(number))
        await site.store.commit([incoming.finish()])
        await seal(site.store, series)
        assert await upload_spool(site.store) is not None
        await site.evict_all()
        assert [key for key in site.contents(0) if key.endswith(".pack")] == []
        assert len([key for key in site.local_keys() if key.endswith(".pack")]) == 1
    reception.close()
    assert await upload_spool(site.store) is None
    await site.evict_all()
    assert site.local_keys() == []
    assert await stored(site.store, series) == [series.file(1), series.file(2)]


def test_a_sender_that_was_killed_keeps_no_pack_open(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "from bfr_core.blobs import FileBlobs\n"
        "from bfr_core.packs import Pack, digest_of\n"
        "pack = Pack(FileBlobs(Path(sys.argv[1]), 0), '1/a.pack', {})\n"
        "pack.append(b'x' * 9, 0, digest_of(b'x' * 9)); pack.sync()\n"
        "print('open', flush=True); sys.stdin.read()\n"
    )
    sender = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert sender.stdout is not None
    assert sender.stdout.readline() == b"open\n"
    assert is_growing(tmp_path / "1/a.pack")
    sender.kill()
    sender.communicate()
    assert not is_growing(tmp_path / "1/a.pack")


async def test_a_series_sealed_again_after_its_pack_left_the_disk(site: Site) -> None:
    series = await sealed_series(site, 1)
    await upload_spool(site.store)
    await site.evict_all()
    await store_files(site.store, site.house, series.file(2))
    assert await stored(site.store, series) == [series.file(1), series.file(2)]
    await seal(site.store, series)
    assert await upload_spool(site.store) is None
    await site.evict_all()
    assert site.local_keys() == []
    assert await stored(site.store, series) == [series.file(1), series.file(2)]


async def test_the_same_object_again_is_known_when_its_manifest_left_the_disk(site: Site) -> None:
    series = await sealed_series(site, 1)
    await upload_spool(site.store)
    await site.evict_all()
    (outcome,) = await store_files(site.store, site.house, series.file(1))
    assert outcome.stored == "identical"


async def test_an_object_whose_manifest_cannot_be_read_holds_up_no_other(site: Site) -> None:
    series = await sealed_series(site, 1)
    await upload_spool(site.store)
    await site.evict_all()
    for number in (0, 1):
        for key in site.contents(number):
            site.damage(number, key, None)
    site.store.registration._sealed = SealedSeries(site.store.blobs, cache_bytes=1)
    again, other = await store_files(site.store, site.house, series.file(1), Series().file(1))
    assert isinstance(again.error, Unavailable)
    assert other.stored == "new"


async def test_a_deleted_blob_goes_from_everywhere(site: Site) -> None:
    series = await sealed_series(site, 1)
    await upload_spool(site.store)
    await store_files(site.store, site.house, series.file(2))
    old = {key for key in site.local_keys() if key.endswith(".manifest")}
    await seal(site.store, series)
    async with site.store.database.transaction() as tx:
        await tx.run("UPDATE procrastinate_jobs SET scheduled_at = now()")
    await run_jobs(site.store)
    for keys in (site.local_keys(), site.contents(0), site.contents(1)):
        assert old.isdisjoint(keys)
        assert len([key for key in keys if key != CONNECTIONS_KEY]) == 3
    assert await stored(site.store, series) == [series.file(1), series.file(2)]


async def run_jobs(store: Store) -> None:
    """Run a worker until no job waits that is due."""
    stop = asyncio.Event()
    worker = asyncio.create_task(jobs.run_worker(store, stop))
    waiting = (
        "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
        " AND coalesce(scheduled_at, now()) <= now()"
    )
    try:
        async with asyncio.timeout(60):
            while True:
                async with store.database.transaction() as tx:
                    if not await tx.value(waiting):
                        break
                await asyncio.sleep(0.1)
    finally:
        stop.set()
        await worker


async def test_a_blob_deleted_while_it_is_uploaded_leaves_no_copy(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sealed_series(site, 1)
    put = site.blobs.buckets[0].put
    loop = asyncio.get_running_loop()

    async def delete_all() -> None:
        async with site.store.database.transaction() as tx:
            await tx.run("DELETE FROM spooled_blob")

    def put_and_delete(key: str, content: Path | bytes) -> None:
        put(key, content)
        asyncio.run_coroutine_threadsafe(delete_all(), loop).result()

    monkeypatch.setattr(site.blobs.buckets[0], "put", put_and_delete)
    await upload_spool(site.store)
    assert site.contents(0) == site.contents(1) == {}


async def test_sealing_defers_one_upload_however_many_series(site: Site) -> None:
    for _ in range(3):
        await sealed_series(site, 1)
    async with site.store.database.transaction() as tx:
        waiting = await tx.value(
            "SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'upload'"
        )
    assert waiting == 1
    await run_jobs(site.store)
    for number in (0, 1):
        assert len([key for key in site.contents(number) if key != CONNECTIONS_KEY]) == 6


async def test_a_full_spool_refuses_until_there_is_room(
    bucketed: Settings, object_storage: ObjectStorage
) -> None:
    settings = replace(bucketed, spool_max_bytes=2_900_000)
    async with open_store(settings) as store:
        site = Site(store, await add_house(store, "ARCHIVE", "MODALITY"), object_storage)
        series = Series()
        large = [
            part10_bytes(
                ct_instance(
                    rows=700, columns=700, StudyInstanceUID=series.study,
                    SeriesInstanceUID=series.uid, InstanceNumber=number,
                )
            )
            for number in range(1, 5)
        ]  # fmt: skip
        for data in large[:3]:
            await store_files(store, site.house, data)
        site.blobs._measure_again_at = 0.0
        with pytest.raises(Unavailable, match="the spool of the archive is full"):
            await store_files(store, site.house, large[3])
        assert await stored(store, series) == large[:3]
        await seal(store, series)
        await upload_spool(store)
        assert sum(map(len, site.local().values())) <= 0.8 * settings.spool_max_bytes
        assert [key.rpartition(".")[2] for key in site.local_keys()].count("manifest") == 1
        (outcome,) = await store_files(store, site.house, large[3])
        assert outcome.stored == "new"
        assert await stored(store, series) == large


async def test_a_series_takes_few_requests(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    series = await sealed_series(site, *range(1, 101))
    await upload_spool(site.store)
    await site.evict_all()
    found = await retrieve_instances(
        site.store, site.house.node, "test", archive_id=None, study_instance_uid=series.study
    )
    requests = []
    read_ranges = site.blobs.buckets[0].read_ranges

    def counted(key: str, ranges: Any) -> list[bytes]:
        requests.append(key)
        return read_ranges(key, ranges)

    monkeypatch.setattr(site.blobs.buckets[0], "read_ranges", counted)
    # Last first: the order of the pack is not always that of the series.
    wanted = [one.stored.blob for one in reversed(found)]
    reader = BlobReader(site.blobs, wanted)
    read = [reader.read(ref.key, ref.offset, ref.length) for ref in wanted]
    reader.close()
    assert read == [series.file(number) for number in range(100, 0, -1)]
    assert len(requests) == 1


async def test_a_pack_tells_of_its_instances_from_the_bucket(site: Site) -> None:
    series = await sealed_series(site, 1, 2)
    key = site.local_pack()
    local = list(read_pack(site.blobs, key))
    await upload_spool(site.store)
    for bucket in site.blobs.buckets:
        assert list(read_pack(bucket, key)) == local
    await site.evict_all()
    assert list(read_pack(site.blobs, key)) == local
    assert [site.blobs.read(record.ref) for record in local] == [series.file(1), series.file(2)]


async def test_keys_are_told_once_wherever_they_lie(site: Site) -> None:
    await sealed_series(site, 1)
    await upload_spool(site.store)
    gone = dict(site.local())
    await site.evict_all()
    await sealed_series(site, 1)
    everything = gone | site.local()
    assert dict(site.blobs.keys()) == {key: len(data) for key, data in everything.items()}
    assert [key for key, _ in site.blobs.keys()] == sorted(everything)


async def test_bulk_data_of_what_left_the_disk(site: Site) -> None:
    profile = bytes(range(250)) * 8
    dataset = ct_instance(rows=8, columns=8, ICCProfile=profile)
    await store_files(site.store, site.house, part10_bytes(dataset))
    async with site.store.database.transaction() as tx:
        series_id = await tx.value("SELECT series_id FROM series")
    await seal_series(site.store, series_id)
    await upload_spool(site.store)
    await site.evict_all()
    (found,) = await retrieve_instances(
        site.store, site.house.node, "test", archive_id=None,
        study_instance_uid=str(dataset.StudyInstanceUID),
    )  # fmt: skip
    value = await asyncio.to_thread(read_bulk_data, site.store, found.stored, "00282000")
    assert value == profile


async def test_a_blob_that_is_nowhere_is_not_found(site: Site) -> None:
    with pytest.raises(NotFound):
        site.blobs.size_bytes("1/none.pack")
    with pytest.raises(Unavailable, match="cannot be read"):
        site.blobs.read(BlobRef("1/none.pack", 0, 1))
