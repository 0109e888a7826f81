"""The change feed: what has happened to studies, series and instances (beyond PS3.18)."""

import datetime
from collections.abc import Mapping

import orjson
from starlette.requests import Request
from starlette.responses import Response

from bfr_core import changes
from bfr_core.changes import Change
from bfr_core.errors import Invalid
from bfr_dicomweb.media_types import Offer, choose
from bfr_dicomweb.resources import Target, accepted_by, json_answer, target_of

DOOR = "Changes"
MEDIA_TYPE = "application/json"
OFFERS = (Offer(MEDIA_TYPE),)
NUMBER_MAX = 2**63 - 1

# What a follower does about an event.
ACTIONS: Mapping[str, str] = {
    "study_created": "create",
    "series_created": "create",
    "series_sealed": "update",
    "series_reopened": "update",
    "instances_deleted": "delete",
    "instances_rejected": "delete",
    "instances_restored": "create",
}


async def list_changes(request: Request) -> Response:
    """List what has happened since a change, in order (beyond the standard)."""
    target = await target_of(request)
    choose(accepted_by(request), OFFERS)
    maximum = target.store.settings.search_results_max
    params = dict(request.query_params)
    for name in params:
        if name not in ("since", "limit", "starttime", "endtime", "accept"):
            raise Invalid(f"{name!r} is none of since, limit, starttime and endtime")
    found = await changes.list_changes(
        target.store,
        target.access,
        DOOR,
        archive_id=target.archive_id,
        since=_whole("since", params.get("since", "0")),
        limit=min(_whole("limit", params.get("limit", str(maximum))), maximum),
        start=_moment("starttime", params.get("starttime")),
        end=_moment("endtime", params.get("endtime")),
    )
    body = orjson.dumps([_entry(request, target, one) for one in found])
    return await json_answer(request, body, MEDIA_TYPE)


async def latest_change(request: Request) -> Response:
    """Tell the last change, where a new follower may begin (beyond the standard)."""
    target = await target_of(request)
    choose(accepted_by(request), OFFERS)
    found = await changes.latest_change(
        target.store, target.access, DOOR, archive_id=target.archive_id
    )
    if found is None:
        return Response(status_code=204)
    return await json_answer(request, orjson.dumps(_entry(request, target, found)), MEDIA_TYPE)


def _entry(request: Request, target: Target, change: Change) -> dict[str, object]:
    path = f"{target.root}/studies/{change.study_instance_uid}"
    entry: dict[str, object] = {
        "Sequence": change.change_number,
        "Timestamp": _utc(change.published_at),
        "OccurredAt": _utc(change.occurred_at),
        "Action": ACTIONS[change.kind],
        "Event": change.kind,
        "Archive": change.archive,
        "StudyInstanceUID": change.study_instance_uid,
    }
    if change.series_instance_uid is not None:
        entry["SeriesInstanceUID"] = change.series_instance_uid
        path += f"/series/{change.series_instance_uid}"
    if change.sop_instance_uid is not None:
        entry["SOPInstanceUID"] = change.sop_instance_uid
        path += f"/instances/{change.sop_instance_uid}"
    entry["RetrieveURL"] = str(request.base_url).rstrip("/") + path
    return entry


def _utc(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _whole(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 19 or int(value) > NUMBER_MAX:
        raise Invalid(f"{name} is a whole number, not {value[:64]!r}")
    return int(value)


def _moment(name: str, value: str | None) -> datetime.datetime | None:
    """Return the moment of RFC 3339, whose zone has to be told. Raises Invalid."""
    if value is None:
        return None
    try:
        # A plus sign that was not encoded arrives as a space.
        moment = datetime.datetime.fromisoformat(value.replace(" ", "+"))
        if moment.tzinfo is not None:
            return moment.astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        pass
    raise Invalid(f"{name} is a date and time with its zone (RFC 3339), not {value[:64]!r}")
