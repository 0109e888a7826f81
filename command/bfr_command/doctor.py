"""`bfr doctor`: looks at everything the system stands on and says what to do."""

import argparse
import asyncio
import os
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from bfr_core import roles, statistics
from bfr_core.database import pending_migrations
from bfr_core.errors import ArchiveError
from bfr_core.postgres import running
from bfr_core.settings import Settings
from bfr_core.store import cluster_of, database_owner_url, open_store
from bfr_ui.pages import static_directory

CLOCK_TOLERANCE_S = 1.0
GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found."""

    state: Literal["ok", "note", "fault"]
    subject: str
    text: str  # what is so, and for a fault what to do


Look = Callable[[Settings], Awaitable[list[Finding]]]


async def examine(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print what was found; 1 when there is a fault."""
    findings: list[Finding] = []
    for look in (_disk, _database, _ports, _pages, _certificates):
        findings += await look(settings)
    for one in findings:
        print(f"{one.state:<6} {one.subject:<12} {one.text}")
    return 1 if any(one.state == "fault" for one in findings) else 0


async def _disk(settings: Settings) -> list[Finding]:
    folder = settings.data_dir.resolve()
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    findings = []
    if not os.access(existing, os.W_OK):
        findings.append(
            Finding("fault", "disk", f"{existing} cannot be written: give this user the right to")
        )
    if free < settings.free_space_min_bytes:
        findings.append(
            Finding(
                "fault",
                "disk",
                f"{free / GIB:.1f} GiB free, reception stops below"
                f" {settings.free_space_min_bytes / GIB:.1f} GiB: make room or move BFR_DATA_DIR",
            )
        )
    return findings or [Finding("ok", "disk", f"{free / GIB:.1f} GiB free for {folder}")]


async def _database(settings: Settings) -> list[Finding]:
    if not settings.database_url and not await asyncio.to_thread(running, cluster_of(settings)):
        return [Finding("note", "database", "the embedded one does not run: start `bfr up`")]
    try:
        pending = await asyncio.to_thread(pending_migrations, database_owner_url(settings))
        async with open_store(settings) as store, store.database.transaction() as tx:
            version = await tx.value("SHOW server_version")
            ahead_s = float(
                await tx.value(
                    "SELECT extract(epoch FROM clock_timestamp())::float8 - %(now)s",
                    now=time.time(),
                )
            )
            jobs = await statistics.job_counts(tx)
            states = await roles.role_states(tx, settings.roles)
    except ArchiveError as error:
        return [
            Finding("fault", "database", f"{error.message}: check BFR_DATABASE_URL and the server")
        ]
    findings = [Finding("ok", "database", f"PostgreSQL {version} answers")]
    if pending:
        findings.append(
            Finding("fault", "database", f"{len(pending)} migrations wait: run `bfr migrate`")
        )
    if abs(ahead_s) > CLOCK_TOLERANCE_S:
        findings.append(
            Finding(
                "fault",
                "clock",
                f"the database's clock is {ahead_s:+.1f} s off this machine's: synchronise both"
                " (NTP), the audit trail depends on it",
            )
        )
    else:
        findings.append(Finding("ok", "clock", "this machine and the database agree"))
    if jobs.failed:
        findings.append(
            Finding("fault", "jobs", f"{jobs.failed} failed for good: see the worker's log")
        )
    for state in states:
        text = "serves" if state.ready else state.detail or "has stopped: start `bfr up`"
        findings.append(Finding("ok" if state.ready else "note", state.role, text))
    return findings


async def _ports(settings: Settings) -> list[Finding]:
    url = f"http://{settings.http_host}:{settings.http_port}/readyz"
    if await asyncio.to_thread(_answers, url):
        return [Finding("ok", "ports", f"BFR answers at {url}")]
    findings = []
    for name, host, port in (
        ("BFR_HTTP_PORT", settings.http_host, settings.http_port),
        ("BFR_DIMSE_PORT", settings.dimse_host, settings.dimse_port),
    ):
        try:
            with socket.create_server((host, port), reuse_port=False):
                findings.append(Finding("ok", "ports", f"{host}:{port} is free"))
        except OSError as error:
            findings.append(
                Finding(
                    "fault", "ports", f"{host}:{port}: {error.strerror}; set {name} to another one"
                )
            )
    return findings


async def _pages(settings: Settings) -> list[Finding]:
    if (static_directory() / "index.html").is_file():
        return [Finding("ok", "portals", "the browser application is built")]
    return [Finding("fault", "portals", "the browser application is missing: run `make web`")]


async def _certificates(settings: Settings) -> list[Finding]:
    return [
        Finding(
            "note",
            "certificates",
            "none in use: HTTP and DIMSE are served without TLS, on loopback addresses by default",
        )
    ]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=3):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 503
    except OSError:
        return False
