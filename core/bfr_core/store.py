"""The store: the opened system, with its database, blobs and everything that stands on them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bfr_core import non_patient_instances
from bfr_core.audit import RecentReads
from bfr_core.blobs import FileBlobs
from bfr_core.bucket_address import read_bucket_address
from bfr_core.continuing import Continuing
from bfr_core.database import Database, open_database
from bfr_core.notifications import Notifications
from bfr_core.postgres import Cluster, embedded_cluster
from bfr_core.receiving import Received
from bfr_core.registration import Registration
from bfr_core.registration_batch import Outcome
from bfr_core.sealed import SealedSeries
from bfr_core.settings import Settings


class Store:
    """What a door needs; it lives as long as its process."""

    def __init__(self, settings: Settings, database: Database, database_url: str) -> None:
        self.settings = settings
        self.database = database
        self.database_url = database_url
        self.blobs = blobs_of(settings)
        self.sealed = SealedSeries(self.blobs, settings.manifest_cache_bytes)
        self.registration = Registration(database, self.sealed, settings.seal_quiet_s)
        self.continuing = Continuing(
            database_url, settings.database_connections, self.registration.places
        )
        self.notifications = Notifications(database_url)
        self.recent_reads = RecentReads(settings.audit_coalesce_s)

    async def commit(self, received: Sequence[Received]) -> list[Outcome]:
        """Return what became of each object, in order, when that can no longer be lost."""
        of_nobody = [one for one in received if one.category is not None]
        if not of_nobody:
            return await self.registration.commit(received)
        of_patients = [one for one in received if one.category is None]
        outcomes = [
            *await non_patient_instances.commit(self, of_nobody),
            *await self.registration.commit(of_patients),
        ]
        by_object = {outcome.received: outcome for outcome in outcomes}
        return [by_object[one] for one in received]


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """Open the system for the length of the block.

    Raises Unavailable when an engine is away, Invalid when the keys of a bucket are missing.
    """
    url = database_url(settings)
    async with open_database(url, settings.database_connections) as database:
        store = Store(settings, database, url)
        try:
            yield store
        finally:
            store.continuing.close()


def blobs_of(settings: Settings) -> FileBlobs:
    """Return the blobs of the settings: a folder, or one with buckets behind it."""
    folder = (settings.blobs_dir, settings.free_space_min_bytes)
    urls = [url for url in (settings.bucket_url, settings.second_bucket_url) if url]
    if not urls:
        return FileBlobs(*folder)
    # Loaded by those alone who have one, for a quick start.
    from bfr_core.buckets import Bucket
    from bfr_core.spool import SpooledBlobs

    buckets = [Bucket(read_bucket_address(url)) for url in urls]
    return SpooledBlobs(*folder, buckets, settings.spool_max_bytes)


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
