"""Multipart: bodies of several representations, read and written as streams (PS3.18 §8.6.1.2).

The form is multipart/related (RFC 2387) in the syntax of RFC 2046 §5.1.
"""

import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState

from bfr_core.errors import Invalid
from bfr_dicomweb.media_types import MULTIPART_RELATED, parse_media_type

_BOUNDARY_MAX_CHARACTERS: Final = 200  # RFC 2046 says 70; longer ones are in use


class ContentTooLarge(Invalid):
    """The body is larger than is taken: 413 (RFC 9110 §15.5.14)."""


@dataclass(frozen=True, slots=True)
class PartLimits:
    """How much of a multipart body is read before it is refused."""

    total_max_bytes: int = 16 << 30  # of the whole body, boundaries included
    header_max_bytes: int = 16 << 10  # of the header fields of one part
    header_max_count: int = 32  # header fields of one part
    parts_max: int = 100_000
    preamble_max_bytes: int = 64 << 10  # before the first boundary


@dataclass(frozen=True, slots=True)
class PartBegin:
    """The header of a part has been read."""

    number: int  # 1 for the first
    headers: Mapping[str, str]  # names in lower case


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The body of a part has been read to its boundary."""

    number: int


PartEvent = PartBegin | memoryview | PartEnd


class PartReader:
    """Reads one multipart body that is fed to it in pieces of any size; it buffers no part.

    Lines end with CR LF, as RFC 2046 demands; a body whose lines end with LF alone is refused.
    """

    def __init__(self, boundary: str, limits: PartLimits | None = None) -> None:
        self._limits = limits or PartLimits()
        self._events: list[PartEvent] = []
        self._number = 0
        self._in_headers = False
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._name = bytearray()
        self._value = bytearray()
        self._total_bytes = 0
        self._delimiter = b"--" + boundary.encode("latin-1")
        self._preamble: bytearray | None = bytearray()
        self._parser = MultipartParser(
            boundary.encode("latin-1"),
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_to_name,
                "on_header_value": self._add_to_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._add_data,
                "on_part_end": self._end_part,
            },
            max_header_count=self._limits.header_max_count,
            max_header_size=self._limits.header_max_bytes,
        )

    def feed(self, data: bytes) -> list[PartEvent]:
        """Return what the next bytes of the body bring: begins, pieces of bodies, ends, in order.

        The pieces are views into `data`, or short pieces of what was fed before.
        Raises Invalid, naming the number of the part, when the body is malformed or goes beyond a
        limit.
        """
        self._total_bytes += len(data)
        if self._total_bytes > self._limits.total_max_bytes:
            raise ContentTooLarge(
                f"The body goes beyond {self._limits.total_max_bytes} bytes in {self._place()}."
            )
        if self._preamble is not None:
            data = self._without_preamble(data)
        events: list[PartEvent] = []
        self._events = events
        try:
            self._parser.write(data)
        except FormParserError as error:
            if self._in_headers:
                raise Invalid(
                    f"The header of part {self._number} is malformed, has more than "
                    f"{self._limits.header_max_count} fields, or one longer than "
                    f"{self._limits.header_max_bytes} bytes."
                ) from error
            raise Invalid(
                f"The boundary line after {self._place()} is malformed; it ends with CR LF."
            ) from error
        return events

    def close(self) -> None:
        """End the body.

        Raises Invalid when its closing boundary has not come: it was cut off, or the boundary of
        its Content-Type is not the one in use.
        """
        if self._preamble is not None:
            raise Invalid("No part found: the body holds no line with the boundary of its type.")
        if self._parser.state != MultipartState.END:
            raise Invalid(f"The body ends in {self._place()}, without its closing boundary.")
        if self._number == 0:
            raise Invalid("The body holds no part.")

    def _place(self) -> str:
        return f"part {self._number}" if self._number else "its preamble"

    def _without_preamble(self, data: bytes) -> bytes:
        """Return what comes from the first boundary line on, empty until it has come."""
        preamble = self._preamble if self._preamble is not None else bytearray()
        start = max(0, len(preamble) - len(self._delimiter)) - 1
        preamble += data
        while (start := preamble.find(self._delimiter, start + 1)) > 0:
            if preamble[start - 1] == 0x0A:
                break
        if start >= 0:
            self._preamble = None
            return bytes(preamble[start:])
        if len(preamble) > self._limits.preamble_max_bytes:
            raise Invalid(
                f"No boundary line within the first {self._limits.preamble_max_bytes} bytes: the "
                "boundary of the Content-Type is not the one in use."
            )
        return b""

    def _begin_part(self) -> None:
        self._number += 1
        if self._number > self._limits.parts_max:
            raise Invalid(f"The body has more than {self._limits.parts_max} parts.")
        self._in_headers = True
        self._headers = {}
        self._header_bytes = 0

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self._limits.header_max_bytes:
            raise Invalid(
                f"The header of part {self._number} is longer than "
                f"{self._limits.header_max_bytes} bytes."
            )

    def _add_to_name(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._name += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._value += data[start:end]

    def _end_header(self) -> None:
        name = self._name.decode("latin-1").lower()
        if name in self._headers:
            raise Invalid(f"Part {self._number} has the header field {name} twice.")
        self._headers[name] = self._value.decode("latin-1").strip()
        self._name.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        if not self._headers.get("content-type"):
            raise Invalid(f"Part {self._number} has no Content-Type.")
        self._in_headers = False
        self._events.append(PartBegin(self._number, self._headers))

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(memoryview(data)[start:end])

    def _end_part(self) -> None:
        if self._in_headers:
            raise Invalid(f"Part {self._number} has no body.")
        self._events.append(PartEnd(self._number))


class Part:
    """One part of a body as it arrives."""

    __slots__ = ("_events", "ended", "headers", "number")

    def __init__(self, begin: PartBegin, events: AsyncIterator[PartEvent]) -> None:
        self.number = begin.number
        self.headers = begin.headers
        self.ended = False
        self._events = events

    async def body(self) -> AsyncIterator[memoryview]:
        """Yield the pieces of the body, once; a piece is good until the next is asked for.

        Raises Invalid as PartReader does.
        """
        if self.ended:
            return
        async for event in self._events:
            if not isinstance(event, memoryview):
                self.ended = True
                return
            yield event


async def read_parts(
    chunks: AsyncIterator[bytes], boundary: str, limits: PartLimits | None = None
) -> AsyncIterator[Part]:
    """Yield the parts of a multipart body; what is not read of a part is passed over.

    Raises Invalid when the body is malformed, cut off or goes beyond a limit, at the part
    concerned: while its body is read, or in its stead.
    """
    events = _events(chunks, PartReader(boundary, limits))
    async for event in events:
        if not isinstance(event, PartBegin):
            continue
        part = Part(event, events)
        yield part
        async for _ in part.body():
            pass


async def _events(chunks: AsyncIterator[bytes], reader: PartReader) -> AsyncIterator[PartEvent]:
    async for chunk in chunks:
        if chunk:
            for event in reader.feed(chunk):
                yield event
    reader.close()


def boundary_of(content_type: str) -> tuple[str, str]:
    """Return the boundary and the lower-case `type` ("" when absent) of a multipart Content-Type.

    Raises Invalid when it is not multipart/related or has no usable boundary (RFC 2046 §5.1.1).
    """
    media_type = parse_media_type(content_type)
    if media_type.name != MULTIPART_RELATED:
        raise Invalid(f"The Content-Type is not {MULTIPART_RELATED}.")
    boundary = media_type.parameters.get("boundary", "")
    usable = boundary.isascii() and boundary.isprintable() and not boundary.endswith(" ")
    if not boundary or not usable or len(boundary) > _BOUNDARY_MAX_CHARACTERS:
        raise Invalid("The Content-Type has no usable boundary.")
    return boundary, media_type.parameters.get("type", "").lower()


def new_boundary() -> str:
    """Return a boundary that no body holds but by a chance of 2⁻¹²⁸."""
    return secrets.token_hex(16)


def content_type(part_media_type: str, boundary: str) -> str:
    """Return the Content-Type of a body whose parts are of one media type (RFC 2387 §3.1)."""
    return f'{MULTIPART_RELATED}; type="{part_media_type}"; boundary={boundary}'


def part_header(boundary: str, headers: Mapping[str, str], *, first: bool) -> bytes:
    """Return the bytes that come before the body of a part; `first` for the first part."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    start = "" if first else "\r\n"
    return f"{start}--{boundary}\r\n{fields}\r\n".encode("latin-1")


def closing(boundary: str) -> bytes:
    """Return the bytes that come after the body of the last part."""
    return f"\r\n--{boundary}--\r\n".encode("latin-1")


def content_length_bytes(boundary: str, parts: Iterable[tuple[Mapping[str, str], int]]) -> int:
    """Return the length of a whole body, given the header fields and body bytes of each part."""
    length = len(closing(boundary))
    for number, (headers, body_bytes) in enumerate(parts):
        length += len(part_header(boundary, headers, first=number == 0)) + body_bytes
    return length
