"""The states of a workitem: the table of the standard, and what holds for every sequence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfr_core.workitem_states import (
    FINAL_STATES,
    LOCKED,
    STATES,
    Operation,
    State,
    Status,
    Step,
    step,
)

RIGHT, WRONG = "1.2.3", "1.2.4"

# PS3.4 table CC.1.1-2 as it is printed: with the right Transaction UID and without it, for
# none, SCHEDULED, IN PROGRESS, COMPLETED, CANCELED; a name is the state that is reached.
PRINTED = {
    (Operation.CREATE, True): ("SCHEDULED", 0x0111, 0x0111, 0x0111, 0x0111),
    (Operation.CLAIM, True): (0xC307, "IN PROGRESS", 0xC302, 0xC300, 0xC300),
    (Operation.CLAIM, False): (0xC307, 0xC301, 0xC301, 0xC301, 0xC301),
    (Operation.SCHEDULE, True): (0xC307, 0xC303, 0xC303, 0xC303, 0xC303),
    (Operation.SCHEDULE, False): (0xC307, 0xC303, 0xC303, 0xC303, 0xC303),
    (Operation.COMPLETE, True): (0xC307, 0xC310, "COMPLETED", 0xB306, 0xC300),
    (Operation.COMPLETE, False): (0xC307, 0xC301, 0xC301, 0xC301, 0xC301),
    (Operation.REQUEST_CANCEL, True): (0xC307, "CANCELED", 0x0000, 0xC311, 0xB304),
    (Operation.CANCEL, True): (0xC307, 0xC310, "CANCELED", 0xC300, 0xB304),
    (Operation.CANCEL, False): (0xC307, 0xC301, 0xC301, 0xC301, 0xC301),
}
CELLS = [
    (operation, is_right, state, expected)
    for (operation, is_right), row in PRINTED.items()
    for state, expected in zip((None, *STATES), row, strict=True)
]


@pytest.mark.conforms("PS3.4 §CC.1.1", "Each cell of the state transition table is as printed")
@pytest.mark.parametrize(("operation", "is_right", "state", "expected"), CELLS)
def test_each_cell_of_the_table_is_as_printed(
    operation: Operation, is_right: bool, state: State | None, expected: str | int
) -> None:
    lock = None if state in (None, "SCHEDULED") else RIGHT
    if is_right:
        sent: str | None = RIGHT
    else:
        sent = None if lock is None else WRONG
    done = step(operation, state, lock, sent)
    if isinstance(expected, str):
        assert (done.status, done.states[-1]) == (Status.SUCCESS, expected)
    else:
        assert (done.status.value, done.states) == (expected, ())


@pytest.mark.conforms("PS3.4 §CC.2.2.3", "A request cancels what is scheduled, by IN PROGRESS")
def test_a_scheduled_workitem_is_cancelled_through_in_progress() -> None:
    done = step(Operation.REQUEST_CANCEL, "SCHEDULED", None, None)
    assert done.states == ("IN PROGRESS", "CANCELED")


@pytest.mark.conforms("PS3.4 §CC.2.6.2", "A scheduled workitem is updated without a lock")
def test_an_update_needs_the_lock_in_progress_and_none_before() -> None:
    assert step(Operation.UPDATE, "SCHEDULED", None, None) == Step(Status.SUCCESS)
    assert step(Operation.UPDATE, "SCHEDULED", None, RIGHT) == Step(Status.NOT_IN_PROGRESS)
    assert step(Operation.UPDATE, "IN PROGRESS", RIGHT, RIGHT) == Step(Status.SUCCESS)
    for uid in (WRONG, None):
        done = step(Operation.UPDATE, "IN PROGRESS", RIGHT, uid)
        assert done == Step(Status.WRONG_TRANSACTION_UID)
    for state in FINAL_STATES:
        done = step(Operation.UPDATE, state, RIGHT, RIGHT)
        assert done == Step(Status.NO_LONGER_UPDATED)


requests = st.tuples(st.sampled_from(Operation), st.sampled_from([RIGHT, WRONG, None]))


@given(st.lists(requests, max_size=12))
def test_whatever_is_asked_a_workitem_only_goes_forward(
    asked: list[tuple[Operation, str | None]],
) -> None:
    state: State | None = None
    lock: str | None = None
    for operation, uid in asked:
        done = step(operation, state, lock, uid)
        for after in done.states:
            order: tuple[State | None, ...] = (None, *STATES)
            assert order.index(after) > order.index(state)
            assert state not in FINAL_STATES
            if after == "IN PROGRESS" and operation is Operation.CLAIM:
                lock = uid
            state = after
        if done.states and operation in LOCKED:
            assert uid == lock is not None
        if not done.states:
            assert done.status is not Status.SUCCESS or operation in (
                Operation.UPDATE,
                Operation.REQUEST_CANCEL,
            )
