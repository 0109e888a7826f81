"""The web role: whom it answers, which pages it has, and how it starts and stops."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tests.dicomweb.conftest import Web, new_settings, running, until

import bfr_ui.pages
from bfr_command.web import serve_web
from bfr_core import roles
from bfr_core.errors import Invalid
from bfr_core.pixels import PixelPool
from bfr_core.postgres import Cluster
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store

FIRST_PAGE = "<!doctype html><title>BFR</title>"


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built application, and a file beside it that is nobody's business."""
    directory = tmp_path_factory.mktemp("portal") / "static"
    (directory / "assets").mkdir(parents=True)
    (directory / "index.html").write_text(FIRST_PAGE)
    (directory / "favicon.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (directory / "assets" / "index-abc.js").write_text("export {}")
    (directory / "assets" / "codec-abc.wasm").write_bytes(b"\0asm")
    (directory.parent / "secret.txt").write_text("secret")
    return directory


@pytest.fixture(scope="module")
def pixels() -> Iterator[PixelPool]:
    pool = PixelPool(1)
    yield pool
    pool.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def portal(
    cluster: Cluster, pixels: PixelPool, tmp_path_factory: pytest.TempPathFactory, application: Path
) -> AsyncIterator[Web]:
    with new_settings(cluster, tmp_path_factory.mktemp("web")) as chosen:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bfr_ui.pages, "static_directory", lambda: application)
            async with running(chosen, pixels) as web:
                yield web


# Whom it answers


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:8080", "[::1]", "[::1]:80"])
async def test_a_caller_of_this_machine_is_answered(portal: Web, host: str) -> None:
    answer = await portal.client.get("/api/session", headers={"Host": host})
    assert answer.status_code == 200
    name = host.rpartition(":")[0] if host.endswith("0") else host
    origin = await portal.client.get(
        "/api/session", headers={"Host": host, "Origin": f"http://{name}:5173"}
    )
    assert origin.status_code == 200


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "localhost.example.org",
        "127.0.0.1.example.org",
        "127.0.0.2",
        "0.0.0.0",
        "",
        "localhost:99999",
        "localhost:x",
        "[::1",
        "example.org/localhost",
        "localhost@example.org",
        "example.org#localhost",
    ],
)
async def test_a_name_that_is_not_of_this_machine_is_refused(portal: Web, host: str) -> None:
    for path in ("/api/session", "/dicomweb/studies", "/", "/healthz"):
        answer = await portal.client.get(path, headers={"Host": host})
        assert answer.status_code == 403, path


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "origin", ["http://example.org", "https://localhost.example.org", "null", "", "http://[", "x"]
)
async def test_a_page_from_elsewhere_is_refused(portal: Web, origin: str) -> None:
    for method, path in (("GET", "/api/studies"), ("POST", "/archives/ARCHIVE/dicomweb/studies")):
        answer = await portal.client.request(method, path, headers={"Origin": origin})
        assert answer.status_code == 403, path


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 101),
        ({"Host": "localhost", "Origin": "http://localhost:8080"}, 101),
        ({"Origin": "http://example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "example.org"}, 403),
        ({"Host": "example.org", "Origin": "http://example.org"}, 403),
    ],
)
async def test_a_websocket_is_opened_for_whom_a_page_is_answered(
    portal: Web, fields: dict[str, str], status: int
) -> None:
    host = f"127.0.0.1:{portal.port}"
    lines = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version": "13",
        **fields,
    }
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", portal.port)
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"GET /dicomweb/ws/subscribers/A HTTP/1.1\r\n{head}\r\n".encode())
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
    assert int(answer.split(b" ")[1]) == status


