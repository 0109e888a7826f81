"""One role in this process, until it is told to stop."""

import argparse
import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib import import_module

from bfr_command.observing import observed
from bfr_core import logs, roles, tracing
from bfr_core.errors import Unavailable
from bfr_core.jobs import run_worker
from bfr_core.outgoing import Outgoing
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store

Role = Callable[..., Awaitable[None]]  # of the store and the event that ends it


async def serve_worker(store: Store, stop: asyncio.Event) -> None:
    """Run background jobs until `stop` is set."""

    async def check() -> str | None:
        return None

    beating = asyncio.create_task(roles.beat(store, "worker", check, stop))
    try:
        await run_worker(store, stop, node_calls(store.settings))
    finally:
        stop.set()
        await beating


def node_calls(settings: Settings) -> Outgoing:
    """Return what calls nodes over DIMSE."""
    from bfr_legacy.dimse.node_calls import NodeCalls
    from bfr_legacy.dimse.tls import tls_of

    return NodeCalls(tls_of(settings))


# Where each role's function is; a process loads its own role alone, for a quick start.
ROLES: Mapping[str, str] = {
    "dimse": "bfr_legacy.dimse.server.serve_dimse",
    "web": "bfr_command.web.serve_web",
    "worker": "bfr_command.serving.serve_worker",
}


def role_of(name: str) -> Role:
    """Return the function that serves the role until its event is set."""
    module, _, function = ROLES[name].rpartition(".")
    role: Role = getattr(import_module(module), function)
    return role


async def serve(settings: Settings, arguments: argparse.Namespace) -> int:
    """Run the role until SIGTERM or SIGINT; what it has begun is ended first.

    Raises Unavailable when it cannot serve: its address is taken, the database is away.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    logs.catch_the_rest(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with tracing.exported(settings, arguments.role):
        await _serve(settings, arguments, stop)
    return 0


async def _serve(settings: Settings, arguments: argparse.Namespace, stop: asyncio.Event) -> None:
    role = role_of(arguments.role)
    if arguments.listener is not None:
        role = partial(role, listener=socket.socket(fileno=arguments.listener))
    async with open_store(settings) as store, observed(store, arguments.role):
        try:
            await role(store, stop)
        except OSError as error:
            raise Unavailable(f"the role cannot serve: {error.strerror or error}") from error
