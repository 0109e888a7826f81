"""Storing non-patient instances (PS3.18 §12.5): Part 10 files, or data sets in JSON or XML."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from bfr_core.dataset_encoding import encode_dataset
from bfr_core.errors import ArchiveError, Conflict, Invalid, Unavailable
from bfr_core.frames import EXPLICIT_VR_LITTLE_ENDIAN
from bfr_core.instances import Dataset, read_non_patient_attributes
from bfr_core.json_model import checked_dataset
from bfr_core.part10 import part10_prefix
from bfr_core.receiving import Incoming, MismatchedObject, Received, Reception
from bfr_dicomweb.datasets import ONE_OFFERS, datasets_answer, read_json
from bfr_dicomweb.dicom_xml import read_xml
from bfr_dicomweb.errors import UnsupportedMediaType, failure_reason_of
from bfr_dicomweb.media_types import (
    APPLICATION_DICOM,
    DICOM_JSON,
    DICOM_XML,
    choose,
    parse_media_type,
)
from bfr_dicomweb.multipart import ContentTooLarge, PartLimits, boundary_of, read_parts
from bfr_dicomweb.resources import Target, accepted_by, archive_to_store_in, target_of

DOOR = "Non-Patient Instance"
DATASET_TYPES = (DICOM_JSON, "application/json", DICOM_XML, "application/xml", "text/xml")
RETRIEVE_URL = "00081190"


async def store_instances(request: Request, category: str) -> Response:
    """Store the instances of the body and tell of each what became of it (§12.5)."""
    target = await target_of(request)
    offer = choose(accepted_by(request), ONE_OFFERS)
    archive = await archive_to_store_in(target)
    base = str(request.base_url).rstrip("/") + target.root
    report = Report(f"{base}/{category}", category, request.path_params.get("uid"))
    reception = Reception(target.store, target.access, archive, DOOR, takes_non_patient=True)
    received: list[Received] = []
    try:
        await _receive(request, target, reception, report, received)
    except BaseException:
        # The body is no whole: none of it may stay.
        await asyncio.to_thread(reception.discard, received)
        await asyncio.to_thread(reception.close)
        raise
    try:
        for outcome in await target.store.commit(received):
            report.add(outcome.received, outcome.error)
    finally:
        await asyncio.to_thread(reception.close)
    answer = await datasets_answer(request, offer, [orjson.dumps(report.dataset())])
    answer.status_code = report.status()
    return answer


@dataclass(slots=True)
class Report:
    """What became of the instances of a request (§12.5.3)."""

    url: str
    category: str
    uid: str | None  # that the URL names
    stored: list[Dataset] = field(default_factory=list)
    failed: list[Dataset] = field(default_factory=list)
    other_failures: list[Dataset] = field(default_factory=list)
    errors: list[ArchiveError] = field(default_factory=list)

    def mismatch(self, one: Received) -> Invalid | None:
        """Return why the object does not belong here."""
        if one.category != self.category:
            return MismatchedObject(f"the SOP class is none of {self.category}")
        if self.uid not in (None, one.sop_instance_uid):
            return MismatchedObject("the SOP Instance UID is not that of the URL")
        return None

    def add(self, one: Received, error: ArchiveError | None) -> None:
        """Tell of an object that was read."""
        reference: Dataset = {
            "00081150": _element("UI", one.sop_class_uid),
            "00081155": _element("UI", one.sop_instance_uid),
        }
        if error is None:
            url = _element("UR", f"{self.url}/{one.sop_instance_uid}")
            self.stored.append({**reference, RETRIEVE_URL: url})
        else:
            self.errors.append(error)
            self.failed.append({**reference, **_reason(error)})

    def add_unreadable(self, error: ArchiveError) -> None:
        """Tell of a part that is no object with UIDs."""
        self.errors.append(error)
        self.other_failures.append(_reason(error))

    def status(self) -> int:
        """Return the HTTP status (PS3.18 table 12.5.3-1)."""
        if self.stored:
            return 200
        for kind, status in ((Unavailable, 503), (Conflict, 409)):
            if any(isinstance(error, kind) for error in self.errors):
                return status
        unsupported = [isinstance(error, UnsupportedMediaType) for error in self.errors]
        return 415 if unsupported and all(unsupported) else 400

    def dataset(self) -> Dataset:
        """Return the report as DICOM JSON."""
        lists = {
            "00081198": self.failed,
            "00081199": self.stored,
            "0008119A": self.other_failures,
        }
        return {tag: {"vr": "SQ", "Value": items} for tag, items in lists.items() if items}


async def _receive(
    request: Request,
    target: Target,
    reception: Reception,
    report: Report,
    received: list[Received],
) -> None:
    settings = target.store.settings
    header = request.headers.get("content-type", "")
    if not header:
        raise UnsupportedMediaType("the request has no Content-Type")
    media_type = parse_media_type(header).name
    body = _chunks(request, settings.request_body_max_bytes)
    if media_type != "multipart/related":
        if media_type not in (APPLICATION_DICOM, *DATASET_TYPES):
            raise UnsupportedMediaType(f"an instance is not {media_type!r}")
        try:
            _take(report, reception, received, await _read(target, reception, media_type, body))
        except Invalid as error:
            report.add_unreadable(error)
        return
    boundary, _ = boundary_of(header)
    limits = PartLimits(
        total_max_bytes=settings.request_body_max_bytes, parts_max=settings.request_parts_max
    )
    async for part in read_parts(body, boundary, limits):
        media_type = parse_media_type(part.headers["content-type"]).name
        if media_type not in (APPLICATION_DICOM, *DATASET_TYPES):
            report.add_unreadable(UnsupportedMediaType(f"part {part.number} is {media_type!r}"))
            continue
        try:
            one = await _read(target, reception, media_type, part.body())
        except Invalid as error:
            if not part.ended:
                raise
            report.add_unreadable(Invalid(f"part {part.number}: {error.message}"))
            continue
        _take(report, reception, received, one)


def _take(report: Report, reception: Reception, received: list[Received], one: Received) -> None:
    mismatch = report.mismatch(one)
    if mismatch is None:
        received.append(one)
    else:
        reception.discard([one])
        report.add(one, mismatch)


async def _read(
    target: Target,
    reception: Reception,
    media_type: str,
    body: AsyncIterator[bytes] | AsyncIterator[memoryview],
) -> Received:
    """Return the object of a body, which was read to its end. Raises Invalid, Unavailable."""
    settings = target.store.settings
    if media_type == APPLICATION_DICOM:
        incoming = reception.incoming_part10()
        return await _write(incoming, body)
    data = bytearray()
    refused = None
    async for chunk in body:
        if len(data) + len(chunk) > settings.header_max_bytes:
            refused = Invalid(f"the data set is longer than {settings.header_max_bytes} bytes")
        else:
            data += chunk
    if refused is not None:
        raise refused
    sent = (
        read_xml(bytes(data), settings.header_max_depth)
        if "xml" in media_type
        else read_json(bytes(data))
    )
    part10 = await asyncio.to_thread(_part10, sent, settings.header_max_depth)
    return await _write(reception.incoming_part10(), _once(part10))


async def _write(
    incoming: Incoming, body: AsyncIterator[bytes] | AsyncIterator[memoryview]
) -> Received:
    refused: Invalid | None = None
    try:
        async for chunk in body:
            if refused is None:
                try:
                    await asyncio.to_thread(incoming.write, chunk)
                except Invalid as error:
                    refused = error
    except BaseException:
        incoming.abort()
        raise
    if refused is not None:
        incoming.abort()
        raise refused
    return await asyncio.to_thread(incoming.finish)


def _part10(sent: Dataset, max_depth: int) -> bytes:
    """Return a data set in JSON as the file that is stored. Raises Invalid."""
    # Group 0002 is ours to write: what the sender had of it told of another encoding.
    dataset = {
        tag: element
        for tag, element in checked_dataset(sent, max_depth).items()
        if tag[:4] > "0002"
    }
    attributes = read_non_patient_attributes(dataset)
    prefix = part10_prefix(
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        sop_class_uid=attributes.sop_class_uid,
        sop_instance_uid=attributes.sop_instance_uid,
        source_ae_title="",
    )
    try:
        return prefix + encode_dataset(dataset, explicit=True)
    except ValueError as error:
        raise Invalid(f"the data set cannot be encoded: {error}") from None


async def _chunks(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > max_bytes:
                raise ContentTooLarge(f"the body is larger than {max_bytes} bytes")
            yield chunk
    except ClientDisconnect as error:
        raise Invalid("the sender broke off before the body had ended") from error


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _reason(error: ArchiveError) -> Dataset:
    return {
        "00000902": _element("LO", error.message),
        "00081197": _element("US", failure_reason_of(error)),
    }


def _element(vr: str, value: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}
