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
from bfr_dicomweb.datasets import warn
from bfr_dicomweb.resources import (
    Target,
    choose_json,
    json_answer,
    target_of,
    with_bulk_data_uris,
)

DOOR = "QIDO-RS"
HEXADECIMAL = frozenset("0123456789abcdefABCDEF")
# Extensions of the search that are optional to us: what is said when one is asked for.
UNSUPPORTED = {
    "fuzzymatching": "Only literal matching has been performed.",
    "emptyvaluematching": "Empty values have matched everything.",
    "multiplevaluematching": "Only single values have been matched.",
}


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters of a search."""

    matches: list[Match]
    includefield: list[str]  # tags
    include_all: bool
    limit: int
    offset: int
    limited_by_server: bool
    warnings: list[str]


async def search_studies(request: Request) -> Response:
    """Answer a search for studies (§10.6.1.1)."""
    target = await target_of(request)
    media_type = choose_json(request)
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
    return await _answer(request, media_type, query, [_json(study) for study in found])


async def search_series(request: Request) -> Response:
    """Answer a search for series, of one study or of all (§10.6.1.2)."""
    target = await target_of(request)
    media_type = choose_json(request)
    query = read_query(request, target)
    found = await study_search.search_series(
        target.store,
        target.access,
        DOOR,
        archive_id=target.archive_id,
        matches=query.matches,
        limit=query.limit + 1,
        offset=query.offset,
        with_study=query.include_all or "study" not in request.path_params,
        includefield=query.includefield,
    )
    for series in found:
        path = f"{target.root}/studies/{_uid(series, '0020000D')}/series/{_uid(series, '0020000E')}"
        series["00081190"] = _url(request, path)
    return await _answer(request, media_type, query, [_json(series) for series in found])


async def search_instances(request: Request) -> Response:
    """Answer a search for instances, of a series, of a study or of all (§10.6.1.3)."""
    target = await target_of(request)
    media_type = choose_json(request)
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
        with_study=query.include_all or "study" not in request.path_params,
        with_series=query.include_all or "series" not in request.path_params,
    )
    bodies = []
    for instance in found:
        path = (
            f"{target.root}/studies/{_uid(instance, '0020000D')}"
            f"/series/{_uid(instance, '0020000E')}/instances/{_uid(instance, '00080018')}"
        )
        instance["00081190"] = _url(request, path)
        bodies.append(with_bulk_data_uris(_json(instance), path))
    return await _answer(request, media_type, query, bodies)


def read_query(request: Request, target: Target) -> Query:
    """Return the search that the query string and the path ask for.

    Raises Invalid naming the parameter that is unknown or has a bad value.
    """
    maximum = target.store.settings.search_results_max
    matches = []
    includefield: list[str] = []
    include_all = False
    limit: int | None = None
    offset = 0
    warnings = []
    for name, value in request.query_params.multi_items():
        if name == "limit":
            limit = _whole(name, value)
        elif name == "offset":
            offset = _whole(name, value)
        elif name in UNSUPPORTED:
            if value not in ("true", "false"):
                raise Invalid(f"{name} is true or false, not {value!r}")
            if value == "true":
                warnings.append(f"The {name} parameter is not supported. {UNSUPPORTED[name]}")
        elif name == "includefield":
            include_all = include_all or "all" in value.split(",")
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
        include_all=include_all,
        limit=maximum if limit is None else min(limit, maximum),
        offset=offset,
        limited_by_server=by_server,
        warnings=warnings,
    )


def read_filter(text: str) -> list[Match]:
    """Return the keys of a `filter` parameter: attribute=value, by commas (PS3.18 §11.10.1.2).

    Raises Invalid naming the attribute that is unknown.
    """
    matches = []
    for pair in text.split(","):
        name, equals, value = pair.partition("=")
        if not equals:
            raise Invalid(f"{pair[:64]!r} in filter is no attribute=value")
        tag = _tag(name.strip())
        matches.append(Match(tag, _values(tag, value)))
    return matches


async def _answer(request: Request, media_type: str, query: Query, found: list[bytes]) -> Response:
    warnings = list(query.warnings)
    if len(found) > query.limit:
        found = found[: query.limit]
        if query.limited_by_server:
            warnings.append("There are additional results that can be requested.")
    if found:
        response = await json_answer(request, b"[" + b",".join(found) + b"]", media_type)
    else:
        response = Response(status_code=204)
    for warning in warnings:
        warn(response, warning)
    return response


def _tag(name: str) -> str:
    """Return the tag of an attribute, or the tags on the way to one in a sequence, by "."."""
    return ".".join(_step(step, name) for step in name.split("."))


def _step(step: str, name: str) -> str:
    if len(step) == 8 and HEXADECIMAL.issuperset(step):
        return step.upper()
    if step and step in keyword_dict:
        return f"{tag_for_keyword(step):08X}"
    raise Invalid(f"{name!r} is no attribute: give a keyword or eight hexadecimal digits")


def _values(tag: str, value: str) -> tuple[str, ...]:
    try:
        is_uid = dictionary_VR(int(tag.rpartition(".")[2], 16)) == "UI"
    except KeyError:
        is_uid = False
    if is_uid:
        return tuple(value.replace("\\", ",").split(","))
    return (value,)


def _whole(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise Invalid(f"{name} is a whole number, not {value!r}")
    return int(value)


def _json(dataset: Dataset) -> bytes:
    return orjson.dumps(dict(sorted(dataset.items())))


def _uid(dataset: Dataset, tag: str) -> str:
    return str(dataset[tag]["Value"][0])


def _url(request: Request, path: str) -> dict[str, object]:
    base = str(request.base_url).rstrip("/")
    return {"vr": "UR", "Value": [base + path]}
