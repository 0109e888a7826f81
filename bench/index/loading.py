"""Loading: the rows of the synthetic index by COPY, then its indexes, as a restore would do it."""

import io
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from bench.index.people import person
from bench.index.studies import ARCHIVE_SHARES, PHYSICIANS, Population, SyntheticStudy
from bfr_core.names import normalise

TABLES = ("patient", "study", "series")
CHUNK = 20_000  # studies that one process copies in one go
RECEIVING = 200  # of the newest studies, whose series are not sealed yet
RECENT_SHARE = 0.02  # of the studies: so many still have their events and audit records
INSTANCES_ARRIVED = 20  # of a series that is receiving, at most
PERFORMED_TOLD = ("CT", "MR", "PT")  # modalities that send Performed Procedure Step Start Date

ADD_CONNECTION = """
    WITH one AS (
        INSERT INTO connection (name, environment) VALUES (%(name)s, 'test')
        RETURNING connection_id)
    INSERT INTO archive (connection_id, ae_title, name)
    SELECT connection_id, %(ae_title)s, %(name)s FROM one
"""
CONSTRAINTS = """
    SELECT conrelid::regclass::text, conname, contype::text, pg_get_constraintdef(oid)
    FROM pg_constraint
    WHERE contype IN ('p', 'u', 'f')
        AND (conrelid = ANY(%(tables)s::regclass[]) OR confrelid = ANY(%(tables)s::regclass[]))
    ORDER BY array_position(ARRAY['f', 'u', 'p'], contype::text)
"""
INDEXES = """
    SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
    WHERE indrelid = ANY(%(tables)s::regclass[])
        AND indexrelid NOT IN (SELECT conindid FROM pg_constraint)
    ORDER BY 1
"""
COUNT_CONTENTS = """
    WITH counted AS (
        UPDATE series SET counted_instances = number_of_instances, counted_bytes = size_bytes
        WHERE state = 'receiving'
    )
    INSERT INTO archive_content
    SELECT archive.archive_id, coalesce(people.number, 0), count(study_id),
        coalesce(sum(number_of_series), 0), coalesce(sum(number_of_instances), 0),
        coalesce(sum(size_bytes), 0)
    FROM archive LEFT JOIN study USING (archive_id)
    LEFT JOIN (SELECT archive_id, count(*) AS number FROM patient GROUP BY archive_id) AS people
        USING (archive_id)
    GROUP BY archive.archive_id, people.number
"""
COLUMNS = {
    "patient": "patient_id, archive_id, patient_identifier, issuer, name, name_normalised,"
    " birth_date, sex, updated_at",
    "study": "study_id, archive_id, patient_id, study_instance_uid, study_date, study_time,"
    " timezone_offset, accession_number, study_identifier, description, referring_physician,"
    " referring_physician_normalised, institution, modalities, body_parts, number_of_series,"
    " number_of_instances, size_bytes, received_at",
    "series": "series_id, study_id, archive_id, series_instance_uid, modality, series_number,"
    " description, body_part, performed_date, performed_time, number_of_instances, size_bytes,"
    " state, last_received_at, revision, manifest_key, manifest_index_bytes, manifest_bytes,"
    " representative_sop_instance_uid, locator_key, locator_keys",
    "instance": "series_id, archive_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid,"
    " instance_number, pack_key, offset_bytes, length_bytes, dataset_offset, digest, header",
    "event": "occurred_at, kind, archive_id, study_instance_uid, series_instance_uid",
    "audit_record": "recorded_at, action, outcome, caller_kind, caller, door, archive_id,"
    " patient_id, study_instance_uid",
}
NULL = r"\N"


@dataclass(slots=True)
class Built:
    """How long each step of the building took."""

    seconds: dict[str, float] = field(default_factory=dict)


