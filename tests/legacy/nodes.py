"""Nodes that the archive calls: pynetdicom as the other side, on a port of its own."""

import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pynetdicom
from pydicom.dataset import Dataset
from pynetdicom import evt
from tests.conftest import House

from bfr_core.store import Store


class Node:
    """A node that answers with `status` and remembers what it was told."""

    def __init__(self) -> None:
        self.status = 0x0000
        self.told: list[tuple[str, int | None, Dataset]] = []  # service, event type, data set
        self.callers: list[str] = []
        self.port = 0

    def take_report(self, event: evt.Event) -> tuple[int, None]:
        self.callers.append(event.assoc.requestor.ae_title)
        self.told.append(("N-EVENT-REPORT", event.event_type, event.event_information))
        return self.status, None

    def take_creation(self, event: evt.Event) -> tuple[int, Dataset]:
        self.callers.append(event.assoc.requestor.ae_title)
        self.told.append(("N-CREATE", None, event.attribute_list))
        return self.status, event.attribute_list


@contextmanager
def running_node(
    sop_classes: Sequence[str],
    handlers: Sequence[tuple[Any, Callable[..., Any]]] = (),
    *,
    ae_title: str = "MODALITY",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Node]:
    """Run a node for the length of the block."""
    node = Node()
    entity = pynetdicom.AE(ae_title)
    for uid in sop_classes:
        entity.add_supported_context(uid, scu_role=True, scp_role=True)
    server = entity.start_server(
        ("127.0.0.1", port),
        block=False,
        ssl_context=tls,
        evt_handlers=[
            (evt.EVT_N_EVENT_REPORT, node.take_report),
            (evt.EVT_N_CREATE, node.take_creation),
            *handlers,
        ],
    )
    assert server is not None
    node.port = server.server_address[1]
    try:
        yield node
    finally:
        server.shutdown()


async def move_node(store: Store, house: House, port: int) -> int:
    """Register the port of the house's node; its number."""
    async with store.database.transaction() as tx:
        return int(
            await tx.value(
                "UPDATE dicom_node SET port = %(port)s WHERE ae_title = %(ae_title)s"
                " RETURNING dicom_node_id",
                port=port,
                ae_title=house.node.subject,
            )
        )
