"""The bridge from the threads of the DIMSE door into the event loop of the core."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from bfr_core.errors import Unavailable

T = TypeVar("T")


class Bridge:
    """Runs coroutines of the core for threads; made by the process that owns the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._running: set[concurrent.futures.Future[Any]] = set()
        self._closed = False

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Return what the coroutine returns; the calling thread waits for it.

        Raises what the coroutine raises, Unavailable when it takes longer than `timeout_s`
        (it is then cancelled) or when the bridge is closed.
        """
        with self._lock:
            if self._closed or self._loop.is_closed():
                coroutine.close()
                raise Unavailable("the archive is stopping")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._running.add(future)
        try:
            return future.result(timeout_s)
        except concurrent.futures.CancelledError as error:
            raise Unavailable("the archive is stopping") from error
        except TimeoutError as error:
            future.cancel()
            raise Unavailable("the archive did not answer in time") from error
        finally:
            with self._lock:
                self._running.discard(future)

    def close(self) -> None:
        """Cancel what still runs; whoever waits for it, or asks later, gets Unavailable."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for future in running:
            future.cancel()
