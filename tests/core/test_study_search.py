"""Searches see what the caller may see, page by page, and leave one record each."""

import itertools
from typing import Any

import pytest
from pydicom import Dataset as Object
from tests.conftest import House, add_house
from tests.samples import ct_instance, ct_series, part10_bytes

from bfr_core import instance_search, patients, study_search
from bfr_core.access import Access, operator
from bfr_core.errors import Invalid, NotFound
from bfr_core.instances import Dataset
from bfr_core.locator import key_of
from bfr_core.matching import Match
from bfr_core.receiving import Reception
from bfr_core.retrieval import FoundInstance, read_series, retrieve_instances
from bfr_core.sealing import seal_series
from bfr_core.store import Store

READER = operator("reader")
NOBODY = Access(kind="node", subject="NOBODY", archive_ids=frozenset())


async def keep(store: Store, house: House, *datasets: Object) -> None:
    reception = Reception(store, house.node, house.archive, "test")
    received = []
    for dataset in datasets:
        incoming = reception.incoming_part10()
        incoming.write(part10_bytes(dataset))
        received.append(incoming.finish())
    outcomes = await store.commit(received)
    reception.close()
    assert [one.error for one in outcomes] == [None] * len(outcomes)


async def seal_all(store: Store) -> None:
    async with store.database.transaction() as tx:
        rows = await tx.tuples("SELECT series_id FROM series WHERE state = 'receiving'")
    for (series_id,) in rows:
        await seal_series(store, series_id)


async def instances(
    store: Store, *matches: Match, access: Access = READER, limit: int = 1000, offset: int = 0
) -> list[str]:
    found = await instance_search.search_instances(
        store,
        access,
        "test",
        archive_id=None,
        matches=matches,
        limit=limit,
        offset=offset,
        includefield=(),
    )
    return uids(found, "00080018")


def uids(found: list[Dataset], tag: str) -> list[str]:
    return [one[tag]["Value"][0] for one in found]


async def test_a_caller_finds_only_what_its_archives_hold(store: Store, house: House) -> None:
    other = await add_house(store, "OTHER", "MODALITY")
    mine, theirs = ct_instance(), ct_instance()
    await keep(store, house, mine)
    await keep(store, other, theirs)
    everyone = {mine.StudyInstanceUID, theirs.StudyInstanceUID}
    for access, archive_id, expected in (
        (READER, None, everyone),
        (READER, other.archive.archive_id, {theirs.StudyInstanceUID}),
        (house.node, None, {mine.StudyInstanceUID}),
        (house.node, other.archive.archive_id, set()),
        (NOBODY, None, set()),
    ):
        scope: dict[str, Any] = {"archive_id": archive_id, "matches": (), "limit": 10, "offset": 0}
        studies = await study_search.search_studies(store, access, "test", **scope)
        series = await study_search.search_series(store, access, "test", **scope, with_study=False)
        found = await instance_search.search_instances(
            store, access, "test", **scope, includefield=()
        )
        for answer in (studies, series, found):
            assert set(uids(answer, "0020000D")) == expected
    assert [one.patient_id for one in await patients.search_patients(store, NOBODY, "", 9)] == []
    (patient,) = await patients.search_patients(store, house.node, "", 9)
    assert patient.number_of_studies == 1
    with pytest.raises(NotFound):
        await patients.find_patient(store, NOBODY, patient.patient_id)
    with pytest.raises(NotFound):
        await patients.find_study(store, house.node, "OTHER", theirs.StudyInstanceUID)


@pytest.mark.parametrize("sealed", [False, True])
async def test_pages_of_instances_run_across_many_series(
    store: Store, house: House, monkeypatch: pytest.MonkeyPatch, sealed: bool
) -> None:
    monkeypatch.setattr(instance_search, "SERIES_PAGE", 2)
    shared = {"StudyInstanceUID": ct_instance().StudyInstanceUID, "rows": 2, "columns": 2}
    lists = [ct_series(count, SeriesNumber=count, **shared) for count in (1, 2, 3, 1, 2)]
    await keep(store, house, *itertools.chain.from_iterable(lists))
    if sealed:
        await seal_all(store)
    whole = await instances(store)
    assert len(whole) == len(set(whole)) == 9
    for size in (1, 2, 4, 9):
        pages = [await instances(store, limit=size, offset=start) for start in range(0, 12, size)]
        assert list(itertools.chain.from_iterable(pages)) == whole


@pytest.mark.parametrize("sealed", [False, True])
async def test_one_instance_is_found_without_reading_other_series(
    store: Store, house: House, monkeypatch: pytest.MonkeyPatch, sealed: bool
) -> None:
    wanted, *others = [ct_instance(rows=2, columns=2) for _ in range(4)]
    await keep(store, house, wanted, *others)
    if sealed:
        await seal_all(store)
    read = []

    async def counted(
        store: Store, archive_id: int, study: str, series: str
    ) -> list[FoundInstance]:
        read.append(series)
        return await read_series(store, archive_id, study, series)

    monkeypatch.setattr(instance_search, "read_series", counted)
    match = Match("00080018", (wanted.SOPInstanceUID, "1.2.3"))
    assert await instances(store, match) == [wanted.SOPInstanceUID]
    assert read == [wanted.SeriesInstanceUID]


async def test_a_uid_with_the_hash_of_another_is_not_found(store: Store, house: House) -> None:
    one = ct_instance()
    await keep(store, house, one)
    await seal_all(store)
    async with store.database.transaction() as tx:
        await tx.run(
            "UPDATE series SET locator_keys = ARRAY[locator_key, %(key)s]", key=key_of("1.2.3")
        )
    assert await instances(store, Match("00080018", ("1.2.3",))) == []


async def test_a_series_that_is_receiving_again_tells_all_it_has(
    store: Store, house: House
) -> None:
    first, second = ct_series(2, rows=2, columns=2)
    await keep(store, house, second)
    await seal_all(store)
    await keep(store, house, first)
    assert await instances(store) == [first.SOPInstanceUID, second.SOPInstanceUID]


async def test_a_search_leaves_one_record_and_no_reading(store: Store, house: House) -> None:
    await keep(store, house, ct_instance(), ct_instance())
    await instances(store, Match("00100020", ("198501019809",)))
    async with store.database.transaction() as tx:
        rows = await tx.tuples(
            "SELECT action, caller, door, detail::text FROM audit_record"
            " WHERE action IN ('search', 'read')"
        )
    ((action, caller, door, detail),) = rows
    assert (action, caller, door) == ("search", "reader", "test")
    assert "00100020" in detail
    assert "1985" not in detail


async def test_a_retrieval_by_what_is_no_uid_finds_nothing(store: Store, house: House) -> None:
    await keep(store, house, ct_instance())
    for uid in ("", "abc", "1.2\0", "1.2.3\n", "%"):
        with pytest.raises(NotFound):
            await retrieve_instances(store, READER, "test", archive_id=None, study_instance_uid=uid)


async def test_an_attribute_that_is_no_key_is_named(store: Store) -> None:
    for tag, said in (
        ("00101010", r"PatientAge \(00101010\) is a search key of instances only where"),
        ("00091001", "00091001 is a search key of instances only where"),
        ("00400275.00400007", "RequestAttributesSequence.ScheduledProcedureStepDescription"),
    ):
        with pytest.raises(Invalid, match=said):
            await instances(store, Match(tag, ("x",)))
