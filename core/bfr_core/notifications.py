"""Notifications: a process hears at once that another has committed something (LISTEN, NOTIFY).

A notification is a hint and carries nothing: what has happened is in rows. Who waits looks there
again after a while in any case, so that a broken connection costs time and loses nothing.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import psycopg

from bfr_core.database import Transaction

log = logging.getLogger("bfr.notifications")

CHANNEL = "bfr_workitem_report"
LISTEN = f"LISTEN {CHANNEL}"
NOTIFY = f"SELECT pg_notify('{CHANNEL}', '')"
LISTEN_AGAIN_AFTER_S = 1.0


async def notify(tx: Transaction) -> None:
    """Tell every process that listens, when the transaction commits."""
    await tx.run(NOTIFY)


class Notifications:
    """The one connection of this process that listens, open while somebody needs it."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._waiting: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[asyncio.Event]:
        """Give an event that is set at each notification; who waits for it clears it."""
        heard = asyncio.Event()
        self._waiting.add(heard)
        if self._task is None:
            self._task = asyncio.create_task(self._listen())
        try:
            yield heard
        finally:
            self._waiting.discard(heard)
            if not self._waiting and self._task is not None:
                task, self._task = self._task, None
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True
                ) as connection:
                    await connection.execute(LISTEN)
                    self._wake()  # for what came before the connection listened
                    async for _ in connection.notifies():
                        self._wake()
            except psycopg.Error as error:
                log.warning("listening to the database broke off: %s", type(error).__name__)
                await asyncio.sleep(LISTEN_AGAIN_AFTER_S)

    def _wake(self) -> None:
        for heard in self._waiting:
            heard.set()
