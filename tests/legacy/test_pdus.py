"""PDUs and command sets as bytes (PS3.8 §9.3, PS3.7 §6.3), found wherever the stream is cut."""

import io
import itertools
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filereader import read_dataset
from tests.legacy.raw_peer import CT, EXPLICIT, RELEASE_RQ, associate_rq, c_store_rq, p_data

from bfr_legacy.dimse.pdus import (
    CONTROL_PDU_MAX_BYTES,
    Command,
    PduReader,
    ProtocolViolation,
    command_pdus,
    read_command,
    store_response,
)
from bfr_legacy.dimse.status import error_comment

Read = list[tuple[Any, ...]]


def read_in_pieces(stream: bytes, cuts: list[int]) -> Read:
    """What the reader makes of the stream; pieces of one value joined."""
    events: Read = []

    def fragment(context_id: int, control: int, piece: memoryview, ends: bool) -> None:
        if events and events[-1][0] == "open":
            _, _, _, before = events.pop()
            events.append(("open", context_id, control, before + bytes(piece)))
        else:
            events.append(("open", context_id, control, bytes(piece)))
        if ends:
            events[-1] = ("value", *events[-1][1:])

    reader = PduReader(lambda pdu: events.append(("pdu", pdu)), fragment, 1 << 20)
    edges = [0, *sorted(cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        unread = memoryview(stream[start:end])
        while unread:
            unread = unread[reader.feed(unread) :]
    return events


values = st.tuples(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=40))
p_data_pdus = st.lists(values, min_size=1, max_size=4).map(lambda v: ([*v], p_data(*v)))
control_pdus = st.tuples(st.sampled_from([1, 2, 3, 5, 6, 7]), st.binary(max_size=40)).map(
    lambda p: (None, struct.pack(">BxL", p[0], len(p[1])) + p[1])
)


@given(st.lists(p_data_pdus | control_pdus, max_size=6), st.data())
def test_the_reader_finds_the_same_wherever_the_stream_is_cut(
    pdus: list[tuple[list[tuple[int, int, bytes]] | None, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(pdu for _, pdu in pdus)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    expected: Read = []
    for fragments, pdu in pdus:
        expected += [("pdu", pdu)] if fragments is None else [("value", *f) for f in fragments]
    assert read_in_pieces(stream, cuts) == expected


def test_the_reader_finds_the_same_cut_at_every_byte() -> None:
    stream = associate_rq([(CT, [EXPLICIT])]) + p_data((1, 3, c_store_rq()), (1, 0, b""))
    stream += p_data((1, 2, b"data")) + RELEASE_RQ
    whole = read_in_pieces(stream, [])
    assert len(whole) == 5
    assert read_in_pieces(stream, list(range(len(stream)))) == whole
    for cut in range(len(stream)):
        assert read_in_pieces(stream, [cut]) == whole


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x04\0\0\0\0\x40", b"\x01\0\0\0\1\0"]))
def test_noise_gives_the_reader_nothing_but_a_violation(noise: bytes, start: bytes) -> None:
    try:
        events = read_in_pieces(start + noise, [])
    except ProtocolViolation:
        return
    assert sum(len(event[-1]) for event in events) <= len(start + noise)


@given(st.integers(CONTROL_PDU_MAX_BYTES + 1, 2**32 - 1), st.sampled_from([1, 2, 3, 4, 5, 6, 7]))
def test_no_length_beyond_the_limits_is_believed(length: int, kind: int) -> None:
    with pytest.raises(ProtocolViolation):
        read_in_pieces(struct.pack(">BxL", kind, length), [])


@given(st.binary(max_size=200) | st.binary(max_size=40).map(lambda noise: c_store_rq() + noise))
def test_noise_as_a_command_set_is_a_violation_or_a_command(noise: bytes) -> None:
    try:
        command = read_command(noise)
    except ProtocolViolation:
        return
    assert isinstance(command, Command)


@given(st.text(max_size=200), st.integers(0, 0xFFFF), st.integers(0, 200))
def test_a_store_response_reads_back_in_pdus_of_any_size(
    message: str, status: int, max_pdu_bytes: int
) -> None:
    request = read_command(c_store_rq(message_id=65535))
    response = store_response(request, status, error_comment(message))
    values = read_in_pieces(command_pdus(5, response, max_pdu_bytes), [])
    assert b"".join(value[3] for value in values) == response
    assert [value[2] for value in values] == [1] * (len(values) - 1) + [3]
    read = read_dataset(io.BytesIO(response), True, True)
    assert (read.Status, read.MessageIDBeingRespondedTo) == (status, 65535)
    assert len(read.get("ErrorComment", "")) <= 64
    assert read.CommandGroupLength == len(response) - 12
