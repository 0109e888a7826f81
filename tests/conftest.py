"""Fixtures: a real PostgreSQL for the run, an opened store with a database of its own per test."""

import os
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import psycopg
import pytest

from bfr_core import connections
from bfr_core.access import Access, operator
from bfr_core.connections import Archive
from bfr_core.database import migrate
from bfr_core.postgres import Cluster, PostgresProcess, embedded_cluster
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store

if TYPE_CHECKING:
    from tests.object_storage import ObjectStorage

# No test asserts a time; CI sees the same examples each time, a developer new ones.
hypothesis.settings.register_profile(
    "bfr",
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("bfr")

TEMPLATE = "bfr_template"
SHARED_DICOM = Path(__file__).parents[2] / "shared" / "data" / "dicom"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what is quick and near the core first."""
    order = ["core", "dicomweb", "legacy", "ui", "command", "peers", "faults", "journeys"]
    rank = {name: number for number, name in enumerate(order)}
    items.sort(key=lambda item: rank.get(item.path.parent.name, len(order)))


def need(program: str) -> str:
    """Return the path of a peer's program; without it the test fails in CI and is skipped else."""
    path = shutil.which(program)
    if path is None:
        reason = f"{program} is not installed"
        if os.environ.get("BFR_REQUIRE_PEERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    bin_dir = os.environ.get("BFR_TEST_DATABASE_BIN_DIR")
    cluster = embedded_cluster(
        tmp_path_factory.mktemp("postgres"), Path(bin_dir) if bin_dir else None
    )
    process = PostgresProcess(cluster, shared_buffers_bytes=128 * 1024 * 1024)
    process.start()
    with psycopg.connect(cluster.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {TEMPLATE} OWNER bfr_owner")
    migrate(cluster.url("bfr_owner", TEMPLATE))
    yield cluster
    process.stop()


@pytest.fixture
def database_name(cluster: Cluster) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(cluster.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER bfr_owner")
    yield name
    with psycopg.connect(cluster.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def settings(cluster: Cluster, database_name: str, tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "var",
        database_url=cluster.url("bfr_app", database_name),
        database_owner_url=cluster.url("bfr_owner", database_name),
        free_space_min_bytes=0,
        seal_quiet_s=0.0,
        http_port=0,
        dimse_port=0,
        pixel_processes=1,
    )


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with open_store(settings) as opened:
        yield opened


@dataclass(frozen=True)
class House:
    """One connection with its archive and one registered node."""

    archive: Archive
    node: Access


async def add_house(store: Store, ae_title: str, node_ae_title: str) -> House:
    """Register a connection with an archive and a node."""
    access = operator("test")
    name = f"PACS of {ae_title}"
    async with store.database.transaction() as tx:
        await connections.add_connection(tx, access, name, "test")
        archive = await connections.add_archive(tx, access, name, ae_title, "Test archive")
        await connections.add_node(tx, access, name, node_ae_title, "127.0.0.1", 11113)
    node = Access(kind="node", subject=node_ae_title, archive_ids=frozenset([archive.archive_id]))
    return House(archive, node)


@pytest.fixture
async def house(store: Store) -> House:
    return await add_house(store, "ARCHIVE", "MODALITY")


@pytest.fixture(scope="session")
def shared_object_storage(
    tmp_path_factory: pytest.TempPathFactory,
) -> "Iterator[ObjectStorage]":
    from tests.object_storage import running_object_storage

    with running_object_storage(tmp_path_factory.mktemp("objects") / "swift") as storage:
        yield storage


@pytest.fixture
def object_storage(
    shared_object_storage: "ObjectStorage", monkeypatch: pytest.MonkeyPatch
) -> "Iterator[ObjectStorage]":
    """A real S3 server, whose keys are in the environment; tests make buckets of their own."""
    for name, value in shared_object_storage.environment.items():
        monkeypatch.setenv(name, value)
    yield shared_object_storage
    if not shared_object_storage.is_running:
        shared_object_storage.start()


@pytest.fixture
def with_settings(settings: Settings) -> Callable[..., Settings]:
    """Give a function that returns the test's settings with some of them changed."""

    def change(**changes: object) -> Settings:
        return replace(settings, **changes)  # type: ignore[arg-type]

    return change
