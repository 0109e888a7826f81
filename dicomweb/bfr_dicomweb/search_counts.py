"""Result counts: how many results a search has (beyond PS3.18 §10.6)."""

import orjson
from starlette.requests import Request
from starlette.responses import Response

from bfr_core.search_counts import Level, count_results
from bfr_dicomweb.media_types import Offer, choose
from bfr_dicomweb.qido import read_query
from bfr_dicomweb.resources import accepted_by, json_answer, target_of

DOOR = "QIDO-RS"
MEDIA_TYPE = "application/json"


async def count_studies(request: Request) -> Response:
    """Count the results of a search for studies (beyond the standard)."""
    return await _count(request, "study")


async def count_series(request: Request) -> Response:
    """Count the results of a search for series (beyond the standard)."""
    return await _count(request, "series")


async def count_instances(request: Request) -> Response:
    """Count the results of a search for instances by study and series (beyond the standard)."""
    return await _count(request, "instance")


async def _count(request: Request, level: Level) -> Response:
    target = await target_of(request)
    choose(accepted_by(request), (Offer(MEDIA_TYPE),))
    query = read_query(request, target)
    found = await count_results(
        target.store,
        target.access,
        DOOR,
        level,
        archive_id=target.archive_id,
        matches=query.matches,
        semantics=query.semantics,
    )
    body = orjson.dumps({"count": found.count, "atLeast": not found.is_exact})
    return await json_answer(request, body, MEDIA_TYPE)
