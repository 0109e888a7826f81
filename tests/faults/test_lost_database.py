"""The restore drill: the database is lost, and comes back from what lies beside it."""

import http.client
import json
import shutil
import time
from collections.abc import Iterator

import pytest
from tests.samples import ct_series, mr_instance, part10_bytes, sr_report, us_multiframe
from tests.system import System, running_system

AE_TITLES = ("FIRST", "SECOND")
PATIENCE_S = 60.0
MULTIPART = 'multipart/related; type="application/dicom"; transfer-syntax=*'


@pytest.fixture
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("drill")) as system:
        for ae_title in AE_TITLES:
            system.add_archive(ae_title, ["SENDER"])
        yield system


def stow(system: System, ae_title: str, *files: bytes) -> int:
    body = b"".join(
        b"--B\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n" for data in files
    )
    connection = http.client.HTTPConnection("127.0.0.1", system.http_port, timeout=60)
    connection.request(
        "POST",
        f"/archives/{ae_title}/dicomweb/studies",
        body + b"--B--\r\n",
        {"Content-Type": 'multipart/related; type="application/dicom"; boundary=B'},
    )
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def get(system: System, path: str, accept: str = "application/dicom+json") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", system.http_port, timeout=60)
    connection.request("GET", path, headers={"Accept": accept})
    response = connection.getresponse()
    body = response.read()
    boundary = response.headers.get("Content-Type", "").rpartition("boundary=")[2].encode()
    connection.close()
    return response.status, body.replace(boundary, b"") if boundary else body


def answers(system: System) -> dict[str, tuple[int, bytes]]:
    """Every search, every metadata and every object of every study, by path."""
    found = {}
    for ae_title in AE_TITLES:
        root = f"/archives/{ae_title}/dicomweb"
        for resource in ("studies", "series", "instances"):
            path = f"{root}/{resource}?includefield=all"
            found[path] = get(system, path)
        status, body = get(system, f"{root}/studies")
        for study in json.loads(body) if status == 200 else []:
            path = f"{root}/studies/{study['0020000D']['Value'][0]}"
            found[f"{path}/metadata"] = get(system, f"{path}/metadata")
            found[path] = get(system, path, MULTIPART)
    return found


def wait_until_worker_is_done(system: System) -> None:
    """Return when every series is sealed and the connections lie beside the packs."""
    blobs = system.directory / "var" / "blobs"
    deadline = time.monotonic() + PATIENCE_S
    while True:
        status = json.loads(get(system, "/api/status", "application/json")[1])
        series = sum(one["series"] for one in status["archives"])
        kept = blobs / "connections.json"
        if len(list(blobs.rglob("*.manifest"))) >= series and kept.exists():
            if kept.read_text().count("SENDER") == len(AE_TITLES):
                return
        assert time.monotonic() < deadline, system.log[-3000:]
        time.sleep(0.2)


def test_a_lost_database_comes_back_and_answers_as_before(system: System) -> None:
    ct = [part10_bytes(one) for one in ct_series(3)]
    mr, sr, us = (part10_bytes(make()) for make in (mr_instance, sr_report, us_multiframe))
    buried = mr_instance()
    # One study a request: those of one request have no order among themselves.
    assert stow(system, "FIRST", *ct) == 200
    assert stow(system, "FIRST", sr) == 200
    assert stow(system, "SECOND", us) == 200
    assert stow(system, "SECOND", ct[0]) == 200
    assert stow(system, "FIRST", mr) == 200
    assert stow(system, "FIRST", part10_bytes(buried)) == 200
    study = str(buried.StudyInstanceUID)
    told = system.command("delete", study, "--archive", "FIRST", "--reason", "wrong patient")
    assert told.startswith("1 objects are deleted")
    wait_until_worker_is_done(system)
    before = answers(system)
    assert sum(status == 200 for status, _ in before.values()) == len(before) > 10
    system.stop()
    shutil.rmtree(system.directory / "var" / "postgres")

    told = system.command("index", "rebuild")
    assert "7 objects are in the index again, 0 were there, 1 stay deleted, 0 troubles" in told
    again = system.run("index", "rebuild")
    assert again.returncode == 1
    assert "not empty" in again.stderr
    system.start()
    assert answers(system) == before
    assert system.command("node", "list").count("SENDER") == 2
    assert stow(system, "FIRST", part10_bytes(buried)) == 409  # still deleted
    assert system.command("undelete", study, "--archive", "FIRST") == "1 objects are back\n"
    path = f"/archives/FIRST/dicomweb/studies/{study}"
    assert part10_bytes(buried) in get(system, path, MULTIPART)[1]
