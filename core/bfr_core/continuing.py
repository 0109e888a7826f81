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

from bfr_core import locator, metrics, tracing
from bfr_core.errors import Unavailable
from bfr_core.placing import Place
from bfr_core.receiving import Received
from bfr_core.registration import counted
from bfr_core.registration_batch import Outcome, place_key
from bfr_core.rejection_notes import may_be_note

CONTINUE = """
    SELECT continue_series(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,
        %s::text::bigint[])
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
            or may_be_note(received.sop_class_uid)
            or not place.is_of(received.attributes.patient)
            or received.series_instance_uid not in received.reception.audited_series
        ):
            return None
        began_s = perf_counter()
        try:
            with (
                tracing.span("commit"),
                tracing.span("database transaction"),
                self._opened().connection() as connection,
            ):
                cursor = connection.execute(CONTINUE, _values(received, place), prepare=True)
                if cursor.fetchone() != (True,):
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


def _values(one: Received, place: Place) -> tuple[object, ...]:
    return (
        place.series_id,
        one.reception.archive.archive_id,
        one.sop_instance_uid,
        one.sop_class_uid,
        one.transfer_syntax_uid,
        one.attributes.instance_number,
        one.blob.key,
        one.blob.offset,
        one.blob.length,
        one.dataset_offset,
        one.digest,
        None if one.frames is None else one.frames.to_json(),
        one.header,
        # As text: psycopg takes longer to send a list than the database to read one.
        "{" + ",".join(map(str, locator.search_keys([one.sop_instance_uid]))) + "}",
    )
