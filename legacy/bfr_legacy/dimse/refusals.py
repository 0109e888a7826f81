"""Refusals in the log: each caller's once in a while, however often it tries."""

import logging
import threading
import time
from collections import OrderedDict

INTERVAL_S = 300.0
TOLD_MAX = 1000  # callers that are told of in an interval

log = logging.getLogger("bfr.dimse")


class Refusals:
    """Writes a refusal to the log unless the same has been told of within the interval."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._told: OrderedDict[tuple[object, ...], float] = OrderedDict()
        self._untold: dict[tuple[object, ...], int] = {}

    def tell(self, message: str, *arguments: object) -> None:
        """Tell of a refusal; `arguments` are of the message and say whose and why it is."""
        key = (message, *arguments)
        now = time.monotonic()
        with self._lock:
            while self._told and now - next(iter(self._told.values())) >= self._interval_s:
                self._told.popitem(last=False)
            if key in self._told or len(self._told) >= TOLD_MAX:
                # Whoever makes up a new name each time is counted with all others.
                counted = key if key in self._told else ()
                self._untold[counted] = self._untold.get(counted, 0) + 1
                return
            self._told[key] = now
            before = self._untold.pop(key, 0) + self._untold.pop((), 0)
        log.warning(message + " (%d before this were not told)", *arguments, before)
