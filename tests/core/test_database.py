"""The database: migrations that may meet, a role that may do little, errors that say what to do."""

import asyncio
import datetime
import threading
import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest

from bfr_core import audit
from bfr_core.access import operator
from bfr_core.database import (
    CREATE_AUDIT_PARTITIONS,
    migrate,
    open_database,
    pending_migrations,
)
from bfr_core.errors import Denied, Unavailable
from bfr_core.postgres import Cluster
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store

NOBODY_THERE = "postgresql://bfr@127.0.0.1:1/bfr"


@pytest.fixture
def empty(cluster: Cluster) -> Iterator[str]:
    """The name of a database without tables."""
    name = f"empty_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(cluster.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} OWNER bfr_owner TEMPLATE template0")
    yield name
    with psycopg.connect(cluster.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {str(row[0]) for row in rows}


def test_migrating_twice_applies_nothing_the_second_time(cluster: Cluster, empty: str) -> None:
    url = cluster.url("bfr_owner", empty)
    names = pending_migrations(url)
    assert names == sorted(names)
    assert migrate(url) == names
    assert migrate(url) == []
    assert pending_migrations(url) == []


def test_looking_for_migrations_changes_nothing(cluster: Cluster, empty: str) -> None:
    assert pending_migrations(cluster.url("bfr_owner", empty))
    assert tables(cluster.url("bfr_owner", empty)) == set()


def test_two_that_migrate_at_once_do_not_meet(cluster: Cluster, empty: str) -> None:
    url = cluster.url("bfr_owner", empty)
    wanted = pending_migrations(url)
    done: list[list[str]] = []
    threads = [threading.Thread(target=lambda: done.append(migrate(url))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done, key=len) == [[], [], wanted]


def test_a_lock_that_a_killed_migration_left_keeps_nobody_out(
    cluster: Cluster, database_name: str
) -> None:
    url = cluster.url("bfr_owner", database_name)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO yoyo_lock (locked, ctime, pid) VALUES (1, now(), 1)")
    assert migrate(url) == []


def test_the_wrong_user_is_told_which_setting_names_the_right_one(
    cluster: Cluster, empty: str
) -> None:
    with pytest.raises(Denied, match="BFR_DATABASE_OWNER_URL"):
        migrate(cluster.url("bfr_app", empty))


def test_a_database_that_is_away_is_told_with_the_reason() -> None:
    for ask in (migrate, pending_migrations):
        with pytest.raises(Unavailable, match="refused"):
            ask(NOBODY_THERE)


def test_both_schemes_of_a_postgresql_url_are_known(cluster: Cluster, database_name: str) -> None:
    url = cluster.url("bfr_owner", database_name)
    assert migrate(url.replace("postgresql://", "postgres://")) == []


async def test_a_database_without_tables_says_what_to_do(
    cluster: Cluster, empty: str, with_settings: Callable[..., Settings]
) -> None:
    with psycopg.connect(cluster.url("bfr_owner", empty), autocommit=True) as connection:
        connection.execute(f"GRANT CONNECT ON DATABASE {empty} TO bfr_app")
    url = cluster.url("bfr_app", empty)
    async with open_store(with_settings(database_url=url)) as store:
        with pytest.raises(Unavailable, match="run `bfr migrate`"):
            async with store.database.transaction() as tx:
                await tx.value("SELECT count(*) FROM study")


FORBIDDEN = (
    "DROP TABLE instance",
    "CREATE TABLE mine (one int)",
    "CREATE SCHEMA mine",
    "ALTER TABLE study ADD COLUMN mine int",
    "TRUNCATE event",
    "DELETE FROM _yoyo_migration",
    "UPDATE audit_record SET caller = 'x'",
    "DELETE FROM audit_record",
    "TRUNCATE audit_record",
    "DROP TABLE audit_record_default",
    "ALTER TABLE audit_record DETACH PARTITION audit_record_default",
    "CREATE OR REPLACE FUNCTION create_audit_partition(day date) RETURNS void"
    " LANGUAGE sql AS 'SELECT 1'",
)


async def test_the_application_owns_nothing(store: Store) -> None:
    for statement in FORBIDDEN:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with store.database.transaction() as tx:
                await tx.run(statement)


async def audit_tables(store: Store) -> list[str]:
    async with store.database.transaction() as tx:
        rows = await tx.tuples("SELECT relid::text FROM pg_partition_tree('audit_record')")
    return sorted(row[0] for row in rows)


async def test_no_partition_of_the_audit_trail_can_be_changed(
    store: Store, settings: Settings
) -> None:
    """Neither those made by a migration, nor by the application itself, nor after an update."""
    async with store.database.transaction() as tx:
        await tx.run("SELECT create_audit_partition('2099-03-01')")
    await asyncio.to_thread(migrate, settings.database_owner_url)
    names = await audit_tables(store)
    assert "audit_record_2099_03" in names
    assert len(names) >= 5
    for name in names:
        for statement in (f"DELETE FROM {name}", f"UPDATE {name} SET caller = 'x'"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                async with store.database.transaction() as tx:
                    await tx.run(statement)


async def test_the_application_makes_the_partitions_of_the_coming_months(
    settings: Settings, store: Store
) -> None:
    today = datetime.datetime.now(datetime.UTC).date()
    first = today.replace(day=1)
    with psycopg.connect(settings.database_owner_url, autocommit=True) as connection:
        for name in await audit_tables(store):
            if name not in ("audit_record", "audit_record_default"):
                connection.execute(f"DROP TABLE {name}".encode())
    async with store.database.transaction() as tx:
        await tx.run(CREATE_AUDIT_PARTITIONS)
        await tx.run(CREATE_AUDIT_PARTITIONS)
    months = []
    for _ in range(3):
        months.append(f"audit_record_{first:%Y_%m}")
        first = (first + datetime.timedelta(days=32)).replace(day=1)
    assert await audit_tables(store) == sorted(["audit_record", "audit_record_default", *months])


async def test_no_month_is_left_out(store: Store) -> None:
    """From the 29th of January on, 31 days later is March."""
    for day in ("2027-01-29", "2028-01-31", "2029-12-31"):
        statement = CREATE_AUDIT_PARTITIONS.replace("now()", f"timestamptz '{day} 12:00 UTC'")
        async with store.database.transaction() as tx:
            await tx.run(statement)
        year, month = int(day[:4]), int(day[5:7])
        wanted = {
            f"audit_record_{year + (month + ahead - 1) // 12}_{(month + ahead - 1) % 12 + 1:02d}"
            for ahead in range(3)
        }
        assert wanted <= {*await audit_tables(store)}


async def test_a_record_goes_into_the_partition_of_its_month(store: Store) -> None:
    async with store.database.transaction() as tx:
        await audit.record(tx, operator("tester"), audit.AuditRecord("administer", "bfr"))
        name = await tx.value("SELECT tableoid::regclass::text FROM audit_record")
        month = await tx.value("SELECT to_char(now(), 'YYYY_MM')")
    assert name == f"audit_record_{month}"


async def test_an_error_rolls_the_whole_transaction_back(store: Store) -> None:
    async def fail_after_a_record() -> None:
        async with store.database.transaction() as tx:
            await audit.record(tx, operator("tester"), audit.AuditRecord("administer", "bfr"))
            raise RuntimeError("something else failed")

    with pytest.raises(RuntimeError):
        await fail_after_a_record()
    async with store.database.transaction() as tx:
        assert await tx.value("SELECT count(*) FROM audit_record") == 0


async def test_the_victim_of_a_deadlock_may_run_again_at_once(store: Store) -> None:
    async with store.database.transaction() as tx:
        for name in ("a", "b"):
            await tx.run(
                "INSERT INTO role_beat (role, instance, serving, detail)"
                " VALUES (%(name)s, '', true, '')",
                name=name,
            )
    both_hold_one = asyncio.Barrier(2)
    victims = 0

    async def lock(first: str, second: str) -> None:
        nonlocal victims
        statement = "UPDATE role_beat SET detail = 'x' WHERE role = %(name)s"
        try:
            async with store.database.transaction() as tx:
                await tx.run(statement, name=first)
                await both_hold_one.wait()
                await tx.run(statement, name=second)
        except psycopg.errors.DeadlockDetected:
            victims += 1
            async with store.database.transaction() as tx:
                await tx.run(statement, name=first)
                await tx.run(statement, name=second)

    await asyncio.gather(lock("a", "b"), lock("b", "a"))
    assert victims == 1


async def test_a_connection_that_breaks_off_is_unavailable_and_the_next_one_works(
    store: Store, database_name: str, cluster: Cluster
) -> None:
    async def lose_it() -> None:
        async with store.database.transaction() as tx:
            pid = await tx.value("SELECT pg_backend_pid()")
            async with await psycopg.AsyncConnection.connect(
                cluster.url("postgres", database_name)
            ) as other:
                await other.execute("SELECT pg_terminate_backend(%s)", [pid])
            await tx.value("SELECT 1")

    with pytest.raises(Unavailable):
        await lose_it()
    async with store.database.transaction() as tx:
        assert await tx.value("SELECT 1") == 1


async def test_a_database_that_never_answers_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bfr_core.database.POOL_TIMEOUT_S", 0.3)
    with pytest.raises(Unavailable, match="does not answer"):
        async with open_database(NOBODY_THERE, 1):
            pass
