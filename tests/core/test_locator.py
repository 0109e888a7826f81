"""The locator: every sealed instance is found by its UID alone, whatever its UID looks like."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.conftest import House
from tests.core.one_series import Series as SampleSeries
from tests.core.one_series import seal, series_row, store_files
from tests.samples import ct_instance, part10_bytes
from tests.samples.images import new_uid

from bfr_core import events, locator
from bfr_core.database import Transaction
from bfr_core.registration_batch import DuplicateUid, Outcome
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store

ADD_STUDY = """
    WITH one AS (
        INSERT INTO patient (archive_id, patient_identifier, issuer, name, name_normalised, sex)
        VALUES (%(archive_id)s, '', '', '', '', '') RETURNING patient_id)
    INSERT INTO study (archive_id, patient_id, study_instance_uid, timezone_offset,
        accession_number, study_identifier, description, referring_physician,
        referring_physician_normalised, institution, modalities, body_parts)
    SELECT %(archive_id)s, patient_id, %(uid)s, '', '', '', '', '', '', '', '{}', '{}' FROM one
    RETURNING study_id
"""
ADD_SERIES = """
    INSERT INTO series (study_id, archive_id, series_instance_uid, modality, description,
        body_part, state, manifest_key, manifest_index_bytes, locator_key, locator_keys)
    VALUES (%(study_id)s, %(archive_id)s, %(uid)s, 'CT', '', '', 'sealed', 'a', 1, %(key)s,
        %(keys)s)
    RETURNING series_id
"""
SOME_ROOT = "1.2.752.999.107.5.1.4.7310"


async def add_sealed(tx: Transaction, archive_id: int, uids: list[str]) -> tuple[int, int]:
    """Add a series in a study of its own; return its row and how many keys it took."""
    study_id = await tx.value(ADD_STUDY, archive_id=archive_id, uid=new_uid())
    keys = await locator.series_keys(tx, archive_id, study_id, uids)
    series_id = await tx.value(
        ADD_SERIES,
        study_id=study_id,
        archive_id=archive_id,
        uid=new_uid(),
        key=keys[0] if len(keys) == 1 else None,
        keys=keys if len(keys) > 1 else None,
    )
    return series_id, len(keys)


async def candidates(tx: Transaction, uid: str) -> set[int]:
    return {place.series_id for place in await locator.find_sealed(tx, [uid])}


digits = st.text("0123456789", min_size=1, max_size=30)
roots = st.sampled_from(["1.2", "2.25", SOME_ROOT, f"{SOME_ROOT}.30000018012308"])
uids = st.builds(lambda root, digits: f"{root}.{digits}", roots, digits)
uid_lists = st.lists(uids, min_size=1, max_size=12, unique=True)


@given(lists=st.lists(uid_lists, min_size=1, max_size=8))
@hypothesis_settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_every_instance_is_found_whatever_its_uid(
    store: Store, house: House, lists: list[list[str]]
) -> None:
    async with store.database.transaction() as tx:
        added = [
            (uids, (await add_sealed(tx, house.archive.archive_id, uids))[0]) for uids in lists
        ]
        for uids, series_id in added:
            for uid in uids:
                assert series_id in await candidates(tx, uid)


async def test_a_series_numbered_by_its_modality_takes_one_key(store: Store, house: House) -> None:
    async with store.database.transaction() as tx:
        for series in range(20):
            uids = [f"{SOME_ROOT}.2018012309{series:02}.{number}" for number in range(1, 1200)]
            series_id, keys = await add_sealed(tx, house.archive.archive_id, uids)
            assert keys == 1
            assert await candidates(tx, uids[700]) == {series_id}


async def test_a_beginning_that_many_studies_share_leads_to_few_of_them(
    store: Store, house: House
) -> None:
    """UIDs by chance have only their maker's root in common."""
    async with store.database.transaction() as tx:
        last = [0, 0]
        for series in range(40):
            uids = [f"{SOME_ROOT}.{hash_digits(series, number)}" for number in range(30)]
            last = [*await add_sealed(tx, house.archive.archive_id, uids)]
        series_id, keys = last
        assert keys == len(uids)
        for uid in uids:
            found = await candidates(tx, uid)
            assert series_id in found
            # The sealed first keep what they took when it was free: a bound, not one a series.
            assert len(found) <= 1 + (locator.SHARED_MAX + 1) * (locator.SPLITS_MAX + 1)


