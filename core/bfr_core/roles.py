"""Roles: which processes serve at this moment, told by themselves (`/readyz`, admin portal)."""

import asyncio
import datetime
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bfr_core import metrics
from bfr_core.database import Transaction
from bfr_core.errors import Unavailable

if TYPE_CHECKING:
    from bfr_core.store import Store

BEAT_INTERVAL_S = 1.0
BEAT_FRESH_S = 5.0


@dataclass(frozen=True, slots=True)
class RoleState:
    """One role: whether some process serves it, and when it last said so."""

    role: str
    ready: bool
    detail: str
    beat_at: datetime.datetime | None  # None: never


BEAT = """
    INSERT INTO role_beat (role, instance, serving, detail)
    VALUES (%(role)s, %(instance)s, %(serving)s, %(detail)s)
    ON CONFLICT (role, instance) DO UPDATE
    SET serving = excluded.serving, detail = excluded.detail, beat_at = now()
"""
FORGET = """
    DELETE FROM role_beat
    WHERE (role = %(role)s AND instance = %(instance)s) OR beat_at < now() - interval '1 day'
"""
OWN = """
    SELECT role, serving AND beat_at > now() - make_interval(secs => %(fresh_s)s) AS ready,
        detail, beat_at
    FROM role_beat WHERE role = %(role)s AND instance = %(instance)s
"""
# A role that several processes serve is served as long as one of them says so.
BEST = """
    SELECT DISTINCT ON (role) role,
        serving AND beat_at > now() - make_interval(secs => %(fresh_s)s) AS ready,
        detail, beat_at
    FROM role_beat ORDER BY role, ready DESC, beat_at DESC
"""


async def beat(
    store: "Store", role: str, is_serving: Callable[[], Awaitable[str | None]], stop: asyncio.Event
) -> None:
    """Tell every second whether this process serves `role`, until `stop` is set.

    `is_serving` gives None when all is well, else what is wrong.
    """
    instance = this_instance()
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        problem = await is_serving()
        metrics.ROLE_SERVING.set(problem is None)
        try:
            async with store.database.transaction() as tx:
                await tx.run(
                    BEAT,
                    role=role,
                    instance=instance,
                    serving=problem is None,
                    detail=problem or "",
                )
        except Unavailable:
            # Without a database nobody can read the beat either; the next one tells.
            pass
        due_s = loop.time() + BEAT_INTERVAL_S
        try:
            await asyncio.wait_for(stop.wait(), BEAT_INTERVAL_S)
        except TimeoutError:
            metrics.EVENT_LOOP_DELAY.observe(max(loop.time() - due_s, 0.0))
    metrics.ROLE_SERVING.set(0)
    try:
        async with store.database.transaction() as tx:
            await tx.run(FORGET, role=role, instance=instance)
    except Unavailable:
        return


def this_instance() -> str:
    """Return the name of this process among those that serve."""
    return f"{socket.gethostname()}:{os.getpid()}"


async def process_state(tx: Transaction, role: str) -> RoleState:
    """Return the state of the role in this process alone."""
    state = await tx.one(RoleState, OWN, role=role, instance=this_instance(), fresh_s=BEAT_FRESH_S)
    return state or RoleState(role, False, "has not started", None)


async def role_states(tx: Transaction, roles: tuple[str, ...]) -> list[RoleState]:
    """Return the state of each of the roles, in their order."""
    best = {state.role: state for state in await tx.all(RoleState, BEST, fresh_s=BEAT_FRESH_S)}
    return [best.get(role, RoleState(role, False, "has not started", None)) for role in roles]
