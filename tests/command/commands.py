"""The `bfr` command in this process: quick, with what it printed and its exit status."""

import contextlib
import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from bfr_command.main import main
from bfr_core.settings import Settings


@dataclass(frozen=True)
class Answer:
    """What a command said, and its exit status."""

    status: int
    out: str
    err: str


def bfr(settings: Settings | dict[str, str], *arguments: str | Path) -> Answer:
    """Run a command with these settings."""
    environment = settings if isinstance(settings, dict) else settings.to_environment()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BFR_")}
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, {**kept, **environment}, clear=True),
        mock.patch.object(sys, "argv", ["bfr", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            status = int(str(end.code or 0))
    return Answer(status, out.getvalue(), err.getvalue())


def done(answer: Answer) -> str:
    """Return what a command printed that went well."""
    assert answer.status == 0, answer.err
    return answer.out


def add_archive(settings: Settings | dict[str, str], ae_title: str = "ARCHIVE") -> str:
    """Register a connection with an archive and return its AE title."""
    done(bfr(settings, "connection", "add", f"PACS of {ae_title}"))
    done(bfr(settings, "archive", "add", ae_title, "--connection", f"PACS of {ae_title}"))
    return ae_title


def write_files(folder: Path, *files: bytes) -> list[Path]:
    """Write the files to the folder, in order of their names, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.dcm" for number in range(1, len(files) + 1)]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    return paths
