"""Retrieve Capabilities: what the server says of itself is what it routes (PS3.18 §8.9)."""

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest
from tests.dicomweb.conftest import Web

from bfr_dicomweb.app import RESOURCES
from bfr_dicomweb.capabilities import NAMESPACE, WADL

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXPECTED = {
    (method, path.replace(":path}", "}") or "/")
    for method, path, _ in RESOURCES
    if method != "OPTIONS"
}


def described(resource: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for method in resource.get("method", []):
        yield method["name"], path
    for one in resource.get("resource", []):
        yield from described(one, f"{path}/{one['path']}")


def described_in_wadl(parent: ElementTree.Element, path: str = "") -> Iterator[tuple[str, str]]:
    for method in parent.findall(f"{{{NAMESPACE}}}method"):
        yield method.attrib["name"], path
    for one in parent.findall(f"{{{NAMESPACE}}}resource"):
        yield from described_in_wadl(one, f"{path}/{one.attrib['path']}")


@pytest.mark.conforms("PS3.18 §8.9.2", "Every resource and method is described, and no other")
@pytest.mark.parametrize("root", ["/dicomweb", "/archives/ARCHIVE/dicomweb"])
async def test_every_resource_is_described_and_no_other(shared: Web, root: str) -> None:
    base = f"http://127.0.0.1:{shared.port}{root}"
    for path in (root, f"{root}/"):
        answer = await shared.client.options(path, headers={"Accept": "application/json"})
        resources = answer.json()["application"]["resources"]
        assert resources["base"] == base
        assert set(described(resources)) == EXPECTED


@pytest.mark.conforms("PS3.18 §8.9.4", "WADL and JSON; WADL when nothing is preferred")
async def test_the_description_comes_as_wadl(shared: Web) -> None:
    answer = await shared.client.options("/dicomweb")
    assert answer.headers["content-type"] == WADL
    document = ElementTree.fromstring(answer.content)
    (resources,) = document
    assert document.tag == f"{{{NAMESPACE}}}application"
    assert set(described_in_wadl(resources)) == EXPECTED
    refused = await shared.client.options("/dicomweb", headers={"Accept": "text/html"})
    assert refused.status_code == 406
    missing = await shared.client.options("/archives/NONE/dicomweb")
    assert missing.status_code == 404
