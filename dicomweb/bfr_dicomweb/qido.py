"""QIDO-RS: the Search transaction (PS3.18 §10.6, parameters §8.3.4)."""

from dataclasses import dataclass

import orjson
from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword
from starlette.requests import Request
from starlette.responses import Response

from bfr_core import study_search
from bfr_core.errors import Invalid
from bfr_core.instances import Dataset
from bfr_core.matching import Match
from bfr_dicomweb.media_types import DICOM_JSON, Offer, choose, parse_accept
from bfr_dicomweb.resources import Target, json_answer, target_of

DOOR = "QIDO-RS"
JSON_OFFERS = (Offer(DICOM_JSON), Offer("application/json"))
HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters of a search."""

    matches: list[Match]
    includefield: list[str]  # tags
    limit: int
    offset: int
    limited_by_server: bool
    warnings: list[str]


async def search_studies(request: Request) -> Response:
    """Answer a search for studies (§10.6.1.1)."""
    target = await target_of(request)
    query = read_query(request, target)
    found = await study_search.search_studies(
        target.store,
        target.access,
        DOOR,
        archive_id=target.archive_id,
        matches=query.matches,
        limit=query.limit + 1,
        offset=query.offset,
    )
    for study in found:
        study["00081190"] = _url(request, f"{target.root}/studies/{_uid(study, '0020000D')}")
    return await _answer(request, query, found)


async def search_series(request: Request) -> Response:
    """Answer a search for series, of one study or of all (§10.6.1.2)."""
    target = await target_of(request)
    query = read_query(request, target)
    found = await study_search.search_series(
        target.store,
        target.access,
        DOOR,
        archive_id=target.archive_id,
        matches=query.matches,
        limit=query.limit + 1,
        offset=query.offset,
        with_study="study" not in request.path_params,
    )
    for series in found:
        path = f"{target.root}/studies/{_uid(series, '0020000D')}/series/{_uid(series, '0020000E')}"
        series["00081190"] = _url(request, path)
    return await _answer(request, query, found)


async def search_instances(request: Request) -> Response:
    """Answer a search for instances, of a series, of a study or of all (§10.6.1.3)."""
    target = await target_of(request)
    query = read_query(request, target)
    found = await study_search.search_instances(
        target.store,
        target.access,
        DOOR,
        archive_id=target.archive_id,
        matches=query.matches,
        limit=query.limit + 1,
        offset=query.offset,
        includefield=query.includefield,
    )
    for instance in found:
        path = (
            f"{target.root}/studies/{_uid(instance, '0020000D')}"
            f"/series/{_uid(instance, '0020000E')}/instances/{_uid(instance, '00080018')}"
        )
        instance["00081190"] = _url(request, path)
    return await _answer(request, query, found)


def read_query(request: Request, target: Target) -> Query:
    """Return the search that the query string and the path ask for.

    Raises Invalid naming the parameter that is unknown or has a bad value.
    """
    maximum = target.store.settings.search_results_max
    matches = []
    includefield: list[str] = []
    limit: int | None = None
    offset = 0
    warnings = []
    for name, value in request.query_params.multi_items():
        if name == "limit":
            limit = _whole(name, value)
        elif name == "offset":
            offset = _whole(name, value)
        elif name == "fuzzymatching":
            if value not in ("true", "false"):
                raise Invalid(f"fuzzymatching is true or false, not {value!r}")
            if value == "true":
                warnings.append(
                    "The fuzzymatching parameter is not supported. Only literal matching has"
                    " been performed."
                )
        elif name == "includefield":
            includefield += [_tag(part) for part in value.split(",") if part and part != "all"]
        elif name != "accept":
            tag = _tag(name)
            matches.append(Match(tag, _values(tag, value)))
    for parameter, tag in (("study", "0020000D"), ("series", "0020000E")):
        if parameter in request.path_params:
            matches.append(Match(tag, (request.path_params[parameter],)))
    by_server = limit is None or limit > maximum
    return Query(
        matches=matches,
        includefield=includefield,
        limit=maximum if limit is None else min(limit, maximum),
        offset=offset,
        limited_by_server=by_server,
        warnings=warnings,
    )


async def _answer(request: Request, query: Query, found: list[Dataset]) -> Response:
    choose(parse_accept(request.headers.get("accept", "*/*")), JSON_OFFERS)
    warnings = list(query.warnings)
    if len(found) > query.limit:
        found = found[: query.limit]
        if query.limited_by_server:
            warnings.append("There are additional results that can be requested.")
    if found:
        response = await json_answer(request, orjson.dumps(found), DICOM_JSON)
    else:
        response = Response(status_code=204)
    for warning in warnings:
        response.headers.append("Warning", f'299 BFR "{warning}"')
    return response


def _tag(name: str) -> str:
    if len(name) == 8 and HEXADECIMAL.issuperset(name):
        return name.upper()
    if name in keyword_dict:
        return f"{tag_for_keyword(name):08X}"
    raise Invalid(f"{name!r} is no attribute: give a keyword or eight hexadecimal digits")


def _values(tag: str, value: str) -> tuple[str, ...]:
    try:
        is_uid = dictionary_VR(tag) == "UI"
    except KeyError:
        is_uid = False
    if is_uid:
        return tuple(value.replace("\\", ",").split(","))
    return (value,)


def _whole(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise Invalid(f"{name} is a whole number, not {value!r}")
    return int(value)


def _uid(dataset: Dataset, tag: str) -> str:
    return str(dataset[tag]["Value"][0])


def _url(request: Request, path: str) -> dict[str, object]:
    base = str(request.base_url).rstrip("/")
    return {"vr": "UR", "Value": [base + path]}
