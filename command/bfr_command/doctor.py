"""`bfr doctor`: looks at everything the system stands on and says what to do."""

import argparse
import asyncio
import datetime
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from bfr_command.addresses import addresses, http_root, open_to_strangers, problem_at
from bfr_core import cases, certificates, roles, statistics
from bfr_core.bucket_address import BucketAddress, read_bucket_address
from bfr_core.database import Transaction, open_database, pending_migrations
from bfr_core.errors import ArchiveError, Invalid
from bfr_core.postgres import running
from bfr_core.settings import Settings
from bfr_core.store import cluster_of, database_owner_url, database_url
from bfr_core.uploading import SpoolState, spool_state
from bfr_legacy.dimse.tls import tls_of
from bfr_ui.pages import static_directory

CLOCK_TOLERANCE_S = 1.0
RENEW_BEFORE = datetime.timedelta(days=30)
SPOOL_TOLERANCE_MINUTES = 30
GIB = 1024**3
ANSWER_MAX_BYTES = 64 * 1024


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
    for look in (_disk, _buckets, _database, _ports, _pages, _certificates):
        findings += await look(settings)
    for one in findings:
        print(f"{one.state:<6} {one.subject:<12} {one.text}")
    return 1 if any(one.state == "fault" for one in findings) else 0


async def _disk(settings: Settings) -> list[Finding]:
    folder = settings.data_dir.resolve()
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        return [Finding("fault", "disk", f"{existing} is no folder: set BFR_DATA_DIR to one")]
    free = shutil.disk_usage(existing).free
    findings = []
    if not os.access(existing, os.W_OK | os.X_OK):
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


async def _buckets(settings: Settings) -> list[Finding]:
    return [await asyncio.to_thread(_bucket, address) for address in _addresses(settings)]


def _addresses(settings: Settings) -> list[BucketAddress]:
    urls = (settings.bucket_url, settings.second_bucket_url)
    return [read_bucket_address(url) for url in urls if url]


def _bucket(address: BucketAddress) -> Finding:
    # Loaded by those alone who have one: its client takes time.
    from bfr_core.buckets import Bucket

    try:
        Bucket(address).probe()
    except Invalid as error:
        return Finding(
            "fault",
            "bucket",
            f"{error.message}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name the"
            " profile of a credentials file in the URL",
        )
    except ArchiveError as error:
        return Finding(
            "fault",
            "bucket",
            f"{error.message}: check endpoint, bucket and keys; until then packs stay in the"
            " spool, and `bfr blobs heal` mends what is missing afterwards",
        )
    return Finding("ok", "bucket", f"{address} takes, lists, gives back and deletes objects")


def _spool(state: SpoolState, now: float) -> Finding:
    if not state.waiting or state.waiting_since is None:
        return Finding("ok", "spool", f"{state.blobs} packs and manifests, all in the buckets too")
    minutes = (now - state.waiting_since.timestamp()) / 60
    text = f"{state.waiting} packs and manifests wait for a bucket, the oldest {minutes:.0f} min"
    if minutes < SPOOL_TOLERANCE_MINUTES:
        return Finding("ok", "spool", text)
    return Finding("fault", "spool", f"{text}: the worker's log says why, mend that")


async def _database(settings: Settings) -> list[Finding]:
    try:
        if not settings.database_url and not await asyncio.to_thread(running, cluster_of(settings)):
            return [Finding("note", "database", "the embedded one does not run: start `bfr up`")]
        pending = await asyncio.to_thread(pending_migrations, database_owner_url(settings))
        if pending:
            return [
                Finding("fault", "database", f"{len(pending)} migrations wait: run `bfr migrate`")
            ]
        async with _transaction(settings) as tx:
            version = await tx.value("SHOW server_version")
            ahead_s = float(
                await tx.value(
                    "SELECT extract(epoch FROM clock_timestamp())::float8 - %(now)s",
                    now=time.time(),
                )
            )
            jobs = await statistics.troubled_jobs(tx)
            open_cases = await cases.count_open_cases(tx)
            states = await roles.role_states(tx, settings.roles)
            spool = []
            if settings.bucket_url:
                spool = [await spool_state(tx, [str(one) for one in _addresses(settings)])]
    except ArchiveError as error:
        remedy = (
            "check BFR_DATABASE_URL and the server"
            if settings.database_url
            else f"its log lies below {settings.data_dir / 'postgres' / 'log'}"
        )
        return [Finding("fault", "database", f"{error.message}: {remedy}")]
    return [
        Finding("ok", "database", f"PostgreSQL {version} answers"),
        _clock(ahead_s),
        *map(_job_trouble, jobs),
        *(_spool(state, time.time()) for state in spool),
        *_cases(open_cases),
        *_roles(states),
    ]


