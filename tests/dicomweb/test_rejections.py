"""Rejection: what is rejected is gone, its note stays, and the whole of it can be taken back."""

import asyncio
import json
from typing import Any
from unittest import mock

import pytest
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from tests.dicomweb.conftest import Answer, Web, bodies_of, until
from tests.samples import ct_instance, ct_series, part10_bytes, rejection_note

from bfr_core import jobs, rejecting
from bfr_core.access import Access, operator
from bfr_core.connections import find_archive
from bfr_core.errors import Denied
from bfr_core.receiving import Reception
from bfr_core.registration_batch import Outcome
from bfr_core.rejecting import apply_rejection, reject
from bfr_core.rejection_notes import CODES, KEY_OBJECT_SELECTION, read_note
from bfr_core.tombstones import Target
from bfr_core.undeleting import Undone, undelete

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = "/archives/ARCHIVE/dicomweb"
WHO = operator("test")
QUALITY, SAFETY, WORKLIST = "113001", "113037", "113038"


async def delete(web: Web, path: str, code: str = QUALITY, reason: str | None = None) -> Answer:
    return await web.client.request(
        "DELETE",
        f"{ROOT}/{path}",
        params={"code": code},
        content=b"" if reason is None else json.dumps({"reason": reason}),
    )


async def stored(web: Web, count: int = 3) -> tuple[list[Any], str]:
    """Store a series; its objects and the path of its study."""
    series = list(ct_series(count))
    assert (await web.stow(*(part10_bytes(one) for one in series))).status_code == 200
    return series, f"studies/{series[0].StudyInstanceUID}"


async def found(web: Web, study: str) -> set[str]:
    answer = await web.client.get(f"{ROOT}/{study}/instances")
    objects = answer.json() if answer.content else []
    return {one["00080018"]["Value"][0] for one in objects}


async def note_at(web: Web, url: str) -> Dataset:
    answer = await web.client.get(url)
    assert answer.status_code == 200
    [body] = bodies_of(answer)
    return dcmread(DicomBytesIO(body))


def target_of(note: Dataset) -> Target:
    return Target(note.StudyInstanceUID, note.SeriesInstanceUID, note.SOPInstanceUID)


async def run_rejection_jobs(web: Web) -> int:
    """Run what waits, as the worker does; the number of objects that are gone by it."""
    async with web.store.database.transaction() as tx:
        rows = await tx.tuples(
            "DELETE FROM procrastinate_jobs WHERE task_name = 'apply_rejection' RETURNING args"
        )
    return sum([await apply_rejection(web.store, **args) for (args,) in rows])


@pytest.mark.conforms("PS3.18 beyond", "DELETE rejects with a reason, and a note stays")
@pytest.mark.parametrize("sealed", [False, True])
async def test_a_rejected_study_is_gone_but_for_its_note(web: Web, *, sealed: bool) -> None:
    series, study = await stored(web)
    if sealed:
        await web.seal()
    answer = await delete(web, study, SAFETY, "fel sida är märkt på bilden")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["instances"] == 3
    note = await note_at(web, told["RetrieveURL"])
    assert await found(web, study) == {note.SOPInstanceUID}
    for one in series:
        path = f"{ROOT}/{study}/series/{one.SeriesInstanceUID}/instances/{one.SOPInstanceUID}"
        assert (await web.client.get(path)).status_code == 404
    assert note.SOPClassUID == KEY_OBJECT_SELECTION
    title = note.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == (SAFETY, "DCM")
    assert title.CodeMeaning == CODES[SAFETY]
    [evidence] = note.CurrentRequestedProcedureEvidenceSequence
    [named] = evidence.ReferencedSeriesSequence
    assert evidence.StudyInstanceUID == series[0].StudyInstanceUID
    assert named.SeriesInstanceUID == series[0].SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in named.ReferencedSOPSequence} == {
        one.SOPInstanceUID for one in series
    }
    texts = [item.TextValue for item in note.ContentSequence if "TextValue" in item]
    assert texts == ["loopback", "fel sida är märkt på bilden"]
    for keyword in ("PatientName", "PatientID", "AccessionNumber", "StudyDate"):
        assert note[keyword].value == series[0][keyword].value
    assert await run_rejection_jobs(web) == 0
    await web.seal()
    assert await found(web, study) == {note.SOPInstanceUID}


