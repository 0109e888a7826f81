"""Who may call, and how much: hosts, users, limits of nodes (PS3.8 §9.3.4, PS3.7 §D.3.3.7)."""

import asyncio
import hashlib
import hmac
import json
import logging
import sys
import time
from base64 import urlsafe_b64encode

import pynetdicom
import pytest
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from tests.conftest import House

from bfr_core import node_terms
from bfr_core.access import operator
from bfr_core.errors import Denied, Invalid, NotFound, Unavailable
from bfr_core.node_terms import NodeTerms, Shown
from bfr_core.store import Store
from bfr_legacy.dimse.refusals import Refusals
from bfr_legacy.dimse.server import DimseServer

VERIFICATION = "1.2.840.10008.1.1"
SECRET = "of this node alone"
NO_REASON = (1, 1, 1)
CALLING_NOT_RECOGNISED = (1, 1, 3)
LOCAL_LIMIT = (2, 3, 2)


async def set_terms(store: Store, **changes: object) -> None:
    async with store.database.transaction() as tx:
        await node_terms.set_terms(tx, operator("test"), "PACS of ARCHIVE", "MODALITY", **changes)


async def add_user(store: Store, username: str, password: str = "") -> None:
    async with store.database.transaction() as tx:
        await node_terms.add_user(
            tx, operator("test"), "PACS of ARCHIVE", "MODALITY", username, password
        )


def identity(kind: int, primary: bytes, secondary: bytes = b"") -> UserIdentityNegotiation:
    item = UserIdentityNegotiation()
    item.user_identity_type = kind
    item.primary_field = primary
    if kind == 2:
        item.secondary_field = secondary
    item.positive_response_requested = True
    return item


async def call(port: int, item: UserIdentityNegotiation | None = None) -> Association:
    def associate() -> Association:
        entity = pynetdicom.AE("MODALITY")
        entity.add_requested_context(VERIFICATION)
        items = [item] if item is not None else []
        return entity.associate("127.0.0.1", port, ae_title="ARCHIVE", ext_neg=items)  # type: ignore[arg-type]

    return await asyncio.to_thread(associate)


async def call_until_admitted(port: int) -> Association:
    """Call again until the association before has ended at the other side too."""
    async with asyncio.timeout(60):
        while True:
            association = await call(port)
            if association.is_established:
                return association
            await asyncio.sleep(0.02)


def rejection(association: Association) -> tuple[int, int, int]:
    answer = association.acceptor.primitive
    assert association.is_rejected
    assert answer is not None
    return (answer.result, answer.result_source, answer.diagnostic)  # type: ignore[return-value]


async def release(association: Association) -> None:
    assert association.is_established
    await asyncio.to_thread(association.release)


# Hosts ---------------------------------------------------------------------------------------


@pytest.mark.conforms("PS3.8 §9.3.4", "a node that calls from another host is rejected")
async def test_a_call_from_another_host_is_rejected(dimse: DimseServer, store: Store) -> None:
    async with store.database.transaction() as tx:
        await tx.run("UPDATE dicom_node SET host = '127.0.0.2'")
    assert rejection(await call(dimse.port)) == CALLING_NOT_RECOGNISED
    await set_terms(store, host_checked=False)
    await release(await call(dimse.port))


async def test_a_host_is_found_by_its_name(dimse: DimseServer, store: Store) -> None:
    async with store.database.transaction() as tx:
        await tx.run("UPDATE dicom_node SET host = 'localhost'")
    await release(await call(dimse.port))


async def test_a_host_without_an_address_is_no_reason_to_refuse_for_good(store: Store) -> None:
    with pytest.raises(Unavailable):
        await node_terms.check_call(NodeTerms(), [], "nowhere.invalid", "127.0.0.1", Shown())


async def test_an_address_that_came_over_ipv6_is_the_same(store: Store) -> None:
    await node_terms.check_call(NodeTerms(), [], "127.0.0.1", "::ffff:127.0.0.1", Shown())
    with pytest.raises(Denied):
        await node_terms.check_call(NodeTerms(), [], "::1", "127.0.0.1", Shown())


# Users ---------------------------------------------------------------------------------------


@pytest.mark.conforms("PS3.7 §D.3.3.7", "user identity is not looked at where none is configured")
async def test_a_user_is_accepted_unseen_where_none_is_configured(dimse: DimseServer) -> None:
    association = await call(dimse.port, identity(1, b"anybody"))
    assert association.acceptor.user_identity is None
    await release(association)


@pytest.mark.conforms("PS3.7 §D.3.3.7", "username, username and passcode")
async def test_users_of_a_node_are_checked(dimse: DimseServer, store: Store) -> None:
    await add_user(store, "anna")
    await add_user(store, "bo", "a passcode")
    association = await call(dimse.port, identity(1, b"anna"))
    assert association.acceptor.user_identity is not None
    await release(association)
    await release(await call(dimse.port, identity(2, b"bo", b"a passcode")))
    for refused in (
        identity(1, b"nobody"),
        identity(1, b"bo"),
        identity(2, b"bo", b"another"),
        identity(3, b"a ticket"),
        identity(5, b"a token"),
    ):
        assert rejection(await call(dimse.port, refused)) == NO_REASON
    await release(await call(dimse.port))
    await set_terms(store, identity_required=True)
    assert rejection(await call(dimse.port)) == NO_REASON


