"""Logs: lines for people or JSON for machines, neither with a person's id or name.

A message is ours and names no person. What others put into a line may: the text of an error of
the database quotes rows, a warning of a DICOM library quotes values. Of an error therefore only
its kind and its places in the code are written, and of a warning its kind and place.
"""

import asyncio
import logging
import sys
import threading
import traceback
import warnings
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import orjson

from bfr_core import metrics, observation
from bfr_core.errors import ArchiveError
from bfr_core.settings import Settings

TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
# Libraries that may write here, and from which level on. The others may not: those of DICOM quote
# values, those that speak to the database quote rows, and some set their own levels when loaded.
LIBRARIES = {
    "opentelemetry": logging.WARNING,
    "psycopg": logging.WARNING,
    "uvicorn": logging.ERROR,
}

log = logging.getLogger("bfr")

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class TextFormatter(logging.Formatter):
    """Lines for people."""

    def formatException(self, ei: _ExcInfo) -> str:
        """Return the kind of the error, of its causes, and their places in the code."""
        return told(ei[1]) if ei[1] is not None else ""


class JsonFormatter(TextFormatter):
    """One JSON object a line."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "role": self._role,
            "message": record.getMessage(),
        }
        transaction = observation.current()
        if transaction is not None:
            line["transaction"] = transaction.transaction
            line["trace_id"] = transaction.trace_id
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class _Ours(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        room = record.name.partition(".")[0]
        if room != "bfr" and record.levelno < LIBRARIES.get(room, logging.CRITICAL + 1):
            return False
        metrics.of(metrics.LOG_RECORDS, record.levelname.lower()).inc()
        return True


def told(error: BaseException) -> str:
    """Return the kind of the error and of what caused it, with the places in the code."""
    lines = []
    cause: BaseException | None = error
    while cause is not None:
        message = f": {cause.message}" if isinstance(cause, ArchiveError) else ""
        lines.append(f"{type(cause).__module__}.{type(cause).__name__}{message}")
        for frame in traceback.extract_tb(cause.__traceback__):
            lines.append(f"  at {frame.name} ({frame.filename}:{frame.lineno})")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n".join(lines)


def as_json() -> bool:
    """Tell whether the log of this process is JSON."""
    return any(isinstance(one.formatter, JsonFormatter) for one in logging.getLogger().handlers)


def configure(settings: Settings, role: str) -> None:
    """Write the log of this process to standard error, as the settings want it."""
    handler = logging.StreamHandler(sys.stderr)
    as_json = settings.log_format == "json"
    handler.setFormatter(JsonFormatter(role) if as_json else TextFormatter(TEXT))
    handler.addFilter(_Ours())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    warnings.showwarning = _warned


def catch_the_rest(loop: asyncio.AbstractEventLoop) -> None:
    """Log what nobody catches, of the loop and of threads too, without the text of the error."""
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    loop.set_exception_handler(_uncaught_in_loop)


def _uncaught_in_loop(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.error(
        "%s", str(context.get("message", "")).partition("\n")[0], exc_info=context.get("exception")
    )


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("the process ends with an error", exc_info=(kind, error, trace))


def _uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        log.error(
            "a thread ended with an error",
            exc_info=(arguments.exc_type, arguments.exc_value, arguments.exc_traceback),
        )


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    log.debug("%s at %s:%d", category.__name__, filename, lineno)
