"""The log: what a line holds, and what of other people's words never gets into one."""

import asyncio
import io
import json
import logging
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest

from bfr_core import logs
from bfr_core.errors import Conflict, Unavailable
from bfr_core.observation import Observation
from bfr_core.settings import Settings

PERSON = "191212121212"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], io.StringIO]]:
    """Give a function that configures the log in a format and returns what is written to it."""
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level

    def configure(log_format: str) -> io.StringIO:
        root.handlers[:] = []
        stream = io.StringIO()
        monkeypatch.setattr("sys.stderr", stream)
        logs.configure(Settings(log_level="debug", log_format=log_format), "dimse")
        return stream

    with warnings.catch_warnings():
        yield configure
    root.handlers[:] = kept
    root.setLevel(level)


def failing() -> None:
    """Fail as the database does, with the text of a row."""
    try:
        raise ValueError(f"Key (patient_id)=({PERSON}) already exists")
    except ValueError as error:
        raise Unavailable("the database is not available") from error


def test_a_line_of_json_says_when_where_and_what(written: Callable[[str], io.StringIO]) -> None:
    stream = written("json")
    logging.getLogger("bfr.dimse").warning("two\nlines, %d objects", 3)
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    assert told.pop("time").endswith("+00:00")
    assert told == {
        "level": "warning",
        "logger": "bfr.dimse",
        "role": "dimse",
        "message": "two\nlines, 3 objects",
    }


def test_the_lines_of_a_transaction_have_its_id(written: Callable[[str], io.StringIO]) -> None:
    stream = written("json")
    log = logging.getLogger("bfr.dimse")
    ids = []
    for _ in range(2):
        observation = Observation("C-STORE")
        log.info("first")
        log.info("second")
        observation.end("success")
        ids.append(observation.trace_id)
    log.info("outside")
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [one.get("trace_id") for one in told] == [ids[0], ids[0], ids[1], ids[1], None]
    assert {one.get("transaction") for one in told[:4]} == {"C-STORE"}
    assert len({*ids}) == 2


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_error_is_told_by_kind_and_place_without_its_text(
    written: Callable[[str], io.StringIO], log_format: str
) -> None:
    stream = written(log_format)
    try:
        failing()
    except Unavailable:
        logging.getLogger("bfr.registration").exception("a commit failed")
    text = stream.getvalue()
    assert PERSON not in text
    for part in ("a commit failed", "Unavailable: the database is not available", "ValueError"):
        assert part in text
    assert f"at failing ({__file__}:" in text


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_libraries_quote_is_not_written(
    written: Callable[[str], io.StringIO], log_format: str
) -> None:
    stream = written(log_format)
    for name in ("pydicom", "pynetdicom.acse", "procrastinate.worker", "yoyo", "asyncio", "new"):
        logging.getLogger(name).setLevel(logging.DEBUG)  # as some do when they are loaded
        logging.getLogger(name).critical("Invalid value for VR PN: %r", PERSON)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = logs._warned
        warnings.warn(f"value {PERSON} is too long", UserWarning, stacklevel=1)
    assert PERSON not in stream.getvalue()
    assert "UserWarning at " in stream.getvalue()


async def test_what_nobody_catches_is_written_without_its_text(
    written: Callable[[str], io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = written("json")
    for module, name in (("sys", "excepthook"), ("threading", "excepthook")):
        monkeypatch.setattr(f"{module}.{name}", None)  # so that it is put back
    loop = asyncio.get_running_loop()
    logs.catch_the_rest(loop)

    async def fails() -> None:
        raise Conflict("it does not fit") from ValueError(PERSON)

    task = asyncio.create_task(fails())
    await asyncio.wait({task})
    del task  # nobody has asked what became of it

    def fails_in_thread() -> None:
        raise ValueError(PERSON)

    thread = threading.Thread(target=fails_in_thread)
    thread.start()
    thread.join()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [one["message"] for one in lines] == [
        "Task exception was never retrieved",
        "a thread ended with an error",
    ]
    assert "Conflict: it does not fit" in lines[0]["error"]
    assert PERSON not in stream.getvalue()
    loop.set_exception_handler(None)
