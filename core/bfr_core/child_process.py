"""Child processes that do not outlive their parent (prctl(2), PR_SET_PDEATHSIG)."""

import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1

# Loaded here, since between fork and exec a process should do as little as it can.
_prctl = ctypes.CDLL(None, use_errno=True).prctl
_prctl.argtypes = [ctypes.c_int, ctypes.c_ulong]
_prctl.restype = ctypes.c_int


def die_with_parent(signal_number: signal.Signals, parent_pid: int) -> None:
    """Have the kernel send `signal_number` to this process when its parent dies, however it dies.

    To be run in the child: as `preexec_fn=partial(die_with_parent, SIGTERM, os.getpid())`, or first
    thing in a worker of a process pool. The signal comes when the *thread* that forked the child
    ends, so children are started from the main thread. Raises OSError.
    """
    if _prctl(_PR_SET_PDEATHSIG, signal_number) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        # The parent died before the call above, which then waits for another parent's death.
        os._exit(1)


def is_running(pid: int) -> bool:
    """Return True when process `pid` lives; a zombie, whose parent does not reap it, does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # The second field is the program's name in parentheses, which may itself hold any character.
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")
