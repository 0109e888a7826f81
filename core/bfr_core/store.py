"""The store: the opened system, with its database, blobs and everything that stands on them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bfr_core.audit import RecentReads
from bfr_core.blobs import FileBlobs
from bfr_core.database import Database, open_database
from bfr_core.notifications import Notifications
from bfr_core.postgres import Cluster, embedded_cluster
from bfr_core.receiving import Received
from bfr_core.registration import Outcome, Registration
from bfr_core.sealed import SealedSeries
from bfr_core.settings import Settings


class Store:
    """What a door needs; it lives as long as its process."""

    def __init__(self, settings: Settings, database: Database, database_url: str) -> None:
        self.settings = settings
        self.database = database
        self.database_url = database_url
        self.blobs = FileBlobs(settings.blobs_dir, settings.free_space_min_bytes)
        self.sealed = SealedSeries(self.blobs)
        self.registration = Registration(database, self.sealed, settings.seal_quiet_s)
        self.notifications = Notifications(database_url)
        self.recent_reads = RecentReads(settings.audit_coalesce_s)

    async def commit(self, received: Sequence[Received]) -> list[Outcome]:
        """Return what became of each object, in order, when that can no longer be lost."""
        return await self.registration.commit(received)


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """Open the system for the length of the block. Raises Unavailable when an engine is away."""
    url = database_url(settings)
    async with open_database(url, settings.database_connections) as database:
        yield Store(settings, database, url)


def cluster_of(settings: Settings) -> Cluster:
    """Return the embedded database of the settings, in a folder of its own beside the packs."""
    bin_dir = Path(settings.postgres_bin_dir) if settings.postgres_bin_dir else None
    return embedded_cluster(settings.data_dir / "postgres", bin_dir)


def database_url(settings: Settings) -> str:
    """Return the URL that the roles connect to."""
    return settings.database_url or cluster_of(settings).url("bfr_app")


def database_owner_url(settings: Settings) -> str:
    """Return the URL of the owner of the tables, for migrations."""
    if settings.database_owner_url or settings.database_url:
        return settings.database_owner_url or settings.database_url
    return cluster_of(settings).url("bfr_owner")
