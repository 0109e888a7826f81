"""The demonstration: one connection with real studies, loaded through the real doors."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from bfr_command.addresses import http_root
from bfr_command.database_session import this_operator
from bfr_command.demo import DemoSet, write_demo_files
from bfr_command.demo.sending import Sent, send_c_store, send_stow
from bfr_command.progress import Progress
from bfr_core import connections, statistics
from bfr_core.errors import NotFound
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store

T = TypeVar("T")

CONNECTION = "Demo-PACS"
ARCHIVE_AE_TITLE = "BFRDEMO"
ATTEMPTS = 3
# But for the first: what the tools of dcmtk call themselves.
NODES = (
    ("DEMOPACS", 11113),
    ("STORESCU", 11114),
    ("ECHOSCU", 11115),
    ("FINDSCU", 11116),
    ("GETSCU", 11117),
    ("MOVESCU", 11118),
)


class _Stopped(Exception):
    """Whoever loads the demonstration is to end."""


async def load_demonstration(settings: Settings, tell: Callable[[str], None]) -> None:
    """Make the demonstration connection and load its studies; a second time nothing is sent.

    Cancelled, it ends after the object under way; the next call loads what is missing. Raises
    ArchiveError when the connection cannot be made, OSError when the files cannot be written.
    """
    async with open_store(settings) as store:
        await _register(store)
        stored = await _stored(store)
        demo_set = await _in_thread(partial(_write, settings))
        if stored >= len(demo_set.files):
            return
        tell(f"loading {len(demo_set.files)} demo objects through C-STORE and STOW-RS")
        for send in (_send_c_store, _send_stow):
            sent = await _in_thread(partial(send, settings, demo_set))
            for failure in sent.failures:
                tell(f"demo object {failure.path.name} was not stored: {failure.reason}")


async def _in_thread(work: Callable[[threading.Event], T]) -> T:
    stop = threading.Event()
    working = asyncio.create_task(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        stop.set()  # a thread cannot be cancelled: it is asked, between two objects
        await asyncio.wait({working})
        if not working.cancelled():
            working.exception()  # it was asked to fail
        raise


async def _register(store: Store) -> None:
    access = this_operator()
    async with store.database.transaction() as tx:
        try:
            await connections.find_connection(tx, CONNECTION)
        except NotFound:
            await connections.add_connection(tx, access, CONNECTION, "test")
            await connections.add_archive(
                tx, access, CONNECTION, ARCHIVE_AE_TITLE, "Demonstrationsarkiv"
            )
            for ae_title, port in NODES:
                await connections.add_node(tx, access, CONNECTION, ae_title, "127.0.0.1", port)


async def _stored(store: Store) -> int:
    async with store.database.transaction() as tx:
        contents = await statistics.archive_contents(tx)
    return sum(one.instances for one in contents if one.ae_title == ARCHIVE_AE_TITLE)


def _write(settings: Settings, stop: threading.Event) -> DemoSet:
    shown = _Shown("making demo objects", stop)
    begun = False

    def show(done: int, total: int) -> None:
        nonlocal begun
        begun = begun or done < total  # a set that was made before is told of whole, at once
        if begun:
            shown.show(done, total)

    try:
        return write_demo_files(settings.data_dir / "demo", show)
    finally:
        shown.end()


def _send_c_store(settings: Settings, demo_set: DemoSet, stop: threading.Event) -> Sent:
    shown = _Shown("C-STORE", stop)
    files = demo_set.through("C-STORE")
    stored = 0
    try:
        # pynetdicom's requestor sometimes stands still: what is left goes over a new association.
        for _ in range(ATTEMPTS):
            sent = send_c_store(
                files,
                settings.dimse_host,
                settings.dimse_port,
                NODES[0][0],
                ARCHIVE_AE_TITLE,
                shown.show,
            )
            stored += sent.stored
            files = tuple(failure.path for failure in sent.failures)
            if not files:
                break
        return Sent(stored, sent.failures)
    finally:
        shown.end()


def _send_stow(settings: Settings, demo_set: DemoSet, stop: threading.Event) -> Sent:
    shown = _Shown("STOW-RS", stop)
    root = f"{http_root(settings)}/archives/{ARCHIVE_AE_TITLE}/dicomweb"
    try:
        return send_stow(demo_set.through("STOW-RS"), root, shown.show)
    finally:
        shown.end()


class _Shown:
    """Progress that ends the work when it is to stop."""

    def __init__(self, verb: str, stop: threading.Event) -> None:
        self._verb = verb
        self._stop = stop
        self._progress: Progress | None = None

    def show(self, done: int, total: int) -> None:
        """Show how much is done. Raises _Stopped when the work is to end."""
        if self._stop.is_set():
            raise _Stopped
        self._progress = self._progress or Progress(self._verb, total)
        self._progress.show(done)

    def end(self) -> None:
        """Leave the line."""
        if self._progress is not None:
            self._progress.end()
