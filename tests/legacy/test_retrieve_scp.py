"""C-MOVE and C-GET of Patient Root and Study Root (PS3.4 §C.4.2–C.4.3)."""

import asyncio
import re
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    RE_VALID_UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_CANCEL
from tests.conftest import SHARED_DICOM, House, add_house
from tests.legacy.receiver import Receiver, receiver, register
from tests.legacy.requester import (
    GET,
    MOVE,
    PATIENT_ROOT,
    STUDY_ROOT,
    association,
    find,
    get,
    keep,
    key,
    move,
)
from tests.legacy.test_store_scp import serving
from tests.samples import (
    ct_instance,
    ct_series,
    dataset_bytes,
    mr_instance,
    part10_bytes,
    secondary_capture,
)

from bfr_core import connections
from bfr_core.access import operator
from bfr_core.errors import ArchiveError, Conflict, NotFound
from bfr_core.header import HeaderLimits, read_header
from bfr_core.sealing import seal_series
from bfr_core.settings import Settings
from bfr_core.store import Store
from bfr_core.transcoding import transcode
from bfr_legacy.dimse import retrieve_scp
from bfr_legacy.dimse.server import DimseServer

EXPLICIT = [ExplicitVRLittleEndian]
CT = [(CTImageStorage, EXPLICIT)]
BOTH = [(CTImageStorage, EXPLICIT), (MRImageStorage, EXPLICIT)]


