"""UPS-RS: the Worklist service (PS3.18 chapter 11), but for subscriptions."""

from collections.abc import Mapping
from urllib.parse import unquote

import orjson
from starlette.requests import Request
from starlette.responses import Response

from bfr_core import workitems
from bfr_core.instances import Dataset
from bfr_core.matching import LITERAL
from bfr_core.workitem_attributes import RETURNED
from bfr_core.workitem_states import Status
from bfr_core.workitems import WorkitemRefused
from bfr_dicomweb.datasets import MANY_OFFERS, ONE_OFFERS, datasets_answer, read_dataset, warn
from bfr_dicomweb.media_types import choose
from bfr_dicomweb.qido import Query, answer_page, read_query, warn_literal
from bfr_dicomweb.resources import Target, accepted_by, archive_to_store_in, target_of

DOOR = "UPS-RS"

# The HTTP status of a refusal, and what the Warning field says (PS3.18 §11.4 to §11.8).
INCONSISTENT = "The submitted request is inconsistent with the current state of the Workitem."
INCONSISTENT_STATE = "The submitted request is inconsistent with the state of the UPS Instance."
NOT_CLAIMED = "The target URI did not reference a claimed Workitem."
REFUSALS: Mapping[Status, int] = {
    Status.DUPLICATE: 409,
    Status.NO_LONGER_UPDATED: 409,
    Status.WRONG_TRANSACTION_UID: 400,
    Status.ALREADY_IN_PROGRESS: 409,
    Status.SCHEDULED_BY_CREATION_ONLY: 400,
    Status.FINAL_STATE_REQUIREMENTS: 409,
    Status.NOT_IN_PROGRESS: 409,
    Status.COMPLETED_ALREADY: 409,
    Status.PERFORMER_CANNOT_BE_CONTACTED: 409,
}
ALREADY: Mapping[Status, str] = {
    Status.ALREADY_CANCELED: "The UPS is already in the requested state of CANCELED.",
    Status.ALREADY_COMPLETED: "The UPS is already in the requested state of COMPLETED.",
}


async def create_workitem(request: Request) -> Response:
    """Create a workitem (§11.4)."""
    target = await target_of(request)
    sent = await _read_workitem(request, target)
    archive = await archive_to_store_in(target)
    try:
        uid, modified = await workitems.create_workitem(
            target.store, target.access, DOOR, archive, _uid_in_query(request, "workitem"), sent
        )
    except WorkitemRefused as error:
        return _refusal(error, REFUSALS[error.status], None)
    path = f"{target.root}/workitems/{uid}"
    location = str(request.base_url).rstrip("/") + path
    response = Response(status_code=201, headers={"Location": location, "Content-Location": path})
    if modified:
        warn(response, "The Workitem was created with modifications.")
    return response


async def retrieve_workitem(request: Request) -> Response:
    """Answer with a workitem, without its Transaction UID (§11.5)."""
    target = await target_of(request)
    offer = choose(accepted_by(request), ONE_OFFERS)
    workitem = await workitems.retrieve_workitem(
        target.store, target.access, DOOR, target.archive_id, request.path_params["workitem"]
    )
    return await datasets_answer(request, offer, [orjson.dumps(workitem)])


async def update_workitem(request: Request) -> Response:
    """Set attributes of a workitem (§11.6)."""
    target = await target_of(request)
    sent = await _read_workitem(request, target)
    try:
        await workitems.update_workitem(
            target.store,
            target.access,
            DOOR,
            target.archive_id,
            request.path_params["workitem"],
            _uid_in_query(request, "transaction-uid"),
            sent,
        )
    except WorkitemRefused as error:
        # A final state and a wrong lock are both 400 here (§11.6.2, table 11.6.3-1).
        status = 400 if error.status is Status.NO_LONGER_UPDATED else REFUSALS[error.status]
        is_unclaimed = error.status is Status.NOT_IN_PROGRESS
        return _refusal(error, status, NOT_CLAIMED if is_unclaimed else INCONSISTENT)
    return Response(status_code=200, headers={"Content-Location": _path(request, target)})


async def change_state(request: Request) -> Response:
    """Claim, complete or cancel a workitem (§11.7)."""
    target = await target_of(request)
    sent = await _read_workitem(request, target)
    try:
        status = await workitems.change_state(
            target.store,
            target.access,
            DOOR,
            target.archive_id,
            request.path_params["workitem"],
            sent,
        )
    except WorkitemRefused as error:
        warning = INCONSISTENT_STATE
        if error.status is Status.WRONG_TRANSACTION_UID:
            missing = "00081195" not in sent or not sent["00081195"].get("Value")
            warning = f"The Transaction UID is {'missing' if missing else 'incorrect'}."
        return _refusal(error, REFUSALS[error.status], warning)
    response = Response(status_code=200, headers={"Content-Location": _path(request, target)})
    if status in ALREADY:
        warn(response, ALREADY[status])
    return response


async def request_cancellation(request: Request) -> Response:
    """Cancel what is scheduled, or ask the performer of a workitem to (§11.8)."""
    target = await target_of(request)
    sent = await _read_workitem(request, target, may_be_empty=True)
    try:
        status = await workitems.request_cancellation(
            target.store,
            target.access,
            DOOR,
            target.archive_id,
            request.path_params["workitem"],
            sent,
        )
    except WorkitemRefused as error:
        return _refusal(error, REFUSALS[error.status], INCONSISTENT_STATE)
    response = Response(status_code=202)
    if status in ALREADY:
        warn(response, ALREADY[status])
    return response


async def search_workitems(request: Request) -> Response:
    """Answer a search of the worklist (§11.9)."""
    target = await target_of(request)
    offer = choose(accepted_by(request), MANY_OFFERS)
    query = read_query(request, target)
    found = await workitems.search_workitems(
        target.store,
        target.access,
        DOOR,
        archive_id=target.archive_id,
        matches=query.matches,
        limit=query.limit + 1,
        offset=query.offset,
    )
    bodies = [orjson.dumps(_returned(dataset, query)) for dataset in found]
    response = await answer_page(request, offer, query, bodies)
    if query.semantics != LITERAL:
        warn_literal(response, query.semantics)
    return response


def _path(request: Request, target: Target) -> str:
    return f"{target.root}/workitems/{request.path_params['workitem']}"


def _returned(dataset: Dataset, query: Query) -> Dataset:
    if query.include_all:
        return dataset
    asked = {match.tag for match in query.matches} | set(query.includefield)
    wanted = RETURNED | {tag.split(".")[0] for tag in asked}
    return {tag: element for tag, element in dataset.items() if tag in wanted}


def _refusal(error: WorkitemRefused, status: int, warning: str | None) -> Response:
    title = {400: "Bad Request", 409: "Conflict"}[status]
    body = orjson.dumps({"status": status, "title": title, "detail": error.message})
    response = Response(body, status, media_type="application/problem+json")
    if warning is not None:
        warn(response, warning)
    return response


def _uid_in_query(request: Request, name: str) -> str | None:
    """Return the UID of the query: `?1.2.3` as the standard writes it, or under its name."""
    query = request.url.query
    if query and "=" not in query:
        return unquote(query)
    for key in (name, name.replace("-", ""), "AffectedSOPInstanceUID"):
        if key in request.query_params:
            return request.query_params[key]
    return None


async def _read_workitem(
    request: Request, target: Target, *, may_be_empty: bool = False
) -> Dataset:
    settings = target.store.settings
    return await read_dataset(
        request,
        max_bytes=settings.workitem_max_bytes,
        max_depth=settings.header_max_depth,
        may_be_empty=may_be_empty,
    )
