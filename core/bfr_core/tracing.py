"""Tracing: spans of transactions, database transactions and blob access (OpenTelemetry).

Off unless `traces_endpoint` is set: OpenTelemetry is not even imported then. Attributes are words
and sizes of ours, never what a caller has sent, and an error is told by its kind: its text may
quote a row.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING

from bfr_core.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

EXPORT_TIMEOUT_S = 3.0

_tracer: "Tracer | None" = None
_current: "ContextVar[Span | None]" = ContextVar("span", default=None)
_NOTHING: AbstractContextManager[None] = nullcontext()


@contextmanager
def exported(settings: Settings, role: str) -> Iterator[None]:
    """Send the spans of this process to the collector of the settings; nothing without one."""
    global _tracer
    if not settings.traces_endpoint:
        yield
        return
    provider = _provider(settings.traces_endpoint, role)
    _tracer = provider.get_tracer("bfr")
    try:
        yield
    finally:
        _tracer = None
        provider.shutdown()


def _provider(endpoint: str, role: str) -> "TracerProvider":
    import os
    import socket
    from importlib.metadata import version

    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource(
        {
            "service.namespace": "bfr",
            "service.name": f"bfr-{role}",
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
            "service.version": version("bfr"),
        }
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint, timeout=EXPORT_TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def current() -> "Span | None":
    """Return the span under way; None when traces are off or nothing is."""
    return _current.get()


def begin(name: str) -> "Span | None":
    """Begin the trace of a transaction in this context; None when traces are off."""
    if _tracer is None:
        return None
    span = _start(name, None)
    _current.set(span)
    return span


def end(span: "Span", name: str, outcome: str, **attributes: str | int) -> None:
    """End the trace of a transaction under the name that it turned out to have."""
    span.update_name(name)
    span.set_attributes({"bfr.outcome": outcome, **attributes})
    if outcome in ("failed", "unavailable"):
        _mark(span, outcome)
    span.end()
    _current.set(None)


def span(name: str, **attributes: str | int) -> AbstractContextManager[None]:
    """Return a block that is a span of the transaction under way; nothing outside of one."""
    parent = None if _tracer is None else _current.get()
    return _NOTHING if parent is None else _span(name, parent, (), attributes)


def shared_span(
    name: str, sharers: "Sequence[Span | None]", **attributes: str | int
) -> AbstractContextManager[None]:
    """Return a block that several transactions share: a span of the first, linked to the others."""
    if _tracer is None:
        return _NOTHING
    traced = [one for one in sharers if one is not None]
    return _span(name, traced[0], traced[1:], attributes) if traced else _NOTHING


@contextmanager
def _span(
    name: str,
    parent: "Span",
    linked: "Sequence[Span]",
    attributes: dict[str, str | int],
) -> Iterator[None]:
    span = _start(name, parent, linked, attributes)
    token = _current.set(span)
    try:
        yield
    except BaseException as error:
        _mark(span, type(error).__name__)
        raise
    finally:
        _current.reset(token)
        span.end()


def _start(
    name: str,
    parent: "Span | None",
    linked: "Sequence[Span]" = (),
    attributes: dict[str, str | int] | None = None,
) -> "Span":
    from opentelemetry.context import Context
    from opentelemetry.trace import INVALID_SPAN, Link, set_span_in_context

    if _tracer is None:  # turned off meanwhile
        return INVALID_SPAN
    return _tracer.start_span(
        name,
        # Told outright: the library's own idea of the current span does not cross our threads.
        context=Context() if parent is None else set_span_in_context(parent, Context()),
        links=[Link(one.get_span_context()) for one in linked],
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    )


def _mark(span: "Span", kind: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR, kind))
