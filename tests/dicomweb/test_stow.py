"""STOW-RS: what is sent is stored whole, or told why not (PS3.18 §10.5)."""

import asyncio
import contextlib
import os
import re
import socket
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from tests.conftest import add_house
from tests.dicomweb.conftest import (
    BOUNDARY,
    Web,
    bodies_of,
    multipart,
    new_settings,
    related,
    running,
    until,
)
from tests.samples import (
    ct_instance,
    ct_series,
    dataset_bytes,
    encapsulated_pdf,
    part10_bytes,
    sr_report,
)

from bfr_core.pixels import PixelPool
from bfr_core.postgres import Cluster
from bfr_core.settings import Settings
from bfr_core.store import open_store
from bfr_dicomweb.dicom_xml import read_xml

pytestmark = pytest.mark.asyncio(loop_scope="module")

DICOM = "application/dicom"
ROOT = "/archives/ARCHIVE/dicomweb"
MIB = 1 << 20


def items(answer: httpx.Response, tag: str) -> list[dict[str, Any]]:
    """The items of a sequence of the answer, each as tag → first value."""
    return [
        {key: element["Value"][0] for key, element in item.items()}
        for item in answer.json().get(tag, {}).get("Value", [])
    ]


def failed(answer: httpx.Response) -> list[dict[str, Any]]:
    return items(answer, "00081198")


def stored(answer: httpx.Response) -> list[dict[str, Any]]:
    return items(answer, "00081199")


def unreadable(answer: httpx.Response) -> list[dict[str, Any]]:
    return items(answer, "0008119A")


async def is_empty(web: Web) -> bool:
    """Tell whether the archive holds nothing, neither a row nor a pack."""
    rows = [await web.count(table) for table in ("instance", "series", "study", "patient")]
    return rows == [0, 0, 0, 0] and web.packs() == []


# What is stored


@pytest.mark.conforms("PS3.18 §10.5.3", "200 and the stored objects by reference")
async def test_stored_objects_are_referred_to(shared: Web) -> None:
    first, second = ct_series(2)
    answer = await shared.stow(part10_bytes(first), part10_bytes(second))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    url = f"http://127.0.0.1:{shared.port}{ROOT}/studies/{first.StudyInstanceUID}"
    assert answer.json()["00081190"]["Value"] == [url]
    series = f"{url}/series/{first.SeriesInstanceUID}"
    assert stored(answer) == [
        {
            "00081150": one.SOPClassUID,
            "00081155": one.SOPInstanceUID,
            "00081190": f"{series}/instances/{one.SOPInstanceUID}",
        }
        for one in (first, second)
    ]
    assert set(answer.json()) == {"00081190", "00081199"}
    for one, item in zip((first, second), stored(answer), strict=True):
        assert bodies_of(await shared.client.get(item["00081190"])) == [part10_bytes(one)]


async def test_objects_of_two_studies_have_no_common_address(shared: Web) -> None:
    answer = await shared.stow(part10_bytes(ct_instance()), part10_bytes(sr_report()))
    assert answer.status_code == 200
    assert len(stored(answer)) == 2
    assert "00081190" not in answer.json()


@pytest.mark.conforms("PS3.18 §10.5", "Objects may be stored into the study of the URL")
async def test_objects_may_be_stored_into_the_study_of_the_url(shared: Web) -> None:
    one = ct_instance()
    url = f"{ROOT}/studies/{one.StudyInstanceUID}"
    assert (await shared.stow(part10_bytes(one), url=url)).status_code == 200


async def test_the_same_object_again_is_stored_already(web: Web) -> None:
    data = part10_bytes(ct_instance())
    for _ in range(2):
        answer = await web.stow(data, data)
        assert answer.status_code == 200
        assert len(stored(answer)) == 2
    assert await web.count("instance") == 1
    assert len(web.packs()) == 1


async def test_the_archive_of_the_url_takes_the_objects(shared: Web) -> None:
    one = ct_instance()
    url = "/archives/OTHER/dicomweb/studies"
    answer = await shared.stow(part10_bytes(one), url=url)
    assert stored(answer)[0]["00081190"].startswith(
        f"http://127.0.0.1:{shared.port}/archives/OTHER/dicomweb/"
    )
    assert (await shared.client.get(f"{ROOT}/studies/{one.StudyInstanceUID}")).status_code == 404


