"""The database for the length of a command: the running one, or the embedded one started for it."""

import argparse
import asyncio
import getpass
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from bfr_core.access import Access, operator
from bfr_core.database import migrate, pending_migrations
from bfr_core.errors import Unavailable
from bfr_core.postgres import PostgresProcess, running
from bfr_core.settings import Settings
from bfr_core.store import Store, cluster_of, database_owner_url, open_store


def this_operator() -> Access:
    """Return the access of the user who runs this command."""
    try:
        return operator(getpass.getuser())
    except (KeyError, OSError):  # a container's user need not have a name
        return operator(f"user {os.getuid()}")


@contextmanager
def database_process(settings: Settings) -> Iterator[PostgresProcess | None]:
    """Start the embedded database for the length of the block.

    Gives None when the settings name a database elsewhere. Raises Unavailable when another
    process runs the embedded one already.
    """
    if settings.database_url:
        yield None
        return
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    process = PostgresProcess(
        cluster_of(settings), shared_buffers_bytes=settings.postgres_shared_buffers_bytes
    )
    process.start()
    try:
        yield process
    finally:
        process.stop()


@asynccontextmanager
async def command_store(settings: Settings) -> AsyncIterator[Store]:
    """Open the system for a command, whether `bfr up` runs beside it or not.

    Raises Unavailable when the database cannot be reached or started, or is of an older version.
    """
    if settings.database_url or running(cluster_of(settings)):
        # Asked first, since the store waits long for a database that does not answer.
        pending = await asyncio.to_thread(pending_migrations, database_owner_url(settings))
        if pending:
            raise Unavailable(f"{len(pending)} migrations wait: run `bfr migrate`")
        async with open_store(settings) as store:
            yield store
        return
    with database_process(settings):
        await asyncio.to_thread(migrate, database_owner_url(settings))
        async with open_store(settings) as store:
            yield store


async def migrate_database(settings: Settings, arguments: argparse.Namespace) -> int:
    """Bring the database to this version; tell what was applied."""
    if settings.database_url or running(cluster_of(settings)):
        names = await asyncio.to_thread(migrate, database_owner_url(settings))
    else:
        with database_process(settings):
            names = await asyncio.to_thread(migrate, database_owner_url(settings))
    print("applied: " + ", ".join(names) if names else "nothing to apply", file=sys.stderr)
    return 0
