"""Multipart bodies are read and written as streams (RFC 2046 §5.1, PS3.18 §8.6.1.2)."""

import contextlib
from collections.abc import AsyncIterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfr_core.errors import Invalid
from bfr_dicomweb.multipart import (
    PartBegin,
    PartLimits,
    PartReader,
    boundary_of,
    closing,
    content_length_bytes,
    content_type,
    new_boundary,
    part_header,
    read_parts,
)

DICOM = {"Content-Type": "application/dicom"}


def body_of(parts: list[tuple[Mapping[str, str], bytes]], boundary: str = "B") -> bytes:
    pieces = []
    for number, (headers, data) in enumerate(parts):
        pieces += [part_header(boundary, headers, first=number == 0), data]
    return b"".join([*pieces, closing(boundary)])


def read(
    body: bytes, boundary: str = "B", step: int = 1 << 20, limits: PartLimits | None = None
) -> list[tuple[Mapping[str, str], bytes]]:
    reader = PartReader(boundary, limits)
    parts: list[tuple[Mapping[str, str], bytearray]] = []
    for start in range(0, len(body), step):
        for event in reader.feed(body[start : start + step]):
            if isinstance(event, PartBegin):
                parts.append((event.headers, bytearray()))
            elif isinstance(event, memoryview):
                parts[-1][1].extend(event)
    reader.close()
    return [(headers, bytes(data)) for headers, data in parts]


async def in_chunks(body: bytes, step: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), step):
        yield body[start : start + step]
    yield b""


# Bodies made of what a reader could mistake for a boundary.
AWKWARD = st.lists(
    st.sampled_from([b"\r\n--B", b"\r\n--", b"\r", b"\n", b"--B--", b"-", b"B", b"\r\n", b"\x00"])
    | st.binary(max_size=8),
    max_size=12,
).map(b"".join)


@given(
    bodies=st.lists(AWKWARD.map(lambda body: body.replace(b"\r\n--B", b"\r\n-B")), min_size=1),
    step=st.integers(1, 64),
)
def test_what_is_written_is_read_back_whatever_the_pieces(bodies: list[bytes], step: int) -> None:
    body = body_of([(DICOM, data) for data in bodies])
    expected = [({"content-type": "application/dicom"}, data) for data in bodies]
    assert read(body, step=step) == expected


@given(
    garbage=AWKWARD | st.binary(max_size=200),
    cut=st.integers(0, 400),
    step=st.integers(1, 64),
)
def test_a_damaged_body_is_refused_or_read_but_never_breaks_the_reader(
    garbage: bytes, cut: int, step: int
) -> None:
    body = body_of([(DICOM, b"first" * 9), ({**DICOM, "Content-Location": "/x"}, b"second" * 9)])
    with contextlib.suppress(Invalid):
        parts = read(body[:cut] + garbage + body[cut:], step=step)
        assert all(headers["content-type"] for headers, _ in parts)


@given(cut=st.integers(0, 200), step=st.integers(1, 64))
def test_a_body_without_its_closing_boundary_is_refused(cut: int, step: int) -> None:
    body = body_of([(DICOM, b"first"), (DICOM, b"second")])
    whole = len(body) - len("\r\n")
    with pytest.raises(Invalid):
        read(body[: min(cut, whole - 1)], step=step)


def test_the_refusal_names_the_part_that_is_cut_off() -> None:
    body = body_of([(DICOM, b"first"), (DICOM, b"second")])
    with pytest.raises(Invalid, match=r"ends in part 2, without its closing boundary"):
        read(body[:-12])


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_preamble_and_epilogue_are_passed_over(step: int) -> None:
    body = b"This is --B not it\r\n" + body_of([(DICOM, b"data")]) + b"bye\r\n--B\r\nnothing"
    assert [data for _, data in read(body, step=step)] == [b"data"]


def test_padding_after_a_boundary_is_passed_over() -> None:
    body = body_of([(DICOM, b"one"), (DICOM, b"two")]).replace(b"\r\n--B\r\n", b"\r\n--B \t\r\n")
    assert [data for _, data in read(body)] == [b"one", b"two"]


def test_an_empty_part_is_a_part() -> None:
    assert [data for _, data in read(body_of([(DICOM, b""), (DICOM, b"x")]))] == [b"", b"x"]


