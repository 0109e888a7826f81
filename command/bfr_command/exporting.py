"""Export: stored studies as the DICOM files they came in."""

import argparse
import asyncio
import getpass
from pathlib import Path

from bfr_command.database_session import command_store
from bfr_command.progress import Progress
from bfr_core.access import operator
from bfr_core.blobs import BlobReader
from bfr_core.connections import find_archive
from bfr_core.retrieval import FoundInstance, retrieve_instances
from bfr_core.settings import Settings
from bfr_core.store import Store

CHUNK_BYTES = 4 * 1024 * 1024


async def export_studies(settings: Settings, arguments: argparse.Namespace) -> int:
    """Write each study below the folder as STUDY/SERIES/INSTANCE.dcm, byte for byte."""
    written = 0
    async with command_store(settings) as store:
        for study_instance_uid in arguments.studies:
            written += await export_study(
                store, arguments.archive, study_instance_uid, arguments.to
            )
    print(f"{written} files written to {arguments.to}")
    return 0


async def export_study(
    store: Store, ae_title: str | None, study_instance_uid: str, directory: Path
) -> int:
    """Write one study and return the number of files. Raises NotFound."""
    access = operator(getpass.getuser())
    archive_id = None
    if ae_title is not None:
        async with store.database.transaction() as tx:
            archive_id = (await find_archive(tx, access, ae_title)).archive_id
    found = await retrieve_instances(
        store, access, "export", archive_id=archive_id, study_instance_uid=study_instance_uid
    )
    await asyncio.to_thread(_write, store, found, directory)
    return len(found)


def _write(store: Store, found: list[FoundInstance], directory: Path) -> None:
    progress = Progress("exporting", len(found))
    reader = BlobReader(store.blobs)
    try:
        for number, one in enumerate(found, 1):
            # UIDs were checked when they came in: digits and dots are safe file names.
            folder = directory / one.study_instance_uid / one.series_instance_uid
            folder.mkdir(parents=True, exist_ok=True)
            blob = one.stored.blob
            with (folder / f"{one.stored.sop_instance_uid}.dcm").open("wb") as file:
                for start in range(0, blob.length, CHUNK_BYTES):
                    length = min(CHUNK_BYTES, blob.length - start)
                    file.write(reader.read(blob.key, blob.offset + start, length))
            progress.show(number)
    finally:
        reader.close()
        progress.end()
