"""Data sets in bodies and answers: DICOM JSON (PS3.18 Annex F) and XML (PS3.19 Annex A)."""

from collections.abc import AsyncIterator, Sequence

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from bfr_core.errors import Invalid
from bfr_core.instances import Dataset
from bfr_dicomweb.dicom_xml import read_xml, write_xml
from bfr_dicomweb.errors import UnsupportedMediaType
from bfr_dicomweb.media_types import DICOM_JSON, DICOM_XML, Offer, parse_media_type
from bfr_dicomweb.multipart import (
    ContentTooLarge,
    PartLimits,
    boundary_of,
    closing,
    content_type,
    new_boundary,
    part_header,
    read_parts,
)
from bfr_dicomweb.resources import json_answer

SERVICE = "BFR"
# Several data sets are one array in JSON and several parts in XML (§8.7.3.2).
MANY_OFFERS = (Offer(DICOM_JSON), Offer("application/json"), Offer(DICOM_XML, multipart=True))
ONE_OFFERS = (*MANY_OFFERS, Offer(DICOM_XML))


async def datasets_answer(request: Request, offer: Offer, found: Sequence[bytes]) -> Response:
    """Return an answer of data sets, each given as DICOM JSON, in the form that was chosen.

    A form that is no multipart holds the first of them in XML and all of them in JSON.
    """
    if offer.media_type != DICOM_XML:
        return await json_answer(request, b"[" + b",\n".join(found) + b"]", offer.media_type)
    headers = {"Cache-Control": "no-store", "Vary": "Accept"}
    texts = [write_xml(orjson.loads(one)) for one in found]
    if not offer.multipart:
        return Response(texts[0], headers=headers, media_type=DICOM_XML)
    boundary = new_boundary()
    parts = [
        part_header(boundary, {"Content-Type": DICOM_XML}, first=number == 0) + text
        for number, text in enumerate(texts)
    ]
    headers["Content-Type"] = content_type(DICOM_XML, boundary)
    return Response(b"".join(parts) + closing(boundary), headers=headers)


async def read_dataset(
    request: Request, *, max_bytes: int, max_depth: int, may_be_empty: bool = False
) -> Dataset:
    """Return the one data set of the body, JSON or XML, alone or as the only part.

    An empty body is an empty data set where it may be. Raises Invalid, ContentTooLarge and
    UnsupportedMediaType.
    """
    header = request.headers.get("content-type", "")
    body = await read_body(request, max_bytes)
    if may_be_empty and not body.strip():
        return {}
    if not header:
        raise UnsupportedMediaType("the request has no Content-Type")
    media_type = parse_media_type(header).name
    if media_type == "multipart/related":
        boundary, media_type = boundary_of(header)
        limits = PartLimits(total_max_bytes=max_bytes, parts_max=2)
        parts = []
        async for part in read_parts(_once(body), boundary, limits):
            parts.append(b"".join([bytes(chunk) async for chunk in part.body()]))
            media_type = parse_media_type(part.headers["content-type"]).name
        if len(parts) != 1:
            raise Invalid("the body has one part: the data set")
        body = parts[0]
    if media_type in (DICOM_XML, "application/xml", "text/xml"):
        return read_xml(body, max_depth)
    if media_type in (DICOM_JSON, "application/json"):
        return read_json(body)
    raise UnsupportedMediaType(f"a data set is {DICOM_JSON} or {DICOM_XML}, not {media_type!r}")


def read_json(body: bytes) -> Dataset:
    """Return the one data set of DICOM JSON, alone or in an array. Raises Invalid."""
    try:
        sent = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is no JSON: {error}") from None
    if isinstance(sent, list):
        if len(sent) != 1:
            raise Invalid("the body is an array of one data set")
        sent = sent[0]
    if not isinstance(sent, dict):
        raise Invalid("the body is no DICOM JSON object")
    return sent


def warn(response: Response, text: str) -> None:
    """Add a Warning header field (PS3.18 §8.4)."""
    response.headers.append("Warning", f'299 {SERVICE} "{text}"')


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the body. Raises ContentTooLarge, Invalid when the sender breaks off."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise ContentTooLarge(f"the body is larger than {max_bytes} bytes")
    except ClientDisconnect as error:
        raise Invalid("the sender broke off before the body had ended") from error
    return bytes(body)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
