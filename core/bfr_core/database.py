"""The database: connections, transactions and migrations (PostgreSQL 15 or later)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import as_file, files
from time import perf_counter
from typing import Any, LiteralString, TypeVar

import psycopg
import yoyo
from procrastinate import App, PsycopgConnector
from psycopg.rows import class_row, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from bfr_core import metrics, tracing
from bfr_core.errors import Denied, Unavailable

Row = TypeVar("Row")

POOL_TIMEOUT_S = 30.0

# First in a transaction: all that its statements read is as it was at one moment.
ONE_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"

# The application's own role: it may use the tables, never change or own them; the audit trail, in
# each of its partitions, it may only add to. `bfr_app` is missing where an operator gave one URL
# for everything.
GRANTS = """
DO $$
DECLARE
  one regclass;
BEGIN
  IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'bfr_app') THEN
    GRANT USAGE ON SCHEMA public TO bfr_app;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO bfr_app;
    GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO bfr_app;
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO bfr_app;
    FOR one IN SELECT relid FROM pg_partition_tree('audit_record') LOOP
      EXECUTE format('REVOKE UPDATE, DELETE ON %s FROM bfr_app', one);
    END LOOP;
    FOR one IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relname ~ '^_?yoyo_' LOOP
      EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON %s FROM bfr_app', one);
    END LOOP;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT ON TABLES TO bfr_app;
  END IF;
END $$
"""
# This month's and the next two: not in steps of 31 days, which would leave out a February.
CREATE_AUDIT_PARTITIONS = """
SELECT create_audit_partition((date_trunc('month', now()) + ahead * interval '1 month')::date)
FROM generate_series(0, 2) AS ahead
"""
HAS_JOB_TABLES = "SELECT to_regclass('procrastinate_jobs') IS NOT NULL"
HAS_MIGRATIONS = "SELECT to_regclass('_yoyo_migration') IS NOT NULL"
MAY_CREATE = "SELECT has_schema_privilege('public', 'CREATE')"
# One number for all processes that migrate one database. The lock goes with its connection; yoyo's
# own, a row, would stay when its process is killed, so what is found of it under ours is stale.
LOCK_MIGRATIONS = "SELECT pg_advisory_lock(424652)"
HAS_STALE_LOCK = "SELECT to_regclass('yoyo_lock') IS NOT NULL"
DROP_STALE_LOCK = "DELETE FROM yoyo_lock"


class Transaction:
    """One database transaction; what it did is kept when its block ends without an error."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection

    async def one(self, row_type: type[Row], sql: str, **params: object) -> Row | None:
        """Return the first row as `row_type`, or None when there is none."""
        async with self.connection.cursor(row_factory=class_row(row_type)) as cursor:
            await cursor.execute(sql.encode(), params or None)
            return await cursor.fetchone()

    async def all(self, row_type: type[Row], sql: str, **params: object) -> list[Row]:
        """Return every row as `row_type`."""
        async with self.connection.cursor(row_factory=class_row(row_type)) as cursor:
            await cursor.execute(sql.encode(), params or None)
            return await cursor.fetchall()

    async def rows(self, sql: str, **params: object) -> list[dict[str, Any]]:
        """Return every row as a dict."""
        async with self.connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(sql.encode(), params or None)
            return await cursor.fetchall()

    async def tuples(self, sql: str, **params: object) -> list[tuple[Any, ...]]:
        """Return every row as a tuple."""
        cursor = await self.connection.execute(sql.encode(), params or None)
        return await cursor.fetchall()

    async def value(self, sql: str, **params: object) -> Any:
        """Return the first column of the first row, or None when there is no row."""
        cursor = await self.connection.execute(sql.encode(), params or None)
        row = await cursor.fetchone()
        return None if row is None else row[0]

    async def run(self, sql: str, **params: object) -> int:
        """Run a statement and return the number of rows it changed."""
        cursor = await self.connection.execute(sql.encode(), params or None)
        return cursor.rowcount


