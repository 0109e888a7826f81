"""No question to the index reads a large table from one end to the other."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from bench.index.loading import load
from bench.index.measuring import statements_of
from bench.index.plans import explain, sequential_scans
from bench.index.questions import QUESTIONS, Question, subjects
from bench.index.studies import Population
from tests.conftest import TEMPLATE

from bfr_core import statistics
from bfr_core.postgres import Cluster
from bfr_core.settings import Settings
from bfr_core.store import open_store

# With so many rows of each table PostgreSQL chooses as it does with a thousand times as many.
POPULATION = Population(studies=30_000, seed=7, studies_a_person=1)
READS_MANIFESTS = {"instances", "instance"}  # the synthetic index has rows alone
ASKED = [question for question in QUESTIONS if question.key not in READS_MANIFESTS]


@pytest.fixture(scope="module")
def index(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A database with a synthetic index."""
    name = f"index_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(cluster.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER bfr_owner")
    load(cluster.url("bfr_owner", name), POPULATION, processes=1)
    yield Settings(
        data_dir=Path(tmp_path_factory.mktemp("index")),
        database_url=cluster.url("bfr_app", name),
        free_space_min_bytes=0,
    )
    with psycopg.connect(cluster.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("question", ASKED, ids=lambda question: question.key)
async def test_a_question_is_answered_by_indexes(index: Settings, question: Question) -> None:
    async with open_store(index) as store:
        for about in subjects(POPULATION, 3, seed=1):
            statements = await statements_of(store, question, about)
            assert statements.listed
            plans = await explain(store.database, statements)
            assert [name for plan in plans for name in sequential_scans(plan)] == []


async def test_a_scan_would_be_seen(index: Settings) -> None:
    """The check itself: a statement without an index of its own."""
    async with open_store(index) as store:
        async with store.database.transaction() as tx:
            told = await tx.value(
                "EXPLAIN (FORMAT JSON) SELECT * FROM study WHERE description = 'x'"
            )
        assert sequential_scans(told[0]["Plan"]) == ["study"]


async def test_totals_are_what_the_tables_hold(index: Settings) -> None:
    async with open_store(index) as store:
        async with store.database.transaction() as tx:
            before = await statistics.archive_contents(tx)
            counted = await tx.tuples(
                "SELECT ae_title, count(*), sum(number_of_instances)::bigint"
                " FROM study JOIN archive USING (archive_id) GROUP BY ae_title ORDER BY ae_title"
            )
            await statistics.sum_up_contents(tx)
            assert await statistics.archive_contents(tx) == before
        assert [(one.ae_title, one.studies, one.instances) for one in before] == counted
