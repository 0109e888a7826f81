"""`bfr blobs heal` says what it looked at and did; its exit status tells whether all is whole."""

import asyncio
from pathlib import Path

import obstore
import pytest
from tests.command.commands import add_archive, bfr, done, write_files
from tests.core.spooled_site import PREFIX, with_buckets
from tests.object_storage import ObjectStorage
from tests.samples import ct_instance, part10_bytes

from bfr_core.bucket_address import read_bucket_address
from bfr_core.sealing import seal_series
from bfr_core.settings import Settings
from bfr_core.store import open_store


@pytest.fixture
def bucketed(settings: Settings, object_storage: ObjectStorage, tmp_path: Path) -> Settings:
    """A system with two empty buckets, in which two series are sealed."""
    bucketed = with_buckets(settings, object_storage)
    add_archive(bucketed)
    files = write_files(tmp_path / "in", *(part10_bytes(ct_instance()) for _ in range(2)))
    done(bfr(bucketed, "import", "--archive", "ARCHIVE", *files))
    asyncio.run(seal_all(bucketed))
    return bucketed


async def seal_all(settings: Settings) -> None:
    async with open_store(settings) as store:
        async with store.database.transaction() as tx:
            rows = await tx.tuples("SELECT series_id FROM series")
        for (series_id,) in rows:
            await seal_series(store, series_id)


def names(settings: Settings) -> list[str]:
    urls = (settings.bucket_url, settings.second_bucket_url)
    return [read_bucket_address(url).bucket for url in urls]


def test_everything_is_copied_and_then_nothing(
    bucketed: Settings, object_storage: ObjectStorage
) -> None:
    told = "2 series with 4 packs and manifests looked at:"
    assert done(bfr(bucketed, "blobs", "heal")).startswith(f"{told} 8 copies made (0.")
    near, far = map(object_storage.contents, names(bucketed))
    assert near == far
    assert len(near) == 4
    again = bfr(bucketed, "blobs", "heal", "--read")
    assert (again.status, again.out) == (0, f"{told} 0 copies made (0.0 MiB), 0 lost\n")
    assert "healing 2/2" in again.err


def test_what_is_lost_is_told_with_its_series(
    bucketed: Settings, object_storage: ObjectStorage
) -> None:
    done(bfr(bucketed, "blobs", "heal"))
    pack = next(path for path in bucketed.blobs_dir.rglob("*.pack"))
    key = str(pack.relative_to(bucketed.blobs_dir))
    pack.unlink()
    for name in names(bucketed):
        obstore.delete(object_storage.bucket(name), f"{PREFIX}/{key}")
    answer = bfr(bucketed, "blobs", "heal")
    assert answer.status == 1
    assert answer.out.endswith("0 copies made (0.0 MiB), 1 lost\n")
    (lost,) = (line for line in answer.err.splitlines() if line.startswith("lost: "))
    assert f"blob {key} is whole nowhere (the folder: missing; bucket near-" in lost


def test_a_bucket_that_is_away_is_one_sentence(
    bucketed: Settings, object_storage: ObjectStorage
) -> None:
    object_storage.stop()
    answer = bfr(bucketed, "blobs", "heal")
    assert answer.status == 1
    assert answer.err.splitlines()[-1].startswith("bfr: bucket near-")
    assert answer.err.splitlines()[-1].endswith("does not answer")
    object_storage.start()
    assert bfr(bucketed, "blobs", "heal").status == 0


def test_without_a_bucket_there_is_nothing_to_heal(settings: Settings) -> None:
    answer = bfr(settings, "blobs", "heal")
    assert (answer.status, answer.err) == (1, "bfr: there is no bucket: set BFR_BUCKET_URL\n")
