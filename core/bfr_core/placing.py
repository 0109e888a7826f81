"""Placing: the patient, study and series that received objects belong to, made when missing."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import orjson

from bfr_core import jobs
from bfr_core.database import Transaction
from bfr_core.errors import Conflict
from bfr_core.instances import InstanceAttributes, PatientAttributes
from bfr_core.names import normalise


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object belongs in the index."""

    series_id: int
    study_id: int
    patient_id: int
    patient_identifier: str
    issuer: str

    def is_of(self, patient: PatientAttributes) -> bool:
        """Tell whether the study is this patient's."""
        return (self.patient_identifier, self.issuer) == (
            patient.patient_identifier,
            patient.issuer,
        )


@dataclass(frozen=True, slots=True)
class Told:
    """What the first object of a series tells of where it belongs."""

    archive_id: int
    attributes: InstanceAttributes
    received_at: datetime.datetime | None = None  # None: now


@dataclass(frozen=True, slots=True)
class _Placed:
    of_series: int
    of_study: int
    of_patient: int
    is_new: bool
    refusal: str | None


# One call for each, in order: the second may be of the study that the first has made.
PLACE = """
    SELECT placed.*
    FROM jsonb_array_elements(%(told)s::jsonb) WITH ORDINALITY AS each(told, number),
        LATERAL place_series(each.told) AS placed
    ORDER BY number
"""


class DeletedObject(Conflict):
    """The object, its series or its study was deleted from the archive."""


# Nobody may guess which of two is right.
REFUSALS: Mapping[str, tuple[type[Conflict], str]] = {
    "deleted": (DeletedObject, "the study or series was deleted from this archive"),
    "series of another study": (Conflict, "the series is stored in another study"),
    "study of another patient": (
        Conflict,
        "the study is stored for another Patient ID (0010,0020)",
    ),
    "study removed": (Conflict, "the study was removed while it was stored"),
}


async def find_places(
    tx: Transaction, told: Sequence[Told], seal_quiet_s: float
) -> list[Place | Conflict]:
    """Return for each its place, made when it is the first of its series, or why it has none.

    What came later tells of the patient.
    """
    if not told:
        return []
    sent = orjson.dumps([_sent(one) for one in told]).decode()
    placed = await tx.all(_Placed, PLACE, told=sent)
    fresh = [one.of_series for one in placed if one.is_new]
    await jobs.defer_seals(tx, fresh, seal_quiet_s)
    return [_place(one, row) for one, row in zip(told, placed, strict=True)]


def _place(told: Told, placed: _Placed) -> Place | Conflict:
    if placed.refusal is not None:
        kind, message = REFUSALS[placed.refusal]
        return kind(message)
    patient = told.attributes.patient
    return Place(
        placed.of_series,
        placed.of_study,
        placed.of_patient,
        patient.patient_identifier,
        patient.issuer,
    )


def _sent(one: Told) -> dict[str, object]:
    study, series = asdict(one.attributes.study), asdict(one.attributes.series)
    patient = one.attributes.patient
    return {
        **asdict(patient),
        **study,
        **series,
        "archive_id": one.archive_id,
        "name_normalised": normalise(patient.name),
        "study_description": study["description"],
        "referring_physician_normalised": normalise(one.attributes.study.referring_physician),
        "series_description": series["description"],
        "received_at": one.received_at,
    }
