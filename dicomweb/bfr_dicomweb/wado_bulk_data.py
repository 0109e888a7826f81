"""WADO-RS: bulk data, one value or all of them (PS3.18 §10.4.1.1.5)."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from bfr_core.bulk_data import read_bulk_data
from bfr_core.errors import NotFound
from bfr_core.instances import Dataset
from bfr_dicomweb.media_types import OCTET_STREAM, Offer, choose
from bfr_dicomweb.multipart import closing, content_type, new_boundary, part_header
from bfr_dicomweb.resources import accepted_by, etag_of, opened, single_part, target_of
from bfr_dicomweb.wado import DOOR as DOOR
from bfr_dicomweb.wado import IDENTITY, find, instance_path, multipart_answer

BULK_DATA = "bulkdata/"
SINGLE, MULTIPART = Offer(OCTET_STREAM, multipart=False), Offer(OCTET_STREAM, multipart=True)


async def retrieve_bulk_data(request: Request) -> Response:
    """Answer with one value that the metadata names by a URI."""
    target = await target_of(request)
    [one] = await find(request, target)
    chosen = choose(accepted_by(request), [SINGLE, MULTIPART])
    path = request.path_params["path"]
    value = await asyncio.to_thread(read_bulk_data, target.store, one.stored, path)
    if chosen.multipart:
        location = f"{instance_path(target, one)}/{BULK_DATA}{path}"
        headers = {"Content-Type": OCTET_STREAM, "Content-Location": location}
        return await multipart_answer(target.store, OCTET_STREAM, [(headers, [value])])
    etag = etag_of(one.stored.digest, of=path)
    headers = {**IDENTITY, "Content-Type": OCTET_STREAM}
    return await single_part(request, target.store, [value], headers, etag)


async def retrieve_all_bulk_data(request: Request) -> Response:
    """Answer with every value of a study, a series or one instance that has a URI."""
    target = await target_of(request)
    choose(accepted_by(request), [MULTIPART])
    values = [
        (one, path)
        for one in await find(request, target, headers=True)
        for path in bulk_data_paths(orjson.loads(one.header))
    ]
    if not values:
        raise NotFound("there is no bulk data beside the pixels")
    boundary = new_boundary()

    async def chunks() -> AsyncIterator[bytes]:
        for number, (one, path) in enumerate(values):
            value = await asyncio.to_thread(read_bulk_data, target.store, one.stored, path)
            location = f"{instance_path(target, one)}/{BULK_DATA}{path}"
            headers = {"Content-Type": OCTET_STREAM, "Content-Location": location}
            yield part_header(boundary, headers, first=number == 0) + value
        yield closing(boundary)

    kind = content_type(OCTET_STREAM, boundary)
    return StreamingResponse(await opened(chunks()), headers={**IDENTITY, "Content-Type": kind})


def bulk_data_paths(dataset: Dataset) -> Iterator[str]:
    """Yield where the values lie that the header names by a URI, in order."""
    for element in dataset.values():
        if "BulkDataURI" in element:
            yield str(element["BulkDataURI"]).removeprefix(BULK_DATA)
        elif element["vr"] == "SQ":
            for item in element.get("Value") or []:
                yield from bulk_data_paths(item)