def load(owner_url: str, population: Population, processes: int) -> Built:
    """Fill an empty, migrated database and return how long it took."""
    built = Built()
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("SET maintenance_work_mem = '1GB'")
        for number, share in enumerate(ARCHIVE_SHARES, 1):
            about = {"ae_title": f"UNIT{number}", "name": f"Unit {number}, {share} %"}
            connection.execute(ADD_CONNECTION, about)
        restore = _drop_indexes(connection)
        began = time.perf_counter()
        starts = range(0, population.studies, CHUNK)
        if processes == 1:
            for start in starts:
                _copy_chunk(owner_url, population, start)
        else:
            with ProcessPoolExecutor(processes) as pool:
                jobs = [pool.submit(_copy_chunk, owner_url, population, start) for start in starts]
                for job in jobs:
                    job.result()
        built.seconds["copy"] = time.perf_counter() - began
        for statement in restore:
            began = time.perf_counter()
            connection.execute(statement)
            built.seconds[statement.as_string()[:90]] = time.perf_counter() - began
        connection.execute(COUNT_CONTENTS)
        for table in TABLES:
            connection.execute(
                sql.SQL(
                    "SELECT setval(pg_get_serial_sequence({}, {}), 1 + max({})) FROM {}"
                ).format(table, f"{table}_id", sql.Identifier(f"{table}_id"), sql.Identifier(table))
            )
        began = time.perf_counter()
        connection.execute("VACUUM ANALYZE")
        connection.execute("ANALYZE")
        built.seconds["vacuum analyze"] = time.perf_counter() - began
    return built


def _drop_indexes(connection: psycopg.Connection[tuple[Any, ...]]) -> list[sql.Composed]:
    """Drop what slows a COPY down; return the statements that bring it back."""
    about = {"tables": list(TABLES)}
    restore: list[sql.Composed] = []
    constraints = connection.execute(CONSTRAINTS, about).fetchall()
    indexes = connection.execute(INDEXES, about).fetchall()
    for table, name, _, definition in constraints:
        alter = sql.SQL("ALTER TABLE {} ").format(sql.SQL(table))
        connection.execute(alter + sql.SQL("DROP CONSTRAINT {}").format(sql.Identifier(name)))
        add = sql.SQL("ADD CONSTRAINT {} {}").format(sql.Identifier(name), sql.SQL(definition))
        restore.insert(0, alter + add)
    keys = [statement for statement in restore if "FOREIGN KEY" not in statement.as_string()]
    foreign = [statement for statement in restore if statement not in keys]
    made = []
    for name, definition in indexes:
        connection.execute(sql.SQL("DROP INDEX {}").format(sql.SQL(name)))
        made.append(sql.Composed([sql.SQL(definition)]))
    for table in TABLES:
        connection.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(sql.SQL(table)))
        enable = sql.SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(sql.SQL(table))
        foreign.append(enable)
    return [*keys, *made, *foreign]


def _copy_chunk(owner_url: str, population: Population, start: int) -> None:
    studies = [
        SyntheticStudy(population, number)
        for number in range(start, min(start + CHUNK, population.studies))
    ]
    people = population.people
    # People are copied beside the studies with the same share of all numbers.
    first = people * start // population.studies
    end = people * min(start + CHUNK, population.studies) // population.studies
    rows: dict[str, Iterator[list[object]]] = {
        "patient": _patients(population, range(first, end)),
        "study": (_study(study) for study in studies),
        "series": (row for study in studies for row in _series(population, study)),
        "instance": (row for study in studies for row in _instances(population, study)),
        "event": (row for study in studies for row in _events(population, study)),
        "audit_record": (row for study in studies for row in _audit(population, study)),
    }
    with psycopg.connect(owner_url) as connection, connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")
        for table, listed in rows.items():
            _copy(cursor, table, listed)


def _copy(
    cursor: psycopg.Cursor[tuple[Any, ...]], table: str, rows: Iterable[list[object]]
) -> None:
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table), sql.SQL(COLUMNS[table])
    )
    with cursor.copy(statement) as copy:
        buffer = io.StringIO()
        for row in rows:
            buffer.write("\t".join(map(str, row)) + "\n")
            if buffer.tell() > 1 << 20:
                copy.write(buffer.getvalue())
                buffer = io.StringIO()
        copy.write(buffer.getvalue())


