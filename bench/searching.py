"""Searching: QIDO-RS (PS3.18 §10.6), with every answer checked."""

import datetime
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.clients import Request
from bench.http_client import Answer
from bench.measures import percentile
from bench.run import CLIENTS_MAX, Run, require
from bench.samples import DAYS, FIRST_DAY, SmallStudy
from bench.servers import Server

STUDY_INSTANCE_UID = "0020000D"
SERIES_INSTANCE_UID = "0020000E"
SOP_INSTANCE_UID = "00080018"
LIMIT = 50


@dataclass(frozen=True, slots=True)
class Search:
    """A search and what it has to find."""

    path: str  # below the DICOMweb root
    tag: str  # that tells the results apart
    expected: frozenset[str]
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of search: how to make the n-th, and how often it is asked."""

    key: str
    make: Callable[[Run, int], Search]
    usual: int  # requests of one client
    usual_8: int  # requests of eight clients together


def qido(run: Run, round_number: int) -> None:
    """Measure every kind of search with one client and with eight."""
    for kind in KINDS:
        count, count_8 = run.sizes.requests(kind.usual), run.sizes.requests(kind.usual_8)
        first = round_number * (count + count_8)
        alone = [kind.make(run, first + number) for number in range(count)]
        together = [kind.make(run, first + count + number) for number in range(count_8)]
        for server in run.servers:
            timed = run.ask(server, [_requests(server, alone)])
            _check(server, alone, timed.answers)
            times_ms = [one.elapsed_s * 1000 for one in timed.answers]
            name, cpu_ms = server.name, timed.cpu_ms(count)
            run.results.add(f"{kind.key}.p50", name, percentile(times_ms, 0.5), cpu_ms)
            run.results.add(f"{kind.key}.p95", name, percentile(times_ms, 0.95))
        shares = [together[number::CLIENTS_MAX] for number in range(CLIENTS_MAX)]
        shares = [share for share in shares if share]
        for server in run.servers:
            timed = run.ask(server, [_requests(server, share) for share in shares])
            _check(server, [one for share in shares for one in share], timed.answers)
            rate = count_8 / timed.elapsed_s
            run.results.add(f"{kind.key}.rate", server.name, rate, timed.cpu_ms(count_8))


def _requests(server: Server, searches: Sequence[Search]) -> list[Request]:
    return [Request(f"{server.dicomweb_root}{one.path}", keep=True) for one in searches]


def _check(server: Server, searches: Sequence[Search], answers: Sequence[Answer]) -> None:
    for search, answer in zip(searches, answers, strict=True):
        results = json.loads(answer.body) if answer.body else []
        found = {str(one[search.tag]["Value"][0]) for one in results}
        if search.limit is None or len(search.expected) <= search.limit:
            right = found == search.expected
        else:
            right = len(found) == search.limit and found <= search.expected
        require(
            right and len(found) == len(results),
            server,
            f"{search.path} found {len(found)} of {len(search.expected)}",
        )


def _spread(number: int, count: int) -> int:
    """Return a place among `count` that jumps about from one number to the next."""
    return number * 7919 % count


def _by_patient(run: Run, number: int) -> Search:
    study = run.small[_spread(number, len(run.small))]
    path = f"/studies?PatientID={study.patient_identifier}"
    return Search(path, STUDY_INSTANCE_UID, _uids([study]))


def _by_accession(run: Run, number: int) -> Search:
    study = run.small[_spread(number, len(run.small))]
    path = f"/studies?AccessionNumber={study.accession_number}"
    return Search(path, STUDY_INSTANCE_UID, _uids([study]))


def _by_date(run: Run, number: int) -> Search:
    first, last = _days(number, 90)
    expected = _uids(one for one in run.small if first <= one.study_date <= last)
    path = f"/studies?StudyDate={first}-{last}&limit={LIMIT}"
    return Search(path, STUDY_INSTANCE_UID, expected, LIMIT)


def _by_name(run: Run, number: int) -> Search:
    name = run.small[_spread(number, len(run.small))].family_name
    expected = _uids(one for one in run.small if one.family_name == name)
    return Search(f"/studies?PatientName={name}*", STUDY_INSTANCE_UID, expected)


def _by_modality(run: Run, number: int) -> Search:
    first, last = _days(number, 30)
    expected = _uids(
        one for one in run.small if one.modality == "MR" and first <= one.study_date <= last
    )
    path = f"/studies?ModalitiesInStudy=MR&StudyDate={first}-{last}&limit={LIMIT}"
    return Search(path, STUDY_INSTANCE_UID, expected, LIMIT)


def _series_of_study(run: Run, number: int) -> Search:
    study = run.small[_spread(number, len(run.small))].sample
    path = f"/studies/{study.study_instance_uid}/series"
    return Search(path, SERIES_INSTANCE_UID, frozenset([study.series_instance_uid]))


def _instances_of_series(run: Run, number: int) -> Search:
    first = run.stored[0]
    expected = frozenset(
        one.sop_instance_uid
        for one in run.stored
        if one.series_instance_uid == first.series_instance_uid
    )
    path = f"/studies/{first.study_instance_uid}/series/{first.series_instance_uid}/instances"
    return Search(path, SOP_INSTANCE_UID, expected)


def _days(number: int, length: int) -> tuple[str, str]:
    first = FIRST_DAY + datetime.timedelta(days=_spread(number, DAYS - length))
    last = first + datetime.timedelta(days=length - 1)
    return first.strftime("%Y%m%d"), last.strftime("%Y%m%d")


def _uids(studies: Sequence[SmallStudy] | Iterator[SmallStudy]) -> frozenset[str]:
    return frozenset(one.sample.study_instance_uid for one in studies)


KINDS = (
    Kind("qido.patient", _by_patient, 100, 320),
    Kind("qido.accession", _by_accession, 100, 320),
    Kind("qido.date", _by_date, 30, 80),
    Kind("qido.name", _by_name, 50, 120),
    Kind("qido.modality", _by_modality, 30, 80),
    Kind("qido.series", _series_of_study, 100, 320),
    Kind("qido.instances", _instances_of_series, 10, 24),
)
