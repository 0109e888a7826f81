"""Storage SCP: C-STORE of any storage SOP class in any transfer syntax (PS3.4 Annex B).

The data set goes to the core as it arrives, byte for byte; Success is answered when the core
has committed it.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from bfr_core.connections import Archive
from bfr_core.errors import ArchiveError, Denied, Invalid
from bfr_core.non_patient_categories import CATEGORY_OF
from bfr_core.observation import Observation
from bfr_core.receiving import Incoming, Received, Reception
from bfr_core.registration_batch import Outcome
from bfr_core.store import Store
from bfr_legacy.dimse.bridge import Bridge
from bfr_legacy.dimse.negotiation import DICOM_ROOT, Service, is_uid
from bfr_legacy.dimse.peers import Peer
from bfr_legacy.dimse.status import (
    PROCESSING_FAILURE,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    answer_to,
    outcome_of_status,
)

T = TypeVar("T")

DOOR = "C-STORE"
COMMIT_TIMEOUT_S = 60.0
# Storage SOP classes are numbered below this root, but for a few that pynetdicom lists: classes
# that came after its release are known by it.
STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
INVENTORY_ROOT = "1.2.840.10008.5.1.4.1.1.201."  # objects and services about storage itself

log = logging.getLogger("bfr.dimse")


def storage(store: Store, bridge: Bridge) -> Service:
    """Return the Storage service of the archive."""

    def commit(received: Received) -> Outcome:
        received.sync()  # here, in the association's own thread, while others commit
        outcome = store.continuing.commit(received)
        return outcome or bridge.run(store.commit([received]), COMMIT_TIMEOUT_S)[0]

    def stay(peer: Peer) -> StorageStay:
        def open_reception() -> Reception:
            if not isinstance(peer.archive, Archive):
                raise Denied("a virtual archive stores nothing")
            return Reception(store, peer.access, peer.archive, DOOR, takes_non_patient=True)

        return StorageStay(open_reception=open_reception, commit=commit)

    private = store.settings.dimse_private_storage_sop_classes
    return Service(name=DOOR, answers_for=lambda uid: is_storage(uid, private), stay=stay)


def is_storage(abstract_syntax: str, private: Sequence[str] = ("*",)) -> bool:
    """Tell whether the UID is a storage SOP class: every one of DICOM's, and private ones.

    Those of no patient are storage too (PS3.4 Annex GG). A private UID says nothing about its
    service: `private` names those that are storage, whole, by a root that ends with a dot, or all
    of them by "*" (PS3.4 §B.5, PS3.2 on private classes).
    """
    service_class = uid_to_service_class(abstract_syntax)
    if service_class is StorageServiceClass or abstract_syntax in CATEGORY_OF:
        return True
    if service_class is not ServiceClass or not is_uid(abstract_syntax):
        return False
    if abstract_syntax.startswith(DICOM_ROOT):
        return abstract_syntax.startswith(STORAGE_ROOT) and not abstract_syntax.startswith(
            INVENTORY_ROOT
        )
    return any(
        one in ("*", abstract_syntax) or (one.endswith(".") and abstract_syntax.startswith(one))
        for one in private
    )


class StorageStay:
    """The C-STORE requests of one association, one after the other.

    Nothing here raises: a fault becomes the status of the object at hand, whose remaining bytes
    are let fall, and the association lives on.
    """

    def __init__(
        self, open_reception: Callable[[], Reception], commit: Callable[[Received], Outcome]
    ) -> None:
        self._open_reception = open_reception
        self._commit = commit
        self._reception: Reception | None = None
        self._incoming: Incoming | None = None
        self._refusal: tuple[int, str] | None = None
        self._sop_instance_uid = ""
        self._observation: Observation | None = None
        self.stored = 0
        self.refused = 0

    def begin(
        self,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        context_sop_class_uid: str,
        transfer_syntax_uid: str,
    ) -> None:
        """Take the next object; its data set follows in `write`.

        `context_sop_class_uid` is empty when the presentation context is not one of storage.
        """
        self._refusal = None
        self._observation = Observation(DOOR)
        self._sop_instance_uid = sop_instance_uid
        if sop_class_uid != context_sop_class_uid:
            self.refuse(SOP_CLASS_NOT_SUPPORTED, "the presentation context is of another SOP class")
            return

        def start() -> Incoming:
            if not is_uid(sop_class_uid) or not is_uid(sop_instance_uid):
                raise Invalid("Affected SOP Class UID or SOP Instance UID is missing or no UID")
            if self._reception is None:
                self._reception = self._open_reception()
            return self._reception.incoming_dataset(
                transfer_syntax_uid=transfer_syntax_uid,
                sop_class_uid=sop_class_uid,
                sop_instance_uid=sop_instance_uid,
            )

        self._incoming = self._attempt(start)

    def refuse(self, status: int, message: str) -> None:
        """Let the object at hand fall and remember what to answer."""
        self.abort()
        if self._refusal is None:
            self._refusal = (status, message)

    def write(self, data: memoryview) -> None:
        """Pass on the next bytes of the data set."""
        if self._observation is not None:
            self._observation.received_bytes += len(data)
        incoming = self._incoming
        if incoming is not None:
            self._attempt(lambda: incoming.write(data))

    def finish(self) -> tuple[int, str]:
        """Return Status and Error Comment for the object, Success once it is committed."""
        status, message = self._finish()
        self._observed(outcome_of_status(status))
        return status, message

    def _observed(self, outcome: str) -> None:
        observation, self._observation = self._observation, None
        if observation is not None:
            observation.end(outcome)

    def _finish(self) -> tuple[int, str]:
        incoming, self._incoming = self._incoming, None
        if incoming is not None and self._refusal is None:
            received = self._attempt(incoming.finish)
            if received is not None:
                outcome = self._attempt(lambda: self._commit(received))
                if outcome is not None and outcome.error is not None:
                    self._refuse_error(outcome.error)
        if self._refusal is None:
            self.stored += 1
            return SUCCESS, ""
        self.refused += 1
        status, message = self._refusal
        log.warning(
            "C-STORE refused: sop_instance_uid=%s status=%04X reason=%s",
            self._sop_instance_uid if is_uid(self._sop_instance_uid) else "?",
            status,
            message,
        )
        return status, message

    def abort(self) -> None:
        """Forget an object that has not arrived whole."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            self._attempt(incoming.abort)

    def close(self) -> None:
        """End the stay."""
        self.abort()
        self._observed("aborted")
        reception, self._reception = self._reception, None
        if reception is not None:
            self._attempt(reception.close)

    def _attempt(self, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except ArchiveError as error:
            self._refuse_error(error)
        except Exception:  # the edge: one object fails, whatever the fault, and is answered for
            log.exception("C-STORE failed")
            self.refuse(PROCESSING_FAILURE, "the archive failed to process the object")
        return None

    def _refuse_error(self, error: ArchiveError) -> None:
        self.refuse(answer_to(error).status, error.message)
