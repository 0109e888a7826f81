"""Pixel pool: processes that decode and render, so that neither an event loop nor its threads do.

A codec that meets a broken frame may take its process down: it takes one call with it.
"""

import asyncio
import logging
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from time import perf_counter
from typing import Any, ParamSpec, TypeVar

from bfr_core import metrics, tracing
from bfr_core.errors import Unavailable

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_START_MAX_S = 60.0
_END_MAX_S = 5.0


@dataclass(frozen=True, slots=True)
class _Call:
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    future: "Future[Any]" = field(default_factory=Future)


class PixelPool:
    """Runs functions in worker processes, one at a time in each.

    The processes start at the first calls, ignore an interrupt from the keyboard, and end with
    this process, however it ends.
    """

    def __init__(
        self, workers: int = 2, *, waiting_max: int = 64, call_max_s: float = 60.0
    ) -> None:
        self._workers_max = workers
        self._waiting_max = waiting_max
        self._call_max_s = call_max_s
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._workers: set[_Worker] = set()
        self._waiting = 0
        self._closed = False

    async def run(
        self,
        function: Callable[_Arguments, _Result],
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> _Result:
        """Return what a function of a module returns; function, arguments and result are pickled.

        A call that is cancelled before its turn is never made; a later one ends on its own.
        Raises what the function raises; Unavailable when `waiting_max` calls are not done yet, the
        worker process dies or takes longer than `call_max_s`, or the pool is closed.
        """
        call = _Call(function, args, kwargs)
        with self._lock:
            if self._closed:
                raise Unavailable("The pixel workers are closed.")
            if self._waiting >= self._waiting_max:
                raise Unavailable(f"{self._waiting} frames wait for a pixel worker already.")
            self._waiting += 1
            metrics.PIXEL_CALLS_OPEN.inc()
            call.future.add_done_callback(self._count_done)
            if len(self._threads) < min(self._workers_max, self._waiting):
                thread = threading.Thread(target=self._serve, name="pixel-pool", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._calls.put(call)
        with tracing.span(f"pixels {function.__name__}"):
            result: _Result = await asyncio.wrap_future(call.future)
        return result

    def close(self) -> None:
        """End the worker processes; calls that are not done raise Unavailable."""
        with self._lock:
            self._closed = True
            threads, self._threads = self._threads, []
            workers = list(self._workers)
        for worker in workers:
            worker.process.kill()
        for _ in threads:
            self._calls.put(None)
        for thread in threads:
            thread.join(_END_MAX_S)

    def _count_done(self, _: "Future[Any]") -> None:
        with self._lock:
            self._waiting -= 1
        metrics.PIXEL_CALLS_OPEN.dec()

    def _serve(self) -> None:
        """Hand calls to one worker process, and to another when it dies."""
        worker: _Worker | None = None
        while (call := self._calls.get()) is not None:
            if not call.future.set_running_or_notify_cancel():
                continue
            try:
                if worker is None:
                    worker = self._start()
                succeeded, outcome = worker.call(call, self._call_max_s)
            except (Unavailable, EOFError, OSError) as error:
                if worker is not None:
                    self._end(worker)
                    worker = None
                if not isinstance(error, Unavailable):
                    unavailable = Unavailable("The pixel worker died at this frame.")
                    unavailable.__cause__ = error
                    error = unavailable
                call.future.set_exception(error)
                continue
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                call.future.set_exception(error)
                continue
            if succeeded:
                call.future.set_result(outcome)
            else:
                call.future.set_exception(outcome)
        if worker is not None:
            self._end(worker)

    def _start(self) -> "_Worker":
        worker = _Worker()
        with self._lock:
            closed = self._closed
            self._workers.add(worker)
        if closed or not worker.connection.poll(_START_MAX_S):
            self._end(worker)
            raise Unavailable("The pixel workers are closed or do not start.")
        worker.connection.recv()
        return worker

    def _end(self, worker: "_Worker") -> None:
        worker.process.kill()
        worker.process.join(_END_MAX_S)
        worker.connection.close()
        with self._lock:
            self._workers.discard(worker)


class _Worker:
    """One worker process and this side of the pipe to it."""

    def __init__(self) -> None:
        # A fresh interpreter: a fork would copy the locks that other threads hold.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_work, args=(theirs,), name="bfr-pixel-worker", daemon=True
        )
        self.process.start()
        theirs.close()

    def call(self, call: _Call, call_max_s: float) -> tuple[bool, Any]:
        """Return whether the call succeeded, and what it returned or raised.

        Raises EOFError or OSError when the process has died, Unavailable when it takes too long.
        """
        began_s = perf_counter()
        outcome = "unavailable"
        metrics.PIXEL_PROCESSES_BUSY.inc()
        try:
            succeeded, result = self._call(call, call_max_s)
            outcome = "success" if succeeded else metrics.outcome_of(result)
            return succeeded, result
        finally:
            metrics.PIXEL_PROCESSES_BUSY.dec()
            duration = metrics.of(metrics.PIXEL_CALL_DURATION, call.function.__name__, outcome)
            duration.observe(perf_counter() - began_s)

    def _call(self, call: _Call, call_max_s: float) -> tuple[bool, Any]:
        self.connection.send((call.function, call.args, call.kwargs))
        if not self.connection.poll(call_max_s):
            raise Unavailable(f"The pixel worker needs more than {call_max_s:g} s for this frame.")
        succeeded, outcome = self.connection.recv()
        return succeeded, outcome


def _work(connection: "Connection[Any, Any]") -> None:
    """Make the calls that come down the pipe, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a library has to say here quotes values of the object; the caller gets the error.
    logging.disable()
    warnings.simplefilter("ignore")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    connection.send(None)
    while True:
        try:
            request = connection.recv_bytes()
        except (EOFError, OSError):
            return
        connection.send_bytes(_answer(request))


def _answer(request: bytes) -> bytes:
    try:
        function, args, kwargs = pickle.loads(request)
        return pickle.dumps((True, function(*args, **kwargs)), pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # the edge of this process: the caller's process raises it
        try:
            return pickle.dumps((False, error))
        except (pickle.PicklingError, AttributeError, TypeError):
            return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))


def _end_with_parent() -> None:
    """End this process once its parent has ended, also in the midst of a frame."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
