"""QIDO-RS: the Search transaction (PS3.18 §10.6, parameters §8.3.4)."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword
from starlette.requests import Request
from starlette.responses import Response

from bfr_core import instance_search, study_search
from bfr_core.errors import Invalid
from bfr_core.instances import Dataset
from bfr_core.matching import Match, Semantics
from bfr_core.return_attributes import OF_SERIES, OF_STUDY
from bfr_dicomweb.datasets import MANY_OFFERS, datasets_answer, warn
from bfr_dicomweb.media_types import Offer, choose
from bfr_dicomweb.resources import Target, accepted_by, target_of, with_bulk_data_uris

DOOR = "QIDO-RS"
LEVELS = ("studies", "series", "instances")
HEXADECIMAL = frozenset("0123456789abcdefABCDEF")
# How values are compared beside literally (§8.3.4.2 and, with them, PS3.4 §C.2.2.2.7 and .8).
MATCHING = ("fuzzymatching", "emptyvaluematching", "multiplevaluematching")
# In these a backslash is a character like any other (PS3.5 §6.2).
SINGLE_VALUED = frozenset({"ST", "LT", "UT", "UR"})

Search = Callable[..., Awaitable[list[Dataset]]]


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters of a search."""

    matches: list[Match]
    includefield: list[str]  # tags, with those of sequences on the way by "."
    include_all: bool
    semantics: Semantics
    limit: int
    offset: int
    limited_by_server: bool


async def search_studies(request: Request) -> Response:
    """Answer a search for studies (§10.6.1.1)."""
    return await _search(request, study_search.search_studies, OF_STUDY, ("0020000D",))


async def search_series(request: Request) -> Response:
    """Answer a search for series, of one study or of all (§10.6.1.2)."""
    return await _search(request, study_search.search_series, OF_SERIES, ("0020000D", "0020000E"))


async def search_instances(request: Request) -> Response:
    """Answer a search for instances, of a series, of a study or of all (§10.6.1.3)."""
    levels = ("0020000D", "0020000E", "00080018")
    return await _search(request, instance_search.search_instances, frozenset(), levels)


async def _search(
    request: Request, search: Search, from_header: frozenset[str], levels: Sequence[str]
) -> Response:
    """Answer a search whose matches have these UIDs.

    `from_header` are attributes that are read from objects: fewer matches make an answer then.
    """
    target = await target_of(request)
    offer = choose(accepted_by(request), MANY_OFFERS)
    query = read_query(request, target, from_header)
    options: dict[str, Any] = {}
    if len(levels) > 1:
        options["with_study"] = query.include_all or "study" not in request.path_params
    if len(levels) > 2:
        options["with_series"] = query.include_all or "series" not in request.path_params
    found = await search(
        target.store,
        target.access,
        DOOR,
        archive_id=target.archive_id,
        matches=query.matches,
        limit=query.limit + 1,
        offset=query.offset,
        includefield=query.includefield,
        semantics=query.semantics,
        paged=True,
        **options,
    )
    bodies = []
    for one in found:
        uids = [str(one[tag]["Value"][0]) for tag in levels]
        path = target.root + "".join(map("/{}/{}".format, LEVELS, uids))
        one["00081190"] = {"vr": "UR", "Value": [str(request.base_url).rstrip("/") + path]}
        bodies.append(with_bulk_data_uris(orjson.dumps(dict(sorted(one.items()))), path))
    return await answer_page(request, offer, query, bodies)


async def answer_page(
    request: Request, offer: Offer, query: Query, found: Sequence[bytes]
) -> Response:
    """Return the answer of a search that was asked for one match more than the page holds."""
    page = found[: query.limit]
    response = await datasets_answer(request, offer, page) if page else Response(status_code=204)
    if len(found) > query.limit and query.limited_by_server:
        warn(response, "There are additional results that can be requested.")
    return response


def warn_literal(response: Response, asked: Semantics) -> None:
    """Tell that a search that has no other matching has matched literally (§8.3.4.2)."""
    name = "fuzzymatching" if asked.fuzzy_names else "emptyvaluematching"
    text = "parameter is not supported. Only literal matching has been performed."
    warn(response, f"The {name} {text}")


def read_query(
    request: Request, target: Target, from_header: frozenset[str] = frozenset()
) -> Query:
    """Return the search that the query string and the path ask for.

    Raises Invalid naming the parameter that is unknown or has a bad value.
    """
    settings = target.store.settings
    parameters = request.query_params.multi_items()
    if len(parameters) > settings.search_parameters_max:
        raise Invalid(f"a search has at most {settings.search_parameters_max} parameters")
    sent: list[tuple[str, str]] = []
    includefield: list[str] = []
    include_all = False
    limit: int | None = None
    offset = 0
    matching = dict.fromkeys(MATCHING, False)
    for name, value in parameters:
        if name == "limit":
            limit = _whole(name, value)
        elif name == "offset":
            offset = _whole(name, value)
        elif name in matching:
            if value not in ("true", "false"):
                raise Invalid(f"{name} is true or false, not {value!r}")
            matching[name] = value == "true"
        elif name == "includefield":
            include_all = include_all or "all" in value.split(",")
            includefield += [_tag(part) for part in value.split(",") if part and part != "all"]
        elif name != "accept":
            sent.append((_tag(name), value))
    several = matching["multiplevaluematching"]
    matches = [Match(tag, _values(tag, value, several)) for tag, value in sent]
    for parameter, tag in (("study", "0020000D"), ("series", "0020000E")):
        if parameter in request.path_params:
            matches.append(Match(tag, (request.path_params[parameter],)))
    if include_all:
        includefield += sorted(from_header)
    maximum = settings.search_results_max
    if from_header.intersection(path[:8] for path in includefield):
        maximum = min(maximum, settings.search_headers_max)
    return Query(
        matches=matches,
        includefield=includefield,
        include_all=include_all,
        semantics=Semantics(
            fuzzy_names=matching["fuzzymatching"], empty_values=matching["emptyvaluematching"]
        ),
        limit=maximum if limit is None else min(limit, maximum),
        offset=offset,
        limited_by_server=limit is None or limit > maximum,
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
        matches.append(Match(tag, _values(tag, value, several=False)))
    return matches


def _tag(name: str) -> str:
    """Return the tag of an attribute, or the tags on the way to one in a sequence, by "."."""
    return ".".join(_step(step, name) for step in name.split("."))


def _step(step: str, name: str) -> str:
    if len(step) == 8 and HEXADECIMAL.issuperset(step):
        return step.upper()
    if step and step in keyword_dict:
        return f"{tag_for_keyword(step):08X}"
    raise Invalid(f"{name!r} is no attribute: give a keyword or eight hexadecimal digits")


def _values(tag: str, value: str, several: bool) -> tuple[str, ...]:
    """Return the values of which one is to match: of UIDs always, else where that is asked for."""
    try:
        vr = dictionary_VR(int(tag.rpartition(".")[2], 16))
    except KeyError:
        vr = ""
    if vr == "UI":
        return tuple(value.replace("\\", ",").split(","))
    return tuple(value.split("\\")) if several and vr not in SINGLE_VALUED else (value,)


def _whole(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise Invalid(f"{name} is a whole number, not {value!r}")
    return int(value)
