"""Search counts: how many results a search has, as far as that is counted (beyond the standard)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bfr_core import audit
from bfr_core.access import Access
from bfr_core.matching import LITERAL, Match, Semantics
from bfr_core.narrowing import narrow
from bfr_core.study_search import ALL_KEYS, STUDY_KEYS, conditions_of

if TYPE_CHECKING:
    from bfr_core.store import Store

Level = Literal["study", "series", "instance"]

# No order and no more rows than are counted: it ends as soon as the limit is passed.
STUDIES = """
    SELECT count(*) FROM (
        SELECT FROM study JOIN patient USING (patient_id) WHERE {where} LIMIT %(limit)s) AS found
"""
SERIES = """
    SELECT count(*) FROM (
        SELECT FROM study JOIN patient USING (patient_id) JOIN series USING (study_id)
        WHERE {where} LIMIT %(limit)s) AS found
"""
# As many series as reach the limit with one instance each.
INSTANCES = """
    SELECT coalesce(sum(number_of_instances), 0)::bigint FROM (
        SELECT series.number_of_instances
        FROM study JOIN patient USING (patient_id) JOIN series USING (study_id)
        WHERE {where} LIMIT %(limit)s) AS found
"""
COUNTS: Mapping[Level, str] = {"study": STUDIES, "series": SERIES, "instance": INSTANCES}


@dataclass(frozen=True, slots=True)
class Count:
    """How many results there are, or the limit when there are more."""

    count: int
    is_exact: bool


async def count_results(
    store: "Store",
    access: Access,
    door: str,
    level: Level,
    *,
    archive_id: int | None,
    matches: Sequence[Match],
    semantics: Semantics = LITERAL,
) -> Count:
    """Return how many studies, series or instances match.

    Instances are counted by the keys of their series and study. Raises Invalid naming an
    attribute that is no key of this level or a value that is none.
    """
    limit = store.settings.search_counted_max
    keys = STUDY_KEYS if level == "study" else ALL_KEYS
    conditions = conditions_of(access, archive_id, matches, keys, semantics)
    await narrow(store.database, conditions, matches)
    sql = COUNTS[level].format(where=conditions.where())
    async with store.database.transaction() as tx:
        found = int(await tx.value(sql, **conditions.params, limit=limit + 1))
        detail: dict[str, object] = {
            "keys": [match.tag for match in matches],
            "results": min(found, limit),
        }
        entry = audit.AuditRecord(action="search", door=door, archive_id=archive_id, detail=detail)
        await audit.record(tx, access, entry)
    return Count(min(found, limit), is_exact=found <= limit)
