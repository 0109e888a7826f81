"""What is measured, what came of it, and how it is told."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.servers import BFR, FILE_SERVER, ORTHANC, STORESCP


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the table."""

    key: str
    title: str
    unit: str
    higher_is_better: bool
    goal: float | None = None  # ratio to Orthanc that BFR is to reach
    reference_goal: float | None = None  # ratio to the reference, which does less


def _rate(
    key: str,
    title: str,
    unit: str,
    goal: float | None = None,
    reference_goal: float | None = None,
) -> Measure:
    return Measure(key, title, unit, True, goal, reference_goal)


def _time(key: str, title: str, unit: str, goal: float | None = None) -> Measure:
    return Measure(key, title, unit, False, goal)


def _search(key: str, title: str) -> tuple[Measure, ...]:
    return (
        _time(f"{key}.p50", f"QIDO {title}, p50", "ms", 2.0),
        _time(f"{key}.p95", "… p95", "ms", 2.0),
        _rate(f"{key}.rate", "… 8 clients", "requests/s", 2.0),
    )


def _find(key: str, title: str) -> tuple[Measure, ...]:
    return (
        _time(f"{key}.p50", f"C-FIND {title}, p50", "ms", 1.0),
        _time(f"{key}.p99", "… p99", "ms", 1.0),
    )


MEASURES = (
    _time("start.first", "start with an empty folder, until ready", "s"),
    _time("start.again", "start again, until ready", "s"),
    _time("start.memory", "memory just started, empty", "MiB"),
    _rate("store.1", "C-STORE, 1 association", "instances/s", 1.5, 0.7),
    _rate("store.4", "C-STORE, 4 associations", "instances/s", 1.5, 0.7),
    _rate("stow.1", "STOW-RS, 1 client, 25 a request", "instances/s", 1.5),
    _rate("stow.4", "STOW-RS, 4 clients, 25 a request", "instances/s", 1.5),
    _rate("load.small", "STOW-RS of small studies, 4 clients", "studies/s"),
    *_search("qido.patient", "by PatientID"),
    *_search("qido.accession", "by AccessionNumber"),
    *_search("qido.date", "by StudyDate range, limit 50"),
    *_search("qido.name", "by PatientName wildcard"),
    *_search("qido.modality", "by modality and date, limit 50"),
    *_search("qido.series", "series of a study"),
    *_search("qido.instances", "instances of a series"),
    _time("metadata.first", "series metadata, first request after the store", "ms", 5.0),
    _time("metadata.again", "… again", "ms", 5.0),
    _time("metadata.later", "… of the series stored first, when all is quiet", "ms", 5.0),
    _time("metadata.large", "… of a series of 2,000 instances", "ms", 5.0),
    _rate("wado.study.1", "WADO-RS study, 1 client", "MB/s", 2.0, 0.7),
    _rate("wado.study.4", "… 4 clients", "MB/s", 2.0, 0.7),
    _time("wado.instance.p50", "WADO-RS one instance, p50", "ms", 2.0),
    _time("wado.instance.p95", "… p95", "ms", 2.0),
    _rate("frames", "frames, 8 clients", "frames/s", 2.0),
    _rate("rendered", "rendered JPEG, 8 clients", "images/s", 2.0),
    *_find("find.patient", "by PatientID"),
    *_find("find.accession", "by AccessionNumber"),
    *_find("find.date", "by StudyDate"),
    *_find("find.name", "by PatientName wildcard"),
    *_find("find.series", "series of a study"),
    *_find("find.images", "images of a series"),
    _rate("get", "C-GET of a study", "instances/s", 1.0),
    _rate("move", "C-MOVE of a study to storescp", "instances/s", 1.0),
)
BY_KEY = {measure.key: measure for measure in MEASURES}


REFERENCES = (STORESCP, FILE_SERVER)
HEAD = (
    *("measure", "unit", "BFR", "Orthanc", "ratio", "goal", "CPU ms BFR", "Orthanc"),
    *("reference", "ratio", "goal"),
)


@dataclass(slots=True)
class Results:
    """Every value of a run, by measure and server in the order of the rounds."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    cpu_ms: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    memory_mib: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, key: str, server: str, value: float, cpu_ms: float | None = None) -> None:
        """Keep a value, and the CPU time of the server for one operation."""
        self.values.setdefault(BY_KEY[key].key, {}).setdefault(server, []).append(value)
        if cpu_ms is not None:
            self.cpu_ms.setdefault(key, {}).setdefault(server, []).append(cpu_ms)

    def note(self, text: str) -> None:
        """Keep a remark, once."""
        if text not in self.notes:
            self.notes.append(text)

    def ratio(self, key: str) -> float | None:
        """Return how much better BFR's median is than Orthanc's; None when one is missing."""
        return self._ratio_to(key, ORTHANC)

    def _ratio_to(self, key: str, other: str) -> float | None:
        both = self.values.get(key, {})
        if BFR not in both or other not in both:
            return None
        ours, theirs = statistics.median(both[BFR]), statistics.median(both[other])
        return ours / theirs if BY_KEY[key].higher_is_better else theirs / ours

    def table(self) -> str:
        """Return the table for people."""
        rows: list[Sequence[str]] = [HEAD]
        for measure in MEASURES:
            both = self.values.get(measure.key)
            if both is None:
                continue
            ratio = self.ratio(measure.key)
            cpu = self.cpu_ms.get(measure.key, {})
            reference = next((name for name in REFERENCES if name in both), "")
            to_reference = self._ratio_to(measure.key, reference)
            rows.append(
                (
                    measure.title,
                    measure.unit,
                    _spread(both.get(BFR)),
                    _spread(both.get(ORTHANC)),
                    "" if ratio is None else f"{ratio:.2f}",
                    _goal(measure.goal, ratio),
                    _median(cpu.get(BFR)),
                    _median(cpu.get(ORTHANC)),
                    f"{reference} {_spread(both.get(reference))}".strip(),
                    "" if to_reference is None else f"{to_reference:.2f}",
                    _goal(measure.reference_goal, to_reference),
                )
            )
        return "\n".join([_aligned(rows), "", *self._memory_lines(), *self.notes])

    def write(self, path: Path, about: Mapping[str, object]) -> None:
        """Write everything as JSON."""
        measures = [
            {
                **asdict(measure),
                "values": self.values[measure.key],
                "cpu_ms_an_operation": self.cpu_ms.get(measure.key, {}),
                "ratio": self.ratio(measure.key),
            }
            for measure in MEASURES
            if measure.key in self.values
        ]
        content = {
            **about,
            "measures": measures,
            "memory_mib": self.memory_mib,
            "notes": self.notes,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")

    def _memory_lines(self) -> list[str]:
        rows: list[Sequence[str]] = [
            ("memory (PSS), MiB", *next(iter(self.memory_mib.values()), {}))
        ]
        rows += [
            (name, *(f"{value:.0f}" for value in when.values()))
            for name, when in self.memory_mib.items()
        ]
        return [_aligned(rows), ""] if self.memory_mib else []


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _median(values: Sequence[float] | None) -> str:
    return _number(statistics.median(values)) if values else ""


def _spread(values: Sequence[float] | None) -> str:
    if not values:
        return ""
    return f"{_median(values)} ({_number(min(values))}–{_number(max(values))})"


def _goal(goal: float | None, ratio: float | None) -> str:
    if goal is None or ratio is None:
        return ""
    return f"{goal:g} {'met' if ratio >= goal else 'MISSED'}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        first = row[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([first, *rest]).rstrip())
        if number == 0:
            lines.append("-" * len(lines[0]))
    return "\n".join(lines)
