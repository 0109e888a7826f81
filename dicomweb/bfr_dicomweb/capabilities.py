"""Capabilities: what the origin server can do, for machines (PS3.18 §8.9, Annex H)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import orjson
from starlette.requests import Request
from starlette.responses import Response

from bfr_dicomweb.media_types import Offer, choose
from bfr_dicomweb.resources import Target, accepted_by

WADL = "application/vnd.sun.wadl+xml"
NAMESPACE = "http://wadl.dev.java.net/2009/02"
OFFERS = (Offer(WADL), Offer("application/json"))


@dataclass
class Resource:
    """A part of the tree of addresses, with its methods and what lies below it."""

    path: str
    methods: dict[str, str] = field(default_factory=dict)  # method: what it does
    below: dict[str, "Resource"] = field(default_factory=dict)


def answer(
    request: Request, target: Target, resources: Sequence[tuple[str, str, Callable[..., Any]]]
) -> Response:
    """Return the description in the form that is accepted. Raises NotAcceptable."""
    offer = choose(accepted_by(request), OFFERS)
    base = str(request.base_url).rstrip("/") + target.root
    tree = _tree(resources)
    headers = {"Vary": "Accept"}
    if offer.media_type == WADL:
        body = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<application xmlns="{NAMESPACE}">'
            f"<resources base={quoteattr(base)}>{''.join(_wadl(tree))}</resources></application>\n"
        ).encode()
    else:
        body = orjson.dumps({"application": {"resources": {"base": base, **_json(tree)}}})
    return Response(body, headers=headers, media_type=offer.media_type)


def _tree(resources: Sequence[tuple[str, str, Callable[..., Any]]]) -> Resource:
    root = Resource("")
    for method, path, handler in resources:
        if method == "OPTIONS":  # this transaction: the description does not describe itself
            continue
        place = root
        for step in path.strip("/").split("/"):
            place = place.below.setdefault(step, Resource(step.replace(":path}", "}")))
        place.methods[method] = str(handler.__doc__).splitlines()[0]
    return root


def _wadl(resource: Resource) -> Iterator[str]:
    for one in resource.below.values():
        yield f"<resource path={quoteattr(one.path)}>"
        for method, text in one.methods.items():
            yield f"<method name={quoteattr(method)}><doc>{escape(text)}</doc></method>"
        yield from _wadl(one)
        yield "</resource>"


def _json(resource: Resource) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if resource.methods:
        result["method"] = [{"name": m, "doc": text} for m, text in resource.methods.items()]
    if resource.below:
        result["resource"] = [{"path": one.path, **_json(one)} for one in resource.below.values()]
    return result
