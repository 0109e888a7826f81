"""Subscriptions (PS3.18 §11.10 to §11.12) and the event channel over WebSocket (§8.10)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import websockets
from tests.dicomweb.conftest import Web, new_settings, serve
from tests.dicomweb.worklist import (
    FILTERED,
    GLOBAL,
    PERFORMED,
    Worklist,
    code,
    element,
    new_uid,
    new_workitem,
)
from websockets.asyncio.client import ClientConnection

from bfr_core import workitem_reports
from bfr_core.pixels import PixelPool
from bfr_core.postgres import Cluster
from bfr_core.store import open_store

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = "/archives/ARCHIVE/dicomweb"
STATE, CANCEL, PROGRESS, ASSIGNED = 1, 2, 3, 5


@pytest.fixture
def worklist(web: Web) -> Worklist:
    return Worklist(web)


@contextlib.asynccontextmanager
async def channel(web: Web, receiver: str, root: str = ROOT) -> AsyncIterator[ClientConnection]:
    url = f"ws://127.0.0.1:{web.port}{root}/ws/subscribers/{receiver}"
    async with websockets.connect(url, proxy=None) as connection:
        yield connection


async def next_report(connection: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(30):
        return dict(orjson.loads(await connection.recv()))


def what(report: dict[str, Any]) -> tuple[str, int]:
    return report["00001000"]["Value"][0], report["00001002"]["Value"][0]


def state(report: dict[str, Any]) -> str:
    return str(report["00741000"]["Value"][0])


async def nothing_more(connection: ClientConnection, worklist: Worklist, receiver: str) -> None:
    """A new subscription is reported next: so nothing was between."""
    uid = await worklist.created()
    await worklist.subscribe(uid, receiver)
    while True:
        report = await next_report(connection)
        if what(report)[0] == uid:
            return
        raise AssertionError(report)


@pytest.mark.conforms("PS3.18 §11.10.3", "201 with the address of the event channel")
async def test_a_subscription_tells_where_its_channel_is(worklist: Worklist) -> None:
    uid = await worklist.created()
    answer = await worklist.subscribe(uid, "WATCHER")
    assert answer.status_code == 201
    address = answer.headers["content-location"]
    assert address == f"ws://127.0.0.1:{worklist.web.port}{ROOT}/ws/subscribers/WATCHER"
    async with websockets.connect(address, proxy=None) as connection:
        report = await next_report(connection)
    assert what(report) == (uid, STATE)
    assert state(report) == "SCHEDULED"
    assert report["00404041"]["Value"] == ["READY"]
    assert report["00000002"]["Value"] == ["1.2.840.10008.5.1.4.34.6.1"]
    assert 1 <= report["00000110"]["Value"][0] <= 65535


@pytest.mark.conforms("PS3.4 §CC.2.4.3", "Each change is reported to who subscribes")
async def test_a_watcher_hears_of_every_change(worklist: Worklist) -> None:
    uid = await worklist.created()
    async with channel(worklist.web, "WATCHER") as connection:
        await worklist.subscribe(uid, "WATCHER")
        assert state(await next_report(connection)) == "SCHEDULED"
        await worklist.update(uid, {"00404041": element("CS", "INCOMPLETE")})
        report = await next_report(connection)
        assert (what(report), report["00404041"]["Value"]) == ((uid, STATE), ["INCOMPLETE"])
        station = {"00404025": element("SQ", code("S1", "Station 1"))}
        await worklist.update(uid, station)
        report = await next_report(connection)
        assert (what(report), report["00404025"]) == ((uid, ASSIGNED), station["00404025"])
        lock = new_uid()
        await worklist.change(uid, "IN PROGRESS", lock)
        assert state(await next_report(connection)) == "IN PROGRESS"
        progress = {"00741002": element("SQ", {"00741004": element("DS", 50)})}
        await worklist.update(uid, progress, lock)
        report = await next_report(connection)
        assert what(report) == (uid, PROGRESS)
        assert report["00741002"]["Value"][0]["00741004"]["Value"] == [50]
        await worklist.cancel(uid, {"00741238": element("LT", "Not needed")})
        report = await next_report(connection)
        assert (what(report), report["00741238"]["Value"]) == ((uid, CANCEL), ["Not needed"])
        assert report["00741236"]["Value"] == ["loopback"]
        await worklist.update(uid, PERFORMED, lock)
        await worklist.change(uid, "COMPLETED", lock)
        assert state(await next_report(connection)) == "COMPLETED"
        await nothing_more(connection, worklist, "WATCHER")


@pytest.mark.conforms("PS3.4 §CC.2.2.3", "A cancelled scheduled workitem is reported twice")
async def test_a_cancellation_is_reported_through_in_progress(worklist: Worklist) -> None:
    uid = await worklist.created()
    await worklist.subscribe(uid, "WATCHER")
    await worklist.cancel(uid)
    async with channel(worklist.web, "WATCHER") as connection:
        states = [state(await next_report(connection)) for _ in range(3)]
    assert states == ["SCHEDULED", "IN PROGRESS", "CANCELED"]


@pytest.mark.conforms("PS3.4 §CC.2.3.1", "A global subscription is to what comes, too")
async def test_a_global_subscription_is_to_all_and_to_what_comes(worklist: Worklist) -> None:
    old = await worklist.created()
    locking = await worklist.subscribe(GLOBAL, "LOCKING", deletionlock="true")
    plain = await worklist.subscribe(GLOBAL, "PLAIN")
    assert (locking.status_code, plain.status_code) == (201, 201)
    new = await worklist.created(T00404025=element("SQ", code("S1", "Station 1")))
    async with channel(worklist.web, "LOCKING") as connection:
        reports = [await next_report(connection) for _ in range(3)]
        assert [what(one) for one in reports] == [(old, STATE), (new, STATE), (new, ASSIGNED)]
    async with channel(worklist.web, "PLAIN") as connection:
        # Without a lock what is there already is not reported, but what becomes of it is.
        reports = [await next_report(connection) for _ in range(2)]
        assert [what(one) for one in reports] == [(new, STATE), (new, ASSIGNED)]
        await worklist.change(old, "IN PROGRESS", new_uid())
        assert what(await next_report(connection)) == (old, STATE)


@pytest.mark.conforms("PS3.18 §11.10.1.2", "A filtered subscription is to what matches")
async def test_a_filtered_subscription_is_to_what_matches(worklist: Worklist) -> None:
    high = {"T00741200": element("CS", "HIGH")}
    old = await worklist.created(**high)
    await worklist.created()
    keys = "ScheduledProcedureStepPriority=HIGH,ScheduledWorkitemCodeSequence.CodeValue=110005"
    answer = await worklist.subscribe(FILTERED, "WATCHER", filter=keys, deletionlock="true")
    assert answer.status_code == 201
    await worklist.created()
    await worklist.created(**high, T00404018=element("SQ", code("110003", "Image Processing")))
    new = await worklist.created(**high)
    async with channel(worklist.web, "WATCHER") as connection:
        assert [what(await next_report(connection))[0] for _ in range(2)] == [old, new]
        await nothing_more(connection, worklist, "WATCHER")


@pytest.mark.conforms("PS3.18 §11.12", "A suspended subscription keeps what it has")
async def test_a_suspended_subscription_keeps_what_it_has(worklist: Worklist) -> None:
    await worklist.subscribe(GLOBAL, "WATCHER")
    known = await worklist.created()
    url = f"{worklist.url}/{GLOBAL}/subscribers/WATCHER/suspend"
    assert (await worklist.web.client.post(url)).status_code == 200
    assert (await worklist.web.client.post(url)).status_code == 404
    await worklist.created()
    await worklist.change(known, "IN PROGRESS", new_uid())
    async with channel(worklist.web, "WATCHER") as connection:
        assert [what(await next_report(connection))[0] for _ in range(2)] == [known, known]
        await nothing_more(connection, worklist, "WATCHER")


@pytest.mark.conforms("PS3.18 §11.11", "An ended subscription reports nothing; 404 for none")
async def test_an_ended_subscription_reports_nothing(worklist: Worklist) -> None:
    one, other = await worklist.created(), await worklist.created()
    assert (await worklist.unsubscribe(one, "WATCHER")).status_code == 404
    assert (await worklist.unsubscribe(GLOBAL, "WATCHER")).status_code == 404
    await worklist.subscribe(GLOBAL, "WATCHER")
    assert (await worklist.unsubscribe(one, "WATCHER")).status_code == 200
    await worklist.change(one, "IN PROGRESS", new_uid())
    await worklist.change(other, "IN PROGRESS", new_uid())
    async with channel(worklist.web, "WATCHER") as connection:
        assert what(await next_report(connection))[0] == other
        assert (await worklist.unsubscribe(GLOBAL, "WATCHER")).status_code == 200
        await worklist.created()
        await worklist.cancel(other)
        await nothing_more(connection, worklist, "WATCHER")
    # With the worklist's goes every workitem's: nobody is left who could be told.
    assert (await worklist.cancel(one)).status_code == 409


@pytest.mark.parametrize(
    ("uid", "receiver", "query", "status"),
    [
        ("1.2.3", "WATCHER", {}, 404),
        (GLOBAL, "SEVENTEEN_LETTERS", {}, 400),
        (GLOBAL, "A%5CB", {}, 400),
        (GLOBAL, "WATCHER", {"deletionlock": "perhaps"}, 400),
        (GLOBAL, "WATCHER", {"filter": "WorklistLabel=x"}, 400),
        (FILTERED, "WATCHER", {}, 400),
        (FILTERED, "WATCHER", {"filter": "Nonsense=x"}, 400),
        (FILTERED, "WATCHER", {"filter": "WorklistLabel"}, 400),
        (FILTERED, "WATCHER", {"filter": "PatientBirthDate=x"}, 400),
    ],
)
async def test_a_subscription_that_cannot_be_is_refused(
    worklist: Worklist, uid: str, receiver: str, query: dict[str, str], status: int
) -> None:
    assert (await worklist.subscribe(uid, receiver, **query)).status_code == status
    assert await worklist.web.count("worklist_subscription") == 0


async def test_each_archive_reports_its_own_and_the_joint_root_all(web: Web) -> None:
    joint = Worklist(web, "/dicomweb/workitems")
    ours, others = Worklist(web), Worklist(web, "/archives/OTHER/dicomweb/workitems")
    for one in (joint, ours):
        assert (await one.subscribe(GLOBAL, "WATCHER")).status_code == 201
    theirs, mine = await others.created(), await ours.created()
    async with channel(web, "WATCHER") as connection:
        assert what(await next_report(connection))[0] == mine
    async with channel(web, "WATCHER", "/dicomweb") as connection:
        assert [what(await next_report(connection))[0] for _ in range(2)] == [theirs, mine]


# The channel itself


@pytest.mark.conforms("PS3.18 §8.10.4.2", "A channel that broke is opened again and goes on")
async def test_a_receiver_that_comes_back_gets_what_it_missed_once(worklist: Worklist) -> None:
    await worklist.subscribe(GLOBAL, "WATCHER")
    first = await worklist.created()
    async with channel(worklist.web, "WATCHER") as connection:
        assert what(await next_report(connection))[0] == first
        second = await worklist.created()
        assert what(await next_report(connection))[0] == second
        await asyncio.sleep(0)
    missed = [await worklist.created() for _ in range(3)]
    async with channel(worklist.web, "WATCHER") as connection:
        came = [what(await next_report(connection))[0] for _ in range(3)]
        # The last report may have gone out without being marked so: at least once, in order.
        while came[0] == second:
            came = [*came[1:], what(await next_report(connection))[0]]
        assert came == missed


async def test_two_channels_of_a_receiver_each_get_every_report(worklist: Worklist) -> None:
    await worklist.subscribe(GLOBAL, "WATCHER")
    async with channel(worklist.web, "WATCHER") as one, channel(worklist.web, "WATCHER") as two:
        uids = [await worklist.created() for _ in range(3)]
        for connection in (one, two):
            assert [what(await next_report(connection))[0] for _ in range(3)] == uids


async def test_reports_reach_a_channel_of_another_process(
    web: Web, pixels: PixelPool, worklist: Worklist
) -> None:
    # Another store has its own pool and its own listening connection, as a process has.
    async with open_store(web.store.settings) as store, serve(store, pixels) as second:
        async with channel(second, "WATCHER") as connection:
            await worklist.subscribe(GLOBAL, "WATCHER")
            uid = await worklist.created()
            assert what(await next_report(connection))[0] == uid


async def test_no_report_is_lost_between_many_writers(worklist: Worklist) -> None:
    await worklist.subscribe(GLOBAL, "WATCHER")
    async with channel(worklist.web, "WATCHER") as connection:
        uids = [new_uid() for _ in range(40)]
        await asyncio.gather(*(worklist.create(uid) for uid in uids))
        assert {what(await next_report(connection))[0] for _ in uids} == set(uids)


async def test_a_listener_that_broke_off_delays_and_loses_nothing(
    worklist: Worklist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bfr_dicomweb.event_channel.LOOK_AGAIN_AFTER_S", 0.05)
    await worklist.subscribe(GLOBAL, "WATCHER")
    async with channel(worklist.web, "WATCHER") as connection:
        first = await worklist.created()
        assert what(await next_report(connection))[0] == first
        async with worklist.web.store.database.transaction() as tx:
            ended = await tx.tuples(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query LIKE 'LISTEN%' AND usename = current_user"
                " AND datname = current_database()"
            )
        assert ended == [(True,)]
        uid = await worklist.created()
        assert what(await next_report(connection))[0] == uid


async def test_what_a_client_says_means_nothing_and_cannot_be_long(worklist: Worklist) -> None:
    await worklist.subscribe(GLOBAL, "WATCHER")
    async with channel(worklist.web, "WATCHER") as connection:
        await connection.send("hello")
        uid = await worklist.created()
        assert what(await next_report(connection))[0] == uid
        await connection.send("x" * 5000)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await next_report(connection)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/archives/NONE/dicomweb/ws/subscribers/WATCHER", 404),
        (f"{ROOT}/ws/subscribers/SEVENTEEN_LETTERS", 400),
    ],
)
async def test_a_channel_that_cannot_be_is_denied(web: Web, path: str, status: int) -> None:
    with pytest.raises(websockets.InvalidStatus) as denied:
        async with websockets.connect(f"ws://127.0.0.1:{web.port}{path}", proxy=None):
            pass
    assert denied.value.response.status_code == status


async def test_a_process_keeps_so_many_channels(
    cluster: Cluster, pixels: PixelPool, tmp_path: Path
) -> None:
    with new_settings(cluster, tmp_path, workitem_channels_max=1) as settings:
        async with open_store(settings) as store, serve(store, pixels) as web:
            async with channel(web, "ONE", "/dicomweb"):
                with pytest.raises(websockets.InvalidStatus) as denied:
                    async with channel(web, "TWO", "/dicomweb"):
                        pass
                assert denied.value.response.status_code == 503


async def test_a_server_that_stops_closes_its_channels(
    cluster: Cluster, pixels: PixelPool, tmp_path: Path
) -> None:
    with new_settings(cluster, tmp_path) as settings:
        async with open_store(settings) as store:
            async with contextlib.AsyncExitStack() as stack:
                async with serve(store, pixels) as web:
                    connection = await stack.enter_async_context(
                        channel(web, "WATCHER", "/dicomweb")
                    )
                with pytest.raises(websockets.ConnectionClosed) as closed:
                    await next_report(connection)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1012


async def test_reports_that_nobody_comes_for_are_deleted(worklist: Worklist) -> None:
    await worklist.subscribe(GLOBAL, "NOBODY")
    await worklist.created()
    async with worklist.web.store.database.transaction() as tx:
        assert await workitem_reports.delete_old(tx, 72) == 0
        await tx.run("UPDATE workitem_report SET written_at = now() - interval '4 days'")
        assert await workitem_reports.delete_old(tx, 72) == 1


async def test_the_creation_of_a_workitem_and_its_reports_are_one(worklist: Worklist) -> None:
    await worklist.subscribe(GLOBAL, "WATCHER")
    uid = await worklist.created()
    assert (await worklist.create(uid, new_workitem())).status_code == 409
    assert await worklist.web.count("workitem_report") == 1