class Kept:
    """Takes what a C-GET brings."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.objects: dict[str, tuple[str, bytes]] = {}

    def __call__(self, event: Any) -> int:
        self.objects[str(event.request.AffectedSOPInstanceUID)] = (
            str(event.context.transfer_syntax),
            event.request.DataSet.getvalue(),
        )
        return self.status


def data_set_of(part10: bytes) -> bytes:
    return part10[read_header(part10, HeaderLimits()).dataset_offset :]


async def seal_all(store: Store) -> None:
    async with store.database.transaction() as tx:
        rows = await tx.tuples("SELECT series_id FROM series WHERE state = 'receiving'")
    for (series_id,) in rows:
        await seal_series(store, series_id)


async def move_to(
    store: Store,
    house: House,
    dimse: DimseServer,
    identifier: Dataset,
    answer: Callable[[Any, Receiver], int] = lambda event, receiver: 0,
    contexts: Sequence[tuple[str, Sequence[str]]] = BOTH,
) -> tuple[Receiver, Any]:
    with receiver(contexts, answer) as received:
        await register(store, house, received.port)
        answers = await move(dimse.port, identifier, "RECEIVER")
    return received, answers


# What is retrieved ---------------------------------------------------------------------------


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.conforms("PS3.4 §C.4.3.1", "C-GET sends every object as it is stored")
async def test_a_study_comes_back_byte_for_byte(
    dimse: DimseServer, store: Store, house: House, sealed: bool
) -> None:
    series = ct_series(5)
    await keep(store, house, *series, ct_instance())
    if sealed:
        await seal_all(store)
    kept = Kept()
    answers = await get(
        dimse.port,
        key("STUDY", StudyInstanceUID=series[0].StudyInstanceUID),
        CT,
        on_store=kept,
    )
    assert answers.final.Status == 0
    assert answers.counts == (5, 0, 0)
    assert "NumberOfRemainingSuboperations" not in answers.final
    assert kept.objects == {
        one.SOPInstanceUID: (ExplicitVRLittleEndian, dataset_bytes(one)) for one in series
    }


@pytest.mark.parametrize("max_pdu_bytes", [0, 4096, 16_383, 1 << 20])
async def test_objects_fit_the_pdus_that_the_peer_takes(
    dimse: DimseServer, store: Store, house: House, max_pdu_bytes: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr("pynetdicom.ae.DEFAULT_MAX_LENGTH", max_pdu_bytes)
    monkeypatch.setattr("pynetdicom._globals.DEFAULT_MAX_LENGTH", max_pdu_bytes)
    large = ct_instance(rows=1024, columns=1024)  # 2 MiB: several reads
    await keep(store, house, large)
    kept = Kept()
    await get(
        dimse.port,
        key("STUDY", StudyInstanceUID=large.StudyInstanceUID),
        CT,
        on_store=kept,
    )
    assert kept.objects[large.SOPInstanceUID][1] == dataset_bytes(large)


@pytest.mark.parametrize("level", ["PATIENT", "STUDY", "SERIES", "IMAGE"])
@pytest.mark.conforms("PS3.4 §C.4.2.2.1", "each level is retrieved by its unique key")
async def test_every_level_is_retrieved(
    dimse: DimseServer, store: Store, house: House, level: str
) -> None:
    study = "1.2.3"
    series = ct_series(2, StudyInstanceUID=study, PatientID="1")
    second = ct_series(2, StudyInstanceUID=study, PatientID="1")
    later = ct_instance(PatientID="1")
    await keep(store, house, *series, *second, later, ct_instance(PatientID="2"))
    levels = ("PATIENT", "STUDY", "SERIES", "IMAGE")
    keys = {
        "PatientID": "1",
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series[0].SeriesInstanceUID,
        "SOPInstanceUID": series[1].SOPInstanceUID,
    }
    depth = levels.index(level) + 1
    kept = Kept()
    identifier = key(level, **dict(list(keys.items())[:depth]))
    await get(dimse.port, identifier, CT, root=PATIENT_ROOT, on_store=kept)
    expected = {
        "PATIENT": [*series, *second, later],
        "STUDY": [*series, *second],
        "SERIES": series,
        "IMAGE": [series[1]],
    }[level]
    assert kept.objects.keys() == {one.SOPInstanceUID for one in expected}


async def test_patients_with_the_same_id_are_told_apart_by_its_issuer(
    dimse: DimseServer, store: Store, house: House
) -> None:
    one, other = (
        ct_instance(PatientID="1", IssuerOfPatientID=issuer) for issuer in ("NORTH", "SOUTH")
    )
    await keep(store, house, one, other)
    kept = Kept()
    identifier = key("PATIENT", PatientID="1", IssuerOfPatientID="SOUTH")
    await get(dimse.port, identifier, CT, root=PATIENT_ROOT, on_store=kept)
    assert list(kept.objects) == [other.SOPInstanceUID]


async def test_a_list_of_uids_retrieves_each_of_them(
    dimse: DimseServer, store: Store, house: House
) -> None:
    studies = [ct_instance() for _ in range(3)]
    await keep(store, house, *studies)
    kept = Kept()
    wanted = [one.StudyInstanceUID for one in studies[:2]]
    await get(dimse.port, key("STUDY", StudyInstanceUID=wanted), CT, on_store=kept)
    assert kept.objects.keys() == {one.SOPInstanceUID for one in studies[:2]}


@pytest.mark.conforms("PS3.4 §C.5.2.1", "relational retrieval by extended negotiation")
async def test_an_instance_alone_is_retrieved_where_that_is_agreed(
    dimse: DimseServer, store: Store, house: House
) -> None:
    series = ct_series(3)
    await keep(store, house, *series)
    await seal_all(store)
    identifier = key("IMAGE", SOPInstanceUID=series[1].SOPInstanceUID)
    assert (await get(dimse.port, identifier, CT)).statuses == [0xA900]
    kept = Kept()
    await get(dimse.port, identifier, CT, agreed=b"\1", on_store=kept)
    assert list(kept.objects) == [series[1].SOPInstanceUID]


@pytest.mark.parametrize(
    ("identifier", "element"),
    [
        (key("", StudyInstanceUID="1.2"), 0x00080052),
        (key("SERIES", SeriesInstanceUID="1.2"), 0x0020000D),
        (key("STUDY"), 0x0020000D),
        (key("STUDY", StudyInstanceUID=""), 0x0020000D),
        (key("SERIES", StudyInstanceUID="1.2"), 0x0020000E),
    ],
)
@pytest.mark.conforms("PS3.4 §C.4.2.1.5", "an identifier that does not match is A900, with element")
async def test_an_identifier_without_its_keys_is_refused(
    dimse: DimseServer, identifier: Dataset, element: int
) -> None:
    for answers in (
        await get(dimse.port, identifier, CT),
        await move(dimse.port, identifier, "MODALITY"),
    ):
        assert answers.statuses == [0xA900]
        assert answers.final.OffendingElement == element


async def test_what_is_not_here_is_a_success_of_nothing(dimse: DimseServer) -> None:
    answers = await get(dimse.port, key("STUDY", StudyInstanceUID="1.2.3"), CT)
    assert (answers.statuses, answers.counts) == ([0], (0, 0, 0))


async def test_real_files_come_back_byte_for_byte_by_c_get(
    dimse: DimseServer, store: Store, house: House
) -> None:
    if not SHARED_DICOM.is_dir():
        pytest.skip("the collection of real files is not here")
    sent: dict[str, bytes] = {}
    kinds: dict[tuple[str, str], None] = {}
    studies: dict[str, set[str]] = {}
    for path in sorted(SHARED_DICOM.rglob("*.dcm")):
        data = path.read_bytes()
        try:
            await keep(store, house, data)
        except (ArchiveError, AssertionError):  # what is refused is another test's
            continue
        header = read_header(data, HeaderLimits())
        uid = header.dataset["00080018"]["Value"][0]
        if not re.fullmatch(
            RE_VALID_UID, uid
        ):  # pynetdicom, which asks for it, takes no leading zeros
            continue
        kind = (header.dataset["00080016"]["Value"][0], header.transfer_syntax_uid)
        kinds.setdefault(kind)
        sent[uid] = data[header.dataset_offset :]
        studies.setdefault(header.dataset["0020000D"]["Value"][0], set()).add(uid)
    assert len(sent) > 400
    for study, uids in studies.items():
        kept = Kept()
        contexts = [(sop_class, [syntax]) for sop_class, syntax in kinds][:126]
        answers = await get(
            dimse.port, key("STUDY", StudyInstanceUID=study), contexts, on_store=kept
        )
        assert answers.counts == (len(uids), 0, 0)
        assert {uid: kept.objects[uid][1] for uid in uids} == {uid: sent[uid] for uid in uids}


# Sub-operations -------------------------------------------------------------------------------


@pytest.mark.conforms("PS3.4 §C.4.2.1", "C-MOVE sends to the destination, and tells who asked")
async def test_a_study_is_moved_byte_for_byte(
    dimse: DimseServer, store: Store, house: House
) -> None:
    series = ct_series(4)
    await keep(store, house, *series)
    identifier = key("STUDY", StudyInstanceUID=series[0].StudyInstanceUID)
    received, answers = await move_to(store, house, dimse, identifier)
    assert (answers.final.Status, answers.counts) == (0, (4, 0, 0))
    assert received.objects == {
        one.SOPInstanceUID: (ExplicitVRLittleEndian, dataset_bytes(one)) for one in series
    }
    assert received.originators == {("MODALITY", 1)}
    [request] = received.associations
    assert (request.calling_ae_title, request.called_ae_title) == ("ARCHIVE", "RECEIVER")


@pytest.mark.conforms("PS3.4 §C.4.2.1.6", "pending responses tell how far the move is")
async def test_pending_responses_count_the_sub_operations(
    dimse: DimseServer, store: Store, house: House, monkeypatch: Any
) -> None:
    monkeypatch.setattr(retrieve_scp, "PENDING_INTERVAL_S", 0)
    series = ct_series(3)
    await keep(store, house, *series)
    identifier = key("STUDY", StudyInstanceUID=series[0].StudyInstanceUID)
    for answers in (
        (await move_to(store, house, dimse, identifier))[1],
        await get(dimse.port, identifier, CT),
    ):
        assert answers.statuses == [0xFF00, 0xFF00, 0x0000]
        told = [
            (one.NumberOfRemainingSuboperations, one.NumberOfCompletedSuboperations)
            for one in answers.responses[:-1]
        ]
        assert told == [(2, 1), (1, 2)]


@pytest.mark.parametrize(
    ("answered", "status", "counts", "failed"),
    [
        ([0, 0, 0], 0x0000, (3, 0, 0), []),
        ([0, 0xA700, 0], 0xB000, (2, 1, 0), [1]),
        ([0, 0xB007, 0], 0xB000, (2, 0, 1), []),
        ([0xC000, 0x0122, 0xA900], 0xA702, (0, 3, 0), [0, 1, 2]),
        ([0xB000, 0x0107, 0xB006], 0xB000, (0, 0, 3), []),
    ],
)
@pytest.mark.conforms("PS3.4 §C.4.2.1.5", "the final status tells failures and warnings")
async def test_what_the_receiver_answers_is_counted(
    dimse: DimseServer,
    store: Store,
    house: House,
    answered: list[int],
    status: int,
    counts: tuple[int, int, int],
    failed: list[int],
) -> None:
    series = ct_series(3)
    await keep(store, house, *series)
    identifier = key("STUDY", StudyInstanceUID=series[0].StudyInstanceUID)
    of_uid = {one.SOPInstanceUID: code for one, code in zip(series, answered, strict=True)}

    def answer(event: Any, *_: object) -> int:
        return of_uid[str(event.request.AffectedSOPInstanceUID)]

    for answers in (
        (await move_to(store, house, dimse, identifier, answer))[1],
        await get(dimse.port, identifier, CT, on_store=answer),
    ):
        assert (answers.final.Status, answers.counts) == (status, counts)
        expected = [series[number].SOPInstanceUID for number in failed]
        if expected:
            listed = answers.identifiers[-1].FailedSOPInstanceUIDList
            assert ([listed] if isinstance(listed, str) else list(listed)) == expected
            assert answers.final.ErrorComment


@pytest.mark.conforms("PS3.4 §C.4.2.1.5", "an unknown move destination is A801")
async def test_a_destination_that_is_no_node_of_the_connection_is_refused(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await add_house(store, "OTHER", "THEIRS")
    await keep(store, house, one := ct_instance())
    identifier = key("STUDY", StudyInstanceUID=one.StudyInstanceUID)
    for title in ("NOBODY", "THEIRS"):
        assert (await move(dimse.port, identifier, title)).statuses == [0xA801]


async def test_a_destination_that_is_not_there_fails_every_sub_operation(
    dimse: DimseServer, store: Store, house: House
) -> None:
    series = ct_series(3)
    await keep(store, house, *series)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    await register(store, house, port)
    identifier = key("STUDY", StudyInstanceUID=series[0].StudyInstanceUID)
    answers = await move(dimse.port, identifier, "RECEIVER")
    assert (answers.final.Status, answers.counts) == (0xA702, (0, 3, 0))
    assert "does not answer" in answers.final.ErrorComment


async def test_a_destination_that_rejects_us_fails_every_sub_operation(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await register(store, house, dimse.port, "NOTTHERE")  # our own door knows no such archive
    await keep(store, house, one := ct_instance())
    identifier = key("STUDY", StudyInstanceUID=one.StudyInstanceUID)
    answers = await move(dimse.port, identifier, "NOTTHERE")
    assert (answers.final.Status, answers.counts) == (0xA702, (0, 1, 0))


async def test_a_receiver_that_aborts_in_the_middle_fails_that_object_alone(
    dimse: DimseServer, store: Store, house: House
) -> None:
    series = ct_series(4)
    await keep(store, house, *series)
    identifier = key("STUDY", StudyInstanceUID=series[0].StudyInstanceUID)

    def answer(event: Any, received: Receiver) -> int:
        if event.request.AffectedSOPInstanceUID == series[1].SOPInstanceUID:
            event.assoc.abort()
            return 0xA700
        return 0

    received, answers = await move_to(store, house, dimse, identifier, answer)
    assert (answers.final.Status, answers.counts) == (0xB000, (3, 1, 0))
    assert answers.identifiers[-1].FailedSOPInstanceUIDList == series[1].SOPInstanceUID
    assert len(received.objects) == 3
    assert len(received.associations) == 2


async def test_a_receiver_that_says_nothing_is_given_up(
    house: House, with_settings: Callable[..., Settings]
) -> None:
    async with serving(with_settings(dimse_idle_timeout_s=1.0)) as (store, port):
        await keep(store, house, one := ct_instance())
        with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and that is all
            await register(store, house, silent.getsockname()[1])
            identifier = key("STUDY", StudyInstanceUID=one.StudyInstanceUID)
            answers = await move(port, identifier, "RECEIVER")
    assert (answers.final.Status, answers.counts) == (0xA702, (0, 1, 0))


async def test_a_receiver_that_takes_no_such_object_fails_it(
    dimse: DimseServer, store: Store, house: House
) -> None:
    ct = ct_instance(StudyInstanceUID="1.2.3")
    mr = mr_instance(StudyInstanceUID="1.2.3")
    await keep(store, house, ct, mr)
    identifier = key("STUDY", StudyInstanceUID="1.2.3")
    received, answers = await move_to(store, house, dimse, identifier, contexts=CT)
    assert (answers.final.Status, answers.counts) == (0xB000, (1, 1, 0))
    assert answers.identifiers[-1].FailedSOPInstanceUIDList == mr.SOPInstanceUID
    assert list(received.objects) == [ct.SOPInstanceUID]


@pytest.mark.conforms("PS3.4 §C.4.2.3.1", "C-CANCEL ends a move after the sub-operation at hand")
async def test_a_move_that_is_cancelled_stops_after_one_sub_operation(
    dimse: DimseServer, store: Store, house: House
) -> None:
    series = ct_series(5)
    await keep(store, house, *series)
    identifier = key("STUDY", StudyInstanceUID=series[0].StudyInstanceUID)

    movers: list[Association] = []

    def cancelled(event: Any, received: Receiver) -> int:
        # The cancel has arrived before this object is answered.
        cancel = C_CANCEL()
        cancel.MessageIDBeingRespondedTo = 1
        movers[0].dimse.send_msg(cancel, movers[0].accepted_contexts[0].context_id or 0)
        [ours] = dimse._open()
        while not ours.stream.cancelled:
            time.sleep(0.01)
        return 0

    with receiver(BOTH, cancelled) as received:
        await register(store, house, received.port)

        def talk() -> list[Dataset]:
            with association(dimse.port, [(STUDY_ROOT + MOVE, EXPLICIT)]) as made:
                movers.append(made)
                answers = made.send_c_move(identifier, "RECEIVER", STUDY_ROOT + MOVE)
                return [response for response, _ in answers]

        [final] = await asyncio.to_thread(talk)
    assert final.Status == 0xFE00
    assert final.NumberOfRemainingSuboperations == 4
    assert final.NumberOfCompletedSuboperations == 1
    assert len(received.objects) == 1


@pytest.mark.conforms("PS3.4 §C.4.3.3.1", "C-CANCEL ends a get after the sub-operation at hand")
async def test_a_get_that_is_cancelled_stops_after_one_sub_operation(
    dimse: DimseServer, store: Store, house: House
) -> None:
    series = ct_series(5)
    await keep(store, house, *series)
    identifier = key("STUDY", StudyInstanceUID=series[0].StudyInstanceUID)

    def on_store(event: Any) -> int:
        cancel = C_CANCEL()
        cancel.MessageIDBeingRespondedTo = 1
        [context] = [
            one for one in event.assoc.accepted_contexts if one.abstract_syntax == STUDY_ROOT + GET
        ]
        event.assoc.dimse.send_msg(cancel, context.context_id)
        return 0

    answers = await get(dimse.port, identifier, CT, on_store=on_store)
    assert answers.final.Status == 0xFE00
    assert answers.final.NumberOfRemainingSuboperations == 4


async def test_a_peer_that_aborts_ends_its_get(
    dimse: DimseServer, store: Store, house: House
) -> None:
    series = ct_series(5)
    await keep(store, house, *series)
    identifier = key("STUDY", StudyInstanceUID=series[0].StudyInstanceUID)
    taken = []

    def talk() -> None:
        def on_store(event: Any) -> int:
            taken.append(event)
            event.assoc.abort()
            return 0

        model = STUDY_ROOT + GET
        with association(dimse.port, [(model, EXPLICIT), *CT], on_store=on_store) as made:
            list(made.send_c_get(identifier, model))

    await asyncio.to_thread(talk)
    for ended in dimse._open():
        await asyncio.to_thread(ended.join)
    assert len(taken) == 1
    assert (await find(dimse.port, key("STUDY", StudyInstanceUID=""))).statuses[-1] == 0


async def test_an_object_whose_bytes_are_gone_fails_alone(
    dimse: DimseServer, store: Store, house: House
) -> None:
    gone, here = ct_instance(StudyInstanceUID="1.2.3"), ct_instance(StudyInstanceUID="1.2.3")
    await keep(store, house, gone)
    for path in store.settings.blobs_dir.rglob("*.pack"):
        path.unlink()
    await keep(store, house, here)
    identifier = key("STUDY", StudyInstanceUID="1.2.3")
    answers = await get(dimse.port, identifier, CT)
    assert (answers.final.Status, answers.counts) == (0xB000, (1, 1, 0))
    assert answers.identifiers[-1].FailedSOPInstanceUIDList == gone.SOPInstanceUID


# Audit and scope ------------------------------------------------------------------------------


async def reads(store: Store) -> list[dict[str, Any]]:
    async with store.database.transaction() as tx:
        return await tx.rows(
            "SELECT * FROM audit_record WHERE action = 'read' ORDER BY recorded_at"
        )


async def test_each_series_that_goes_out_is_on_record_with_its_destination(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await keep(store, house, *ct_series(2, StudyInstanceUID="1.2.3"))
    await keep(store, house, *ct_series(2, StudyInstanceUID="1.2.3"))
    await move_to(store, house, dimse, key("STUDY", StudyInstanceUID="1.2.3"))
    records = await reads(store)
    assert len({one["series_instance_uid"] for one in records}) == len(records) == 2
    assert {(one["door"], one["caller"]) for one in records} == {("C-MOVE", "MODALITY")}
    assert all(one["detail"] == {"destination": "RECEIVER"} for one in records)


async def virtual_archive(store: Store, *audited: tuple[str, str]) -> None:
    """A virtual archive EVERYTHING, open to (connection of an archive, node)."""
    async with store.database.transaction() as tx:
        await connections.add_virtual_archive(tx, operator("test"), "EVERYTHING", "All")
        for ae_title, node in audited:
            await connections.mark_audited(
                tx, operator("test"), f"PACS of {ae_title}", node, "EVERYTHING", audited=True
            )


async def test_a_virtual_archive_answers_everything_to_audited_nodes(
    dimse: DimseServer, store: Store, house: House
) -> None:
    other = await add_house(store, "OTHER", "READER")
    await virtual_archive(store, ("OTHER", "READER"))
    mine, theirs = ct_instance(), ct_instance()
    await keep(store, house, mine)
    await keep(store, other, theirs)
    who: dict[str, Any] = {"called": "EVERYTHING", "calling": "READER"}
    answers = await find(dimse.port, key("STUDY", StudyInstanceUID=""), **who)
    assert {one.StudyInstanceUID for one in answers.identifiers} == {
        mine.StudyInstanceUID,
        theirs.StudyInstanceUID,
    }
    assert {one.RetrieveAETitle for one in answers.identifiers} == {"EVERYTHING"}
    kept = Kept()
    await get(
        dimse.port, key("STUDY", StudyInstanceUID=mine.StudyInstanceUID), CT, on_store=kept, **who
    )
    assert list(kept.objects) == [mine.SOPInstanceUID]
    [record] = await reads(store)
    assert (record["caller"], record["archive_id"]) == ("READER", house.archive.archive_id)
    assert record["patient_id"] is not None


async def test_what_lies_in_two_archives_comes_once_from_a_virtual_one(
    dimse: DimseServer, store: Store, house: House
) -> None:
    other = await add_house(store, "OTHER", "READER")
    await virtual_archive(store, ("OTHER", "READER"))
    both = ct_instance()
    await keep(store, house, both)
    await keep(store, other, both)
    who: dict[str, Any] = {"called": "EVERYTHING", "calling": "READER"}
    for level, above in (
        ("STUDY", {"StudyInstanceUID": ""}),
        ("SERIES", {"StudyInstanceUID": both.StudyInstanceUID, "SeriesInstanceUID": ""}),
    ):
        answers = await find(dimse.port, key(level, **above), **who)
        assert len(answers.identifiers) == 1
    answers = await find(dimse.port, key("PATIENT", PatientID=""), root=PATIENT_ROOT, **who)
    assert len(answers.identifiers) == 1
    identifier = key("STUDY", StudyInstanceUID=both.StudyInstanceUID)
    assert (await get(dimse.port, identifier, CT, **who)).counts == (1, 0, 0)


async def test_a_virtual_archive_is_closed_to_other_nodes_and_for_storing(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await add_house(store, "OTHER", "READER")
    await virtual_archive(store, ("OTHER", "READER"))
    with pytest.raises(AssertionError):  # MODALITY is registered, but not audited
        await find(dimse.port, key("STUDY", StudyInstanceUID=""), called="EVERYTHING")

    def send() -> int:
        with association(dimse.port, CT, called="EVERYTHING", calling="READER") as made:
            return int(made.send_c_store(ct_instance()).Status)

    assert await asyncio.to_thread(send) == 0x0124
    async with store.database.transaction() as tx:
        assert await tx.value("SELECT count(*) FROM instance") == 0
        await connections.mark_audited(
            tx, operator("test"), "PACS of OTHER", "READER", "EVERYTHING", audited=False
        )
    with pytest.raises(AssertionError):
        await find(
            dimse.port, key("STUDY", StudyInstanceUID=""), called="EVERYTHING", calling="READER"
        )


async def test_a_virtual_archive_sends_to_audited_nodes_alone(
    dimse: DimseServer, store: Store, house: House
) -> None:
    await add_house(store, "OTHER", "READER")
    await virtual_archive(store, ("OTHER", "READER"))
    await keep(store, house, one := ct_instance())
    identifier = key("STUDY", StudyInstanceUID=one.StudyInstanceUID)
    who: dict[str, Any] = {"called": "EVERYTHING", "calling": "READER"}
    assert (await move(dimse.port, identifier, "MODALITY", **who)).statuses == [0xA801]


async def test_an_ae_title_is_that_of_one_archive(store: Store, house: House) -> None:
    await virtual_archive(store)
    async with store.database.transaction() as tx:
        await connections.add_connection(tx, operator("test"), "Third", "test")
        with pytest.raises(Conflict):
            await connections.add_virtual_archive(tx, operator("test"), "ARCHIVE", "")
        with pytest.raises(Conflict):
            await connections.add_archive(tx, operator("test"), "Third", "EVERYTHING", "")
        with pytest.raises(NotFound):
            await connections.mark_audited(
                tx, operator("test"), "Third", "NOBODY", "EVERYTHING", audited=True
            )


# Transfer syntaxes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("syntax", "target"),
    [
        (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
        (DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian),
        (JPEG2000Lossless, ExplicitVRLittleEndian),
        (JPEG2000Lossless, ImplicitVRLittleEndian),
    ],
)
@pytest.mark.conforms("PS3.4 §B.3", "objects are transcoded for a receiver that takes no other")
async def test_an_object_is_transcoded_for_who_takes_no_other_syntax(
    dimse: DimseServer, store: Store, house: House, syntax: str, target: str
) -> None:
    original = ct_instance(transfer_syntax_uid=syntax)
    await keep(store, house, original)
    identifier = key("STUDY", StudyInstanceUID=original.StudyInstanceUID)
    contexts = [(CTImageStorage, [target])]
    received, answers = await move_to(store, house, dimse, identifier, contexts=contexts)
    assert answers.counts == (1, 0, 0)
    [(taken_as, data)] = received.objects.values()
    assert (taken_as, data) == (target, transcode(part10_bytes(original), target, HeaderLimits()))


async def test_an_object_that_cannot_be_decoded_fails_alone(
    dimse: DimseServer, store: Store, house: House
) -> None:
    video = secondary_capture(StudyInstanceUID="1.2.3")
    video.file_meta.TransferSyntaxUID = MPEG2MPML
    video.PixelData = encapsulate([b"no frames that can be told apart"])
    video["PixelData"].is_undefined_length = True
    video.NumberOfFrames = 2
    await keep(store, house, video, ct_instance(StudyInstanceUID="1.2.3"))
    contexts = [(SecondaryCaptureImageStorage, EXPLICIT), *CT]
    answers = await get(dimse.port, key("STUDY", StudyInstanceUID="1.2.3"), contexts)
    assert (answers.final.Status, answers.counts) == (0xB000, (1, 1, 0))
    assert "video" in answers.final.ErrorComment


async def test_a_compressed_object_goes_untouched_to_who_takes_it(
    dimse: DimseServer, store: Store, house: House
) -> None:
    original = ct_instance(transfer_syntax_uid=JPEG2000Lossless)
    await keep(store, house, original)
    identifier = key("STUDY", StudyInstanceUID=original.StudyInstanceUID)
    contexts = [(CTImageStorage, [ExplicitVRLittleEndian, JPEG2000Lossless])]
    received, answers = await move_to(store, house, dimse, identifier, contexts=contexts)
    assert answers.counts == (1, 0, 0)
    [(syntax, data)] = received.objects.values()
    assert (syntax, data) == (JPEG2000Lossless, data_set_of(part10_bytes(original)))
