"""Continuing: the next object of a series that its sender is storing, registered at once.

Most objects are the next slice of a series under way: patient, study and series are known, the
audit record is written. One statement in the sender's own thread registers them at a fifth of
what the transaction of `registration` costs. Whatever is not plain is left to that one.
"""

import threading
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from bfr_core import metrics, tracing
from bfr_core.errors import Unavailable
from bfr_core.placing import Place
from bfr_core.receiving import Received
from bfr_core.registration import Outcome, counted, place_key, uid_hash

# The row of the series is changed first. Who waits for its lock looks at it again afterwards, so a
# series that was sealed meanwhile is left alone; another object under the UID fails the insert.
CONTINUE = """
    WITH counted AS (
        UPDATE series SET
            number_of_instances = number_of_instances + 1,
            size_bytes = size_bytes + %(length_bytes)s,
            representative_sop_instance_uid = coalesce(representative_sop_instance_uid,
                CASE WHEN %(frames)s::bytea IS NOT NULL THEN %(sop_instance_uid)s END),
            last_received_at = clock_timestamp(), revision = revision + 1
        WHERE series_id = %(series_id)s AND state = 'receiving'
            AND NOT EXISTS (
                SELECT FROM locator JOIN series AS other USING (series_id)
                WHERE locator.uid_hash = %(uid_hash)s AND other.archive_id = %(archive_id)s)
        RETURNING study_id
    ), counted_study AS (
        UPDATE study SET
            number_of_instances = number_of_instances + 1,
            size_bytes = size_bytes + %(length_bytes)s
        FROM counted WHERE study.study_id = counted.study_id
    )
    INSERT INTO instance (series_id, archive_id, sop_instance_uid, sop_class_uid,
        transfer_syntax_uid, instance_number, pack_key, offset_bytes, length_bytes,
        dataset_offset, digest, frames, header)
    SELECT %(series_id)s, %(archive_id)s, %(sop_instance_uid)s, %(sop_class_uid)s,
        %(transfer_syntax_uid)s, %(instance_number)s, %(pack_key)s, %(offset_bytes)s,
        %(length_bytes)s, %(dataset_offset)s, %(digest)s, %(frames)s, %(header)s
    FROM counted
"""

TIMEOUT_S = 30.0


class Continuing:
    """Registers objects from any thread, over connections of its own."""

    def __init__(
        self, url: str, connections: int, places: Mapping[tuple[int, str, str], Place]
    ) -> None:
        """Use the places that `registration` remembers; connects at the first object."""
        self._places = places
        self._pool: ConnectionPool[psycopg.Connection[Any]] = ConnectionPool(
            url,
            kwargs={"autocommit": True},
            min_size=0,
            max_size=connections,
            open=False,
            timeout=TIMEOUT_S,
        )
        self._pool_lock = threading.Lock()

    def commit(self, received: Received) -> Outcome | None:
        """Register an object whose bytes are synced, and return its outcome when it exists.

        None: nothing was done, and `Registration.commit` has to decide what becomes of it. Raises
        Unavailable when nobody knows whether the database has it: its sender has to ask again.
        """
        place = self._places.get(place_key(received))
        if (
            place is None
            or not place.is_of(received.attributes.patient)
            or received.series_instance_uid not in received.reception.audited_series
        ):
            return None
        began_s = perf_counter()
        try:
            with tracing.span("commit"), self._opened().connection() as connection:
                cursor = connection.execute(CONTINUE, _row(received, place), prepare=True)
                if cursor.rowcount != 1:
                    return None
        except psycopg.errors.IntegrityError:
            return None
        except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
            return None
        except (psycopg.OperationalError, PoolTimeout) as error:
            # After a restart of the server every kept connection is broken: one failure is enough.
            self._pool.check()
            raise Unavailable(f"the database is not available: {type(error).__name__}") from error
        metrics.COMMIT_OBJECTS.observe(1)
        metrics.COMMIT_DURATION.observe(perf_counter() - began_s)
        return counted([Outcome(received, "new", None)])[0]

    def close(self) -> None:
        """Close the connections."""
        with self._pool_lock:
            self._pool.close()

    def _opened(self) -> "ConnectionPool[psycopg.Connection[Any]]":
        if self._pool.closed:
            with self._pool_lock:
                self._pool.open()
        return self._pool


def _row(one: Received, place: Place) -> dict[str, object]:
    return {
        "series_id": place.series_id,
        "archive_id": one.reception.archive.archive_id,
        "sop_instance_uid": one.sop_instance_uid,
        "uid_hash": uid_hash(one.sop_instance_uid),
        "sop_class_uid": one.sop_class_uid,
        "transfer_syntax_uid": one.transfer_syntax_uid,
        "instance_number": one.attributes.instance_number,
        "pack_key": one.blob.key,
        "offset_bytes": one.blob.offset,
        "length_bytes": one.blob.length,
        "dataset_offset": one.dataset_offset,
        "digest": one.digest,
        "frames": None if one.frames is None else one.frames.to_json(),
        "header": one.header,
    }
