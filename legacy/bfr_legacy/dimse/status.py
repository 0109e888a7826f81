"""The five errors as DIMSE sees them: one table for statuses and association rejections.

C-STORE statuses: PS3.4 §B.2.3 (Table B.2-1) and PS3.7 Annex C. Query/Retrieve: PS3.4 §C.4.
Rejections: PS3.8 §9.3.4.
"""

from dataclasses import dataclass
from typing import NamedTuple

from bfr_core.errors import ArchiveError, Conflict, Denied, Invalid, NotFound, Unavailable
from bfr_core.metrics import outcome_of
from bfr_core.node_terms import IdentityRefused
from bfr_core.receiving import MismatchedObject
from bfr_core.registration_batch import DuplicateUid

SUCCESS = 0x0000
PENDING = 0xFF00
PENDING_WITHOUT_SOME_KEYS = 0xFF01
CANCELLED = 0xFE00
PROCESSING_FAILURE = 0x0110  # a fault of ours: PS3.7 §C.5.15
DUPLICATE_SOP_INSTANCE = 0x0111  # PS3.7 §C.5.6
SOP_CLASS_NOT_SUPPORTED = 0x0122  # PS3.7 §C.5.19
NOT_AUTHORISED = 0x0124  # PS3.7 §C.5.25
UNRECOGNISED_OPERATION = 0x0211  # PS3.7 §C.5.23
SUB_OPERATIONS_WITH_FAILURES = 0xB000
OUT_OF_RESOURCES = 0xA700
CANNOT_COUNT_MATCHES = 0xA701
CANNOT_PERFORM_SUB_OPERATIONS = 0xA702
MOVE_DESTINATION_UNKNOWN = 0xA801
IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS = 0xA900
DOES_NOT_MATCH_SOP_CLASS = 0xA900  # also: SOP Instance UID of command set and data set differ
CANNOT_UNDERSTAND = 0xC000
DOES_NOT_FIT = 0xC001  # one of the Cxxx codes: understood, but contradicts what is stored
CANCELLED = 0xFE00  # PS3.7 §C.3
NO_LONGER_HERE = 0xC002  # one of the Cxxx codes: what the object belongs to is gone

ERROR_COMMENT_MAX = 64  # Error Comment (0000,0902) is an LO


class Rejection(NamedTuple):
    """The three fields of an A-ASSOCIATE-RJ (PS3.8 §9.3.4)."""

    result: int  # 1 permanent, 2 transient
    source: int  # 1 service user, 2 provider (ACSE), 3 provider (presentation)
    reason: int


NO_REASON_GIVEN = Rejection(1, 1, 1)
APPLICATION_CONTEXT_NAME_NOT_SUPPORTED = Rejection(1, 1, 2)
CALLING_AE_TITLE_NOT_RECOGNISED = Rejection(1, 1, 3)
CALLED_AE_TITLE_NOT_RECOGNISED = Rejection(1, 1, 7)
TEMPORARY_CONGESTION = Rejection(2, 3, 1)
LOCAL_LIMIT_EXCEEDED = Rejection(2, 3, 2)
REJECTION_REASONS = {
    NO_REASON_GIVEN: "no_reason_given",
    APPLICATION_CONTEXT_NAME_NOT_SUPPORTED: "application_context_name_not_supported",
    CALLING_AE_TITLE_NOT_RECOGNISED: "calling_ae_title_not_recognised",
    CALLED_AE_TITLE_NOT_RECOGNISED: "called_ae_title_not_recognised",
    TEMPORARY_CONGESTION: "temporary_congestion",
    LOCAL_LIMIT_EXCEEDED: "local_limit_exceeded",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """How one kind of error is told to a DIMSE peer."""

    status: int  # Status (0000,0900) of a response
    rejection: Rejection  # when the error meets an association request


ANSWERS: dict[type[ArchiveError], Answer] = {
    ArchiveError: Answer(PROCESSING_FAILURE, TEMPORARY_CONGESTION),
    Invalid: Answer(CANNOT_UNDERSTAND, NO_REASON_GIVEN),
    MismatchedObject: Answer(DOES_NOT_MATCH_SOP_CLASS, NO_REASON_GIVEN),
    Denied: Answer(NOT_AUTHORISED, CALLING_AE_TITLE_NOT_RECOGNISED),
    IdentityRefused: Answer(NOT_AUTHORISED, NO_REASON_GIVEN),
    NotFound: Answer(NO_LONGER_HERE, CALLED_AE_TITLE_NOT_RECOGNISED),
    Conflict: Answer(DOES_NOT_FIT, TEMPORARY_CONGESTION),
    DuplicateUid: Answer(DUPLICATE_SOP_INSTANCE, TEMPORARY_CONGESTION),
    Unavailable: Answer(OUT_OF_RESOURCES, TEMPORARY_CONGESTION),
}


def answer_to(error: ArchiveError) -> Answer:
    """Return the row of the table for this error; a subclass without a row has its parent's."""
    return next(ANSWERS[kind] for kind in type(error).__mro__ if kind in ANSWERS)


OUTCOMES = {
    SUCCESS: "success",
    PROCESSING_FAILURE: "failed",
    SOP_CLASS_NOT_SUPPORTED: "invalid",
    CANCELLED: "aborted",
    **{answer.status: outcome_of(kind("")) for kind, answer in ANSWERS.items()},
}


def outcome_of_status(status: int) -> str:
    """Return what the status makes of a transaction, in the words of `metrics.outcome_of`."""
    if status in OUTCOMES:
        return OUTCOMES[status]
    # PS3.7 Annex C: 0001H, 0107H, 0116H and Bxxx are warnings, FF0x is pending.
    is_well = status >> 12 == 0xB or status >> 8 == 0xFF or status in (0x0001, 0x0107, 0x0116)
    return "success" if is_well else "failed"


def error_comment(message: str) -> str:
    """Return the message as an Error Comment (0000,0902): ASCII, at most 64 characters."""
    printable = "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in message)
    if len(printable) > ERROR_COMMENT_MAX:
        printable = printable[: ERROR_COMMENT_MAX - 3] + "..."
    return printable
