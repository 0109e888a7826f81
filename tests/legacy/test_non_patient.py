"""C-STORE of instances that belong to no patient (PS3.4 Annex GG)."""

import asyncio

import pynetdicom
import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from tests.conftest import House
from tests.samples.non_patient import color_palette, hanging_protocol

from bfr_core.access import operator
from bfr_core.non_patient_instances import retrieve_non_patient_instance
from bfr_core.store import Store
from bfr_legacy.dimse.server import DimseServer

KINDS = {"hanging-protocols": hanging_protocol, "color-palettes": color_palette}


def send(port: int, *datasets: Dataset) -> list[int]:
    """Store the objects on one association and return the status of each."""
    entity = pynetdicom.AE("MODALITY")
    for uid in {one.SOPClassUID for one in datasets}:
        entity.add_requested_context(uid, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="ARCHIVE")
    assert association.is_established
    assert not association.rejected_contexts
    try:
        return [association.send_c_store(one).Status for one in datasets]
    finally:
        association.release()


@pytest.mark.conforms("PS3.4 §GG.4", "Instances that belong to no patient are stored by C-STORE")
@pytest.mark.parametrize("category", KINDS)
async def test_an_instance_of_no_patient_is_stored(
    dimse: DimseServer, store: Store, house: House, category: str
) -> None:
    dataset = KINDS[category]()
    assert await asyncio.to_thread(send, dimse.port, dataset, dataset) == [0, 0]
    found = await retrieve_non_patient_instance(
        store,
        operator("test"),
        "test",
        archive_id=house.archive.archive_id,
        category=category,
        sop_instance_uid=dataset.SOPInstanceUID,
    )
    assert found.stored.transfer_syntax_uid == ExplicitVRLittleEndian
    assert b'"00080016"' in found.header
    dataset.ContentLabel = "ANOTHER"
    assert await asyncio.to_thread(send, dimse.port, dataset) == [0x0111]
