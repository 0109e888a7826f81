"""The five errors in the language of HTTP (RFC 9457)."""

from collections.abc import Mapping

import orjson
from starlette.responses import Response

from bfr_core.errors import ArchiveError, Conflict, Denied, Invalid, NotFound, Unavailable

STATUS: Mapping[type[ArchiveError], tuple[int, str]] = {
    Invalid: (400, "Bad Request"),
    Denied: (403, "Forbidden"),
    NotFound: (404, "Not Found"),
    Conflict: (409, "Conflict"),
    Unavailable: (503, "Service Unavailable"),
}


def problem(error: ArchiveError) -> Response:
    """Return the problem document of the error."""
    status, title = next(value for kind, value in STATUS.items() if isinstance(error, kind))
    body = orjson.dumps({"status": status, "title": title, "detail": error.message})
    return Response(body, status, media_type="application/problem+json")
