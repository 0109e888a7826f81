"""Export: stored studies as the DICOM files they came in."""

import argparse
import asyncio
import hashlib
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from bfr_command.database_session import command_store, this_operator
from bfr_command.progress import Progress
from bfr_core.blobs import BlobReader
from bfr_core.connections import find_archive
from bfr_core.dicomdir import FILE_SET_NAMES, Directory
from bfr_core.dicomdir import NAME as DICOMDIR
from bfr_core.errors import Conflict, NotFound, Unavailable
from bfr_core.retrieval import FoundInstance, retrieve_instances
from bfr_core.settings import Settings
from bfr_core.store import Store

CHUNK_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class Result:
    """What became of the instances, and of studies that are not there."""

    directory: Directory | None = None  # of what was written, when there is to be a DICOMDIR
    written: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)  # UID, reason


async def export_studies(settings: Settings, arguments: argparse.Namespace) -> int:
    """Write each study below the folder as STUDY/SERIES/INSTANCE.dcm, byte for byte.

    With a DICOMDIR files have the names that it may tell of (PS3.10 §8.2), and the folder must
    not hold another. Returns 1 when something could not be written, after writing all that could
    be. Raises Conflict.
    """
    result = Result(Directory() if arguments.dicomdir else None)
    if arguments.dicomdir and any((arguments.to / name).exists() for name in FILE_SET_NAMES):
        raise Conflict(f"{arguments.to} holds a file-set already: give an empty folder")
    async with command_store(settings) as store:
        for study_instance_uid in arguments.studies:
            await export_study(store, arguments.archive, study_instance_uid, arguments.to, result)
    if result.directory is not None and result.written:
        (arguments.to / DICOMDIR).write_bytes(result.directory.to_bytes())
    for uid, reason in result.failures:
        print(f"not exported: {uid}: {reason}", file=sys.stderr)
    print(f"{result.written} files written to {arguments.to}")
    return 1 if result.failures else 0


async def export_study(
    store: Store, ae_title: str | None, study_instance_uid: str, directory: Path, result: Result
) -> None:
    """Write one study; what cannot be read becomes a failure in `result`.

    Raises NotFound for the archive, OSError when the folder cannot be written.
    """
    access = this_operator()
    archive_id = None
    if ae_title is not None:
        async with store.database.transaction() as tx:
            archive_id = (await find_archive(tx, access, ae_title)).archive_id
    try:
        found = await retrieve_instances(
            store,
            access,
            "export",
            archive_id=archive_id,
            study_instance_uid=study_instance_uid,
            headers=result.directory is not None,
        )
    except NotFound:
        where = "in any archive" if ae_title is None else f"in archive {ae_title!r}"
        result.failures.append((study_instance_uid, f"there is no such study {where}"))
        return
    stop = threading.Event()
    writing = asyncio.create_task(asyncio.to_thread(_write, store, found, directory, result, stop))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        stop.set()  # a thread cannot be cancelled: it is asked, between two chunks
        await asyncio.wait([writing])
        raise


class _Stopped(Exception):
    """The export was interrupted."""


def _write(
    store: Store,
    found: list[FoundInstance],
    directory: Path,
    result: Result,
    stop: threading.Event,
) -> None:
    progress = Progress("exporting", len(found))
    reader = BlobReader(store.blobs, [one.stored.blob for one in found])
    try:
        for number, one in enumerate(found, 1):
            if result.directory is not None:
                names = result.directory.new_file_id(one)
            else:
                # UIDs were checked when they came in: digits and dots are safe file names.
                file = f"{one.stored.sop_instance_uid}.dcm"
                names = (one.study_instance_uid, one.series_instance_uid, file)
            path = directory.joinpath(*names)
            path.parent.mkdir(parents=True, exist_ok=True)
            # The final name is given to a whole file only.
            part = path.with_name(f"{path.name}.part")
            try:
                _copy(reader, one, part, stop)
                part.replace(path)
                result.written += 1
                if result.directory is not None:
                    result.directory.add(names, one)
            except Unavailable as error:
                result.failures.append((one.stored.sop_instance_uid, error.message))
            finally:
                part.unlink(missing_ok=True)
            progress.show(number)
    except _Stopped:
        return
    finally:
        reader.close()
        progress.end()


def _copy(reader: BlobReader, one: FoundInstance, path: Path, stop: threading.Event) -> None:
    """Copy the Part 10 bytes. Raises Unavailable when they are gone or not what was stored."""
    blob = one.stored.blob
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, blob.length, CHUNK_BYTES):
            if stop.is_set():
                raise _Stopped
            chunk = reader.read(
                blob.key, blob.offset + start, min(CHUNK_BYTES, blob.length - start)
            )
            digest.update(memoryview(chunk)[max(one.stored.dataset_offset - start, 0) :])
            file.write(chunk)
    if digest.digest() != one.stored.digest:
        raise Unavailable("its bytes are damaged: they are not what was stored")
