"""Associations over TLS with certificates on both sides (PS3.15 §B.12, BCP 195)."""

import asyncio
import datetime
import logging
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pynetdicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import build_role, evt
from tests.certificates import Authority, Certificate, new_authority, openssl
from tests.conftest import House, need
from tests.legacy.nodes import running_node
from tests.legacy.raw_peer import A_ASSOCIATE_AC, CT, EXPLICIT, RawPeer, associate_rq
from tests.legacy.test_store_scp import bytes_of, data_set, stored
from tests.samples import ct_instance, part10_bytes
from tests.system import free_port

from bfr_core import certificates, node_terms
from bfr_core.access import operator
from bfr_core.errors import Invalid
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store
from bfr_legacy.dimse.bridge import Bridge
from bfr_legacy.dimse.server import DimseServer, dimse_server
from bfr_legacy.dimse.tls import Tls

STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"


@dataclass
class Secured:
    """The door over TLS, and a node's certificate from the same authority."""

    server: DimseServer
    store: Store
    authority: Authority
    own: Certificate
    node: Certificate

    @property
    def port(self) -> int:
        assert self.server.tls_port is not None
        return self.server.tls_port

    def options(self, certificate: Certificate | None = None) -> list[str]:
        """How dcmtk is told to use TLS."""
        shown = certificate or self.node
        return [
            "+tls", str(shown.key), str(shown.certificate),
            "+cf", str(self.authority.certificate),
        ]  # fmt: skip

    def context(self, certificate: Certificate | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        if certificate is not None:
            context.load_cert_chain(certificate.certificate, certificate.key)
        return context


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return new_authority(tmp_path_factory.mktemp("tls") / "region")


@pytest.fixture
async def secured(
    authority: Authority,
    tmp_path: Path,
    house: House,
    with_settings: Callable[..., Settings],
) -> AsyncIterator[Secured]:
    issued = authority.issue("archive")
    own = Certificate(tmp_path / "own.pem", tmp_path / "own.key")
    shutil.copy(issued.certificate, own.certificate)
    shutil.copy(issued.key, own.key)
    settings = with_settings(
        dimse_tls_port=0,
        dimse_tls_certificate_file=str(own.certificate),
        dimse_tls_key_file=str(own.key),
        dimse_tls_ca_file=str(authority.certificate),
    )
    async with open_store(settings) as store:
        bridge = Bridge(asyncio.get_running_loop())
        server = dimse_server(store, bridge)
        server.start()
        yield Secured(server, store, authority, own, authority.issue("modality"))
        await asyncio.to_thread(server.stop, 0.0)
        bridge.close()


async def dcmtk(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [need(program), "-aet", "MODALITY", "-aec", "ARCHIVE", *arguments]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=120, check=False
    )


async def set_terms(store: Store, **changes: object) -> None:
    async with store.database.transaction() as tx:
        await node_terms.set_terms(tx, operator("test"), "PACS of ARCHIVE", "MODALITY", **changes)


@pytest.mark.conforms("PS3.15 §B.12", "associations over TLS with certificates on both sides")
async def test_objects_come_over_tls_byte_for_byte(
    secured: Secured, house: House, tmp_path: Path
) -> None:
    large = ct_instance(rows=1024, columns=1024)
    file = tmp_path / "large.dcm"
    file.write_bytes(part10_bytes(large))
    answer = await dcmtk("storescu", *secured.options(), "127.0.0.1", str(secured.port), str(file))
    assert answer.returncode == 0, answer.stderr
    [found] = await stored(secured.store, house, large.StudyInstanceUID)
    sent = file.read_bytes()
    assert sent.endswith(bytes_of(secured.store, found))


async def test_many_objects_come_over_one_association(secured: Secured, house: House) -> None:
    def send() -> list[int]:
        plain = socket.create_connection(("127.0.0.1", secured.port), 30)
        peer = RawPeer.__new__(RawPeer)
        peer.socket = secured.context(secured.node).wrap_socket(plain, server_hostname="localhost")
        with peer:
            peer.associate()
            return [
                peer.store(
                    data_set(SOPInstanceUID=f"1.2.3.{number}"), sop_instance_uid=f"1.2.3.{number}"
                )
                for number in range(1, 30)
            ]

    assert set(await asyncio.to_thread(send)) == {0}
    assert len(await stored(secured.store, house)) == 29


@pytest.mark.conforms("PS3.15 §B.12", "a peer without a certificate is not let in")
async def test_without_a_certificate_nobody_is_let_in(
    secured: Secured, caplog: pytest.LogCaptureFixture
) -> None:
    def call() -> bytes:
        plain = socket.create_connection(("127.0.0.1", secured.port), 30)
        with secured.context(None).wrap_socket(plain, server_hostname="localhost") as connection:
            connection.sendall(associate_rq([(CT, [EXPLICIT])]))
            return connection.recv(1)

    with caplog.at_level(logging.WARNING, "bfr.dimse"):
        for _ in range(3):
            with pytest.raises(OSError, match=r"(?i)certificate|reset|pipe|eof"):
                await asyncio.to_thread(call)
        told = [one for one in caplog.messages if one.startswith("TLS refused")]
        assert len(told) == 1
        assert "remote=127.0.0.1" in told[0]


async def test_a_certificate_of_a_strange_authority_is_not_let_in(
    secured: Secured, tmp_path: Path
) -> None:
    stranger = new_authority(tmp_path / "strange").issue("modality")
    options = secured.options(stranger)
    answer = await dcmtk("echoscu", *options, "127.0.0.1", str(secured.port))
    assert answer.returncode != 0


@pytest.mark.conforms("PS3.15 §B.12", "TLS 1.1 and below are not spoken")
@pytest.mark.parametrize(
    ("version", "spoken"),
    [
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_which_versions_are_spoken(
    secured: Secured, version: ssl.TLSVersion, *, spoken: bool
) -> None:
    def call() -> bool:
        context = secured.context(secured.node)
        context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, version
        context.set_ciphers("ALL:@SECLEVEL=0")
        plain = socket.create_connection(("127.0.0.1", secured.port), 30)
        try:
            with context.wrap_socket(plain, server_hostname="localhost") as connection:
                connection.sendall(associate_rq([(CT, [EXPLICIT])]))
                return connection.recv(1) == bytes([A_ASSOCIATE_AC])
        except OSError:
            return False

    assert await asyncio.to_thread(call) == spoken


async def test_a_silent_caller_keeps_nobody_waiting(secured: Secured) -> None:
    with await asyncio.to_thread(socket.create_connection, ("127.0.0.1", secured.port)):
        answer = await dcmtk("echoscu", *secured.options(), "127.0.0.1", str(secured.port))
        assert answer.returncode == 0, answer.stderr


async def test_a_new_certificate_is_used_without_a_restart(
    secured: Secured, authority: Authority
) -> None:
    def shown() -> str:
        plain = socket.create_connection(("127.0.0.1", secured.port), 30)
        context = secured.context(secured.node)
        with context.wrap_socket(plain, server_hostname="localhost") as connection:
            return certificates.subject_of(connection.getpeercert())

    assert await asyncio.to_thread(shown) == "CN=archive,O=Region"
    renewed = authority.issue("renewed")
    secured.own.certificate.write_text("half a file")
    assert await asyncio.to_thread(shown) == "CN=archive,O=Region"
    os.replace(renewed.key, secured.own.key)
    os.replace(renewed.certificate, secured.own.certificate)
    assert await asyncio.to_thread(shown) == "CN=renewed,O=Region"


@pytest.mark.conforms("PS3.8 §9.3.4", "a node that has to use TLS is rejected without it")
async def test_a_node_that_has_to_use_tls_is_rejected_without_it(secured: Secured) -> None:
    await set_terms(secured.store, tls_required=True)
    answer = await dcmtk("echoscu", "127.0.0.1", str(secured.server.port))
    assert "Reason: Calling AE Title Not Recognized" in answer.stderr
    answer = await dcmtk("echoscu", *secured.options(), "127.0.0.1", str(secured.port))
    assert answer.returncode == 0, answer.stderr


@pytest.mark.conforms("PS3.8 §9.3.4", "a node with another certificate than its own is rejected")
@pytest.mark.parametrize("by", ["fingerprint", "subject"])
async def test_a_node_is_bound_to_its_certificate(secured: Secured, by: str) -> None:
    if by == "subject":
        bound = "CN=modality,O=Region"
    else:
        printed = openssl(
            "x509", "-in", secured.node.certificate, "-noout", "-fingerprint", "-sha256"
        )
        bound = printed.partition("=")[2].strip()
    await set_terms(secured.store, tls_required=True, certificate=bound)
    answer = await dcmtk("echoscu", *secured.options(), "127.0.0.1", str(secured.port))
    assert answer.returncode == 0, answer.stderr
    other = secured.options(secured.authority.issue("another"))
    answer = await dcmtk("echoscu", *other, "127.0.0.1", str(secured.port))
    assert "Reason: Calling AE Title Not Recognized" in answer.stderr


async def test_what_a_node_can_be_bound_to_is_a_fingerprint_or_a_subject(store: Store) -> None:
    assert certificates.checked_certificate("AB:" * 31 + "AB") == "ab" * 32
    with pytest.raises(Invalid):
        certificates.checked_certificate("modality")


def test_expiry_is_read_from_the_file(
    authority: Authority, with_settings: Callable[..., Settings]
) -> None:
    own = authority.issue("short", days=3)
    settings = with_settings(
        dimse_tls_certificate_file=str(own.certificate),
        dimse_tls_ca_file=str(authority.certificate),
    )
    [first, ca] = certificates.expiries(settings)
    assert first.left.days == 2
    assert ca.left.days == 29
    printed = openssl("x509", "-in", own.certificate, "-noout", "-enddate").strip()
    told = datetime.datetime.strptime(printed, "notAfter=%b %d %H:%M:%S %Y GMT")
    assert first.expires_at == told.replace(tzinfo=datetime.UTC)


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x05\x30", b"\x30\x84\xff\xff\xff\xff"])
def test_what_is_no_certificate_has_no_expiry(der: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        certificates.expires_at(der)


@pytest.mark.conforms("PS3.15 §B.12", "C-MOVE sends over TLS to who has to be called so")
async def test_objects_are_moved_over_tls(secured: Secured, tmp_path: Path) -> None:
    objects = [ct_instance(rows=64, columns=64) for _ in range(3)]
    objects[1].StudyInstanceUID = objects[2].StudyInstanceUID = objects[0].StudyInstanceUID
    files = [tmp_path / f"{number}.dcm" for number in range(3)]
    for file, one in zip(files, objects, strict=True):
        file.write_bytes(part10_bytes(one))
    own = [*secured.options(), "127.0.0.1", str(secured.port)]
    answer = await dcmtk("storescu", *own, *map(str, files))
    assert answer.returncode == 0, answer.stderr
    arrived: list[str] = []

    def take(event: evt.Event) -> int:
        arrived.append(str(event.request.AffectedSOPInstanceUID))  # type: ignore[union-attr]
        return 0x0000

    node_tls = Tls(
        str(secured.node.certificate),
        str(secured.node.key),
        str(secured.authority.certificate),
    )
    handlers = [(evt.EVT_C_STORE, take)]
    with running_node([CT], handlers, tls=node_tls.server()) as node:
        async with secured.store.database.transaction() as tx:
            await tx.run("UPDATE dicom_node SET port = %(port)s", port=node.port)
        await set_terms(secured.store, tls_required=True, certificate="CN=modality,O=Region")
        assert await asyncio.to_thread(move, secured, objects[0].StudyInstanceUID) == 0
        assert sorted(arrived) == sorted(str(one.SOPInstanceUID) for one in objects)


def move(secured: Secured, study_instance_uid: str) -> int:
    """Have the study sent to the node itself, asked for over TLS; the last status."""
    entity = pynetdicom.AE("MODALITY")
    entity.add_requested_context(STUDY_ROOT_MOVE)
    association = entity.associate(
        "127.0.0.1",
        secured.port,
        ae_title="ARCHIVE",
        tls_args=(secured.context(secured.node), "localhost"),
    )
    assert association.is_established
    wanted = Dataset()
    wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "STUDY", study_instance_uid
    answers = [
        int(status.Status)
        for status, _ in association.send_c_move(wanted, "MODALITY", STUDY_ROOT_MOVE)
    ]
    association.release()
    return answers[-1]


async def test_objects_are_fetched_over_tls_byte_for_byte(secured: Secured, tmp_path: Path) -> None:
    """While one thread sends the objects another reads the responses."""
    objects = [ct_instance(rows=512, columns=512) for _ in range(12)]
    for one in objects:
        one.StudyInstanceUID = objects[0].StudyInstanceUID
    files = [tmp_path / f"{number}.dcm" for number in range(len(objects))]
    for file, dataset in zip(files, objects, strict=True):
        file.write_bytes(part10_bytes(dataset))
    own = [*secured.options(), "127.0.0.1", str(secured.port)]
    answer = await dcmtk("storescu", *own, *map(str, files))
    assert answer.returncode == 0, answer.stderr

    def fetch() -> tuple[int, dict[str, bytes]]:
        fetched: dict[str, bytes] = {}

        def take(event: evt.Event) -> int:
            fetched[str(event.dataset.SOPInstanceUID)] = event.dataset.PixelData
            return 0x0000

        entity = pynetdicom.AE("MODALITY")
        entity.add_requested_context(STUDY_ROOT_GET)
        entity.add_requested_context(CT, EXPLICIT)
        association = entity.associate(
            "127.0.0.1",
            secured.port,
            ae_title="ARCHIVE",
            ext_neg=[build_role(CT, scp_role=True)],
            evt_handlers=[(evt.EVT_C_STORE, take)],
            tls_args=(secured.context(secured.node), "localhost"),
        )
        assert association.is_established
        wanted = Dataset()
        wanted.QueryRetrieveLevel = "STUDY"
        wanted.StudyInstanceUID = objects[0].StudyInstanceUID
        answers = [int(one.Status) for one, _ in association.send_c_get(wanted, STUDY_ROOT_GET)]
        association.release()
        return answers[-1], fetched

    status, fetched = await asyncio.to_thread(fetch)
    assert status == 0
    assert fetched == {str(one.SOPInstanceUID): one.PixelData for one in objects}


async def test_a_caller_that_stops_within_a_record_is_let_go(secured: Secured) -> None:
    """Half a TLS record, then nothing: the association ends and others are served."""

    def call() -> None:
        plain = socket.create_connection(("127.0.0.1", secured.port), 30)
        context = secured.context(secured.node)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        connection = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        while True:
            try:
                connection.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(outgoing.read())
                incoming.write(plain.recv(65536))
        connection.write(associate_rq([(CT, [EXPLICIT])]))
        record = outgoing.read()
        plain.sendall(record[: len(record) // 2])
        plain.shutdown(socket.SHUT_WR)
        while plain.recv(65536):
            pass
        plain.close()

    await asyncio.wait_for(asyncio.to_thread(call), 60)
    answer = await dcmtk("echoscu", *secured.options(), "127.0.0.1", str(secured.port))
    assert answer.returncode == 0, answer.stderr


# dcmtk, in each role --------------------------------------------------------------------------


async def test_dcmtk_sends_finds_and_receives_over_tls(secured: Secured, tmp_path: Path) -> None:
    """The programs of dcmtk that speak TLS; it has no getscu, movescu and dcmqrscp that do."""
    objects = [ct_instance(rows=16, columns=16) for _ in range(3)]
    for number, one in enumerate(objects):
        one.StudyInstanceUID = objects[0].StudyInstanceUID
        (tmp_path / f"{number}.dcm").write_bytes(part10_bytes(one))
    files = [str(tmp_path / f"{number}.dcm") for number in range(3)]
    own = [*secured.options(), "127.0.0.1", str(secured.port)]
    study = [
        *("-k", "QueryRetrieveLevel=STUDY"),
        *("-k", f"StudyInstanceUID={objects[0].StudyInstanceUID}"),
    ]
    sent = {str(one.SOPInstanceUID): one.PixelData for one in objects}

    sending = await dcmtk("storescu", *own, *files)
    assert sending.returncode == 0, sending.stderr

    finding = await dcmtk("findscu", "-S", "-v", *own, *study)
    assert finding.returncode == 0, finding.stderr
    assert (finding.stdout + finding.stderr).count("(Pending)") == 1

    moved = tmp_path / "moved"
    moved.mkdir()
    port = free_port()
    async with secured.store.database.transaction() as tx:
        await tx.run("UPDATE dicom_node SET port = %(port)s", port=port)
    await set_terms(secured.store, tls_required=True)
    receiving = (need("storescp"), *secured.options(), "-od", str(moved), str(port))
    storescp = await asyncio.create_subprocess_exec(*receiving)
    try:
        async with asyncio.timeout(60):
            own_receiver = (*secured.options(), "127.0.0.1", str(port))
            while (await dcmtk("echoscu", *own_receiver)).returncode != 0:
                pass
        assert await asyncio.to_thread(move, secured, objects[0].StudyInstanceUID) == 0
    finally:
        storescp.terminate()
        await storescp.wait()
    assert pixels_below(moved) == sent


def pixels_below(folder: Path) -> dict[str, bytes]:
    found = [pydicom.dcmread(path) for path in folder.iterdir()]
    return {str(one.SOPInstanceUID): one.PixelData for one in found}
