"""Addresses: where this machine's roles listen, and what keeps them from it."""

import errno
import ipaddress
import socket
from dataclasses import dataclass

from bfr_core.settings import Settings

BACKLOG = 2048  # as uvicorn's own


@dataclass(frozen=True, slots=True)
class Address:
    """What one role listens on."""

    role: str
    door: str  # "http", "dimse" or "dimse_tls", as its settings begin
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why nobody can listen at an address, and what to do."""

    text: str
    in_use: bool  # another program listens there, which may end


def addresses(settings: Settings) -> list[Address]:
    """Return the addresses of the roles that `bfr up` runs."""
    every = (
        Address("web", "http", settings.http_host, settings.http_port),
        Address("dimse", "dimse", settings.dimse_host, settings.dimse_port),
        *_tls_addresses(settings),
    )
    return [one for one in every if one.role in settings.roles]


def _tls_addresses(settings: Settings) -> list[Address]:
    if not settings.dimse_tls_certificate_file:
        return []
    return [Address("dimse", "dimse_tls", settings.dimse_host, settings.dimse_tls_port)]


def http_root(settings: Settings) -> str:
    """Return the URL of the web role without a path."""
    return f"http://{Address('web', 'BFR_HTTP', settings.http_host, settings.http_port)}"


def open_to_strangers(address: Address) -> str | None:
    """Return why the role may not listen there; None when it may.

    Without a login everybody who reaches the web role would see everything.
    """
    if address.role != "web" or is_loopback(address.host):
        return None
    return (
        f"BFR_{address.door.upper()}_HOST={address.host}: without a login the web role listens on a"
        " loopback address only"
    )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can be there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def problem_at(address: Address) -> Problem | None:
    """Return what keeps a program of this user from listening there; None when nothing does.

    A port 0 stands for any free one.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.create_server((address.host, address.port), family=family):
            return None
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        return Problem(f"{address} {_reason(address, error)}", in_use)


def free_port(address: Address) -> int:
    """Return a port of the host that nobody listens on. Raises OSError."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.create_server((address.host, 0), family=family) as server:
        return int(server.getsockname()[1])


def open_listener(address: Address) -> socket.socket:
    """Return a socket that listens at the address. Raises OSError."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)


def _reason(address: Address, error: OSError) -> str:
    setting = f"BFR_{address.door.upper()}"
    if error.errno == errno.EADDRINUSE:
        return f"is taken by another program: stop it or set {setting}_PORT to another port"
    if error.errno == errno.EACCES:
        return f"is not for this user: set {setting}_PORT to a port from 1024 on"
    # Below 0 are the errors of getaddrinfo(3): a name that nobody knows.
    if error.errno == errno.EADDRNOTAVAIL or (error.errno or 0) < 0:
        host = f"BFR_{address.role.upper()}_HOST" if address.role == "dimse" else f"{setting}_HOST"
        return f"is no address of this machine: set {host} to one"
    return f"cannot be used: {error.strerror}"
