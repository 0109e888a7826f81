"""Observation: one transaction as operators see it, from its begin to its outcome.

Each rim has one joint where a transaction begins and ends; what is counted, traced and written
beside a log line is decided here.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter

from bfr_core import metrics, tracing

_current: "ContextVar[Observation | None]" = ContextVar("observation", default=None)


class Observation:
    """A transaction that has begun; `transaction` and `resource` may become known later."""

    __slots__ = (
        "_began_s",
        "_span",
        "_trace_id",
        "received_bytes",
        "resource",
        "sent_bytes",
        "transaction",
    )

    def __init__(self, transaction: str, resource: str = "") -> None:
        self.transaction = transaction
        self.resource = resource
        self.received_bytes = 0
        self.sent_bytes = 0
        self._trace_id = ""
        self._span = tracing.begin(transaction)
        self._began_s = perf_counter()
        _current.set(self)

    @property
    def trace_id(self) -> str:
        """What the log lines and the spans of this transaction have in common."""
        if not self._trace_id:
            traced = self._span.get_span_context().trace_id if self._span is not None else 0
            self._trace_id = f"{traced:032x}" if traced else secrets.token_hex(16)
        return self._trace_id

    def end(self, outcome: str) -> None:
        """Record what became of it."""
        duration_s = perf_counter() - self._began_s
        labels = (self.transaction, self.resource, outcome)
        metrics.of(metrics.TRANSACTION_DURATION, *labels).observe(duration_s)
        if self.received_bytes:
            metrics.of(metrics.TRANSACTION_RECEIVED, self.transaction).inc(self.received_bytes)
        if self.sent_bytes:
            metrics.of(metrics.TRANSACTION_SENT, self.transaction).inc(self.sent_bytes)
        if self._span is not None:
            tracing.end(
                self._span,
                f"{self.transaction} {self.resource}".rstrip(),
                outcome,
                **{
                    "bfr.received_bytes": self.received_bytes,
                    "bfr.sent_bytes": self.sent_bytes,
                },
            )
        _current.set(None)


def current() -> Observation | None:
    """Return the transaction that this thread or task works on; None outside of one."""
    return _current.get()


@contextmanager
def blob_access(operation: str) -> Iterator[None]:
    """Observe a block in which the blob store is at work."""
    began_s = perf_counter()
    try:
        with tracing.span(f"blob {operation}"):
            yield
    finally:
        metrics.of(metrics.BLOB_DURATION, operation).observe(perf_counter() - began_s)
