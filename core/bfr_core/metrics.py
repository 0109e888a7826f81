"""Metrics: every figure that the system tells of itself, each named once (Prometheus).

A module that measures something imports its figure from here; one more figure is one more name.
No label holds what a caller has sent: labels are words of ours, so that there are few of them and
none tells of a person.
"""

from functools import lru_cache
from importlib.metadata import version
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics import MetricWrapperBase

from bfr_core.errors import ArchiveError, Conflict, Denied, Invalid, NotFound, Unavailable

disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry(auto_describe=True)

QUICK_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)
SLOW_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)
SIZES_BYTES = tuple(float(1 << power) for power in range(10, 31, 2))


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    return Counter(name, meaning, labels, registry=REGISTRY)


def _gauge(name: str, meaning: str, *labels: str) -> Gauge:
    return Gauge(name, meaning, labels, registry=REGISTRY)


def _histogram(
    name: str, meaning: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
) -> Histogram:
    return Histogram(name, meaning, labels, buckets=buckets, registry=REGISTRY)


# What comes and goes
TRANSACTION_DURATION = _histogram(
    "bfr_transaction_duration_seconds",
    "Time from the first to the last byte of a transaction, or of a background job",
    SLOW_S,
    ("transaction", "resource", "outcome"),
)
TRANSACTION_RECEIVED = _counter(
    "bfr_transaction_received_bytes", "Bytes of data sets and bodies that came in", "transaction"
)
TRANSACTION_SENT = _counter(
    "bfr_transaction_sent_bytes", "Bytes of data sets and bodies that went out", "transaction"
)
ASSOCIATIONS_OPEN = _gauge("bfr_associations_open", "DICOM associations that are established")
ASSOCIATIONS_ACCEPTED = _counter(
    "bfr_associations_accepted", "DICOM associations that were accepted"
)
ASSOCIATIONS_REJECTED = _counter(
    "bfr_associations_rejected",
    "DICOM associations and connections that were turned away",
    "reason",
)

# Reception
OBJECTS = _counter(
    "bfr_objects", "Objects that arrived whole: new, identical, or the kind of refusal",
    "door", "outcome",
)  # fmt: skip
STORED_BYTES = _counter("bfr_stored_bytes", "Bytes of the objects that were stored new", "door")
PACKS_OPEN = _gauge("bfr_packs_open", "Packs that are open for appending")
BLOB_DURATION = _histogram(
    "bfr_blob_duration_seconds",
    "Time that the blob store took: read of a range, sync of a pack, put of a blob",
    QUICK_S,
    ("operation",),
)
COMMIT_DURATION = _histogram(
    "bfr_commit_duration_seconds", "Time of one commit of received objects", QUICK_S
)
COMMIT_WAIT = _histogram(
    "bfr_commit_wait_seconds", "Time that a sender's objects waited for their commit", QUICK_S
)
COMMIT_OBJECTS = _histogram("bfr_commit_objects", "Objects that shared one commit", COUNTS)

# Background work
SEALING_DURATION = _histogram(
    "bfr_sealing_duration_seconds", "Time to seal one series that was quiet", SLOW_S
)
MANIFEST_BYTES = _histogram("bfr_manifest_bytes", "Size of the manifests written", SIZES_BYTES)
MANIFEST_INSTANCES = _histogram(
    "bfr_manifest_instances", "Instances in the manifests written", COUNTS
)
JOBS = _gauge(
    "bfr_jobs",
    "Background jobs by task and state; `seal` with `todo` are the series that wait for sealing"
    " (told by the worker)",
    "task",
    "state",
)
OLDEST_JOB = _gauge(
    "bfr_oldest_waiting_job_seconds",
    "How long the background job that is due for longest has waited (told by the worker)",
)

# Pixels
PIXEL_CALLS_OPEN = _gauge(
    "bfr_pixel_calls_open", "Frames that wait for a pixel process or are in one"
)
PIXEL_PROCESSES_BUSY = _gauge("bfr_pixel_processes_busy", "Pixel processes at work")
PIXEL_CALL_DURATION = _histogram(
    "bfr_pixel_call_duration_seconds",
    "Time of one call in a pixel process, without the wait before it",
    SLOW_S,
    ("call", "outcome"),
)

# Engines
DATABASE_WAIT = _histogram(
    "bfr_database_wait_seconds", "Time until a transaction had its database connection", QUICK_S
)
DATABASE_DURATION = _histogram(
    "bfr_database_transaction_duration_seconds",
    "Time of one database transaction, without the wait for its connection",
    QUICK_S,
    ("outcome",),
)
DATABASE_CONNECTIONS = _gauge(
    "bfr_database_connections", "Database connections of the process: idle or busy", "state"
)
DATABASE_QUEUE = _gauge(
    "bfr_database_queue", "Transactions that wait for a database connection of the process"
)
DISK_FREE = _gauge("bfr_disk_free_bytes", "Room that is left on the disk of the packs")
DISK_TOTAL = _gauge("bfr_disk_total_bytes", "Size of the disk of the packs")

# Processes
ROLE_SERVING = _gauge("bfr_role_serving", "1 when the process serves its role, 0 when it cannot")
EVENT_LOOP_DELAY = _histogram(
    "bfr_event_loop_delay_seconds", "How late the event loop was at a task that was due", QUICK_S
)
LOG_RECORDS = _counter("bfr_log_records", "Lines in the log", "level")
BUILD_INFO = _gauge("bfr_build_info", "1; the version is a label", "version")

BUILD_INFO.labels(version("bfr")).set(1)
ProcessCollector(registry=REGISTRY)

Metric = TypeVar("Metric", bound=MetricWrapperBase)


@lru_cache(maxsize=4096)
def _child(metric: MetricWrapperBase, labels: tuple[str, ...]) -> MetricWrapperBase:
    return metric.labels(*labels)


def of(metric: Metric, *labels: str) -> Metric:
    """Return the figure of these label values; quicker than the library's own look-up."""
    return _child(metric, labels)  # type: ignore[return-value]


KINDS = (Invalid, Denied, NotFound, Conflict, Unavailable)


def outcome_of(error: BaseException) -> str:
    """Return the word for an error as the outcome of a transaction: one of the five, or failed."""
    for kind in KINDS:
        if isinstance(error, kind):
            return _words(kind.__name__)
    return "failed" if isinstance(error, Exception) else "aborted"


def count_refused(door: str, error: ArchiveError) -> None:
    """Count an object that was refused, by the kind of error."""
    of(OBJECTS, door, _words(type(error).__name__)).inc()


def _words(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)[1:]
