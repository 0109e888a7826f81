"""Retrieving: studies, metadata, instances, frames and pictures, with samples of their bytes."""

import hashlib
import json
import re
import shutil
import time
from collections.abc import Sequence

import imagecodecs

from bench import samples
from bench.clients import Request
from bench.http_client import Answer
from bench.measures import percentile
from bench.run import Run, require
from bench.samples import Sample
from bench.servers import Server

DICOM = 'multipart/related; type="application/dicom"; transfer-syntax=*'
FRAMES = 'multipart/related; type="application/octet-stream"'
METADATA_SERIES = 200
A_REQUEST = 100
KEEP_EVERY = 10
BOUNDARY = re.compile(r'boundary="?([^";]+)"?')
# Around each part: boundary, header fields, and a file meta that may be written again.
PART_EXTRA_BYTES = 2048


def large_metadata(run: Run, round_number: int) -> None:
    """Measure the metadata of a series of many instances, sealed where the server does so."""
    if not run.large:
        directory = run.directory / "large"
        run.large = samples.write_series(
            directory, "large", [run.sizes.large_series], size=samples.SMALL_SIZE
        )
        for server in run.servers:
            for start in range(0, len(run.large), A_REQUEST):
                files = tuple(one.path for one in run.large[start : start + A_REQUEST])
                run.one(server, Request(f"{server.dicomweb_root}/studies", files=files))
        time.sleep(run.sizes.quiet_s)
        run.settle()
    for server in run.servers:
        request = Request(f"{_series(server, run.large[0])}/metadata", keep=True)
        requests = run.sizes.requests(5)
        timed = run.ask(server, [[request] * requests])
        value = percentile([one.elapsed_s for one in timed.answers], 0.5) * 1000
        run.results.add("metadata.large", server.name, value, timed.cpu_ms(requests))
        _check_metadata(server, timed.answers[-1], run.large, samples.SMALL_SIZE)


def metadata(run: Run, round_number: int) -> None:
    """Measure the metadata of a series (PS3.18 §10.4.1.1.2): just stored, again, and later."""
    count = min(METADATA_SERIES, run.sizes.instances)
    directory = run.directory / f"metadata.{round_number}"
    fresh = samples.write_series(directory, f"metadata {round_number}", [count])
    first_uid = run.stored[0].series_instance_uid
    later = [one for one in run.stored if one.series_instance_uid == first_uid]
    for server in run.servers:
        for start in range(0, count, 25):
            files = tuple(one.path for one in fresh[start : start + 25])
            run.one(server, Request(f"{server.dicomweb_root}/studies", files=files))
        for key, series, requests in (
            ("metadata.first", fresh, 1),
            ("metadata.again", fresh, run.sizes.requests(10)),
            ("metadata.later", later, run.sizes.requests(10)),
        ):
            request = Request(f"{_series(server, series[0])}/metadata", keep=True)
            timed = run.ask(server, [[request] * requests])
            value = percentile([one.elapsed_s for one in timed.answers], 0.5) * 1000
            run.results.add(key, server.name, value, timed.cpu_ms(requests))
            for answer in timed.answers[:: max(1, requests - 1)]:
                _check_metadata(server, answer, series)
    shutil.rmtree(directory)


def wado(run: Run, round_number: int) -> None:
    """Measure the retrieval of a study and of single instances (PS3.18 §10.4.1.1.1)."""
    size = sum(one.path.stat().st_size for one in run.stored)
    count = len(run.stored)
    for server in run.servers:
        study = f"{server.dicomweb_root}/studies/{run.stored[0].study_instance_uid}"
        if round_number == 0:
            _check_study(server, run.one(server, Request(study, DICOM, keep=True)), run.stored)
    if run.files is not None and round_number == 0:
        with (run.files.directory / "study").open("wb") as study_file:
            for one in run.stored:
                study_file.write(one.part10())
    for clients, requests in ((1, 3), (4, 2)):
        for server in run.servers:
            study = f"{server.dicomweb_root}/studies/{run.stored[0].study_instance_uid}"
            timed = run.ask(server, [[Request(study, DICOM)] * requests] * clients)
            studies = clients * requests
            rate = size * studies / timed.elapsed_s / 1e6
            key = f"wado.study.{clients}"
            run.results.add(key, server.name, rate, timed.cpu_ms(studies * count))
            for answer in timed.answers:
                extra = answer.size_bytes - size
                right = abs(extra) <= count * PART_EXTRA_BYTES
                require(right, server, f"a study of {answer.size_bytes} bytes, not {size}")
        if run.files is not None:
            timed = run.ask(run.files, [[Request("/study")] * requests] * clients)
            rate = size * clients * requests / timed.elapsed_s / 1e6
            run.results.add(f"wado.study.{clients}", run.files.name, rate)
            whole = all(answer.size_bytes == size for answer in timed.answers)
            require(whole, run.files, "the file of the study is not whole")
    for server in run.servers:
        chosen = _some(run, run.sizes.requests(60))
        wanted = [Request(_instance(server, one), DICOM, keep=True) for one in chosen]
        timed = run.ask(server, [wanted])
        times_ms = [one.elapsed_s * 1000 for one in timed.answers]
        cpu_ms = timed.cpu_ms(len(chosen))
        run.results.add("wado.instance.p50", server.name, percentile(times_ms, 0.5), cpu_ms)
        run.results.add("wado.instance.p95", server.name, percentile(times_ms, 0.95))
        for one, answer in zip(chosen, timed.answers, strict=True):
            _check_instance(server, answer, one)


