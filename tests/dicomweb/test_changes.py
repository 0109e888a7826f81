"""The change feed: complete, in order, and nothing twice, also while others write."""

import asyncio
import datetime
import random
from typing import Any

import pytest
from tests.dicomweb.conftest import Web
from tests.samples import ct_instance, ct_series, part10_bytes

from bfr_core import changes, events
from bfr_core.access import Access, operator
from bfr_core.connections import Archive, find_archive
from bfr_core.database import Transaction
from bfr_core.deleting import delete
from bfr_core.tombstones import Target
from bfr_core.undeleting import undelete

pytestmark = pytest.mark.asyncio(loop_scope="module")

Entry = dict[str, Any]
OURS = "/archives/ARCHIVE/dicomweb/changes"
JOINT = "/dicomweb/changes"
WHO = operator("test")


async def read(web: Web, url: str = OURS, **params: Any) -> list[Entry]:
    answer = await web.client.get(url, params=params)
    assert answer.status_code == 200, answer.text
    entries: list[Entry] = answer.json()
    return entries


async def archive_of(web: Web, ae_title: str = "ARCHIVE") -> Archive:
    async with web.store.database.transaction() as tx:
        return await find_archive(tx, WHO, ae_title)


async def write(tx: Transaction, archive: Archive, study: str) -> None:
    await events.write(tx, "study_created", archive_id=archive.archive_id, study_instance_uid=study)


def studies(entries: list[Entry]) -> list[str]:
    return [one["StudyInstanceUID"] for one in entries]


@pytest.mark.conforms("PS3.18 beyond", "GET changes tells in order what has happened since one")
async def test_a_follower_is_told_of_everything_in_order(web: Web) -> None:
    one, other = ct_series(2)
    await web.stow(part10_bytes(one), part10_bytes(other))
    await web.seal()
    target = Target(one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID)
    await delete(web.store, WHO, "ARCHIVE", target, "the wrong patient lay there")
    await undelete(web.store, WHO, "ARCHIVE", target)
    told = await read(web)
    assert [(entry["Event"], entry["Action"]) for entry in told] == [
        ("study_created", "create"),
        ("series_created", "create"),
        ("series_sealed", "update"),
        ("instances_deleted", "delete"),
        ("series_reopened", "update"),
        ("instances_restored", "create"),
    ]
    assert [entry["Sequence"] for entry in told] == [1, 2, 3, 4, 5, 6]
    assert {entry["StudyInstanceUID"] for entry in told} == {one.StudyInstanceUID}
    assert {entry["Archive"] for entry in told} == {"ARCHIVE"}
    assert "SeriesInstanceUID" not in told[0]
    for number in (3, 5):
        assert told[number]["SOPInstanceUID"] == one.SOPInstanceUID
        path = f"/series/{one.SeriesInstanceUID}/instances/{one.SOPInstanceUID}"
        assert told[number]["RetrieveURL"].endswith(path)
    answer = await web.client.get(told[-1]["RetrieveURL"] + "/metadata")
    assert answer.status_code == 200


@pytest.mark.conforms("PS3.18 beyond", "Pages of changes follow each other without a gap")
async def test_pages_follow_each_other(web: Web) -> None:
    for _ in range(3):
        await web.stow(part10_bytes(ct_instance()))
    everything = await read(web)
    paged: list[Entry] = []
    while page := await read(web, since=paged[-1]["Sequence"] if paged else 0, limit=4):
        assert len(page) <= 4
        paged += page
    assert paged == everything
    assert await read(web, since=everything[-1]["Sequence"]) == []


@pytest.mark.conforms("PS3.18 beyond", "An archive tells its own changes, the joint root all")
async def test_an_archive_tells_its_own_changes(web: Web) -> None:
    ours, theirs = ct_instance(), ct_instance()
    await web.stow(part10_bytes(ours))
    await web.stow(part10_bytes(theirs), url="/archives/OTHER/dicomweb/studies")
    assert set(studies(await read(web))) == {ours.StudyInstanceUID}
    joint = await read(web, JOINT)
    assert set(studies(joint)) == {ours.StudyInstanceUID, theirs.StudyInstanceUID}
    latest = await web.client.get(f"{OURS}/latest")
    assert latest.json() == (await read(web))[-1]
    assert (await web.client.get(f"{JOINT}/latest")).json()["Sequence"] == joint[-1]["Sequence"]
    assert joint[-1]["Archive"] == "OTHER"


async def test_who_may_read_one_archive_hears_of_no_other(web: Web) -> None:
    await web.stow(part10_bytes(ct_instance()))
    other = await archive_of(web, "OTHER")
    reader = Access("node", "OTHERNODE", frozenset([other.archive_id]))
    for archive_id in (None, (await archive_of(web)).archive_id):
        found = await changes.list_changes(
            web.store, reader, "test", archive_id=archive_id, since=0, limit=10
        )
        assert found == []
        assert await changes.latest_change(web.store, reader, "test", archive_id=archive_id) is None


async def test_an_archive_to_which_nothing_has_happened_has_no_latest_change(web: Web) -> None:
    assert await read(web) == []
    assert (await web.client.get(f"{OURS}/latest")).status_code == 204


