"""Sends files through the doors of a running archive: C-STORE (PS3.4 §B) and STOW-RS (PS3.18)."""

import http.client
import json
import socket
import ssl
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pynetdicom
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

Progress = Callable[[int, int], None]  # done, total

REQUEST_MAX_BYTES = 64 * 1024 * 1024
_CONTEXTS_PER_ASSOCIATION = 128  # PS3.8 §9.3.2.2: odd identifiers of one byte
_SENDER_MAX_PDU_BYTES = 131072
_ANSWER_TIMEOUT_S = 120.0
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Failure:
    """One file that the archive did not store."""

    path: Path
    reason: str


@dataclass(slots=True)
class Sent:
    """What became of the files: how many are stored, and which are not."""

    stored: int = 0
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Object:
    """A Part 10 file and what its File Meta Information says."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    size_bytes: int


def send_c_store(
    files: Sequence[Path],
    host: str,
    port: int,
    calling_ae_title: str,
    called_ae_title: str,
    progress: Progress | None = None,
) -> Sent:
    """Return what became of the files after a C-STORE of each, in its own transfer syntax.

    An archive that refuses or drops the association makes failures of the files not yet sent.
    Raises OSError when a file cannot be read.
    """
    sent = Sent()
    objects = [_object(path) for path in files]
    # The bytes of the file go out as they are; otherwise each would be decoded and encoded again.
    chunked = pynetdicom._config.STORE_SEND_CHUNKED_DATASET
    pynetdicom._config.STORE_SEND_CHUNKED_DATASET = True
    try:
        for batch in _batches_of_contexts(objects):
            association = _associate(batch, host, port, calling_ae_title, called_ae_title)
            try:
                for item in batch:
                    _record(sent, item.path, _store(association, item))
                    if progress is not None:
                        progress(sent.stored + len(sent.failures), len(files))
            finally:
                if association.is_established:
                    association.release()
    finally:
        pynetdicom._config.STORE_SEND_CHUNKED_DATASET = chunked
    return sent


def send_stow(files: Sequence[Path], base_url: str, progress: Progress | None = None) -> Sent:
    """Return what became of the files after POST to `base_url`/studies (PS3.18 §10.5).

    A request that fails makes failures of all its files. Raises OSError when a file cannot be
    read, ValueError when `base_url` is no http or https URL.
    """
    sent = Sent()
    for batch in _batches_of_bytes([_object(path) for path in files]):
        reasons = _post(base_url, batch)
        for item in batch:
            _record(sent, item.path, reasons.get(item.sop_instance_uid, "no answer for it"))
        if progress is not None:
            progress(sent.stored + len(sent.failures), len(files))
    return sent


def _record(sent: Sent, path: Path, reason: str | None) -> None:
    if reason is None:
        sent.stored += 1
    else:
        sent.failures.append(Failure(path, reason))


def _object(path: Path) -> _Object:
    meta = read_file_meta_info(path)
    return _Object(
        path=path,
        sop_class_uid=str(meta.MediaStorageSOPClassUID),
        sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
        transfer_syntax_uid=str(meta.TransferSyntaxUID),
        size_bytes=path.stat().st_size,
    )


def _batches_of_contexts(objects: Sequence[_Object]) -> Iterator[list[_Object]]:
    """Yield runs of objects whose presentation contexts fit into one association."""
    batch: list[_Object] = []
    contexts: set[tuple[str, str]] = set()
    for item in objects:
        context = (item.sop_class_uid, item.transfer_syntax_uid)
        if context not in contexts and len(contexts) == _CONTEXTS_PER_ASSOCIATION:
            yield batch
            batch, contexts = [], set()
        contexts.add(context)
        batch.append(item)
    if batch:
        yield batch


def _batches_of_bytes(objects: Sequence[_Object]) -> Iterator[list[_Object]]:
    """Yield runs of objects that fit into one request; a larger object goes alone."""
    batch: list[_Object] = []
    size_bytes = 0
    for item in objects:
        if batch and size_bytes + item.size_bytes > REQUEST_MAX_BYTES:
            yield batch
            batch, size_bytes = [], 0
        batch.append(item)
        size_bytes += item.size_bytes
    if batch:
        yield batch


def _associate(
    objects: Sequence[_Object], host: str, port: int, calling: str, called: str
) -> Association:
    ae = AE(ae_title=calling)
    ae.maximum_pdu_size = _SENDER_MAX_PDU_BYTES
    ae.dimse_timeout = ae.acse_timeout = ae.network_timeout = _ANSWER_TIMEOUT_S
    pairs = dict.fromkeys((item.sop_class_uid, item.transfer_syntax_uid) for item in objects)
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in pairs]
    return ae.associate(
        host,
        port,
        contexts=contexts,
        ae_title=called,
        max_pdu=_SENDER_MAX_PDU_BYTES,
        evt_handlers=[(evt.EVT_CONN_OPEN, _send_at_once)],
    )


def _send_at_once(event: evt.Event) -> None:
    """Turn off Nagle's algorithm: a C-STORE that waits to fill its last packet waits in vain."""
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _store(association: Association, item: _Object) -> str | None:
    """Return why the archive did not store the object; None when it did."""
    if not association.is_established:
        return "no association with the archive"
    try:
        status = association.send_c_store(item.path)
    except ValueError:
        return "the archive accepts no such SOP class in this transfer syntax"
    except RuntimeError:
        return "no association with the archive"
    if "Status" not in status:
        return "no answer from the archive"
    if status.Status == 0x0000 or status.Status >> 12 == 0xB:  # success, or stored with a warning
        return None
    return f"status {status.Status:04X}H {status.get('ErrorComment', '')}".rstrip()


