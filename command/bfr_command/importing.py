"""Import: files and folders of them through the one way in, with progress, resumable."""

import argparse
import asyncio
import hashlib
import os
import stat
import sys
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from bfr_command.database_session import command_store, this_operator
from bfr_command.progress import Progress
from bfr_core.connections import find_archive
from bfr_core.errors import Invalid, Unavailable
from bfr_core.receiving import Received, Reception
from bfr_core.registration_batch import Outcome
from bfr_core.settings import Settings
from bfr_core.store import Store

BATCH_MAX = 100
CHUNK_BYTES = 1024 * 1024
# PS3.10 §7.1: a preamble of 128 bytes, then "DICM". Asked first, so that an archive file of many
# gigabytes among the images is not read to its end.
PREFIX = slice(128, 132)
KEY_BYTES = 16
LOOKS_BETWEEN_PAUSES = 1000


@dataclass(frozen=True, slots=True)
class Found:
    """One file below the paths to import."""

    path: Path
    size_bytes: int
    modified_ns: int
    problem: str | None = None  # why it cannot be read

    def key(self) -> bytes:
        """Return what names the file as it is: one that has changed has another key."""
        text = f"{self.size_bytes} {self.modified_ns} ".encode() + os.fsencode(self.path.absolute())
        return hashlib.blake2b(text, digest_size=KEY_BYTES).digest()


@dataclass(slots=True)
class Result:
    """What became of the files."""

    new: int = 0
    identical: int = 0
    skipped: int = 0
    failures: list[tuple[Path, str]] = field(default_factory=list)


class Journal:
    """Which files an interrupted import has stored already; gone when an import has ended.

    It holds one key after the other; the last may be torn.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        self._file.seek(0)
        data = self._file.read()
        whole = len(data) - len(data) % KEY_BYTES
        self.done = {data[start : start + KEY_BYTES] for start in range(0, whole, KEY_BYTES)}
        self._file.truncate(whole)

    def add(self, keys: Sequence[bytes]) -> None:
        """Remember that the files with these keys are stored."""
        self._file.write(b"".join(keys))
        self._file.flush()

    def close(self) -> None:
        """Keep everything for the next time."""
        self._file.close()

    def end(self) -> None:
        """Forget everything: the import has come to its end."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def journal_name(ae_title: str, paths: Sequence[Path]) -> str:
    """Return the name of the journal of this import: of the same archive and the same paths."""
    text = b"\n".join([ae_title.encode(), *(os.fsencode(path.absolute()) for path in paths)])
    return f"{hashlib.sha256(text).hexdigest()[:32]}.journal"


async def import_paths(settings: Settings, arguments: argparse.Namespace) -> int:
    """Store the files; 1 when one of them could not be stored.

    Interrupted, the same command goes on where it was. A file that is stored already changes
    nothing.
    """
    for path in arguments.paths:
        if not path.exists():
            raise Invalid(f"{path} does not exist")
    result = Result()
    try:
        async with command_store(settings) as store:
            await import_files(store, arguments.archive, arguments.paths, result)
    except asyncio.CancelledError:
        print("interrupted: the same command goes on where it was", file=sys.stderr)
        raise
    finally:
        for file, reason in result.failures:
            print(f"not stored: {file}: {reason}", file=sys.stderr)
        if result != Result():
            print(summary(result))
    if result == Result():
        print("there are no files to import", file=sys.stderr)
    return 1 if result.failures else 0


def summary(result: Result) -> str:
    """Return the sentence that tells what became of the files."""
    return (
        f"{result.new} stored, {result.identical} were stored before,"
        f" {result.skipped} done by the interrupted import, {len(result.failures)} not stored"
    )


async def import_files(store: Store, ae_title: str, paths: Sequence[Path], result: Result) -> None:
    """Store the files below the paths in an archive; `result` tells at any time what became of it.

    Raises NotFound for the archive, Unavailable when the disk or the database fails; what was
    stored until then stays.
    """
    access = this_operator()
    async with store.database.transaction() as tx:
        archive = await find_archive(tx, access, ae_title)
    total = await _count(paths)
    journal = Journal(store.settings.data_dir / "imports" / journal_name(ae_title, paths))
    reception = Reception(store, access, archive, "import", takes_non_patient=True)
    progress = Progress("importing", total)
    # One thread for all that touches the packs: an interrupt lets the file under way end first.
    with ThreadPoolExecutor(1, "import") as thread:
        try:
            await _Run(store, reception, thread, journal, progress, result).store_all(paths)
            journal.end()
        finally:
            progress.end()
            journal.close()
            await asyncio.get_running_loop().run_in_executor(thread, reception.close)


