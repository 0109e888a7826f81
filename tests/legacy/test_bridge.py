"""The bridge from threads into the core's loop."""

import asyncio

import pytest

from bfr_core.errors import Conflict, Unavailable
from bfr_legacy.dimse.bridge import Bridge


async def give(value: str) -> str:
    await asyncio.sleep(0)
    return value


async def fail() -> str:
    raise Conflict("no")


async def never() -> str:
    await asyncio.Event().wait()
    return ""


async def test_a_thread_gets_what_the_coroutine_returns_or_raises() -> None:
    bridge = Bridge(asyncio.get_running_loop())
    assert await asyncio.to_thread(lambda: bridge.run(give("x"), 30)) == "x"
    with pytest.raises(Conflict):
        await asyncio.to_thread(lambda: bridge.run(fail(), 30))


async def test_what_takes_too_long_is_cancelled_and_unavailable() -> None:
    cancelled = asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    bridge = Bridge(asyncio.get_running_loop())
    with pytest.raises(Unavailable):
        await asyncio.to_thread(lambda: bridge.run(slow(), 0.05))
    await cancelled.wait()


async def test_closing_releases_whoever_waits_and_whoever_comes_later() -> None:
    bridge = Bridge(asyncio.get_running_loop())
    waiting = asyncio.create_task(asyncio.to_thread(lambda: bridge.run(never(), 30)))
    await asyncio.sleep(0.05)
    bridge.close()
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await asyncio.to_thread(lambda: bridge.run(never(), 30))