async def raw(web: Web, *lines: str) -> bytes:
    """The answer to a request of these lines, as it comes."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    return answer


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "fields",
    [
        ["Host: localhost", "Host: example.org"],
        ["Host: example.org", "Host: localhost"],
        ["Host: localhost", "Origin: http://localhost", "Origin: http://example.org"],
        ["Host: localhost", "Origin: http://example.org", "Origin: http://localhost"],
        ["X: no host at all"],
    ],
)
async def test_two_hosts_or_origins_are_no_way_round(portal: Web, fields: list[str]) -> None:
    answer = await raw(portal, "GET /api/studies HTTP/1.1", *fields)
    assert answer.split(b" ", 2)[1] in (b"400", b"403")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "path", ["/", "/api/session", "/dicomweb/studies", "/dicomweb/nothing", "/healthz", "/x.js"]
)
async def test_no_answer_may_be_used_by_other_pages(portal: Web, path: str) -> None:
    answer = await portal.client.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in answer.headers


# Pages


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/admin",
        "/patient/17",
        "/viewer/ARCHIVE/1.2.840.113619.2.1",
        "/viewer/A.B/1.2",
        "/viewer/ARCHIVE/2.25.1?series=1.2",
    ],
)
async def test_every_address_of_the_portals_is_the_first_page(portal: Web, path: str) -> None:
    answer = await portal.client.get(path)
    assert answer.status_code == 200
    assert answer.text == FIRST_PAGE
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-cache"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "'unsafe-eval'" not in policy.replace("'wasm-unsafe-eval'", "")
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("path", "media_type", "caching"),
    [
        ("/assets/index-abc.js", "text/javascript", "immutable"),
        ("/assets/codec-abc.wasm", "application/wasm", "immutable"),
        ("/favicon.svg", "image/svg+xml", "no-cache"),
        ("/index.html", "text/html", "no-cache"),
    ],
)
async def test_files_have_their_type_and_caching(
    portal: Web, path: str, media_type: str, caching: str
) -> None:
    answer = await portal.client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == media_type
    assert caching in answer.headers["cache-control"]
    assert "content-security-policy" in answer.headers


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "path",
    [
        "/assets/index-old.js",
        "/assets/codec-old.wasm",
        "/missing.js",
        "/missing.wasm",
        "/missing.css",
        "/viewer/missing.js.map",
        "/assets/none",
        "/x.mp3",
        "/robots.txt",
    ],
)
async def test_a_missing_file_is_never_the_page(portal: Web, path: str) -> None:
    answer = await portal.client.get(path)
    assert answer.status_code == 404
    assert "html" not in answer.headers["content-type"]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "path",
    [
        "/%2e%2e/secret.txt",
        "/assets/..%2f..%2fsecret.txt",
        "/%00",
        "/assets/%00.js",
        "/" + "a" * 5000,
        "/" + "a/" * 3000,
        "//etc/passwd",
        "/%ff%fe",
    ],
)
async def test_no_path_leads_out_of_the_application(portal: Web, path: str) -> None:
    answer = await raw(portal, f"GET {path} HTTP/1.1", "Host: localhost")
    assert answer.split(b" ", 2)[1] in (b"200", b"404")
    assert b"secret" not in answer
    assert b"root:" not in answer


@pytest.mark.asyncio(loop_scope="module")
async def test_without_a_built_application_there_is_no_page(
    portal: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bfr_ui.pages, "static_directory", lambda: tmp_path / "nothing")
    assert (await portal.client.get("/")).status_code == 404
    assert (await portal.client.get("/api/session")).status_code == 200


# Start, readiness, stop


@pytest.mark.asyncio(loop_scope="module")
async def test_readiness_waits_for_every_role(portal: Web) -> None:
    assert (await portal.client.get("/healthz")).text == "ok\n"
    waiting = await portal.client.get("/readyz")
    assert waiting.status_code == 503
    engines = {"database": True, "disk": True}
    absent = dict.fromkeys(("web", "dimse", "worker"), "has not started")
    assert waiting.json() == {**absent, **engines}
    stop = asyncio.Event()

    async def well() -> str | None:
        return None

    beats = [
        asyncio.create_task(roles.beat(portal.store, role, well, stop))
        for role in ("web", "dimse", "worker")
    ]

    async def is_ready() -> bool:
        return (await portal.client.get("/readyz")).status_code == 200

    await until(is_ready)
    ready = await portal.client.get("/readyz")
    assert ready.json() == {"web": True, "dimse": True, "worker": True, **engines}
    stop.set()
    await asyncio.gather(*beats)
    assert (await portal.client.get("/readyz")).status_code == 503


@contextlib.asynccontextmanager
async def served(store: Store, port: int) -> AsyncIterator[tuple[asyncio.Event, httpx.AsyncClient]]:
    stop = asyncio.Event()
    serving = asyncio.create_task(serve_web(store, stop))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

        async def is_up() -> bool:
            with contextlib.suppress(httpx.ConnectError):
                return (await client.get("/healthz")).status_code == 200
            return False

        await until(is_up)
        yield stop, client
        stop.set()
        async with asyncio.timeout(10):
            await serving


async def test_the_role_serves_until_it_is_stopped(
    with_settings: Callable[..., Settings],
) -> None:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    async with open_store(with_settings(http_port=port)) as store:
        async with served(store, port) as (_, client):

            async def is_ready() -> bool:
                return (await client.get("/readyz")).json()["web"] is True

            await until(is_ready)
            answer = await client.get("/dicomweb/studies")
            assert answer.status_code == 204
            assert "server" not in answer.headers
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        async with store.database.transaction() as tx:
            (state,) = await roles.role_states(tx, ("web",))
        assert state.beat_at is None


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org", ""])
async def test_an_address_that_others_reach_is_refused(
    with_settings: Callable[..., Settings], store: Store, host: str
) -> None:
    object.__setattr__(store, "settings", with_settings(http_host=host))
    with pytest.raises(Invalid, match="loopback"):
        await serve_web(store, asyncio.Event())
