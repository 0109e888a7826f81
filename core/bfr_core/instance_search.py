"""Instance search: matching keys to headers of the series that may hold what is searched.

Only a series has rows in the index; what tells one instance from another stands in its header.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from bfr_core import audit, dataset_matching
from bfr_core.access import Access
from bfr_core.dataset_matching import are_empty, header_keys
from bfr_core.errors import Invalid
from bfr_core.instances import Dataset
from bfr_core.manifest import in_order
from bfr_core.matching import LITERAL, Conditions, Match, Semantics, checked_uid, parse_integer
from bfr_core.narrowing import narrow
from bfr_core.retrieval import FoundInstance, read_series
from bfr_core.search_positions import (
    Position,
    add_after,
    digest_of,
    find_position,
    keep_position,
)
from bfr_core.search_results import instance_dataset, series_dataset, study_dataset
from bfr_core.study_search import (
    ALL_KEYS,
    SERIES,
    chosen,
    conditions_of,
    name_of,
    recorded_rows,
)

if TYPE_CHECKING:
    from bfr_core.store import Store

SOP_CLASS_UID, SOP_INSTANCE_UID, INSTANCE_NUMBER = "00080016", "00080018", "00200013"
INSTANCE_KEYS = frozenset({SOP_CLASS_UID, SOP_INSTANCE_UID, INSTANCE_NUMBER})
# What leads to few enough headers for them to be looked through.
NAMING = frozenset({"0020000D", "0020000E", SOP_INSTANCE_UID})
SERIES_PAGE = 200


async def search_instances(
    store: "Store",
    access: Access,
    door: str,
    *,
    archive_id: int | None,
    matches: Sequence[Match],
    limit: int,
    offset: int,
    includefield: Sequence[str],
    with_study: bool = False,
    with_series: bool = False,
    semantics: Semantics = LITERAL,
    paged: bool = False,
) -> list[Dataset]:
    """Return the matching instances as DICOM JSON (PS3.18 table 10.6.3-5), `paged` as for studies.

    `includefield` names further attributes by tag, of the instance, its series or its study;
    `with_study` and `with_series` add all of theirs. A BulkDataURI is "bulkdata/<path>".
    Raises Invalid as for studies.
    """
    own = [match for match in matches if match.tag in INSTANCE_KEYS]
    parents = [match for match in matches if match.tag in ALL_KEYS]
    others = [
        match for match in matches if match.tag not in ALL_KEYS and match.tag not in INSTANCE_KEYS
    ]
    if others and not any(match.tag in NAMING and any(match.values) for match in matches):
        raise Invalid(
            f"{name_of(others[0].tag)} is a search key of instances only where study, series or"
            " instance is named"
        )
    keys, empty = header_keys(others, semantics)
    tests = [(match.tag, _wanted(match)) for match in own]
    conditions = conditions_of(access, archive_id, parents, ALL_KEYS, semantics)
    for tag, wanted in tests:
        if tag == SOP_INSTANCE_UID and wanted:
            # Without this a search for one instance would look through every series.
            conditions.add_instances([str(uid) for uid in wanted])
    await narrow(store.database, conditions, parents)
    search = digest_of(access, "instance", archive_id, matches, semantics) if paged else None
    begin = None
    if search is not None and offset:
        begin = await find_position(store.database, search, offset)
    if begin is not None:
        add_after(conditions, begin)
    record = audit.search_params(access, door, archive_id, [match.tag for match in matches])
    result: list[Dataset] = []
    last: Position | None = None
    skipped = 0
    async for series, found in _candidates(store, conditions, record):
        if begin is not None and not _is_behind(begin, series, found):
            continue
        dataset = orjson.loads(found.header)
        if not (
            all(_matches(dataset, tag, wanted) for tag, wanted in tests)
            and dataset_matching.matches(dataset, keys)
            and are_empty(dataset, empty)
        ):
            continue
        if begin is None and skipped < offset:
            skipped += 1
            continue
        above = {
            **chosen(study_dataset(series), includefield, everything=with_study),
            **chosen(series_dataset(series), includefield, everything=with_series),
        }
        result.append({**above, **instance_dataset(found, dataset, includefield)})
        if len(result) == limit:
            break  # one more than the page: there is a next
        last = _position(series, found)
    page = min(len(result), limit - 1)
    if search is not None and last is not None and (offset or page == limit - 1):
        await keep_position(store.database, search, offset + page, last)
    return result


async def _candidates(
    store: "Store", conditions: Conditions, record: Mapping[str, object]
) -> AsyncIterator[tuple[dict[str, Any], FoundInstance]]:
    """Yield the instances of the series that match, in order, each with its series' row."""
    page = await recorded_rows(store, SERIES, conditions, SERIES_PAGE, 0, record)
    offset = 0
    sql = SERIES.format(where=conditions.where())
    while page:
        for series in page:
            for found in await read_series(
                store,
                series["archive_id"],
                series["study_instance_uid"],
                series["series_instance_uid"],
            ):
                yield series, found
        if len(page) < SERIES_PAGE:
            return
        offset += SERIES_PAGE
        async with store.database.statement() as tx:
            page = await tx.rows(sql, **conditions.params, limit=SERIES_PAGE, offset=offset)


def _position(series: Mapping[str, Any], found: FoundInstance) -> Position:
    number, uid = in_order(found.stored)
    return Position(
        series["study_date"],
        series["study_id"],
        series["series_number"],
        series["series_id"],
        min(number, 2**31 - 1),
        uid,
    )


def _is_behind(begin: Position, series: Mapping[str, Any], found: FoundInstance) -> bool:
    """Tell whether the instance comes behind the position, in whose series it may lie."""
    here = _position(series, found)
    return begin.series_id != here.series_id or (
        (here.instance_number or 0, here.sop_instance_uid or "")
        > (begin.instance_number or 0, begin.sop_instance_uid or "")
    )


def _wanted(match: Match) -> frozenset[str | int]:
    """Return the values of which an instance must have one; none when it may have any."""
    values = [value for text in match.values if (value := text.strip())]
    if match.tag == INSTANCE_NUMBER:
        return frozenset(parse_integer(match.tag, value) for value in values)
    return frozenset(checked_uid(match.tag, value) for value in values)


def _matches(dataset: Dataset, tag: str, wanted: frozenset[str | int]) -> bool:
    return not wanted or not wanted.isdisjoint(dataset.get(tag, {}).get("Value", []))
