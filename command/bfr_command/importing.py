"""Import: files and folders of them through the one way in, with progress, resumable."""

import argparse
import asyncio
import getpass
import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bfr_command.database_session import command_store
from bfr_command.progress import Progress
from bfr_core.access import operator
from bfr_core.connections import find_archive
from bfr_core.errors import Invalid, Unavailable
from bfr_core.receiving import Received, Reception
from bfr_core.settings import Settings
from bfr_core.store import Store

BATCH_MAX = 100
CHUNK_BYTES = 1024 * 1024


@dataclass(slots=True)
class Result:
    """What became of the files."""

    new: int = 0
    identical: int = 0
    skipped: int = 0
    failures: list[tuple[Path, str]] = field(default_factory=list)


class Journal:
    """Which files an interrupted import has stored already; gone when an import has ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.done = set(path.read_text().splitlines()) if path.exists() else set()
        self._file = path.open("a")

    def add(self, files: Sequence[Path]) -> None:
        """Remember that the files are stored."""
        self._file.writelines(f"{line_of(file)}\n" for file in files)
        self._file.flush()

    def end(self) -> None:
        """Forget everything: the import has come to its end."""
        self._file.close()
        self._path.unlink()


async def import_paths(settings: Settings, arguments: argparse.Namespace) -> int:
    """Store the files; 1 when one of them could not be stored.

    Interrupted, the same command goes on where it was. A file that is stored already changes
    nothing.
    """
    for path in arguments.paths:
        if not path.exists():
            raise Invalid(f"{path} does not exist")
    files = list(_files(arguments.paths))
    async with command_store(settings) as store:
        result = await import_files(store, arguments.archive, files)
    for path, reason in result.failures:
        print(f"not stored: {path}: {reason}", file=sys.stderr)
    print(
        f"{result.new} stored, {result.identical} were stored before,"
        f" {result.skipped} done by the interrupted import, {len(result.failures)} not stored"
    )
    return 1 if result.failures else 0


async def import_files(store: Store, ae_title: str, files: Sequence[Path]) -> Result:
    """Store the files in an archive and return what became of them.

    Raises NotFound for the archive, Unavailable when the disk or the database fails; what was
    stored until then stays.
    """
    access = operator(getpass.getuser())
    async with store.database.transaction() as tx:
        archive = await find_archive(tx, access, ae_title)
    name = hashlib.sha256("\n".join([ae_title, *map(str, files)]).encode()).hexdigest()[:32]
    journal = Journal(store.settings.data_dir / "imports" / f"{name}.journal")
    result = Result()
    reception = Reception(store, access, archive, "import")
    progress = Progress("importing", len(files))
    batch: list[tuple[Path, Received]] = []
    try:
        for number, file in enumerate(files, 1):
            if line_of(file) in journal.done:
                result.skipped += 1
            else:
                try:
                    batch.append((file, await asyncio.to_thread(_read, reception, file)))
                except (Invalid, OSError) as error:
                    result.failures.append((file, _reason(error)))
            if len(batch) >= BATCH_MAX:
                await _commit(store, batch, journal, result)
            progress.show(number)
        await _commit(store, batch, journal, result)
    finally:
        progress.end()
        await asyncio.to_thread(reception.close)
    journal.end()
    return result


async def _commit(
    store: Store, batch: list[tuple[Path, Received]], journal: Journal, result: Result
) -> None:
    outcomes = await store.commit([received for _, received in batch])
    stored = []
    for (file, _), outcome in zip(batch, outcomes, strict=True):
        if isinstance(outcome.error, Unavailable):
            raise outcome.error
        if outcome.error is not None:
            result.failures.append((file, outcome.error.message))
            continue
        stored.append(file)
        result.new += outcome.stored == "new"
        result.identical += outcome.stored == "identical"
    journal.add(stored)
    batch.clear()


def line_of(file: Path) -> str:
    """Return the journal's line for a file: a file that has changed has another."""
    status = file.stat()
    return f"{status.st_size} {status.st_mtime_ns} {file}"


def _read(reception: Reception, file: Path) -> Received:
    incoming = reception.incoming_part10()
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                incoming.write(chunk)
    except BaseException:
        incoming.abort()
        raise
    return incoming.finish()


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        # A DICOMDIR is the table of contents of a medium, not an object to store.
        yield from (file for file in found if file.is_file() and file.name != "DICOMDIR")


def _reason(error: Invalid | OSError) -> str:
    return error.message if isinstance(error, Invalid) else str(error.strerror)
