"""Limits of single nodes: how many associations at once, and how many a minute."""

import threading
import time
from collections import deque

from bfr_core.node_terms import NodeTerms

RATE_WINDOW_S = 60.0


class NodeLimits:
    """Counts the associations of each node that has limits of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, int] = {}  # node → associations
        self._begun: dict[int, deque[float]] = {}  # node → when each of the last minute began

    def enter(self, dicom_node_id: int, terms: NodeTerms) -> bool:
        """Count an association that begins; return False when the node may have none more."""
        now = time.monotonic()
        with self._lock:
            begun = self._begun.setdefault(dicom_node_id, deque())
            while begun and now - begun[0] >= RATE_WINDOW_S:
                begun.popleft()
            rate, most = terms.associations_per_minute_max, terms.associations_max
            if rate is not None and len(begun) >= rate:
                return False
            if most is not None and self._open.get(dicom_node_id, 0) >= most:
                return False
            if rate is not None:
                begun.append(now)
            self._open[dicom_node_id] = self._open.get(dicom_node_id, 0) + 1
            return True

    def leave(self, dicom_node_id: int) -> None:
        """Forget an association that has ended."""
        with self._lock:
            self._open[dicom_node_id] -= 1