async def test_the_joint_root_takes_objects_when_there_is_one_archive_alone(
    cluster: Cluster, pixels: PixelPool, tmp_path: Path, shared: Web
) -> None:
    data = part10_bytes(ct_instance())
    refused = await shared.stow(data, url="/dicomweb/studies")
    assert refused.status_code == 400
    assert "/archives/{aet}/dicomweb" in refused.json()["detail"]
    with new_settings(cluster, tmp_path) as chosen:
        async with running(chosen, pixels, archives=["ONLY"]) as web:
            assert (await web.stow(data, url="/dicomweb/studies")).status_code == 200


async def test_an_archive_title_is_quoted_in_addresses(
    cluster: Cluster, pixels: PixelPool, tmp_path: Path
) -> None:
    one = encapsulated_pdf(document=bytes(3000))
    with new_settings(cluster, tmp_path) as chosen:
        async with running(chosen, pixels, archives=['A "B" %C']) as web:
            root = "/archives/A%20%22B%22%20%25C/dicomweb"
            answer = await web.stow(part10_bytes(one), url=f"{root}/studies")
            (item,) = stored(answer)
            assert f"{root}/studies/" in item["00081190"]
            assert bodies_of(await web.client.get(item["00081190"])) == [part10_bytes(one)]
            (model,) = (await web.client.get(item["00081190"] + "/metadata")).json()
            value = await web.client.get(model["00420011"]["BulkDataURI"])
            assert value.content == bytes(3000)
            (study,) = (await web.client.get(f"{root}/studies")).json()
            assert (await web.client.get(study["00081190"]["Value"][0])).status_code == 200


async def test_large_and_small_objects_come_in_one_body(
    cluster: Cluster, pixels: PixelPool, tmp_path: Path
) -> None:
    datasets = [ct_instance(rows=size, columns=size) for size in (2, 200, 3, 150)]
    with new_settings(cluster, tmp_path, object_memory_bytes=20_000) as chosen:
        async with running(chosen, pixels) as web:
            data = [part10_bytes(one) for one in datasets]
            answer = await web.stow(*data)
            assert answer.status_code == 200
            for one, expected in zip(datasets, data, strict=True):
                got = await web.client.get(f"{ROOT}/studies/{one.StudyInstanceUID}")
                assert bodies_of(got) == [expected]


# What is stored in part, or not at all


@pytest.mark.conforms("PS3.18 Table 10.5.3-1", "202 when some are stored and some are not")
async def test_some_stored_and_some_not_is_202(shared: Web) -> None:
    good, nameless = ct_instance(), ct_instance()
    del nameless.StudyInstanceUID
    answer = await shared.stow_parts(
        (DICOM, part10_bytes(nameless)), (DICOM, b"no DICOM"), (DICOM, part10_bytes(good))
    )
    assert answer.status_code == 202
    assert [item["00081155"] for item in stored(answer)] == [good.SOPInstanceUID]
    reasons = unreadable(answer)
    assert [item["00081197"] for item in reasons] == [0xC000, 0xC000]
    assert reasons[0]["00000902"] == "part 1: Study Instance UID (0020,000D) is missing"
    assert reasons[1]["00000902"].startswith("part 2: no DICOM prefix")


@pytest.mark.parametrize(
    "keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
)
async def test_a_missing_uid_is_named_with_its_part(web: Web, keyword: str) -> None:
    one = ct_instance()
    delattr(one, keyword)
    answer = await web.stow(part10_bytes(one))
    assert answer.status_code == 409
    (reason,) = unreadable(answer)
    name = (
        keyword.replace("UID", " UID").replace("Instance", " Instance").replace("Class", " Class")
    )
    assert reason["00000902"].startswith(f"part 1: {name.strip()} (")
    assert await is_empty(web)


@pytest.mark.conforms("PS3.18 Table 10.5.3-1", "409 when nothing is stored for a conflict")
async def test_another_object_under_the_same_uid_is_a_conflict(web: Web) -> None:
    one = ct_instance()
    await web.stow(part10_bytes(one))
    one.ImageComments = "changed"
    for _ in ("receiving", "sealed"):
        answer = await web.stow(part10_bytes(one))
        assert answer.status_code == 409
        (item,) = failed(answer)
        assert item["00081155"] == one.SOPInstanceUID
        assert item["00081197"] == 0x0111
        await web.seal()
    assert len(web.packs()) == 1
    async with web.store.database.transaction() as tx:
        refusals = await tx.value("SELECT count(*) FROM audit_record WHERE outcome = 'refused'")
    assert refusals == 2


