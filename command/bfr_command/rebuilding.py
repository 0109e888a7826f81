"""The index made again from the packs, two indexes compared, and orphans swept away."""

import argparse
import sys

from bfr_command.database_session import command_store, this_operator
from bfr_command.progress import Progress
from bfr_core import comparing, rebuilding, sweeping
from bfr_core.database import open_database
from bfr_core.settings import Settings
from bfr_core.store import Store

SHOWN_MAX = 50


async def rebuild_index(settings: Settings, arguments: argparse.Namespace) -> int:
    """Build the index again; 1 when something could not be brought back, or differs."""
    async with command_store(settings) as store:
        progress = Progress("packs read", await rebuilding.count_packs(store))
        rebuilt = await rebuilding.rebuild(
            store,
            this_operator(),
            lambda rebuilt: progress.show(rebuilt.packs),
            force=arguments.force,
        )
        progress.end()
        for trouble in rebuilt.troubles[:SHOWN_MAX]:
            print(f"not brought back: {trouble}", file=sys.stderr)
        if len(rebuilt.troubles) > SHOWN_MAX:
            print(f"and {len(rebuilt.troubles) - SHOWN_MAX} more", file=sys.stderr)
        print(
            f"{rebuilt.packs} packs read: {rebuilt.instances} objects are in the index again,"
            f" {rebuilt.known} were there, {rebuilt.deleted} stay deleted,"
            f" {len(rebuilt.troubles)} troubles"
        )
        different = 0
        if arguments.compare_with:
            different = await _compare(store, arguments.compare_with)
    return 1 if rebuilt.troubles or different else 0


async def compare_indexes(settings: Settings, arguments: argparse.Namespace) -> int:
    """Compare the index with that of another database; 1 when they differ."""
    async with command_store(settings) as store:
        return 1 if await _compare(store, arguments.url) else 0


async def sweep_blobs(settings: Settings, arguments: argparse.Namespace) -> int:
    """Delete the packs, manifests and tombstones that nothing refers to."""
    async with command_store(settings) as store:
        swept = await sweeping.sweep_all(store)
    for key in swept.unclear:
        print(f"left, nobody can tell whose it is: {key}", file=sys.stderr)
    print(f"{len(swept.removed)} blobs of {swept.removed_bytes} bytes removed")
    return 0


async def _compare(store: Store, url: str) -> int:
    """Print what differs and return how many studies do."""
    same = different = 0
    async with open_database(url, connections=1) as other:
        async for one in comparing.differences(
            comparing.contents(store.database, store.sealed),
            comparing.contents(other, store.sealed),
        ):
            if one is None:
                same += 1
                continue
            different += 1
            known = one.here or one.there
            assert known is not None
            print(
                f"differs: {known.archive} {known.study_instance_uid}:"
                f" {_told(one.here)} here, {_told(one.there)} there"
            )
    print(f"{same} studies are the same in both, {different} differ")
    return different


def _told(content: comparing.StudyContent | None) -> str:
    if content is None:
        return "nothing"
    return (
        f"{content.series} series, {content.instances} objects, {content.size_bytes} bytes,"
        f" {content.digest[:12]}"
    )