def test_header_names_are_lower_case_and_values_trimmed() -> None:
    body = b"--B\r\ncontent-TYPE:  application/dicom \r\nContent-Location: /a:b\r\n\r\n\r\n--B--"
    assert read(body) == [({"content-type": "application/dicom", "content-location": "/a:b"}, b"")]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"--A\r\nContent-Type: x/y\r\n\r\ndata\r\n--A--", "holds no line with the boundary"),
        (b"\r\n" * 40000, "boundary of the Content-Type is not the one in use"),
        (b"--B--\r\n", "holds no part"),
        (b"--B\r\nContent-Location: /x\r\n\r\ndata\r\n--B--", "Part 1 has no Content-Type"),
        (b"--B\r\n\r\ndata\r\n--B--", "Part 1 has no Content-Type"),
        (b"--B\nContent-Type: x/y\n\ndata\n--B--", "malformed; it ends with CR LF"),
        (b"--B\r\nContent-Type x/y\r\n\r\ndata\r\n--B--", "header of part 1 is malformed"),
        (b"--B\r\nA: " + b"x" * 600 + b"\r\n\r\n", "header of part 1"),
        (b"--B\r\nA: " + b" " * 600 + b"\r\n\r\n", "header of part 1"),
        (b"--B\r\n" + b"x" * 600 + b"\r\n\r\n", "header of part 1"),
        (b"--B\r\n" + b"A: b\r\n" * 40, "Part 1 has the header field a twice"),
        (
            b"--B\r\n" + b"".join(b"A%d: b\r\n" % n for n in range(40)),
            "header of part 1 is malformed, has more than 32 fields",
        ),
        (
            b"--B\r\n" + b"".join(b"A%d: %s\r\n" % (n, b"b" * 90) for n in range(10)),
            "header of part 1 is longer than 512 bytes",
        ),
        (b"--B\r\nContent-Type: x/y\r\n\r\n" + b"d" * 5000, "beyond 4096 bytes in part 1"),
        (b"--B\r\nContent-Type: x/y\r\n\r\n\r\n" * 9, "more than 8 parts"),
    ],
)
def test_a_broken_body_is_refused_with_its_reason(body: bytes, message: str) -> None:
    total = 4096 if b"ddd" in body else 1 << 20
    limits = PartLimits(total_max_bytes=total, header_max_bytes=512, parts_max=8)
    for step in (3000, 100, 1):
        with pytest.raises(Invalid, match=message):
            read(body, step=step, limits=limits)


async def test_parts_come_while_their_bodies_are_still_on_the_way() -> None:
    body = body_of([(DICOM, b"x" * 1000), ({"Content-Type": "a/b"}, b"y" * 1000)])
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        async for chunk in in_chunks(body, 100):
            sent += len(chunk)
            yield chunk

    seen = []
    async for part in read_parts(chunks(), "B"):
        arrived = sent
        data = b"".join([bytes(piece) async for piece in part.body()])
        seen.append((part.number, part.headers["content-type"], data, arrived < len(body)))
    assert seen == [
        (1, "application/dicom", b"x" * 1000, True),
        (2, "a/b", b"y" * 1000, True),
    ]


async def test_a_part_that_is_not_read_is_passed_over() -> None:
    body = body_of([(DICOM, bytes([number]) * 999) for number in range(4)])
    firsts = []
    async for part in read_parts(in_chunks(body, 100), "B"):
        if part.number == 2:
            continue
        async for piece in part.body():
            firsts.append(piece[0])
            break
    assert firsts == [0, 2, 3]


async def test_a_cut_body_fails_at_the_part_concerned_and_nothing_comes_after() -> None:
    body = body_of([(DICOM, b"one"), (DICOM, b"two" * 100)])[:-50]
    outcomes = []
    async for part in read_parts(in_chunks(body, 40), "B"):
        try:
            outcomes.append(b"".join([bytes(piece) async for piece in part.body()]))
        except Invalid as error:
            outcomes.append(error.message.encode())
    assert outcomes == [b"one", b"The body ends in part 2, without its closing boundary."]


@given(st.lists(st.tuples(st.sampled_from([DICOM, {"A": "b", "Cc": "å"}]), st.binary(max_size=50))))
def test_the_length_of_a_body_is_known_before_it_is_written(
    parts: list[tuple[Mapping[str, str], bytes]],
) -> None:
    boundary = new_boundary()
    sizes = [(headers, len(data)) for headers, data in parts]
    assert content_length_bytes(boundary, sizes) == len(body_of(parts, boundary))


def test_the_content_type_that_is_written_is_read_back() -> None:
    boundary = new_boundary()
    assert boundary_of(content_type("application/dicom", boundary)) == (
        boundary,
        "application/dicom",
    )
    assert new_boundary() != boundary


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'multipart/related; type="application/dicom"; boundary="a b/:?"',
            ("a b/:?", "application/dicom"),
        ),
        ("Multipart/Related;BOUNDARY=xyz;start=<1>", ("xyz", "")),
        (
            "multipart/related; type=application/dicom+json; boundary=x",
            ("x", "application/dicom+json"),
        ),
    ],
)
def test_boundary_and_type_are_found_quoted_or_not(text: str, expected: tuple[str, str]) -> None:
    assert boundary_of(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "application/dicom",
        "multipart/related",
        "multipart/related; boundary=",
        'multipart/related; boundary="x',
        'multipart/related; boundary="å"',
        'multipart/related; boundary="x "',
        "multipart/related; boundary=x; boundary=y",
        f"multipart/related; boundary={'x' * 201}",
        "",
    ],
)
def test_a_content_type_without_a_usable_boundary_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        boundary_of(text)