async def test_the_user_is_on_record_and_the_passcode_nowhere(
    dimse: DimseServer, store: Store
) -> None:
    await add_user(store, "bo", "a passcode")
    await release(await call(dimse.port, identity(2, b"bo", b"a passcode")))
    async with store.database.transaction() as tx:
        user = await tx.value(
            "SELECT detail ->> 'user' FROM audit_record WHERE detail ? 'user'"
            " AND action = 'associate'"
        )
        kept = await tx.value("SELECT password_digest FROM node_user")
        told = await tx.value("SELECT string_agg(detail::text, '') FROM audit_record")
    assert user == "bo"
    assert "a passcode" not in kept + told


def token(secret: str = SECRET, algorithm: str = "HS256", **claims: object) -> bytes:
    parts = [{"alg": algorithm}, {"sub": "anna", "exp": time.time() + 3600, **claims}]
    signed = b".".join(_part(json.dumps(part).encode()) for part in parts)
    return signed + b"." + _part(hmac.digest(secret.encode(), signed, hashlib.sha256))


def _part(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


@pytest.mark.conforms("PS3.7 §D.3.3.7", "JSON Web Token")
async def test_a_token_is_checked(dimse: DimseServer, store: Store) -> None:
    await set_terms(store, jwt_secret=SECRET)
    await release(await call(dimse.port, identity(5, token())))
    for refused in (
        token(secret="another"),
        token(algorithm="none"),
        token(exp=time.time() - 3600),
        token(nbf=time.time() + 3600),
        token(exp=None),
        token(sub=""),
        token()[:-4],
        b"..",
        b"\xff.\xff.\xff",
    ):
        assert rejection(await call(dimse.port, identity(5, refused))) == NO_REASON


# Limits --------------------------------------------------------------------------------------


async def test_a_node_has_no_more_associations_than_agreed(
    dimse: DimseServer, store: Store
) -> None:
    await set_terms(store, associations_max=1)
    first = await call(dimse.port)
    assert first.is_established
    assert rejection(await call(dimse.port)) == LOCAL_LIMIT
    await release(first)
    second = await call_until_admitted(dimse.port)
    await release(second)


async def test_a_node_calls_no_more_often_than_agreed(dimse: DimseServer, store: Store) -> None:
    await set_terms(store, associations_per_minute_max=2)
    for _ in range(2):
        await release(await call(dimse.port))
    assert rejection(await call(dimse.port)) == LOCAL_LIMIT


async def test_processes_on_one_port_count_together(dimse: DimseServer, store: Store) -> None:
    """What a second process has open counts, and no longer when that process is gone."""
    await set_terms(store, associations_max=1, associations_per_minute_max=3)
    second = [sys.executable, "-c", SECOND_PROCESS, str(store.settings.run_dir / "nodes")]
    process = await asyncio.create_subprocess_exec(*second, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"entered\n"
    assert rejection(await call(dimse.port)) == LOCAL_LIMIT
    process.kill()
    await process.wait()
    for _ in range(2):
        await release(await call_until_admitted(dimse.port))
    assert rejection(await call(dimse.port)) == LOCAL_LIMIT


SECOND_PROCESS = """
import sys, time
from pathlib import Path
from bfr_core.node_terms import NodeTerms
from bfr_legacy.dimse.limits import NodeLimits

limits = NodeLimits(Path(sys.argv[1]))
terms = NodeTerms(associations_max=1, associations_per_minute_max=3)
assert limits.enter(1, terms)
print("entered", flush=True)
time.sleep(600)
"""


@pytest.mark.conforms("PS3.8 §D.1", "a node is told to send no larger PDU than agreed")
async def test_a_node_is_told_its_own_largest_pdu(dimse: DimseServer, store: Store) -> None:
    await set_terms(store, pdu_max_bytes=8192)
    association = await call(dimse.port)
    assert association.acceptor.maximum_length == 8192
    await release(association)


# In the log ----------------------------------------------------------------------------------


async def test_a_caller_that_tries_again_and_again_is_logged_once(
    dimse: DimseServer, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await set_terms(store, identity_required=True)
    with caplog.at_level(logging.WARNING, "bfr.dimse"):
        for _ in range(5):
            await call(dimse.port)
    assert len([one for one in caplog.messages if "association rejected" in one]) == 1


def test_refusals_are_told_again_after_a_while(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "bfr.dimse"):
        refusals = Refusals(interval_s=0.0)
        refusals.tell("refused: %s", "A")
        refusals.tell("refused: %s", "A")
        assert len(caplog.messages) == 2
        patient = Refusals(interval_s=3600.0)
        for number in range(3000):
            patient.tell("refused: %s", number)
        assert len(caplog.messages) == 2 + 1000


# Terms ---------------------------------------------------------------------------------------


async def test_terms_that_cannot_be_are_refused(store: Store, house: House) -> None:
    with pytest.raises(Invalid):
        await set_terms(store, pdu_max_bytes=100)
    with pytest.raises(Invalid):
        await set_terms(store, certificate="CN=modality")
    async with store.database.transaction() as tx:
        with pytest.raises(NotFound):
            await node_terms.set_terms(tx, operator("test"), "PACS of ARCHIVE", "NOBODY")
        with pytest.raises(Denied):
            await node_terms.set_terms(tx, house.node, "PACS of ARCHIVE", "MODALITY")
