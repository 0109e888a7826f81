"""Measuring: each question asked cold and warm through the core, its plans kept and checked."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.index.plans import (
    Statements,
    WatchedDatabase,
    explain,
    pages_read,
    sequential_scans,
)
from bench.index.questions import QUESTIONS, About, Ask, Question, subjects
from bench.index.studies import SERIES_MAX, Population, SyntheticSeries, SyntheticStudy
from bench.measures import percentile
from bfr_core import locator
from bfr_core.blobs import BlobRef
from bfr_core.database import open_database
from bfr_core.manifest import StoredInstance, write_manifest
from bfr_core.settings import Settings
from bfr_core.store import Store, database_url

CONNECTIONS = 2
PLANS_KEPT = 3  # questions of each kind whose plans are written down


class WrongAnswer(Exception):
    """A question found nothing where there is something."""


@dataclass(slots=True)
class Measured:
    """What one question took, in milliseconds, and how it is answered."""

    question: Question
    cold_ms: list[float] = field(default_factory=list)
    warm_ms: list[float] = field(default_factory=list)
    pages: list[float] = field(default_factory=list)
    plans: list[dict[str, Any]] = field(default_factory=list)
    sequential_scans: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return what is written down."""
        return {
            "key": self.question.key,
            "title": self.question.title,
            "cold": _summary(self.cold_ms),
            "warm": _summary(self.warm_ms),
            "pages": {
                "p50": percentile(self.pages, 0.5),
                "p99": percentile(self.pages, 0.99),
            },
            "sequential_scans": sorted(set(self.sequential_scans)),
        }


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Store]:
    """Open the system on the benchmark's database."""
    url = database_url(settings)
    async with open_database(url, CONNECTIONS) as database:
        yield Store(settings, database, url)


async def measure(
    settings: Settings,
    population: Population,
    samples: int,
    cold_samples: int,
    restart: Callable[[], object],
) -> list[Measured]:
    """Return what every question took; `restart` gives a cold database."""
    listed = [Measured(question) for question in QUESTIONS]
    warm = subjects(population, samples, 1)
    cold = subjects(population, cold_samples, 2)
    async with opened(settings) as store:
        for about in (*warm, *cold):
            await _write_manifests(store, about)
    restart()
    for number, about in enumerate(cold):
        # Questions take turns in being the first that finds nothing in memory.
        turn = [*listed[number % len(listed) :], *listed[: number % len(listed)]]
        async with opened(settings) as store:
            await _ask(store, None, QUESTIONS[0].make(about))  # connects
            for measured in turn:
                ask = measured.question.make(about)
                measured.cold_ms.append(await _ask(store, measured.question, ask))
        restart()
    for measured in listed:
        async with opened(settings) as store:
            for about in warm[: samples // 10]:
                await _ask(store, None, measured.question.make(about))
            for about in warm:
                ask = measured.question.make(about)
                measured.warm_ms.append(await _ask(store, measured.question, ask))
    for measured in listed:
        async with opened(settings) as store:
            for number, about in enumerate(warm):
                statements = await statements_of(store, measured.question, about)
                measured.pages.append(await pages_read(store.database, statements))
                if number < PLANS_KEPT:
                    measured.plans += await explain(store.database, statements)
        measured.sequential_scans = [
            name for plan in measured.plans for name in sequential_scans(plan)
        ]
    return listed


async def statements_of(store: Store, question: Question, about: About) -> Statements:
    """Return the statements that answer a question."""
    plain = store.database
    watched = WatchedDatabase(plain)
    store.database = watched
    try:
        await question.make(about)(store)
    finally:
        store.database = plain
    return watched.statements


async def _ask(store: Store, question: Question | None, ask: Ask) -> float:
    began = time.perf_counter()
    found = await ask(store)
    elapsed_ms = (time.perf_counter() - began) * 1000
    if question is not None and question.finds and not found:
        raise WrongAnswer(f"{question.title} found nothing")
    return elapsed_ms


async def _write_manifests(store: Store, about: About) -> None:
    """Write the manifests that questions about the study come to read, as sealing would."""
    uids = [
        uid
        for series in about.study.series()
        for uid in (series.sop_instance_uid(number) for number in range(series.instances))
    ]
    async with store.database.transaction() as tx:
        places = await locator.find_sealed(tx, uids)
    ids = {place.series_id for place in places}
    for series_id in ids | {series.series_id for series in about.study.series()}:
        study = SyntheticStudy(about.population, series_id // SERIES_MAX - 1)
        series = list(study.series())[series_id % SERIES_MAX]
        await _write_manifest(store, series)


async def _write_manifest(store: Store, series: SyntheticSeries) -> None:
    manifest = write_manifest([_entry(series, number) for number in range(series.instances)])
    await asyncio.to_thread(_put_once, store, series.manifest_key, manifest.data)
    async with store.database.transaction() as tx:
        await tx.run(
            "UPDATE series SET manifest_index_bytes = %(index)s, manifest_bytes = %(whole)s"
            " WHERE series_id = %(series_id)s AND state = 'sealed'",
            index=manifest.index_bytes,
            whole=len(manifest.data),
            series_id=series.series_id,
        )


def _put_once(store: Store, key: str, data: bytes) -> None:
    if not store.blobs.path(key).exists():
        store.blobs.put(key, data)


def _entry(series: SyntheticSeries, number: int) -> tuple[StoredInstance, bytes]:
    uid = series.sop_instance_uid(number)
    size = series.study.instance_bytes
    stored = StoredInstance(
        sop_instance_uid=uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        instance_number=number + 1,
        blob=BlobRef(f"{series.study.archive_id}/pack", number * size, size),
        dataset_offset=1000,
        digest=uid.encode().ljust(32, b".")[:32],
        frames=None,
    )
    header = (
        f'{{"00080018":{{"vr":"UI","Value":["{uid}"]}},'
        f'"00200013":{{"vr":"IS","Value":[{number + 1}]}},'
        '"00280010":{"vr":"US","Value":[512]},"00280011":{"vr":"US","Value":[512]}}'
    )
    return stored, header.encode()


def _summary(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {
        "p50_ms": round(percentile(values, 0.5), 3),
        "p99_ms": round(percentile(values, 0.99), 3),
        "max_ms": round(max(values), 3),
        "questions": len(values),
    }
