"""What is proposed to a receiver, and a receiver that breaks off (PS3.4 Annex B, PS3.8 §9.3.2)."""

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.legacy.raw_peer import A_ASSOCIATE_RJ, ABORT, CT, EXPLICIT
from tests.legacy.receiver import receiver

from bfr_core.blobs import BlobRef
from bfr_core.manifest import StoredInstance
from bfr_core.transcoding import TARGETS
from bfr_legacy.dimse.pdus import command_pdus, data_set_pdus, store_request
from bfr_legacy.dimse.store_scu import (
    CONTEXTS_MAX,
    Receiver,
    RequestedAssociation,
    proposals,
)

JPEG_2000 = "1.2.840.10008.1.2.4.90"


def stored(sop_class_uid: str, transfer_syntax_uid: str) -> StoredInstance:
    return StoredInstance(
        "1.2", sop_class_uid, transfer_syntax_uid, 1, BlobRef("", 0, 0), 0, b"", None
    )


@pytest.mark.conforms("PS3.8 §9.3.2.2", "at most 128 contexts are proposed in one association")
@given(st.lists(st.tuples(st.integers(1, 200), st.integers(1, 5)), min_size=1, max_size=300))
def test_what_is_stored_is_proposed_with_what_it_may_be_transcoded_to(
    kinds: list[tuple[int, int]],
) -> None:
    instances = [stored(f"1.2.{sop}", f"1.3.{syntax}") for sop, syntax in kinds]
    associations = proposals(instances)
    proposed = [kind for association in associations for kind in association]
    assert len(proposed) == len(set(proposed))
    assert all(len(association) <= CONTEXTS_MAX for association in associations)
    for sop_class_uid in {one.sop_class_uid for one in instances}:
        [of_class] = [
            {syntax for sop, syntax in association if sop == sop_class_uid}
            for association in associations
            if any(sop == sop_class_uid for sop, _ in association)
        ]
        own = {one.transfer_syntax_uid for one in instances if one.sop_class_uid == sop_class_uid}
        assert of_class == own | set(TARGETS)


async def test_the_receiver_chooses_what_it_takes() -> None:
    with receiver([(CT, [EXPLICIT])]) as received:
        made = await asyncio.to_thread(
            RequestedAssociation,
            Receiver("RECEIVER", "127.0.0.1", received.port, "ARCHIVE"),
            [(CT, JPEG_2000), (CT, EXPLICIT)],
            10.0,
        )
        assert made.contexts == {(CT, EXPLICIT): 3}
        assert made.max_pdu_bytes > 0
        await asyncio.to_thread(made.release)


def pieces() -> Iterator[bytes | memoryview]:
    yield command_pdus(1, store_request(1, CT, "1.2.3", ("MODALITY", 7)), 0)
    yield from data_set_pdus(1, memoryview(bytes(8 << 20)), 1 << 16, ends=True)


@contextmanager
def broken(*answers: bytes, deaf: bool = False) -> Iterator[int]:
    """A receiver that gives these answers, one for each thing that it reads, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                for answer in answers:
                    connection.recv(1 << 16)
                    connection.sendall(answer)
                if deaf:
                    over.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()
            thread.join()


def associate_ac() -> bytes:
    def item(kind: int, value: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(value)) + value

    context = item(0x21, bytes([1, 0, 0, 0]) + item(0x40, EXPLICIT.encode()))
    user = item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3"))
    body = struct.pack(">HH16s16s32x", 1, 0, b"RECEIVER".ljust(16), b"ARCHIVE".ljust(16))
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + context + user
    return struct.pack(">BxL", 2, len(body)) + body


REJECTED = struct.pack(">BxLxBBB", A_ASSOCIATE_RJ, 4, 1, 1, 7)
# P-DATA of one value of a command set that no response has.
NONSENSE = struct.pack(">BxLLBB", 4, 10, 6, 1, 3) + b"\x08\0\0\0"


@pytest.mark.parametrize(
    "answers",
    [(), (b"",), (REJECTED,), (ABORT,), (b"\xff" * 40,), (associate_ac()[:-4],)],
    ids=["closes", "says nothing", "rejects", "aborts", "no PDU", "half an answer"],
)
def test_a_receiver_that_does_not_accept_raises(answers: tuple[bytes, ...]) -> None:
    with broken(*answers) as port, pytest.raises(ConnectionError):
        RequestedAssociation(
            Receiver("RECEIVER", "127.0.0.1", port, "ARCHIVE"), [(CT, EXPLICIT)], 5.0
        )


@pytest.mark.parametrize("deaf", [True, False], ids=["stops reading", "closes"])
def test_a_receiver_that_breaks_off_while_an_object_is_sent_raises(deaf: bool) -> None:
    with broken(associate_ac(), deaf=deaf) as port:
        made = RequestedAssociation(
            Receiver("RECEIVER", "127.0.0.1", port, "ARCHIVE"), [(CT, EXPLICIT)], 1.0
        )
        with pytest.raises(ConnectionError):
            made.exchange(1, pieces())
        made.abort()


@pytest.mark.parametrize("answer", [ABORT, NONSENSE, b"\xff" * 40])
def test_an_answer_that_is_no_response_raises(answer: bytes) -> None:
    with broken(associate_ac(), answer) as port:
        made = RequestedAssociation(
            Receiver("RECEIVER", "127.0.0.1", port, "ARCHIVE"), [(CT, EXPLICIT)], 5.0
        )
        command = command_pdus(1, store_request(1, CT, "1.2.3", None), 0)
        with pytest.raises(ConnectionError):
            made.exchange(1, [command])
        made.abort()