def _post(base_url: str, batch: Sequence[_Object]) -> dict[str, str | None]:
    """Return the outcome by SOP Instance UID: None when stored, else why not."""
    url = urlsplit(base_url)
    if url.scheme not in ("http", "https") or url.hostname is None:
        raise ValueError("base URL must begin with http:// or https://")
    boundary = f"bfr-{uuid.uuid4().hex}"
    headers = [_part_header(boundary, item) for item in batch]
    end = f"\r\n--{boundary}--\r\n".encode()
    length = sum(len(header) for header in headers) + sum(item.size_bytes for item in batch)
    connection = _connection(url.scheme, url.hostname, url.port)
    try:
        connection.request(
            "POST",
            f"{url.path.rstrip('/')}/studies",
            body=_body(batch, headers, end),
            headers={
                "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
                "Content-Length": str(length + len(end)),
                "Accept": "application/dicom+json",
            },
        )
        response = connection.getresponse()
        return _outcomes(batch, response.status, response.read())
    except (OSError, http.client.HTTPException) as error:
        reason = f"the request failed: {type(error).__name__}"
        return {item.sop_instance_uid: reason for item in batch}
    finally:
        connection.close()


def _connection(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=_ANSWER_TIMEOUT_S, context=context)
    return http.client.HTTPConnection(host, port, timeout=_ANSWER_TIMEOUT_S)


def _part_header(boundary: str, item: _Object) -> bytes:
    return (
        f"\r\n--{boundary}\r\nContent-Type: application/dicom; "
        f"transfer-syntax={item.transfer_syntax_uid}\r\n\r\n"
    ).encode()


def _body(batch: Sequence[_Object], headers: Sequence[bytes], end: bytes) -> Iterator[bytes]:
    for item, header in zip(batch, headers, strict=True):
        yield header
        with item.path.open("rb") as file:
            while data := file.read(_READ_BYTES):
                yield data
    yield end


def _outcomes(batch: Sequence[_Object], status: int, answer: bytes) -> dict[str, str | None]:
    """Return the outcomes told by a Store Instances Response Module (PS3.18 §I.2)."""
    if status not in (200, 202, 409):
        return {item.sop_instance_uid: f"HTTP status {status}" for item in batch}
    try:
        told = json.loads(answer)
    except ValueError:
        return {item.sop_instance_uid: "the answer is no JSON" for item in batch}
    outcomes: dict[str, str | None] = {}
    for entry in told.get("00081199", {}).get("Value", []):
        outcomes[_first(entry, "00081155")] = None
    for entry in told.get("00081198", {}).get("Value", []):
        reason = _first(entry, "00081197")
        outcomes[_first(entry, "00081155")] = f"failure reason {int(reason or 0):04X}H"
    return outcomes


def _first(entry: dict[str, dict[str, list[str]]], tag: str) -> str:
    return str((entry.get(tag, {}).get("Value") or [""])[0])
