"""C-STORE into the archive (PS3.4 Annex B), as dcmtk and as a peer made of bytes send it."""

import asyncio
import io
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pydicom
import pytest
from pydicom.data import data_manager
from pydicom.dataset import Dataset
from tests.conftest import House, add_house, need
from tests.legacy.raw_peer import (
    A_ASSOCIATE_AC,
    ABORT,
    CT,
    EXPLICIT,
    RawPeer,
    accepted,
    associate_rq,
    c_store_rq,
    p_data,
)

from bfr_core.errors import ArchiveError, Conflict, Denied, Invalid, NotFound, Unavailable
from bfr_core.receiving import MismatchedObject
from bfr_core.registration_batch import DuplicateUid
from bfr_core.retrieval import FoundInstance, retrieve_instances
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store
from bfr_legacy.dimse.bridge import Bridge
from bfr_legacy.dimse.server import DimseServer, dimse_server
from bfr_legacy.dimse.status import answer_to, error_comment

STUDY = "1.3.6.1.4.1.9999.1"
SERIES = "1.3.6.1.4.1.9999.1.1"
INSTANCE = "1.3.6.1.4.1.9999.1.1.1"
TRUNCATED = {"MR_truncated.dcm", "rtplan_truncated.dcm"}
SAMPLES = Path(data_manager.DATA_ROOT) / "test_files"


def data_set(**changes: object) -> bytes:
    """The bytes of a small object, explicit VR little endian, without file meta information."""
    dataset = Dataset()
    dataset.SOPClassUID = CT
    dataset.SOPInstanceUID = INSTANCE
    dataset.StudyInstanceUID = STUDY
    dataset.SeriesInstanceUID = SERIES
    dataset.PatientID = "TEST-1"
    dataset.PatientName = "Test^Person"
    dataset.Modality = "CT"
    dataset.add_new(0x00091001, "UN", b"any private bytes!")
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    written = io.BytesIO()
    pydicom.dcmwrite(
        written, dataset, implicit_vr=False, little_endian=True, enforce_file_format=False
    )
    return written.getvalue()


async def send(port: int, *objects: bytes, **request: str) -> list[tuple[int, str]]:
    """Store the data sets on one association; Status and Error Comment of each."""

    def talk() -> list[tuple[int, str]]:
        answers = []
        with RawPeer(port) as peer:
            peer.associate()
            for number, data in enumerate(objects):
                command = c_store_rq(
                    sop_instance_uid=request.get("sop_instance_uid", INSTANCE),
                    message_id=number + 1,
                )
                peer.send(p_data((1, 3, command)) + p_data((1, 2, data)))
                response = peer.response()
                assert response.MessageIDBeingRespondedTo == number + 1
                answers.append((int(response.Status), str(response.get("ErrorComment", ""))))
        return answers

    return await asyncio.to_thread(talk)


async def stored(store: Store, house: House, study: str = STUDY) -> list[FoundInstance]:
    return await retrieve_instances(
        store,
        house.node,
        "test",
        archive_id=house.archive.archive_id,
        study_instance_uid=study,
    )


def bytes_of(store: Store, found: FoundInstance) -> bytes:
    """The data set of a stored instance."""
    return store.blobs.read(found.stored.blob)[found.stored.dataset_offset :]


async def count_instances(store: Store) -> int:
    async with store.database.transaction() as tx:
        return int(await tx.value("SELECT count(*) FROM instance"))


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[tuple[Store, int]]:
    """The door on a store with settings of its own."""
    async with open_store(settings) as store:
        bridge = Bridge(asyncio.get_running_loop())
        server = dimse_server(store, bridge)
        server.start()
        yield store, server.port
        await asyncio.to_thread(server.stop, 0.0)
        bridge.close()


# What is stored ------------------------------------------------------------------------------


@pytest.mark.conforms("PS3.4 §B.2.2", "Success means that the object is stored")
async def test_an_object_is_stored_when_success_is_answered(
    dimse: DimseServer, store: Store, house: House
) -> None:
    data = data_set()
    assert await send(dimse.port, data) == [(0, "")]
    [found] = await stored(store, house)
    assert bytes_of(store, found) == data
    assert found.stored.transfer_syntax_uid == EXPLICIT
    meta = pydicom.dcmread(io.BytesIO(store.blobs.read(found.stored.blob))).file_meta
    assert meta.MediaStorageSOPInstanceUID == INSTANCE
    assert meta.SourceApplicationEntityTitle == "MODALITY"


