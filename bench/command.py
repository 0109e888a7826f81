"""The command `python -m bench`: its arguments, the order of the run, and its end."""

import argparse
import datetime
import os
import platform
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from bench import (
    bounded,
    processes,
    query_retrieve,
    retrieving,
    searching,
    servers,
    starting,
    storing,
)
from bench.clients import ClientFailure, Clients
from bench.dimse_client import DimseFailure
from bench.http_client import HOST
from bench.measures import Results
from bench.run import CLIENTS_MAX, Run, Sizes, Wrong
from bench.servers import Missing, Peers, Server, ServerFailure

Part = Callable[[Run, int], None]

# In the order of a round; "start" comes before all rounds, "bounded" after them.
PARTS: Mapping[str, Part] = {
    "store": storing.c_store,
    "stow": storing.stow,
    "qido": searching.qido,
    "metadata": retrieving.metadata,
    "large": retrieving.large_metadata,
    "wado": retrieving.wado,
    "frames": retrieving.frames,
    "find": query_retrieve.find,
    "get": query_retrieve.get,
    "move": query_retrieve.move,
}
EVERYTHING = ("start", *PARTS, "bounded")
NEEDS_LOAD = frozenset({"qido", "metadata", "wado", "frames", "find", "get", "move"})
NEEDS_RECEIVER = frozenset({"store", "move"})
PORTS = 10
MIB = 1024 * 1024


