"""The roles of one machine as child processes under one parent, started again when one dies."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import FileIO

from bfr_core.child_process import die_with_parent

_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 30.0
_SETTLED_AFTER_S = 60.0
_LINE_BYTES = 64 * 1024
_OUTPUT_END_TIMEOUT_S = 1.0
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STOPPED_CLEANLY = (0, -signal.SIGTERM, 128 + signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Role:
    """One child process: what it is called and its command line."""

    name: str
    command: tuple[str, ...]
    sockets: tuple[int, ...] = ()  # file descriptors that the child inherits


def restart_delay_s(previous_s: float, uptime_s: float) -> float:
    """Return how long to wait before a role that was up for `uptime_s` is started again.

    `previous_s` is the wait before that start, 0 for the first one.
    """
    if previous_s == 0 or uptime_s >= _SETTLED_AFTER_S:
        return _FIRST_DELAY_S
    return min(2 * previous_s, _LONGEST_DELAY_S)


class Supervisor:
    """The parent of all roles.

    What a role writes goes to this process's standard output line by line, `named` behind the
    role's name; what happens to a role goes to `on_event` as one sentence.
    """

    def __init__(
        self,
        roles: Sequence[Role],
        *,
        environment: Mapping[str, str],
        stop_timeout_s: float = 15.0,
        on_event: Callable[[str], None],
        named: bool = True,
    ) -> None:
        self._roles = tuple(roles)
        # A pipe would make Python hold its output back until a buffer is full.
        self._environment = {"PYTHONUNBUFFERED": "1", **environment}
        self._stop_timeout_s = stop_timeout_s
        self._on_event = on_event
        self._named = named
        self._at_once = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> int:
        """Keep all roles running until `stop` is set, then stop them.

        SIGINT and SIGTERM set `stop` while this runs; a SIGINT after that kills what is left at
        once. Returns 0 when every role ended on request and without failure, else 1. Raises
        RuntimeError outside the main thread.
        """
        loop = asyncio.get_running_loop()
        for signal_number in _STOP_SIGNALS:
            loop.add_signal_handler(signal_number, self._interrupt, signal_number, stop)
        try:
            async with asyncio.TaskGroup() as tasks:
                kept = [tasks.create_task(self._keep(role, stop)) for role in self._roles]
        finally:
            for signal_number in _STOP_SIGNALS:
                loop.remove_signal_handler(signal_number)
        return 0 if all(task.result() for task in kept) else 1

    def _interrupt(self, signal_number: signal.Signals, stop: asyncio.Event) -> None:
        if stop.is_set() and signal_number == signal.SIGINT:
            self._at_once.set()
        stop.set()

    async def _keep(self, role: Role, stop: asyncio.Event) -> bool:
        """Return True when `role` stopped cleanly."""
        loop = asyncio.get_running_loop()
        delay_s = 0.0
        while not stop.is_set():
            started_s = loop.time()
            try:
                async with self._running(role) as child:
                    await _until(stop, child.ended)
                    if stop.is_set():
                        return await self._stop(role, child)
                    reason = _ending(await child.end())
            except OSError as error:
                reason = f"could not be started ({error.strerror})"
            delay_s = restart_delay_s(delay_s, loop.time() - started_s)
            self._on_event(f"{role.name} {reason}; next start in {delay_s:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), delay_s)
        return True

    @contextlib.asynccontextmanager
    async def _running(self, role: Role) -> AsyncIterator["_Child"]:
        """Yield the started child; at the end nothing of it is left. Raises OSError."""
        child, output = self._start(role)
        passed_on = asyncio.create_task(_pass_on(f"{role.name} | " if self._named else "", output))
        try:
            self._on_event(f"{role.name} started as process {child.pid}")
            yield child
        finally:
            await child.end()
            await asyncio.wait([passed_on], timeout=_OUTPUT_END_TIMEOUT_S)
            passed_on.cancel()
            await asyncio.wait([passed_on])
            output.close()

    def _start(self, role: Role) -> tuple["_Child", FileIO]:
        """Return the child and the end of the pipe that it writes to. Raises OSError."""
        read_fd, write_fd = os.pipe()
        try:
            process = subprocess.Popen(
                role.command,
                stdin=subprocess.DEVNULL,
                stdout=write_fd,
                stderr=write_fd,
                env=self._environment,
                pass_fds=role.sockets,
                # A terminal sends Ctrl-C to every process of its session's foreground group. In a
                # session of its own a role never sees it and cannot die half-way: we alone do, and
                # pass it on as SIGTERM. (Ignoring SIGINT would not hold, since servers set handlers
                # of their own.) The death signal follows the parent, not the session, so it still
                # comes.
                start_new_session=True,
                preexec_fn=partial(die_with_parent, signal.SIGTERM, os.getpid()),
            )
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        return _Child(process), FileIO(read_fd)

    async def _stop(self, role: Role, child: "_Child") -> bool:
        child.terminate()
        if not await _until(self._at_once, child.ended, timeout_s=self._stop_timeout_s):
            self._on_event(f"{role.name} did not stop when asked and is killed")
            return False
        status = await child.end()
        clean = status in _STOPPED_CLEANLY
        self._on_event(f"{role.name} {'stopped' if clean else _ending(status)}")
        return clean


class _Child:
    """A child process, which stays a zombie until `end`: till then its number is no other's."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid
        self.ended = asyncio.Event()
        self._pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._hear_end)

    def _hear_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self.ended.set()

    def terminate(self) -> None:
        """Ask the child to stop."""
        # Not by Popen, which reaps the child when it has ended by itself in the meantime.
        signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    async def end(self) -> int:
        """Return the exit status, after killing what is left of the child and its children."""
        if self._process.returncode is None:
            # The session's id is the child's, so this reaches its own children as well.
            os.killpg(self.pid, signal.SIGKILL)
            await self.ended.wait()
            os.close(self._pidfd)
            self._process.wait()
        return self._process.returncode


async def _until(
    event: asyncio.Event, other: asyncio.Event, timeout_s: float | None = None
) -> bool:
    """Return True when `other` has happened; waits no longer than for `event` or `timeout_s`."""
    happened = [asyncio.create_task(event.wait()), asyncio.create_task(other.wait())]
    await asyncio.wait(happened, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for task in happened:
        task.cancel()
    return other.is_set()


def _ending(status: int) -> str:
    if -status in [*signal.Signals]:
        return f"ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


async def _pass_on(head: str, output: FileIO) -> None:
    """Write to standard output what comes from `output`, each line behind `head`."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), output
    )
    try:
        begun = b""
        while read := await reader.read(_LINE_BYTES):
            *lines, begun = (begun + read).split(b"\n")
            if len(begun) >= _LINE_BYTES:
                lines.append(begun)
                begun = b""
            _write(head, lines)
        if begun:
            _write(head, [begun])
    finally:
        transport.close()


def _write(head: str, lines: Sequence[bytes]) -> None:
    # A role stands still when nobody reads what it says, so it is read also when nobody listens.
    with contextlib.suppress(OSError):
        for line in lines:
            sys.stdout.buffer.write(b"%s%s\n" % (head.encode(), line))
        sys.stdout.buffer.flush()
