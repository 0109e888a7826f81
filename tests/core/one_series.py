"""One series of a test: stored, sealed and looked at as the core sees it."""

from dataclasses import dataclass, field

from tests.conftest import House
from tests.samples import ct_instance, part10_bytes
from tests.samples.images import new_uid

from bfr_core.access import operator
from bfr_core.errors import NotFound
from bfr_core.receiving import Reception
from bfr_core.registration_batch import Outcome
from bfr_core.retrieval import retrieve_instances
from bfr_core.sealing import seal_series
from bfr_core.store import Store

READER = operator("reader")


@dataclass
class Series:
    """A series of the test: its files by instance number, made when they are asked for."""

    study: str = field(default_factory=new_uid)
    uid: str = field(default_factory=new_uid)
    files: dict[int, bytes] = field(default_factory=dict)

    def file(self, number: int) -> bytes:
        if number not in self.files:
            self.files[number] = part10_bytes(
                ct_instance(
                    rows=8,
                    columns=8,
                    StudyInstanceUID=self.study,
                    SeriesInstanceUID=self.uid,
                    InstanceNumber=number,
                )
            )
        return self.files[number]


async def store_files(store: Store, house: House, *files: bytes) -> list[Outcome]:
    reception = Reception(store, house.node, house.archive, "C-STORE")
    try:
        received = []
        for data in files:
            incoming = reception.incoming_part10()
            incoming.write(data)
            received.append(incoming.finish())
        return await store.commit(received)
    finally:
        reception.close()


async def series_row(store: Store, series: Series) -> dict[str, object] | None:
    async with store.database.transaction() as tx:
        rows = await tx.rows(
            "SELECT series_id, state, number_of_instances, manifest_key, manifest_index_bytes"
            " FROM series WHERE series_instance_uid = %(uid)s",
            uid=series.uid,
        )
    return rows[0] if rows else None


async def seal(store: Store, series: Series) -> float:
    row = await series_row(store, series)
    assert row is not None
    return await seal_series(store, int(str(row["series_id"])))


async def stored(store: Store, series: Series) -> list[bytes]:
    try:
        found = await retrieve_instances(
            store, READER, "test", archive_id=None, study_instance_uid=series.study
        )
    except NotFound:
        return []
    return [store.blobs.read(one.stored.blob) for one in found]


async def places_of(store: Store, series: Series) -> list[str]:
    """Every place that an instance of the series is told in: rows, then the manifest."""
    row = await series_row(store, series)
    assert row is not None
    async with store.database.transaction() as tx:
        rows = await tx.tuples(
            "SELECT sop_instance_uid FROM instance WHERE series_id = %(series_id)s",
            series_id=row["series_id"],
        )
    places = [str(one[0]) for one in rows]
    if row["manifest_key"] is not None:
        index = await store.sealed.read_index(
            str(row["manifest_key"]), int(str(row["manifest_index_bytes"]))
        )
        places += [one.sop_instance_uid for one in index.instances]
    return places


async def check_whole(store: Store, series: Series, numbers: set[int]) -> None:
    """The series holds these instances, once each, in order, and says so."""
    assert await stored(store, series) == [series.file(number) for number in sorted(numbers)]
    places = await places_of(store, series)
    assert len(places) == len(set(places)) == len(numbers)
    row = await series_row(store, series)
    assert row is not None
    assert row["number_of_instances"] == len(numbers)


async def uid_of(store: Store, series: Series, number: int) -> str:
    found = await retrieve_instances(
        store, READER, "test", archive_id=None, study_instance_uid=series.study
    )
    return next(
        one.stored.sop_instance_uid for one in found if one.stored.instance_number == number
    )
