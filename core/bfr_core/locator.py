"""Locator: from a SOP Instance UID alone to the sealed series that may hold it.

The UIDs of a series mostly begin alike: one key, the hash of what they have in common, stands for
all of them. A UID is looked up by the keys of all its beginnings. What is found may hold the
instance and its manifest decides; what is not found does not hold it.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bfr_core.database import Transaction

PREFIX_MIN_CHARACTERS = 24  # what is shorter is a vendor's root and tells nothing
PREFIX_STEP_CHARACTERS = 2
SHARED_MAX = 2  # other studies that may have the same prefix
SPLITS_MAX = 2

FIND_SERIES = """
    SELECT series_id, archive_id, manifest_key, manifest_index_bytes FROM series
    WHERE (locator_key = ANY(%(keys)s::bigint[]) OR locator_keys && %(keys)s::bigint[])
        AND manifest_key IS NOT NULL
"""
# For a statement that searches series by instances, received or sealed. The array is made once
# and keeps the statement on an index.
SERIES_WITH_INSTANCES = """
    series.series_id = ANY(ARRAY(
        SELECT series_id FROM instance WHERE sop_instance_uid = ANY({uids}::text[])
        UNION ALL SELECT series_id FROM series
        WHERE locator_key = ANY({keys}::bigint[]) OR locator_keys && {keys}::bigint[]))
"""
SHARED_KEYS = f"""
    SELECT key FROM unnest(%(keys)s::bigint[]) AS key
    WHERE {SHARED_MAX} < (SELECT count(*) FROM (
        SELECT FROM series
        WHERE (locator_key = key OR locator_keys @> ARRAY[key])
            AND archive_id = %(archive_id)s AND study_id <> %(study_id)s
        LIMIT {SHARED_MAX + 1}) AS other)
"""


@dataclass(frozen=True, slots=True)
class SealedPlace:
    """A sealed series in which an instance may lie."""

    series_id: int
    archive_id: int
    manifest_key: str
    manifest_index_bytes: int


async def find_sealed(tx: Transaction, sop_instance_uids: Iterable[str]) -> list[SealedPlace]:
    """Return the sealed series, of any archive, that may hold one of the instances."""
    return await tx.all(SealedPlace, FIND_SERIES, keys=search_keys(sop_instance_uids))


def search_keys(sop_instance_uids: Iterable[str]) -> list[int]:
    """Return the keys under which a series with one of the instances can stand."""
    prefixes: set[str] = set()
    for uid in sop_instance_uids:
        ends = range(PREFIX_MIN_CHARACTERS, len(uid), PREFIX_STEP_CHARACTERS)
        prefixes.update(uid[:end] for end in ends)
        prefixes.add(uid)
    return [key_of(prefix) for prefix in prefixes]


async def series_keys(
    tx: Transaction, archive_id: int, study_id: int, sop_instance_uids: Sequence[str]
) -> list[int]:
    """Return the keys under which a series with these instances is to be found.

    A beginning that several other studies have as well is no good key: every look-up of theirs
    would lead here. Then longer ones are tried, and in the end each whole UID.
    """
    accepted: list[str] = []
    groups = [list(sop_instance_uids)]
    for _ in range(SPLITS_MAX + 1):
        by_prefix = {common_prefix(group): group for group in groups}
        keys = {key_of(prefix): prefix for prefix in by_prefix if _may_serve(prefix, by_prefix)}
        shared = {
            key
            for (key,) in await tx.tuples(
                SHARED_KEYS, keys=list(keys), archive_id=archive_id, study_id=study_id
            )
        }
        for key, prefix in keys.items():
            if key not in shared:
                accepted.append(prefix)
                del by_prefix[prefix]
        groups = [part for prefix, group in by_prefix.items() for part in _split(prefix, group)]
        if not groups:
            break
    accepted += [uid for group in groups for uid in group]
    return sorted(map(key_of, accepted))


def common_prefix(uids: Sequence[str]) -> str:
    """Return what the UIDs have in common, of a length that is looked up; all of a single one."""
    if len(uids) == 1:
        return uids[0]
    first, last = min(uids), max(uids)
    pairs = enumerate(zip(first, last, strict=False))
    length = next((at for at, (one, other) in pairs if one != other), len(first))
    return first[: length // PREFIX_STEP_CHARACTERS * PREFIX_STEP_CHARACTERS]


def key_of(prefix: str) -> int:
    """Return the 64-bit number under which the locator keeps a UID or the beginning of some."""
    digest = hashlib.blake2b(prefix.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _may_serve(prefix: str, groups: Mapping[str, Sequence[str]]) -> bool:
    return len(prefix) >= PREFIX_MIN_CHARACTERS or len(groups[prefix]) == 1


def _split(prefix: str, uids: Sequence[str]) -> Iterable[list[str]]:
    """Return the UIDs in groups that have more in common than the prefix."""
    end = max(len(prefix) + PREFIX_STEP_CHARACTERS, PREFIX_MIN_CHARACTERS)
    parts: dict[str, list[str]] = {}
    for uid in uids:
        parts.setdefault(uid[:end], []).append(uid)
    return parts.values()
