"""Narrowing: what the planner cannot know of a search is looked up before it.

Newest first with a limit is answered by a walk along the dates, which is right for what many
studies have and reads half the archive for what few have. How many match a name or a modality is
more than statistics tell.
"""

from collections.abc import Sequence

from bfr_core.database import Database, Transaction
from bfr_core.matching import Column, Conditions, Match, has_wildcard

MODALITIES_IN_STUDY, PATIENT_NAME = "00080061", "00100010"
NAME = Column("patient.name_normalised", "name")
MODALITIES = Column("rare.modalities", "list")

NAMED_MAX = 2000
# Planned as if all were wanted, and ended when there are too many: planned with its limit it would
# look through the whole table for what it takes for frequent.
NAMED = f"""
    WITH named AS MATERIALIZED (SELECT patient_id FROM patient WHERE {{where}})
    SELECT patient_id FROM named LIMIT {NAMED_MAX + 1}
"""
# The elements that ANALYZE found often enough to count; the others are rare. NULL: never analysed.
COMMON_MODALITIES = """
    SELECT most_common_elems::text::text[] FROM pg_stats
    WHERE schemaname = 'public' AND tablename = 'study' AND attname = 'modalities'
"""
OF_RARE = "study.study_id = ANY(ARRAY(SELECT study_id FROM study AS rare WHERE {where}))"


async def narrow(database: Database, conditions: Conditions, matches: Sequence[Match]) -> None:
    """Add to the conditions what leads to the few studies there are, where they are few."""
    narrowing = [match for match in matches if match.tag in NARROWED]
    if not narrowing:
        return
    async with database.statement() as tx:
        for match in narrowing:
            await NARROWED[match.tag](tx, conditions, match)


async def are_rare(tx: Transaction, modalities: Sequence[str]) -> bool:
    """Tell whether so few studies have one of the modalities that they are found by that alone."""
    common = await tx.value(COMMON_MODALITIES)
    return common is not None and set(modalities).isdisjoint(common)


async def _narrow_to_named(tx: Transaction, conditions: Conditions, match: Match) -> None:
    named = Conditions(conditions.semantics)
    named.add(NAME, match)
    if not named.params:
        return
    found = await tx.tuples(NAMED.format(where=named.where()), **named.params)
    if len(found) <= NAMED_MAX:
        ids = conditions.param([patient_id for (patient_id,) in found])
        conditions.parts.append(f"study.patient_id = ANY({ids}::bigint[])")


async def _narrow_to_modality(tx: Transaction, conditions: Conditions, match: Match) -> None:
    wanted = [value for text in match.values if (value := text.strip())]
    if not wanted or any(map(has_wildcard, wanted)) or not await are_rare(tx, wanted):
        return
    conditions.add(MODALITIES, match)
    conditions.parts.append(OF_RARE.format(where=conditions.parts.pop()))


NARROWED = {PATIENT_NAME: _narrow_to_named, MODALITIES_IN_STUDY: _narrow_to_modality}
