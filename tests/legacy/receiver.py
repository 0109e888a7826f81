"""A receiver of C-MOVE: pynetdicom's Storage SCP, as well or as badly behaved as a test wants."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import A_ASSOCIATE
from tests.conftest import House

from bfr_core import connections
from bfr_core.access import operator
from bfr_core.store import Store


@dataclass
class Receiver:
    """What has arrived."""

    port: int = 0
    associations: list[A_ASSOCIATE] = field(default_factory=list)
    # By SOP Instance UID: transfer syntax and the bytes of the data set.
    objects: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    originators: set[tuple[str, int]] = field(default_factory=set)
    arrived: threading.Event = field(default_factory=threading.Event)


@contextmanager
def receiver(
    contexts: Iterable[tuple[str, Sequence[str]]],
    answer: Callable[[Any, Receiver], int] = lambda event, receiver: 0,
    ae_title: str = "RECEIVER",
) -> Iterator[Receiver]:
    """A receiver that takes these contexts; `answer` returns the status of each object."""
    received = Receiver()

    def on_store(event: Any) -> int:
        status = answer(event, received)
        if status < 0xA000:
            received.objects[str(event.request.AffectedSOPInstanceUID)] = (
                str(event.context.transfer_syntax),
                event.request.DataSet.getvalue(),
            )
            request = event.request
            received.originators.add(
                (request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID)
            )
        received.arrived.set()
        return status

    def on_requested(event: Any) -> None:
        received.associations.append(event.assoc.requestor.primitive)

    ae = AE(ae_title)
    for abstract, syntaxes in contexts:
        ae.add_supported_context(abstract, list(syntaxes))
    server = ae.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, on_store), (evt.EVT_REQUESTED, on_requested)],
    )
    assert server is not None
    received.port = server.server_address[1]
    try:
        yield received
    finally:
        server.shutdown()


async def register(store: Store, house: House, port: int, ae_title: str = "RECEIVER") -> None:
    """Make the receiver a node of the connection."""
    async with store.database.transaction() as tx:
        [connection] = [
            one
            for one in await connections.list_connections(tx)
            if one.connection_id == house.archive.connection_id
        ]
        await connections.add_node(
            tx, operator("test"), connection.name, ae_title, "127.0.0.1", port
        )
