"""Progress of long work: one line that renews itself on a terminal, a few lines in a log."""

import sys
import time

INTERVAL_S = 0.2
LOG_INTERVAL_S = 5.0


class Progress:
    """Shows how much of the work is done."""

    def __init__(self, verb: str, total: int) -> None:
        self._verb = verb
        self._total = total
        self._terminal = sys.stderr.isatty()
        self._interval_s = INTERVAL_S if self._terminal else LOG_INTERVAL_S
        self._shown_at = time.monotonic()
        self._begun = False  # a line that is not ended yet

    def show(self, done: int) -> None:
        """Show that `done` of all are done, now and then."""
        now = time.monotonic()
        if done < self._total and now - self._shown_at < self._interval_s:
            return
        self._shown_at = now
        text = f"{self._verb} {done}/{self._total}"
        if self._terminal:
            print(f"\r{text}", end="", file=sys.stderr, flush=True)
            self._begun = True
        else:
            print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self._begun:
            print(file=sys.stderr)
            self._begun = False
