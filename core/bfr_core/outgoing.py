"""Outgoing: what the archive itself tells or asks a node; the rim of its language does so."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bfr_core.connections import NODE_COLUMNS, DicomNode
from bfr_core.database import Transaction
from bfr_core.errors import NotFound
from bfr_core.instances import Dataset
from bfr_core.node_terms import NodeTerms, find_terms

FIND_LINK = f"""
    SELECT {NODE_COLUMNS} FROM dicom_node WHERE dicom_node_id = %(dicom_node_id)s
"""
FIND_OWN_TITLE = "SELECT ae_title FROM archive WHERE archive_id = %(archive_id)s"

Reference = tuple[str, str]  # SOP class and SOP instance
Failure = tuple[str, str, int]  # SOP class, SOP instance and Failure Reason (0008,1197)


@dataclass(frozen=True, slots=True)
class Link:
    """A node, and as which archive it is called."""

    calling_ae_title: str
    node: DicomNode
    terms: NodeTerms


@dataclass(frozen=True, slots=True)
class CommitmentResult:
    """What a storage commitment has come to (PS3.4 §J.3.3.1)."""

    committed: tuple[Reference, ...]
    failed: tuple[Failure, ...]


class Outgoing(Protocol):
    """Calls nodes. Each raises Unavailable when the node cannot be reached or says no."""

    async def report_commitment(
        self, link: Link, transaction_uid: str, result: CommitmentResult
    ) -> None:
        """Tell a node what has become of its request (N-EVENT-REPORT)."""

    async def request_commitment(
        self, link: Link, transaction_uid: str, references: Sequence[Reference]
    ) -> CommitmentResult | None:
        """Ask a node to commit to objects; None when it will tell later (N-ACTION)."""

    async def notify_availability(self, link: Link, sop_instance_uid: str, notice: Dataset) -> None:
        """Tell a node which objects of a study are here (N-CREATE)."""


async def find_link(tx: Transaction, archive_id: int, dicom_node_id: int) -> Link:
    """Return how the node is called as the archive. Raises NotFound when one of them is gone."""
    node = await tx.one(DicomNode, FIND_LINK, dicom_node_id=dicom_node_id)
    own_title = await tx.value(FIND_OWN_TITLE, archive_id=archive_id)
    if node is None or own_title is None:
        raise NotFound("there is no such node or archive")
    return Link(str(own_title), node, await find_terms(tx, dicom_node_id))