async def test_an_object_larger_than_memory_is_stored(
    house: House, with_settings: Callable[..., Settings]
) -> None:
    data = data_set() + b"\xe0\x7f\x10\x00OW\0\0\x40\x42\x0f\x00" + bytes(1_000_000)
    async with serving(with_settings(object_memory_bytes=10_000)) as (store, port):
        assert await send(port, data) == [(0, "")]
        [found] = await stored(store, house)
        assert bytes_of(store, found) == data


async def test_the_same_object_again_is_a_success_and_stored_once(
    dimse: DimseServer, store: Store
) -> None:
    assert await send(dimse.port, data_set(), data_set()) == [(0, ""), (0, "")]
    assert await count_instances(store) == 1


async def test_associations_side_by_side_store_side_by_side(
    dimse: DimseServer, store: Store, house: House
) -> None:
    objects = {
        f"{INSTANCE}.{number}": data_set(SOPInstanceUID=f"{INSTANCE}.{number}")
        for number in range(1, 5)
    }
    answers = await asyncio.gather(
        *(send(dimse.port, data, sop_instance_uid=uid) for uid, data in objects.items())
    )
    assert answers == [[(0, "")]] * 4
    found = await stored(store, house)
    assert {one.stored.sop_instance_uid: bytes_of(store, one) for one in found} == objects


# What is refused -----------------------------------------------------------------------------


@pytest.mark.conforms("PS3.4 §B.2.3", "other content under a stored UID is refused")
async def test_other_content_under_a_stored_uid_is_refused(
    dimse: DimseServer, store: Store, house: House
) -> None:
    first, other = data_set(), data_set(Modality="MR")
    [(_, _), (status, comment)] = await send(dimse.port, first, other)
    assert status == 0x0111
    assert comment
    [found] = await stored(store, house)
    assert bytes_of(store, found) == first


async def test_a_study_of_another_patient_is_refused(dimse: DimseServer) -> None:
    await send(dimse.port, data_set())
    uid = INSTANCE + ".2"
    other = data_set(SOPInstanceUID=uid, PatientID="TEST-2")
    [(status, comment)] = await send(dimse.port, other, sop_instance_uid=uid)
    assert status == 0xC001
    assert "TEST" not in comment


@pytest.mark.conforms("PS3.4 §B.2.3", "a data set that is not what was announced is refused")
async def test_a_data_set_that_is_not_what_was_announced_is_refused(
    dimse: DimseServer, store: Store
) -> None:
    answers = await send(dimse.port, data_set(SOPInstanceUID=INSTANCE + ".9"), data_set())
    assert [status for status, _ in answers] == [0xA900, 0]
    assert await count_instances(store) == 1


@pytest.mark.parametrize(
    "data",
    [b"\xff" * 5000, b"", data_set()[:-3], data_set(StudyInstanceUID=""), bytes(2000)],
    ids=["noise", "nothing", "cut short", "without study", "zeros"],
)
async def test_what_is_no_object_is_refused_and_the_next_one_stored(
    dimse: DimseServer, store: Store, data: bytes
) -> None:
    [(status, comment), (next_status, _)] = await send(dimse.port, data, data_set())
    assert status == 0xC000
    assert 0 < len(comment) <= 64
    assert next_status == 0
    assert await count_instances(store) == 1


async def test_an_object_larger_than_allowed_is_refused(
    house: House, with_settings: Callable[..., Settings]
) -> None:
    async with serving(with_settings(object_max_bytes=5000)) as (_, port):
        answers = await send(port, data_set() + bytes(1_000_000), data_set())
        assert [status for status, _ in answers] == [0xC000, 0]


@pytest.mark.conforms("PS3.4 §B.2.3", "without room the sender is told: out of resources")
async def test_without_room_on_the_disk_the_sender_is_told_so(
    house: House, with_settings: Callable[..., Settings]
) -> None:
    async with serving(with_settings(free_space_min_bytes=1 << 60)) as (store, port):
        [(status, _)] = await send(port, data_set())
        assert status == 0xA700
        assert await count_instances(store) == 0


