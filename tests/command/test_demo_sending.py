"""Files sent through C-STORE and STOW-RS arrive as they are, and what does not arrive is told."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    RLELossless,
)
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.presentation import build_context
from tests.samples import ct_instance, dataset_bytes, mr_instance, part10_bytes

from bfr_command.demo import sending
from bfr_command.demo.sending import Failure, send_c_store, send_stow

SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEG2000Lossless,
)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Twelve files: CT and MR in six transfer syntaxes."""
    paths: list[Path] = []
    for make in (ct_instance, mr_instance):
        for syntax in SYNTAXES:
            path = tmp_path / f"{len(paths):02d}.dcm"
            path.write_bytes(part10_bytes(make(transfer_syntax_uid=syntax)))
            paths.append(path)
    return paths


def carried(path: Path) -> bytes:
    """The data set in a file."""
    data = path.read_bytes()
    return data[144 + int.from_bytes(data[140:144], "little") :]


@dataclass
class Archive:
    """A storage SCP of another maker, and what came to it."""

    port: int = 0
    data_sets: list[bytes] = field(default_factory=list)
    syntaxes: list[str] = field(default_factory=list)
    associations: int = 0
    answer: Callable[[int], int] = lambda number: 0x0000


def scp(archive: Archive, sop_classes: tuple[UID, ...]) -> Iterator[Archive]:
    def store(event: Event) -> int:
        request = event.request
        assert isinstance(request, C_STORE)
        assert request.DataSet is not None
        archive.data_sets.append(request.DataSet.getvalue())
        archive.syntaxes.append(str(event.context.transfer_syntax))
        return archive.answer(len(archive.data_sets))

    def accepted(event: Event) -> None:
        archive.associations += 1

    ae = AE("ARCHIVE")
    contexts = [build_context(sop_class, list(SYNTAXES)) for sop_class in sop_classes]
    server = ae.start_server(
        ("127.0.0.1", 0),
        block=False,
        contexts=contexts,
        evt_handlers=[(evt.EVT_C_STORE, store), (evt.EVT_ACCEPTED, accepted)],
    )
    assert server is not None
    archive.port = server.server_address[1]
    yield archive
    server.shutdown()


@pytest.fixture
def archive() -> Iterator[Archive]:
    yield from scp(Archive(), (CTImageStorage, MRImageStorage))


@pytest.fixture
def archive_without_mr() -> Iterator[Archive]:
    yield from scp(Archive(), (CTImageStorage,))


def test_every_data_set_arrives_byte_for_byte_in_its_own_syntax(
    archive: Archive, files: list[Path]
) -> None:
    told: list[tuple[int, int]] = []
    sent = send_c_store(
        files, "127.0.0.1", archive.port, "CT1", "ARCHIVE", lambda *step: told.append(step)
    )
    assert (sent.stored, sent.failures) == (12, [])
    assert archive.data_sets == [carried(path) for path in files]
    assert archive.syntaxes == [str(syntax) for syntax in SYNTAXES] * 2
    assert archive.associations == 1
    assert told == [(done, 12) for done in range(1, 13)]


def test_a_refused_sop_class_fails_alone(archive_without_mr: Archive, files: list[Path]) -> None:
    sent = send_c_store(files, "127.0.0.1", archive_without_mr.port, "CT1", "ARCHIVE")
    assert sent.stored == 6
    reason = "the archive accepts no such SOP class in this transfer syntax"
    assert sent.failures == [Failure(path, reason) for path in files[6:]]


def test_a_failure_status_is_told_and_a_warning_counts_as_stored(
    archive: Archive, files: list[Path]
) -> None:
    archive.answer = {1: 0xB007, 2: 0xA700}.get  # type: ignore[assignment]
    sent = send_c_store(files[:2], "127.0.0.1", archive.port, "CT1", "ARCHIVE")
    assert sent.stored == 1
    assert sent.failures == [Failure(files[1], "status A700H")]


# pynetdicom lets go of a socket that could not connect without closing it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_archive_that_is_away_fails_every_file(files: list[Path]) -> None:
    # Port 1 belongs to the system and nothing listens there.
    sent = send_c_store(files, "127.0.0.1", 1, "CT1", "ARCHIVE")
    assert sent.stored == 0
    assert {failure.reason for failure in sent.failures} == {"no association with the archive"}


def test_a_web_server_that_is_away_fails_every_file(files: list[Path]) -> None:
    sent = send_stow(files, "http://127.0.0.1:1/dicomweb")
    assert sent.stored == 0
    reasons = {failure.reason for failure in sent.failures}
    assert reasons == {"the request failed: ConnectionRefusedError"}


