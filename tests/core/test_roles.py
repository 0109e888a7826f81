"""Roles: what the processes say of themselves, and what is made of it when they fall silent."""

import asyncio
import contextlib
from collections.abc import Callable

from bfr_core import roles
from bfr_core.errors import Unavailable
from bfr_core.roles import RoleState, role_states
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store

BEAT = """
    INSERT INTO role_beat (role, instance, serving, detail, beat_at)
    VALUES (%(role)s, %(instance)s, %(serving)s, %(detail)s, now() - %(age_s)s * interval '1 s')
"""


async def beaten(
    store: Store, role: str, instance: str, age_s: float, *, serving: bool = True, detail: str = ""
) -> None:
    async with store.database.transaction() as tx:
        await tx.run(
            BEAT, role=role, instance=instance, serving=serving, detail=detail, age_s=age_s
        )


async def state(store: Store, role: str = "web") -> RoleState:
    async with store.database.transaction() as tx:
        return (await role_states(tx, (role,)))[0]


async def until_ready(store: Store, wanted: bool) -> None:
    while True:
        with contextlib.suppress(Unavailable):  # a connection that broke off is told once
            if (await state(store)).ready == wanted:
                return
        await asyncio.sleep(0.02)


async def test_a_role_that_never_spoke_has_not_started(store: Store) -> None:
    assert await state(store) == RoleState("web", False, "has not started", None)


async def test_a_role_that_spoke_just_now_is_ready(store: Store) -> None:
    await beaten(store, "web", "a:1", 1)
    assert (await state(store)).ready


async def test_a_role_that_fell_silent_is_not_ready(store: Store) -> None:
    await beaten(store, "web", "a:1", roles.BEAT_FRESH_S + 5)
    assert not (await state(store)).ready


async def test_a_role_says_what_is_wrong(store: Store) -> None:
    await beaten(store, "dimse", "a:1", 0, serving=False, detail="takes no connections")
    found = await state(store, "dimse")
    assert (found.ready, found.detail) == (False, "takes no connections")


async def test_one_process_that_serves_is_enough(store: Store) -> None:
    await beaten(store, "web", "a:1", 2)
    await beaten(store, "web", "b:1", 0, serving=False, detail="is starting")
    await beaten(store, "web", "c:1", 100)
    assert (await state(store)).ready


async def test_states_come_in_the_order_asked_for(store: Store) -> None:
    async with store.database.transaction() as tx:
        found = await role_states(tx, ("worker", "web", "dimse"))
    assert [one.role for one in found] == ["worker", "web", "dimse"]


async def test_a_beating_role_is_ready_and_forgotten_when_it_stops(store: Store) -> None:
    stop = asyncio.Event()
    problem: list[str | None] = [None]

    async def check() -> str | None:
        return problem[0]

    beating = asyncio.create_task(roles.beat(store, "web", check, stop))
    await until_ready(store, True)
    problem[0] = "is full"
    await until_ready(store, False)
    assert (await state(store)).detail == "is full"
    stop.set()
    await beating
    assert (await state(store)).detail == "has not started"


async def test_beats_of_processes_long_gone_are_swept(store: Store) -> None:
    await beaten(store, "web", "gone:1", 100_000)
    stop = asyncio.Event()
    stop.set()

    async def check() -> str | None:
        return None

    await roles.beat(store, "web", check, stop)
    async with store.database.transaction() as tx:
        assert await tx.value("SELECT count(*) FROM role_beat") == 0


async def test_a_beat_survives_the_loss_of_the_database(
    with_settings: Callable[..., Settings], database_name: str
) -> None:
    async with open_store(with_settings(database_connections=2)) as store:
        stop = asyncio.Event()

        async def check() -> str | None:
            return None

        beating = asyncio.create_task(roles.beat(store, "web", check, stop))
        await until_ready(store, True)
        async with store.database.transaction() as tx:
            await tx.run("DELETE FROM role_beat")
            await tx.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = %(name)s AND pid <> pg_backend_pid()",
                name=database_name,
            )
        await until_ready(store, True)
        stop.set()
        await beating
