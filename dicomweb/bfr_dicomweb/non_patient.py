"""Non-Patient Instance service: hanging protocols, colour palettes … (PS3.18 chapter 12)."""

import asyncio
from collections.abc import Awaitable, Callable

import orjson
from starlette.requests import Request
from starlette.responses import Response

from bfr_core import non_patient_instances
from bfr_core.bulk_data import read_bulk_data
from bfr_core.instances import SOP_INSTANCE_UID, Dataset
from bfr_core.matching import LITERAL
from bfr_core.non_patient_categories import CATEGORIES
from bfr_dicomweb.datasets import MANY_OFFERS, ONE_OFFERS, datasets_answer
from bfr_dicomweb.media_types import APPLICATION_DICOM, OCTET_STREAM, Offer, choose
from bfr_dicomweb.non_patient_store import DOOR, RETRIEVE_URL, store_instances
from bfr_dicomweb.qido import Query, answer_page, read_query, warn_literal
from bfr_dicomweb.resources import (
    BlobRange,
    Target,
    accepted_by,
    pieces_answer,
    target_of,
    with_bulk_data_uris,
)
from bfr_dicomweb.wado import IDENTITY, multipart_answer

Handler = Callable[[Request], Awaitable[Response]]


async def retrieve_instance(request: Request, category: str) -> Response:
    """Answer with an instance as stored, or as JSON or XML (§12.4)."""
    target = await target_of(request)
    found = await _find(request, target, category)
    stored = found.stored
    offers = [
        Offer(APPLICATION_DICOM, form, stored.transfer_syntax_uid, when_unnamed=True)
        for form in (False, True)
    ]
    offer = choose(accepted_by(request), [*ONE_OFFERS, *offers])
    if offer not in offers:
        path = f"{target.root}/{category}/{stored.sop_instance_uid}"
        return await datasets_answer(request, offer, [with_bulk_data_uris(found.header, path)])
    part_type = f"{APPLICATION_DICOM}; transfer-syntax={stored.transfer_syntax_uid}"
    pieces = [BlobRange(stored.blob.key, stored.blob.offset, stored.blob.length)]
    headers = {"Content-Type": part_type}
    if offer.multipart:
        return await multipart_answer(target.store, APPLICATION_DICOM, [(headers, pieces)])
    return await pieces_answer(target.store, pieces, stored.blob.length, {**IDENTITY, **headers})


async def retrieve_bulk_data(request: Request, category: str) -> Response:
    """Answer with one value that an instance names by a URI (§12.4, §8.7.3.3)."""
    target = await target_of(request)
    found = await _find(request, target, category)
    choose(accepted_by(request), [Offer(OCTET_STREAM)])
    value = await asyncio.to_thread(
        read_bulk_data, target.store, found.stored, request.path_params["path"]
    )
    return Response(value, headers=IDENTITY, media_type=OCTET_STREAM)


async def search_instances(request: Request, category: str) -> Response:
    """Answer a search for instances (§12.6)."""
    target = await target_of(request)
    offer = choose(accepted_by(request), MANY_OFFERS)
    query = read_query(request, target)
    found = await non_patient_instances.search_non_patient_instances(
        target.store,
        target.access,
        DOOR,
        archive_id=target.archive_id,
        category=category,
        matches=query.matches,
        limit=query.limit + 1,
        offset=query.offset,
    )
    base = str(request.base_url).rstrip("/") + target.root
    results = []
    for header in found:
        uid = str(header[SOP_INSTANCE_UID]["Value"][0]).strip(" \x00")
        result = _returned(header, query, category)
        result[RETRIEVE_URL] = {"vr": "UR", "Value": [f"{base}/{category}/{uid}"]}
        text = orjson.dumps(dict(sorted(result.items())))
        results.append(with_bulk_data_uris(text, f"{target.root}/{category}/{uid}"))
    answer = await answer_page(request, offer, query, results)
    if query.semantics != LITERAL:
        warn_literal(answer, query.semantics)
    return answer


async def _find(
    request: Request, target: Target, category: str
) -> non_patient_instances.NonPatientInstance:
    return await non_patient_instances.retrieve_non_patient_instance(
        target.store,
        target.access,
        DOOR,
        archive_id=target.archive_id,
        category=category,
        sop_instance_uid=request.path_params["uid"],
    )


def _returned(header: Dataset, query: Query, category: str) -> Dataset:
    if query.include_all:
        return dict(header)
    asked = {*(match.tag for match in query.matches), *query.includefield}
    wanted = CATEGORIES[category].returned | {tag.partition(".")[0] for tag in asked}
    return {tag: element for tag, element in header.items() if tag in wanted}


def _of(category: str, handle: Callable[[Request, str], Awaitable[Response]]) -> Handler:
    async def handler(request: Request) -> Response:
        return await handle(request, category)

    handler.__name__, handler.__doc__ = handle.__name__, handle.__doc__
    return handler


RESOURCES: tuple[tuple[str, str, Handler], ...] = tuple(
    (method, f"/{category}{path}", _of(category, handle))
    for category in CATEGORIES
    for method, path, handle in (
        ("GET", "", search_instances),
        ("POST", "", store_instances),
        ("GET", "/{uid}", retrieve_instance),
        ("POST", "/{uid}", store_instances),
        ("GET", "/{uid}/bulkdata/{path:path}", retrieve_bulk_data),
    )
)
