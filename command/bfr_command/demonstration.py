"""The demonstration: one connection with real studies, loaded through the real doors."""

import asyncio
import getpass
from collections.abc import Callable

from bfr_command.demo import DemoSet, write_demo_files
from bfr_command.demo.sending import Sent, send_c_store, send_stow
from bfr_command.progress import Progress
from bfr_core import connections, statistics
from bfr_core.access import operator
from bfr_core.errors import NotFound
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store

CONNECTION = "Demo-PACS"
ARCHIVE_AE_TITLE = "BFRDEMO"
# STORESCU and ECHOSCU are what the tools of dcmtk call themselves.
NODES = (("DEMOPACS", 11113), ("STORESCU", 11114), ("ECHOSCU", 11115))


async def load_demonstration(settings: Settings, tell: Callable[[str], None]) -> None:
    """Make the demonstration connection and load its studies; a second time nothing is sent."""
    async with open_store(settings) as store:
        await _register(store)
        stored = await _stored(store)
        demo_set = await asyncio.to_thread(_write, settings)
        if stored >= len(demo_set.files):
            return
        tell(f"loading {len(demo_set.files)} demo objects through C-STORE and STOW-RS")
        for sent in (
            await asyncio.to_thread(_send_c_store, settings, demo_set),
            await asyncio.to_thread(_send_stow, settings, demo_set),
        ):
            for failure in sent.failures:
                tell(f"demo object {failure.path.name} was not stored: {failure.reason}")


async def _register(store: Store) -> None:
    access = operator(getpass.getuser())
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


def _write(settings: Settings) -> DemoSet:
    progress: Progress | None = None

    def show(done: int, total: int) -> None:
        nonlocal progress
        progress = progress or Progress("making demo objects", total)
        progress.show(done)

    demo_set = write_demo_files(settings.data_dir / "demo", show)
    if progress is not None:
        progress.end()
    return demo_set


def _send_c_store(settings: Settings, demo_set: DemoSet) -> Sent:
    files = demo_set.through("C-STORE")
    progress = Progress("C-STORE", len(files))
    sent = send_c_store(
        files,
        settings.dimse_host,
        settings.dimse_port,
        NODES[0][0],
        ARCHIVE_AE_TITLE,
        lambda done, total: progress.show(done),
    )
    progress.end()
    return sent


def _send_stow(settings: Settings, demo_set: DemoSet) -> Sent:
    files = demo_set.through("STOW-RS")
    progress = Progress("STOW-RS", len(files))
    root = f"http://{settings.http_host}:{settings.http_port}/archives/{ARCHIVE_AE_TITLE}/dicomweb"
    sent = send_stow(files, root, lambda done, total: progress.show(done))
    progress.end()
    return sent
