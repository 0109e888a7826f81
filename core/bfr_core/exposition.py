"""Exposition: the figures of this process and of its neighbours as Prometheus reads them.

What is counted as it happens stands in `metrics`. What only a look can tell is looked at when
somebody asks: LOOKS lists those functions. A look that fails leaves its figures out.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from prometheus_client import Metric, generate_latest
from prometheus_client.registry import Collector

from bfr_core import metrics, statistics
from bfr_core.errors import Unavailable

if TYPE_CHECKING:
    from bfr_core.store import Store

LOOK_TIMEOUT_S = 3.0

Look = Callable[["Store", str], Awaitable[None]]


async def look_at_disk(store: "Store", role: str) -> None:
    """Tell how much room the packs have."""
    metrics.DISK_FREE.set(store.blobs.free_bytes())
    metrics.DISK_TOTAL.set(store.blobs.total_bytes())


async def look_at_database_pool(store: "Store", role: str) -> None:
    """Tell of the connections that this process keeps."""
    figures = store.database.pool.get_stats()
    idle = figures.get("pool_available", 0)
    metrics.DATABASE_CONNECTIONS.labels("idle").set(idle)
    metrics.DATABASE_CONNECTIONS.labels("busy").set(figures.get("pool_size", 0) - idle)
    metrics.DATABASE_QUEUE.set(figures.get("requests_waiting", 0))


async def look_at_jobs(store: "Store", role: str) -> None:
    """Tell of the background jobs; the worker does, since all processes would tell the same."""
    if role != "worker":
        return
    metrics.JOBS.clear()
    async with store.database.transaction() as tx:
        counts = await statistics.jobs_by_task(tx)
        oldest_s = await statistics.oldest_waiting_job_s(tx)
    for one in counts:
        metrics.JOBS.labels(one.task, one.state).set(one.jobs)
    metrics.OLDEST_JOB.set(oldest_s)


LOOKS: tuple[Look, ...] = (look_at_disk, look_at_database_pool, look_at_jobs)


async def exposition(store: "Store", role: str) -> bytes:
    """Return the figures of this process in Prometheus' text format, marked as those of `role`."""
    for look in LOOKS:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                await look(store, role)
        except (TimeoutError, Unavailable, OSError):
            continue
    return generate_latest(_Marked({"role": role, "process": str(os.getpid())}))


def merged(expositions: Iterable[bytes]) -> bytes:
    """Return the expositions of several processes as one: the lines of each figure together."""
    families: dict[bytes, list[bytes]] = {}
    for text in expositions:
        for family in text.split(b"# HELP ")[1:]:
            meaning, kind, samples = family.split(b"\n", 2)
            known = families.setdefault(meaning, [b"# HELP ", meaning, b"\n", kind, b"\n"])
            known.append(samples)
    return b"".join(b"".join(family) for family in families.values())


class _Marked(Collector):
    """The figures with more labels on each, so that two processes' figures stay apart."""

    def __init__(self, labels: dict[str, str]) -> None:
        self._labels = labels

    def collect(self) -> Iterable[Metric]:
        for family in metrics.REGISTRY.collect():
            marked = Metric(family.name, family.documentation, family.type, family.unit)
            for one in family.samples:
                marked.add_sample(one.name, {**one.labels, **self._labels}, one.value)
            yield marked
