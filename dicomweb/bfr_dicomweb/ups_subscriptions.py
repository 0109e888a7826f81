"""UPS-RS: subscriptions to workitems and to the worklist (PS3.18 §11.10 to §11.12)."""

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from bfr_core import workitem_subscriptions
from bfr_core.errors import Invalid, NotFound
from bfr_core.matching import Match
from bfr_core.workitem_subscriptions import FILTERED, GLOBAL
from bfr_dicomweb.qido import read_filter
from bfr_dicomweb.resources import Target, target_of
from bfr_dicomweb.ups import DOOR


async def subscribe(request: Request) -> Response:
    """Subscribe an application entity to a workitem, to all, or to those that match (§11.10)."""
    target = await target_of(request)
    workitem_uid, receiving_ae = _path(request)
    await workitem_subscriptions.subscribe(
        target.store,
        target.access,
        DOOR,
        archive_id=target.archive_id,
        workitem_uid=workitem_uid,
        receiving_ae=receiving_ae,
        deletion_lock=_deletion_lock(request),
        matches=_filter(request, workitem_uid),
    )
    return Response(status_code=201, headers={"Content-Location": _channel(request, target)})


async def unsubscribe(request: Request) -> Response:
    """End a subscription (§11.11)."""
    target = await target_of(request)
    workitem_uid, receiving_ae = _path(request)
    await workitem_subscriptions.unsubscribe(
        target.store,
        target.access,
        DOOR,
        archive_id=target.archive_id,
        workitem_uid=workitem_uid,
        receiving_ae=receiving_ae,
    )
    return Response(status_code=200)


async def suspend(request: Request) -> Response:
    """Get no new workitems, and keep those subscribed to (§11.12)."""
    target = await target_of(request)
    worklist_uid, receiving_ae = _path(request)
    if worklist_uid not in (GLOBAL, FILTERED):
        raise NotFound("only a subscription to the worklist can be suspended")
    await workitem_subscriptions.suspend(
        target.store,
        target.access,
        DOOR,
        archive_id=target.archive_id,
        worklist_uid=worklist_uid,
        receiving_ae=receiving_ae,
    )
    return Response(status_code=200)


def _path(request: Request) -> tuple[str, str]:
    return request.path_params["workitem"], request.path_params["aetitle"]


def _deletion_lock(request: Request) -> bool:
    value = request.query_params.get("deletionlock", "false")
    if value not in ("true", "false"):
        raise Invalid(f"deletionlock is true or false, not {value[:64]!r}")
    return value == "true"


def _filter(request: Request, workitem_uid: str) -> list[Match]:
    texts = request.query_params.getlist("filter")
    if (workitem_uid == FILTERED) != any(texts):
        raise Invalid(f"filter belongs to a subscription to {FILTERED}, and to no other")
    return [match for text in texts for match in read_filter(text)]


def _channel(request: Request, target: Target) -> str:
    """Return the address at which the subscriber opens its event channel."""
    scheme = "wss" if request.url.scheme == "https" else "ws"
    title = quote(request.path_params["aetitle"], safe="")
    return f"{scheme}://{request.url.netloc}{target.root}/ws/subscribers/{title}"