def main() -> None:
    """Run and exit: 0 when every answer was right, 1 when not, 2 when it cannot begin."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, _end)
    try:
        peers = servers.find_peers(arguments.orthanc, arguments.orthanc_plugin)
        _require_ports(arguments.first_port)
    except Missing as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
    work_dir = Path(tempfile.mkdtemp(prefix="bfr-bench-", dir=arguments.work_dir))
    try:
        status = _measure(arguments, peers, work_dir)
    except (Wrong, ServerFailure, ClientFailure, DimseFailure) as error:
        print(f"bench: {error}", file=sys.stderr)
        _tell_logs(work_dir)
        status = 1
    except KeyboardInterrupt:
        status = 130
    finally:
        if not arguments.keep:
            shutil.rmtree(work_dir, ignore_errors=True)
    sys.exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure BFR and Orthanc in turn on this machine."
    )
    parser.add_argument(
        "--parts",
        type=_parts,
        help=f"some of {','.join(EVERYTHING)} (default: all; smoke: all but start)",
    )
    parser.add_argument("--instances", type=int, help="slices stored in one go (default 300)")
    parser.add_argument("--studies", type=int, help="small studies in the index (default 2000)")
    parser.add_argument("--rounds", type=int, help="turns of each measure (default 3)")
    parser.add_argument(
        "--smoke", action="store_true", help="very few of everything: is every answer right?"
    )
    parser.add_argument("--out", type=Path, default=Path("bench/out"), help="folder of results")
    parser.add_argument("--work-dir", type=Path, help="folder for the servers' data")
    parser.add_argument(
        "--role-limit-mib",
        type=float,
        default=512.0,
        help="most memory of a role in the part bounded (default 512)",
    )
    parser.add_argument("--keep", action="store_true", help="keep the servers' data and logs")
    parser.add_argument("--first-port", type=int, default=18500, help=f"of {PORTS} free ports")
    parser.add_argument("--orthanc", help="the program (default: Orthanc on PATH)")
    parser.add_argument("--orthanc-plugin", help="its DICOMweb plugin (default: beside it)")
    return parser


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    unknown = sorted(set(parts) - {*EVERYTHING})
    if unknown:
        names = ", ".join(EVERYTHING)
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: the parts are {names}")
    return parts


def _sizes(arguments: argparse.Namespace) -> Sizes:
    smoke = arguments.smoke
    instances, studies, rounds = (24, 36, 1) if smoke else (300, 2000, 3)
    return Sizes(
        instances=arguments.instances or instances,
        studies=arguments.studies or studies,
        large_series=100 if smoke else 2000,
        rounds=arguments.rounds or rounds,
        share=0.1 if arguments.smoke else 1.0,
        settle_s=0.5 if arguments.smoke else 5.0,
        # BFR makes manifests of series that were quiet for ten seconds.
        quiet_s=0.0 if smoke else 12.0,
        huge_bytes=64 * MIB if smoke else 4 * 1024 * MIB - 16 * MIB,
        small_objects=200 if smoke else 10_000,
        readers=8 if smoke else 50,
    )


def _measure(arguments: argparse.Namespace, peers: Peers, work_dir: Path) -> int:
    sizes, results = _sizes(arguments), Results()
    port: int = arguments.first_port
    everything = EVERYTHING[1:] if arguments.smoke else EVERYTHING
    chosen: Sequence[str] = arguments.parts or everything
    load_before, began = os.getloadavg(), time.perf_counter()
    if "start" in chosen:
        _say("start")
        starting.start_up(
            [
                lambda directory: servers.bfr(directory / "bfr", port),
                lambda directory: servers.orthanc(directory / "orthanc", port, peers),
            ],
            work_dir,
            results,
            sizes.rounds,
        )
    rest = [part for part in PARTS if part in chosen]
    if rest:
        _rounds(rest, sizes, results, peers, work_dir, port)
    within = True
    if "bounded" in chosen:
        _say("bounded")
        within = _bounded(arguments.role_limit_mib, sizes, results, peers, work_dir, port)
    about: dict[str, object] = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "duration_s": round(time.perf_counter() - began),
        "sizes": {name: getattr(sizes, name) for name in Sizes.__slots__},
        "load_average_before": load_before,
        "load_average_after": os.getloadavg(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "versions": servers.versions(peers),
    }
    print(results.table())
    print(
        f"\nload average {load_before[0]:.1f} before, {os.getloadavg()[0]:.1f} after;"
        f" {about['duration_s']} s"
    )
    path = arguments.out / f"{datetime.datetime.now():%Y%m%d-%H%M%S}.json"
    results.write(path, about)
    print(f"written: {path}")
    return 0 if within else 1


def _bounded(
    limit_mib: float, sizes: Sizes, results: Results, peers: Peers, work_dir: Path, port: int
) -> bool:
    """Return whether every role stayed below the limit."""
    directory = work_dir / "bounded"
    server = servers.bfr(directory / "bfr", port)
    server.start()
    try:
        if server.register is not None:
            server.register()
        peaks = bounded.bounded(server, directory, results, sizes, peers)
    finally:
        server.stop()
    for role, peak in peaks.items():
        verdict = "below" if peak <= limit_mib else "ABOVE"
        results.note(f"bounded memory: {role} took {peak:.0f} MiB, {verdict} {limit_mib:g} MiB")
    return max(peaks.values()) <= limit_mib


def _rounds(
    parts: list[str],
    sizes: Sizes,
    results: Results,
    peers: Peers,
    work_dir: Path,
    port: int,
) -> None:
    both = [
        servers.bfr(work_dir / "bfr", port),
        servers.orthanc(work_dir / "orthanc", port, peers),
    ]
    needs_receiver = NEEDS_RECEIVER.intersection(parts)
    receiver = servers.storescp(work_dir / "storescp", port, peers) if needs_receiver else None
    files = servers.file_server(work_dir / "nginx", port, peers) if "wado" in parts else None
    watch = processes.MemoryWatch()
    clients = Clients(CLIENTS_MAX)
    run = Run(peers, sizes, work_dir, clients, results, both, receiver, files)
    running: list[Server] = [*both, *(one for one in (receiver, files) if one)]
    try:
        for server in running:
            results.add("start.first", server.name, server.start())
            if server.register is not None:
                server.register()
        run.settle()
        for server in both:
            _note_memory(results, server, "just started")
        watch.start({server.name: server.pid for server in both})
        if NEEDS_LOAD.intersection(parts):
            _say("load")
            storing.load(run)
            time.sleep(sizes.quiet_s)
            processes.settle([server.pid for server in both], sizes.quiet_s * 10)
        for round_number in range(sizes.rounds):
            for part in parts:
                _say(f"round {round_number + 1}: {part}")
                PARTS[part](run, round_number)
        run.settle()
        watch.stop()
        for server in both:
            peak = watch.peak_bytes.get(server.name, 0) / MIB
            results.memory_mib[server.name]["peak"] = peak
            _note_memory(results, server, "after")
    finally:
        watch.stop()
        for server in running:
            server.ask_to_stop()  # so that they end at the same time
        for server in running:
            server.stop()
        clients.close()


def _note_memory(results: Results, server: Server, when: str) -> None:
    memory = processes.pss_bytes(server.pid) / MIB
    results.memory_mib.setdefault(server.name, {})[when] = memory


def _require_ports(first: int) -> None:
    for port in range(first, first + PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                raise Missing(f"port {port} is in use: give --first-port") from None


def _tell_logs(work_dir: Path) -> None:
    for log in sorted(work_dir.glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-15:]
        print(f"--- {log.name}", *lines, sep="\n", file=sys.stderr)


def _say(text: str) -> None:
    print(f"bench: {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _end(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
