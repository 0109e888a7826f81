"""Storage Commitment over HTTP (PS3.18 chapter 13)."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.dicomweb.conftest import Answer, Web, bodies_of
from tests.dicomweb.worklist import Dataset, element, new_uid
from tests.samples import ct_series, part10_bytes

from bfr_core import commitment_requests
from bfr_core.access import Access
from bfr_core.commitment_requests import Requested
from bfr_core.connections import find_archive
from bfr_core.errors import Denied
from bfr_dicomweb.dicom_xml import read_xml, write_xml

pytestmark = pytest.mark.asyncio(loop_scope="module")

REQUESTS = "/archives/ARCHIVE/dicomweb/commitment-requests"
JSON = {"Content-Type": "application/dicom+json"}
CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"


def by_sop(*references: tuple[str, str]) -> Dataset:
    items = [
        {"00081150": element("UI", sop_class), "00081155": element("UI", uid)}
        for sop_class, uid in references
    ]
    return {"00081199": element("SQ", *items)}


def by_study(study: str, series: str, sop_class: str, *uids: str) -> Dataset:
    instances = [{"00081155": element("UI", uid)} for uid in uids]
    group = {"00081150": element("UI", sop_class), "0008114A": element("SQ", *instances)}
    one = {"0020000E": element("UI", series), "00081112": element("SQ", group)}
    return {
        "00081110": element(
            "SQ", {"0020000D": element("UI", study), "00081115": element("SQ", one)}
        )
    }


async def ask(web: Web, sent: Any, transaction: str | None = None) -> Answer:
    url = f"{REQUESTS}/{transaction or new_uid()}"
    return await web.client.post(url, json=sent, headers=JSON)


async def stored(web: Web, count: int = 2) -> Sequence[Any]:
    series = ct_series(count)
    answer = await web.stow(*(part10_bytes(one) for one in series))
    assert answer.status_code == 200
    return series


def committed(answer: Dataset) -> list[str]:
    return [item["00081155"]["Value"][0] for item in answer.get("00081199", {}).get("Value", [])]


def failures(answer: Dataset) -> dict[str, int]:
    items = answer.get("00081198", {}).get("Value", [])
    return {item["00081155"]["Value"][0]: item["00081197"]["Value"][0] for item in items}


@pytest.mark.conforms("PS3.18 §13.4", "200 tells of each object that storage is committed")
@pytest.mark.parametrize("sealed", [False, True])
async def test_stored_objects_are_committed(shared: Web, *, sealed: bool) -> None:
    series = await stored(shared)
    if sealed:
        await shared.seal()
    answer = await ask(shared, by_sop(*((CT, one.SOPInstanceUID) for one in series)))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    [result] = answer.json()
    assert committed(result) == [one.SOPInstanceUID for one in series]
    assert "00081198" not in result


@pytest.mark.conforms("PS3.18 §13.4", "what is not committed has its Failure Reason")
async def test_each_object_has_its_own_reason(shared: Web) -> None:
    one, other = await stored(shared)
    away = new_uid()
    references = [(CT, one.SOPInstanceUID), (MR, other.SOPInstanceUID), (CT, away)]
    [result] = (await ask(shared, by_sop(*references))).json()
    assert committed(result) == [one.SOPInstanceUID]
    assert failures(result) == {other.SOPInstanceUID: 0x0119, away: 0x0112}
    url = f"/archives/OTHER/dicomweb/commitment-requests/{new_uid()}"
    answer = await shared.client.post(url, json=by_sop(references[0]), headers=JSON)
    assert failures(answer.json()[0]) == {one.SOPInstanceUID: 0x0112}


async def test_an_object_whose_bytes_are_gone_is_not_committed(web: Web) -> None:
    [one] = await stored(web, 1)
    with web.packs()[0].open("r+b") as pack:
        pack.truncate(100)
    [result] = (await ask(web, by_sop((CT, one.SOPInstanceUID)))).json()
    assert failures(result) == {one.SOPInstanceUID: 0x0110}


@pytest.mark.conforms("PS3.18 §J.1", "Objects may be named by study and series")
async def test_objects_named_by_study_are_answered_by_study(shared: Web) -> None:
    one, other = await stored(shared)
    places = (one.StudyInstanceUID, one.SeriesInstanceUID, CT)
    away = new_uid()
    sent = by_study(*places, one.SOPInstanceUID, other.SOPInstanceUID, away)
    [result] = (await ask(shared, sent)).json()
    expected = by_study(*places, one.SOPInstanceUID, other.SOPInstanceUID)
    failed = by_study(*places, away)["00081110"]
    [group] = failed["Value"][0]["00081115"]["Value"][0]["00081112"]["Value"]
    group["0008114A"]["Value"][0]["00081197"] = element("US", 0x0112)
    assert result == {**expected, "0008119B": failed}


async def test_an_object_that_lies_in_another_series_than_was_said_is_not_committed(
    shared: Web,
) -> None:
    [one] = await stored(shared, 1)
    sent = by_study(one.StudyInstanceUID, new_uid(), CT, one.SOPInstanceUID)
    [result] = (await ask(shared, sent)).json()
    assert "00081110" not in result
    assert len(result["0008119B"]["Value"]) == 1


@pytest.mark.conforms("PS3.18 §13.5", "The result is there for who asks again")
async def test_the_result_is_kept(shared: Web) -> None:
    [one] = await stored(shared, 1)
    uid = new_uid()
    asked = await ask(shared, by_sop((CT, one.SOPInstanceUID), (CT, new_uid())), uid)
    again = await shared.client.get(f"{REQUESTS}/{uid}")
    assert (again.status_code, again.json()) == (200, asked.json())
    study = new_uid()
    sent = by_study(one.StudyInstanceUID, one.SeriesInstanceUID, CT, one.SOPInstanceUID)
    asked = await ask(shared, sent, study)
    assert (await shared.client.get(f"{REQUESTS}/{study}")).json() == asked.json()
    assert (await shared.client.get(f"{REQUESTS}/{new_uid()}")).status_code == 404
    elsewhere = await shared.client.get(f"/archives/OTHER/dicomweb/commitment-requests/{uid}")
    assert elsewhere.status_code == 404


@pytest.mark.conforms("PS3.18 §13.4", "409 for a Transaction UID that is in use")
async def test_a_transaction_uid_is_used_once(shared: Web) -> None:
    [one] = await stored(shared, 1)
    uid = new_uid()
    asked = await ask(shared, by_sop((CT, one.SOPInstanceUID)), uid)
    assert (await ask(shared, by_sop((CT, new_uid())), uid)).status_code == 409
    assert (await shared.client.get(f"{REQUESTS}/{uid}")).json() == asked.json()


@pytest.mark.conforms("PS3.18 §13.4", "Request and answer may be XML")
async def test_request_and_answer_may_be_xml(shared: Web) -> None:
    [one] = await stored(shared, 1)
    answer = await shared.client.post(
        f"{REQUESTS}/{new_uid()}",
        content=write_xml(by_sop((CT, one.SOPInstanceUID))),
        headers={"Content-Type": "application/dicom+xml", "Accept": "application/dicom+xml"},
    )
    assert answer.status_code == 200
    assert committed(read_xml(answer.content, 8)) == [one.SOPInstanceUID]
    many = await shared.client.post(
        f"{REQUESTS}/{new_uid()}",
        json=by_sop((CT, one.SOPInstanceUID)),
        headers={**JSON, "Accept": 'multipart/related; type="application/dicom+xml"'},
    )
    [body] = bodies_of(many)
    assert committed(read_xml(body, 8)) == [one.SOPInstanceUID]


@pytest.mark.conforms("PS3.18 §13.4", "400 names the attribute for which it is no request")
@pytest.mark.parametrize(
    ("sent", "named"),
    [
        ({}, "00081199"),
        ({"00081199": element("SQ")}, "00081199"),
        ({"00081199": element("UI", "1.2")}, "00081199"),
        (by_sop((CT, "1.2.three")), "00081155"),
        (by_sop(("", "1.2.3")), "00081150"),
        ({"00081199": element("SQ", {"00081150": element("UI", CT)})}, "00081155"),
        (by_study("1.2.x", "1.2.4", CT, "1.2.5"), "0020000D"),
        (by_study("1.2.3", "1.2.x", CT, "1.2.5"), "0020000E"),
    ],
)
async def test_what_is_no_request_leaves_nothing(shared: Web, sent: Dataset, named: str) -> None:
    before = await shared.count("commitment")
    answer = await ask(shared, sent)
    assert answer.status_code == 400
    assert named in answer.json()["detail"]
    assert await shared.count("commitment") == before


async def test_a_transaction_needs_a_uid(shared: Web) -> None:
    answer = await ask(shared, by_sop((CT, "1.2.3")), "no-uid")
    assert answer.status_code == 400
    assert "00081195" in answer.json()["detail"]


async def test_one_object_is_not_named_in_two_series(shared: Web) -> None:
    sent = by_study("1.2.3", "1.2.4", CT, "1.2.5")
    sent["00081110"]["Value"] += by_study("1.2.3", "1.2.6", CT, "1.2.5")["00081110"]["Value"]
    assert (await ask(shared, sent)).status_code == 400


async def test_who_may_not_store_cannot_ask(shared: Web) -> None:
    reader = Access(kind="local", subject="loopback", archive_ids=None, may_store=False)
    async with shared.store.database.transaction() as tx:
        archive = await find_archive(tx, reader, "ARCHIVE")
    asked = [Requested(CT, "1.2.3")]
    with pytest.raises(Denied):
        await commitment_requests.request_commitment(
            shared.store, reader, "test", archive, new_uid(), asked
        )
    with pytest.raises(Denied):
        await commitment_requests.find_result(shared.store, reader, archive, "1.2")
