"""The demonstration set: real and generated images of invented patients, written once.

The files are the same at every run, down to their UIDs, so that sending them twice changes nothing.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pydicom import Dataset

from bfr_command.demo import documents, pictures
from bfr_command.demo.adoption import adopt
from bfr_command.demo.history import STUDIES, Door, Series, Study
from bfr_command.demo.labels import EDITION, study_uid

Progress = Callable[[int, int], None]  # done, total

_CONTENTS_FILE = "contents.json"
_EVIDENCE_NUMBER = 43  # the slice that shows the nodule


@dataclass(frozen=True, slots=True)
class DemoFile:
    """One Part 10 file of the demonstration and the door it goes through."""

    path: Path
    door: Door
    study_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class DemoSet:
    """All files of the demonstration, study by study."""

    files: tuple[DemoFile, ...]

    def through(self, door: Door) -> tuple[Path, ...]:
        """Return the files that go through a door."""
        return tuple(file.path for file in self.files if file.door == door)


def write_demo_files(directory: Path, progress: Progress | None = None) -> DemoSet:
    """Return the demonstration set, after writing it to `directory` unless it is there already.

    `progress` is told how many objects are written, of how many. Raises OSError when the
    directory cannot be written, FileNotFoundError when pydicom lacks one of its test files.
    """
    written = _read_contents(directory)
    if written is not None:
        if progress is not None:
            progress(len(written.files), len(written.files))
        return written
    directory.mkdir(parents=True, exist_ok=True)
    (directory / _CONTENTS_FILE).unlink(missing_ok=True)
    total = sum(_count(series) for study in STUDIES for series in study.series)
    files = []
    for study, dataset in _objects():
        files.append(_write(directory, study, dataset))
        if progress is not None:
            progress(len(files), total)
    order = {str(study_uid(study)): index for index, study in enumerate(STUDIES)}
    files.sort(key=lambda file: (order[file.study_instance_uid], file.path.name))
    demo_set = DemoSet(tuple(files))
    _write_contents(directory, demo_set)
    return demo_set


def _objects() -> Iterator[tuple[Study, Dataset]]:
    """Yield each object with its study, first those of pydicom, then those made by code."""
    places: dict[str, tuple[Study, Series]] = {}
    for study in STUDIES:
        for series in study.series:
            if series.generated:
                places[series.generated] = (study, series)
            for number, name in enumerate(series.bundled, start=1):
                yield study, adopt(name, study, series, number)
    evidence = (places["ct"][1], _EVIDENCE_NUMBER)
    yield places["report"][0], documents.report(*places["report"], evidence)
    yield places["referral"][0], documents.referral(*places["referral"])
    yield from pictures.pictures(places)


def _count(series: Series) -> int:
    return len(series.bundled) or pictures.COUNTS.get(series.generated, 1)


def _write(directory: Path, study: Study, dataset: Dataset) -> DemoFile:
    folder = directory / study.key
    folder.mkdir(exist_ok=True)
    path = folder / f"{dataset.SeriesNumber:03d}-{dataset.InstanceNumber:04d}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return DemoFile(
        path=path,
        door=study.door,
        study_instance_uid=str(dataset.StudyInstanceUID),
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        size_bytes=path.stat().st_size,
    )


def _write_contents(directory: Path, demo_set: DemoSet) -> None:
    """Write the list of files last: a set without it was interrupted and is written again."""
    files = []
    for file in demo_set.files:
        files.append({**asdict(file), "path": file.path.relative_to(directory).as_posix()})
    contents = json.dumps({"edition": EDITION, "files": files}, indent=1)
    part = directory / f"{_CONTENTS_FILE}.part"
    part.write_text(contents, encoding="utf-8")
    part.replace(directory / _CONTENTS_FILE)


def _read_contents(directory: Path) -> DemoSet | None:
    """Return the set that is there; None when there is none, or only a part of it."""
    path = directory / _CONTENTS_FILE
    if not path.exists():
        return None
    contents = json.loads(path.read_text(encoding="utf-8"))
    if contents["edition"] != EDITION:
        return None
    files = []
    for entry in contents["files"]:
        file = DemoFile(**{**entry, "path": directory / entry["path"]})
        if not file.path.exists() or file.path.stat().st_size != file.size_bytes:
            return None
        files.append(file)
    return DemoSet(tuple(files))
