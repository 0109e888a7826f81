"""Whatever is missing or damaged in a bucket comes back from a good copy."""

from dataclasses import replace

import pytest
from tests.conftest import add_house
from tests.core.one_series import Series, seal, store_files, stored
from tests.core.spooled_site import Site, sealed_series
from tests.object_storage import ObjectStorage
from tests.samples import part10_bytes
from tests.samples.non_patient import hanging_protocol

from bfr_core.errors import Unavailable
from bfr_core.healing import Healed, heal
from bfr_core.receiving import Reception
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store
from bfr_core.uploading import upload_spool


async def healed(store: Store, *, read: bool = False, after: int = 0) -> Healed:
    result = Healed(after=after)
    await heal(store, result, read=read, tell=lambda so_far: None)
    return result


@pytest.mark.parametrize("at_home", [True, False])
@pytest.mark.parametrize("bucket", [0, 1])
@pytest.mark.parametrize("how", ["missing", "short", "flipped"])
async def test_healing_makes_both_buckets_whole_again(
    site: Site, bucket: int, how: str, at_home: bool
) -> None:
    for _ in range(2):
        await sealed_series(site, 1, 2)
    await upload_spool(site.store)
    whole = site.contents(0)
    if not at_home:
        await site.evict_all()
    for key, data in whole.items():
        flipped = bytearray(data)
        flipped[-20] ^= 4
        damaged = {"missing": None, "short": data[:-1], "flipped": bytes(flipped)}
        site.damage(bucket, key, damaged[how])
    result = await healed(site.store, read=how == "flipped")
    assert (result.copied, result.lost) == (4, [])
    assert site.contents(0) == site.contents(1) == whole
    again = await healed(site.store, read=True)
    assert (again.series, again.blobs, again.copied, again.lost) == (2, 4, 0, [])


async def test_each_bucket_heals_what_the_other_lacks(site: Site) -> None:
    await sealed_series(site, 1)
    await upload_spool(site.store)
    await site.evict_all()
    whole = site.contents(0)
    first, second = whole
    site.damage(0, first, None)
    site.damage(1, second, None)
    assert (await healed(site.store)).copied == 2
    assert site.contents(0) == site.contents(1) == whole


async def test_a_file_that_was_damaged_on_the_disk_gives_way_to_a_good_copy(site: Site) -> None:
    series = await sealed_series(site, 1)
    await upload_spool(site.store)
    key = site.local_pack()
    data = bytearray(site.local()[key])
    data[-20] ^= 4
    site.blobs.path(key).write_bytes(data)
    result = await healed(site.store, read=True)
    assert (result.copied, result.lost) == (0, [])
    assert key not in site.local_keys()
    assert await stored(site.store, series) == [series.file(1)]


async def test_what_is_whole_nowhere_is_told_and_the_rest_is_healed(site: Site) -> None:
    lost = await sealed_series(site, 1)
    key = site.local_pack()
    kept = await sealed_series(site, 1)
    await upload_spool(site.store)
    await site.evict_all()
    site.damage(0, key, None)
    site.damage(1, key, site.contents(1)[key][:-1])
    for other in site.contents(0):
        site.damage(0, other, None)
    result = await healed(site.store)
    (sentence,) = result.lost
    assert sentence.startswith(f"series {lost.uid}: blob {key} is whole nowhere")
    assert result.copied == 3
    assert await stored(site.store, kept) == [kept.file(1)]


async def test_healing_takes_up_what_was_stored_before_there_was_a_bucket(
    bucketed: Settings, object_storage: ObjectStorage
) -> None:
    async with open_store(replace(bucketed, bucket_url="", second_bucket_url="")) as store:
        house = await add_house(store, "ARCHIVE", "MODALITY")
        series = Series()
        await store_files(store, house, series.file(1))
        await seal(store, series)
    async with open_store(bucketed) as store:
        site = Site(store, house, object_storage)
        assert (await healed(store)).copied == 4
        assert site.contents(0) == site.contents(1) == site.local()
        await site.evict_all()
        assert site.local_keys() == []
        assert await stored(store, series) == [series.file(1)]


async def test_healing_goes_on_after_a_series(site: Site) -> None:
    for _ in range(2):
        await sealed_series(site, 1)
    first = await healed(site.store)
    assert first.series == 2
    assert (await healed(site.store, after=first.after - 1)).series == 1
    assert (await healed(site.store, after=first.after)).series == 0


async def test_a_bucket_that_is_away_ends_the_healing_and_damages_nothing(site: Site) -> None:
    await sealed_series(site, 1)
    await upload_spool(site.store)
    site.storage.stop()
    with pytest.raises(Unavailable):
        await healed(site.store, read=True)
    site.storage.start()
    assert site.contents(0) == site.contents(1) == site.local()


async def test_what_belongs_to_no_patient_is_in_every_bucket_too(site: Site) -> None:
    reception = Reception(
        site.store, site.house.node, site.house.archive, "C-STORE", takes_non_patient=True
    )
    incoming = reception.incoming_part10()
    incoming.write(part10_bytes(hanging_protocol()))
    await site.store.commit([incoming.finish()])
    reception.close()
    await upload_spool(site.store)
    whole = site.contents(0)
    (key,) = whole
    assert site.contents(1) == whole
    await site.evict_all()
    site.damage(1, key, None)
    assert (await healed(site.store, read=True)).copied == 1
    assert site.contents(1) == whole
    for bucket in (0, 1):
        site.damage(bucket, key, None)
    (lost,) = (await healed(site.store)).lost
    assert key in lost
