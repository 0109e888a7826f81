"""Calls to nodes: the few messages that the archive itself begins with (N-ACTION and so on).

They are small and seldom, so pynetdicom's own associations do, each in a thread of its own.
"""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import pynetdicom
from pydicom.dataset import Dataset as PydicomDataset
from pydicom.uid import UID
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu import P_DATA_TF

from bfr_core.certificates import is_of, peer_certificate
from bfr_core.errors import Unavailable
from bfr_core.instances import Dataset
from bfr_core.outgoing import CommitmentResult, Link, Reference
from bfr_core.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from bfr_legacy.dimse.commitment_scp import (
    REQUEST_COMMITMENT,
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    event_type,
    read_result,
    request_dataset,
    result_dataset,
)
from bfr_legacy.dimse.server import silence_pynetdicom
from bfr_legacy.dimse.status import DUPLICATE_SOP_INSTANCE, SUCCESS
from bfr_legacy.dimse.tls import Tls

INSTANCE_AVAILABILITY_NOTIFICATION = "1.2.840.10008.5.1.4.33"
CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 30.0
REPORT_WAIT_S = 5.0  # for a report over the association of the request

T = TypeVar("T")


class NodeCalls:
    """Calls nodes over DICOM; what the core knows as `Outgoing`."""

    def __init__(self, tls: Tls | None) -> None:
        self._tls = tls
        silence_pynetdicom()

    async def report_commitment(
        self, link: Link, transaction_uid: str, result: CommitmentResult
    ) -> None:
        """Tell a node what has become of its request (N-EVENT-REPORT)."""
        dataset = _pydicom(result_dataset(transaction_uid, result, link.calling_ae_title))

        def report() -> None:
            with self._associated(link, STORAGE_COMMITMENT, as_scp=True) as association:
                status, _ = association.send_n_event_report(
                    dataset, event_type(result), STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
                )
            _require(status, {SUCCESS})

        await asyncio.to_thread(report)

    async def request_commitment(
        self, link: Link, transaction_uid: str, references: Sequence[Reference]
    ) -> CommitmentResult | None:
        """Ask a node to commit to objects; None when it will tell later (N-ACTION)."""
        dataset = _pydicom(request_dataset(transaction_uid, list(references)))
        reported = threading.Event()
        results: list[CommitmentResult] = []

        def take(event: Event) -> tuple[int, None]:
            told = event.event_information
            uid, result = read_result(told.to_json_dict())
            if uid == transaction_uid:
                results.append(result)
            return SUCCESS, None

        def sent(event: Event) -> None:
            # The response to the report is on its way: only then may the association end.
            if results and isinstance(event.pdu, P_DATA_TF):
                reported.set()

        def request() -> None:
            handlers = [(evt.EVT_N_EVENT_REPORT, take), (evt.EVT_PDU_SENT, sent)]
            with self._associated(link, STORAGE_COMMITMENT, handlers=handlers) as association:
                status, _ = association.send_n_action(
                    dataset, REQUEST_COMMITMENT, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
                )
                _require(status, {SUCCESS})
                reported.wait(REPORT_WAIT_S)

        await asyncio.to_thread(request)
        return results[0] if results else None

    async def notify_availability(self, link: Link, sop_instance_uid: str, notice: Dataset) -> None:
        """Tell a node which objects of a study are here (N-CREATE)."""
        dataset = _pydicom(notice)

        def notify() -> None:
            with self._associated(link, INSTANCE_AVAILABILITY_NOTIFICATION) as association:
                status, _ = association.send_n_create(
                    dataset, INSTANCE_AVAILABILITY_NOTIFICATION, UID(sop_instance_uid)
                )
            # The same notice has been told before, and its response was lost.
            _require(status, {SUCCESS, DUPLICATE_SOP_INSTANCE})

        await asyncio.to_thread(notify)

    @contextmanager
    def _associated(
        self,
        link: Link,
        sop_class_uid: str,
        *,
        as_scp: bool = False,
        handlers: Sequence[tuple[object, Callable[[Event], object]]] = (),
    ) -> Iterator[Association]:
        """Give an association with the node. Raises Unavailable when there is none."""
        entity = pynetdicom.AE(link.calling_ae_title)
        entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = ANSWER_TIMEOUT_S
        entity.connection_timeout = CONNECT_TIMEOUT_S
        entity.add_requested_context(sop_class_uid)
        roles = [build_role(sop_class_uid, scp_role=True)] if as_scp else []
        association = entity.associate(
            link.node.host,
            link.node.port,
            ae_title=link.node.ae_title,
            ext_neg=list(roles),
            evt_handlers=list(handlers),  # type: ignore[arg-type]
            tls_args=self._tls_args(link),
        )
        try:
            if association.is_rejected:
                raise Unavailable("the node rejects the association")
            if not association.is_established:
                raise Unavailable("the node cannot be reached, or does not offer the service")
            self._check_certificate(link, association)
            yield association
        finally:
            if association.is_established:
                association.release()

    def _tls_args(self, link: Link) -> tuple[ssl.SSLContext, str] | None:
        if not link.terms.tls_required:
            return None
        if self._tls is None:
            raise Unavailable("the node has to be called over TLS, and no certificate is set")
        return self._tls.client(bound=bool(link.terms.certificate)), link.node.host

    def _check_certificate(self, link: Link, association: Association) -> None:
        if not link.terms.certificate:
            return
        connection = association.dul.socket.socket if association.dul.socket else None
        shown = peer_certificate(connection)  # type: ignore[arg-type]
        if not is_of(shown, link.terms.certificate):
            association.abort()
            raise Unavailable("the node shows another certificate than its own")


def _require(status: PydicomDataset, wanted: set[int]) -> None:
    """Raise Unavailable without an answer, or with one that tells of a failure."""
    if "Status" not in status:
        raise Unavailable("the node did not answer")
    if status.Status not in wanted and not 0xB000 <= status.Status < 0xC000:
        raise Unavailable(f"the node answers with status {status.Status:04X}H")


def _pydicom(dataset: Dataset) -> PydicomDataset:
    return PydicomDataset.from_json(dataset)
