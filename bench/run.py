"""A run: the servers, the clients and the objects that the parts share."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import processes
from bench.clients import Clients, Job, Request
from bench.http_client import Answer
from bench.measures import Results
from bench.samples import Sample, SmallStudy
from bench.servers import Peers, Server

CLIENTS_MAX = 8


class Wrong(Exception):
    """A server gave an answer that is not right: its speed says nothing."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    instances: int  # slices that are stored in one go, and of the study that is retrieved
    studies: int  # small studies in the index
    large_series: int  # instances of the series with the most metadata
    rounds: int
    share: float  # of the usual number of requests
    settle_s: float  # how long background work may delay a measure
    quiet_s: float  # after loading, until what comes later has begun
    huge_bytes: int  # of the object that is larger than the memory of a role
    small_objects: int
    readers: int  # at once, of one study

    def requests(self, usual: int) -> int:
        """Return how many requests to make where `usual` are made by default."""
        return max(2, round(usual * self.share))


@dataclass(frozen=True, slots=True)
class Timed:
    """What was measured of one turn of one server."""

    elapsed_s: float
    cpu_s: float  # of the server and all its processes
    answers: list[Answer] = field(repr=False)

    def cpu_ms(self, operations: int) -> float:
        """Return the CPU time for one operation."""
        return self.cpu_s * 1000 / operations


@dataclass(slots=True)
class Run:
    """Everything that the parts of the benchmark work with."""

    peers: Peers
    sizes: Sizes
    directory: Path
    clients: Clients
    results: Results
    servers: list[Server]  # BFR first, then Orthanc: the order of turns
    receiver: Server | None = None  # storescp
    files: Server | None = None  # nginx
    stored: list[Sample] = field(default_factory=list)  # the study that is retrieved
    large: list[Sample] = field(default_factory=list)  # a series of many small instances
    small: list[SmallStudy] = field(default_factory=list)

    def settle(self) -> None:
        """Return when no server is at work, or after the time that is allowed for it."""
        running = [*self.servers, *(one for one in (self.receiver, self.files) if one)]
        processes.settle([server.pid for server in running], self.sizes.settle_s)

    def timed(self, server: Server, act: Callable[[], list[Answer]]) -> Timed:
        """Return what `act` took by the clock of this process."""
        self.settle()
        cpu_s = processes.cpu_s(server.pid)
        started = time.perf_counter()
        answers = act()
        elapsed_s = time.perf_counter() - started
        return Timed(elapsed_s, processes.cpu_s(server.pid) - cpu_s, answers)

    def ask(self, server: Server, requests: Sequence[Sequence[Request]]) -> Timed:
        """Return what the requests took, a client for each list, by the clients' clocks."""
        jobs = [Job(server.http_port, tuple(own)) for own in requests]
        self.clients.prepare(jobs)
        self.settle()
        cpu_s = processes.cpu_s(server.pid)
        results = self.clients.run(jobs)
        cpu_s = processes.cpu_s(server.pid) - cpu_s
        for result, job in zip(results, jobs, strict=True):
            if result.connections > 1:
                self.results.note(
                    f"{server.name} closed connections: {result.connections} for"
                    f" {len(job.requests)} requests like {job.requests[0].path[:60]}"
                )
            for answer in result.answers:
                if answer.status not in (200, 204):
                    raise Wrong(f"{server.name} answered {answer.status}: {answer.body[:300]!r}")
        elapsed_s = max(one.ended_at for one in results) - min(one.started_at for one in results)
        return Timed(elapsed_s, cpu_s, [answer for one in results for answer in one.answers])

    def one(self, server: Server, request: Request) -> Answer:
        """Return the answer to one request that is not measured."""
        job = Job(server.http_port, (request,))
        self.clients.prepare([job])
        answer = self.clients.run([job])[0].answers[0]
        if answer.status not in (200, 204):
            raise Wrong(
                f"{server.name} answered {answer.status} for {request.path}: {answer.body[:300]!r}"
            )
        return answer


def require(condition: bool, server: Server, text: str) -> None:
    """Raise Wrong when the condition does not hold."""
    if not condition:
        raise Wrong(f"{server.name}: {text}")
