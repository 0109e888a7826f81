"""Registration: received objects become studies in the index, in one transaction.

Senders that wait at the same moment share a transaction (group commit). An object exists when
the commit has returned, never before.
"""

import asyncio
import contextvars
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import psycopg

from bfr_core import metrics, tracing
from bfr_core.database import Database
from bfr_core.errors import Conflict, Unavailable
from bfr_core.placing import Place
from bfr_core.receiving import Received
from bfr_core.registration_batch import Batch, Outcome, PlaceGone, SealedElsewhere
from bfr_core.sealed import SealedSeries

if TYPE_CHECKING:
    from opentelemetry.trace import Span

log = logging.getLogger("bfr.registration")

BATCH_MAX = 500
PLACES_MAX = 50_000
ATTEMPTS = 4
SYNC_THREADS = 4


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One sender that waits for a commit."""

    received: Sequence[Received]
    future: asyncio.Future[list[Outcome]]
    since_s: float = field(default_factory=perf_counter)
    span: "Span | None" = field(default_factory=tracing.current)


class Registration:
    """Commits what the doors of this process have received."""

    def __init__(self, database: Database, sealed: SealedSeries, seal_quiet_s: float) -> None:
        self._database = database
        self._sealed = sealed
        self._seal_quiet_s = seal_quiet_s
        self._waiting: list[_Waiting] = []
        self._committer: asyncio.Task[None] | None = None
        self.places: dict[tuple[int, str, str], Place] = {}
        # Threads of its own: a commit never waits for what else the process does in threads.
        self._syncing = ThreadPoolExecutor(SYNC_THREADS, "sync")

    async def commit(self, received: Sequence[Received]) -> list[Outcome]:
        """Return what became of each object, in order, when that can no longer be lost.

        Errors of single objects stand in their outcome and do not touch the others. When
        database or disk fail, every outcome holds Unavailable.
        """
        if not received:
            return []
        # A door whose thread has synced its packs already saves us a thread.
        unsynced = {one.pack for one in received if not one.pack.is_synced}
        try:
            if unsynced:
                loop = asyncio.get_running_loop()
                context = contextvars.copy_context()
                await loop.run_in_executor(self._syncing, context.run, _sync, unsynced)
        except Unavailable as error:
            return counted([Outcome(one, None, error) for one in received])
        future: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(received, future))
        if self._committer is None or self._committer.done():
            # It works for many: what it logs belongs to none of their transactions.
            context = contextvars.Context()
            self._committer = asyncio.create_task(self._commit_waiting(), context=context)
        outcomes = await future
        for outcome in reversed(outcomes):
            if outcome.stored == "identical" or isinstance(outcome.error, Conflict):
                outcome.received.pack.discard_last(outcome.received.blob)
        return counted(outcomes)

    async def _commit_waiting(self) -> None:
        while self._waiting:
            turn = self._take_turn()
            if len(turn) > 1:
                try:
                    await self._commit_together(turn)
                    continue
                except Exception:
                    # One sender's objects may be at fault: the others must not pay for them.
                    log.exception("%d senders' objects are committed one by one", len(turn))
            for one in turn:
                try:
                    await self._commit_together([one])
                except Exception as error:
                    if not one.future.done():
                        one.future.set_exception(error)

    async def _commit_together(self, turn: Sequence[_Waiting]) -> None:
        batch = [received for one in turn for received in one.received]
        began_s = perf_counter()
        for one in turn:
            metrics.COMMIT_WAIT.observe(began_s - one.since_s)
        metrics.COMMIT_OBJECTS.observe(len(batch))
        try:
            with tracing.shared_span("commit", [one.span for one in turn], objects=len(batch)):
                outcomes = await self._register(batch)
        except Unavailable as error:
            outcomes = [Outcome(one, None, error) for one in batch]
        finally:
            metrics.COMMIT_DURATION.observe(perf_counter() - began_s)
        start = 0
        for one in turn:
            if not one.future.done():
                one.future.set_result(outcomes[start : start + len(one.received)])
            start += len(one.received)

    def _take_turn(self) -> list[_Waiting]:
        turn = [self._waiting.pop(0)]
        size = len(turn[0].received)
        while self._waiting and size + len(self._waiting[0].received) <= BATCH_MAX:
            turn.append(self._waiting.pop(0))
            size += len(turn[-1].received)
        return turn

    async def _register(self, batch: Sequence[Received]) -> list[Outcome]:
        known: dict[tuple[str, int], bytes | Unavailable] = {}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self._database.transaction() as tx:
                    work = Batch(tx, batch, self._sealed, self._seal_quiet_s, self.places, known)
                    outcomes = await work.register()
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                self.places.clear()
                if attempt == ATTEMPTS:
                    raise Unavailable("the database is too busy") from None
                continue
            except (PlaceGone, psycopg.errors.ForeignKeyViolation):
                self.places.clear()
                continue
            except SealedElsewhere as found:
                known |= found.known
                continue
            break
        else:
            raise Unavailable("the study changed while it was stored")
        if len(self.places) > PLACES_MAX:
            self.places.clear()
        self.places.update(work.found)
        for one in work.audited:
            one.reception.audited_series.add(one.series_instance_uid)
        return outcomes


def counted(outcomes: list[Outcome]) -> list[Outcome]:
    """Return the outcomes, which the metrics have counted."""
    for one in outcomes:
        door = one.received.reception.door
        if one.error is not None:
            metrics.count_refused(door, one.error)
        elif one.stored is not None:
            metrics.of(metrics.OBJECTS, door, one.stored).inc()
            if one.stored == "new":
                metrics.of(metrics.STORED_BYTES, door).inc(one.received.blob.length)
    return outcomes


def _sync(packs: set[Any]) -> None:
    for pack in packs:
        pack.sync()