class _Run:
    """One run through the files."""

    def __init__(
        self,
        store: Store,
        reception: Reception,
        thread: ThreadPoolExecutor,
        journal: Journal,
        progress: Progress,
        result: Result,
    ) -> None:
        self.store = store
        self.reception = reception
        self.thread = thread
        self.journal = journal
        self.progress = progress
        self.result = result
        self.batch: list[tuple[Found, bytes, Received]] = []

    async def store_all(self, paths: Sequence[Path]) -> None:
        """Store every file. Raises Unavailable, after the commit of what was read until then."""
        try:
            for number, found in enumerate(_files(paths), 1):
                await self._take(found)
                if len(self.batch) >= BATCH_MAX:
                    await self._commit()
                self.progress.show(number)
        except Unavailable:
            await self._commit()
            raise
        await self._commit()

    async def _take(self, found: Found) -> None:
        if found.problem is not None:
            self.result.failures.append((found.path, found.problem))
            return
        key = found.key()
        if key in self.journal.done:
            self.result.skipped += 1
            return
        loop = asyncio.get_running_loop()
        try:
            received = await loop.run_in_executor(self.thread, _read, self.reception, found)
        except (Invalid, OSError) as error:
            self.result.failures.append((found.path, _reason(error)))
        else:
            self.batch.append((found, key, received))

    async def _commit(self) -> None:
        batch, self.batch = self.batch, []
        if not batch:
            return
        outcomes = await _to_its_end(self.store.commit([one for _, _, one in batch]))
        keys = []
        failure = None
        for (found, key, _), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome.error, Unavailable):
                failure = outcome.error
            elif outcome.error is not None:
                self.result.failures.append((found.path, outcome.error.message))
            else:
                keys.append(key)
                self.result.new += outcome.stored == "new"
                self.result.identical += outcome.stored == "identical"
        self.journal.add(keys)
        if failure is not None:
            raise failure


async def _to_its_end(work: Coroutine[None, None, list[Outcome]]) -> list[Outcome]:
    """Return what the work gives; cancelled, it still ends before the store is closed."""
    working = asyncio.create_task(work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        raise


def _read(reception: Reception, found: Found) -> Received:
    if found.size_bytes > reception.settings.object_max_bytes:
        raise Invalid(f"the object is larger than {reception.settings.object_max_bytes} bytes")
    with found.path.open("rb") as stream:
        chunk = stream.read(CHUNK_BYTES)
        if chunk[PREFIX] != b"DICM":
            raise Invalid("is no DICOM file (PS3.10 §7.1)")
        incoming = reception.incoming_part10()
        try:
            while chunk:
                incoming.write(chunk)
                chunk = stream.read(CHUNK_BYTES)
        except BaseException:
            incoming.abort()
            raise
    return incoming.finish()


async def _count(paths: Sequence[Path]) -> int:
    number = 0
    for number, _ in enumerate(_files(paths), 1):
        if number % LOOKS_BETWEEN_PAUSES == 0:
            await asyncio.sleep(0)  # where Ctrl-C is heard
    return number


def _files(paths: Sequence[Path]) -> Iterator[Found]:
    """Yield every file below the paths, in order of their names; never holds them all.

    Links are followed, and each folder is entered once, so that a link to a folder above ends.
    What cannot be read is among them: silence would look like success.
    """
    entered: set[tuple[int, int]] = set()
    waiting = list(reversed(paths))
    while waiting:
        path = waiting.pop()
        try:
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                if (status.st_dev, status.st_ino) not in entered:
                    entered.add((status.st_dev, status.st_ino))
                    names = sorted(os.listdir(path), reverse=True)
                    waiting += [path / name for name in names]
                continue
        except OSError as error:
            yield Found(path, 0, 0, _reason(error))
            continue
        if not stat.S_ISREG(status.st_mode):
            yield Found(path, 0, 0, "is neither a file nor a folder")
        # A DICOMDIR is the table of contents of a medium, not an object to store.
        elif path.name != "DICOMDIR":
            yield Found(path, status.st_size, status.st_mtime_ns)


def _reason(error: Invalid | OSError) -> str:
    return error.message if isinstance(error, Invalid) else error.strerror or type(error).__name__
