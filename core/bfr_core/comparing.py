"""Comparing: two indexes over the same blobs, study by study, by counts and digests."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from bfr_core.database import Database
from bfr_core.errors import Unavailable
from bfr_core.sealed import SealedSeries

PAGE = 200

STUDIES = """
    SELECT study_id, archive.ae_title COLLATE "C" AS archive, study_instance_uid,
        patient.patient_identifier, patient.issuer, number_of_series, number_of_instances,
        size_bytes
    FROM study JOIN archive USING (archive_id) JOIN patient USING (patient_id)
    WHERE (archive.ae_title COLLATE "C", study_instance_uid)
        > (%(archive)s::text, %(study_instance_uid)s::text)
    ORDER BY archive.ae_title COLLATE "C", study_instance_uid LIMIT %(limit)s
"""
SERIES = """
    SELECT series.series_id, series_instance_uid, manifest_key, manifest_index_bytes,
        array_agg(sop_instance_uid) FILTER (WHERE sop_instance_uid IS NOT NULL) AS uids,
        array_agg(digest) FILTER (WHERE digest IS NOT NULL) AS digests
    FROM series LEFT JOIN instance USING (series_id)
    WHERE study_id = %(study_id)s GROUP BY series.series_id
"""


@dataclass(frozen=True, slots=True)
class StudyContent:
    """What an index holds of one study."""

    archive: str
    study_instance_uid: str
    series: int
    instances: int
    size_bytes: int
    digest: str  # of the patient's identity and of every object's series, UID and digest

    @property
    def place(self) -> tuple[str, str]:
        """Where the study stands in the order of both indexes."""
        return (self.archive, self.study_instance_uid)


@dataclass(frozen=True, slots=True)
class Difference:
    """One study that is not the same in both; None where it is missing."""

    here: StudyContent | None
    there: StudyContent | None


async def contents(database: Database, sealed: SealedSeries) -> AsyncIterator[StudyContent]:
    """Yield what the index holds, by AE title and Study Instance UID."""
    place = {"archive": "", "study_instance_uid": ""}
    while True:
        async with database.transaction() as tx:
            page = await tx.rows(STUDIES, **place, limit=PAGE)
        for row in page:
            digest = await _digest(database, sealed, row)
            yield StudyContent(
                row["archive"],
                row["study_instance_uid"],
                row["number_of_series"],
                row["number_of_instances"],
                row["size_bytes"],
                digest,
            )
        if len(page) < PAGE:
            return
        place = {name: page[-1][name] for name in place}


async def differences(
    here: AsyncIterator[StudyContent], there: AsyncIterator[StudyContent]
) -> AsyncIterator[Difference | None]:
    """Yield what differs, study by study in order, and None for each that is the same."""
    left, right = await anext(here, None), await anext(there, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left.place < right.place):
            yield Difference(left, None)
            left = await anext(here, None)
        elif left is None or right.place < left.place:
            yield Difference(None, right)
            right = await anext(there, None)
        else:
            yield None if left == right else Difference(left, right)
            left, right = await anext(here, None), await anext(there, None)


async def _digest(database: Database, sealed: SealedSeries, study: dict[str, object]) -> str:
    async with database.transaction() as tx:
        listed = await tx.rows(SERIES, study_id=study["study_id"])
    lines = [f"{study['patient_identifier']}^{study['issuer']}".encode()]
    for series in listed:
        uid = series["series_instance_uid"]
        known = list(zip(series["uids"] or [], series["digests"] or [], strict=True))
        if series["manifest_key"] is not None:
            try:
                index = await sealed.read_index(
                    series["manifest_key"], series["manifest_index_bytes"]
                )
                known += [(one.sop_instance_uid, one.digest) for one in index.instances]
            except Unavailable as error:
                lines.append(f"{uid} {error.message}".encode())
        lines += [
            f"{uid} {sop_instance_uid} ".encode() + digest for sop_instance_uid, digest in known
        ]
    return hashlib.sha256(b"\n".join(sorted(lines))).hexdigest()