def frames(run: Run, round_number: int) -> None:
    """Measure frames as stored and as pictures, eight clients (PS3.18 §10.4.1.1.6, .3)."""
    for key, suffix, accept, usual, check in (
        ("frames", "/frames/1", FRAMES, 240, _check_frame),
        ("rendered", "/rendered", "image/jpeg", 160, _check_picture),
    ):
        for server in run.servers:
            chosen = _some(run, run.sizes.requests(usual))
            wanted = [
                Request(_instance(server, one) + suffix, accept, keep=number % KEEP_EVERY == 0)
                for number, one in enumerate(chosen)
            ]
            clients = min(8, len(chosen))
            shares = [range(first, len(chosen), clients) for first in range(clients)]
            timed = run.ask(server, [[wanted[number] for number in share] for share in shares])
            rate = len(chosen) / timed.elapsed_s
            run.results.add(key, server.name, rate, timed.cpu_ms(len(chosen)))
            order = [number for share in shares for number in share]
            for number, answer in zip(order, timed.answers, strict=True):
                if wanted[number].keep:
                    check(server, answer, chosen[number])


def part10_of(run: Run, server: Server, one: Sample) -> bytes:
    """Return the file that the server gives for the instance."""
    answer = run.one(server, Request(_instance(server, one), DICOM, keep=True))
    return _parts(answer)[0]


def _some(run: Run, count: int) -> list[Sample]:
    """Return so many instances of the stored study, spread over it."""
    stride = next(step for step in (37, 41, 43, 1) if len(run.stored) % step)
    return [run.stored[number * stride % len(run.stored)] for number in range(count)]


def _series(server: Server, one: Sample) -> str:
    study = f"{server.dicomweb_root}/studies/{one.study_instance_uid}"
    return f"{study}/series/{one.series_instance_uid}"


def _instance(server: Server, one: Sample) -> str:
    return f"{_series(server, one)}/instances/{one.sop_instance_uid}"


def _parts(answer: Answer) -> list[bytes]:
    """Return the bodies of the parts of a multipart answer (RFC 2046 §5.1)."""
    found = BOUNDARY.search(answer.content_type)
    if found is None:
        raise ValueError(f"no boundary in {answer.content_type!r}")
    delimiter = b"--" + found[1].encode()
    pieces = (b"\r\n" + answer.body).split(b"\r\n" + delimiter)
    return [piece.partition(b"\r\n\r\n")[2] for piece in pieces[1:-1]]


def _check_study(server: Server, answer: Answer, stored: Sequence[Sample]) -> None:
    given = sorted(_digest(samples.dataset_of(part)) for part in _parts(answer))
    wanted = sorted(_digest(samples.dataset_of(one.part10())) for one in stored)
    require(given == wanted, server, "a retrieved study is not what was stored")


def _check_instance(server: Server, answer: Answer, one: Sample) -> None:
    given = [samples.dataset_of(part) for part in _parts(answer)]
    require(given == [samples.dataset_of(one.part10())], server, "an instance is not what it was")


def _check_frame(server: Server, answer: Answer, one: Sample) -> None:
    pixels = samples.pixels_of(one.part10())
    require(_parts(answer) == [pixels], server, "a frame is not what was stored")


def _check_picture(server: Server, answer: Answer, one: Sample) -> None:
    picture = imagecodecs.jpeg8_decode(answer.body)
    right = picture.shape[:2] == (samples.SIZE, samples.SIZE) and float(picture.std()) > 5
    require(right, server, f"a picture of {picture.shape} that shows nothing")


def _check_metadata(
    server: Server, answer: Answer, series: Sequence[Sample], size: int = samples.SIZE
) -> None:
    content = json.loads(answer.body)
    given = sorted(one["00080018"]["Value"][0] for one in content)
    wanted = sorted(one.sop_instance_uid for one in series)
    require(given == wanted, server, f"metadata of {len(given)} of {len(wanted)} instances")
    for one in content:
        right = one["00280010"]["Value"] == [size] and len(one) > 100
        require(right, server, f"metadata of {len(one)} attributes")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
