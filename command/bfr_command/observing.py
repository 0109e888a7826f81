"""Observing: /metrics, /healthz and /readyz of every process.

Each process answers on a socket file in `run_dir`, so that any of them can tell the figures of
all that run on this machine, several of one role among them (ADR 7). With `observe_port` each
answers there too: for roles that speak no HTTP, and for pods.
"""

import asyncio
import glob
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import orjson

from bfr_core import roles
from bfr_core.errors import Unavailable
from bfr_core.exposition import exposition, merged
from bfr_core.roles import RoleState
from bfr_core.store import Store

log = logging.getLogger("bfr.observing")

TEXT = "text/plain; charset=utf-8"
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' text format
REQUEST_MAX_BYTES = 8192
REQUEST_TIMEOUT_S = 5.0
NEIGHBOUR_TIMEOUT_S = 5.0

Answer = tuple[int, str, bytes]  # HTTP status, media type, body
Resource = Callable[[], Awaitable[Answer]]


async def healthz() -> Answer:
    """Answer 200: this process runs and its event loop turns."""
    return 200, TEXT, b"ok\n"


async def readiness(store: Store, role: str | None = None) -> Answer:
    """Answer 200 when every role serves, or with `role` this process alone; else 503.

    The body tells of each role, the database and the disk. A full disk makes nothing unready:
    what is stored can still be read, and reception answers for itself.
    """
    told: dict[str, str | bool] = {}
    states: list[RoleState] = []
    try:
        async with store.database.transaction() as tx:
            if role is None:
                states = await roles.role_states(tx, store.settings.roles)
            else:
                states = [await roles.process_state(tx, role)]
        told = {one.role: one.detail or one.ready for one in states}
        told["database"] = True
    except Unavailable as error:
        told["database"] = error.message
    try:
        store.blobs.require_space()
        told["disk"] = True
    except (Unavailable, OSError) as error:
        told["disk"] = error.message if isinstance(error, Unavailable) else "cannot be reached"
    ready = bool(states) and all(one.ready for one in states)
    return 200 if ready else 503, "application/json", orjson.dumps(told)


async def figures(store: Store, role: str) -> Answer:
    """Answer with the figures of every process of this machine."""
    neighbours = _neighbours(store.settings.run_dir, role)
    every = await asyncio.gather(exposition(store, role), *map(_figures_of, neighbours))
    return 200, EXPOSITION, merged(every)


@asynccontextmanager
async def observed(store: Store, role: str) -> AsyncIterator[None]:
    """Answer about this process for the length of the block.

    Whatever keeps it from answering is logged and no more: figures never stop reception.
    """

    async def own_figures() -> Answer:
        return 200, EXPOSITION, await exposition(store, role)

    resources: dict[str, Resource] = {
        "/healthz": healthz,
        "/readyz": lambda: readiness(store, role),
        "/metrics": lambda: figures(store, role),
    }
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(
                _at_socket_file(store.settings.run_dir, role, {"/metrics": own_figures})
            )
            if store.settings.observe_port:
                await stack.enter_async_context(_at_port(store, resources))
        except OSError as error:
            log.error("the figures of this process cannot be told: %s", error.strerror or error)
        yield


@asynccontextmanager
async def _at_port(store: Store, resources: Mapping[str, Resource]) -> AsyncIterator[None]:
    # Every process of a machine may listen there: each can tell of all.
    server = await asyncio.start_server(
        _answering(resources),
        store.settings.observe_host,
        store.settings.observe_port,
        limit=REQUEST_MAX_BYTES,
        reuse_port=True,
    )
    try:
        yield
    finally:
        server.close()


@asynccontextmanager
async def _at_socket_file(
    run_dir: Path, role: str, resources: Mapping[str, Resource]
) -> AsyncIterator[None]:
    path = run_dir / _file_name(role)
    unfinished = run_dir / f".{path.name}"
    server = await asyncio.start_unix_server(
        _answering(resources), sock=_bound(unfinished), limit=REQUEST_MAX_BYTES
    )
    os.rename(unfinished, path)  # it appears when it answers
    try:
        yield
    finally:
        _remove(path)
        server.close()


def _bound(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    _remove(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _short(path) as name:
        listener.bind(name)
    return listener


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a short name of a path: that of a socket may have no more than 107 bytes."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _file_name(role: str) -> str:
    # The folder may be shared by machines: each knows its own by the host's name.
    return f"{role}-{os.getpid()}@{socket.gethostname()}"


def _neighbours(run_dir: Path, role: str) -> list[Path]:
    of_this_machine = sorted(run_dir.glob(f"[!.]*@{glob.escape(socket.gethostname())}"))
    return [path for path in of_this_machine if path.name != _file_name(role)]


async def _figures_of(path: Path) -> bytes:
    """Return the figures of a process; none when it has gone or stands still."""
    try:
        async with asyncio.timeout(NEIGHBOUR_TIMEOUT_S):
            with _short(path) as name:
                reader, writer = await asyncio.open_unix_connection(name)
            try:
                writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
                answer = await reader.read(-1)
            finally:
                writer.close()
    except ConnectionRefusedError:
        _remove(path)  # left behind by a process that was killed
        return b""
    except (OSError, TimeoutError):
        return b""
    return answer.partition(b"\r\n\r\n")[2]


def _answering(
    resources: Mapping[str, Resource],
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
            method, _, rest = head.partition(b" ")
            resource = resources.get(rest.partition(b" ")[0].decode("ascii", "replace"))
            if method not in (b"GET", b"HEAD"):
                status, media_type, body = 405, TEXT, b"only GET\n"
            elif resource is None:
                status, media_type, body = 404, TEXT, b"/metrics, /healthz or /readyz\n"
            else:
                status, media_type, body = await resource()
            writer.write(
                f"HTTP/1.1 {status} {'OK' if status == 200 else 'No'}\r\n"
                f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n"
                "Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode()
                + (b"" if method == b"HEAD" else body)
            )
            await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass  # whoever asked has gone, or asked nothing that makes sense
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    return answer
