"""STOW-RS: the Store transaction with Part 10 objects (PS3.18 §10.5)."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from bfr_core.errors import ArchiveError, Invalid, Unavailable
from bfr_core.instances import Dataset
from bfr_core.receiving import Incoming, MismatchedObject, Received, Reception
from bfr_dicomweb.errors import UnsupportedMediaType, failure_reason_of
from bfr_dicomweb.media_types import APPLICATION_DICOM, parse_media_type
from bfr_dicomweb.multipart import Part, PartLimits, boundary_of, read_parts
from bfr_dicomweb.resources import (
    Target,
    archive_to_store_in,
    choose_json,
    json_answer,
    target_of,
)

DOOR = "STOW-RS"
COMMIT_MAX = 500


@dataclass(slots=True)
class Answer:
    """The answer data set as it grows (PS3.18 table 10.5.3-1)."""

    root: str
    studies: set[str] = field(default_factory=set)
    stored: list[Dataset] = field(default_factory=list)
    failed: list[Dataset] = field(default_factory=list)
    other_failures: list[Dataset] = field(default_factory=list)
    unavailable: bool = False

    def add_stored(self, one: Received) -> None:
        """Tell of an object that is stored."""
        study = f"{self.root}/studies/{one.study_instance_uid}"
        url = f"{study}/series/{one.series_instance_uid}/instances/{one.sop_instance_uid}"
        self.studies.add(study)
        self.stored.append({**_reference(one), "00081190": _element("UR", url)})

    def add_failed(self, one: Received, error: ArchiveError) -> None:
        """Tell of an object that is not stored, and why."""
        self._note(error)
        self.failed.append({**_reference(one), **_reason(error)})

    def add_unreadable(self, error: ArchiveError) -> None:
        """Tell of a part that is no object with UIDs (§10.5.3.1)."""
        self._note(error)
        self.other_failures.append(_reason(error))

    def status(self) -> int:
        """Return the HTTP status (PS3.18 table 10.5.3-2)."""
        if not self.failed and not self.other_failures:
            return 200
        if self.stored:
            return 202
        return 503 if self.unavailable else 409

    def dataset(self) -> Dataset:
        """Return the answer as DICOM JSON."""
        result: Dataset = {}
        if len(self.studies) == 1:
            result["00081190"] = _element("UR", next(iter(self.studies)))
        for tag, items in (
            ("00081198", self.failed),
            ("00081199", self.stored),
            ("0008119A", self.other_failures),
        ):
            if items:
                result[tag] = {"vr": "SQ", "Value": items}
        return result

    def _note(self, error: ArchiveError) -> None:
        self.unavailable = self.unavailable or isinstance(error, Unavailable)


async def store_instances(request: Request) -> Response:
    """Store the objects of the body and tell of each what became of it."""
    target = await target_of(request)
    media_type = choose_json(request)
    boundary = _boundary(request)
    archive = await archive_to_store_in(target)
    reception = Reception(target.store, target.access, archive, DOOR)
    answer = Answer(str(request.base_url).rstrip("/") + target.root)
    received: list[Received] = []
    try:
        await _receive(request, target, reception, boundary, received, answer)
    except BaseException:
        # The body is no whole: none of it may stay.
        await asyncio.to_thread(reception.discard, received)
        await asyncio.to_thread(reception.close)
        raise
    try:
        for start in range(0, len(received), COMMIT_MAX):
            for outcome in await target.store.commit(received[start : start + COMMIT_MAX]):
                if outcome.error is None:
                    answer.add_stored(outcome.received)
                else:
                    answer.add_failed(outcome.received, outcome.error)
    finally:
        await asyncio.to_thread(reception.close)
    response = await json_answer(request, orjson.dumps(answer.dataset()), media_type)
    response.status_code = answer.status()
    return response


async def _receive(
    request: Request,
    target: Target,
    reception: Reception,
    boundary: str,
    received: list[Received],
    answer: Answer,
) -> None:
    settings = target.store.settings
    limits = PartLimits(
        total_max_bytes=settings.request_body_max_bytes, parts_max=settings.request_parts_max
    )
    study = request.path_params.get("study")
    async for part in read_parts(_body(request), boundary, limits):
        media_type = parse_media_type(part.headers["content-type"])
        if media_type.name != APPLICATION_DICOM:
            answer.add_unreadable(
                UnsupportedMediaType(f"part {part.number} is {media_type.name!r}")
            )
            continue
        try:
            one = await _receive_part(reception, part)
        except Invalid as error:
            if not part.ended:
                raise
            answer.add_unreadable(Invalid(f"part {part.number}: {error.message}"))
            continue
        if study is not None and one.study_instance_uid != study:
            reception.discard([one])
            answer.add_failed(one, MismatchedObject("the object is of another study than the URL"))
            continue
        received.append(one)


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as error:
        raise Invalid("the sender broke off before the body had ended") from error


async def _receive_part(reception: Reception, part: Part) -> Received:
    incoming = reception.incoming_part10()
    refused: Invalid | None = None
    try:
        async for chunk in part.body():
            if refused is None:
                refused = await _write(incoming, chunk)
    except BaseException:
        incoming.abort()
        raise
    if refused is not None:
        raise refused
    return await asyncio.to_thread(incoming.finish)


async def _write(incoming: Incoming, chunk: memoryview) -> Invalid | None:
    """Take a piece of an object; return the reason when the object is refused at it."""
    try:
        if incoming.in_memory:
            incoming.write(chunk)
        else:
            await asyncio.to_thread(incoming.write, chunk)
    except Invalid as error:
        incoming.abort()
        return error
    return None


def _boundary(request: Request) -> str:
    header = request.headers.get("content-type", "")
    if not header:
        raise UnsupportedMediaType("the request has no Content-Type")
    if parse_media_type(header).name != "multipart/related":
        raise UnsupportedMediaType('the body must be multipart/related; type="application/dicom"')
    boundary, kind = boundary_of(header)
    if kind not in ("", APPLICATION_DICOM):
        raise UnsupportedMediaType(f"parts of type {kind!r} are not taken")
    return boundary


def _reference(one: Received) -> Dataset:
    return {
        "00081150": _element("UI", one.sop_class_uid),
        "00081155": _element("UI", one.sop_instance_uid),
    }


def _reason(error: ArchiveError) -> Dataset:
    return {
        "00000902": _element("LO", error.message),
        "00081197": _element("US", failure_reason_of(error)),
    }


def _element(vr: str, value: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}
