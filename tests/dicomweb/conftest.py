"""Fixtures: the whole web role behind a real server, alone in its test or shared by a module."""

import asyncio
import contextlib
import re
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
import pytest_asyncio
from tests.conftest import TEMPLATE, add_house

from bfr_command.web import http_server, web_app
from bfr_core.pixels import PixelPool
from bfr_core.postgres import Cluster
from bfr_core.sealing import seal_series
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store

Part = tuple[str, bytes]  # media type, body

Answer = httpx.Response

BOUNDARY = "edge-of-a-part"


@dataclass(frozen=True)
class Web:
    """A running server with the archives ARCHIVE and OTHER, and a client of it."""

    store: Store
    client: httpx.AsyncClient
    port: int

    async def stow(self, *files: bytes, url: str = "/archives/ARCHIVE/dicomweb/studies") -> Answer:
        """Store the Part 10 files in one request."""
        return await self.stow_parts(*(("application/dicom", data) for data in files), url=url)

    async def stow_parts(
        self, *parts: Part, url: str = "/archives/ARCHIVE/dicomweb/studies"
    ) -> Answer:
        """Store parts of any media type in one request."""
        return await self.client.post(
            url, content=multipart(*parts), headers={"Content-Type": related()}
        )

    async def seal(self) -> None:
        """Seal every series, as the worker does when they are quiet."""
        async with self.store.database.transaction() as tx:
            rows = await tx.tuples("SELECT series_id FROM series WHERE state = 'receiving'")
        for (series_id,) in rows:
            assert await seal_series(self.store, series_id) == 0

    async def count(self, table: str) -> int:
        """The number of rows of a table."""
        async with self.store.database.transaction() as tx:
            return int(await tx.value(f"SELECT count(*) FROM {table}"))

    def packs(self) -> list[Path]:
        """The pack files on the disk."""
        return sorted(self.store.blobs.directory.rglob("*.pack"))


async def until(is_so: Callable[[], bool | Awaitable[bool]], timeout_s: float = 60) -> None:
    """Wait for something that tells of itself in no other way."""
    async with asyncio.timeout(timeout_s):
        while True:
            answer = is_so()
            if answer is True or (answer is not False and await answer):
                return
            await asyncio.sleep(0.005)


def related(boundary: str = BOUNDARY, kind: str = "application/dicom") -> str:
    """The Content-Type of a multipart body."""
    return f'multipart/related; type="{kind}"; boundary={boundary}'


def multipart(*parts: Part, boundary: str = BOUNDARY) -> bytes:
    """A multipart body, written by hand as RFC 2046 §5.1 describes it."""
    body = b""
    for media_type, data in parts:
        body += f"--{boundary}\r\nContent-Type: {media_type}\r\n\r\n".encode() + data + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


def parts_of(answer: httpx.Response) -> list[tuple[dict[str, str], bytes]]:
    """The parts of a multipart answer, cut apart without the code under test."""
    kind = answer.headers["content-type"]
    assert kind.startswith("multipart/related"), kind
    match = re.search(r'boundary="?([^";]+)', kind)
    assert match is not None
    delimiter = b"--" + match[1].encode()
    preamble, *pieces, end = (b"\r\n" + answer.content).split(b"\r\n" + delimiter)
    assert (preamble, end.strip()) == (b"", b"--")
    parts = []
    for piece in pieces:
        head, _, body = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        fields = (line.split(": ", 1) for line in head.decode().split("\r\n"))
        parts.append(({name.lower(): value for name, value in fields}, body))
    return parts


def bodies_of(answer: httpx.Response) -> list[bytes]:
    """The bodies of the parts of a multipart answer."""
    return [body for _, body in parts_of(answer)]


@contextlib.contextmanager
def new_settings(cluster: Cluster, directory: Path, **changes: object) -> Iterator[Settings]:
    """Settings with a database of their own, which goes at the end."""
    name = f"web_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(cluster.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER bfr_owner".encode())
    values: dict[str, object] = {
        "data_dir": directory / "var",
        "database_url": cluster.url("bfr_app", name),
        "database_owner_url": cluster.url("bfr_owner", name),
        "database_connections": 4,
        "free_space_min_bytes": 0,
        "seal_quiet_s": 0.0,
        "http_port": 0,
        **changes,
    }
    yield Settings(**values)  # type: ignore[arg-type]
    with psycopg.connect(cluster.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextlib.asynccontextmanager
async def serve(store: Store, pixels: PixelPool) -> AsyncIterator[Web]:
    """The web role on a free port of this machine, in this event loop."""
    server = http_server(web_app(store, pixels), store.settings)
    # With its protocol named, asyncio sends what is short at once (TCP_NODELAY).
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
            yield Web(store, client, port)
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def running(
    settings: Settings, pixels: PixelPool, archives: Sequence[str] = ("ARCHIVE", "OTHER")
) -> AsyncIterator[Web]:
    """A store with archives of these AE titles and a server in front of it."""
    async with open_store(settings) as store:
        for ae_title in archives:
            await add_house(store, ae_title, "MODALITY")
        async with serve(store, pixels) as web:
            yield web


@pytest.fixture(scope="session")
def pixels() -> Iterator[PixelPool]:
    pool = PixelPool(1)
    yield pool
    pool.close()


@pytest_asyncio.fixture(loop_scope="module")
async def web(cluster: Cluster, pixels: PixelPool, tmp_path: Path) -> AsyncIterator[Web]:
    """A server for one test, empty but for its two archives."""
    with new_settings(cluster, tmp_path) as settings:
        async with running(settings, pixels) as web:
            yield web


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared(
    cluster: Cluster, pixels: PixelPool, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Web]:
    """A server for the tests of one module that change nothing, or nothing of each other's."""
    with new_settings(cluster, tmp_path_factory.mktemp("shared")) as settings:
        async with running(settings, pixels) as web:
            yield web
