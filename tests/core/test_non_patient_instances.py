"""Instances of no patient: the packs tell of them, and nothing sweeps them away."""

import os

import pytest
from tests.conftest import House
from tests.core.test_rebuilding import empty, quietly
from tests.samples import part10_bytes
from tests.samples.non_patient import color_palette, hanging_protocol

from bfr_core import cases
from bfr_core.access import operator
from bfr_core.errors import Invalid, NotFound
from bfr_core.non_patient_instances import (
    NonPatientInstance,
    retrieve_non_patient_instance,
    search_non_patient_instances,
)
from bfr_core.postgres import Cluster
from bfr_core.rebuilding import Rebuilt, keep_connections, rebuild
from bfr_core.receiving import Received, Reception
from bfr_core.store import Store
from bfr_core.sweeping import sweep_all
from bfr_core.verifying import verify_all, verify_for_a_while

WHO = operator("the operator")


def receive(reception: Reception, *files: bytes) -> list[Received]:
    received = []
    for data in files:
        incoming = reception.incoming_part10()
        incoming.write(data)
        received.append(incoming.finish())
    return received


async def store_all(store: Store, house: House, *files: bytes) -> None:
    reception = Reception(store, house.node, house.archive, "C-STORE", takes_non_patient=True)
    outcomes = await store.commit(receive(reception, *files))
    reception.close()
    assert [outcome.error for outcome in outcomes] == [None] * len(files)


async def found(store: Store, category: str, uid: str) -> NonPatientInstance:
    return await retrieve_non_patient_instance(
        store, WHO, "test", archive_id=None, category=category, sop_instance_uid=uid
    )


async def count_found(store: Store, category: str) -> int:
    return len(
        await search_non_patient_instances(
            store, WHO, "test", archive_id=None, category=category, matches=[], limit=9, offset=0
        )
    )


async def test_the_index_is_built_again_from_packs_alone(
    store: Store, house: House, cluster: Cluster
) -> None:
    protocol, palette = hanging_protocol(), color_palette()
    await store_all(store, house, part10_bytes(protocol), part10_bytes(palette))
    await keep_connections(store)
    async with empty(cluster, store.settings) as again:
        assert await rebuild(again, WHO, quietly) == Rebuilt(packs=1, instances=2)
        for category, dataset in (("hanging-protocols", protocol), ("color-palettes", palette)):
            assert await count_found(again, category) == 1
            before = await found(store, category, dataset.SOPInstanceUID)
            assert await found(again, category, dataset.SOPInstanceUID) == before
            assert again.blobs.read(before.stored.blob) == part10_bytes(dataset)
        # A second time, over what is there, brings nothing twice.
        assert (await rebuild(again, WHO, quietly, force=True)).known == 2
        assert await count_found(again, "color-palettes") == 1


async def test_what_is_registered_stays_and_what_is_not_is_swept_away(
    store: Store, house: House
) -> None:
    protocol = hanging_protocol()
    await store_all(store, house, part10_bytes(protocol))
    reception = Reception(store, house.node, house.archive, "C-STORE", takes_non_patient=True)
    receive(reception, part10_bytes(color_palette()))  # nobody commits it
    reception.close()
    packs = list(store.blobs.directory.rglob("*.pack"))
    assert len(packs) == 2
    for path in packs:
        os.utime(path, (0, 0))
    swept = await sweep_all(store)
    assert (len(swept.removed), swept.unclear) == (1, [])
    kept = await found(store, "hanging-protocols", protocol.SOPInstanceUID)
    assert store.blobs.read(kept.stored.blob) == part10_bytes(protocol)


async def test_an_object_that_names_a_study_is_of_that_study(store: Store, house: House) -> None:
    reception = Reception(store, house.node, house.archive, "C-STORE", takes_non_patient=True)
    with pytest.raises(Invalid, match="Series Instance UID"):
        receive(reception, part10_bytes(hanging_protocol(StudyInstanceUID="1.2.3")))
    reception.close()


async def test_doors_that_do_not_take_them_refuse_them(store: Store, house: House) -> None:
    reception = Reception(store, house.node, house.archive, "STOW-RS")
    with pytest.raises(Invalid, match="Study Instance UID"):
        receive(reception, part10_bytes(hanging_protocol()))
    reception.close()


async def test_who_may_not_read_the_archive_does_not_learn_of_it(
    store: Store, house: House
) -> None:
    protocol = hanging_protocol()
    await store_all(store, house, part10_bytes(protocol))
    with pytest.raises(NotFound):
        await retrieve_non_patient_instance(
            store,
            house.node,
            "test",
            archive_id=house.archive.archive_id + 1,
            category="hanging-protocols",
            sop_instance_uid=protocol.SOPInstanceUID,
        )


async def test_damaged_and_missing_bytes_are_cases_until_they_are_whole(
    store: Store, house: House
) -> None:
    protocol = hanging_protocol()
    await store_all(store, house, part10_bytes(protocol))
    (pack,) = store.blobs.directory.rglob("*.pack")
    whole = pack.read_bytes()

    async def open_cases() -> list[tuple[str, str]]:
        async with store.database.transaction() as tx:
            return [
                (one.kind, one.sop_instance_uid)
                for one in await cases.list_cases(tx, WHO, closed=False)
            ]

    pack.write_bytes(whole[:-1] + b"\xff")
    verified = await verify_all(store, quietly)
    assert verified.found == [("damaged_object", protocol.SOPInstanceUID)]
    assert verified.instances == 1
    assert await open_cases() == [("damaged_object", protocol.SOPInstanceUID)]
    pack.unlink()
    await verify_for_a_while(store, lambda: False)
    assert ("missing_object", protocol.SOPInstanceUID) in await open_cases()
    pack.write_bytes(whole)
    assert (await verify_all(store, quietly)).found == []
    assert await open_cases() == []
