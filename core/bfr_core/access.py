"""Access: who asks, from where, and for which archives."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Access:
    """One caller as a door has recognised it; given to every core function that touches data."""

    kind: Literal["node", "local", "operator", "job"]
    subject: str  # AE title, "loopback", operating-system user, job name: never a person's id
    archive_ids: frozenset[int] | None  # None: every archive
    remote_address: str | None = None
    may_store: bool = True  # False: came by the AE title of a virtual archive
    may_reject: bool = False  # what it rejects is gone
    dicom_node_id: int | None = None  # the registered node that calls, if it is one
    names_user: bool = False  # the node has said who its user is, and proved it


def operator(subject: str) -> Access:
    """Return the access of somebody who runs the `bfr` command on the machine itself."""
    return Access(kind="operator", subject=subject, archive_ids=None)


def job(name: str) -> Access:
    """Return the access of a background job."""
    return Access(kind="job", subject=name, archive_ids=None)