async def test_series_and_instance_are_rejected_alone(web: Web) -> None:
    series, study = await stored(web)
    other = ct_instance(StudyInstanceUID=series[0].StudyInstanceUID)
    await web.stow(part10_bytes(other))
    path = f"{study}/series/{series[0].SeriesInstanceUID}"
    answer = await delete(web, f"{path}/instances/{series[0].SOPInstanceUID}")
    first = await note_at(web, answer.json()["RetrieveURL"])
    left = {one.SOPInstanceUID for one in [*series[1:], other]}
    assert await found(web, study) == left | {first.SOPInstanceUID}
    answer = await delete(web, path, WORKLIST)
    assert answer.json()["instances"] == 2
    second = await note_at(web, answer.json()["RetrieveURL"])
    notes = {first.SOPInstanceUID, second.SOPInstanceUID}
    assert await found(web, study) == notes | {other.SOPInstanceUID}
    # Notes are not rejected with their study, and alone not at all.
    assert (await delete(web, study)).json()["instances"] == 1
    assert (await delete(web, study)).status_code == 404


@pytest.mark.conforms("PS3.18 beyond", "What was rejected is refused when it comes again")
async def test_what_was_rejected_is_refused_when_it_comes_again(web: Web) -> None:
    series, study = await stored(web, 2)
    await delete(web, study)
    answer = await web.stow(part10_bytes(series[0]))
    assert answer.status_code == 409
    corrected = ct_instance(StudyInstanceUID=series[0].StudyInstanceUID)
    assert (await web.stow(part10_bytes(corrected))).status_code == 200
    assert corrected.SOPInstanceUID in await found(web, study)


@pytest.mark.conforms("PS3.18 beyond", "A stored rejection note rejects what it names")
@pytest.mark.parametrize("code", sorted(CODES))
async def test_a_stored_note_rejects_what_it_names(web: Web, code: str) -> None:
    series, study = await stored(web)
    note = rejection_note(series[:2], code)
    assert (await web.stow(part10_bytes(note))).status_code == 200
    assert await run_rejection_jobs(web) == 2
    assert await found(web, study) == {series[2].SOPInstanceUID, note.SOPInstanceUID}


async def test_a_note_in_a_series_that_is_being_stored_has_its_effect_too(web: Web) -> None:
    series, study = await stored(web)
    before = rejection_note(series[:1], SeriesInstanceUID="1.2.826.77")
    await web.stow(part10_bytes(before))
    note = rejection_note(series[1:2], SeriesInstanceUID="1.2.826.77")
    await web.stow(part10_bytes(note))
    assert await run_rejection_jobs(web) == 2
    left = {before.SOPInstanceUID, note.SOPInstanceUID, series[2].SOPInstanceUID}
    assert await found(web, study) == left


async def test_other_key_objects_reject_nothing(web: Web) -> None:
    series, study = await stored(web)
    note = rejection_note(series, "113000")  # Of Interest
    await web.stow(part10_bytes(note))
    elsewhere = rejection_note(series)
    elsewhere.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID = "1.2.3"
    await web.stow(part10_bytes(elsewhere))
    assert await run_rejection_jobs(web) == 0
    assert {one.SOPInstanceUID for one in series} < await found(web, study)


async def test_the_note_of_a_node_that_may_not_reject_is_a_case(web: Web) -> None:
    series, study = await stored(web)
    async with web.store.database.transaction() as tx:
        archive = await find_archive(tx, WHO, "ARCHIVE")
    node = Access("node", "MODALITY", frozenset([archive.archive_id]))
    note = part10_bytes(rejection_note(series))
    [outcome] = await store_as(web, node, note)
    assert outcome.error is None
    assert await run_rejection_jobs(web) == 0
    assert len(await found(web, study)) == 4
    async with web.store.database.transaction() as tx:
        rows = await tx.tuples("SELECT kind, study_instance_uid FROM archive_case")
    assert rows == [("rejection_without_effect", series[0].StudyInstanceUID)]
    target = Target(series[0].StudyInstanceUID)
    with pytest.raises(Denied):
        await reject(web.store, node, "test", archive, target, QUALITY, "")


