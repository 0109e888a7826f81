"""Rejection: DELETE of a study, series or instance, with a reason (beyond PS3.18)."""

import orjson
from starlette.requests import Request
from starlette.responses import Response

from bfr_core import rejecting
from bfr_core.errors import Invalid
from bfr_core.tombstones import Target
from bfr_dicomweb.datasets import read_body
from bfr_dicomweb.media_types import Offer, choose
from bfr_dicomweb.resources import accepted_by, archive_to_store_in, json_answer, target_of

DOOR = "Rejection"
MEDIA_TYPE = "application/json"
BODY_MAX_BYTES = 8192


async def reject(request: Request) -> Response:
    """Reject a study, series or instance: it is gone, a note stays (beyond the standard)."""
    target = await target_of(request)
    choose(accepted_by(request), (Offer(MEDIA_TYPE),))
    rejected = await rejecting.reject(
        target.store,
        target.access,
        DOOR,
        await archive_to_store_in(target),
        Target(
            request.path_params["study"],
            request.path_params.get("series"),
            request.path_params.get("instance"),
        ),
        request.query_params.get("code", ""),
        await _reason(request),
    )
    note = rejected.note
    path = (
        f"{target.root}/studies/{note.study_instance_uid}/series/{note.series_instance_uid}"
        f"/instances/{note.sop_instance_uid}"
    )
    told = {
        "instances": rejected.instances,
        "RetrieveURL": str(request.base_url).rstrip("/") + path,
    }
    return await json_answer(request, orjson.dumps(told), MEDIA_TYPE)


async def _reason(request: Request) -> str:
    """Return the text of the body, which tells more than a code; "" without one.

    It has no place in the address, which ends up in logs: it may tell of a person.
    """
    body = await read_body(request, BODY_MAX_BYTES)
    if not body.strip():
        return ""
    try:
        reason = orjson.loads(body)["reason"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        reason = None
    if not isinstance(reason, str):
        raise Invalid('the body is JSON: {"reason": "a text"}')
    return reason
