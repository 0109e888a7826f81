"""Bounded memory: one huge object, many small ones and many readers, and what each role takes.

BFR alone: the question is not who needs less but whether anything grows with what passes.
"""

import hashlib
import http.client
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import processes, samples
from bench.http_client import HOST
from bench.measures import Results
from bench.run import Sizes, require
from bench.servers import CALLED_AE_TITLE, CALLING_AE_TITLE, Peers, Server, without_nagle

MIB = 1024 * 1024
BOUNDARY = "bench-bounded"
HUGE_SIDE = 4096  # rows and columns of a frame of the huge object
SMALL_A_STUDY = 500
WATCH_INTERVAL_S = 0.5
READ_BYTES = 1 << 20
MULTIPART = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
ROLES = ("web", "dimse", "worker")


def bounded(
    server: Server, directory: Path, results: Results, sizes: Sizes, peers: Peers
) -> dict[str, float]:
    """Return the largest memory of each role in MiB, without pages of files: those are a cache.

    Raises Wrong when something comes out other than it went in.
    """
    watch = _RoleWatch(server)
    for name, step in (
        ("one huge object", lambda: _huge(server, sizes.huge_bytes)),
        ("many small objects", lambda: _small(server, directory, sizes.small_objects, peers)),
        ("many readers", lambda: _readers(server, directory, sizes, peers)),
    ):
        results.note(f"bounded memory, {name}: {_peaks(watch, step)}")
    return watch.stop()


def _peaks(watch: "_RoleWatch", step: Callable[[], None]) -> str:
    watch.peak_bytes.clear()
    step()
    watch.look()
    peaks = watch.peak_bytes
    watch.every.append(dict(peaks))
    return ", ".join(f"{role} {peaks.get(role, 0) / MIB:.0f} MiB" for role in ROLES)


def _huge(server: Server, size_bytes: int) -> None:
    """Store one object of so many bytes with STOW-RS and read it back."""
    frames = max(1, size_bytes // HUGE_SIDE**2)
    plane = bytes(HUGE_SIDE) * HUGE_SIDE
    header, study = samples.huge_header(HUGE_SIDE, frames)
    opening = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    ending = f"\r\n--{BOUNDARY}--\r\n".encode()

    def body() -> Iterator[bytes]:
        yield opening + header
        for _ in range(frames):
            yield plane
        yield ending

    length = len(opening) + len(header) + frames * len(plane) + len(ending)
    connection = http.client.HTTPConnection(HOST, server.http_port, timeout=600)
    connection.request(
        "POST",
        f"/archives/{CALLED_AE_TITLE}/dicomweb/studies",
        body(),
        {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}',
            "Content-Length": str(length),
        },
    )
    answer = connection.getresponse()
    text = answer.read()
    require(answer.status == 200, server, f"the huge object was not stored: {text[:300]!r}")
    wanted = hashlib.sha256(header)
    for _ in range(frames):
        wanted.update(plane)
    connection.request("GET", f"{server.dicomweb_root}/studies/{study}", headers=MULTIPART)
    answer = connection.getresponse()
    part = _part(answer, len(header) + frames * len(plane))
    require(part == wanted.digest(), server, "the huge object is not what was stored")
    connection.close()


def _part(answer: http.client.HTTPResponse, length_bytes: int) -> bytes:
    """Return the SHA-256 of the only part of the answer, which has so many bytes."""
    begun = b""
    while b"\r\n\r\n" not in begun:
        begun += answer.read(256)
    found = hashlib.sha256()
    piece = begun.partition(b"\r\n\r\n")[2]
    left = length_bytes
    while left and piece:
        found.update(piece[:left])
        left -= min(left, len(piece))
        piece = answer.read(min(READ_BYTES, left)) if left else b""
    answer.read()
    return found.digest()


def _small(server: Server, directory: Path, count: int, peers: Peers) -> None:
    """Store many small objects over C-STORE with four associations."""
    folders = []
    for number in range(0, count, SMALL_A_STUDY):
        folder = directory / f"small.{number}"
        own = min(SMALL_A_STUDY, count - number)
        samples.write_series(folder, f"small {number}", [own], size=samples.SMALL_SIZE)
        folders.append(folder)
    shares = [folders[first::4] for first in range(4)]
    senders = [
        subprocess.Popen(
            [
                *(str(peers.storescu), "-aec", CALLED_AE_TITLE, "-aet", CALLING_AE_TITLE, "+sd"),
                *("+r", HOST, str(server.dicom_port), *map(str, share)),
            ],
            env=without_nagle(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for share in shares
        if share
    ]
    require(all(sender.wait() == 0 for sender in senders), server, "a small object was refused")


def _readers(server: Server, directory: Path, sizes: Sizes, peers: Peers) -> None:
    """Read one study by many clients at once."""
    stored = samples.write_series(directory / "read", "read", [sizes.instances])
    done = subprocess.run(
        [
            *(str(peers.storescu), "-aec", CALLED_AE_TITLE, "-aet", CALLING_AE_TITLE, "+sd"),
            *(HOST, str(server.dicom_port), str(directory / "read")),
        ],
        env=without_nagle(),
        check=False,
    )
    require(done.returncode == 0, server, "the study for the readers was refused")
    size_bytes = sum(one.path.stat().st_size for one in stored)
    read_bytes: list[int] = []

    def read() -> None:
        connection = http.client.HTTPConnection(HOST, server.http_port, timeout=600)
        path = f"{server.dicomweb_root}/studies/{stored[0].study_instance_uid}"
        connection.request("GET", path, headers=MULTIPART)
        answer = connection.getresponse()
        total = 0
        while piece := answer.read(READ_BYTES):
            total += len(piece)
        read_bytes.append(total)
        connection.close()

    threads = [threading.Thread(target=read) for _ in range(sizes.readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = len(read_bytes) == sizes.readers and min(read_bytes) >= size_bytes
    require(whole, server, "a reader did not get the whole study")


class _RoleWatch:
    """Notes the largest memory of each role, twice a second."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.peak_bytes: dict[str, int] = {}
        self.every: list[dict[str, int]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Note the memory of this moment."""
        for pid in processes.tree(self._server.pid)[1:]:
            role = processes.role_of(pid)
            if role:
                held = processes.held_bytes(pid)
                self.peak_bytes[role] = max(self.peak_bytes.get(role, 0), held)

    def stop(self) -> dict[str, float]:
        """End, and return the largest memory of each role in MiB."""
        self._ended.set()
        self._thread.join()
        return {role: max(peaks.get(role, 0) for peaks in self.every) / MIB for role in ROLES}

    def _watch(self) -> None:
        while not self._ended.wait(WATCH_INTERVAL_S):
            self.look()