async def test_a_study_of_another_patient_is_a_conflict(shared: Web) -> None:
    one = ct_instance()
    await shared.stow(part10_bytes(one))
    other = ct_instance(StudyInstanceUID=one.StudyInstanceUID, PatientID="195001019802")
    answer = await shared.stow(part10_bytes(other))
    assert answer.status_code == 409
    (item,) = failed(answer)
    assert item["00081197"] == 0xC001
    assert "195001019802" not in answer.text


@pytest.mark.conforms("PS3.18 §10.5.1", "Objects of another study than the URL's are not stored")
async def test_objects_of_another_study_than_the_urls_are_not_stored(web: Web) -> None:
    one, other = ct_instance(), ct_instance()
    url = f"{ROOT}/studies/{one.StudyInstanceUID}"
    answer = await web.stow(part10_bytes(other), part10_bytes(one), url=url)
    assert answer.status_code == 202
    assert [item["00081155"] for item in stored(answer)] == [one.SOPInstanceUID]
    (item,) = failed(answer)
    assert (item["00081155"], item["00081197"]) == (other.SOPInstanceUID, 0xA900)
    assert await web.count("study") == 1
    alone = await web.stow(part10_bytes(other), url=url)
    assert alone.status_code == 409
    assert len(web.packs()) == 1


async def test_a_part_of_another_media_type_is_told_and_the_others_stored(shared: Web) -> None:
    one = ct_instance()
    answer = await shared.stow_parts(
        ("image/jpeg", b"\xff\xd8\xff"), (DICOM, part10_bytes(one)), ("text/plain", b"hello")
    )
    assert answer.status_code == 202
    assert len(stored(answer)) == 1
    assert [item["00081197"] for item in unreadable(answer)] == [0x0122, 0x0122]
    assert "part 1" in unreadable(answer)[0]["00000902"]
    assert "part 3" in unreadable(answer)[1]["00000902"]


async def test_a_transfer_syntax_in_the_type_of_a_part_is_allowed(shared: Web) -> None:
    kind = "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"
    answer = await shared.stow_parts((kind, part10_bytes(ct_instance())))
    assert answer.status_code == 200


async def test_a_data_set_without_file_header_is_told(web: Web) -> None:
    answer = await web.stow(dataset_bytes(ct_instance()))
    assert answer.status_code == 409
    assert "no DICOM prefix" in unreadable(answer)[0]["00000902"]
    assert await is_empty(web)


async def test_an_object_cut_short_within_a_whole_body_is_told(web: Web) -> None:
    answer = await web.stow(part10_bytes(ct_instance())[:-100])
    assert answer.status_code == 409
    assert unreadable(answer)[0]["00000902"].startswith("part 1: ")
    assert await is_empty(web)


@pytest.mark.parametrize("memory", [1000, 4 * MIB])
async def test_an_object_over_the_limit_is_told_and_the_next_is_stored(
    cluster: Cluster, pixels: PixelPool, tmp_path: Path, memory: int
) -> None:
    changed = {"object_max_bytes": 9000, "object_memory_bytes": memory}
    with new_settings(cluster, tmp_path, **changed) as chosen:
        async with running(chosen, pixels) as web:
            large, small = ct_instance(rows=300), ct_instance(rows=8, columns=8)
            answer = await web.stow(part10_bytes(large), part10_bytes(small))
            assert answer.status_code == 202
            assert "larger than 9000 bytes" in unreadable(answer)[0]["00000902"]
            assert [item["00081155"] for item in stored(answer)] == [small.SOPInstanceUID]
            assert len(web.packs()) == 1


@pytest.mark.conforms("PS3.18 Table 8.5-1", "503 when there is no room")
async def test_a_full_disk_is_503(cluster: Cluster, pixels: PixelPool, tmp_path: Path) -> None:
    with new_settings(cluster, tmp_path, free_space_min_bytes=1 << 60) as chosen:
        async with running(chosen, pixels) as web:
            answer = await web.stow(part10_bytes(ct_instance()))
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
            assert "full" in answer.json()["detail"]
            assert await is_empty(web)


# Requests that are no Store request


