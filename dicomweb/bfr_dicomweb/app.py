"""The resources of PS3.18 chapters 10, 11 and 13, below the joint root and below each archive."""

import sys
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from bfr_core.errors import NotFound
from bfr_dicomweb import (
    capabilities,
    changes,
    commitment_requests,
    event_channel,
    non_patient,
    qido,
    rejections,
    rendered,
    search_counts,
    stow,
    ups,
    ups_subscriptions,
    wado,
    wado_bulk_data,
    wado_frames,
    wado_uri,
)
from bfr_dicomweb.resources import target_of

Handler = Callable[[Request], Awaitable[Response]]

DOOR = "Capabilities"
ROOTS = ("/dicomweb", "/archives/{ae_title}/dicomweb")
STUDY = "/studies/{study}"
SERIES = f"{STUDY}/series/{{series}}"
WORKITEM = "/workitems/{workitem}"
COMMITMENT = "/commitment-requests/{transaction}"
SUBSCRIBER = f"{WORKITEM}/subscribers/{{aetitle}}"
EVENT_CHANNEL = "/ws/subscribers/{aetitle}"
INSTANCE = f"{SERIES}/instances/{{instance}}"
LEVELS = (STUDY, SERIES, INSTANCE)
PICTURED = (*LEVELS, f"{INSTANCE}/frames/{{frames}}")


async def retrieve_capabilities(request: Request) -> Response:
    """Describe every resource and method below the root, as WADL or JSON (§8.9)."""
    target = await target_of(request)
    return capabilities.answer(request, target, RESOURCES)


RESOURCES: tuple[tuple[str, str, Handler], ...] = (
    ("OPTIONS", "", retrieve_capabilities),
    ("OPTIONS", "/", retrieve_capabilities),
    ("GET", "/studies", qido.search_studies),
    ("GET", "/series", qido.search_series),
    ("GET", "/instances", qido.search_instances),
    ("GET", f"{STUDY}/series", qido.search_series),
    ("GET", f"{STUDY}/instances", qido.search_instances),
    ("GET", f"{SERIES}/instances", qido.search_instances),
    ("GET", "/studies/count", search_counts.count_studies),
    ("GET", "/series/count", search_counts.count_series),
    ("GET", "/instances/count", search_counts.count_instances),
    ("GET", f"{STUDY}/series/count", search_counts.count_series),
    ("GET", f"{STUDY}/instances/count", search_counts.count_instances),
    ("GET", f"{SERIES}/instances/count", search_counts.count_instances),
    ("POST", "/studies", stow.store_instances),
    ("POST", STUDY, stow.store_instances),
    ("DELETE", STUDY, rejections.reject),
    ("DELETE", SERIES, rejections.reject),
    ("DELETE", INSTANCE, rejections.reject),
    ("GET", STUDY, wado.retrieve),
    ("GET", SERIES, wado.retrieve),
    ("GET", INSTANCE, wado.retrieve),
    ("GET", f"{STUDY}/metadata", wado.retrieve_metadata),
    ("GET", f"{SERIES}/metadata", wado.retrieve_metadata),
    ("GET", f"{INSTANCE}/metadata", wado.retrieve_metadata),
    *(("GET", f"{level}/pixeldata", wado_frames.retrieve_pixel_data) for level in LEVELS),
    ("GET", f"{INSTANCE}/frames/{{frames}}", wado_frames.retrieve_frames),
    *(("GET", f"{level}/rendered", rendered.retrieve_rendered) for level in PICTURED),
    *(("GET", f"{level}/thumbnail", rendered.retrieve_thumbnail) for level in PICTURED),
    *(("GET", f"{level}/bulkdata", wado_bulk_data.retrieve_all_bulk_data) for level in LEVELS),
    ("GET", f"{INSTANCE}/bulkdata/{{path:path}}", wado_bulk_data.retrieve_bulk_data),
    ("GET", "", wado_uri.retrieve),
    ("GET", "/", wado_uri.retrieve),
    ("GET", "/wado", wado_uri.retrieve),
    *non_patient.RESOURCES,
    ("GET", "/workitems", ups.search_workitems),
    ("POST", "/workitems", ups.create_workitem),
    ("GET", WORKITEM, ups.retrieve_workitem),
    ("POST", WORKITEM, ups.update_workitem),
    ("PUT", f"{WORKITEM}/state", ups.change_state),
    ("POST", f"{WORKITEM}/cancelrequest", ups.request_cancellation),
    ("POST", SUBSCRIBER, ups_subscriptions.subscribe),
    ("DELETE", SUBSCRIBER, ups_subscriptions.unsubscribe),
    ("POST", f"{SUBSCRIBER}/suspend", ups_subscriptions.suspend),
    ("POST", COMMITMENT, commitment_requests.request_commitment),
    ("GET", COMMITMENT, commitment_requests.check_result),
    ("GET", "/changes", changes.list_changes),
    ("GET", "/changes/latest", changes.latest_change),
)


async def no_resource(request: Request) -> Response:
    """Raise NotFound: what RESOURCES does not list is not offered."""
    raise NotFound(
        "there is no such DICOMweb resource; studies, series and instances have metadata,"
        " instances have frames, rendered and bulkdata, and the worklist has workitems"
    )


def routes() -> list[BaseRoute]:
    """Return a route per resource and root, the event channels, and one for all else."""
    offered: dict[str, dict[str, Handler]] = {}
    for method, path, handler in RESOURCES:
        offered.setdefault(path, {})[method] = handler
    channels = [WebSocketRoute(root + EVENT_CHANNEL, event_channel.open_channel) for root in ROOTS]
    resources = [
        Route(root + path, _by_method(handlers), methods=list(handlers))
        for root in ROOTS
        for path, handlers in offered.items()
    ]
    rest = [Route(root + "{path:path}", no_resource) for root in ROOTS]
    return [*channels, *resources, *rest]


def transactions() -> dict[tuple[str, str], tuple[str, str]]:
    """Return the transaction and the resource behind the method and path of each route."""
    names = {
        (method, root + path): (_door_of(handler), path)
        for root in ROOTS
        for method, path, handler in RESOURCES
    }
    return names | {("GET", root + "{path:path}"): ("DICOMweb", "none") for root in ROOTS}


def _door_of(handler: Handler) -> str:
    return str(sys.modules[handler.__module__].DOOR)


def _by_method(handlers: Mapping[str, Handler]) -> Handler:
    # One route for all methods of a path, so that Allow names them all.
    async def handle(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return handle