async def test_the_series_of_one_study_may_begin_alike(store: Store, house: House) -> None:
    async with store.database.transaction() as tx:
        study_id = await tx.value(ADD_STUDY, archive_id=house.archive.archive_id, uid=new_uid())
        for series in range(6):
            uids = [f"{SOME_ROOT}.20180123.{number}" for number in range(series, 1200, 6)]
            keys = await locator.series_keys(tx, house.archive.archive_id, study_id, uids)
            assert keys == [locator.key_of(f"{SOME_ROOT}.20180123.")]
            await tx.value(
                ADD_SERIES,
                study_id=study_id,
                archive_id=house.archive.archive_id,
                uid=new_uid(),
                key=keys[0],
                keys=None,
            )


async def test_one_instance_of_another_maker_costs_one_more_key(store: Store, house: House) -> None:
    async with store.database.transaction() as tx:
        uids = [f"{SOME_ROOT}.20180123.{number}" for number in range(500)]
        _, keys = await add_sealed(tx, house.archive.archive_id, [*uids, "2.25.12345"])
        assert keys == 2


@pytest.fixture
async def second_store(settings: Settings, store: Store) -> AsyncIterator[Store]:
    """The same archive, opened by another process."""
    async with open_store(settings) as opened:
        yield opened


async def test_a_uid_sent_in_another_series_is_refused_while_its_own_is_being_sealed(
    store: Store, second_store: Store, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are deleted and the manifest is not there yet for all: nobody slips through."""
    first, other = SampleSeries(), SampleSeries()
    dataset = ct_instance(
        rows=8, columns=8, StudyInstanceUID=first.study, SeriesInstanceUID=first.uid
    )
    first.files[1] = part10_bytes(dataset)
    dataset.SeriesInstanceUID = other.uid
    dataset.StudyInstanceUID = other.study
    other.files[1] = part10_bytes(dataset)
    await store_files(store, house, first.file(1))
    await store_files(second_store, house, other.file(2))  # its place is known from here on
    write = events.write
    sent: list[asyncio.Task[list[Outcome]]] = []

    async def write_late(tx: Transaction, kind: str, **about: object) -> None:
        if kind == "series_sealed" and not sent:
            sent.append(asyncio.create_task(store_files(second_store, house, other.file(1))))
            # Only the database knows of the wait.
            while not sent[0].done() and not await is_waiting(second_store):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await write(tx, kind, **about)  # type: ignore[arg-type]

    monkeypatch.setattr(events, "write", write_late)
    assert await seal(store, first) == 0
    (outcome,) = await sent[0]
    assert isinstance(outcome.error, DuplicateUid)
    row = await series_row(store, other)
    assert row is not None
    assert row["number_of_instances"] == 1


async def test_a_uid_sent_again_in_another_series_of_the_study_is_refused(
    store: Store, house: House
) -> None:
    first, other = SampleSeries(), SampleSeries()
    other.study = first.study
    dataset = ct_instance(
        rows=8, columns=8, StudyInstanceUID=first.study, SeriesInstanceUID=first.uid
    )
    first.files[1] = part10_bytes(dataset)
    dataset.SeriesInstanceUID = other.uid
    await store_files(store, house, first.file(1))
    await seal(store, first)
    # One more for the series that is sealed, in the same commit: it is looked through as well.
    refused, kept, late = await store_files(
        store, house, part10_bytes(dataset), other.file(2), first.file(3)
    )
    assert isinstance(refused.error, DuplicateUid)
    assert (kept.stored, late.stored) == ("new", "new")
    row = await series_row(store, other)
    assert row is not None
    assert row["number_of_instances"] == 1


async def is_waiting(store: Store) -> bool:
    async with store.database.transaction() as tx:
        found = await tx.value(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE NOT granted AND datname = current_database()"
        )
    return bool(found)


def hash_digits(*parts: object) -> str:
    return str(abs(locator.key_of(repr(parts))))
