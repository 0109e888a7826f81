"""The states of a workitem, as one table (PS3.4 table CC.1.1-2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

State = Literal["SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED"]
FINAL_STATES: tuple[State, State] = ("COMPLETED", "CANCELED")
STATES: tuple[State, ...] = ("SCHEDULED", "IN PROGRESS", *FINAL_STATES)


class Status(Enum):
    """What a request is answered with; the value is the status of PS3.4 §CC.2."""

    SUCCESS = 0x0000
    ALREADY_CANCELED = 0xB304  # a warning: what was asked for is so
    ALREADY_COMPLETED = 0xB306  # a warning, too
    DUPLICATE = 0x0111
    NO_LONGER_UPDATED = 0xC300
    WRONG_TRANSACTION_UID = 0xC301
    ALREADY_IN_PROGRESS = 0xC302
    SCHEDULED_BY_CREATION_ONLY = 0xC303
    FINAL_STATE_REQUIREMENTS = 0xC304
    UNKNOWN = 0xC307
    NOT_IN_PROGRESS = 0xC310
    COMPLETED_ALREADY = 0xC311  # to a request for cancellation
    PERFORMER_CANNOT_BE_CONTACTED = 0xC312


class Operation(Enum):
    """What may be asked of a workitem; the value names it in messages."""

    CREATE = "create"
    SCHEDULE = "change to SCHEDULED"
    CLAIM = "change to IN PROGRESS"
    COMPLETE = "change to COMPLETED"
    CANCEL = "change to CANCELED"
    UPDATE = "update"
    REQUEST_CANCEL = "request cancellation"


CHANGES: Mapping[str, Operation] = {
    "SCHEDULED": Operation.SCHEDULE,
    "IN PROGRESS": Operation.CLAIM,
    "COMPLETED": Operation.COMPLETE,
    "CANCELED": Operation.CANCEL,
}


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of a request: its status and the states that are gone through, each reported."""

    status: Status
    states: tuple[State, ...] = ()


def _refused(status: Status) -> Step:
    return Step(status)


# With the right Transaction UID, by the state that the workitem is in; None: there is none.
# Before anybody has claimed a workitem every Transaction UID is right for the claim.
TABLE: Mapping[Operation, Mapping[State | None, Step]] = {
    Operation.CREATE: {
        None: Step(Status.SUCCESS, ("SCHEDULED",)),
        "SCHEDULED": _refused(Status.DUPLICATE),
        "IN PROGRESS": _refused(Status.DUPLICATE),
        "COMPLETED": _refused(Status.DUPLICATE),
        "CANCELED": _refused(Status.DUPLICATE),
    },
    Operation.SCHEDULE: {
        None: _refused(Status.UNKNOWN),
        "SCHEDULED": _refused(Status.SCHEDULED_BY_CREATION_ONLY),
        "IN PROGRESS": _refused(Status.SCHEDULED_BY_CREATION_ONLY),
        "COMPLETED": _refused(Status.SCHEDULED_BY_CREATION_ONLY),
        "CANCELED": _refused(Status.SCHEDULED_BY_CREATION_ONLY),
    },
    Operation.CLAIM: {
        None: _refused(Status.UNKNOWN),
        "SCHEDULED": Step(Status.SUCCESS, ("IN PROGRESS",)),
        "IN PROGRESS": _refused(Status.ALREADY_IN_PROGRESS),
        "COMPLETED": _refused(Status.NO_LONGER_UPDATED),
        "CANCELED": _refused(Status.NO_LONGER_UPDATED),
    },
    Operation.COMPLETE: {
        None: _refused(Status.UNKNOWN),
        "SCHEDULED": _refused(Status.NOT_IN_PROGRESS),
        "IN PROGRESS": Step(Status.SUCCESS, ("COMPLETED",)),
        "COMPLETED": Step(Status.ALREADY_COMPLETED),
        "CANCELED": _refused(Status.NO_LONGER_UPDATED),
    },
    Operation.CANCEL: {
        None: _refused(Status.UNKNOWN),
        "SCHEDULED": _refused(Status.NOT_IN_PROGRESS),
        "IN PROGRESS": Step(Status.SUCCESS, ("CANCELED",)),
        "COMPLETED": _refused(Status.NO_LONGER_UPDATED),
        "CANCELED": Step(Status.ALREADY_CANCELED),
    },
    # §CC.2.6.2 and §CC.2.6.3: no lock before the claim, none that opens after the end.
    Operation.UPDATE: {
        None: _refused(Status.UNKNOWN),
        "SCHEDULED": Step(Status.SUCCESS),
        "IN PROGRESS": Step(Status.SUCCESS),
        "COMPLETED": _refused(Status.NO_LONGER_UPDATED),
        "CANCELED": _refused(Status.NO_LONGER_UPDATED),
    },
    # Needs no Transaction UID. In progress it is the performer who decides (§CC.2.2.3).
    Operation.REQUEST_CANCEL: {
        None: _refused(Status.UNKNOWN),
        "SCHEDULED": Step(Status.SUCCESS, ("IN PROGRESS", "CANCELED")),
        "IN PROGRESS": Step(Status.SUCCESS),
        "COMPLETED": _refused(Status.COMPLETED_ALREADY),
        "CANCELED": Step(Status.ALREADY_CANCELED),
    },
}
LOCKED = (Operation.CLAIM, Operation.COMPLETE, Operation.CANCEL)


def step(
    operation: Operation, state: State | None, lock: str | None, transaction_uid: str | None
) -> Step:
    """Return what becomes of the request in this state (PS3.4 table CC.1.1-2).

    `lock` is the Transaction UID of the workitem, None before it is claimed; `transaction_uid`
    the one of the request. The final state requirements, which need the data set, come on top.
    """
    if operation in LOCKED and state is not None:
        is_right = transaction_uid is not None and lock in (None, transaction_uid)
        if operation is Operation.CLAIM or state != "SCHEDULED":
            if not is_right:
                return Step(Status.WRONG_TRANSACTION_UID)
        elif transaction_uid is None:
            return Step(Status.WRONG_TRANSACTION_UID)
    if operation is Operation.UPDATE:
        if state == "SCHEDULED" and transaction_uid is not None:
            return Step(Status.NOT_IN_PROGRESS)
        if state == "IN PROGRESS" and transaction_uid != lock:
            return Step(Status.WRONG_TRANSACTION_UID)
    return TABLE[operation][state]