@pytest.mark.conforms("PS3.18 beyond", "What commits later has a higher number")
async def test_what_commits_later_is_told_later(web: Web) -> None:
    archive = await archive_of(web)
    async with web.store.database.transaction() as slow:
        await write(slow, archive, "1.2.1")  # its event_id is the lower one
        async with web.store.database.transaction() as quick:
            await write(quick, archive, "1.2.2")
        told = await read(web)
        assert studies(told) == ["1.2.2"]
    later = await read(web, since=told[-1]["Sequence"])
    assert studies(later) == ["1.2.1"]
    assert later[0]["Sequence"] > told[0]["Sequence"]


async def test_what_is_rolled_back_is_never_told(web: Web) -> None:
    archive = await archive_of(web)
    async with web.store.database.pool.connection() as connection:
        async with connection.transaction(force_rollback=True):
            await write(Transaction(connection), archive, "1.2.1")
    async with web.store.database.transaction() as tx:
        await write(tx, archive, "1.2.2")
    assert [(one["Sequence"], one["StudyInstanceUID"]) for one in await read(web)] == [(1, "1.2.2")]


@pytest.mark.conforms("PS3.18 beyond", "Followers miss nothing and see nothing twice")
async def test_followers_miss_nothing_while_others_write(web: Web) -> None:
    archive = await archive_of(web)
    writers, each = 6, 15
    chance = random.Random(4)
    done = asyncio.Event()

    async def writer(number: int) -> None:
        for count in range(each):
            async with web.store.database.pool.connection() as connection:
                async with connection.transaction():
                    tx = Transaction(connection)
                    await write(tx, archive, f"1.2.{number}.{count}.1")
                    for _ in range(chance.randrange(4)):  # others commit meanwhile
                        await asyncio.sleep(0)
                        await tx.value("SELECT 1")
                    await write(tx, archive, f"1.2.{number}.{count}.2")

    async def follower(url: str, limit: int) -> list[Entry]:
        seen: list[Entry] = []
        while True:
            last_round = done.is_set()
            page = await read(web, url, since=seen[-1]["Sequence"] if seen else 0, limit=limit)
            seen += page
            if last_round and not page:
                return seen

    following = [
        asyncio.create_task(follower(url, limit)) for url, limit in ((OURS, 3), (JOINT, 1000))
    ]
    await asyncio.gather(*(writer(number) for number in range(writers)))
    done.set()
    expected = {
        f"1.2.{number}.{count}.{half}"
        for number in range(writers)
        for count in range(each)
        for half in (1, 2)
    }
    for told in await asyncio.gather(*following):
        assert len(told) == len(expected)
        assert set(studies(told)) == expected
        assert [one["Sequence"] for one in told] == list(range(1, len(expected) + 1))
        assert [one["Timestamp"] for one in told] == sorted(one["Timestamp"] for one in told)


@pytest.mark.conforms("PS3.18 beyond", "starttime and endtime narrow to what was published then")
async def test_a_time_window_tells_what_was_published_in_it(web: Web) -> None:
    archive = await archive_of(web)
    async with web.store.database.transaction() as slow:
        await write(slow, archive, "1.2.1")
        async with web.store.database.transaction() as tx:
            await write(tx, archive, "1.2.2")
        [first] = await read(web)
    [_, second] = await read(web)
    between = second["Timestamp"]
    assert studies(await read(web, endtime=between)) == ["1.2.2"]
    assert studies(await read(web, starttime=between)) == ["1.2.1"]
    whole = await read(web, starttime=first["Timestamp"], endtime="2999-01-01T00:00:00+01:00")
    assert studies(whole) == ["1.2.2", "1.2.1"]
    assert studies(await read(web, starttime=first["Timestamp"], since=1)) == ["1.2.1"]
    assert await read(web, starttime="2999-01-01T00:00:00Z") == []
    # What began before the window and could be seen in it is of the window.
    assert second["OccurredAt"] <= first["Timestamp"] < second["Timestamp"]
    assert datetime.datetime.fromisoformat(between).tzinfo is not None


@pytest.mark.conforms("PS3.18 beyond", "400 names the parameter with a bad value")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("since", "-1"),
        ("since", "9" * 19),
        ("limit", "many"),
        ("starttime", "yesterday"),
        ("starttime", "2026-01-01T00:00:00"),
        ("endtime", "0001-01-01T00:00:00+14:00"),
        ("studydate", "20260101"),
    ],
)
async def test_a_bad_parameter_is_named(shared: Web, name: str, value: str) -> None:
    answer = await shared.client.get(OURS, params={name: value})
    assert answer.status_code == 400
    assert name in answer.json()["detail"]


@pytest.mark.conforms("PS3.18 beyond", "409 for a number that was never given")
async def test_a_number_that_was_never_given_is_refused(shared: Web) -> None:
    answer = await shared.client.get(OURS, params={"since": 10**9})
    assert answer.status_code == 409


async def test_reading_the_feed_is_on_record(web: Web) -> None:
    await web.stow(part10_bytes(ct_instance()))
    before = await web.count("audit_record")
    await read(web)
    assert await web.count("audit_record") == before + 1
