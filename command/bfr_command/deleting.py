"""Deletion from the command line, and its undoing."""

import argparse
import dataclasses

from bfr_command.database_session import command_store, this_operator
from bfr_core import deleting, rejecting, undeleting
from bfr_core.connections import find_archive
from bfr_core.settings import Settings
from bfr_core.tombstones import Target


async def delete_objects(settings: Settings, arguments: argparse.Namespace) -> int:
    """Delete a study, a series or an instance; say how it can be undone."""
    if arguments.code is not None:
        return await _reject(settings, arguments)
    async with command_store(settings) as store:
        count = await deleting.delete(
            store, this_operator(), arguments.archive, _target(arguments), arguments.reason
        )
    print(
        f"{count} objects are deleted: the same `bfr undelete` brings them back,"
        f" their bytes go after {settings.deleted_keep_days} days"
    )
    return 0


async def undelete_objects(settings: Settings, arguments: argparse.Namespace) -> int:
    """Undo a deletion; 1 when the bytes of some objects were gone."""
    async with command_store(settings) as store:
        undone = await undeleting.undelete(
            store, this_operator(), arguments.archive, _target(arguments)
        )
    print(f"{undone.restored} objects are back")
    if undone.gone:
        print(f"the bytes of {undone.gone} are gone: they are accepted when they are sent again")
    return 1 if undone.gone else 0


async def _reject(settings: Settings, arguments: argparse.Namespace) -> int:
    """Delete by a rejection note, which stays and is what an undoing names."""
    access = dataclasses.replace(this_operator(), may_reject=True)
    async with command_store(settings) as store:
        async with store.database.transaction() as tx:
            archive = await find_archive(tx, access, arguments.archive)
        rejected = await rejecting.reject(
            store, access, "bfr", archive, _target(arguments), arguments.code, arguments.reason
        )
    note = rejected.note
    print(
        f"{rejected.instances} objects are rejected: `bfr undelete` with the note brings them back:"
        f" {note.study_instance_uid} {note.series_instance_uid} {note.sop_instance_uid}"
    )
    return 0


def _target(arguments: argparse.Namespace) -> Target:
    return Target(arguments.study, arguments.series, arguments.instance)
