"""The five errors in the language of HTTP and of the Store transaction."""

from collections.abc import Iterator

import orjson
import pytest
from tests.dicomweb.conftest import Web

from bfr_core import errors as core_errors
from bfr_core.errors import ArchiveError, Conflict, Denied, Invalid, NotFound, Unavailable
from bfr_core.receiving import MismatchedObject
from bfr_core.registration import DuplicateUid
from bfr_core.workitem_rows import Gone
from bfr_dicomweb.errors import UnsupportedMediaType, failure_reason_of, status_of
from bfr_dicomweb.media_types import NotAcceptable
from bfr_dicomweb.multipart import ContentTooLarge

pytestmark = pytest.mark.asyncio(loop_scope="module")


def kinds(kind: type[ArchiveError] = ArchiveError) -> Iterator[type[ArchiveError]]:
    for one in kind.__subclasses__():
        yield one
        yield from kinds(one)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (Invalid, 400),
        (MismatchedObject, 400),
        (Denied, 403),
        (NotFound, 404),
        (NotAcceptable, 406),
        (Gone, 410),
        (Conflict, 409),
        (DuplicateUid, 409),
        (ContentTooLarge, 413),
        (UnsupportedMediaType, 415),
        (Unavailable, 503),
    ],
)
async def test_each_error_has_its_status(kind: type[ArchiveError], status: int) -> None:
    assert status_of(kind("x"))[0] == status


@pytest.mark.conforms("PS3.4 Table B.2-1", "Failure Reason is one of the storage statuses")
async def test_every_error_has_a_status_and_a_failure_reason() -> None:
    assert core_errors.ArchiveError in (one.__base__ for one in kinds())
    for kind in kinds():
        status, title = status_of(kind("x"))
        assert 400 <= status <= 503
        assert title
        reason = failure_reason_of(kind("x"))
        assert reason in range(0x0100, 0x0300) or reason in range(0xA700, 0xD000)


@pytest.mark.conforms("PS3.18 §8.5", "What is not offered is 404, with a clear problem document")
@pytest.mark.parametrize(
    "path",
    [
        "/dicomweb",
        "/dicomweb/",
        "/dicomweb/studies/",
        "/dicomweb/patients",
        "/dicomweb/workitems/1.2/nothing",
        "/dicomweb/studies/1.2/thumbnail",
        "/dicomweb/studies/1.2/rendered",
        "/dicomweb/studies/1.2/series/1.3/rendered",
        "/dicomweb/studies/1.2/series/1.3/thumbnail",
        "/dicomweb/studies/1.2/bulkdata",
        "/dicomweb/studies/1.2/series/1.3/instances/1.4/thumbnail",
        "/archives/ARCHIVE/dicomweb/studies/1.2/thumbnail",
        "/archives/NOBODY/dicomweb/nothing",
        "/dicomweb/%00",
    ],
)
async def test_what_is_not_offered_is_not_found(shared: Web, path: str) -> None:
    answer = await shared.client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == 404
    assert "no such DICOMweb resource" in problem["detail"]


@pytest.mark.conforms("RFC 9110 §15.5.6", "405 tells which methods there are")
@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/dicomweb/studies/1.2", {"DELETE", "GET", "HEAD", "POST"}),
        ("PUT", "/dicomweb/studies", {"GET", "HEAD", "POST"}),
        ("POST", "/dicomweb/studies/1.2/series", {"GET", "HEAD"}),
        ("PATCH", "/archives/ARCHIVE/dicomweb/studies/1.2/metadata", {"GET", "HEAD"}),
    ],
)
async def test_another_method_is_not_allowed(
    shared: Web, method: str, path: str, allowed: set[str]
) -> None:
    answer = await shared.client.request(method, path)
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == allowed
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.conforms("RFC 9457 §3", "A problem has its status, title and detail")
async def test_a_problem_tells_its_status_title_and_detail(shared: Web) -> None:
    answer = await shared.client.get("/dicomweb/studies?Nonsense=1")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    problem = orjson.loads(answer.content)
    assert problem["status"] == 400
    assert problem["title"] == "Bad Request"
    assert "Nonsense" in problem["detail"]


async def test_a_database_that_is_away_is_503(web: Web) -> None:
    await web.store.database.pool.close()
    web.store.database.pool.timeout = 0.1
    for path in ("/dicomweb/studies", "/dicomweb/studies/1.2", "/api/studies", "/readyz"):
        answer = await web.client.get(path)
        assert answer.status_code == 503, path
        assert "postgres" not in answer.text.lower()