class Database:
    """A pool of connections to one database."""

    def __init__(self, pool: "AsyncConnectionPool[psycopg.AsyncConnection[Any]]") -> None:
        self.pool = pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Give a transaction that commits at the end of the block and rolls back on an error.

        Raises Unavailable when the database cannot be reached, breaks off or lacks our tables.
        DeadlockDetected and SerializationFailure come through as they are: the same transaction
        may succeed when it is run again at once.
        """
        async with self.statement() as alone, alone.connection.transaction():
            yield alone

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[Transaction]:
        """Give a transaction for one statement, which is committed when it returns.

        A second one would be another transaction. Raises as `transaction`.
        """
        try:
            asked_s = perf_counter()
            with tracing.span("database transaction"):
                async with self.pool.connection() as connection:
                    began_s = perf_counter()
                    metrics.DATABASE_WAIT.observe(began_s - asked_s)
                    outcome = "rolled_back"
                    try:
                        yield Transaction(connection)
                        outcome = "committed"
                    finally:
                        duration = metrics.of(metrics.DATABASE_DURATION, outcome)
                        duration.observe(perf_counter() - began_s)
        except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
            raise
        except psycopg.errors.UndefinedTable as error:
            raise Unavailable("the database lacks its tables: run `bfr migrate`") from error
        except (psycopg.OperationalError, PoolTimeout) as error:
            # After a restart of the server every kept connection is broken: one failure is enough.
            await self.pool.check()
            raise Unavailable(f"the database is not available: {type(error).__name__}") from error


@asynccontextmanager
async def open_database(url: str, connections: int) -> AsyncIterator[Database]:
    """Open a pool on `url` for the length of the block.

    Raises Unavailable when no connection can be made.
    """
    pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]] = AsyncConnectionPool(
        url,
        kwargs={"autocommit": True},
        min_size=1,
        max_size=connections,
        open=False,
        timeout=POOL_TIMEOUT_S,
    )
    await pool.open()
    try:
        await pool.wait(POOL_TIMEOUT_S)
    except PoolTimeout as error:
        await pool.close()
        raise Unavailable("the database does not answer") from error
    try:
        yield Database(pool)
    finally:
        await pool.close()


def migrate(owner_url: str) -> list[str]:
    """Bring the database to this version and return the names of the migrations applied.

    Forward only; safe to run twice and from two processes at once. Raises Unavailable when the
    database cannot be reached, Denied when it does not let this user change tables.
    """
    try:
        with psycopg.connect(owner_url, autocommit=True) as connection:
            if not _tells(connection, MAY_CREATE):
                raise Denied(
                    "the database does not let this user change its tables: give the URL of their"
                    " owner as BFR_DATABASE_OWNER_URL"
                )
            connection.execute(LOCK_MIGRATIONS)
            if _tells(connection, HAS_STALE_LOCK):
                connection.execute(DROP_STALE_LOCK)
            with (
                as_file(files("bfr_core") / "migrations") as directory,
                yoyo.get_backend(_backend_url(owner_url)) as backend,
            ):
                migrations = backend.to_apply(yoyo.read_migrations(str(directory)))
                names = [migration.id for migration in migrations]
                backend.apply_migrations(migrations)
            asyncio.run(_apply_job_tables(owner_url))
            connection.execute(GRANTS)
            connection.execute(CREATE_AUDIT_PARTITIONS)
    except psycopg.OperationalError as error:
        raise _unavailable(error) from error
    return names


def pending_migrations(owner_url: str) -> list[str]:
    """Return the names of the migrations that `migrate` would apply; changes nothing.

    Raises Unavailable when the database cannot be reached.
    """
    try:
        with (
            as_file(files("bfr_core") / "migrations") as directory,
            psycopg.connect(owner_url, autocommit=True) as connection,
        ):
            migrations = yoyo.read_migrations(str(directory))
            if not _tells(connection, HAS_MIGRATIONS):
                return [migration.id for migration in migrations]
            with yoyo.get_backend(_backend_url(owner_url)) as backend:
                return [migration.id for migration in backend.to_apply(migrations)]
    except psycopg.OperationalError as error:
        raise _unavailable(error) from error


def _tells(connection: psycopg.Connection[Any], question: LiteralString) -> bool:
    return connection.execute(question).fetchone() == (True,)


def _unavailable(error: psycopg.OperationalError) -> Unavailable:
    # The first line names host and reason; only the operator who gave the URL comes here.
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return Unavailable(f"the database is not available: {reason}")


def _backend_url(url: str) -> str:
    return "postgresql+psycopg://" + url.partition("://")[2]


async def _apply_job_tables(owner_url: str) -> None:
    async with App(connector=PsycopgConnector(conninfo=owner_url)).open_async() as app:
        row = await app.connector.execute_query_one_async(f"{HAS_JOB_TABLES} AS present")
        if not row["present"]:
            await app.schema_manager.apply_schema_async()