@pytest.mark.conforms("PS3.18 Table 10.5.3-1", "415 for a body of another media type")
@pytest.mark.parametrize(
    "kind",
    [
        None,
        "text/plain",
        "image/jpeg",
        'multipart/form-data; boundary="x"',
        'multipart/related; type="image/jpeg"; boundary=x',
    ],
)
async def test_a_body_of_another_media_type_is_415(shared: Web, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = await shared.client.post(f"{ROOT}/studies", content=b"x" * 100_000, headers=headers)
    assert answer.status_code == 415
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


@pytest.mark.conforms("PS3.18 Table 10.5.3-1", "400 for a body that is malformed")
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/related; type=application/dicom", b""),
        ('multipart/related; boundary="', b""),
        (related(), b""),
        (related(), b"no boundary at all"),
        (related(), multipart((DICOM, b"x"), boundary="another")),
        (related(), multipart((DICOM, b"x"))[:-4]),
        (related(), b"--" + BOUNDARY.encode() + b"--\r\n"),
        (related(), multipart((DICOM, b"x")).replace(b"Content-Type", b"Content-Kind")),
        (related(), multipart((DICOM, b"x")).replace(b"\r\n", b"\n")),
        (related("x" * 300), multipart((DICOM, b"x"), boundary="x" * 300)),
    ],
)
async def test_a_malformed_body_is_400(shared: Web, kind: str, body: bytes) -> None:
    answer = await shared.client.post(
        f"{ROOT}/studies", content=body, headers={"Content-Type": kind}
    )
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


@pytest.mark.conforms("PS3.18 §10.5.3.3", "The answer is a data set in JSON or XML")
async def test_the_answer_comes_as_json_or_xml(shared: Web) -> None:
    one = ct_instance()
    for accept, status in (("application/dicom+xml", 200), ("text/html", 406)):
        answer = await shared.client.post(
            f"{ROOT}/studies",
            content=multipart((DICOM, part10_bytes(one))),
            headers={"Content-Type": related(), "Accept": accept},
        )
        assert answer.status_code == status
        if status == 200:
            [item] = read_xml(answer.content, 10)["00081199"]["Value"]
            assert item["00081155"]["Value"] == [one.SOPInstanceUID]


async def test_an_archive_that_is_not_there_takes_nothing(shared: Web) -> None:
    answer = await shared.stow(b"", url="/archives/NOBODY/dicomweb/studies")
    assert answer.status_code == 404


