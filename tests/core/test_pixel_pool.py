"""Frames are worked on in processes that may die without harm to the archive."""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.core.frame_samples import EXPLICIT, GREY, header, little_endian

from bfr_core.errors import Invalid, Unavailable
from bfr_core.pixels import PixelPool, render_frame

PARENT = """
import asyncio, os, signal, time
from bfr_core.pixels import PixelPool

async def main():
    pool = PixelPool(2)
    print(await pool.run(os.getpid), flush=True)
    sleeping = asyncio.ensure_future(pool.run(time.sleep, 60))
    print(await pool.run(os.getpid), flush=True)
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[PixelPool]:
    pool = PixelPool(2, waiting_max=4, call_max_s=20)
    yield pool
    pool.close()


def has_ended(process_id: int) -> bool:
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] in "ZX"


async def await_end(*process_ids: int) -> None:
    for _ in range(600):
        if all(map(has_ended, process_ids)):
            return
        await asyncio.sleep(0.05)
    pytest.fail("the workers go on")


async def test_a_frame_is_rendered_in_another_process_as_in_this_one(pool: PixelPool) -> None:
    frame = little_endian(GREY)
    picture = await pool.run(render_frame, frame, header(GREY), EXPLICIT, viewport=(20, 20))
    assert picture == render_frame(frame, header(GREY), EXPLICIT, viewport=(20, 20))
    assert await pool.run(os.getpid) != os.getpid()


async def test_a_refusal_reaches_the_caller(pool: PixelPool) -> None:
    with pytest.raises(Invalid, match="holds 3 bytes"):
        await pool.run(render_frame, b"abc", header(GREY), EXPLICIT)


async def test_the_event_loop_goes_on_while_a_frame_is_worked_on(pool: PixelPool) -> None:
    call = asyncio.ensure_future(pool.run(time.sleep, 1))
    turns = 0
    while not call.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns > 5


async def test_a_worker_that_dies_takes_only_its_own_call(pool: PixelPool) -> None:
    other = asyncio.ensure_future(pool.run(time.sleep, 1))
    with pytest.raises(Unavailable, match="died"):
        await pool.run(os.abort)
    await other
    assert await pool.run(len, b"abc") == 3


async def test_a_call_that_takes_too_long_is_given_up() -> None:
    pool = PixelPool(1, call_max_s=2)
    process_id = await pool.run(os.getpid)
    with pytest.raises(Unavailable, match="more than 2 s"):
        await pool.run(time.sleep, 60)
    await await_end(process_id)
    assert await pool.run(len, b"abc") == 3
    pool.close()


async def test_more_calls_than_may_wait_are_refused(pool: PixelPool) -> None:
    calls = [asyncio.ensure_future(pool.run(time.sleep, 0.2)) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="4 frames wait"):
        await pool.run(len, b"")
    await asyncio.gather(*calls)
    assert await pool.run(len, b"") == 0


async def test_a_call_cancelled_before_its_turn_is_never_made(tmp_path: Path) -> None:
    pool = PixelPool(1)
    running = asyncio.ensure_future(pool.run(time.sleep, 0.5))
    waiting = asyncio.ensure_future(pool.run(Path.touch, tmp_path / "made"))
    await asyncio.sleep(0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await running
    assert await pool.run(len, b"abc") == 3
    assert not (tmp_path / "made").exists()
    pool.close()


async def test_a_call_cancelled_while_it_runs_leaves_the_pool_whole(pool: PixelPool) -> None:
    await pool.run(len, b"")
    running = asyncio.ensure_future(pool.run(time.sleep, 1))
    await asyncio.sleep(0.3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await asyncio.gather(*(pool.run(len, b"abc") for _ in range(3))) == [3, 3, 3]


async def test_what_cannot_be_sent_to_a_worker_or_back_is_raised(pool: PixelPool) -> None:
    with pytest.raises(TypeError, match="pickle"):
        await pool.run(list, iter(threading.enumerate()))
    with pytest.raises(TypeError, match="pickle"):
        await pool.run(compile, "1", "name", "eval")
    assert await pool.run(len, b"abc") == 3


async def test_workers_ignore_an_interrupt_from_the_keyboard(pool: PixelPool) -> None:
    process_id = await pool.run(os.getpid)
    os.kill(process_id, signal.SIGINT)
    await pool.run(signal.raise_signal, signal.SIGINT)
    assert not has_ended(process_id)


async def test_closing_ends_the_workers_and_fails_what_is_not_done() -> None:
    pool = PixelPool(1)
    process_id = await pool.run(os.getpid)
    calls = [asyncio.ensure_future(pool.run(time.sleep, 60)) for _ in range(3)]
    await asyncio.sleep(0.2)
    pool.close()
    assert has_ended(process_id)
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable] * 3
    with pytest.raises(Unavailable, match="closed"):
        await pool.run(len, b"")


async def test_workers_end_with_their_parent_however_it_ends(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = await asyncio.create_subprocess_exec(
        sys.executable, script, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await parent.communicate()
    assert parent.returncode == -signal.SIGKILL
    await await_end(*map(int, printed.split()))