async def test_without_a_database_the_sender_is_told_to_come_back(
    dimse: DimseServer, store: Store
) -> None:
    def talk() -> int:
        with RawPeer(dimse.port) as peer:
            peer.associate()
            closing = asyncio.run_coroutine_threadsafe(store.database.pool.close(), loop)
            closing.result(30)
            return peer.store(data_set(), sop_instance_uid=INSTANCE)

    loop = asyncio.get_running_loop()
    assert await asyncio.to_thread(talk) == 0xA700


async def test_nothing_stays_of_an_object_that_was_aborted(
    dimse: DimseServer, store: Store, house: House
) -> None:
    def talk() -> None:
        with RawPeer(dimse.port) as peer:
            peer.associate()
            peer.send(p_data((1, 3, c_store_rq(sop_instance_uid=INSTANCE))))
            for _ in range(50):
                peer.send(p_data((1, 0, bytes(100_000))))
            peer.send(ABORT)
            assert peer.read() == (0, b"")

    await asyncio.to_thread(talk)
    await asyncio.to_thread(dimse.stop, 30.0)
    assert await count_instances(store) == 0
    assert [path for path in store.settings.blobs_dir.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ArchiveError("x"), 0x0110),
        (Invalid("x"), 0xC000),
        (MismatchedObject("x"), 0xA900),
        (Denied("x"), 0x0124),
        (NotFound("x"), 0xC002),
        (Conflict("x"), 0xC001),
        (DuplicateUid("x"), 0x0111),
        (Unavailable("x"), 0xA700),
    ],
)
def test_each_error_has_its_status(error: ArchiveError, status: int) -> None:
    assert answer_to(error).status == status


def test_every_error_has_a_status_of_failure_and_a_rejection() -> None:
    def walk(kind: type[ArchiveError]) -> Iterator[type[ArchiveError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from walk(child)

    for kind in walk(ArchiveError):
        answer = answer_to(kind("x"))
        # Neither Success, Pending nor Warning (PS3.7 Annex C)
        assert answer.status not in (0x0000, 0xFF00, 0xFF01)
        assert answer.status >> 12 != 0xB
        assert answer.rejection.result in (1, 2)


@pytest.mark.parametrize(
    ("message", "comment"),
    [
        ("no Study Instance UID", "no Study Instance UID"),
        ("å\\\n", "???"),
        ("x" * 100, "x" * 61 + "..."),
        ("x" * 64, "x" * 64),
    ],
)
def test_an_error_comment_is_a_long_string(message: str, comment: str) -> None:
    assert error_comment(message) == comment


# Any storage class, any transfer syntax ------------------------------------------------------


def sample_files() -> list[Path]:
    """The DICOM files of pydicom that name their study, series, instance and class."""
    found = []
    for path in sorted(SAMPLES.rglob("*.dcm")):
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
        except pydicom.errors.InvalidDicomError:
            continue
        uids = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
        if all(dataset.get(uid) for uid in uids) and dataset.file_meta.get("TransferSyntaxUID"):
            found.append(path)
    return found


def data_set_of(path: Path) -> bytes:
    """What follows the file meta information (PS3.10 §7.1)."""
    data = path.read_bytes()
    group, element, length = struct.unpack_from("<HH4xL", data, 132)
    assert (group, element) == (2, 0)
    return data[144 + length :]


@pytest.mark.conforms("PS3.4 §B.5", "every storage SOP class is stored in every transfer syntax")
@pytest.mark.filterwarnings("ignore::UserWarning")
async def test_every_sample_file_is_stored_byte_for_byte(dimse: DimseServer, store: Store) -> None:
    paths = sample_files()
    sent = {path.name: data_set_of(path) for path in paths}

    def talk(dataset: pydicom.FileDataset, data: bytes, called: str) -> int:
        syntax = str(dataset.file_meta.TransferSyntaxUID)
        with RawPeer(dimse.port) as peer:
            peer.send(associate_rq([(dataset.SOPClassUID, [syntax])], called=called))
            assert peer.read()[0] == A_ASSOCIATE_AC
            return peer.store(
                data,
                sop_class_uid=dataset.SOPClassUID,
                sop_instance_uid=dataset.SOPInstanceUID,
            )

    statuses, kept, syntaxes = {}, {}, set()
    for number, path in enumerate(paths):
        # An archive for each file: some files share their UIDs.
        house = await add_house(store, f"ARCHIVE{number}", "MODALITY")
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        status = await asyncio.to_thread(talk, dataset, sent[path.name], house.archive.ae_title)
        statuses[path.name] = status
        if status == 0:
            [found] = await stored(store, house, str(dataset.StudyInstanceUID))
            kept[path.name] = bytes_of(store, found)
            syntaxes.add(found.stored.transfer_syntax_uid)
    assert {name for name, status in statuses.items() if status} == TRUNCATED
    assert kept == {name: data for name, data in sent.items() if name not in TRUNCATED}
    assert len(syntaxes) > 10


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("CT_small.dcm", "-xe"),
        ("MR_small.dcm", "-xe"),
        ("MR_small_bigendian.dcm", "-xb"),
        ("rtplan.dcm", "-xi"),
        ("MR_small_RLE.dcm", "-xr"),
        ("JPEG2000.dcm", "-xw"),
        ("MR_small_jp2klossless.dcm", "-xv"),
        ("MR_small_jpeg_ls_lossless.dcm", "-xt"),
        ("SC_rgb_jpeg_dcmtk.dcm", "-xy"),
        ("JPEG-lossy.dcm", "-xx"),
        ("SC_rgb_jpeg_gdcm.dcm", "-xs"),
        ("image_dfl.dcm", "-xd"),
        ("reportsi.dcm", "-xe"),
        ("waveform_ecg.dcm", "-xe"),
        ("liver_1frame.dcm", "-xe"),
    ],
)
async def test_what_dcmtk_sends_is_kept_as_dcmtk_keeps_it(
    dimse: DimseServer, store: Store, house: House, tmp_path: Path, name: str, option: str
) -> None:
    [path] = SAMPLES.rglob(name)
    await asyncio.to_thread(storescu, path, option, dimse.port)
    reference = await asyncio.to_thread(kept_by_dcmtk, path, option, tmp_path / "dcmtk")
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    [found] = await stored(store, house, str(dataset.StudyInstanceUID))
    assert bytes_of(store, found) == data_set_of(reference)
    assert found.stored.transfer_syntax_uid == dataset.file_meta.TransferSyntaxUID


