"""What a running system tells of itself: figures of all its processes, traces, and no person."""

import asyncio
import copy
import http.client
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.legacy.raw_peer import CT, RELEASE_RQ, RawPeer, associate_rq
from tests.otlp_receiver import Receiver, running_receiver
from tests.samples import ct_instance, part10_bytes
from tests.samples.encoding import dataset_bytes
from tests.system import System, free_port, running_system

from bfr_command import observing
from bfr_core.settings import Settings
from bfr_core.store import Store, open_store

# As no word of the system does, in every form that could reach a line.
GIVEN_NAME, FAMILY_NAME = "Xerxesina", "Zwetschkenbaum"
PERSON_ID = "19121212-QX77"
PERSON: dict[str, Any] = {"PatientName": f"{FAMILY_NAME}^{GIVEN_NAME}", "PatientID": PERSON_ID}
TRACES = (GIVEN_NAME.lower(), FAMILY_NAME[:8].lower(), "qx77", "19121212")
UID_TO_REPLACE = "1.2.34.56.789"
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with running_receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def system(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that tells all it can, with a person's data driven at each of its doors."""
    with running_system(
        tmp_path_factory.mktemp("observed"),
        BFR_LOG_LEVEL="debug",
        BFR_LOG_FORMAT="json",
        BFR_TRACES_ENDPOINT=receiver.endpoint,
        BFR_OBSERVE_PORT=str(free_port()),
        OTEL_BSP_SCHEDULE_DELAY="200",
    ) as running:
        running.add_archive("ARCHIVE", ["MODALITY"])
        send_by_c_store(running)
        send_by_stow(running)
        ask_for_a_person(running)
        yield running


def send_by_c_store(system: System) -> None:
    one = ct_instance(**PERSON)
    changed = copy.deepcopy(one)
    changed.InstanceNumber = 99
    of_other = ct_instance(PatientID="190001019999", StudyInstanceUID=one.StudyInstanceUID)
    odd = ct_instance(**PERSON, StudyInstanceUID=UID_TO_REPLACE)
    whole = dataset_bytes(one)
    with RawPeer(system.dimse_port) as peer:
        peer.associate()

        def store(data: bytes, uid: str = one.SOPInstanceUID) -> int:
            return peer.store(data, sop_instance_uid=uid)

        assert store(whole) == 0
        assert store(whole) == 0
        assert store(dataset_bytes(changed)) == 0x0111
        assert store(dataset_bytes(of_other), of_other.SOPInstanceUID) == 0xC001
        assert store(misplaced(dataset_bytes(odd)), odd.SOPInstanceUID) & 0xF000 == 0xC000
        assert store(whole, "1.2.3") == 0xA900
        assert store(whole, PERSON_ID) == 0xC000
        assert store(whole[:-1000]) != 0
        assert store(f"{FAMILY_NAME} {PERSON_ID}".encode()) != 0
        peer.send(RELEASE_RQ)
        peer.read()
    with RawPeer(system.dimse_port) as peer:  # an association that is not let in
        peer.send(associate_rq([(CT, ["1.2.840.10008.1.2.1"])], called="NOBODY"))
        peer.read()
    with RawPeer(system.dimse_port) as peer:  # one that breaks off in the midst of a name
        peer.associate()
        peer.send(b"\x04\x00\x00\x00\x01\x00" + FAMILY_NAME.encode())


def misplaced(data: bytes) -> bytes:
    """The object with a person's number in the place of a UID, and a name in that of a date."""
    moved = data.replace(UID_TO_REPLACE.encode(), PERSON_ID.encode())
    return moved.replace(b"19850101", FAMILY_NAME[:8].encode())


def send_by_stow(system: System) -> None:
    one = ct_instance(**PERSON)
    changed = copy.deepcopy(one)
    changed.InstanceNumber = 99
    odd = misplaced(part10_bytes(ct_instance(**PERSON, SeriesInstanceUID=UID_TO_REPLACE)))
    for data in (part10_bytes(one), part10_bytes(changed), odd, PERSON_ID.encode()):
        for media_type in ("application/dicom", f"application/{FAMILY_NAME}"):
            body = b"--edge\r\nContent-Type: %s\r\n\r\n%s\r\n--edge--\r\n" % (
                media_type.encode(),
                data,
            )
            kind = 'multipart/related; type="application/dicom"; boundary=edge'
            ask(system, "/archives/ARCHIVE/dicomweb/studies", body, kind)
            ask(system, f"/archives/ARCHIVE/dicomweb/studies/{PERSON_ID}", body, kind)
    ask(system, "/archives/ARCHIVE/dicomweb/studies", PERSON_ID.encode(), f"text/{FAMILY_NAME}")
    ask(
        system,
        "/archives/ARCHIVE/dicomweb/studies",
        FAMILY_NAME.encode(),
        'multipart/related; type="application/dicom"; boundary=edge',
    )


def ask_for_a_person(system: System) -> None:
    study = search(system, f"PatientID={PERSON_ID}")
    assert len(study) == 2
    uid = study[0]["0020000D"]["Value"][0]
    assert ask(system, f"/dicomweb/studies/{uid}", accept="*/*") == 200
    assert ask(system, f"/dicomweb/studies/{uid}/metadata") == 200
    for query in (
        f"PatientName={FAMILY_NAME}*",
        f"PatientBirthDate={PERSON_ID}",
        f"{FAMILY_NAME}={PERSON_ID}",
        f"StudyInstanceUID={PERSON_ID}",
        f"limit={PERSON_ID}",
        f"includefield={FAMILY_NAME}",
        f"PatientID={PERSON_ID}%00",
    ):
        ask(system, f"/dicomweb/studies?{query}")
    for path in (
        f"/dicomweb/studies/{PERSON_ID}",
        f"/dicomweb/{FAMILY_NAME}",
        f"/archives/{FAMILY_NAME}/dicomweb/studies",
        f"/api/patients/{PERSON_ID}",
        f"/api/{FAMILY_NAME}",
        f"/{FAMILY_NAME}/{PERSON_ID}?{FAMILY_NAME}",
        f"/{FAMILY_NAME}.js",
        f"/metrics?{PERSON_ID}",
    ):
        ask(system, path)
    search_body = json.dumps({"query": PERSON_ID}).encode()
    assert ask(system, "/api/patients/search", search_body) == 200
    for body in (f'{{"query": "{PERSON_ID}"', f'["{FAMILY_NAME}"]', '{"query": "\\u0000"}'):
        ask(system, "/api/patients/search", body.encode())
    with socket.create_connection(("127.0.0.1", system.http_port)) as connection:
        connection.sendall(f"{FAMILY_NAME} {PERSON_ID} HTTP\r\n\r\n".encode())
        connection.recv(1000)


def ask(
    system: System, path: str, body: bytes | None = None, kind: str = "", accept: str = ""
) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", system.http_port, timeout=PATIENCE_S)
    headers = {"Content-Type": kind or "application/json"}
    headers |= {"Accept": accept or "application/dicom+json"}
    connection.request("GET" if body is None else "POST", path, body, headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def search(system: System, query: str) -> list[dict[str, dict[str, list[str]]]]:
    with urllib.request.urlopen(f"{system.url}/dicomweb/studies?{query}") as answer:
        found: list[dict[str, dict[str, list[str]]]] = json.loads(answer.read())
    return found


def wait_until(is_so: Callable[[], bool], reason: Callable[[], object] = str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, reason()
        time.sleep(0.1)


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        return str(answer.read().decode())


def labels_of(text: str, name: str) -> list[dict[str, str]]:
    families = text_string_to_metric_families(text)
    return [one.labels for family in families for one in family.samples if one.name == name]


def test_one_scrape_of_the_web_role_tells_of_every_role(system: System) -> None:
    text = get(f"{system.url}/metrics")
    serving = labels_of(text, "bfr_role_serving")
    pids = {str(system.role(name).pid) for name in ("web", "dimse", "worker")}
    assert {one["role"] for one in serving} == {"web", "dimse", "worker"}
    assert {one["process"] for one in serving} == pids
    transactions = labels_of(text, "bfr_transaction_duration_seconds_count")
    told = {(one["transaction"], one.get("resource", ""), one["outcome"]) for one in transactions}
    assert {
        ("C-STORE", "", "success"),
        ("C-STORE", "", "conflict"),
        ("C-STORE", "", "invalid"),
        ("STOW-RS", "/studies", "success"),
        ("STOW-RS", "/studies", "conflict"),
        ("QIDO-RS", "/studies", "success"),
        ("QIDO-RS", "/studies", "invalid"),
        ("WADO-RS", "/studies/{study}", "success"),
        ("WADO-RS", "/studies/{study}/metadata", "success"),
        ("DICOMweb", "none", "not_found"),
        ("portals", "/api/patients/search", "success"),
        ("portals", "/api/patients/search", "invalid"),
    } <= told
    (rejected,) = labels_of(text, "bfr_associations_rejected_total")
    assert rejected["reason"] == "called_ae_title_not_recognised"


def test_the_figures_are_for_callers_of_the_machine(system: System) -> None:
    request = urllib.request.Request(f"{system.url}/metrics", headers={"Host": "example.org"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    with refused.value as answer:
        assert answer.code == 403


def test_every_role_answers_on_the_port_for_observers(system: System) -> None:
    url = f"http://127.0.0.1:{system.environment['BFR_OBSERVE_PORT']}"
    assert get(f"{url}/healthz") == "ok\n"
    roles: set[str] = set()

    def all_have_answered() -> bool:
        # The kernel chooses which of the processes gets the connection.
        told = json.loads(get(f"{url}/readyz"))
        assert told.pop("database") is told.pop("disk") is True
        roles.update(role for role, ready in told.items() if ready is True)
        return roles == {"web", "dimse", "worker"}

    wait_until(all_have_answered)
    assert {one["role"] for one in labels_of(get(f"{url}/metrics"), "bfr_role_serving")} == roles
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}/dicomweb/studies")
    with refused.value as answer:
        assert answer.code == 404


def test_a_transaction_is_one_trace_down_to_database_and_blobs(
    system: System, receiver: Receiver
) -> None:
    wanted = {
        "C-STORE": {"commit", "database transaction", "blob sync"},
        "STOW-RS /studies": {"commit", "database transaction"},
        "WADO-RS /studies/{study}": {"database transaction", "blob read"},
        "QIDO-RS /studies": {"database transaction"},
        "portals /api/patients/search": {"database transaction"},
        "job seal": {"database transaction", "blob put"},
    }
    found: dict[str, set[str]] = {}

    def all_is_there() -> bool:
        spans = [span for _, span in receiver.spans()]
        in_trace: dict[bytes, set[str]] = {}
        for span in spans:
            in_trace.setdefault(span.trace_id, set()).add(span.name)
        for span in spans:
            if not span.parent_span_id:
                found.setdefault(span.name, set()).update(in_trace[span.trace_id])
        return not missing()

    def missing() -> dict[str, set[str]]:
        without = {root: names - found.get(root, set()) for root, names in wanted.items()}
        return {root: names for root, names in without.items() if names}

    wait_until(all_is_there, missing)
    services = {service for service, _ in receiver.spans()}
    assert services == {"bfr-web", "bfr-dimse", "bfr-worker"}


def test_spans_hang_together_in_their_trace(system: System, receiver: Receiver) -> None:
    spans = {span.span_id: span for _, span in receiver.spans()}
    stores = [one for one in spans.values() if one.name == "commit"]
    assert stores
    for commit in stores:
        parent = spans[commit.parent_span_id]
        assert parent.name in ("C-STORE", "STOW-RS /studies", "STOW-RS /studies/{study}")
        assert parent.trace_id == commit.trace_id
        assert any(
            one.parent_span_id == commit.span_id and one.name == "database transaction"
            for one in spans.values()
        )


def test_log_lines_are_objects_that_share_the_id_of_their_trace(
    system: System, receiver: Receiver
) -> None:
    lines = [json.loads(line) for line in system.log.splitlines()]
    assert all({"time", "level", "logger", "role", "message"} <= line.keys() for line in lines)
    assert {line["role"] for line in lines} >= {"bfr", "dimse"}
    refused = [line for line in lines if "C-STORE refused" in line["message"]]
    assert len(refused) >= 7
    traces = {span.trace_id.hex() for _, span in receiver.spans() if span.name == "C-STORE"}
    assert {line["trace_id"] for line in refused} <= traces


def test_no_person_is_in_a_log_line_a_figure_or_a_trace(system: System, receiver: Receiver) -> None:
    said = {
        "log": system.log,
        "figures": get(f"{system.url}/metrics"),
        "traces": "".join(str(span) for _, span in receiver.spans()),
    }
    database_logs = list(Path(system.environment["BFR_DATA_DIR"]).rglob("postgres/**/*log*"))
    said |= {path.name: path.read_text() for path in database_logs if path.is_file()}
    assert len(said) > 3
    for where, text in said.items():
        assert len(text) > 100, where
        for trace in TRACES:
            assert trace not in text.lower(), f"{trace} in {where}"


def test_a_process_that_was_killed_is_forgotten_and_its_successor_told(system: System) -> None:
    killed = system.role("worker")
    killed.kill()

    def successor_tells() -> bool:
        serving = labels_of(get(f"{system.url}/metrics"), "bfr_role_serving")
        workers = [one["process"] for one in serving if one["role"] == "worker"]
        return bool(workers) and str(killed.pid) not in workers

    wait_until(successor_tells)
    run_dir = Path(system.environment["BFR_DATA_DIR"]) / "run"
    assert len(list(run_dir.iterdir())) == 3
    assert run_dir.stat().st_mode & 0o077 == 0


def test_without_an_endpoint_opentelemetry_is_not_even_loaded() -> None:
    program = (
        "import sys, bfr_command.web, bfr_command.serving, bfr_legacy.dimse.server\n"
        "from bfr_core import tracing\n"
        "from bfr_core.observation import Observation\n"
        "from bfr_core.settings import Settings\n"
        "with tracing.exported(Settings(), 'web'):\n"
        "    one = Observation('C-STORE')\n"
        "    with tracing.span('x'), tracing.shared_span('y', [tracing.current()]): pass\n"
        "    one.end('success')\n"
        "print(*[name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BFR_")}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""


# A process alone


async def test_a_long_data_folder_and_a_stale_file_keep_nobody_from_telling(
    with_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = with_settings(data_dir=tmp_path / ("long" * 30))
    settings.run_dir.mkdir(parents=True)
    stale = settings.run_dir / f"dimse-999999@{socket.gethostname()}"
    of_another_machine = settings.run_dir / "dimse-1@elsewhere"
    directory = os.open(settings.run_dir, os.O_RDONLY)
    for path in (stale, of_another_machine):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{directory}/{path.name}")
    os.close(directory)
    async with open_store(settings) as store, observing.observed(store, "worker"):
        (own,) = settings.run_dir.glob("worker-*")
        told = await observing._figures_of(own)
        assert b'role="worker"' in told
        status, _, body = await observing.figures(store, "worker")
        assert status == 200
        assert re.findall(rb'bfr_role_serving{.*role="(\w+)"', body) == [b"worker"]
        assert not stale.exists()
    assert [path.name for path in settings.run_dir.iterdir()] == [of_another_machine.name]


async def test_a_port_that_is_taken_keeps_no_role_from_serving(
    with_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as stack:
        taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = taken.getsockname()[1]
        async with open_store(with_settings(observe_port=port)) as store:
            async with observing.observed(store, "dimse"):
                assert "the figures of this process cannot be told" in caplog.text


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"HEAD /healthz HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /readyz HTTP/1.1\r\n\r\n", b"503"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"\xff\xfe\r\n\r\n", b"405"),
        (b"GET " + b"x" * 100_000, b""),
        (b"", b""),
    ],
)
async def test_a_request_that_makes_no_sense_harms_nobody(
    with_settings: Callable[..., Settings], request_line: bytes, status: bytes
) -> None:
    port = free_port()
    async with open_store(with_settings(observe_port=port)) as store:
        async with observing.observed(store, "dimse"), asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request_line)
            writer.write_eof()
            try:
                answer = await reader.read()
            except ConnectionResetError:
                answer = b""
            writer.close()
            assert answer[9:12] == status
            if request_line.startswith(b"HEAD"):
                assert answer.endswith(b"\r\n\r\n")


async def test_a_full_disk_is_told_and_makes_nothing_unready(
    store: Store, with_settings: Callable[..., Settings]
) -> None:
    store.blobs.free_space_min_bytes = 1 << 60
    _, _, body = await observing.readiness(store)
    told = json.loads(body)
    assert told["disk"] == "the disk of the archive is full"
    assert told["database"] is True
