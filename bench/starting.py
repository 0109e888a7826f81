"""Starting: the time until a server is ready, and the memory that it then has."""

import time
from collections.abc import Callable
from pathlib import Path

from bench import processes
from bench.measures import Results
from bench.servers import Server

MIB = 1024 * 1024


def start_up(
    servers: list[Callable[[Path], Server]], directory: Path, results: Results, rounds: int
) -> None:
    """Measure a start with an empty folder, the memory when idle, and a start again."""
    for round_number in range(rounds):
        for make in servers:
            server = make(directory / f"start.{round_number}")
            try:
                results.add("start.first", server.name, server.start())
                time.sleep(1.0)
                processes.settle([server.pid], 5.0)
                memory = processes.pss_bytes(server.pid) / MIB
                results.add("start.memory", server.name, memory)
                server.stop()
                results.add("start.again", server.name, server.start())
            finally:
                server.stop()
            server.clear()
