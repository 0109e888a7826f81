"""Storage commitments from the command line: has another archive taken what it was sent?"""

import argparse

from pydicom.uid import generate_uid

from bfr_command.database_session import command_store, this_operator
from bfr_core import commitments
from bfr_core.connections import find_archive, find_destination
from bfr_core.errors import NotFound
from bfr_core.retrieval import retrieve_instances
from bfr_core.settings import Settings


async def ask(settings: Settings, arguments: argparse.Namespace) -> int:
    """Have a node asked to commit to the objects of studies, and print the request's number."""
    access = this_operator()
    async with command_store(settings) as store:
        async with store.database.transaction() as tx:
            archive = await find_archive(tx, access, arguments.archive)
        node = await find_destination(store.database, archive, arguments.node)
        if node is None:
            raise NotFound(f"the connection of {archive.ae_title} has no node {arguments.node!r}")
        references = []
        for study_instance_uid in arguments.studies:
            found = await retrieve_instances(
                store,
                access,
                "commitment",
                archive_id=archive.archive_id,
                study_instance_uid=study_instance_uid,
            )
            references += [(one.stored.sop_class_uid, one.stored.sop_instance_uid) for one in found]
        commitment_id = await commitments.request_commitment(
            store,
            access,
            archive.archive_id,
            node.dicom_node_id,
            generate_uid(prefix=None),
            references,
        )
    print(f"{commitment_id}\tasked {node.ae_title} for {len(references)} objects")
    return 0


async def show(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print what a node has answered; 1 when it does not commit to all, 2 while it is silent."""
    async with command_store(settings) as store:
        result = await commitments.find_result(store, arguments.number)
    if result is None:
        print("no answer yet")
        return 2
    for _, sop_instance_uid, reason in result.failed:
        print(f"failed\t{sop_instance_uid}\t{reason:04X}")
    print(f"{len(result.committed)} committed, {len(result.failed)} failed")
    return 1 if result.failed else 0