def _clock(ahead_s: float) -> Finding:
    if abs(ahead_s) <= CLOCK_TOLERANCE_S:
        return Finding("ok", "clock", "this machine and the database agree")
    return Finding(
        "fault",
        "clock",
        f"the database's clock is {ahead_s:+.1f} s off this machine's: synchronise both"
        " (NTP), the audit trail depends on it",
    )


def _job_trouble(jobs: statistics.TroubledJobs) -> Finding:
    told = []
    if jobs.failed:
        told.append(f"{jobs.failed} failed for good, tried again every night")
    if jobs.retried:
        told.append(f"{jobs.retried} failed several times and are tried again")
    return Finding(
        "fault",
        "jobs",
        f"{jobs.task}: {'; '.join(told)}: the worker's log says why, mend that",
    )


def _cases(count: int) -> list[Finding]:
    if not count:
        return [Finding("ok", "cases", "none is open")]
    return [Finding("fault", "cases", f"{count} wait for somebody: `bfr case list`")]


def _roles(states: Sequence[roles.RoleState]) -> list[Finding]:
    # Where nothing runs, nothing is broken; where only some roles do, something is.
    begun = any(state.ready for state in states)
    findings = []
    for state in states:
        if state.ready:
            findings.append(Finding("ok", state.role, "serves"))
        else:
            remedy = "look at the output of `bfr up`" if begun else "start `bfr up`"
            text = f"{state.detail or 'has stopped'}: {remedy}"
            findings.append(Finding("fault" if begun else "note", state.role, text))
    return findings


async def _ports(settings: Settings) -> list[Finding]:
    root = http_root(settings)
    answers = await asyncio.to_thread(_answers, f"{root}/readyz", settings.roles)
    serving = {"web"} if answers else set()
    serving |= {"dimse"} & await _serving(settings)
    findings = []
    for address in addresses(settings):
        if reason := open_to_strangers(address):
            findings.append(Finding("fault", "ports", reason))
        elif address.role in serving:
            findings.append(Finding("ok", "ports", f"{address.role} answers at {address}"))
        elif problem := await asyncio.to_thread(problem_at, address):
            findings.append(Finding("fault", "ports", problem.text))
        else:
            findings.append(Finding("ok", "ports", f"{address} is free for {address.role}"))
    return findings


@asynccontextmanager
async def _transaction(settings: Settings) -> AsyncIterator[Transaction]:
    # Not the whole store: a look changes nothing, and opening that would make its folders.
    async with (
        open_database(database_url(settings), connections=1) as database,
        database.transaction() as tx,
    ):
        yield tx


async def _serving(settings: Settings) -> set[str]:
    try:
        if not settings.database_url and not running(cluster_of(settings)):
            return set()
        # Asked first, since the store waits long for a database that does not answer.
        if await asyncio.to_thread(pending_migrations, database_owner_url(settings)):
            return set()
        async with _transaction(settings) as tx:
            states = await roles.role_states(tx, settings.roles)
    except ArchiveError:  # which is a finding of the database
        return set()
    return {state.role for state in states if state.ready}


async def _pages(settings: Settings) -> list[Finding]:
    if (static_directory() / "index.html").is_file():
        return [Finding("ok", "portals", "the browser application is built")]
    return [Finding("fault", "portals", "the browser application is missing: run `make web`")]


async def _certificates(settings: Settings) -> list[Finding]:
    if not settings.dimse_tls_certificate_file:
        return [
            Finding(
                "note",
                "certificates",
                "none in use: HTTP and DIMSE are served without TLS, on loopback addresses by"
                " default",
            )
        ]
    try:
        found = await asyncio.to_thread(certificates.expiries, settings)
        if tls := tls_of(settings):
            tls.server()
    except ArchiveError as error:
        return [Finding("fault", "certificates", f"{error.message}: check BFR_DIMSE_TLS_…")]
    return [_expiry(one) for one in found]


def _expiry(one: certificates.Expiry) -> Finding:
    day = f"{one.path} ends on {one.expires_at:%Y-%m-%d}"
    if one.left <= datetime.timedelta(0):
        return Finding("fault", "certificates", f"{day}, which is over: put a new one in its place")
    if one.left < RENEW_BEFORE:
        return Finding("note", "certificates", f"{day}: have a new one issued")
    return Finding("ok", "certificates", day)


def _answers(url: str, names: Sequence[str]) -> bool:
    """Tell whether BFR answers there, ready or not, and no other program."""
    try:
        with urllib.request.urlopen(url, timeout=3) as response:
            body = response.read(ANSWER_MAX_BYTES)
    except urllib.error.HTTPError as error:
        with error:
            body = error.read(ANSWER_MAX_BYTES)
    except (OSError, http.client.HTTPException):
        return False
    try:
        told = json.loads(body)
    except ValueError:
        return False
    engines = {"database", "disk"}
    # Without a database nothing is known of the roles.
    return isinstance(told, dict) and told.keys() in ({*names} | engines, engines)