def _patients(population: Population, numbers: range) -> Iterator[list[object]]:
    """Give the patient rows: one in each archive that a person has studies in."""
    for number in numbers:
        one = person(population.seed, number)
        for position, archive_id in enumerate(population.archives_of(number)):
            yield [
                1 + number * 2 + position,
                archive_id,
                one.identifier,
                "",
                one.name,
                normalise(one.name),
                one.birth_date,
                one.sex,
                "2025-12-31",
            ]


def _study(study: SyntheticStudy) -> list[object]:
    counts = [series.instances for series in study.series()]
    physician = person(study.seed + 1, study.physician % PHYSICIANS).name
    return [
        study.study_id,
        study.archive_id,
        study.patient_id,
        study.uid,
        study.arrived.date(),
        f"{study.arrived:%H:%M:%S}",
        "",
        study.accession_number,
        study.study_id,
        study.description,
        physician,
        normalise(physician),
        f"Sjukhuset i ort {study.archive_id}",
        f"{{{study.modality}}}",
        f"{{{study.body_part}}}",
        len(counts),
        sum(counts),
        sum(counts) * study.instance_bytes,
        study.arrived,
    ]


def _series(population: Population, study: SyntheticStudy) -> Iterator[list[object]]:
    receiving = _is_receiving(population, study)
    for series in study.series():
        keys = [] if receiving else series.locator_keys()
        manifest = (
            [NULL] * 3
            if receiving
            else [series.manifest_key, 400 + 40 * series.instances, 900 + 110 * series.instances]
        )
        yield [
            series.series_id,
            study.study_id,
            study.archive_id,
            series.uid,
            study.modality,
            series.position + 1,
            f"{study.body_part} {series.position + 1}",
            study.body_part,
            *(
                [study.arrived.date(), f"{study.arrived:%H:%M:%S}"]
                if study.modality in PERFORMED_TOLD
                else [NULL] * 2
            ),
            series.instances,
            series.instances * study.instance_bytes,
            "receiving" if receiving else "sealed",
            study.arrived,
            1 + series.instances // 20,
            *manifest,
            series.sop_instance_uid(series.instances // 2),
            keys[0] if len(keys) == 1 else NULL,
            "{" + ",".join(map(str, keys)) + "}" if len(keys) > 1 else NULL,
        ]


def _instances(population: Population, study: SyntheticStudy) -> Iterator[list[object]]:
    if not _is_receiving(population, study):
        return
    for series in study.series():
        for number in range(min(series.instances, INSTANCES_ARRIVED)):
            yield [
                series.series_id,
                study.archive_id,
                series.sop_instance_uid(number),
                "1.2.840.10008.5.1.4.1.1.2",
                "1.2.840.10008.1.2.1",
                number + 1,
                f"{series.manifest_key}.pack",
                number * study.instance_bytes,
                study.instance_bytes,
                1000,
                r"\\x00",
                r"\\x" + "28b52ffd" + "00" * 700,
            ]


def _events(population: Population, study: SyntheticStudy) -> Iterator[list[object]]:
    if not _is_recent(population, study):
        return
    yield [study.arrived, "study_created", study.archive_id, study.uid, NULL]
    for series in study.series():
        for kind in ("series_created", "series_sealed"):
            yield [study.arrived, kind, study.archive_id, study.uid, series.uid]


def _audit(population: Population, study: SyntheticStudy) -> Iterator[list[object]]:
    if not _is_recent(population, study):
        return
    about = [study.archive_id, study.patient_id, study.uid]
    yield [study.arrived, "store", "success", "node", "MODALITY", "C-STORE", *about]
    yield [study.arrived, "read", "success", "node", "READER", "WADO-RS", *about]


def _is_receiving(population: Population, study: SyntheticStudy) -> bool:
    return study.study_id > population.studies - RECEIVING


def _is_recent(population: Population, study: SyntheticStudy) -> bool:
    return study.study_id > population.studies * (1 - RECENT_SHARE)
