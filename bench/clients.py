"""Client processes: they ask what they are told and give back what came, with times.

Each client is a process, so that no interpreter lock is shared, and is kept for the whole run.
All clients of a job connect and build their bodies first and begin at one word.
"""

import multiprocessing
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

from bench.http_client import Answer, Connection, HttpFailure, request_head

T = TypeVar("T")

BOUNDARY = "bench-4f1d2c7a"
STOW_CONTENT_TYPE = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


class ClientFailure(Exception):
    """A client could not do its job."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request; with `files`, a POST of these Part 10 files (PS3.18 §10.5)."""

    path: str
    accept: str = "application/dicom+json"
    files: tuple[Path, ...] = ()
    keep: bool = False  # give the body of the answer back


@dataclass(frozen=True, slots=True)
class Job:
    """What one client does, request by request over one connection."""

    port: int
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class JobResult:
    """What came of a job."""

    started_at: float  # time.perf_counter(), one clock for all processes of the machine
    ended_at: float
    answers: tuple[Answer, ...] = field(repr=False)
    connections: int  # more than one when the server did not keep it alive


class Clients:
    """The client processes of a run."""

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._clients: list[tuple[BaseProcess, Pipe]] = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._clients.append((process, ours))

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Hand the jobs out and return when every client is ready. Raises ClientFailure."""
        for (_, pipe), job in zip(self._clients, jobs, strict=False):
            pipe.send(job)
        for _, pipe in self._clients[: len(jobs)]:
            _receive(pipe, str)

    def run(self, jobs: Sequence[Job]) -> list[JobResult]:
        """Let the clients begin that `prepare` made ready. Raises ClientFailure."""
        for _, pipe in self._clients[: len(jobs)]:
            pipe.send("begin")
        return [_receive(pipe, JobResult) for _, pipe in self._clients[: len(jobs)]]

    def close(self) -> None:
        """End the client processes."""
        for process, pipe in self._clients:
            pipe.close()
            process.join(2.0)
            if process.is_alive():
                process.kill()


def _receive(pipe: Pipe, kind: type[T]) -> T:
    try:
        message = pipe.recv()
    except EOFError:
        raise ClientFailure("a client process has died") from None
    if not isinstance(message, kind) or message == "":
        raise ClientFailure(str(message))
    return message


def serve(pipe: Pipe) -> None:
    """Do the jobs that come through the pipe until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    while True:
        try:
            job: Job = pipe.recv()
            pipe.send(_do(job, pipe))
        except (EOFError, BrokenPipeError):
            return
        except (HttpFailure, OSError) as error:
            pipe.send(ClientFailure(f"{type(error).__name__}: {error}"))


def _do(job: Job, pipe: Pipe) -> JobResult:
    prepared = [_prepare(job.port, request) for request in job.requests]
    connection = Connection(job.port)
    try:
        pipe.send("ready")
        pipe.recv()
        started_at = time.perf_counter()
        answers = tuple(
            connection.exchange(head, body, keep=request.keep)
            for (head, body), request in zip(prepared, job.requests, strict=True)
        )
        return JobResult(started_at, time.perf_counter(), answers, connection.opened)
    finally:
        connection.close()


def _prepare(port: int, request: Request) -> tuple[bytes, bytes]:
    headers = {"Accept": request.accept}
    if not request.files:
        return request_head(port, "GET", request.path, headers), b""
    body = stow_body(request.files)
    headers["Content-Type"] = STOW_CONTENT_TYPE
    return request_head(port, "POST", request.path, headers, len(body)), body


def stow_body(files: Sequence[Path]) -> bytes:
    """Return a multipart body of Part 10 files (PS3.18 §8.6.1.2)."""
    pieces = []
    for path in files:
        pieces.append(f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode())
        pieces.append(path.read_bytes())
        pieces.append(b"\r\n")
    pieces.append(f"--{BOUNDARY}--\r\n".encode())
    return b"".join(pieces)
