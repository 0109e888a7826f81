"""dcmjs-dimse, in Node.js, as a modality: its day over one association, plain and over TLS."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import House, need
from tests.legacy.test_callers import add_user
from tests.legacy.test_tls import Secured, authority, secured, set_terms
from tests.legacy.test_worklist_scp import item, put
from tests.samples import ct_instance, part10_bytes

__all__ = ["authority", "secured"]

FOLDER = Path(__file__).parent / "node"
STEP = "1.2.3.77"


def need_package() -> str:
    """Node.js, when its packages are there too."""
    if not (FOLDER / "node_modules" / "dcmjs-dimse").exists():
        reason = "dcmjs-dimse is not installed: run `npm install` in tests/peers/node"
        if os.environ.get("BFR_REQUIRE_PEERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return need("node")


async def day(task: dict[str, Any]) -> dict[str, Any]:
    """Have the peer do its task and return what it was answered."""
    process = await asyncio.create_subprocess_exec(
        need_package(),
        "peer.mjs",
        cwd=FOLDER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(120):
        out, error = await process.communicate(json.dumps(task).encode())
    assert process.returncode == 0, error.decode()
    answer: dict[str, Any] = json.loads(out.splitlines()[-1])  # before it comes its log
    return answer


@pytest.mark.parametrize("over_tls", [False, True], ids=["plain", "tls"])
async def test_a_modality_of_another_language_has_its_day(
    secured: Secured, house: House, tmp_path: Path, *, over_tls: bool
) -> None:
    need_package()
    await put(secured.store, house, item(1))
    await add_user(secured.store, "anna", "a passcode")
    await set_terms(secured.store, identity_required=True, tls_required=over_tls)
    image = ct_instance(StudyInstanceUID="1.2.3.1", AccessionNumber="ACC1")
    file = tmp_path / "image.dcm"
    file.write_bytes(part10_bytes(image))
    told = await day(
        {
            "port": secured.port if over_tls else secured.server.port,
            "tls": {
                "key": str(secured.node.key),
                "cert": str(secured.node.certificate),
                "ca": str(secured.authority.certificate),
            }
            if over_tls
            else None,
            "calling": "MODALITY",
            "called": "ARCHIVE",
            "user": {"name": "anna", "passcode": "a passcode"},
            "linger_ms": 4000,
            "worklist": {
                "PatientName": "",
                "AccessionNumber": "",
                "ScheduledProcedureStepSequence": [
                    {"Modality": "CT", "ScheduledProcedureStepStatus": ""}
                ],
            },
            "step": STEP,
            "begun": {
                "ScheduledStepAttributesSequence": [
                    {"StudyInstanceUID": "1.2.3.1", "ScheduledProcedureStepID": "STEP1"}
                ],
                "PerformedProcedureStepID": "PPS1",
                "PerformedStationAETitle": "CT1",
                "PerformedProcedureStepStartDate": "20260310",
                "PerformedProcedureStepStartTime": "1035",
                "PerformedProcedureStepStatus": "IN PROGRESS",
                "Modality": "CT",
            },
            "file": str(file),
            "ended": {
                "PerformedProcedureStepStatus": "COMPLETED",
                "PerformedProcedureStepEndDate": "20260310",
                "PerformedProcedureStepEndTime": "1050",
                "PerformedSeriesSequence": [{"SeriesInstanceUID": str(image.SeriesInstanceUID)}],
            },
            "commitment": {
                "TransactionUID": "1.2.3.4.5",
                "ReferencedSOPSequence": [
                    {
                        "ReferencedSOPClassUID": str(image.SOPClassUID),
                        "ReferencedSOPInstanceUID": str(image.SOPInstanceUID),
                    }
                ],
            },
        }
    )
    assert set(told["statuses"].values()) == {0}, told
    assert len(told["statuses"]) == 6
    assert told["worklist"][0]["AccessionNumber"] == "ACC1"
    assert told["report"]["type"] == 1
    async with secured.store.database.transaction() as tx:
        status = await tx.value("SELECT status FROM examination")
    assert status == "COMPLETED"
