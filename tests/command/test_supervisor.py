"""The supervisor: roles are started again when they die, and none outlives its parent."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bfr_command.supervisor import Role, Supervisor, restart_delay_s
from bfr_core.child_process import is_running


def python(name: str, program: str) -> Role:
    return Role(name, (sys.executable, "-c", textwrap.dedent(program)))


SLEEPER = Role("sleeper", ("sleep", "600"))

STUBBORN = """
    import signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)
    while True:
        time.sleep(60)
"""


class Run:
    """A supervisor at work, and what it says."""

    def __init__(self, *roles: Role, stop_timeout_s: float = 15.0) -> None:
        self.events: list[str] = []
        self.stop = asyncio.Event()
        self._said = asyncio.Event()
        supervisor = Supervisor(
            roles,
            environment=os.environ,
            stop_timeout_s=stop_timeout_s,
            on_event=self._hear,
        )
        self.task = asyncio.create_task(supervisor.run(self.stop))

    def _hear(self, event: str) -> None:
        self.events.append(event)
        self._said.set()

    async def event(self, text: str, count: int = 1) -> str:
        """The `count`th event that holds `text`, as soon as it has happened."""
        async with asyncio.timeout(60):
            while True:
                found = [event for event in self.events if text in event]
                if len(found) >= count:
                    return found[count - 1]
                self._said.clear()
                await self._said.wait()

    async def pid(self, name: str, start: int = 1) -> int:
        return int((await self.event(f"{name} started as process", start)).split()[-1])

    async def end(self) -> int:
        self.stop.set()
        return await self.task


async def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    ("previous_s", "uptime_s", "delay_s"),
    [
        (0.0, 0.0, 0.5),
        (0.5, 0.1, 1.0),
        (1.0, 59.9, 2.0),
        (16.0, 0.0, 30.0),
        (30.0, 1.0, 30.0),
        (30.0, 60.0, 0.5),
        (0.0, 3600.0, 0.5),
    ],
)
def test_the_wait_doubles_up_to_half_a_minute_and_starts_over_after_one(
    previous_s: float, uptime_s: float, delay_s: float
) -> None:
    assert restart_delay_s(previous_s, uptime_s) == delay_s


async def test_a_role_that_is_killed_is_started_again_and_the_others_stay() -> None:
    run = Run(Role("first", ("sleep", "600")), Role("second", ("sleep", "600")))
    first, second = await run.pid("first"), await run.pid("second")
    os.kill(first, signal.SIGKILL)
    again = await run.pid("first", start=2)
    assert again != first
    assert is_running(again)
    assert is_running(second)
    assert "first ended by SIGKILL; next start in 0.5 s" in run.events
    assert await run.end() == 0
    assert not is_running(again)
    assert not is_running(second)


async def test_a_role_that_ends_by_itself_is_started_again_after_a_longer_wait_each_time() -> None:
    run = Run(Role("short", ("sh", "-c", "exit 3")))
    await run.event("next start in 2 s")
    ends = [event for event in run.events if "ended" in event]
    assert ends == [
        "short ended with status 3; next start in 0.5 s",
        "short ended with status 3; next start in 1 s",
        "short ended with status 3; next start in 2 s",
    ]
    assert await run.end() == 0


async def test_a_program_that_is_missing_is_told_and_tried_again(tmp_path: Path) -> None:
    program = tmp_path / "program"
    run = Run(Role("late", (str(program),)))
    await run.event("late could not be started (No such file or directory); next start in 0.5 s")
    program.symlink_to("/bin/cat")  # which ends at once, also just when it is asked to
    await run.pid("late")
    assert await run.end() == 0


async def test_stop_asks_every_role_and_waits_for_the_slowest(
    capfd: pytest.CaptureFixture[str],
) -> None:
    careful = python(
        "careful",
        """
        import signal, sys, time
        def finish(*_):
            time.sleep(0.5)
            print("finished", flush=True)
            sys.exit(0)
        signal.signal(signal.SIGTERM, finish)
        print("ready", flush=True)
        while True:
            time.sleep(60)
        """,
    )
    run = Run(careful, SLEEPER)
    out = ""

    def ready() -> bool:
        nonlocal out
        out += capfd.readouterr().out
        return "careful | ready\n" in out

    await until(ready)
    assert await run.end() == 0
    assert run.events[-2:] == ["sleeper stopped", "careful stopped"]
    assert capfd.readouterr().out == "careful | finished\n"


async def test_a_role_that_fails_while_stopping_is_told_by_the_status(
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = Run(
        Role("failing", ("sh", "-c", "trap 'exit 4' TERM; echo ready; while :; do sleep 0.1; done"))
    )
    await until(lambda: "ready" in capfd.readouterr().out)
    assert await run.end() == 1
    assert run.events[-1] == "failing ended with status 4"


async def test_a_stubborn_role_is_killed_after_the_timeout(
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = Run(python("stubborn", STUBBORN), SLEEPER, stop_timeout_s=0.3)
    pid = await run.pid("stubborn")
    await until(lambda: "stubborn | deaf" in capfd.readouterr().out)
    assert await run.end() == 1
    assert not is_running(pid)
    assert run.events[-2:] == [
        "sleeper stopped",
        "stubborn did not stop when asked and is killed",
    ]


async def test_stop_ends_the_wait_for_the_next_start() -> None:
    run = Run(Role("short", ("false",)))
    await run.event("next start in 2 s")
    assert await run.end() == 0
    assert len([event for event in run.events if "started" in event]) == 3


async def test_nothing_that_a_role_started_is_left_when_it_dies() -> None:
    run = Run(Role("parent", ("sh", "-c", "sleep 600 & wait")))
    pid = await run.pid("parent")
    await until(lambda: bool(children_of(pid)))
    [grandchild] = children_of(pid)
    os.kill(pid, signal.SIGKILL)
    await run.event("parent ended by SIGKILL")
    await until(lambda: not is_running(grandchild))
    assert await run.end() == 0


async def test_a_cancelled_run_leaves_no_child() -> None:
    run = Run(SLEEPER, python("stubborn", STUBBORN))
    pids = [await run.pid("sleeper"), await run.pid("stubborn")]
    run.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run.task
    assert not any(is_running(pid) for pid in pids)


async def test_what_roles_write_is_passed_on_line_by_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    role = python(
        "talker",
        """
        import sys, time
        print("to standard output: åäö")
        print("to standard error", file=sys.stderr)
        sys.stdout.write("x" * 70_000 + "\\n")
        sys.stdout.write("no line's end")
        """,
    )
    run = Run(role)
    await run.event("talker ended")
    await run.end()
    lines = capfd.readouterr().out.splitlines()
    assert lines[:2] == ["talker | to standard output: åäö", "talker | to standard error"]
    assert lines[-1] == "talker | no line's end"
    long = [line.removeprefix("talker | ") for line in lines[2:-1]]
    assert "".join(long) == "x" * 70_000


async def test_roles_get_the_given_environment_and_nothing_else(
    capfd: pytest.CaptureFixture[str],
) -> None:
    stop = asyncio.Event()
    events: list[str] = []

    def hear(event: str) -> None:
        events.append(event)
        if "ended" in event:
            stop.set()

    supervisor = Supervisor(
        [Role("env", ("/usr/bin/env",))], environment={"BFR_HTTP_PORT": "8080"}, on_event=hear
    )
    assert await supervisor.run(stop) == 0
    assert set(capfd.readouterr().out.splitlines()) == {
        "env | BFR_HTTP_PORT=8080",
        "env | PYTHONUNBUFFERED=1",
    }


PARENT_PROGRAM = textwrap.dedent(
    """
    import asyncio, os, sys
    from bfr_command.supervisor import Role, Supervisor

    stubborn = "trap '' TERM; echo deaf; while :; do sleep 0.2; done"
    roles = [Role("quiet", ("sleep", "600"))]
    if "stubborn" in sys.argv:
        roles.append(Role("stubborn", ("sh", "-c", stubborn)))

    def tell(event):
        print(event, flush=True)

    supervisor = Supervisor(
        roles, environment=os.environ, stop_timeout_s=3600, on_event=tell
    )
    sys.exit(asyncio.run(supervisor.run(asyncio.Event())))
    """
)


class Parent:
    """A supervisor in a process of its own, which leads a process group as under a terminal."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT_PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        assert self.process.stdout is not None
        self.lines = self.process.stdout

    def line(self, text: str) -> str:
        for line in self.lines:
            if text in line:
                return line.strip()
        raise AssertionError(f"it ended without saying {text!r}")

    def pid(self, name: str) -> int:
        return int(self.line(f"{name} started as process").split()[-1])

    def __enter__(self) -> "Parent":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.lines.close()


