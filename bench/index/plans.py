"""Plans: how PostgreSQL would answer, without a sequential scan of a large table."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bfr_core.database import Database, Transaction

LARGE_TABLES = frozenset({"patient", "study", "series", "instance", "event", "audit_record"})


@dataclass(slots=True)
class Statements:
    """Every SELECT that was run, with its parameters."""

    listed: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def add(self, sql: str, params: dict[str, object]) -> None:
        """Keep a statement that reads."""
        if sql.lstrip().upper().startswith(("SELECT", "WITH")):
            self.listed.append((sql, params))


class WatchedTransaction(Transaction):
    """A transaction whose statements are kept."""

    def __init__(self, tx: Transaction, statements: Statements) -> None:
        super().__init__(tx.connection)
        self._statements = statements

    async def one(self, row_type: type[Any], sql: str, **params: object) -> Any:
        """As in Transaction."""
        self._statements.add(sql, params)
        return await super().one(row_type, sql, **params)

    async def all(self, row_type: type[Any], sql: str, **params: object) -> list[Any]:
        """As in Transaction."""
        self._statements.add(sql, params)
        return await super().all(row_type, sql, **params)

    async def rows(self, sql: str, **params: object) -> list[dict[str, Any]]:
        """As in Transaction."""
        self._statements.add(sql, params)
        return await super().rows(sql, **params)

    async def tuples(self, sql: str, **params: object) -> list[tuple[Any, ...]]:
        """As in Transaction."""
        self._statements.add(sql, params)
        return await super().tuples(sql, **params)

    async def value(self, sql: str, **params: object) -> Any:
        """As in Transaction."""
        self._statements.add(sql, params)
        return await super().value(sql, **params)


class WatchedDatabase(Database):
    """A database whose statements are kept."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.pool)
        self.statements = Statements()

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[Transaction]:
        """As in Database, whose transactions begin with it too."""
        async with super().statement() as tx:
            yield WatchedTransaction(tx, self.statements)


async def explain(database: Database, statements: Statements) -> list[dict[str, Any]]:
    """Return the plan of each statement that was kept, as PostgreSQL tells it."""
    plans = []
    async with database.transaction() as tx:
        for sql, params in statements.listed:
            told = await tx.value("EXPLAIN (FORMAT JSON) " + sql, **params)
            plans.append(told[0]["Plan"])
    return plans


async def pages_read(database: Database, statements: Statements) -> int:
    """Return how many pages the statements touch, in memory or not: a measure no load disturbs."""
    pages = 0
    async with database.transaction() as tx:
        for sql, params in statements.listed:
            told = await tx.value(
                "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) " + sql, **params
            )
            plan = told[0]["Plan"]
            pages += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return pages


def sequential_scans(plan: dict[str, Any]) -> list[str]:
    """Return the large tables that a plan reads from one end to the other."""
    return [
        node["Relation Name"]
        for node in _nodes(plan)
        if node["Node Type"] == "Seq Scan"
        and any(node["Relation Name"].startswith(table) for table in LARGE_TABLES)
    ]


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
