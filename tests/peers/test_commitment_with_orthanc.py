"""Orthanc commits to what we ask for, and asks us, over associations of their own (PS3.4 §J)."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from tests.conftest import House, need
from tests.samples import ct_instance, part10_bytes
from tests.system import free_port

from bfr_core import commitments, connections, jobs
from bfr_core.access import operator
from bfr_core.outgoing import CommitmentResult
from bfr_core.store import Store
from bfr_legacy.dimse.bridge import Bridge
from bfr_legacy.dimse.node_calls import NodeCalls
from bfr_legacy.dimse.server import DimseServer, dimse_server

PATIENCE_S = 90.0
TRANSACTION = "1.2.3.4.5"


@pytest.fixture
async def dimse(store: Store, house: House) -> AsyncIterator[DimseServer]:
    bridge = Bridge(asyncio.get_running_loop())
    server = dimse_server(store, bridge)
    server.start()
    stop = asyncio.Event()
    working = asyncio.create_task(jobs.run_worker(store, stop, NodeCalls(None)))
    yield server
    stop.set()
    await working
    await asyncio.to_thread(server.stop, 0.0)
    bridge.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 (another program is asked)
            await asyncio.sleep(0.1)


@asynccontextmanager
async def orthanc(
    store: Store, house: House, port: int, directory: Path
) -> AsyncIterator[tuple[httpx.AsyncClient, int]]:
    """Run Orthanc as node of the house; its REST interface, and the number of the node."""
    program, http_port, dicom_port = need("Orthanc"), free_port(), free_port()
    async with store.database.transaction() as tx:
        node = await connections.add_node(
            tx, operator("test"), "PACS of ARCHIVE", "ORTHANC", "127.0.0.1", dicom_port
        )
    modality = {"AET": house.archive.ae_title, "Host": "127.0.0.1", "Port": port}
    configuration = {
        "StorageDirectory": str(directory / "storage"),
        "IndexDirectory": str(directory / "storage"),
        "HttpPort": http_port,
        "DicomPort": dicom_port,
        "DicomAet": "ORTHANC",
        "DicomModalities": {"bfr": modality},
    }
    file = directory / "orthanc.json"
    file.write_text(json.dumps(configuration))
    with (directory / "orthanc.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program, str(file), stdout=log, stderr=subprocess.STDOUT
        )
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{http_port}", timeout=60
        ) as client:

            async def answers() -> bool:
                try:
                    return (await client.get("/system")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(answers)
            yield client, node.dicom_node_id
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.conforms("PS3.4 §J.3.3", "Orthanc is told over an association that we ask for")
async def test_orthanc_hears_what_we_commit_to(
    dimse: DimseServer, store: Store, house: House, tmp_path: Path
) -> None:
    stored, missing = ct_instance(), ct_instance()
    async with orthanc(store, house, dimse.port, tmp_path) as (client, _):
        uploaded = (await client.post("/instances", content=part10_bytes(stored))).json()["ID"]
        sent = await client.post("/modalities/bfr/store", json=[uploaded])
        assert sent.status_code == 200, sent.text
        references = [[str(one.SOPClassUID), str(one.SOPInstanceUID)] for one in (stored, missing)]
        asked = await client.post(
            "/modalities/bfr/storage-commitment", json={"DicomInstances": references}
        )
        assert asked.status_code == 200, asked.text
        path = asked.json()["Path"]

        async def told() -> bool:
            return bool((await client.get(path)).json()["Status"] != "Pending")

        await until(told)
        report = (await client.get(path)).json()
    assert [one["SOPInstanceUID"] for one in report["Success"]] == [stored.SOPInstanceUID]
    [failure] = report["Failures"]
    assert failure["SOPInstanceUID"] == missing.SOPInstanceUID
    assert failure["FailureReason"] == 0x0112


@pytest.mark.conforms("PS3.4 §J.3.3", "as SCU: Orthanc tells over an association that it asks for")
async def test_orthanc_commits_to_what_we_ask_for(
    dimse: DimseServer, store: Store, house: House, tmp_path: Path
) -> None:
    stored, missing = ct_instance(), ct_instance()
    async with orthanc(store, house, dimse.port, tmp_path) as (client, node_id):
        await client.post("/instances", content=part10_bytes(stored))
        references = [(str(one.SOPClassUID), str(one.SOPInstanceUID)) for one in (stored, missing)]
        commitment_id = await commitments.request_commitment(
            store,
            operator("test"),
            house.archive.archive_id,
            node_id,
            TRANSACTION,
            references,
        )

        async def answered() -> bool:
            return await commitments.find_result(store, commitment_id) is not None

        await until(answered)
    assert await commitments.find_result(store, commitment_id) == CommitmentResult(
        (references[0],), ((*references[1], 0x0112),)
    )
