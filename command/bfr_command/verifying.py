"""Verification and cases from the command line."""

import argparse

from bfr_command.database_session import command_store, this_operator
from bfr_command.progress import Progress
from bfr_core import cases, verifying
from bfr_core.connections import find_archive
from bfr_core.errors import Invalid
from bfr_core.settings import Settings

COUNT_INSTANCES = "SELECT coalesce(sum(number_of_instances), 0)::bigint FROM study"


async def verify(settings: Settings, arguments: argparse.Namespace) -> int:
    """Hold one study, or everything, against its digests; 1 when something is not whole."""
    if arguments.archive is not None and arguments.study is None:
        raise Invalid("--archive goes with a Study Instance UID")
    async with command_store(settings) as store:
        async with store.database.transaction() as tx:
            if arguments.archive is not None:
                await find_archive(tx, this_operator(), arguments.archive)
            total = int(await tx.value(COUNT_INSTANCES))
        progress = Progress("verifying", total)
        if arguments.study is not None:
            verified = await verifying.verify_study(
                store, arguments.archive, arguments.study, lambda _: None
            )
        else:
            verified = await verifying.verify_all(
                store, lambda verified: progress.show(verified.instances)
            )
        progress.end()
    for kind, uid in verified.found:
        print(f"{kind}\t{uid}")
    print(
        f"{verified.instances} objects of {verified.series} series looked at,"
        f" {verified.size_bytes} bytes; {len(verified.found)} not whole"
    )
    return 1 if verified.found else 0


async def list_cases(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the cases, one a line: number, kind, archive, UIDs, since when, what."""
    async with command_store(settings) as store, store.database.transaction() as tx:
        for one in await cases.list_cases(tx, this_operator(), closed=arguments.closed):
            uids = "/".join(
                filter(
                    None, (one.study_instance_uid, one.series_instance_uid, one.sop_instance_uid)
                )
            )
            state = f"closed by {one.closed_by}" if one.closed_at else "open"
            print(
                f"{one.case_id}\t{one.kind}\t{one.archive}\t{uids}\t{one.opened_at:%Y-%m-%d %H:%M}"
                f"\t{state}\t{one.detail}"
            )
    return 0


async def close_case(settings: Settings, arguments: argparse.Namespace) -> int:
    """Close a case."""
    async with command_store(settings) as store, store.database.transaction() as tx:
        await cases.close_case(tx, this_operator(), arguments.case_id)
    print(f"case {arguments.case_id} is closed")
    return 0
