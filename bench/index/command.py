"""The command `python -m bench.index`: build, measure, write down, draw."""

import argparse
import asyncio
import datetime
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.index import growth, locators
from bench.index.database import serving
from bench.index.loading import TABLES, load
from bench.index.measuring import WrongAnswer, measure
from bench.index.studies import Population

GIB = 1 << 30
BYTES_A_STUDY = 3600  # what a build needs on the disk, logs of the database and room to sort too


def main() -> None:
    """Run and exit: 0 when all answers and plans were right, 1 when not, 2 when it cannot begin."""
    arguments = _parser().parse_args()
    if arguments.draw:
        growth.draw(arguments.out, arguments.draw)
        return
    if arguments.locators:
        _compare_locators(arguments)
        return
    base = arguments.work_dir or Path(tempfile.gettempdir())
    needed = arguments.studies * BYTES_A_STUDY
    free = shutil.disk_usage(base).free
    if free < needed:
        print(f"bench: {base} has {free / GIB:.0f} GiB, {needed / GIB:.0f} needed", file=sys.stderr)
        sys.exit(2)
    directory = arguments.reuse or Path(tempfile.mkdtemp(prefix="bfr-bench-index-", dir=base))
    try:
        status = _run(arguments, directory)
    except WrongAnswer as error:
        print(f"bench: {error}", file=sys.stderr)
        status = 1
    finally:
        if not arguments.keep and not arguments.reuse:
            shutil.rmtree(directory, ignore_errors=True)
    sys.exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.index", description="Measure the index with synthetic studies."
    )
    parser.add_argument("--studies", type=int, default=400_000, help="how many (default 400000)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same studies")
    parser.add_argument("--samples", type=int, default=200, help="warm questions of each kind")
    parser.add_argument("--cold-samples", type=int, default=8, help="cold starts of the database")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that copy rows")
    parser.add_argument("--out", type=Path, default=Path("bench/out"), help="folder of results")
    parser.add_argument("--work-dir", type=Path, help="folder for the database")
    parser.add_argument("--keep", action="store_true", help="keep the database")
    parser.add_argument("--reuse", type=Path, help="folder of a database that was kept")
    parser.add_argument("--draw", type=Path, help="only draw the growth curve into this SVG")
    parser.add_argument("--locators", action="store_true", help="only compare kinds of locators")
    return parser


def _run(arguments: argparse.Namespace, directory: Path) -> int:
    population = Population(arguments.studies, arguments.seed)
    load_before = os.getloadavg()
    building: dict[str, float] = {}
    with serving(directory) as database:
        if not arguments.reuse:
            _say(f"building {population.studies} studies in {directory}")
            began = time.perf_counter()
            building = load(database.owner_url, population, arguments.processes).seconds
            building["all"] = time.perf_counter() - began
        tables = database.sizes(list(TABLES))
        indexes = database.index_sizes(list(TABLES))
        caches_dropped: list[bool] = []
        _say("measuring")
        measured = asyncio.run(
            measure(
                database.settings,
                population,
                arguments.samples,
                arguments.cold_samples,
                lambda: caches_dropped.append(database.start_cold()),
            )
        )
    whole = sum(size["table_bytes"] + size["index_bytes"] for size in tables.values())
    result: dict[str, Any] = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "studies": population.studies,
        "seed": population.seed,
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "load_average_before": load_before,
        "load_average_after": os.getloadavg(),
        "page_cache_dropped": all(caches_dropped),
        "building_s": {name: round(seconds, 1) for name, seconds in building.items()},
        "bytes_a_study": round(whole / population.studies),
        "tables": tables,
        "indexes": indexes,
        "questions": [one.to_json() for one in measured],
    }
    print(growth.table([result]))
    name = f"index-{population.studies}"
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    plans = {one.question.key: one.plans for one in measured}
    (arguments.out / f"{name}-plans.json").write_text(json.dumps(plans, indent=1) + "\n")
    scanned = {one.question.title: one.sequential_scans for one in measured if one.sequential_scans}
    for title, scans in scanned.items():
        print(f"bench: {title} reads all of {', '.join(sorted(set(scans)))}", file=sys.stderr)
    return 1 if scanned else 0


def _compare_locators(arguments: argparse.Namespace) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="bfr-bench-index-", dir=arguments.work_dir) as directory,
        serving(Path(directory)) as database,
    ):
        compared = locators.compare(database.owner_url, arguments.seed)
    for one in compared:
        print(one)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "locators.json").write_text(json.dumps(compared, indent=2) + "\n")


def _say(text: str) -> None:
    print(f"bench: {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
