"""Query/Retrieve: C-FIND, C-GET and C-MOVE (PS3.4 Annex C), with every answer checked."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset

from bench import processes, samples
from bench.dimse_client import FIND, GET, MOVE, Association
from bench.measures import percentile
from bench.run import Run, require
from bench.servers import RECEIVER_AE_TITLE


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of query: how to make the n-th, and how often it is asked."""

    key: str
    make: Callable[[Run, int], tuple[Dataset, str, frozenset[str]]]  # … and what it has to find
    usual: int


def find(run: Run, round_number: int) -> None:
    """Measure every kind of query over one association."""
    for kind in KINDS:
        count = run.sizes.requests(kind.usual)
        queries = [kind.make(run, round_number * count + number) for number in range(count)]
        for server in run.servers:
            run.settle()
            association = Association(server.dicom_port, FIND)
            cpu_s = processes.cpu_s(server.pid)
            answers = [association.find(identifier) for identifier, _, _ in queries]
            cpu_ms = (processes.cpu_s(server.pid) - cpu_s) * 1000 / count
            association.close()
            for (_, keyword, expected), (_, found) in zip(queries, answers, strict=True):
                told = [str(one[keyword].value) for one in found]
                require(
                    frozenset(told) == expected and len(told) == len(expected),
                    server,
                    f"{kind.key}: found {len(told)} of {len(expected)}",
                )
            times_ms = [elapsed_s * 1000 for elapsed_s, _ in answers]
            run.results.add(f"{kind.key}.p50", server.name, percentile(times_ms, 0.5), cpu_ms)
            run.results.add(f"{kind.key}.p99", server.name, percentile(times_ms, 0.99))


def get(run: Run, round_number: int) -> None:
    """Measure the retrieval of a study on the association that asks for it."""
    for server in run.servers:
        run.settle()
        association = Association(server.dicom_port, GET, storage=True)
        cpu_s = processes.cpu_s(server.pid)
        elapsed_s, retrieved = association.get(_study(run))
        cpu_s = processes.cpu_s(server.pid) - cpu_s
        association.close()
        stored = {one.sop_instance_uid: one for one in run.stored}
        require(
            sorted(retrieved.uids) == sorted(stored),
            server,
            f"C-GET brought {len(retrieved.uids)} of {len(stored)} objects",
        )
        for uid, data in retrieved.kept.items():
            # Orthanc writes the other elements anew.
            right = data.endswith(samples.pixels_of(stored[uid].part10()))
            require(right, server, "an object of C-GET is not what was stored")
        count = len(stored)
        run.results.add("get", server.name, count / elapsed_s, cpu_s * 1000 / count)


def move(run: Run, round_number: int) -> None:
    """Measure the sending of a study to DCMTK's storescp."""
    if run.receiver is None:
        return
    for server in run.servers:
        folder = run.receiver.directory
        _empty(folder)
        run.settle()
        association = Association(server.dicom_port, MOVE)
        cpu_s = processes.cpu_s(server.pid)
        elapsed_s, completed = association.move(_study(run), RECEIVER_AE_TITLE)
        cpu_s = processes.cpu_s(server.pid) - cpu_s
        association.close()
        count = len(run.stored)
        require(completed == count, server, f"C-MOVE completed {completed} of {count} objects")
        for one in run.stored:
            arrived = (folder / f"CT.{one.sop_instance_uid}").read_bytes()
            right = arrived.endswith(samples.pixels_of(one.part10()))
            require(right, server, "an object of C-MOVE is not what was stored")
        _empty(folder)
        run.results.add("move", server.name, count / elapsed_s, cpu_s * 1000 / count)


def _study(run: Run) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = run.stored[0].study_instance_uid
    return identifier


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _by(keyword: str, attribute: str) -> Callable[[Run, int], tuple[Dataset, str, frozenset[str]]]:
    def make(run: Run, number: int) -> tuple[Dataset, str, frozenset[str]]:
        study = run.small[number * 7919 % len(run.small)]
        value = str(getattr(study, attribute))
        identifier = _study_keys()
        setattr(identifier, keyword, value + "*" if keyword == "PatientName" else value)
        expected = frozenset(
            one.sample.study_instance_uid
            for one in run.small
            if str(getattr(one, attribute)) == value
        )
        return identifier, "StudyInstanceUID", expected

    return make


def _series(run: Run, number: int) -> tuple[Dataset, str, frozenset[str]]:
    study = run.small[number * 7919 % len(run.small)].sample
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.StudyInstanceUID = study.study_instance_uid
    for keyword in ("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription"):
        setattr(identifier, keyword, "")
    return identifier, "SeriesInstanceUID", frozenset([study.series_instance_uid])


def _images(run: Run, number: int) -> tuple[Dataset, str, frozenset[str]]:
    first = run.stored[0]
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "IMAGE"
    identifier.StudyInstanceUID = first.study_instance_uid
    identifier.SeriesInstanceUID = first.series_instance_uid
    identifier.SOPInstanceUID = ""
    identifier.InstanceNumber = ""
    expected = frozenset(
        one.sop_instance_uid
        for one in run.stored
        if one.series_instance_uid == first.series_instance_uid
    )
    return identifier, "SOPInstanceUID", expected


def _study_keys() -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    for keyword in (
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "PatientName",
        "PatientID",
        "StudyInstanceUID",
        "ModalitiesInStudy",
        "NumberOfStudyRelatedInstances",
    ):
        setattr(identifier, keyword, "")
    return identifier


KINDS = (
    Kind("find.patient", _by("PatientID", "patient_identifier"), 100),
    Kind("find.accession", _by("AccessionNumber", "accession_number"), 100),
    Kind("find.date", _by("StudyDate", "study_date"), 60),
    Kind("find.name", _by("PatientName", "family_name"), 60),
    Kind("find.series", _series, 100),
    Kind("find.images", _images, 10),
)
