"""Locators compared: what an instance costs, a look-up, and the sealing of a series (ADR 9)."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

import psycopg

from bench.index.studies import Population, SyntheticSeries, SyntheticStudy
from bfr_core.locator import key_of, search_keys

STUDIES = 1_000
SEALED_LATER = 100
LOOK_UPS = 300

Connection = psycopg.Connection[tuple[object, ...]]
Rows = Callable[[SyntheticSeries], list[tuple[object, ...]]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to lead from a UID to its series."""

    name: str
    create: str
    size: str
    insert: str
    rows: Rows
    find: str
    keys: Callable[[str], Sequence[int]]


def _uids(series: SyntheticSeries) -> list[str]:
    return [series.sop_instance_uid(number) for number in range(series.instances)]


def _row_each(series: SyntheticSeries) -> list[tuple[object, ...]]:
    return [(key_of(uid), series.series_id) for uid in _uids(series)]


def _array(series: SyntheticSeries) -> list[tuple[object, ...]]:
    return [(series.series_id, [key_of(uid) for uid in _uids(series)])]


def _prefixes(series: SyntheticSeries) -> list[tuple[object, ...]]:
    keys = series.locator_keys()
    alone = len(keys) == 1
    return [(series.series_id, keys[0] if alone else None, None if alone else keys)]


KINDS = (
    Kind(
        "a row for each instance, B-tree",
        "CREATE TABLE tried (key bigint, series_id bigint, PRIMARY KEY (key, series_id))",
        "SELECT pg_total_relation_size('tried')",
        "INSERT INTO tried VALUES (%s, %s)",
        _row_each,
        "SELECT series_id FROM tried WHERE key = ANY(%s)",
        lambda uid: [key_of(uid)],
    ),
    Kind(
        "an array of hashes for each series, GIN",
        "CREATE TABLE tried (series_id bigint, keys bigint[]);"
        "CREATE INDEX ON tried USING gin (keys) WITH (fastupdate = off)",
        "SELECT pg_indexes_size('tried') + (SELECT sum(pg_column_size(keys)) FROM tried)",
        "INSERT INTO tried VALUES (%s, %s)",
        _array,
        "SELECT series_id FROM tried WHERE keys && %s::bigint[]",
        lambda uid: [key_of(uid)],
    ),
    Kind(
        "keys of common beginnings",
        "CREATE TABLE tried (series_id bigint, key bigint, keys bigint[]);"
        "CREATE INDEX ON tried (key) WHERE key IS NOT NULL;"
        "CREATE INDEX ON tried USING gin (keys) WITH (fastupdate = off) WHERE keys IS NOT NULL",
        "SELECT pg_indexes_size('tried')"
        " + (SELECT sum(coalesce(pg_column_size(key), 0) + coalesce(pg_column_size(keys), 0))"
        "    FROM tried)",
        "INSERT INTO tried VALUES (%s, %s, %s)",
        _prefixes,
        "SELECT series_id FROM tried WHERE key = ANY(%s) OR keys && %s::bigint[]",
        lambda uid: search_keys([uid]),
    ),
)


def compare(owner_url: str, seed: int) -> list[dict[str, object]]:
    """Return what each kind costs, for the mix of UIDs and for UIDs by chance alone."""
    results: list[dict[str, object]] = []
    with psycopg.connect(owner_url) as connection:
        for styles in ("mixed", "chance"):
            for kind in KINDS:
                results.append(
                    {"uids": styles, "kind": kind.name, **_try(connection, kind, seed, styles)}
                )
                connection.execute("DROP TABLE tried")
                connection.commit()
    return results


def _try(connection: Connection, kind: Kind, seed: int, styles: str) -> dict[str, object]:
    for statement in kind.create.split(";"):
        connection.execute(statement.encode())
    connection.commit()
    population = Population(STUDIES, seed)
    listed = [one for number in range(STUDIES) for one in _series(population, number, styles)]
    first, later = listed[:-SEALED_LATER], listed[-SEALED_LATER:]
    with connection.cursor() as cursor:
        for start in range(0, len(first), 100):  # sealed little by little, not sorted before
            with cursor.copy("COPY tried FROM STDIN") as copy:
                for one in first[start : start + 100]:
                    for row in kind.rows(one):
                        copy.write_row(row)
        connection.commit()
        connection.execute("ANALYZE tried")
        connection.commit()
        seal_ms = []
        for one in later:
            rows = kind.rows(one)
            began = time.perf_counter()
            cursor.executemany(kind.insert.encode(), rows)
            connection.commit()
            seal_ms.append((time.perf_counter() - began) * 1000)
        chance = Random(seed)
        find_ms, candidates = [], []
        for one in chance.sample(listed, LOOK_UPS):
            uid = one.sop_instance_uid(chance.randrange(one.instances))
            began = time.perf_counter()
            keys = list(kind.keys(uid))
            found = cursor.execute(kind.find.encode(), [keys] * kind.find.count("%s")).fetchall()
            find_ms.append((time.perf_counter() - began) * 1000)
            if (one.series_id,) not in found:
                raise RuntimeError(f"{kind.name} does not find an instance")
            candidates.append(len(found))
    instances = sum(one.instances for one in listed)
    (size,) = connection.execute(kind.size.encode()).fetchone() or (0,)
    return {
        "instances": instances,
        "bytes_an_instance": round(float(str(size)) / instances, 2),
        "bytes_a_study": round(float(str(size)) / STUDIES),
        "look_up_ms": round(statistics.median(find_ms), 3),
        "candidates_mean": round(statistics.mean(candidates), 2),
        "sealing_a_series_ms": round(statistics.median(seal_ms), 3),
    }


def _series(population: Population, number: int, styles: str) -> Iterator[SyntheticSeries]:
    study = SyntheticStudy(population, number)
    if styles == "chance":
        study.uid_style = "chance"
    return study.series()
