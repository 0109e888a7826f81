"""OpenAPI: the document tells of every route and no other, and the server does as it says."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import status_code_conformance
from tests.dicomweb.conftest import new_settings, running
from tests.samples import ct_instance, part10_bytes, sr_report, us_multiframe

from bfr_core.pixels import PixelPool
from bfr_core.postgres import Cluster
from bfr_dicomweb import openapi
from bfr_dicomweb.app import RESOURCES, ROOTS

DOCUMENT = openapi.document(ROOTS, RESOURCES, "test")
EXAMPLES = 4


def test_every_route_is_described_and_no_other() -> None:
    described = {
        (method.upper(), path)
        for path, operations in DOCUMENT["paths"].items()
        for method in operations
    }
    routed = {
        (method, (root + path).replace(":path}", "}"))
        for root in ROOTS
        for method, path, _ in RESOURCES
    }
    assert described == routed | {("GET", path) for path in openapi.OPERATION}
    assert {openapi.name_of(handler) for _, _, handler in RESOURCES} == set(openapi.TRANSACTIONS)


def test_the_document_is_one_of_openapi() -> None:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.validate()
    assert schema.specification.version.startswith("3.1")


class Server:
    """The web role in a thread of its own, since schemathesis calls it from this one."""

    def __init__(self, cluster: Cluster, pixels: PixelPool, directory: Any) -> None:
        self._arguments = (cluster, pixels, directory)
        self._ready = threading.Event()
        self.url = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        cluster, pixels, directory = self._arguments
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            with new_settings(cluster, directory) as chosen:
                async with running(chosen, pixels) as web:
                    files = (ct_instance(), us_multiframe(frames=2), sr_report())
                    await web.stow(*(part10_bytes(one) for one in files))
                    self.url = f"http://127.0.0.1:{web.port}"
                    self._ready.set()
                    await self._stop.wait()
        finally:
            self._ready.set()

    def __enter__(self) -> "Server":
        self._thread.start()
        assert self._ready.wait(60)
        assert self.url, "the server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)


@pytest.fixture(scope="module")
def server(
    cluster: Cluster, pixels: PixelPool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with Server(cluster, pixels, tmp_path_factory.mktemp("openapi")) as running_server:
        yield running_server


@schemathesis.serializer("application/dicom", "multipart/related", "application/dicom+xml")
def as_it_is(context: Any, value: Any) -> bytes:
    """Bytes that are nothing of the kind: what is good is tested elsewhere."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


# Whether the roles of a system serve is nothing that this server alone can tell.
schema = schemathesis.openapi.from_dict(DOCUMENT).exclude(path="/readyz")


@pytest.mark.conforms("PS3.18 §8.5", "Whatever is asked for, the server does not fail")
@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_the_server_answers_as_the_document_says(case: Case[Any], server: Server) -> None:
    response = case.call(base_url=server.url, timeout=30)
    case.validate_response(response, checks=[not_a_server_error, status_code_conformance])