@pytest.mark.parametrize("memory", [1000, 4 * MIB])
async def test_a_malformed_end_takes_back_what_came_before_it(
    cluster: Cluster, pixels: PixelPool, tmp_path: Path, memory: int
) -> None:
    parts = [(DICOM, part10_bytes(one)) for one in (*ct_series(3), ct_instance(rows=200))]
    body = multipart(*parts)
    with new_settings(cluster, tmp_path, object_memory_bytes=memory) as chosen:
        async with running(chosen, pixels) as web:
            for cut in (body[:-10], body[:-2000], body[: len(body) // 2]):
                answer = await web.client.post(
                    f"{ROOT}/studies", content=cut, headers={"Content-Type": related()}
                )
                assert answer.status_code == 400
                assert await is_empty(web)
            whole = await web.stow_parts(*parts)
            assert whole.status_code == 200


# The body as it travels


def head(length: int | None, *more: str) -> bytes:
    lines = [
        f"POST {ROOT}/studies HTTP/1.1",
        "Host: 127.0.0.1",
        "Accept: application/dicom+json",
        f"Content-Type: {related()}",
        "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


@contextlib.asynccontextmanager
async def connected(
    web: Web,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_sender_that_breaks_off_leaves_nothing(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    body = multipart(*((DICOM, part10_bytes(one)) for one in ct_series(3)))
    async with connected(web) as (_, writer):
        writer.write(head(len(body)) + body[:-3000])
        await writer.drain()
        await asyncio.sleep(0.1)
        assert web.packs()
    await until(lambda: not web.packs())
    assert await is_empty(web)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.conforms("RFC 9110 §10.1.1", "100 (Continue) before the body is sent")
async def test_a_sender_that_expects_100_is_told_to_go_on(shared: Web) -> None:
    body = multipart((DICOM, part10_bytes(ct_instance())))
    async with asyncio.timeout(10), connected(shared) as (reader, writer):
        writer.write(head(len(body), "Expect: 100-continue"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")


@pytest.mark.conforms("RFC 9110 §10.1.1", "A refusal instead of 100 (Continue)")
async def test_a_sender_that_expects_100_is_refused_before_it_sends(shared: Web) -> None:
    request = head(1000, "Expect: 100-continue").replace(b"ARCHIVE", b"NOBODY")
    async with asyncio.timeout(10), connected(shared) as (reader, writer):
        writer.write(request)
        assert (await reader.readline()).startswith(b"HTTP/1.1 404")


@pytest.mark.conforms("RFC 9112 §7.1", "Chunked bodies of any cut")
@pytest.mark.parametrize("size", [1, 7, 1000, 65_536])
async def test_chunks_of_any_size_make_the_same_object(shared: Web, size: int) -> None:
    one = ct_instance(rows=16, columns=16)
    body = multipart((DICOM, part10_bytes(one)))
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    async with asyncio.timeout(20), connected(shared) as (reader, writer):
        writer.write(head(None))
        for chunk in chunks:
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        writer.write(b"0\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    answer = await shared.client.get(f"{ROOT}/studies/{one.StudyInstanceUID}")
    assert bodies_of(answer) == [part10_bytes(one)]


async def test_two_senders_at_once_both_get_their_answer(shared: Web) -> None:
    series = ct_series(20, rows=16, columns=16)
    answers = await asyncio.gather(
        *(shared.stow(*(part10_bytes(one) for one in series[start::4])) for start in range(4))
    )
    assert [answer.status_code for answer in answers] == [200] * 4
    path = f"{ROOT}/studies/{series[0].StudyInstanceUID}"
    assert len(bodies_of(await shared.client.get(path))) == 20


# Anything at all

PIECES = st.sampled_from(
    [
        b"--" + BOUNDARY.encode(),
        b"--",
        b"\r\n",
        b"\r\n\r\n",
        b"Content-Type: application/dicom",
        b"content-type: x",
        b":",
        b"\0" * 128 + b"DICM",
        b"\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0",
        b"\x08\0\x18\0UI\x04\x001.2\0",
    ]
) | st.binary(max_size=20)


@settings(max_examples=150, deadline=None)
@example([b"--" + BOUNDARY.encode() + b"\r\n\r\n\r\n--" + BOUNDARY.encode() + b"--"])
@given(pieces=st.lists(PIECES, max_size=20))
async def test_no_body_makes_the_server_fail(shared: Web, pieces: list[bytes]) -> None:
    answer = await shared.client.post(
        f"{ROOT}/studies", content=b"".join(pieces), headers={"Content-Type": related()}
    )
    assert answer.status_code in (400, 409)


SAMPLE = part10_bytes(ct_instance(rows=2, columns=2))


@settings(max_examples=150, deadline=None)
@given(st.data())
async def test_no_damaged_object_makes_the_server_fail(shared: Web, data: st.DataObject) -> None:
    damaged = bytearray(SAMPLE)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(128, len(damaged) - 1))
        length = data.draw(st.integers(0, 6))
        damaged[position : position + length] = data.draw(st.binary(max_size=6))
    answer = await shared.stow(bytes(damaged))
    assert answer.status_code in (200, 409)
    if answer.status_code == 200:
        for level in ("studies", "series", "instances"):
            found = await shared.client.get(f"{ROOT}/{level}?limit=3")
            assert found.status_code == 200


# Real files


BUNDLED = Path(pydicom.__file__).parent / "data"


def bundled_files() -> list[tuple[str, bytes, Dataset]]:
    """The files that come with pydicom and are storable objects."""
    found: list[tuple[str, bytes, Dataset]] = []
    for path in sorted(BUNDLED.rglob("*")):
        if not path.is_file() or path.suffix in (".py", ".pyc", ".json", ".md", ".txt", ".gz"):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):
                dataset = pydicom.dcmread(path)
                dataset.walk(lambda _, element: element.value)
        except (InvalidDicomError, EOFError):
            continue
        keywords = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
        if all(dataset.get(keyword) for keyword in keywords):
            found.append((path.name, path.read_bytes(), dataset))
    return found


async def test_real_files_come_out_byte_for_byte(
    cluster: Cluster, pixels: PixelPool, tmp_path: Path
) -> None:
    # Many are the same object in another encoding: each archive takes one of them.
    titles = [f"ARCHIVE{number}" for number in range(12)]
    files = bundled_files()
    assert len(files) > 100
    refused = set()
    with new_settings(cluster, tmp_path) as chosen:
        async with running(chosen, pixels, archives=titles) as web:
            for name, data, dataset in files:
                for title in titles:
                    root = f"/archives/{title}/dicomweb"
                    answer = await web.stow(data, url=f"{root}/studies")
                    if answer.status_code == 200 or unreadable(answer):
                        break
                if answer.status_code != 200:
                    refused.add(name)
                    continue
                url = stored(answer)[0]["00081190"]
                got = await web.client.get(url, headers={"Accept": DICOM})
                assert got.content == data, name
                (model,) = (await web.client.get(f"{url}/metadata")).json()
                assert model["00080018"]["Value"] == [dataset.SOPInstanceUID]
                if "PixelData" in dataset:
                    frame = await web.client.get(f"{url}/frames/1")
                    assert frame.status_code in (200, 404, 406), (name, frame.text)
                    picture = await web.client.get(f"{url}/rendered")
                    assert picture.status_code in (200, 404, 406), (name, picture.text)
    # Without its end an object is no object: its sender still has it.
    assert refused == {"MR_truncated.dcm", "rtplan_truncated.dcm"}


# How much memory a large body takes


@contextlib.asynccontextmanager
async def process(settings: Settings) -> AsyncIterator[tuple[int, str]]:
    """The web role in a process of its own: its process id and URL."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    environment = {**os.environ, **settings.to_environment(), "BFR_HTTP_PORT": str(port)}
    command = [sys.executable, "-m", "bfr_command", "serve", "web"]
    server = await asyncio.create_subprocess_exec(*command, env=environment)

    async def is_up() -> bool:
        assert server.returncode is None
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
            return True
        return False

    try:
        await until(is_up)
        yield server.pid, f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.terminate()
        await server.wait()


def memory_bytes(pid: int) -> int:
    """The memory of the process, without the pages of files that the kernel keeps for it."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) * 1024


async def watch_memory(pid: int, seen: list[int]) -> None:
    while True:
        seen.append(memory_bytes(pid))
        await asyncio.sleep(0.01)


async def large_object(size_bytes: int) -> AsyncIterator[bytes]:
    """A body of one part, an object with that much pixel data, made as it is sent."""
    data = part10_bytes(ct_instance(rows=2, columns=2))
    place = data.rindex((8).to_bytes(4, "little"))
    start = data[:place] + size_bytes.to_bytes(4, "little")
    yield multipart((DICOM, start)).removesuffix(f"\r\n--{BOUNDARY}--\r\n".encode())
    for _ in range(size_bytes // MIB):
        yield bytes(MIB)
    yield f"\r\n--{BOUNDARY}--\r\n".encode()


async def many_objects(count: int) -> AsyncIterator[bytes]:
    """A body of many small objects of one series."""
    template = part10_bytes(ct_instance(rows=2, columns=2, SOPInstanceUID="1.2.3.900000"))
    for number in range(count):
        data = template.replace(b"1.2.3.900000", b"1.2.3.1%05d" % number)
        yield f"--{BOUNDARY}\r\nContent-Type: {DICOM}\r\n\r\n".encode() + data + b"\r\n"
    yield f"--{BOUNDARY}--\r\n".encode()


@pytest.mark.parametrize(
    "body",
    [lambda: large_object(200 * MIB), lambda: many_objects(10_000)],
    ids=["200 MiB in one part", "10 000 parts"],
)
async def test_a_large_body_takes_little_memory(
    cluster: Cluster, tmp_path: Path, body: Callable[[], AsyncIterator[bytes]]
) -> None:
    with new_settings(cluster, tmp_path) as chosen:
        async with open_store(chosen) as store:
            await add_house(store, "ARCHIVE", "MODALITY")
        async with process(chosen) as (pid, url):
            async with httpx.AsyncClient(base_url=url, timeout=120) as client:
                headers = {"Content-Type": related()}
                warm = multipart((DICOM, part10_bytes(ct_instance())))
                await client.post(f"{ROOT}/studies", content=warm, headers=headers)
                seen = [memory_bytes(pid)]
                watching = asyncio.create_task(watch_memory(pid, seen))
                answer = await client.post(f"{ROOT}/studies", content=body(), headers=headers)
                watching.cancel()
    assert answer.status_code == 200
    assert failed(answer) == unreadable(answer) == []
    assert len(seen) > 10
    assert max(seen) - seen[0] < 150 * MIB