async def test_kill_9_of_the_parent_leaves_no_child() -> None:
    with Parent() as parent:
        child = parent.pid("quiet")
        assert is_running(child)
        parent.process.kill()
        await until(lambda: not is_running(child))


def test_ctrl_c_reaches_the_parent_alone_and_stops_the_roles() -> None:
    with Parent() as parent:
        child = parent.pid("quiet")
        assert os.getpgid(child) != os.getpgid(parent.process.pid)
        os.killpg(parent.process.pid, signal.SIGINT)
        assert parent.line("quiet") == "quiet stopped"
        assert parent.process.wait() == 0
        assert not is_running(child)


def test_sigterm_stops_the_roles() -> None:
    with Parent() as parent:
        child = parent.pid("quiet")
        parent.process.terminate()
        assert parent.process.wait() == 0
        assert not is_running(child)


def test_ctrl_c_twice_kills_at_once() -> None:
    with Parent("stubborn") as parent:
        child = parent.pid("stubborn")
        parent.line("stubborn | deaf")
        os.killpg(parent.process.pid, signal.SIGINT)
        parent.line("quiet stopped")
        assert is_running(child)
        os.killpg(parent.process.pid, signal.SIGINT)
        parent.line("stubborn did not stop when asked and is killed")
        assert parent.process.wait() == 1
        assert not is_running(child)
