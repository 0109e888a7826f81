"""`bfr up`: the whole system on one machine, under one supervisor, until Ctrl-C."""

import argparse
import asyncio
import dataclasses
import logging
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path

from bfr_command.addresses import (
    addresses,
    free_port,
    http_root,
    open_listener,
    open_to_strangers,
    problem_at,
)
from bfr_command.database_session import database_process
from bfr_command.demonstration import load_demonstration
from bfr_command.supervisor import Role, Supervisor
from bfr_core import logs, roles
from bfr_core.connections import Archive, DicomNode, list_archives, list_nodes
from bfr_core.database import migrate
from bfr_core.errors import ArchiveError, Invalid, Unavailable
from bfr_core.postgres import PostgresProcess
from bfr_core.settings import Settings
from bfr_core.store import database_owner_url, open_store

POLL_S = 0.2
DATABASE_RETRY_S = 5.0
PATIENCE_S = 30.0  # until what is missing is told
PREDECESSOR_TIMEOUT_S = 5.0  # roles of a supervisor that was killed leave their ports by then

log = logging.getLogger("bfr.up")


async def up(settings: Settings, arguments: argparse.Namespace) -> int:
    """Run every role; 0 when all stopped cleanly after Ctrl-C or SIGTERM.

    Raises Invalid for settings that no role could run with, Unavailable when an address is taken
    or another process runs the embedded database.
    """
    for address in addresses(settings):
        if problem := open_to_strangers(address):
            raise Invalid(problem)
    if arguments.demo and not {"web", "dimse"} <= {*settings.roles}:
        raise Invalid("--demo sends through both doors: BFR_ROLES must name web and dimse")
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with database_process(settings) as process:
        settings = await _with_ports(settings)
        applied = await asyncio.to_thread(migrate, database_owner_url(settings))
        if applied:
            tell(f"database brought to this version: {', '.join(applied)}")
        stop = asyncio.Event()
        listener = _listener(settings)
        supervisor = Supervisor(
            [role for name in settings.roles for role in processes_of(name, settings, listener)],
            environment={**os.environ, **absolute(settings).to_environment()},
            stop_timeout_s=settings.stop_timeout_s + 5.0,
            on_event=tell,
            named=not logs.as_json(),  # a line of JSON names its role itself
        )
        running = asyncio.create_task(supervisor.run(stop))
        beside = [_greet(settings, demo=arguments.demo)]
        if process is not None:
            beside.append(_keep_database(process))
        tasks = [asyncio.create_task(_until_stopped(work, stop)) for work in beside]
        try:
            status = await running
        finally:
            stop.set()
            await asyncio.wait(tasks)
            if listener is not None:
                listener.close()
    tell("stopped")
    return status


def role_command(role: str) -> tuple[str, ...]:
    """Return the command line of a role's process."""
    return (sys.executable, "-m", "bfr_command", "serve", role)


def processes_of(
    role: str, settings: Settings, listener: socket.socket | None = None
) -> list[Role]:
    """Return the processes that serve the role; those of the web role share one listener."""
    counts = {"web": settings.web_processes, "dimse": settings.dimse_processes}
    count = counts.get(role, 1)
    names = [role] if count == 1 else [f"{role}-{number}" for number in range(1, count + 1)]
    if role != "web" or listener is None:
        return [Role(name, role_command(role)) for name in names]
    command = (*role_command(role), "--listener", str(listener.fileno()))
    return [Role(name, command, (listener.fileno(),)) for name in names]


def _listener(settings: Settings) -> socket.socket | None:
    """Return the socket of the web role; None when it is not to run.

    It is opened here, so that the process that is idle takes the next connection, and a caller
    waits while a process starts again.
    """
    for address in addresses(settings):
        if address.role == "web":
            return open_listener(address)
    return None


def absolute(settings: Settings) -> Settings:
    """Return the settings with paths that mean the same from every folder."""
    return dataclasses.replace(
        settings,
        data_dir=settings.data_dir.resolve(),
        dimse_tls_certificate_file=_absolute(settings.dimse_tls_certificate_file),
        dimse_tls_key_file=_absolute(settings.dimse_tls_key_file),
        dimse_tls_ca_file=_absolute(settings.dimse_tls_ca_file),
    )


def _absolute(path: str) -> str:
    return str(Path(path).resolve()) if path else ""


def tell(text: str) -> None:
    """Print a sentence of the supervisor."""
    if logs.as_json():
        log.info("%s", text)
    else:
        print(f"bfr: {text}", flush=True)


async def _with_ports(settings: Settings) -> Settings:
    """Return the settings with a free port for each 0. Raises Invalid or Unavailable.

    A role whose address is taken would start again and again: it is said once, here.
    """
    ports: dict[str, int] = {}
    for address in addresses(settings):
        waited_s = 0.0
        while problem := await asyncio.to_thread(problem_at, address):
            if not problem.in_use or waited_s >= PREDECESSOR_TIMEOUT_S:
                raise Unavailable(problem.text)
            await asyncio.sleep(POLL_S)
            waited_s += POLL_S
        ports[f"{address.door}_port"] = address.port or free_port(address)
    if len({*ports.values()}) < len(ports) and settings.http_host == settings.dimse_host:
        raise Invalid(f"{_ports_named(ports)} name the same port")
    return dataclasses.replace(
        settings,
        http_port=ports.get("http_port", settings.http_port),
        dimse_port=ports.get("dimse_port", settings.dimse_port),
        dimse_tls_port=ports.get("dimse_tls_port", settings.dimse_tls_port),
    )


