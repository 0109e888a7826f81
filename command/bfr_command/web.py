"""The web role: DICOMweb and the portals behind one port."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from importlib.metadata import version
from urllib.parse import urlsplit

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import bfr_dicomweb.app
import bfr_ui.api
from bfr_command import observing
from bfr_command.addresses import Address, is_loopback, open_to_strangers
from bfr_command.http_transactions import ObservedRequests
from bfr_core import roles
from bfr_core.access import Access
from bfr_core.errors import ArchiveError, Invalid
from bfr_core.pixels import PixelPool
from bfr_core.settings import Settings
from bfr_core.store import Store
from bfr_dicomweb import openapi
from bfr_dicomweb.errors import answer_error
from bfr_dicomweb.event_channel import Channels
from bfr_ui.pages import page

log = logging.getLogger("bfr.web")

PAGES = "/{path:path}"
# Subscribers have nothing to say over an event channel.
WEBSOCKET_MESSAGE_MAX_BYTES = 4096
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class LoopbackCallers:
    """Lets in callers from this machine alone, as long as nobody can log in.

    A page from elsewhere that runs in a browser here is refused by its Origin, and a foreign
    name that was made to point here (DNS rebinding) by its Host.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403, or pass on with the caller's access in `state`."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        address = client[0] if client else ""
        headers = Headers(scope=scope)
        hosts = {_host_name("//" + value) for value in headers.getlist("host")}
        origins = {_host_name(value) for value in headers.getlist("origin")}
        is_ours = len(hosts) == 1 and hosts <= LOOPBACK_NAMES and origins <= hosts
        if not (is_loopback(address) and is_ours):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close"})  # before it is accepted: 403
            else:
                await Response("only for callers on this machine\n", 403)(scope, receive, send)
            return
        scope.setdefault("state", {})["access"] = Access(
            kind="local",
            subject="loopback",
            archive_ids=None,
            remote_address=address,
            may_reject=True,
        )
        await self._app(scope, receive, send)


class OwnPagesOnly:
    """Tells browsers to take every answer as what it says it is, and to keep it to our pages.

    Without a login a page from elsewhere could else show a picture of ours by its address.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and add the header fields to the answer."""

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Cross-Origin-Resource-Policy"] = "same-origin"
            await send(message)

        await self._app(scope, receive, send_guarded)


def web_app(store: Store, pixels: PixelPool) -> Starlette:
    """Return the application with every resource of the web role."""
    app = Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/openapi.json", openapi_document),
            *bfr_dicomweb.app.routes(),
            *bfr_ui.api.routes(),
            Route(PAGES, page),
        ],
        exception_handlers={ArchiveError: answer_error, HTTPException: answer_http_error},
    )
    app.add_middleware(LoopbackCallers)
    app.add_middleware(OwnPagesOnly)
    app.add_middleware(ObservedRequests, names=transactions())
    app.state.store = store
    app.state.pixels = pixels
    app.state.channels = Channels()
    app.state.version = version("bfr")
    return app


def transactions() -> dict[tuple[str, str], tuple[str, str]]:
    """Return the transaction and the resource behind the method and path of each route."""
    operation = ("/healthz", "/readyz", "/metrics", "/openapi.json")
    return {
        **{("GET", path): ("operation", path) for path in operation},
        **bfr_dicomweb.app.transactions(),
        **bfr_ui.api.transactions(),
        ("GET", PAGES): (bfr_ui.api.TRANSACTION, "pages"),
    }


async def answer_http_error(request: Request, error: Exception) -> Response:
    """Return the problem document of what no resource answered (RFC 9457)."""
    if not isinstance(error, HTTPException):
        raise error
    body = orjson.dumps({"status": error.status_code, "title": error.detail})
    return Response(body, error.status_code, error.headers, media_type="application/problem+json")


async def healthz(request: Request) -> Response:
    """Answer 200: this process runs and its event loop turns."""
    return _response(await observing.healthz())


async def readyz(request: Request) -> Response:
    """Answer 200 when every role serves, else 503 with what is missing."""
    return _response(await observing.readiness(request.app.state.store))


async def metrics(request: Request) -> Response:
    """Answer with the figures of every process of this machine."""
    return _response(await observing.figures(request.app.state.store, "web"))


async def openapi_document(request: Request) -> Response:
    """Answer with what the doors of PS3.18 offer, as OpenAPI."""
    return _response((200, "application/json", await asyncio.to_thread(_openapi)))


@cache
def _openapi() -> bytes:
    return orjson.dumps(
        openapi.document(bfr_dicomweb.app.ROOTS, bfr_dicomweb.app.RESOURCES, version("bfr"))
    )


def _response(answer: observing.Answer) -> Response:
    status, media_type, body = answer
    return Response(body, status, {"Cache-Control": "no-store"}, media_type)


async def serve_web(
    store: Store, stop: asyncio.Event, listener: socket.socket | None = None
) -> None:
    """Serve HTTP until `stop` is set; requests under way are ended first.

    `listener` is the socket that several processes of this role share.

    Raises Invalid when the address is not of this machine: without a login everybody who
    reaches the port would see everything.
    """
    settings = store.settings
    address = Address("web", "http", settings.http_host, settings.http_port)
    if problem := open_to_strangers(address):
        raise Invalid(problem)
    pixels = PixelPool(max(1, settings.pixel_processes // settings.web_processes))
    server = http_server(web_app(store, pixels), settings)
    serving = asyncio.create_task(server.serve(sockets=None if listener is None else [listener]))
    beating = asyncio.create_task(roles.beat(store, "web", _check(server), stop))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        stop.set()
        await beating
    finally:
        stopped.cancel()
        pixels.close()


def http_server(app: Starlette, settings: Settings) -> uvicorn.Server:
    """Return the HTTP server of the web role, not started yet."""
    return _Server(
        uvicorn.Config(
            app,
            host=settings.http_host,
            port=settings.http_port,
            loop="none",
            http="httptools",
            ws="websockets-sansio",
            ws_max_size=WEBSOCKET_MESSAGE_MAX_BYTES,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(settings.stop_timeout_s),
        )
    )


class _Server(uvicorn.Server):
    """A server whose signals belong to the role that runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def _check(server: uvicorn.Server) -> Callable[[], Awaitable[str | None]]:
    async def check() -> str | None:
        return None if server.started else "is starting"

    return check


def _host_name(url: str) -> str:
    try:
        parts = urlsplit(url)
        return parts.hostname or "" if parts.port != 0 else ""
    except ValueError:  # no address, or a port that is none
        return ""
