"""Process trees: their CPU time and memory as Linux tells them, and their end."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
STOP_TIMEOUT_S = 30.0
WATCH_INTERVAL_S = 1.0


def tree(pid: int) -> list[int]:
    """Return the process and all below it; empty when it is gone."""
    children: dict[int, list[int]] = {}
    present = False
    for entry in os.listdir(PROC):
        if entry.isdigit() and (fields := _stat(int(entry))):
            children.setdefault(int(fields[1]), []).append(int(entry))
            present = present or int(entry) == pid
    if not present:
        return []
    result = [pid]
    for one in result:
        result += children.get(one, [])
    return result


def cpu_s(pid: int) -> float:
    """Return the CPU time that the tree has used, children that have ended included."""
    ticks = 0
    for one in tree(pid):
        if fields := _stat(one):
            ticks += sum(int(value) for value in fields[11:15])
    return ticks / TICKS_PER_S


def pss_bytes(pid: int) -> int:
    """Return the proportional set size of the tree: shared pages counted once."""
    total = 0
    for one in tree(pid):
        try:
            lines = (PROC / str(one) / "smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended, or is ending
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def role_of(pid: int) -> str:
    """Return the role that a process of BFR serves; "" for another process."""
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended
        return ""
    return words[words.index(b"serve") + 1].decode() if b"serve" in words[:-1] else ""


def held_bytes(pid: int) -> int:
    """Return the memory of one process that only its end gives back: no pages of files."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended, or is ending
        return 0
    held = ("Pss_Anon:", "Pss_Shmem:")
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(held))


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat behind the name, empty when the process is gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def start(
    command: Sequence[str], environment: Mapping[str, str], directory: Path, log: Path
) -> "subprocess.Popen[bytes]":
    """Start a program that does not see our Ctrl-C; what it prints goes to the log."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End the program and everything below it, by request first."""
    members = _started_at(tree(process.pid))
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            members |= _started_at(tree(process.pid))
            process.kill()
            process.wait()
    for pid, started_at in members.items():
        # The number may have gone to another process since: the start time tells.
        if pid != process.pid and _started_at([pid]).get(pid) == started_at:
            os.kill(pid, signal.SIGKILL)


def _started_at(pids: Sequence[int]) -> dict[int, str]:
    stats = {pid: _stat(pid) for pid in pids}
    return {pid: fields[19] for pid, fields in stats.items() if fields and fields[0] not in "ZX"}


class MemoryWatch:
    """Notes the largest memory of process trees, once a second."""

    def __init__(self) -> None:
        self._pids: dict[str, int] = {}
        self.peak_bytes: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch", daemon=True)

    def start(self, pids: Mapping[str, int]) -> None:
        """Begin."""
        self._pids = dict(pids)
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(WATCH_INTERVAL_S):
            for name, pid in self._pids.items():
                self.peak_bytes[name] = max(self.peak_bytes.get(name, 0), pss_bytes(pid))


def settle(pids: Sequence[int], longest_s: float, quiet_share: float = 0.08) -> None:
    """Return when the trees use less than this share of one core, or after `longest_s`."""
    end = time.perf_counter() + longest_s
    window_s = 0.25
    before = sum(cpu_s(pid) for pid in pids)
    while time.perf_counter() < end:
        time.sleep(window_s)
        now = sum(cpu_s(pid) for pid in pids)
        if now - before <= quiet_share * window_s:
            return
        before = now
