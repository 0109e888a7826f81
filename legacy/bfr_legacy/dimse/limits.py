"""Limits of single nodes: how many associations at once, and how many a minute.

Counted over all processes of the machine, by files that they share. An open association holds the
lock of a file, so it ends with its process, however that ends.
"""

import array
import fcntl
import os
import threading
import time
from pathlib import Path

from bfr_core.node_terms import NodeTerms

RATE_WINDOW_S = 60.0


class NodeLimits:
    """Counts the associations of each node that has limits of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._held: dict[int, list[int]] = {}  # node → locks of this process's associations

    def enter(self, dicom_node_id: int, terms: NodeTerms) -> bool:
        """Count an association that begins; return False when the node may have none more."""
        rate, most = terms.associations_per_minute_max, terms.associations_max
        if rate is None and most is None:
            return True
        self._directory.mkdir(parents=True, exist_ok=True)
        # The lock of the calls makes processes decide one after the other.
        with (self._directory / f"{dicom_node_id}.calls").open("a+b") as calls:
            fcntl.flock(calls, fcntl.LOCK_EX)
            calls.seek(0)
            begun = _within_window(calls.read())
            if rate is not None and len(begun) >= rate:
                return False
            if most is not None:
                held = self._free_slot(dicom_node_id, most)
                if held is None:
                    return False
                with self._lock:
                    self._held.setdefault(dicom_node_id, []).append(held)
            if rate is not None:
                begun.append(time.monotonic())
            calls.truncate(0)
            calls.write(begun.tobytes())
        return True

    def leave(self, dicom_node_id: int) -> None:
        """Forget an association that has ended."""
        with self._lock:
            held = self._held.get(dicom_node_id)
            if held:
                os.close(held.pop())

    def _free_slot(self, dicom_node_id: int, most: int) -> int | None:
        for number in range(most):
            path = self._directory / f"{dicom_node_id}.{number}"
            slot = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(slot)
                continue
            return slot
        return None


def _within_window(stored: bytes) -> "array.array[float]":
    """Return the moments of the last minute, on the clock that starts with the machine."""
    begun = array.array("d")
    begun.frombytes(stored[: len(stored) // begun.itemsize * begun.itemsize])
    now = time.monotonic()
    return array.array("d", (one for one in begun if 0 <= now - one < RATE_WINDOW_S))
