"""STOW-RS: the Store transaction (PS3.18 §10.5)."""

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
from bfr_dicomweb.datasets import ONE_OFFERS, datasets_answer
from bfr_dicomweb.errors import UnsupportedMediaType, failure_reason_of
from bfr_dicomweb.media_types import (
    APPLICATION_DICOM,
    DICOM_XML,
    MULTIPART_RELATED,
    MediaType,
    choose,
    parse_media_type,
)
from bfr_dicomweb.multipart import ContentTooLarge, Part, PartLimits, boundary_of, read_parts
from bfr_dicomweb.resources import (
    Target,
    accepted_by,
    archive_to_store_in,
    json_answer,
    target_of,
)
from bfr_dicomweb.stow_metadata import METADATA_TYPES, MetadataBody, reference_of

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
        self.add_refused(_reference(one), error)

    def add_refused(self, reference: Dataset | None, error: ArchiveError) -> None:
        """Tell of an object that could not be made of what was sent, by what it claims to be."""
        if reference is None:
            self.add_unreadable(error)
            return
        self._note(error)
        self.failed.append({**reference, **_reason(error)})

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
    offer = choose(accepted_by(request), ONE_OFFERS)
    media_type = _media_type(request)
    archive = await archive_to_store_in(target)
    reception = Reception(target.store, target.access, archive, DOOR)
    answer = Answer(str(request.base_url).rstrip("/") + target.root)
    received: list[Received] = []
    metadata = await asyncio.to_thread(MetadataBody, target.store.settings, str(request.url))
    receiver = _Receiver(request, target, reception, metadata, received, answer)
    try:
        if media_type.name == MULTIPART_RELATED:
            await receiver.read_parts(boundary_of(request.headers["content-type"])[0])
        else:
            await receiver.read_body(media_type)
        await receiver.compose()
    except BaseException:
        # The body is no whole: none of it may stay.
        await asyncio.to_thread(reception.discard, received)
        await asyncio.to_thread(reception.close)
        raise
    finally:
        await asyncio.to_thread(metadata.close)
    try:
        for start in range(0, len(received), COMMIT_MAX):
            for outcome in await target.store.commit(received[start : start + COMMIT_MAX]):
                if outcome.error is None:
                    answer.add_stored(outcome.received)
                else:
                    answer.add_failed(outcome.received, outcome.error)
    finally:
        await asyncio.to_thread(reception.close)
    told = orjson.dumps(answer.dataset())
    if offer.media_type == DICOM_XML:
        response = await datasets_answer(request, offer, [told])
    else:  # one data set, not an array of one
        response = await json_answer(request, told, offer.media_type)
    response.status_code = answer.status()
    return response


@dataclass(slots=True)
class _Receiver:
    """Takes the objects of a body, part by part, into `received` and `answer`."""

    request: Request
    target: Target
    reception: Reception
    metadata: MetadataBody
    received: list[Received]
    answer: Answer

    async def read_parts(self, boundary: str) -> None:
        """Read a multipart body. Raises Invalid when it is no whole."""
        settings = self.target.store.settings
        limits = PartLimits(
            total_max_bytes=settings.request_body_max_bytes, parts_max=settings.request_parts_max
        )
        async for part in read_parts(_body(self.request), boundary, limits):
            media_type = parse_media_type(part.headers["content-type"])
            try:
                await self._read_part(part, media_type)
            except Invalid as error:
                async for _ in part.body():
                    pass
                if not part.ended:
                    raise  # the body itself is malformed
                kind = type(error) if isinstance(error, UnsupportedMediaType) else Invalid
                self.answer.add_unreadable(kind(f"part {part.number}: {error.message}"))

    async def read_body(self, media_type: MediaType) -> None:
        """Read a body that is one object, or metadata without bulk data."""
        settings = self.target.store.settings
        if media_type.name in METADATA_TYPES:
            data = bytearray()
            async for chunk in _body(self.request):
                data += chunk
                if len(data) > settings.metadata_max_bytes:
                    raise ContentTooLarge(
                        f"metadata is longer than {settings.metadata_max_bytes} bytes"
                    )
            self.metadata.add_metadata(1, bytes(data), media_type.name)
            return
        chunks = _limited(_body(self.request), settings.request_body_max_bytes)
        try:
            self._take(await _receive_object(self.reception, chunks))
        except Invalid as error:
            if isinstance(error, ContentTooLarge | BrokenOff):
                raise
            self.answer.add_unreadable(error)

    async def compose(self) -> None:
        """Make the objects that metadata describes, once all bulk data is there."""
        for number, dataset in self.metadata.datasets:
            try:
                self._take(await asyncio.to_thread(self._composed, dataset))
            except Invalid as error:
                told = Invalid(f"part {number}: {error.message}")
                self.answer.add_refused(reference_of(dataset), told)

    async def _read_part(self, part: Part, media_type: MediaType) -> None:
        if media_type.name == APPLICATION_DICOM:
            self._take(await _receive_object(self.reception, part.body()))
        elif media_type.name in METADATA_TYPES:
            await self.metadata.take_metadata(part, media_type.name)
        elif "content-location" in part.headers:
            await self.metadata.take_bulk_data(part, media_type)
        else:
            raise UnsupportedMediaType(f"{media_type.name!r} is no object")

    def _take(self, one: Received) -> None:
        study = self.request.path_params.get("study")
        if study is None or one.study_instance_uid == study:
            self.received.append(one)
            return
        self.reception.discard([one])
        self.answer.add_failed(one, MismatchedObject("the object is of another study than the URL"))

    def _composed(self, dataset: object) -> Received:
        chunks = self.metadata.part10(dataset)
        incoming = self.reception.incoming_part10()
        try:
            for chunk in chunks:
                incoming.write(chunk)
        except BaseException:
            incoming.abort()
            raise
        return incoming.finish()


class BrokenOff(Invalid):
    """The sender broke off before the body had ended."""


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as error:
        raise BrokenOff("the sender broke off before the body had ended") from error


async def _limited(chunks: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[memoryview]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > max_bytes:
            raise ContentTooLarge(f"the body is larger than {max_bytes} bytes")
        yield memoryview(chunk)


async def _receive_object(reception: Reception, chunks: AsyncIterator[memoryview]) -> Received:
    incoming = reception.incoming_part10()
    refused: Invalid | None = None
    try:
        async for chunk in chunks:
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


def _media_type(request: Request) -> MediaType:
    """Return the media type of the body. Raises UnsupportedMediaType."""
    header = request.headers.get("content-type", "")
    if not header:
        raise UnsupportedMediaType("the request has no Content-Type")
    media_type = parse_media_type(header)
    taken = (APPLICATION_DICOM, *METADATA_TYPES)
    if media_type.name == MULTIPART_RELATED:
        kind = media_type.parameters.get("type", "").lower()
        if kind and kind not in taken:
            raise UnsupportedMediaType(f"parts of type {kind!r} are not taken")
    elif media_type.name not in taken:
        raise UnsupportedMediaType(
            f'a body is multipart/related; type="{APPLICATION_DICOM}" or metadata'
        )
    return media_type


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
