"""Who may call: archives by their AE title, nodes by their connection (PS3.8 §9.3.4, S-075)."""

from collections.abc import Callable
from dataclasses import dataclass

from bfr_core import connections, node_terms
from bfr_core.access import Access
from bfr_core.connections import Archive, VirtualArchive
from bfr_core.node_terms import DEFAULT_TERMS, NodeTerms, Shown
from bfr_core.store import Store
from bfr_legacy.dimse.bridge import Bridge

ADMISSION_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Peer:
    """The calling side of one association, as the core has recognised it."""

    access: Access
    archive: Archive | VirtualArchive
    calling_ae_title: str
    remote_address: str
    terms: NodeTerms = DEFAULT_TERMS

    @property
    def archive_id(self) -> int | None:
        """The archive that it may search and read; None: every one, by a virtual archive."""
        return self.archive.archive_id if isinstance(self.archive, Archive) else None


def admission(store: Store, bridge: Bridge) -> Callable[[str, str, str, Shown], Peer]:
    """Return the function that admits (called AE title, calling AE title, remote address, shown).

    It raises NotFound when the called title is no archive's, Denied when the calling title is
    no registered node of the archive's connection or not audited for the virtual archive, or the
    call is not as agreed, Unavailable when the core cannot tell.
    """

    async def admitted(called: str, calling: str, remote_address: str, shown: Shown) -> Peer:
        access, archive = await connections.admit_node(
            store.database, called, calling, remote_address, shown
        )
        terms = await node_terms.terms_of(store.database, access.dicom_node_id or 0)
        return Peer(access, archive, calling, remote_address, terms)

    def admit(called: str, calling: str, remote_address: str, shown: Shown) -> Peer:
        return bridge.run(admitted(called, calling, remote_address, shown), ADMISSION_TIMEOUT_S)

    return admit
