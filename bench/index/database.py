"""The database of the benchmark: an embedded cluster of its own, started again for cold runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from bfr_core.database import migrate
from bfr_core.postgres import Cluster, PostgresProcess, embedded_cluster
from bfr_core.settings import Settings

DROP_CACHES = Path("/proc/sys/vm/drop_caches")
SIZES = """
    SELECT relname, reltuples::bigint, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
    WHERE relname = ANY(%(tables)s) ORDER BY relname
"""
INDEX_SIZES = """
    SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index
    WHERE indrelid = ANY(%(tables)s::regclass[]) ORDER BY 2 DESC
"""


class BenchDatabase:
    """One cluster in a folder of its own."""

    def __init__(self, directory: Path) -> None:
        self.settings = Settings(data_dir=directory, free_space_min_bytes=0)
        self.cluster: Cluster = embedded_cluster(directory / "postgres")
        self.process = PostgresProcess(self.cluster)

    def start(self) -> None:
        """Start it, made and migrated when it is new."""
        self.process.start()
        migrate(self.owner_url)

    def stop(self) -> None:
        """Stop it."""
        self.process.stop(120.0)

    @property
    def owner_url(self) -> str:
        """Where its tables are owned."""
        return self.cluster.url("bfr_owner")

    def start_cold(self) -> bool:
        """Start it again with nothing in memory; False when the page cache could not be dropped."""
        self.process.stop(120.0)
        os.sync()
        try:
            DROP_CACHES.write_text("3")
            dropped = True
        except OSError:
            dropped = False
        self.process.start()
        return dropped

    def sizes(self, tables: list[str]) -> dict[str, dict[str, int]]:
        """Return rows, bytes of the table and bytes of its indexes."""
        with psycopg.connect(self.owner_url) as connection:
            return {
                name: {"rows": rows, "table_bytes": table, "index_bytes": indexes}
                for name, rows, table, indexes in connection.execute(SIZES, {"tables": tables})
            }

    def index_sizes(self, tables: list[str]) -> dict[str, int]:
        """Return the bytes of each index, the largest first."""
        with psycopg.connect(self.owner_url) as connection:
            return dict(connection.execute(INDEX_SIZES, {"tables": tables}).fetchall())


@contextmanager
def serving(directory: Path) -> Iterator[BenchDatabase]:
    """Give the running database for the length of the block."""
    database = BenchDatabase(directory)
    database.start()
    try:
        yield database
    finally:
        database.stop()