async def test_the_note_of_a_node_that_may_reject_has_its_effect(web: Web) -> None:
    series, study = await stored(web)
    async with web.store.database.transaction() as tx:
        archive = await find_archive(tx, WHO, "ARCHIVE")
    node = Access("node", "MODALITY", frozenset([archive.archive_id]), may_reject=True)
    await store_as(web, node, part10_bytes(rejection_note(series)))
    stop = asyncio.Event()
    working = asyncio.create_task(jobs.run_worker(web.store, stop))

    async def is_gone() -> bool:
        return len(await found(web, study)) == 1

    await until(is_gone)
    stop.set()
    await working
    assert await web.count("archive_case") == 0


async def store_as(web: Web, access: Access, data: bytes) -> list[Outcome]:
    async with web.store.database.transaction() as tx:
        archive = await find_archive(tx, WHO, "ARCHIVE")
    reception = Reception(web.store, access, archive, "C-STORE")
    incoming = reception.incoming_part10()
    incoming.write(data)
    outcomes = await web.store.commit([incoming.finish()])
    reception.close()
    return outcomes


@pytest.mark.conforms("PS3.18 beyond", "A rejection is taken back by its note")
@pytest.mark.parametrize("sealed", [False, True])
async def test_a_rejection_is_taken_back(web: Web, *, sealed: bool) -> None:
    series, study = await stored(web)
    note = await note_at(web, (await delete(web, study)).json()["RetrieveURL"])
    if sealed:
        await web.seal()
    assert await undelete(web.store, WHO, "ARCHIVE", target_of(note)) == Undone(3, 0)
    assert await found(web, study) == {one.SOPInstanceUID for one in series}
    again = await delete(web, study, SAFETY)
    assert again.json()["instances"] == 3


async def test_a_killed_rejection_is_nothing_or_all(web: Web) -> None:
    _, study = await stored(web)

    class Killed(Exception):
        pass

    with (
        mock.patch.object(jobs, "defer_apply_rejection", side_effect=Killed),
        pytest.raises(Killed),
    ):
        await reject_study(web, study)
    assert len(await found(web, study)) == 3  # no note, and nothing gone
    with mock.patch.object(rejecting, "apply_rejection", side_effect=Killed), pytest.raises(Killed):
        await reject_study(web, study)
    assert await run_rejection_jobs(web) == 3
    [note] = await found(web, study)
    assert note


async def reject_study(web: Web, study: str) -> None:
    access = Access("local", "loopback", None, may_reject=True)
    async with web.store.database.transaction() as tx:
        archive = await find_archive(tx, access, "ARCHIVE")
    target = Target(study.removeprefix("studies/"))
    await reject(web.store, access, "test", archive, target, QUALITY, "")


async def test_the_feed_tells_of_a_rejection_by_its_note(web: Web) -> None:
    _, study = await stored(web)
    note = await note_at(web, (await delete(web, study)).json()["RetrieveURL"])
    told = (await web.client.get(f"{ROOT}/changes")).json()
    [one] = [entry for entry in told if entry["Event"] == "instances_rejected"]
    assert (one["Action"], one["SOPInstanceUID"]) == ("delete", note.SOPInstanceUID)


@pytest.mark.conforms("PS3.18 beyond", "A rejection without one of the four reasons is refused")
async def test_a_rejection_needs_a_reason(shared: Web) -> None:
    series, study = await stored(shared)
    answer = await delete(shared, study, "113000")
    assert answer.status_code == 400
    assert "113001" in answer.json()["detail"]
    assert (await delete(shared, study, "")).status_code == 400
    assert (await delete(shared, study, QUALITY, "long" * 200)).status_code == 400
    answer = await shared.client.request(
        "DELETE", f"{ROOT}/{study}", params={"code": QUALITY}, content=b"[1]"
    )
    assert answer.status_code == 400
    assert (await delete(shared, "studies/1.2.3")).status_code == 404
    assert len(await found(shared, study)) == len(series)


async def test_what_is_no_note_is_read_as_none() -> None:
    for dataset in (
        {},
        {"00080016": {"vr": "UI", "Value": [KEY_OBJECT_SELECTION]}},
        {"00080016": {"vr": "UI", "Value": [KEY_OBJECT_SELECTION]}, "0040A043": {"vr": "SQ"}},
    ):
        assert read_note(dataset) is None