def test_more_contexts_than_one_association_holds_take_two(
    archive: Archive, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_CONTEXTS_PER_ASSOCIATION", 8)
    sent = send_c_store(files, "127.0.0.1", archive.port, "CT1", "ARCHIVE")
    assert sent.stored == 12
    assert archive.associations == 2


@dataclass
class WebArchive:
    """An origin server that takes STOW-RS requests apart by itself."""

    url: str = ""
    requests: list[list[tuple[str, bytes]]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    status: int = 200
    answer: bytes | None = None

    def outcome(self, parts: list[tuple[str, bytes]]) -> bytes:
        if self.answer is not None:
            return self.answer
        stored, failed = [], []
        for _, data in parts:
            (uid,) = re.findall(rb"\x02\x00\x03\x00UI..([0-9.]+)", data[:400], re.DOTALL)
            entry = {"00081155": {"vr": "UI", "Value": [uid.decode()]}}
            if uid.decode() in self.refused:
                failed.append({**entry, "00081197": {"vr": "US", "Value": [0x0110]}})
            else:
                stored.append(entry)
        told = {"00081199": stored, "00081198": failed}
        sequences = {tag: {"vr": "SQ", "Value": items} for tag, items in told.items() if items}
        return json.dumps(sequences).encode()


@pytest.fixture
def web_archive() -> Iterator[WebArchive]:
    state = WebArchive()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/dicomweb/studies"
            assert 'type="application/dicom"' in self.headers["Content-Type"]
            boundary = self.headers["Content-Type"].rpartition("boundary=")[2].encode()
            assert data.endswith(b"\r\n--" + boundary + b"--\r\n")
            parts = []
            for part in data.split(b"\r\n--" + boundary)[1:-1]:
                head, _, body = part.partition(b"\r\n\r\n")
                parts.append((head.decode().strip(), body))
            state.requests.append(parts)
            answer = state.outcome(parts)
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/dicomweb"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_stow_request_carries_the_files_as_they_are(
    web_archive: WebArchive, files: list[Path]
) -> None:
    told: list[tuple[int, int]] = []
    sent = send_stow(files, web_archive.url, lambda *step: told.append(step))
    assert (sent.stored, sent.failures) == (12, [])
    (parts,) = web_archive.requests
    assert [body for _, body in parts] == [path.read_bytes() for path in files]
    syntax = f"Content-Type: application/dicom; transfer-syntax={SYNTAXES[0]}"
    assert parts[0][0] == syntax
    assert told == [(12, 12)]


def test_requests_stay_below_the_limit_and_a_larger_file_goes_alone(
    web_archive: WebArchive, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "REQUEST_MAX_BYTES", 20_000)
    large = files[0].with_name("large.dcm")
    large.write_bytes(part10_bytes(ct_instance(rows=128, columns=128)))
    assert send_stow([*files[:4], large, *files[4:]], web_archive.url).stored == 13
    sizes = [[len(body) for _, body in parts] for parts in web_archive.requests]
    assert all(sum(size) <= 20_000 or len(size) == 1 for size in sizes)
    assert [large.stat().st_size] in sizes


def test_a_refused_object_is_told_with_its_reason(
    web_archive: WebArchive, files: list[Path]
) -> None:
    refused = ct_instance()
    files[3].write_bytes(part10_bytes(refused))
    web_archive.refused = {refused.SOPInstanceUID}
    web_archive.status = 202
    sent = send_stow(files, web_archive.url)
    assert sent.stored == 11
    assert sent.failures == [Failure(files[3], "failure reason 0110H")]


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        (503, b"", "HTTP status 503"),
        (200, b"<html>", "the answer is no JSON"),
        (200, b"{}", "no answer for it"),
    ],
)
def test_an_answer_without_outcomes_fails_every_file(
    web_archive: WebArchive, files: list[Path], status: int, answer: bytes, reason: str
) -> None:
    web_archive.status, web_archive.answer = status, answer
    sent = send_stow(files, web_archive.url)
    assert sent.stored == 0
    assert {failure.reason for failure in sent.failures} == {reason}


def test_only_http_urls_are_taken(files: list[Path]) -> None:
    with pytest.raises(ValueError, match="http"):
        send_stow(files, "ftp://127.0.0.1")


def test_the_samples_carry_what_dimse_sends(tmp_path: Path) -> None:
    dataset = mr_instance()
    path = tmp_path / "mr.dcm"
    path.write_bytes(part10_bytes(dataset))
    assert carried(path) == dataset_bytes(dataset)
