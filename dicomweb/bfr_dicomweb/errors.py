"""The five errors in the language of HTTP and of the Store transaction."""

from collections.abc import Mapping

import orjson
from starlette.requests import HTTPConnection
from starlette.responses import Response

from bfr_core.errors import ArchiveError, Conflict, Denied, Invalid, NotFound, Unavailable
from bfr_core.receiving import MismatchedObject
from bfr_core.registration_batch import DuplicateUid
from bfr_core.workitem_rows import Gone
from bfr_dicomweb.media_types import NotAcceptable
from bfr_dicomweb.multipart import ContentTooLarge


class UnsupportedMediaType(Invalid):
    """The body has a media type that the resource does not take: 415 (PS3.18 §8.5)."""


# Status code and title; the first class that fits is taken.
STATUS: Mapping[type[ArchiveError], tuple[int, str]] = {
    NotAcceptable: (406, "Not Acceptable"),
    ContentTooLarge: (413, "Content Too Large"),
    UnsupportedMediaType: (415, "Unsupported Media Type"),
    Invalid: (400, "Bad Request"),
    Denied: (403, "Forbidden"),
    Gone: (410, "Gone"),
    NotFound: (404, "Not Found"),
    Conflict: (409, "Conflict"),
    Unavailable: (503, "Service Unavailable"),
}

# Failure Reason (0008,1197), PS3.18 table I.2-2 with the statuses of PS3.4 §B.2.3 and PS3.7 §C.
FAILURE_REASON: Mapping[type[ArchiveError], int] = {
    MismatchedObject: 0xA900,  # data set does not match
    UnsupportedMediaType: 0x0122,  # SOP class not supported
    Invalid: 0xC000,  # cannot understand
    Denied: 0x0124,  # refused: not authorised
    NotFound: 0x0112,  # no such object instance
    DuplicateUid: 0x0111,  # duplicate SOP instance
    Conflict: 0xC001,  # contradicts what is stored
    Unavailable: 0xA700,  # out of resources
    NotAcceptable: 0x0110,  # processing failure; no object answers with it
}


def status_of(error: ArchiveError) -> tuple[int, str]:
    """Return the HTTP status and its title for the error."""
    return next(status for kind, status in STATUS.items() if isinstance(error, kind))


def failure_reason_of(error: ArchiveError) -> int:
    """Return the Failure Reason (0008,1197) for an object that met the error."""
    return next(reason for kind, reason in FAILURE_REASON.items() if isinstance(error, kind))


async def answer_error(request: HTTPConnection, error: Exception) -> Response:
    """Return the problem document of the error (RFC 9457)."""
    if not isinstance(error, ArchiveError):
        raise error
    status, title = status_of(error)
    headers = {"Retry-After": "5"} if status == 503 else None
    body = orjson.dumps({"status": status, "title": title, "detail": error.message})
    return Response(body, status, headers, media_type="application/problem+json")
