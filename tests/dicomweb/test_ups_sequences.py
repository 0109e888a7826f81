"""Whatever is asked of a workitem in whatever order, the service does what the table says."""

import dataclasses
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.dicomweb.conftest import Web
from tests.dicomweb.worklist import DISCONTINUED, PERFORMED, Worklist, new_uid

from bfr_core.workitem_states import CHANGES, Operation, State, Status, step

pytestmark = pytest.mark.asyncio(loop_scope="module")

RIGHT, WRONG = "1.2.3.1", "1.2.3.2"
STATE_NAMES = {operation: state for state, operation in CHANGES.items()}
# The answer to each status: by the tables of PS3.18 §11.4 to §11.8.
HTTP = {
    Status.SUCCESS: 200,
    Status.ALREADY_CANCELED: 200,
    Status.ALREADY_COMPLETED: 200,
    Status.UNKNOWN: 404,
    Status.WRONG_TRANSACTION_UID: 400,
    Status.SCHEDULED_BY_CREATION_ONLY: 400,
}


@dataclasses.dataclass
class Model:
    """What the pure table makes of the workitem."""

    state: State | None = None
    lock: str | None = None

    def ask(self, operation: Operation, transaction_uid: str | None) -> int:
        done = step(operation, self.state, self.lock, transaction_uid)
        if done.states:
            self.state = done.states[-1]
            if operation is Operation.CLAIM:
                self.lock = transaction_uid
        status = HTTP.get(done.status, 409)
        if operation is Operation.UPDATE and done.status is Status.NO_LONGER_UPDATED:
            return 400
        if operation is Operation.REQUEST_CANCEL and status == 200:
            return 202
        return 201 if operation is Operation.CREATE and status == 200 else status


asked = st.lists(
    st.tuples(
        st.sampled_from(list(Operation)), st.sampled_from([RIGHT, RIGHT, RIGHT, WRONG, None])
    ),
    max_size=14,
)


async def send(
    worklist: Worklist, uid: str, operation: Operation, transaction_uid: str | None
) -> int:
    if operation is Operation.CREATE:
        answer = await worklist.create(uid)
        if answer.status_code == 201:  # so that a request for cancellation is heard
            await worklist.subscribe(uid, "WATCHER")
    elif operation is Operation.UPDATE:
        # What both final states require, so that the table alone decides.
        answer = await worklist.update(uid, {**PERFORMED, **DISCONTINUED}, transaction_uid)
    elif operation is Operation.REQUEST_CANCEL:
        answer = await worklist.cancel(uid)
    else:
        answer = await worklist.change(uid, STATE_NAMES[operation], transaction_uid)
    return answer.status_code


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def worklist(shared: Web) -> AsyncIterator[Worklist]:
    yield Worklist(shared)


@pytest.mark.conforms("PS3.4 §CC.1.1", "Every sequence of requests goes as the table says")
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(asked=asked)
async def test_the_service_does_what_the_table_says(
    worklist: Worklist, asked: list[tuple[Operation, str | None]]
) -> None:
    uid, model = new_uid(), Model()
    # Nobody completes what has no performed procedure: an update comes right after the claim.
    for operation, transaction_uid in [(Operation.CREATE, None), *asked]:
        expected = model.ask(operation, transaction_uid)
        assert await send(worklist, uid, operation, transaction_uid) == expected, operation
        if operation is Operation.CLAIM and expected == 200:
            assert await send(worklist, uid, Operation.UPDATE, model.lock) == 200
        assert (await worklist.get(uid))["00741000"]["Value"] == [model.state]


async def test_nothing_can_be_asked_of_what_is_not_there(worklist: Worklist) -> None:
    for operation in Operation:
        if operation is not Operation.CREATE:
            assert await send(worklist, "1.2.3.4.5", operation, RIGHT) == 404
