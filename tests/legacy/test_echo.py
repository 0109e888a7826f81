"""Verification, and who may call at all (PS3.4 Annex A, PS3.8 §9.3.4)."""

import asyncio
import socket
import subprocess
from collections.abc import Callable

import pytest
from tests.conftest import House, add_house, need
from tests.legacy.raw_peer import A_ASSOCIATE_RJ, CT, EXPLICIT, RawPeer, associate_rq

from bfr_core import roles
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store
from bfr_legacy.dimse.bridge import Bridge
from bfr_legacy.dimse.server import DimseServer, dimse_server, serve_dimse

ASSOCIATIONS = """
    SELECT caller, outcome, archive_id, remote_address, detail ->> 'called_ae_title' AS called
    FROM audit_record WHERE action = 'associate'
"""


async def echo(
    port: int, *, called: str = "ARCHIVE", calling: str = "MODALITY"
) -> subprocess.CompletedProcess[str]:
    command = [need("echoscu"), "-aet", calling, "-aec", called, "127.0.0.1", str(port)]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.conforms("PS3.4 §A.2", "a registered node that verifies gets Success")
async def test_a_registered_node_gets_success(dimse: DimseServer) -> None:
    assert (await echo(dimse.port)).returncode == 0


@pytest.mark.conforms("PS3.8 §9.3.4", "an unknown calling AE title is rejected for good")
async def test_a_calling_title_that_is_not_registered_is_rejected(
    dimse: DimseServer, store: Store, house: House
) -> None:
    answer = await echo(dimse.port, calling="STRANGER")
    assert "Result: Rejected Permanent, Source: Service User" in answer.stderr
    assert "Reason: Calling AE Title Not Recognized" in answer.stderr
    async with store.database.transaction() as tx:
        rows = await tx.rows(ASSOCIATIONS)
    assert rows == [
        {
            "caller": "STRANGER",
            "outcome": "refused",
            "archive_id": house.archive.archive_id,
            "remote_address": "127.0.0.1",
            "called": "ARCHIVE",
        }
    ]


@pytest.mark.conforms("PS3.8 §9.3.4", "an unknown called AE title is rejected for good")
async def test_a_called_title_that_is_no_archive_is_rejected(dimse: DimseServer) -> None:
    answer = await echo(dimse.port, called="NOWHERE")
    assert "Result: Rejected Permanent, Source: Service User" in answer.stderr
    assert "Reason: Called AE Title Not Recognized" in answer.stderr


async def test_a_node_may_call_the_archive_of_its_own_connection_only(
    dimse: DimseServer, store: Store
) -> None:
    await add_house(store, "OTHER", "OTHERNODE")
    assert (await echo(dimse.port, called="OTHER", calling="OTHERNODE")).returncode == 0
    answer = await echo(dimse.port, called="OTHER", calling="MODALITY")
    assert "Reason: Calling AE Title Not Recognized" in answer.stderr


async def test_a_node_registered_while_the_server_runs_may_call(
    dimse: DimseServer, store: Store
) -> None:
    assert (await echo(dimse.port, called="LATER", calling="LATERNODE")).returncode != 0
    await add_house(store, "LATER", "LATERNODE")
    assert (await echo(dimse.port, called="LATER", calling="LATERNODE")).returncode == 0


@pytest.mark.conforms("PS3.8 §9.3.4", "who cannot be asked for now is told to come back")
async def test_without_a_database_the_caller_is_told_to_come_back(
    dimse: DimseServer, store: Store
) -> None:
    await store.database.pool.close()
    answer = await echo(dimse.port)
    assert "Result: Rejected Transient" in answer.stderr
    assert "Reason: Temporary Congestion" in answer.stderr


async def test_callers_beyond_the_limit_are_told_to_come_back(
    house: House, with_settings: Callable[..., Settings]
) -> None:
    async with open_store(with_settings(dimse_max_associations=1)) as store:
        bridge = Bridge(asyncio.get_running_loop())
        server = dimse_server(store, bridge)
        server.start()
        try:
            with await asyncio.to_thread(RawPeer, server.port) as peer:
                await asyncio.to_thread(peer.associate)
                answer = await echo(server.port)
        finally:
            await asyncio.to_thread(server.stop, 0.0)
    assert "Result: Rejected Transient" in answer.stderr
    assert "Reason: Local Limit Exceeded" in answer.stderr


async def test_ae_titles_are_compared_without_the_spaces_around_them(dimse: DimseServer) -> None:
    request = associate_rq([(CT, [EXPLICIT])], called=" ARCHIVE", calling=" MODALITY")
    with await asyncio.to_thread(RawPeer, dimse.port) as peer:
        await asyncio.to_thread(peer.send, request)
        assert (await asyncio.to_thread(peer.read))[0] != A_ASSOCIATE_RJ


async def test_the_role_serves_until_it_is_told_to_stop(
    store: Store, house: House, with_settings: Callable[..., Settings]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with open_store(with_settings(dimse_port=port)) as own_store:
        stop = asyncio.Event()
        serving = asyncio.create_task(serve_dimse(own_store, stop))
        while True:
            async with store.database.transaction() as tx:
                [state] = await roles.role_states(tx, ("dimse",))
            if state.ready:
                break
            await asyncio.sleep(0.02)
        assert (await echo(port)).returncode == 0
        stop.set()
        await serving
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    async with store.database.transaction() as tx:
        [state] = await roles.role_states(tx, ("dimse",))
    assert not state.ready
