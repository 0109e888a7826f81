"""Storing: C-STORE and STOW-RS, each object checked to be there afterwards."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import samples
from bench.clients import Request
from bench.http_client import HOST, Answer
from bench.retrieving import part10_of
from bench.run import Run, Wrong, require
from bench.samples import Sample
from bench.servers import CALLED_AE_TITLE, CALLING_AE_TITLE, STORESCP, Server, without_nagle

A_REQUEST = 25
STORED = "00081199"  # Referenced SOP Sequence
FAILED = "00081198"  # Failed SOP Sequence
STUDY_INSTANCES = "00201208"  # Number of Study Related Instances


def c_store(run: Run, round_number: int) -> None:
    """Measure C-STORE with one and with four associations (PS3.4 Annex B)."""
    for associations in (1, 4):
        key = f"store.{associations}"
        with _studies(run, f"{key}.{round_number}", associations) as studies:
            count = sum(map(len, studies))
            receivers = [run.receiver] if run.receiver else []
            for server in (*run.servers, *receivers):
                timed = run.timed(server, _sending(run, server, studies))
                run.results.add(key, server.name, count / timed.elapsed_s, timed.cpu_ms(count))
                check_stored(run, server, studies)


def stow(run: Run, round_number: int) -> None:
    """Measure STOW-RS with one and with four clients (PS3.18 §10.5)."""
    for clients in (1, 4):
        key = f"stow.{clients}"
        with _studies(run, f"{key}.{round_number}", clients) as studies:
            count = sum(map(len, studies))
            for server in run.servers:
                timed = run.ask(server, [stow_requests(server, one) for one in studies])
                run.results.add(key, server.name, count / timed.elapsed_s, timed.cpu_ms(count))
                _check_answers(server, timed.answers, count)
                check_stored(run, server, studies)


def load(run: Run) -> None:
    """Store what the other parts search and retrieve; the small studies are measured."""
    first = min(200, run.sizes.instances)
    counts = [first, *([run.sizes.instances - first] if run.sizes.instances > first else [])]
    run.stored = samples.write_series(run.directory / "stored", "stored", counts)
    run.small = samples.write_small_studies(run.directory / "small", run.sizes.studies)
    for server in run.servers:
        timed = run.ask(server, [stow_requests(server, run.stored)])
        _check_answers(server, timed.answers, len(run.stored))
        shares = samples.in_shares([one.sample for one in run.small], 4)
        timed = run.ask(server, [stow_requests(server, share) for share in shares])
        _check_answers(server, timed.answers, len(run.small))
        count = len(run.small)
        rate = count / timed.elapsed_s
        run.results.add("load.small", server.name, rate, timed.cpu_ms(count))


def stow_requests(server: Server, instances: Sequence[Sample]) -> list[Request]:
    """Return the requests that store the instances."""
    return [
        Request(
            f"{server.dicomweb_root}/studies",
            files=tuple(one.path for one in instances[start : start + A_REQUEST]),
            keep=True,
        )
        for start in range(0, len(instances), A_REQUEST)
    ]


def check_stored(run: Run, server: Server, studies: Sequence[Sequence[Sample]]) -> None:
    """Raise Wrong unless every object is stored, and one of each study unchanged."""
    if server.name == STORESCP:
        files = list(server.directory.iterdir())
        require(len(files) == sum(map(len, studies)), server, f"{len(files)} files received")
        for file in files:
            file.unlink()
        return
    for study in studies:
        uid = study[0].study_instance_uid
        path = f"{server.dicomweb_root}/studies?StudyInstanceUID={uid}"
        answer = run.one(server, Request(f"{path}&includefield={STUDY_INSTANCES}", keep=True))
        found = json.loads(answer.body or b"[]")
        counts = [int(one[STUDY_INSTANCES]["Value"][0]) for one in found]
        require(counts == [len(study)], server, f"{counts} of {len(study)} instances in the index")
        one = study[len(study) // 2]
        kept, sent = part10_of(run, server, one), one.part10()
        require(samples.same_elements(kept, sent), server, "a data set was changed")


def _check_answers(server: Server, answers: Sequence[Answer], count: int) -> None:
    stored = 0
    for answer in answers:
        content = json.loads(answer.body)
        require(not content.get(FAILED, {}).get("Value"), server, "STOW-RS refused objects")
        stored += len(content[STORED]["Value"])
    require(stored == count, server, f"STOW-RS stored {stored} of {count} objects")


def _sending(
    run: Run, server: Server, studies: Sequence[Sequence[Sample]]
) -> Callable[[], list[Answer]]:
    """Return what starts a storescu for each study and waits for all of them."""
    options = ("-aet", CALLING_AE_TITLE, "-aec", CALLED_AE_TITLE, "-pdu", "131072", "+sd")
    address = (HOST, str(server.dicom_port))
    commands = [
        [str(run.peers.storescu), *options, *address, str(study[0].path.parent)]
        for study in studies
    ]

    def send() -> list[Answer]:
        senders = [
            subprocess.Popen(
                command,
                env=without_nagle(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for command in commands
        ]
        try:
            for sender in senders:
                told, _ = sender.communicate(timeout=300)
                if sender.returncode:
                    raise Wrong(f"storescu to {server.name}: {told[-300:]!r}")
        finally:
            for sender in senders:
                if sender.poll() is None:
                    sender.kill()
        return []

    return send


@contextmanager
def _studies(run: Run, label: str, count: int) -> Iterator[list[list[Sample]]]:
    """Give so many studies with all instances of a turn, as files for the length of the block."""
    directory: Path = run.directory / label
    each = max(1, run.sizes.instances // count)
    try:
        yield [
            samples.write_series(directory / str(number), f"{label} {number}", [each])
            for number in range(count)
        ]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