def _ports_named(doors: Iterable[str]) -> str:
    names = [f"BFR_{door.upper()}" for door in doors]
    return f"{', '.join(names[:-1])} and {names[-1]}"


async def _until_stopped(work: Coroutine[None, None, None], stop: asyncio.Event) -> None:
    """Do the work that goes on beside the roles; it ends when they are to stop."""
    working, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    working.cancel()
    await asyncio.wait({working})
    if not working.cancelled() and (error := working.exception()) is not None:
        log.error("the supervisor has failed at its own work", exc_info=error)


async def _keep_database(process: PostgresProcess) -> None:
    while True:
        await asyncio.sleep(POLL_S)
        if not process.is_alive():
            tell("the database has died and starts again")
            try:
                process.start()
            except Unavailable as error:
                tell(error.message)
                await asyncio.sleep(DATABASE_RETRY_S)


async def _greet(settings: Settings, *, demo: bool) -> None:
    await _until_ready(settings)
    try:
        if demo:
            await load_demonstration(settings, tell)
    except (ArchiveError, OSError) as error:
        tell(f"the demonstration could not be loaded: {error}")
    try:
        async with open_store(settings) as store, store.database.transaction() as tx:
            archives = await list_archives(tx)
            nodes = await list_nodes(tx)
    except Unavailable as error:
        tell(error.message)
    else:
        if logs.as_json():
            tell("BFR is running")
        else:
            print(greeting(settings, archives, nodes), flush=True)


async def _until_ready(settings: Settings) -> None:
    waited_s = 0.0
    while (problem := await _problem(settings)) is not None:
        await asyncio.sleep(POLL_S)
        waited_s += POLL_S
        if waited_s >= PATIENCE_S:
            tell(f"not ready yet: {problem}")
            waited_s = 0.0


async def _problem(settings: Settings) -> str | None:
    if "web" in settings.roles:
        return await asyncio.to_thread(_problem_at, f"{http_root(settings)}/readyz")
    try:
        async with open_store(settings) as store, store.database.transaction() as tx:
            states = await roles.role_states(tx, settings.roles)
    except Unavailable as error:
        return error.message
    return ", ".join(f"{one.role} {one.detail}" for one in states if not one.ready) or None


def _problem_at(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return None
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode("utf-8", "replace").strip()
    except OSError as error:
        return f"{url}: {error}"


def greeting(settings: Settings, archives: Sequence[Archive], nodes: Sequence[DicomNode]) -> str:
    """Return the addresses of the roles that run, and what to try next."""
    http = http_root(settings)
    has_web, has_dimse = "web" in settings.roles, "dimse" in settings.roles
    lines = ["", "BFR is running.", ""]
    if has_web:
        lines += [
            f"  Informationsvisaren      {http}/",
            f"  Samverkansportalen       {http}/samverkan",
            f"  Administrationsportalen  {http}/admin",
            f"  DICOMweb                 {http}/dicomweb",
        ]
    if has_dimse and settings.dimse_tls_certificate_file:
        lines.append(f"  DIMSE over TLS           {settings.dimse_host}:{settings.dimse_tls_port}")
    for archive in archives:
        label = f"  Archive {archive.ae_title:<16}"
        if has_web:
            lines.append(f"{label} {http}/archives/{archive.ae_title}/dicomweb")
            label = f"  {'':24}"
        if has_dimse:
            titles = ", ".join(node.ae_title for node in _nodes_of(archive, nodes))
            lines.append(
                f"{label} DIMSE {archive.ae_title} at {settings.dimse_host}:{settings.dimse_port}"
                f" for nodes {titles or '(none yet)'}"
            )
    if archives:
        lines += _to_try(settings, archives[0], _nodes_of(archives[0], nodes))
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


def _nodes_of(archive: Archive, nodes: Sequence[DicomNode]) -> list[DicomNode]:
    return [node for node in nodes if node.connection_id == archive.connection_id]


def _to_try(settings: Settings, archive: Archive, nodes: Sequence[DicomNode]) -> list[str]:
    lines = ["", "Try next:"]
    if "dimse" in settings.roles:
        calling = nodes[0].ae_title if nodes else "YOUR_AE"
        address = f"{settings.dimse_host} {settings.dimse_port}"
        lines += [
            f"  echoscu -aet {calling} -aec {archive.ae_title} {address}",
            f"  storescu -aet {calling} -aec {archive.ae_title} {address} +sd YOUR_FOLDER",
        ]
    if "web" in settings.roles:
        lines.append(f"  curl -s {http_root(settings)}/dicomweb/studies?limit=2")
    return [*lines, f"  bfr import --archive {archive.ae_title} YOUR_FOLDER", "  bfr doctor"]
