"""What arrives is kept as it came, once, and exists only after its commit."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from tests.conftest import House, add_house
from tests.samples import ct_instance, part10_bytes

from bfr_core.access import operator
from bfr_core.errors import Conflict, Denied, Invalid, NotFound, Unavailable
from bfr_core.packs import read_pack
from bfr_core.receiving import MismatchedObject, Received, Reception
from bfr_core.registration_batch import DuplicateUid, Outcome
from bfr_core.retrieval import retrieve_instances
from bfr_core.sealing import seal_series
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store

READER = operator("reader")


def receive(reception: Reception, data: bytes, chunk: int = 10_000) -> Received:
    incoming = reception.incoming_part10()
    for start in range(0, len(data), chunk):
        incoming.write(data[start : start + chunk])
    return incoming.finish()


async def store_files(store: Store, house: House, *files: bytes) -> list[Outcome]:
    reception = Reception(store, house.node, house.archive, "C-STORE")
    try:
        return await store.commit([receive(reception, data) for data in files])
    finally:
        reception.close()


async def stored_bytes(store: Store, study_instance_uid: str) -> list[bytes]:
    found = await retrieve_instances(
        store, READER, "test", archive_id=None, study_instance_uid=study_instance_uid
    )
    return [store.blobs.read(one.stored.blob) for one in found]


async def seal_all(store: Store) -> None:
    async with store.database.transaction() as tx:
        ids = [row[0] for row in await tx.tuples("SELECT series_id FROM series")]
    for series_id in ids:
        await seal_series(store, series_id)


async def count(store: Store, table: str) -> int:
    async with store.database.transaction() as tx:
        return int(await tx.value(f"SELECT count(*) FROM {table}"))


async def test_an_object_comes_out_byte_for_byte(store: Store, house: House) -> None:
    dataset = ct_instance()
    data = part10_bytes(dataset)
    (outcome,) = await store_files(store, house, data)
    assert outcome.stored == "new"
    assert await stored_bytes(store, dataset.StudyInstanceUID) == [data]


async def test_nothing_exists_before_the_commit(store: Store, house: House) -> None:
    dataset = ct_instance()
    reception = Reception(store, house.node, house.archive, "C-STORE")
    receive(reception, part10_bytes(dataset))
    with pytest.raises(NotFound):
        await stored_bytes(store, dataset.StudyInstanceUID)
    reception.close()


async def test_the_same_object_again_changes_nothing(store: Store, house: House) -> None:
    dataset = ct_instance()
    data = part10_bytes(dataset)
    await store_files(store, house, data)
    (again,) = await store_files(store, house, data)
    assert again.stored == "identical"
    assert await stored_bytes(store, dataset.StudyInstanceUID) == [data]
    assert len(list(store.blobs.directory.rglob("*.pack"))) == 1


async def test_the_same_object_twice_in_one_commit_is_stored_once(
    store: Store, house: House
) -> None:
    dataset = ct_instance()
    data = part10_bytes(dataset)
    outcomes = await store_files(store, house, data, data)
    assert [outcome.stored for outcome in outcomes] == ["new", "identical"]
    assert await stored_bytes(store, dataset.StudyInstanceUID) == [data]


@pytest.mark.parametrize("sealed", [False, True])
async def test_another_object_under_the_same_uid_is_refused(
    store: Store, house: House, sealed: bool
) -> None:
    first = ct_instance()
    other = ct_instance(
        SOPInstanceUID=first.SOPInstanceUID,
        SeriesInstanceUID=first.SeriesInstanceUID,
        StudyInstanceUID=first.StudyInstanceUID,
        ImageComments="not the same",
    )
    await store_files(store, house, part10_bytes(first))
    if sealed:
        await seal_all(store)
    (outcome,) = await store_files(store, house, part10_bytes(other))
    assert isinstance(outcome.error, DuplicateUid)
    assert await stored_bytes(store, first.StudyInstanceUID) == [part10_bytes(first)]


async def test_a_refused_object_leaves_no_study(store: Store, house: House) -> None:
    first = ct_instance()
    stranger = ct_instance(SOPInstanceUID=first.SOPInstanceUID)
    await store_files(store, house, part10_bytes(first))
    (outcome,) = await store_files(store, house, part10_bytes(stranger))
    assert isinstance(outcome.error, DuplicateUid)
    assert await count(store, "study") == 1
    assert await count(store, "series") == 1


async def test_an_object_that_repeats_a_refused_one_is_refused(store: Store, house: House) -> None:
    first = ct_instance(PatientID="198501019809")
    intruder = part10_bytes(
        ct_instance(PatientID="19810829M071", StudyInstanceUID=first.StudyInstanceUID)
    )
    await store_files(store, house, part10_bytes(first))
    outcomes = await store_files(store, house, intruder, intruder)
    assert [outcome.stored for outcome in outcomes] == [None, None]
    assert all(isinstance(outcome.error, Conflict) for outcome in outcomes)


async def test_a_study_of_another_patient_is_refused(store: Store, house: House) -> None:
    first = ct_instance(PatientID="198501019809")
    other = ct_instance(PatientID="19810829M071", StudyInstanceUID=first.StudyInstanceUID)
    await store_files(store, house, part10_bytes(first))
    (outcome,) = await store_files(store, house, part10_bytes(other))
    assert isinstance(outcome.error, Conflict)
    assert "19810829" not in outcome.error.message
    assert await stored_bytes(store, first.StudyInstanceUID) == [part10_bytes(first)]


async def test_objects_without_patient_id_never_share_a_patient(store: Store, house: House) -> None:
    first, second = ct_instance(PatientID=""), ct_instance(PatientID="")
    await store_files(store, house, part10_bytes(first), part10_bytes(second))
    assert await count(store, "patient") == 2


async def test_one_bad_object_does_not_touch_the_others_of_a_commit(
    store: Store, house: House
) -> None:
    first = ct_instance(PatientID="198501019809")
    intruder = ct_instance(PatientID="19810829M071", StudyInstanceUID=first.StudyInstanceUID)
    other = ct_instance(PatientID="19810829M071")
    await store_files(store, house, part10_bytes(first))
    outcomes = await store_files(store, house, part10_bytes(intruder), part10_bytes(other))
    assert [outcome.stored for outcome in outcomes] == [None, "new"]


async def test_a_large_object_streams_to_a_pack_of_its_own(
    with_settings: Callable[..., Settings],
) -> None:
    async with open_store(with_settings(object_memory_bytes=1000)) as store:
        house = await add_house(store, "ARCHIVE", "MODALITY")
        dataset = ct_instance()
        data = part10_bytes(dataset)
        (outcome,) = await store_files(store, house, data)
        assert outcome.stored == "new"
        assert await stored_bytes(store, dataset.StudyInstanceUID) == [data]
        (again,) = await store_files(store, house, data)
        assert again.stored == "identical"
        assert len(list(store.blobs.directory.rglob("*.pack"))) == 1


@pytest.mark.parametrize("memory", [1000, 4_000_000])
async def test_an_abort_leaves_nothing(with_settings: Callable[..., Settings], memory: int) -> None:
    async with open_store(with_settings(object_memory_bytes=memory)) as store:
        house = await add_house(store, "ARCHIVE", "MODALITY")
        reception = Reception(store, house.node, house.archive, "C-STORE")
        incoming = reception.incoming_part10()
        incoming.write(part10_bytes(ct_instance())[:3000])
        incoming.abort()
        reception.close()
        assert list(store.blobs.directory.rglob("*.pack")) == []


@pytest.mark.parametrize("memory", [1000, 4_000_000])
async def test_a_truncated_object_is_refused_and_leaves_nothing(
    with_settings: Callable[..., Settings], memory: int
) -> None:
    async with open_store(with_settings(object_memory_bytes=memory)) as store:
        house = await add_house(store, "ARCHIVE", "MODALITY")
        reception = Reception(store, house.node, house.archive, "C-STORE")
        with pytest.raises(Invalid):
            receive(reception, part10_bytes(ct_instance())[:-100])
        reception.close()
        assert list(store.blobs.directory.rglob("*.pack")) == []


@pytest.mark.parametrize(
    ("keyword", "said"),
    [
        ("SOPInstanceUID", "SOP Instance UID (0008,0018) is missing"),
        ("StudyInstanceUID", "Study Instance UID (0020,000D) is missing"),
        ("SeriesInstanceUID", "Series Instance UID (0020,000E) is missing"),
        ("SOPClassUID", "SOP Class UID (0008,0016) is missing"),
    ],
)
async def test_a_missing_uid_is_named(store: Store, house: House, keyword: str, said: str) -> None:
    dataset = ct_instance()
    data = part10_bytes(dataset)
    delattr(dataset, keyword)
    data = part10_bytes(dataset)
    reception = Reception(store, house.node, house.archive, "C-STORE")
    with pytest.raises(Invalid, match=said.replace("(", r"\(").replace(")", r"\)")):
        receive(reception, data)
    reception.close()


async def test_an_announced_object_must_be_the_one_that_comes(store: Store, house: House) -> None:
    dataset = ct_instance()
    data = part10_bytes(dataset)
    reception = Reception(store, house.node, house.archive, "C-STORE")
    incoming = reception.incoming_dataset(
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sop_class_uid=dataset.SOPClassUID,
        sop_instance_uid="1.2.3.4",
    )
    start = data.index(b"\x08\x00\x05\x00CS")
    incoming.write(data[start:])
    with pytest.raises(MismatchedObject):
        incoming.finish()
    reception.close()


async def test_an_object_over_the_limit_is_refused(
    with_settings: Callable[..., Settings],
) -> None:
    async with open_store(with_settings(object_max_bytes=5000)) as store:
        house = await add_house(store, "ARCHIVE", "MODALITY")
        reception = Reception(store, house.node, house.archive, "C-STORE")
        with pytest.raises(Invalid, match="larger than 5000 bytes"):
            receive(reception, part10_bytes(ct_instance()))
        reception.close()


async def test_a_full_disk_is_told_and_nothing_stays(
    with_settings: Callable[..., Settings],
) -> None:
    async with open_store(with_settings(free_space_min_bytes=1 << 60)) as store:
        house = await add_house(store, "ARCHIVE", "MODALITY")
        reception = Reception(store, house.node, house.archive, "C-STORE")
        with pytest.raises(Unavailable, match="full"):
            receive(reception, part10_bytes(ct_instance()))
        reception.close()
        assert list(store.blobs.directory.rglob("*.pack")) == []


async def test_a_caller_of_another_archive_may_not_store(store: Store, house: House) -> None:
    other = await add_house(store, "OTHER", "MODALITY")
    with pytest.raises(Denied):
        Reception(store, other.node, house.archive, "C-STORE")


async def test_the_same_study_may_lie_in_two_archives(store: Store, house: House) -> None:
    other = await add_house(store, "OTHER", "MODALITY")
    dataset = ct_instance()
    data = part10_bytes(dataset)
    await store_files(store, house, data)
    (outcome,) = await store_files(store, other, data)
    assert outcome.stored == "new"
    assert await stored_bytes(store, dataset.StudyInstanceUID) == [data]


async def test_many_senders_at_once_all_get_their_answer(store: Store, house: House) -> None:
    study = ct_instance().StudyInstanceUID
    files = [part10_bytes(ct_instance(StudyInstanceUID=study)) for _ in range(40)]
    answers = await asyncio.gather(*(store_files(store, house, data) for data in files))
    assert all(answer[0].stored == "new" for answer in answers)
    assert sorted(await stored_bytes(store, study)) == sorted(files)
    async with store.database.transaction() as tx:
        row = await tx.tuples("SELECT number_of_series, number_of_instances FROM study")
    assert row == [(40, 40)]


async def test_a_pack_tells_by_itself_what_it_holds(store: Store, house: House) -> None:
    files = [
        part10_bytes(
            ct_instance(SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2", InstanceNumber=number)
        )
        for number in (1, 2, 3)
    ]
    await store_files(store, house, *files)
    (pack,) = store.blobs.directory.rglob("*.pack")
    records = list(read_pack(store.blobs, str(pack.relative_to(store.blobs.directory))))
    assert [store.blobs.read(record.ref) for record in records] == files


async def test_storing_is_on_record_once_a_series(store: Store, house: House) -> None:
    await store_files(
        store,
        house,
        *(
            part10_bytes(
                ct_instance(SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2", InstanceNumber=n)
            )
            for n in range(5)
        ),
    )
    async with store.database.transaction() as tx:
        rows = await tx.tuples(
            "SELECT action, outcome, caller_kind, caller, door, series_instance_uid"
            " FROM audit_record WHERE action = 'store'"
        )
    assert rows == [("store", "success", "node", "MODALITY", "C-STORE", "1.2.3")]


async def test_the_application_cannot_change_the_audit_trail(store: Store, house: House) -> None:
    await store_files(store, house, part10_bytes(ct_instance()))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with store.database.transaction() as tx:
            await tx.run("DELETE FROM audit_record")


async def test_sealing_replaces_the_rows_and_changes_no_answer(
    store: Store, house: House, tmp_path: Path
) -> None:
    files = [
        part10_bytes(
            ct_instance(SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2", InstanceNumber=number)
        )
        for number in (3, 1, 2)
    ]
    await store_files(store, house, *files)
    before = await retrieve_instances(
        store, READER, "test", archive_id=None, study_instance_uid="1.2", headers=True
    )
    await seal_all(store)
    assert await count(store, "instance") == 0
    after = await retrieve_instances(
        store, READER, "test", archive_id=None, study_instance_uid="1.2", headers=True
    )
    assert after == before
    assert [one.stored.instance_number for one in after] == [1, 2, 3]


async def test_a_late_instance_opens_a_sealed_series_again(store: Store, house: House) -> None:
    def file(number: int) -> bytes:
        return part10_bytes(
            ct_instance(SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2", InstanceNumber=number)
        )

    first, late = file(2), file(1)
    await store_files(store, house, first)
    await seal_all(store)
    await store_files(store, house, late)
    assert await stored_bytes(store, "1.2") == [late, first]
    await seal_all(store)
    assert await stored_bytes(store, "1.2") == [late, first]
    async with store.database.transaction() as tx:
        kinds = [row[0] for row in await tx.tuples("SELECT kind FROM event ORDER BY event_id")]
    assert kinds == [
        "study_created",
        "series_created",
        "series_sealed",
        "series_reopened",
        "series_sealed",
    ]


async def test_the_same_object_after_sealing_changes_nothing(store: Store, house: House) -> None:
    dataset = ct_instance()
    data = part10_bytes(dataset)
    await store_files(store, house, data)
    await seal_all(store)
    (again,) = await store_files(store, house, data)
    assert again.stored == "identical"
    assert await count(store, "instance") == 0


async def test_records_of_a_month_without_a_partition_move_into_it(store: Store) -> None:
    async with store.database.transaction() as tx:
        await tx.run(
            "INSERT INTO audit_record (recorded_at, action, outcome, caller_kind, caller, door)"
            " VALUES ('2031-05-10', 'read', 'success', 'local', 'loopback', 'test')"
        )
        await tx.run("SELECT create_audit_partition('2031-05-01')")
        assert await tx.value("SELECT count(*) FROM audit_record_default") == 0
        assert await tx.value("SELECT count(*) FROM audit_record") == 1
