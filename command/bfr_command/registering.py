"""Connections, archives and nodes from the command line."""

import argparse
import dataclasses
import sys
from pathlib import Path

from bfr_command.database_session import command_store, this_operator
from bfr_core import connections, node_terms
from bfr_core.errors import Invalid
from bfr_core.settings import Settings


async def add_connection(settings: Settings, arguments: argparse.Namespace) -> int:
    """Register a connected system."""
    async with command_store(settings) as store, store.database.transaction() as tx:
        added = await connections.add_connection(
            tx,
            this_operator(),
            arguments.name,
            arguments.environment,
            arguments.system_hsa_id,
        )
    print(f"connection {added.name} ({added.environment})")
    return 0


async def add_archive(settings: Settings, arguments: argparse.Namespace) -> int:
    """Give a connection its archive, or add a virtual one, which is no connection's."""
    if arguments.virtual:
        return await _add_virtual_archive(settings, arguments)
    async with command_store(settings) as store, store.database.transaction() as tx:
        added = await connections.add_archive(
            tx,
            this_operator(),
            arguments.connection,
            arguments.ae_title,
            arguments.name or arguments.connection,
        )
    print(f"archive {added.ae_title} of connection {arguments.connection}")
    return 0


async def _add_virtual_archive(settings: Settings, arguments: argparse.Namespace) -> int:
    async with command_store(settings) as store, store.database.transaction() as tx:
        added = await connections.add_virtual_archive(
            tx, this_operator(), arguments.ae_title, arguments.name or arguments.ae_title
        )
    print(f"virtual archive {added.ae_title}: no node may call it before it is audited for it")
    return 0


async def mark_audited(settings: Settings, arguments: argparse.Namespace) -> int:
    """Open a virtual archive to a node that is audited for it, or close it again."""
    async with command_store(settings) as store, store.database.transaction() as tx:
        await connections.mark_audited(
            tx,
            this_operator(),
            arguments.connection,
            arguments.ae_title,
            arguments.virtual,
            audited=not arguments.revoke,
        )
    may = "may no longer" if arguments.revoke else "may"
    print(f"node {arguments.ae_title} {may} call virtual archive {arguments.virtual}")
    return 0


async def add_node(settings: Settings, arguments: argparse.Namespace) -> int:
    """Register a DICOM node of a connection."""
    async with command_store(settings) as store, store.database.transaction() as tx:
        added = await connections.add_node(
            tx,
            this_operator(),
            arguments.connection,
            arguments.ae_title,
            arguments.host,
            arguments.port,
        )
        if changes := _changes(arguments):
            await node_terms.set_terms(
                tx, this_operator(), arguments.connection, added.ae_title, **changes
            )
    print(f"node {added.ae_title} at {added.host}:{added.port}")
    return 0


async def set_node(settings: Settings, arguments: argparse.Namespace) -> int:
    """Change what a DICOM node has agreed on."""
    async with command_store(settings) as store, store.database.transaction() as tx:
        terms = await node_terms.set_terms(
            tx,
            this_operator(),
            arguments.connection,
            arguments.ae_title,
            **_changes(arguments),
        )
    for name, value in dataclasses.asdict(terms).items():
        if name != "jwt_secret":
            print(f"{name}\t{'' if value is None else value}")
    return 0


async def add_node_user(settings: Settings, arguments: argparse.Namespace) -> int:
    """Let a DICOM node name a user."""
    passcode = sys.stdin.readline().rstrip("\n") if arguments.with_passcode else ""
    if arguments.with_passcode and not passcode:
        raise Invalid("no passcode came by standard input")
    async with command_store(settings) as store, store.database.transaction() as tx:
        await node_terms.add_user(
            tx,
            this_operator(),
            arguments.connection,
            arguments.ae_title,
            arguments.username,
            passcode,
        )
    print(f"node {arguments.ae_title} may name the user")
    return 0


def _changes(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the terms that the options name."""
    secret: Path | None = arguments.jwt_secret_file
    named = {
        "host_checked": arguments.check_host,
        "tls_required": arguments.tls,
        "certificate": arguments.certificate,
        "identity_required": arguments.require_user,
        "jwt_secret": None if secret is None else secret.read_text().strip(),
        "associations_max": arguments.associations_max,
        "associations_per_minute_max": arguments.associations_per_minute_max,
        "pdu_max_bytes": arguments.pdu_max_bytes,
        "availability_wanted": arguments.tell_availability,
        "rejections_accepted": arguments.accept_rejections,
    }
    return {name: value for name, value in named.items() if value is not None}


async def list_connections(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print every connection, one a line."""
    async with command_store(settings) as store, store.database.transaction() as tx:
        for one in await connections.list_connections(tx):
            print(f"{one.name}\t{one.environment}")
    return 0


async def list_archives(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print every archive, one a line: AE title, name, connection or "virtual"."""
    async with command_store(settings) as store, store.database.transaction() as tx:
        names = {one.connection_id: one.name for one in await connections.list_connections(tx)}
        for one in await connections.list_archives(tx):
            print(f"{one.ae_title}\t{one.name}\t{names[one.connection_id]}")
        for virtual in await connections.list_virtual_archives(tx):
            print(f"{virtual.ae_title}\t{virtual.name}\tvirtual")
    return 0


async def list_nodes(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print every DICOM node, one a line: AE title, host, port, connection, virtual archives."""
    async with command_store(settings) as store, store.database.transaction() as tx:
        names = {one.connection_id: one.name for one in await connections.list_connections(tx)}
        audited: dict[int, list[str]] = {}
        for node_id, title in await connections.list_audited(tx):
            audited.setdefault(node_id, []).append(title)
        for one in await connections.list_nodes(tx):
            row = [one.ae_title, one.host, str(one.port), names[one.connection_id]]
            virtual = ",".join(audited.get(one.dicom_node_id, []))
            print("\t".join([*row, virtual] if virtual else row))
    return 0
