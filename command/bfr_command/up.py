"""`bfr up`: the whole system on one machine, under one supervisor, until Ctrl-C."""

import argparse
import asyncio
import dataclasses
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from bfr_command.database_session import database_process
from bfr_command.demonstration import load_demonstration
from bfr_command.supervisor import Role, Supervisor
from bfr_core.connections import Archive, DicomNode, list_archives, list_nodes
from bfr_core.database import migrate
from bfr_core.errors import Unavailable
from bfr_core.postgres import PostgresProcess
from bfr_core.settings import Settings
from bfr_core.store import database_owner_url, open_store

POLL_S = 0.2
DATABASE_RETRY_S = 5.0
PATIENCE_S = 30.0  # until what is missing is told


async def up(settings: Settings, arguments: argparse.Namespace) -> int:
    """Run every role; 0 when all stopped cleanly after Ctrl-C or SIGTERM."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with database_process(settings) as process:
        applied = await asyncio.to_thread(migrate, database_owner_url(settings))
        if applied:
            tell(f"database brought to this version: {', '.join(applied)}")
        stop = asyncio.Event()
        supervisor = Supervisor(
            [Role(name, role_command(name)) for name in settings.roles],
            environment={**os.environ, **absolute(settings).to_environment()},
            stop_timeout_s=settings.stop_timeout_s + 5.0,
            on_event=tell,
        )
        running = asyncio.create_task(supervisor.run(stop))
        beside = [asyncio.create_task(_greet(settings, stop, demo=arguments.demo))]
        if process is not None:
            beside.append(asyncio.create_task(_keep_database(process, stop)))
        try:
            status = await running
        finally:
            stop.set()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
    tell("stopped")
    return status


def role_command(role: str) -> tuple[str, ...]:
    """Return the command line of a role's process."""
    return (sys.executable, "-m", "bfr_command", "serve", role)


def absolute(settings: Settings) -> Settings:
    """Return the settings with paths that mean the same from every folder."""
    return dataclasses.replace(settings, data_dir=settings.data_dir.resolve())


def tell(text: str) -> None:
    """Print a sentence of the supervisor."""
    print(f"bfr: {text}", flush=True)


async def _keep_database(process: PostgresProcess, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await asyncio.sleep(POLL_S)
        if not process.is_alive():
            tell("the database has died and starts again")
            try:
                process.start()
            except Unavailable as error:
                tell(error.message)
                await asyncio.sleep(DATABASE_RETRY_S)


async def _greet(settings: Settings, stop: asyncio.Event, *, demo: bool) -> None:
    await _until_ready(settings, stop)
    if demo:
        await load_demonstration(settings, tell)
    async with open_store(settings) as store, store.database.transaction() as tx:
        archives = await list_archives(tx)
        nodes = await list_nodes(tx)
    print(greeting(settings, archives, nodes), flush=True)


async def _until_ready(settings: Settings, stop: asyncio.Event) -> None:
    url = f"http://{settings.http_host}:{settings.http_port}/readyz"
    waited_s = 0.0
    while not stop.is_set():
        problem = await asyncio.to_thread(_problem, url)
        if problem is None:
            return
        await asyncio.sleep(POLL_S)
        waited_s += POLL_S
        if waited_s >= PATIENCE_S:
            tell(f"not ready yet: {problem}")
            waited_s = 0.0


def _problem(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return None
    except urllib.error.HTTPError as error:
        return error.read().decode("utf-8", "replace").strip()
    except OSError as error:
        return f"{url}: {error}"


def greeting(settings: Settings, archives: Sequence[Archive], nodes: Sequence[DicomNode]) -> str:
    """Return the addresses and what to try next."""
    http = f"http://{settings.http_host}:{settings.http_port}"
    lines = [
        "",
        "BFR is running.",
        "",
        f"  Informationsvisaren      {http}/",
        f"  Samverkansportalen       {http}/samverkan",
        f"  Administrationsportalen  {http}/admin",
        f"  DICOMweb                 {http}/dicomweb",
    ]
    for archive in archives:
        titles = ", ".join(
            node.ae_title for node in nodes if node.connection_id == archive.connection_id
        )
        lines += [
            f"  Archive {archive.ae_title:<16} {http}/archives/{archive.ae_title}/dicomweb",
            f"  {'':24} DIMSE {archive.ae_title} at {settings.dimse_host}:{settings.dimse_port}"
            f" for nodes {titles or '(none yet)'}",
        ]
    if archives:
        archive = archives[0]
        own = [node for node in nodes if node.connection_id == archive.connection_id]
        calling = own[0].ae_title if own else "YOUR_AE"
        address = f"{settings.dimse_host} {settings.dimse_port}"
        lines += [
            "",
            "Try next:",
            f"  echoscu -aet {calling} -aec {archive.ae_title} {address}",
            f"  storescu -aet {calling} -aec {archive.ae_title} {address} +sd YOUR_FOLDER",
            f"  curl -s {http}/dicomweb/studies?limit=2",
            f"  bfr import --archive {archive.ae_title} YOUR_FOLDER",
            "  bfr doctor",
        ]
    else:
        lines += [
            "",
            "No connection yet. Make one:",
            "  bfr connection add 'My PACS'",
            "  bfr archive add MYARCHIVE --connection 'My PACS'",
            "  bfr node add MYPACS --connection 'My PACS' --host 127.0.0.1 --port 11113",
        ]
    lines += ["", f"Data: {Path(settings.data_dir).resolve()}   Ctrl-C stops everything.", ""]
    return "\n".join(lines)