def storescu(path: Path, option: str, port: int) -> None:
    command = [need("storescu"), "-aet", "MODALITY", "-aec", "ARCHIVE", option, "-R"]
    command += ["127.0.0.1", str(port), str(path)]
    subprocess.run(command, capture_output=True, timeout=60, check=True)


def kept_by_dcmtk(path: Path, option: str, directory: Path) -> Path:
    """The file that dcmtk's bit-preserving receiver writes of the same object."""
    directory.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [need("storescp"), "+B", "+xa", "-od", str(directory), str(port)]
    receiver = subprocess.Popen(command)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 30).close()
                break
            except ConnectionRefusedError:
                assert receiver.poll() is None
                time.sleep(0.02)
        storescu(path, option, port)
    finally:
        receiver.terminate()
        receiver.wait()
    [reference] = directory.iterdir()
    return reference


@pytest.mark.conforms("PS3.4 §B.5", "private SOP classes are stored as configured")
@pytest.mark.parametrize(
    ("private", "taken"),
    [
        (("*",), {1, 3, 5}),
        (("1.2.840.113619.",), {1, 3}),
        (("1.2.840.113619.4.30",), {1, 3}),
        (("1.2.840.113619.4",), {1}),
        ((), {1}),
    ],
)
async def test_private_sop_classes_are_stored_as_configured(
    house: House,
    with_settings: Callable[..., Settings],
    private: tuple[str, ...],
    taken: set[int],
) -> None:
    proposed = [(CT, [EXPLICIT]), ("1.2.840.113619.4.30", [EXPLICIT]), ("1.3.12.2.1", [EXPLICIT])]

    def talk(port: int) -> set[int]:
        with RawPeer(port) as peer:
            return set(accepted(peer.associate(*proposed)))

    async with serving(with_settings(dimse_private_storage_sop_classes=private)) as (_, port):
        assert await asyncio.to_thread(talk, port) == taken
