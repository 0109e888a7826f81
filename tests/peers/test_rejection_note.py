"""The rejection note that we write, as dcmtk reads it."""

import asyncio
import subprocess
from pathlib import Path

from tests.conftest import House, need
from tests.core.one_series import store_files
from tests.samples import ct_series, part10_bytes

from bfr_core.access import Access
from bfr_core.rejecting import reject
from bfr_core.retrieval import retrieve_instances
from bfr_core.store import Store
from bfr_core.tombstones import Target


async def test_dcmtk_reads_our_note_as_a_key_object_selection(
    store: Store, house: House, tmp_path: Path
) -> None:
    program = need("dsrdump")
    series = ct_series(2)
    await store_files(store, house, *(part10_bytes(one) for one in series))
    access = Access("local", "loopback", None, may_reject=True)
    study = Target(series[0].StudyInstanceUID)
    rejected = await reject(
        store, access, "test", house.archive, study, "113001", "suddig på röret"
    )
    [note] = await retrieve_instances(
        store,
        access,
        "test",
        archive_id=None,
        study_instance_uid=rejected.note.study_instance_uid,
    )
    file = tmp_path / "note.dcm"
    file.write_bytes(store.blobs.read(note.stored.blob))

    def read() -> subprocess.CompletedProcess[str]:
        command = [program, "+Pc", "+Pl", str(file)]
        return subprocess.run(command, capture_output=True, text=True, check=True)

    told = await asyncio.to_thread(read)
    assert told.stdout.startswith("Key Object Selection Document")
    assert '(113001,DCM,"Rejected for Quality Reasons")' in told.stdout
    assert "suddig på röret" in told.stdout
    assert told.stdout.count("<contains IMAGE:") == 2
    assert "E: " not in told.stderr
