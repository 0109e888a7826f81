"""Deletion: at once in no answer, refused when it comes again, undone whole, bytes gone later."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from unittest import mock

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.conftest import House, add_house
from tests.core.one_series import Series, seal, series_row, store_files, stored, uid_of

from bfr_core import statistics
from bfr_core.access import operator
from bfr_core.compacting import compact_deletion
from bfr_core.deleting import delete
from bfr_core.errors import Conflict, Denied, Invalid, NotFound, Unavailable
from bfr_core.packs import read_pack, read_provenance
from bfr_core.placing import DeletedObject
from bfr_core.receiving import Reception
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store
from bfr_core.sweeping import drop_unreferenced, sweep_all
from bfr_core.tombstones import Target
from bfr_core.undeleting import Undone, restore_undone, undelete

WHO = operator("the operator")


@pytest.fixture
async def hasty(with_settings: Callable[..., Settings]) -> AsyncIterator[Store]:
    """A store that keeps the bytes of deleted objects no day."""
    async with open_store(with_settings(deleted_keep_days=0)) as store:
        yield store


async def counts(store: Store) -> tuple[int, ...]:
    """Patients, studies, series, instances and bytes of all archives."""
    async with store.database.transaction() as tx:
        told = await statistics.archive_contents(tx)
    return tuple(
        sum(values)
        for values in zip(
            *[
                (one.patients, one.studies, one.series, one.instances, one.size_bytes)
                for one in told
            ],
            strict=True,
        )
    )


async def compact(store: Store) -> None:
    async with store.database.transaction() as tx:
        rows = await tx.tuples("SELECT deletion_id FROM deletion")
    for (deletion_id,) in rows:
        await compact_deletion(store, deletion_id)


async def drop_packs(store: Store) -> None:
    """Delete the packs that wait for it, as if their hour had passed."""
    async with store.database.transaction() as tx:
        rows = await tx.tuples(
            "DELETE FROM procrastinate_jobs WHERE task_name = 'drop_pack' RETURNING args->>'key'"
        )
    for (key,) in rows:
        await drop_unreferenced(store, key)


def bytes_in_packs(store: Store) -> bytes:
    return b"".join(path.read_bytes() for path in store.blobs.directory.rglob("*.pack"))


@pytest.mark.parametrize("sealed", [False, True])
async def test_a_deleted_study_is_in_no_answer_and_comes_back_whole(
    store: Store, house: House, sealed: bool
) -> None:
    series = Series()
    await store_files(store, house, series.file(1), series.file(2))
    if sealed:
        await seal(store, series)
    before = await counts(store)
    assert await delete(store, WHO, "ARCHIVE", Target(series.study), "wrong patient") == 2
    assert await stored(store, series) == []
    assert await counts(store) == (0, 0, 0, 0, 0)
    assert await undelete(store, WHO, "ARCHIVE", Target(series.study)) == Undone(2, 0)
    assert await stored(store, series) == [series.file(1), series.file(2)]
    assert await counts(store) == before


@pytest.mark.parametrize("sealed", [False, True])
async def test_a_deleted_instance_leaves_the_rest(store: Store, house: House, sealed: bool) -> None:
    series = Series()
    await store_files(store, house, series.file(1), series.file(2), series.file(3))
    if sealed:
        await seal(store, series)
    target = Target(series.study, series.uid, await uid_of(store, series, 2))
    assert await delete(store, WHO, "ARCHIVE", target, "blurred") == 1
    assert await stored(store, series) == [series.file(1), series.file(3)]
    sizes = len(series.file(1)) + len(series.file(3))
    assert await counts(store) == (1, 1, 1, 2, sizes)
    assert await undelete(store, WHO, "ARCHIVE", target) == Undone(1, 0)
    assert await stored(store, series) == [series.file(number) for number in (1, 2, 3)]
    while await seal(store, series):
        pass
    assert await stored(store, series) == [series.file(number) for number in (1, 2, 3)]


async def test_what_was_deleted_is_refused_when_it_comes_again(store: Store, house: House) -> None:
    series = Series()
    await store_files(store, house, series.file(1), series.file(2))
    target = Target(series.study, series.uid, await uid_of(store, series, 1))
    await delete(store, WHO, "ARCHIVE", target, "blurred")
    refused, known, late = await store_files(
        store, house, series.file(1), series.file(2), series.file(3)
    )
    assert isinstance(refused.error, DeletedObject)
    assert (known.stored, late.stored) == ("identical", "new")
    await delete(store, WHO, "ARCHIVE", Target(series.study), "wrong patient")
    for outcome in await store_files(store, house, series.file(2), series.file(4)):
        assert isinstance(outcome.error, DeletedObject)
    assert await stored(store, series) == []


async def test_an_archive_does_not_know_of_the_deletions_of_another(
    store: Store, house: House
) -> None:
    other = await add_house(store, "OTHER", "ELSEWHERE")
    series = Series()
    await store_files(store, house, series.file(1))
    await delete(store, WHO, "ARCHIVE", Target(series.study), "wrong archive")
    (outcome,) = await store_files(store, other, series.file(1))
    assert outcome.stored == "new"
    with pytest.raises(NotFound):
        await undelete(store, WHO, "OTHER", Target(series.study))


async def test_only_operators_delete_and_only_with_a_reason(store: Store, house: House) -> None:
    series = Series()
    await store_files(store, house, series.file(1))
    with pytest.raises(Denied):
        await delete(store, house.node, "ARCHIVE", Target(series.study), "because")
    with pytest.raises(Invalid, match="reason"):
        await delete(store, WHO, "ARCHIVE", Target(series.study), "  ")
    for target in (
        Target("1.2.3"),
        Target(series.study, "1.2"),
        Target(series.study, series.uid, "1"),
    ):
        with pytest.raises(NotFound):
            await delete(store, WHO, "ARCHIVE", target, "because")
    with pytest.raises(NotFound):
        await undelete(store, WHO, "ARCHIVE", Target(series.study))
    assert await stored(store, series) == [series.file(1)]


async def test_deletion_and_its_undoing_are_on_record(store: Store, house: House) -> None:
    series = Series()
    await store_files(store, house, series.file(1))
    await delete(store, WHO, "ARCHIVE", Target(series.study), "wrong patient")
    await undelete(store, WHO, "ARCHIVE", Target(series.study))
    async with store.database.transaction() as tx:
        rows = await tx.tuples(
            "SELECT action, caller, study_instance_uid, detail->>'reason' FROM audit_record"
            " WHERE action IN ('delete', 'undelete') ORDER BY recorded_at"
        )
    assert rows == [
        ("delete", "the operator", series.study, "wrong patient"),
        ("undelete", "the operator", series.study, None),
    ]


async def test_an_instance_that_arrives_meanwhile_is_deleted_with_its_study(
    store: Store, house: House
) -> None:
    series = Series()
    await store_files(store, house, series.file(1))
    put = store.blobs.put
    late = [series.file(2)]

    def put_and_store(key: str, data: bytes) -> None:
        put(key, data)
        if late:
            asyncio.run_coroutine_threadsafe(store_files(store, house, late.pop()), loop).result()

    loop = asyncio.get_running_loop()
    with mock.patch.object(store.blobs, "put", put_and_store):
        assert await delete(store, WHO, "ARCHIVE", Target(series.study), "because") == 2
    assert await stored(store, series) == []
    assert len(list(store.blobs.directory.rglob("*.deletion"))) == 1


async def test_compaction_takes_the_bytes_and_leaves_the_rest_as_it_was(
    hasty: Store,
) -> None:
    house = await add_house(hasty, "ARCHIVE", "MODALITY")
    series = Series()
    await store_files(hasty, house, series.file(1), series.file(2), series.file(3))
    await seal(hasty, series)
    (old,) = hasty.blobs.directory.rglob("*.pack")
    told = [record.received_at for record in read_pack(hasty.blobs, _key(hasty, old))]
    target = Target(series.study, series.uid, await uid_of(hasty, series, 2))
    await delete(hasty, WHO, "ARCHIVE", target, "blurred")
    await compact(hasty)
    assert old.exists()  # somebody may be reading it
    await drop_packs(hasty)
    assert not old.exists()
    (new,) = hasty.blobs.directory.rglob("*.pack")
    assert series.file(2) not in bytes_in_packs(hasty)
    records = list(read_pack(hasty.blobs, _key(hasty, new)))
    assert [record.received_at for record in records] == [told[0], told[2]]
    assert read_provenance(hasty.blobs, _key(hasty, new)) == {
        "archive": "ARCHIVE", "door": "C-STORE", "sender": "MODALITY",
    }  # fmt: skip
    assert await stored(hasty, series) == [series.file(1), series.file(3)]
    async with hasty.database.transaction() as tx:
        assert await tx.value("SELECT purged_at IS NOT NULL FROM deletion")
    # The bytes are gone: undoing lets the object in again.
    assert await undelete(hasty, WHO, "ARCHIVE", target) == Undone(0, 1)
    (outcome,) = await store_files(hasty, house, series.file(2))
    assert outcome.stored == "new"


async def test_compaction_keeps_what_another_deletion_may_bring_back(
    hasty: Store, with_settings: Callable[..., Settings]
) -> None:
    house = await add_house(hasty, "ARCHIVE", "MODALITY")
    series = Series()
    await store_files(hasty, house, *[series.file(number) for number in (1, 2, 3)])
    await seal(hasty, series)
    targets = [
        Target(series.study, series.uid, await uid_of(hasty, series, number)) for number in (1, 2)
    ]
    for target in targets:
        await delete(hasty, WHO, "ARCHIVE", target, "blurred")
    async with hasty.database.transaction() as tx:
        first = await tx.value("SELECT min(deletion_id) FROM deletion")
    assert await compact_deletion(hasty, first) == 0
    await drop_packs(hasty)
    assert series.file(1) not in bytes_in_packs(hasty)
    assert await undelete(hasty, WHO, "ARCHIVE", targets[1]) == Undone(1, 0)
    assert await stored(hasty, series) == [series.file(2), series.file(3)]


async def test_bytes_stay_until_their_days_have_passed(store: Store, house: House) -> None:
    series = Series()
    await store_files(store, house, series.file(1))
    await delete(store, WHO, "ARCHIVE", Target(series.study), "because")
    async with store.database.transaction() as tx:
        deletion_id = await tx.value("SELECT deletion_id FROM deletion")
    assert await compact_deletion(store, deletion_id) > 3650 * 24 * 3600
    assert series.file(1) in bytes_in_packs(store)


async def test_a_pack_that_a_sender_holds_open_is_not_compacted(hasty: Store) -> None:
    house = await add_house(hasty, "ARCHIVE", "MODALITY")
    series = Series()
    reception = Reception(hasty, house.node, house.archive, "C-STORE")
    for number in (1, 2):
        incoming = reception.incoming_part10()
        incoming.write(series.file(number))
        await hasty.commit([incoming.finish()])
    await seal(hasty, series)
    target = Target(series.study, series.uid, await uid_of(hasty, series, 1))
    await delete(hasty, WHO, "ARCHIVE", target, "blurred")
    async with hasty.database.transaction() as tx:
        deletion_id = await tx.value("SELECT deletion_id FROM deletion")
    assert await compact_deletion(hasty, deletion_id) > 0
    late = reception.incoming_part10()
    late.write(series.file(3))
    await hasty.commit([late.finish()])
    reception.close()
    while await seal(hasty, series):
        pass
    assert await compact_deletion(hasty, deletion_id) == 0
    await drop_packs(hasty)
    assert await stored(hasty, series) == [series.file(2), series.file(3)]


async def test_nothing_is_compacted_from_a_damaged_pack(hasty: Store) -> None:
    house = await add_house(hasty, "ARCHIVE", "MODALITY")
    series = Series()
    await store_files(hasty, house, series.file(1), series.file(2))
    await seal(hasty, series)
    target = Target(series.study, series.uid, await uid_of(hasty, series, 1))
    await delete(hasty, WHO, "ARCHIVE", target, "blurred")
    (pack,) = hasty.blobs.directory.rglob("*.pack")
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(data)
    async with hasty.database.transaction() as tx:
        deletion_id = await tx.value("SELECT deletion_id FROM deletion")
    with pytest.raises(Unavailable, match="damaged"):
        await compact_deletion(hasty, deletion_id)
    assert list(hasty.blobs.directory.rglob("*.pack")) == [pack]


def _key(store: Store, path: Path) -> str:
    return str(path.relative_to(store.blobs.directory))


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("writes", range(3))
async def test_killed_at_any_step_a_deletion_is_whole_or_not_at_all(
    hasty: Store, writes: int
) -> None:
    """`writes` blobs are written before the kill; what they leave is swept away."""
    house = await add_house(hasty, "ARCHIVE", "MODALITY")
    series = Series()
    await store_files(hasty, house, series.file(1), series.file(2))
    await seal(hasty, series)
    target = Target(series.study, series.uid, await uid_of(hasty, series, 1))
    left = itertools.count(writes, -1)
    put = hasty.blobs.put

    def put_until(key: str, data: bytes) -> None:
        if next(left) == 0:
            raise Unavailable("killed")
        put(key, data)

    with mock.patch.object(hasty.blobs, "put", put_until):
        if writes < 2:  # tombstone, manifest
            with pytest.raises(Unavailable):
                await delete(hasty, WHO, "ARCHIVE", target, "blurred")
        else:
            await delete(hasty, WHO, "ARCHIVE", target, "blurred")
    expected = [series.file(1), series.file(2)] if writes < 2 else [series.file(2)]
    assert await stored(hasty, series) == expected
    age_blobs(hasty)
    await sweep_all(hasty)
    assert len(list(hasty.blobs.directory.rglob("*.deletion"))) == (1 if writes == 2 else 0)
    assert await stored(hasty, series) == expected


def age_blobs(store: Store) -> None:
    """Make every blob as old as a sweep wants it."""
    for path in store.blobs.directory.rglob("*.*"):
        os.utime(path, (0, 0))


async def test_killed_at_its_commit_a_compaction_begins_again(hasty: Store) -> None:
    house = await add_house(hasty, "ARCHIVE", "MODALITY")
    series = Series()
    await store_files(hasty, house, series.file(1), series.file(2))
    await seal(hasty, series)
    target = Target(series.study, series.uid, await uid_of(hasty, series, 1))
    await delete(hasty, WHO, "ARCHIVE", target, "blurred")
    async with hasty.database.transaction() as tx:
        deletion_id = await tx.value("SELECT deletion_id FROM deletion")
    with (
        mock.patch("bfr_core.jobs.defer_drop_pack", side_effect=Killed),
        pytest.raises(Killed),
    ):
        await compact_deletion(hasty, deletion_id)
    assert await stored(hasty, series) == [series.file(2)]
    assert len(list(hasty.blobs.directory.rglob("*.pack"))) == 2
    assert await compact_deletion(hasty, deletion_id) == 0
    await drop_packs(hasty)
    age_blobs(hasty)
    await sweep_all(hasty)
    assert len(list(hasty.blobs.directory.rglob("*.pack"))) == 1
    assert await stored(hasty, series) == [series.file(2)]


async def test_an_undoing_that_was_killed_is_ended_by_its_job(store: Store, house: House) -> None:
    series = Series()
    await store_files(store, house, series.file(1), series.file(2))
    await delete(store, WHO, "ARCHIVE", Target(series.study), "because")
    with mock.patch.object(store, "commit", side_effect=Killed), pytest.raises(Killed):
        await undelete(store, WHO, "ARCHIVE", Target(series.study))
    age_blobs(store)
    await sweep_all(store)  # which must not take the packs meanwhile
    async with store.database.transaction() as tx:
        deletion_id = await tx.value(
            "SELECT (args->>'deletion_id')::bigint FROM procrastinate_jobs"
            " WHERE task_name = 'restore'"
        )
    assert await restore_undone(store, deletion_id) == Undone(2, 0)
    assert await restore_undone(store, deletion_id) == Undone(0, 0)
    assert await stored(store, series) == [series.file(1), series.file(2)]


async def test_what_is_deleted_while_an_undoing_is_unfinished_stays_deleted(
    store: Store, house: House
) -> None:
    series = Series()
    await store_files(store, house, series.file(1))
    await delete(store, WHO, "ARCHIVE", Target(series.study), "because")
    with (
        mock.patch("bfr_core.undeleting.FORGET", "SELECT killed"),
        pytest.raises(psycopg.errors.UndefinedColumn),
    ):
        await undelete(store, WHO, "ARCHIVE", Target(series.study))
    assert await stored(store, series) == [series.file(1)]
    await delete(store, WHO, "ARCHIVE", Target(series.study), "because")
    async with store.database.transaction() as tx:
        first = await tx.value("SELECT min(deletion_id) FROM deletion")
    assert await restore_undone(store, first) == Undone(0, 0)
    assert await stored(store, series) == []
    assert await undelete(store, WHO, "ARCHIVE", Target(series.study)) == Undone(1, 0)
    assert await stored(store, series) == [series.file(1)]


NUMBERS = st.integers(1, 4)
STEPS = st.one_of(
    st.tuples(st.just("store"), NUMBERS),
    st.tuples(st.just("delete"), NUMBERS),
    st.tuples(st.just("undelete"), NUMBERS),
    st.tuples(
        st.sampled_from(["seal", "delete_study", "undelete_study", "compact", "sweep"]), st.just(0)
    ),
)
titles = itertools.count()


class Model:
    """What the archive must hold: a few sets, by instance number."""

    def __init__(self) -> None:
        self.alive: set[int] = set()
        self.buried: dict[int, str] = {}  # number → UID, one by one
        self.study: set[int] | None = None  # buried with the study
        self.gone: set[int] = set()  # buried, and the bytes are gone


@given(plan=st.lists(STEPS, min_size=1, max_size=12))
@hypothesis_settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_any_order_of_storing_sealing_deleting_undoing_and_compacting(
    hasty: Store, plan: list[tuple[str, int]]
) -> None:
    archive = f"D{next(titles)}"
    house = await add_house(hasty, archive, "MODALITY")
    series, model = Series(), Model()
    for kind, number in plan:
        await step(hasty, house, archive, series, model, kind, number)
        expected = [series.file(one) for one in sorted(model.alive)]
        assert await stored(hasty, series) == expected
        row = await series_row(hasty, series)
        assert (row["number_of_instances"] if row else 0) == len(model.alive)
    while model.alive and await seal(hasty, series):
        pass
    assert await stored(hasty, series) == [series.file(one) for one in sorted(model.alive)]


async def step(
    store: Store, house: House, archive: str, series: Series, model: Model, kind: str, number: int
) -> None:
    """Take the step in the archive and in the model, which must agree on how it ends."""
    study = Target(series.study)
    if kind == "store":
        (outcome,) = await store_files(store, house, series.file(number))
        if model.study is not None or number in model.buried:
            assert isinstance(outcome.error, DeletedObject)
        else:
            assert outcome.stored == ("identical" if number in model.alive else "new")
            model.alive.add(number)
    elif kind == "seal" and model.alive:
        await seal(store, series)
    elif kind == "delete" and number in model.alive:
        uid = await uid_of(store, series, number)
        assert await delete(store, WHO, archive, Target(series.study, series.uid, uid), "one") == 1
        model.alive.remove(number)
        model.buried[number] = uid
    elif kind == "undelete" and number in model.buried:
        target = Target(series.study, series.uid, model.buried[number])
        if model.study is not None:
            with pytest.raises(Conflict, match="undo that first"):
                await undelete(store, WHO, archive, target)
            return
        undone = await undelete(store, WHO, archive, target)
        del model.buried[number]
        assert undone == (Undone(0, 1) if number in model.gone else Undone(1, 0))
        if number not in model.gone:
            model.alive.add(number)
        model.gone.discard(number)
    elif kind == "delete_study" and model.alive:
        assert await delete(store, WHO, archive, study, "all") == len(model.alive)
        model.study, model.alive = model.alive, set()
    elif kind == "undelete_study" and model.study is not None:
        gone = model.study & model.gone
        undone = await undelete(store, WHO, archive, study)
        assert undone == Undone(len(model.study - gone), len(gone))
        model.alive, model.gone, model.study = model.study - gone, model.gone - gone, None
    elif kind == "compact":
        while model.alive and await seal(store, series):
            pass
        await compact(store)
        await drop_packs(store)
        model.gone |= set(model.buried) | (model.study or set())
    elif kind == "sweep":
        age_blobs(store)
        await sweep_all(store)
