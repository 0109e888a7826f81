"""Sending: the bytes of stored objects as P-DATA, from the pack to the socket (PS3.8 §9.3.5).

One read and one call of the kernel for about a megabyte, whatever the size of an object.
"""

import socket
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from bfr_core.blobs import BlobReader
from bfr_core.manifest import StoredInstance
from bfr_legacy.dimse.pdus import data_set_pdus, fragment_bytes

CHUNK_BYTES = 1 << 20
PIECES_MAX = 512  # of one call; Linux takes 1024

Piece = bytes | memoryview


def stored_pdus(
    reader: BlobReader, stored: StoredInstance, context_id: int, max_pdu_bytes: int
) -> Iterator[Piece]:
    """Yield the PDUs of a stored data set, as pieces to be sent one after the other.

    Raises Unavailable when its bytes are gone.
    """
    fragment = fragment_bytes(max_pdu_bytes)
    chunk = max(CHUNK_BYTES // fragment, 1) * fragment
    blob = stored.blob
    at, end = blob.offset + stored.dataset_offset, blob.offset + blob.length
    while at < end:
        data = reader.read(blob.key, at, min(chunk, end - at))
        at += len(data)
        yield from data_set_pdus(context_id, memoryview(data), fragment, ends=at == end)


def send_pieces(connection: socket.socket, pieces: Iterable[Piece]) -> None:
    """Send the pieces, as they come, without joining them. Raises OSError."""
    stream = iter(pieces)
    pending: list[Piece] = []
    waiting_bytes = 0
    while more := list(islice(stream, 2)):
        pending += more
        waiting_bytes += sum(map(len, more))
        if waiting_bytes >= CHUNK_BYTES or len(pending) >= PIECES_MAX:
            _send_all(connection, pending)
            pending, waiting_bytes = [], 0
    if pending:
        _send_all(connection, pending)


def acknowledge_at_once(connection: socket.socket) -> None:
    """Have the kernel acknowledge what arrives next at once.

    A peer that leaves Nagle's algorithm on, as dcmtk does, waits 40 ms for it between the two
    parts of each response. The kernel forgets it with every packet.
    """
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def _send_all(connection: socket.socket, pieces: Sequence[Piece]) -> None:
    left = [memoryview(piece) for piece in pieces if len(piece)]
    while left:
        sent = connection.sendmsg(left)
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if sent:
            left[0] = left[0][sent:]
