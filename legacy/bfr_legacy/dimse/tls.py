"""TLS under DICOM associations, with certificates on both sides (PS3.15 §B.12, BCP 195).

Python's TLS sockets are not made for two threads, but an association reads in one and writes in
another. `TlsConnection` never waits inside OpenSSL, so that one lock is enough.
"""

import functools
import logging
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from bfr_core.certificates import is_of, peer_certificate
from bfr_core.errors import ArchiveError, Unavailable
from bfr_core.node_terms import NodeTerms
from bfr_core.settings import Settings

# RFC 9325 §4.2: forward secrecy and authenticated encryption. TLS 1.3 has no others.
TLS_1_2_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
SEND_BYTES = 64 * 1024  # OpenSSL wants the same bytes again when the kernel has no room

log = logging.getLogger("bfr.dimse")

Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class _Contexts:
    server: ssl.SSLContext
    client: ssl.SSLContext
    bound_client: ssl.SSLContext  # for a node whose certificate is known: its name is not compared


class Tls:
    """Our certificate and the authorities we trust, read again when their files change."""

    def __init__(self, certificate: str, key: str, authorities: str) -> None:
        self._files = (certificate, key or certificate, authorities)
        self._stamp: Stamp | None = None
        self._contexts: _Contexts | None = None
        self._lock = threading.Lock()

    def server(self) -> ssl.SSLContext:
        """Return what incoming connections are secured with. Raises Unavailable without files."""
        return self._current().server

    def client(self, *, bound: bool) -> ssl.SSLContext:
        """Return what outgoing connections are secured with. Raises Unavailable without files.

        `bound`: the caller compares the certificate itself, so the host's name is not looked for.
        """
        contexts = self._current()
        return contexts.bound_client if bound else contexts.client

    def _current(self) -> _Contexts:
        with self._lock:
            try:
                stamp = tuple(_stamp(path) for path in self._files)
                if stamp != self._stamp:
                    self._stamp = stamp
                    self._contexts = self._read()
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                # What was read before is still good; half a file will change once more.
                log.error("the TLS files cannot be read: %s", type(error).__name__)
            if self._contexts is None:
                raise Unavailable("the TLS files cannot be read")
            return self._contexts

    def _read(self) -> _Contexts:
        client = self._context(ssl.PROTOCOL_TLS_CLIENT)
        bound_client = self._context(ssl.PROTOCOL_TLS_CLIENT)
        bound_client.check_hostname = False
        return _Contexts(self._context(ssl.PROTOCOL_TLS_SERVER), client, bound_client)

    def _context(self, protocol: int) -> ssl.SSLContext:
        certificate, key, authorities = self._files
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(TLS_1_2_CIPHERS)
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authorities)
        context.load_cert_chain(certificate, key, password=_no_password)
        return context


@functools.cache
def tls_of(settings: Settings) -> Tls | None:
    """Return the TLS side of the settings; None where no certificate is set."""
    if not settings.dimse_tls_certificate_file:
        return None
    return Tls(
        settings.dimse_tls_certificate_file,
        settings.dimse_tls_key_file,
        settings.dimse_tls_ca_file,
    )


def _stamp(path: str) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size, status.st_ino


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # else OpenSSL would ask at the terminal


def securing(
    settings: Settings, terms: NodeTerms, host: str
) -> Callable[[socket.socket, float], socket.socket] | None:
    """Return what lets TLS begin on a connection to a node; None when it is called without.

    The function takes the connection and the seconds for each wait. It raises OSError when the
    node does not agree, or shows another certificate than its own.
    """
    if not terms.tls_required:
        return None
    tls = tls_of(settings)

    def secure(plain: socket.socket, timeout_s: float) -> socket.socket:
        if tls is None:
            raise ConnectionAbortedError("no certificate of ours is set for TLS")
        try:
            context = tls.client(bound=bool(terms.certificate))
        except ArchiveError as error:
            raise ConnectionAbortedError(error.message) from error
        plain.settimeout(timeout_s)
        secured = context.wrap_socket(plain, server_hostname=host)
        if terms.certificate and not is_of(peer_certificate(secured), terms.certificate):
            secured.close()
            raise ConnectionAbortedError("the node shows another certificate than its own")
        return cast(socket.socket, TlsConnection(secured, timeout_s))

    return secure


class TlsConnection:
    """A TLS connection as the streams use a socket: one thread reads while another writes.

    `timeout_s` bounds each wait for the peer to take something.
    """

    def __init__(self, connection: ssl.SSLSocket, timeout_s: float) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._timeout_s = timeout_s
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Return the descriptor to poll; what is `pending` does not show there."""
        return self._connection.fileno()

    def pending(self) -> int:
        """Return how many bytes can be read although nothing arrives."""
        with self._lock:
            return self._connection.pending()

    def recv_into(self, buffer: bytearray | memoryview) -> int:
        """Return how many bytes were read; 0 at the end of the connection.

        Raises BlockingIOError when a record has not arrived whole, OSError when it is broken.
        """
        view = memoryview(buffer)
        received = 0
        with self._lock:
            while received < len(view):
                try:
                    count = self._connection.recv_into(view[received:])
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                    if received:
                        break
                    raise BlockingIOError from error
                if count == 0:
                    break
                received += count
        return received

    def recv(self, size: int) -> bytes:
        """Return what arrives next, b"" at the end; waits for it. Raises OSError."""
        buffer = bytearray(size)
        while True:
            try:
                return bytes(buffer[: self.recv_into(buffer)])
            except BlockingIOError:
                self._wait(select.POLLIN)

    def send(self, data: bytes | memoryview) -> int:
        """Return how many bytes were sent. Raises OSError, TimeoutError when nobody reads."""
        piece = memoryview(data)[:SEND_BYTES]
        while True:
            with self._lock:
                try:
                    return self._connection.send(piece)
                except ssl.SSLWantWriteError:
                    event = select.POLLOUT
                except ssl.SSLWantReadError:
                    event = select.POLLIN
            self._wait(event)

    def sendall(self, data: bytes | memoryview) -> None:
        """Send all of it. Raises OSError."""
        left = memoryview(data)
        while left:
            left = left[self.send(left) :]

    def sendmsg(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Send the pieces, joined to whole records, and return their length. Raises OSError."""
        data = b"".join(pieces)
        self.sendall(data)
        return len(data)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """Set an option of the socket below."""
        self._connection.setsockopt(level, option, value)

    def setblocking(self, flag: bool) -> None:
        """Have what is sent next not wait for the peer."""
        if not flag:
            self._timeout_s = 0.0

    def shutdown(self, how: int) -> None:
        """End one direction or both. Raises OSError when the peer was first."""
        with self._lock:
            try:
                self._connection.unwrap()  # tells the peer; its own farewell is not waited for
            except (OSError, ValueError):
                pass
        socket.socket.shutdown(self._connection, how)  # ssl's own would forget how to decrypt

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self._connection, event)
        if not poll.poll(self._timeout_s * 1000):
            raise TimeoutError("the peer stands still")
