"""HTTP/1.1 as a client that costs little beside the server that it measures (RFC 9112)."""

import io
import socket
import time
from dataclasses import dataclass

HOST = "127.0.0.1"
TIMEOUT_S = 120.0
READ_BYTES = 1 << 20


class HttpFailure(Exception):
    """The server answered with something that is no HTTP/1.1 answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request brought."""

    status: int
    content_type: str
    size_bytes: int  # of the body
    elapsed_s: float  # from the first byte sent to the last byte read
    body: bytes  # empty unless it was to be kept


class Connection:
    """A kept-alive connection for one request after the other; opened again when closed on us."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.opened = 0
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._open()

    def _open(self) -> None:
        self._socket = socket.create_connection((HOST, self._port), timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = io.BufferedReader(self._socket.makefile("rb", buffering=0), 64 * 1024)
        self.opened += 1

    def close(self) -> None:
        self._reader.close()
        self._socket.close()

    def exchange(self, head: bytes, body: bytes, *, keep: bool) -> Answer:
        """Return the answer to the request. Raises HttpFailure and OSError."""
        started = time.perf_counter()
        self._socket.sendall(head)
        if body:
            self._socket.sendall(body)
        status, headers = self._read_head()
        kept = bytearray() if keep else None
        closes = headers.get("connection", "").lower() == "close"
        if status == 204:
            size = 0
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            size = self._read_chunks(kept)
        elif "content-length" in headers:
            size = self._read_body(int(headers["content-length"]), kept)
        else:
            size = self._read_to_end(kept)
            closes = True
        elapsed_s = time.perf_counter() - started
        if closes:
            self.close()
            self._open()
        content_type = headers.get("content-type", "")
        return Answer(status, content_type, size, elapsed_s, bytes(kept or b""))

    def _read_head(self) -> tuple[int, dict[str, str]]:
        line = self._reader.readline()
        words = line.split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1."):
            raise HttpFailure(f"no status line but {line[:80]!r}")
        headers = {}
        while (line := self._reader.readline()) not in (b"\r\n", b"\n"):
            if not line:
                raise HttpFailure("the connection ended within the header")
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(words[1]), headers

    def _read_body(self, length: int, kept: bytearray | None) -> int:
        left = length
        while left:
            count = self._reader.readinto(self._buffer[: min(left, READ_BYTES)])
            if not count:
                raise HttpFailure("the connection ended within the body")
            if kept is not None:
                kept += self._buffer[:count]
            left -= count
        return length

    def _read_chunks(self, kept: bytearray | None) -> int:
        size = 0
        while length := int(self._reader.readline().partition(b";")[0], 16):
            size += self._read_body(length, kept)
            self._reader.readline()
        while self._reader.readline() not in (b"\r\n", b"\n", b""):
            pass
        return size

    def _read_to_end(self, kept: bytearray | None) -> int:
        size = 0
        while count := self._reader.readinto(self._buffer):
            if kept is not None:
                kept += self._buffer[:count]
            size += count
        return size


def request_head(
    port: int, method: str, path: str, headers: dict[str, str], body_bytes: int = 0
) -> bytes:
    """Return the bytes of a request before its body."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}:{port}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body_bytes or method == "POST":
        lines.append(f"Content-Length: {body_bytes}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
