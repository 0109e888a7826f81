"""UPS-RS: the Worklist service (PS3.18 chapter 11), but for subscriptions."""

import asyncio
from typing import Any

import pytest
from tests.dicomweb.conftest import Web, bodies_of, multipart, related
from tests.dicomweb.worklist import (
    DISCONTINUED,
    JSON,
    PERFORMED,
    WORKITEMS,
    Worklist,
    code,
    element,
    new_uid,
    new_workitem,
)

from bfr_core import workitems
from bfr_dicomweb.dicom_xml import read_xml, write_xml

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def worklist(shared: Web) -> Worklist:
    return Worklist(shared)


def warnings_of(answer: Any) -> list[str]:
    return list(answer.headers.get_list("warning"))


# Create


@pytest.mark.conforms("PS3.18 §11.4.3", "201 with the address of the new workitem")
async def test_a_workitem_is_created_and_comes_back(worklist: Worklist) -> None:
    uid = new_uid()
    answer = await worklist.create(uid)
    assert (answer.status_code, answer.content) == (201, b"")
    assert answer.headers["location"].endswith(f"{WORKITEMS}/{uid}")
    assert "warning" not in answer.headers
    stored = await worklist.get(uid)
    assert stored["00080018"]["Value"] == [uid]
    assert stored["00080016"]["Value"] == ["1.2.840.10008.5.1.4.34.6.1"]
    assert stored["00404010"]["vr"] == "DT"
    sent = new_workitem()
    assert {tag: stored[tag] for tag in sent if tag != "00081195"} == {
        tag: value for tag, value in sent.items() if tag != "00081195"
    }


@pytest.mark.conforms("PS3.18 §11.4.1.1", "The UID may be in the query or in the data set")
async def test_the_uid_is_in_the_query_or_in_the_data_set(worklist: Worklist) -> None:
    client = worklist.web.client
    uid = new_uid()
    within = new_workitem(T00080018=element("UI", uid))
    assert (await client.post(WORKITEMS, json=[within], headers=JSON)).status_code == 201
    for name in ("workitem", "AffectedSOPInstanceUID"):
        url = f"{WORKITEMS}?{name}={new_uid()}"
        assert (await client.post(url, json=new_workitem(), headers=JSON)).status_code == 201
    for url, body in (
        (WORKITEMS, new_workitem()),
        (f"{WORKITEMS}?{new_uid()}", within),
        (f"{WORKITEMS}?x.y", new_workitem()),
        (f"{WORKITEMS}?{'1.' * 40}1", new_workitem()),
    ):
        assert (await client.post(url, json=[body], headers=JSON)).status_code == 400, url


@pytest.mark.conforms("PS3.18 §11.4.3.1", "409 for a UID that is taken")
async def test_a_uid_is_taken_once_in_all_archives(worklist: Worklist) -> None:
    uid = await worklist.created()
    assert (await worklist.create(uid)).status_code == 409
    other = Worklist(worklist.web, "/archives/OTHER/dicomweb/workitems")
    assert (await other.create(uid)).status_code == 409


@pytest.mark.conforms("PS3.18 §11.4.3.2", "299 when the archive has filled in a label")
async def test_an_empty_worklist_label_is_filled_in_with_a_warning(worklist: Worklist) -> None:
    uid = new_uid()
    answer = await worklist.create(uid, new_workitem(T00741202=element("LO")))
    assert warnings_of(answer) == ['299 BFR "The Workitem was created with modifications."']
    assert (await worklist.get(uid))["00741202"]["Value"] == ["Test archive"]


@pytest.mark.conforms("PS3.4 §CC.2.5", "What N-CREATE requires with a value is required")
@pytest.mark.parametrize("tag", ["00741000", "00741200", "00741204", "00404005", "00404041"])
async def test_what_is_required_with_a_value_is_required(worklist: Worklist, tag: str) -> None:
    for dataset in ({**new_workitem(), tag: {"vr": new_workitem()[tag]["vr"]}}, new_workitem()):
        if dataset == new_workitem():
            del dataset[tag]
        answer = await worklist.create(new_uid(), dataset)
        assert answer.status_code == 400
        assert tag in answer.json()["detail"]


@pytest.mark.conforms("PS3.4 §CC.2.5", "What N-CREATE requires may be empty, not left out")
@pytest.mark.parametrize(
    "tag",
    "00741202 00741210 00404025 00404026 00404027 00404018 00400400 00404021 00100010 00101002"
    " 00100030 00100040 00380010 00380014 00081080 00081084 0040A370 00741002 00741216".split(),
)
async def test_what_may_be_empty_may_not_be_left_out(worklist: Worklist, tag: str) -> None:
    empty = new_workitem()
    empty[tag] = {"vr": empty[tag]["vr"]}
    assert (await worklist.create(new_uid(), empty)).status_code == 201
    del empty[tag]
    answer = await worklist.create(new_uid(), empty)
    assert answer.status_code == 400
    assert tag in answer.json()["detail"]


@pytest.mark.parametrize(
    ("tag", "value", "told"),
    [
        ("00741000", element("CS", "IN PROGRESS"), "SCHEDULED"),
        ("00741200", element("CS", "URGENT"), "HIGH"),
        ("00404041", element("CS", "MAYBE"), "READY"),
        ("00081195", element("UI", "1.2.3"), "00081195"),
        ("00741216", PERFORMED["00741216"], "empty"),
        ("00080016", element("UI", "1.2.840.10008.5.1.4.1.1.2"), "00080016"),
        ("00001000", element("UI", "1.2.3"), "no attribute of a data set"),
        ("00404018", element("SQ", {"00080104": element("LO", "x")}), "no code"),
        ("00404018", element("SQ", {"00080100": element("SH", "x")}), "00080104"),
        ("00404034", element("SQ", {}), "00404009"),
        ("0040A370", element("SQ", {"0020000D": element("UI", "1.2")}), "00080050"),
        ("0020000D", element("UI", "x"), "0020000D"),
        ("00741200", {"vr": "XX"}, "value representation"),
        ("00741200", element("LO", "HIGH"), "VR CS"),
        ("00741200", {"vr": "CS", "Value": "HIGH"}, "no array"),
        ("00741200", element("CS", 1), "VR CS"),
        ("00741200", {}, "no vr"),
        ("00741204", element("LO", "a\x00b"), "VR LO"),
        ("00400400", {"vr": "LT", "BulkDataURI": "http://127.0.0.1/"}, "bulk data"),
        ("00091010", {"vr": "OB", "InlineBinary": "!"}, "base64"),
        ("zz", element("LO", "x"), "no tag"),
    ],
)
async def test_what_a_workitem_cannot_be_is_told_by_attribute(
    worklist: Worklist, tag: str, value: dict[str, Any], told: str
) -> None:
    before = await worklist.web.count("workitem")
    answer = await worklist.create(new_uid(), {**new_workitem(), tag: value})
    assert answer.status_code == 400
    assert told in answer.json()["detail"]
    assert await worklist.web.count("workitem") == before


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/dicom+json", 400),
        (b"[]", "application/dicom+json", 400),
        (b"[1]", "application/dicom+json", 400),
        (b"[{},{}]", "application/dicom+json", 400),
        (b"[" * 5000, "application/dicom+json", 400),
        (b"[{}]", "text/plain", 415),
        (b"<x/>", "application/dicom+xml", 400),
        (b'[{"00080005":' + b" " * 1_100_000, "application/dicom+json", 413),
    ],
)
async def test_a_body_that_is_no_workitem_is_refused(
    worklist: Worklist, body: bytes, content_type: str, status: int
) -> None:
    url = f"{WORKITEMS}?{new_uid()}"
    headers = {"Content-Type": content_type}
    answer = await worklist.web.client.post(url, content=body, headers=headers)
    assert answer.status_code == status


async def test_sequences_nested_too_deep_are_refused(worklist: Worklist) -> None:
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"00404018": element("SQ", deep)}
    assert (await worklist.create(new_uid(), {**new_workitem(), **deep})).status_code == 400


# Retrieve


@pytest.mark.conforms("PS3.18 §11.5.3", "404 for a workitem that nobody knows")
async def test_what_is_not_there_is_not_found(worklist: Worklist) -> None:
    client = worklist.web.client
    uid = await worklist.created()
    for url in (
        f"{WORKITEMS}/1.2.3",
        f"/archives/OTHER/dicomweb/workitems/{uid}",
        f"/archives/NONE/dicomweb/workitems/{uid}",
        f"{WORKITEMS}/a%00b",
    ):
        assert (await client.get(url)).status_code == 404, url
    assert (await client.get(f"/dicomweb/workitems/{uid}")).status_code == 200


@pytest.mark.conforms("PS3.18 §11.5.2", "The Transaction UID stays the performer's secret")
async def test_the_transaction_uid_is_never_told(worklist: Worklist) -> None:
    uid, lock = await worklist.claimed()
    assert "00081195" not in await worklist.get(uid)
    (found,) = await worklist.search(SOPInstanceUID=uid, includefield="all")
    assert "00081195" not in found
    assert lock not in str(found)
    answer = await worklist.web.client.get(WORKITEMS, params={"TransactionUID": lock})
    assert answer.status_code == 400


@pytest.mark.conforms("PS3.18 §11.1.3", "A workitem is sent and had as XML")
async def test_a_workitem_goes_and_comes_as_xml(worklist: Worklist) -> None:
    client = worklist.web.client
    for body, content_type in (
        (write_xml(new_workitem()), "application/dicom+xml"),
        (
            multipart(("application/dicom+xml", write_xml(new_workitem()))),
            related(kind="application/dicom+xml"),
        ),
    ):
        uid = new_uid()
        headers = {"Content-Type": content_type}
        answer = await client.post(f"{WORKITEMS}?{uid}", content=body, headers=headers)
        assert answer.status_code == 201, answer.text
        stored = await worklist.get(uid)
        assert stored["00100010"] == new_workitem()["00100010"]
        xml = await client.get(f"{WORKITEMS}/{uid}", headers={"Accept": "application/dicom+xml"})
        assert read_xml(xml.content, 32) == stored
        several = 'multipart/related; type="application/dicom+xml"'
        for url in (f"{WORKITEMS}/{uid}", f"{WORKITEMS}?SOPInstanceUID={uid}&includefield=all"):
            parts = await client.get(url, headers={"Accept": several})
            assert [read_xml(part, 32) for part in bodies_of(parts)] == [stored]


@pytest.mark.conforms("PS3.18 §8.7.7", "406 when a workitem cannot be sent as asked")
async def test_a_workitem_is_no_picture(worklist: Worklist) -> None:
    uid = await worklist.created()
    for url in (WORKITEMS, f"{WORKITEMS}/{uid}"):
        answer = await worklist.web.client.get(url, headers={"Accept": "image/png"})
        assert answer.status_code == 406


# Update


@pytest.mark.conforms("PS3.18 §11.6", "What is sent is set, the rest stays")
async def test_an_update_sets_what_is_sent(worklist: Worklist) -> None:
    uid = await worklist.created()
    before = await worklist.get(uid)
    answer = await worklist.update(uid, {"00741200": element("CS", "HIGH")})
    assert answer.status_code == 200
    after = await worklist.get(uid)
    assert after["00741200"]["Value"] == ["HIGH"]
    assert after["00404010"] != before["00404010"]
    changed = {tag for tag in after if after[tag] != before.get(tag)}
    assert changed == {"00741200", "00404010"}


@pytest.mark.conforms("PS3.4 §CC.2.6.3", "In progress only the performer updates")
async def test_in_progress_only_the_performer_updates(worklist: Worklist) -> None:
    uid, lock = await worklist.claimed()
    change = {"00741204": element("LO", "Read it again")}
    inconsistent = [
        '299 BFR "The submitted request is inconsistent with the current state of the Workitem."'
    ]
    for wrong in (None, new_uid()):
        answer = await worklist.update(uid, change, wrong)
        assert (answer.status_code, warnings_of(answer)) == (400, inconsistent)
    assert (await worklist.update(uid, change, lock)).status_code == 200
    within = {**change, "00081195": element("UI", lock)}
    assert (await worklist.update(uid, within)).status_code == 200
    assert (await worklist.update(uid, within, new_uid())).status_code == 400


@pytest.mark.conforms("PS3.18 §11.6.3.2", "299 when an unclaimed workitem is sent a lock")
async def test_a_lock_before_the_claim_is_refused(worklist: Worklist) -> None:
    uid = await worklist.created()
    answer = await worklist.update(uid, {"00741200": element("CS", "LOW")}, new_uid())
    assert answer.status_code == 409
    assert warnings_of(answer) == ['299 BFR "The target URI did not reference a claimed Workitem."']
    assert (await worklist.get(uid))["00741200"]["Value"] == ["MEDIUM"]


@pytest.mark.conforms("PS3.4 §CC.2.5", "What N-SET may not change is refused")
@pytest.mark.parametrize(
    "changes",
    [
        {"00741000": element("CS", "COMPLETED")},
        {"00100010": element("PN", {"Alphabetic": "Other"})},
        {"00100020": element("LO", "OTHER")},
        {"0040A370": element("SQ")},
        {"00080018": element("UI", "1.2.3")},
        {"00741200": element("CS")},
        {"00404041": element("CS", "MAYBE")},
    ],
)
async def test_what_may_not_be_updated_is_refused(
    worklist: Worklist, changes: dict[str, Any]
) -> None:
    uid = await worklist.created()
    before = await worklist.get(uid)
    answer = await worklist.update(uid, changes)
    assert answer.status_code == 400
    assert next(iter(changes)) in answer.json()["detail"]
    assert await worklist.get(uid) == before


# State


@pytest.mark.conforms("PS3.18 §11.7", "Claimed, performed, completed")
async def test_a_workitem_is_worked_through(worklist: Worklist) -> None:
    uid, lock = await worklist.claimed()
    assert (await worklist.get(uid))["00741000"]["Value"] == ["IN PROGRESS"]
    unready = await worklist.change(uid, "COMPLETED", lock)
    assert unready.status_code == 409
    assert "00741216" in unready.json()["detail"]
    assert (await worklist.update(uid, PERFORMED, lock)).status_code == 200
    assert (await worklist.change(uid, "COMPLETED", lock)).status_code == 200
    assert (await worklist.get(uid))["00741000"]["Value"] == ["COMPLETED"]
    again = await worklist.change(uid, "COMPLETED", lock)
    assert again.status_code == 200
    assert warnings_of(again) == [
        '299 BFR "The UPS is already in the requested state of COMPLETED."'
    ]
    after = await worklist.update(uid, {"00741200": element("CS", "LOW")}, lock)
    assert after.status_code == 400


@pytest.mark.conforms("PS3.4 §CC.2.5.1.1", "Each final state requirement of COMPLETED")
@pytest.mark.parametrize("tag", ["00404028", "00404019", "00404050", "00404051", "00404033"])
async def test_what_completion_requires_is_required(worklist: Worklist, tag: str) -> None:
    uid, lock = await worklist.claimed()
    item = dict(PERFORMED["00741216"]["Value"][0])
    del item[tag]
    await worklist.update(uid, {"00741216": element("SQ", item)}, lock)
    answer = await worklist.change(uid, "COMPLETED", lock)
    assert answer.status_code == 409
    assert tag in answer.json()["detail"]
    assert (await worklist.get(uid))["00741000"]["Value"] == ["IN PROGRESS"]


@pytest.mark.conforms("PS3.4 §CC.2.5.1.1", "The archive fills in when a workitem was cancelled")
async def test_the_performer_cancels_with_a_reason(worklist: Worklist) -> None:
    uid, lock = await worklist.claimed()
    answer = await worklist.change(uid, "CANCELED", lock)
    assert answer.status_code == 409
    assert "0074100E" in answer.json()["detail"]
    await worklist.update(uid, DISCONTINUED, lock)
    assert (await worklist.change(uid, "CANCELED", lock)).status_code == 200
    (progress,) = (await worklist.get(uid))["00741002"]["Value"]
    assert progress["00404052"]["vr"] == "DT"
    assert progress["0074100E"] == DISCONTINUED["00741002"]["Value"][0]["0074100E"]
    again = await worklist.change(uid, "CANCELED", lock)
    assert (again.status_code, warnings_of(again)) == (
        200,
        ['299 BFR "The UPS is already in the requested state of CANCELED."'],
    )


@pytest.mark.conforms("PS3.18 §11.7.3.2", "299 tells of a missing or incorrect Transaction UID")
async def test_who_does_not_hold_the_lock_is_refused(worklist: Worklist) -> None:
    uid, _ = await worklist.claimed()
    for lock, told in ((None, "missing"), (new_uid(), "incorrect")):
        for state in ("IN PROGRESS", "COMPLETED", "CANCELED"):
            answer = await worklist.change(uid, state, lock)
            assert answer.status_code == 400
            assert warnings_of(answer) == [f'299 BFR "The Transaction UID is {told}."']


@pytest.mark.conforms("PS3.18 §11.7.3.1", "409 for a change that the state does not allow")
async def test_a_change_that_the_state_does_not_allow_is_a_conflict(worklist: Worklist) -> None:
    told = ['299 BFR "The submitted request is inconsistent with the state of the UPS Instance."']
    uid = await worklist.created()
    lock = new_uid()
    for state, status in (("COMPLETED", 409), ("CANCELED", 409), ("SCHEDULED", 400)):
        answer = await worklist.change(uid, state, lock)
        assert (answer.status_code, warnings_of(answer)) == (status, told)
    await worklist.change(uid, "IN PROGRESS", lock)
    answer = await worklist.change(uid, "IN PROGRESS", lock)
    assert (answer.status_code, warnings_of(answer)) == (409, told)
    assert (await worklist.change(uid, "DONE", lock)).status_code == 400
    assert (await worklist.change("1.2.3", "IN PROGRESS", lock)).status_code == 404


@pytest.mark.conforms("PS3.4 §CC.2.1.2", "Of two performers one gets the workitem")
async def test_of_many_who_claim_at_once_one_gets_it(worklist: Worklist) -> None:
    uid = await worklist.created()
    answers = await asyncio.gather(
        *(worklist.change(uid, "IN PROGRESS", new_uid()) for _ in range(8))
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 7


# Cancellation


@pytest.mark.conforms("PS3.4 §CC.2.2.3", "What nobody has begun is cancelled by a request")
async def test_a_request_cancels_what_is_scheduled(worklist: Worklist) -> None:
    uid = await worklist.created()
    request = {
        "00741238": element("LT", "Wrong patient"),
        "0074100A": element("UR", "tel:+46310000000"),
        "0074100C": element("LO", "Reading room"),
    }
    assert (await worklist.cancel(uid, request)).status_code == 202
    stored = await worklist.get(uid)
    assert stored["00741000"]["Value"] == ["CANCELED"]
    (progress,) = stored["00741002"]["Value"]
    assert progress["00741238"] == request["00741238"]
    assert progress["0074100E"]["Value"][0]["00080100"]["Value"] == ["110513"]
    assert progress["00741008"]["Value"][0]["0074100A"] == request["0074100A"]
    again = await worklist.cancel(uid)
    assert (again.status_code, warnings_of(again)) == (
        202,
        ['299 BFR "The UPS is already in the requested state of CANCELED."'],
    )


async def test_a_request_without_a_reason_is_given_one_also_over_an_empty_one(
    worklist: Worklist,
) -> None:
    uid = await worklist.created()
    empty = {"00741002": element("SQ", {"0074100E": element("SQ")})}
    assert (await worklist.update(uid, empty)).status_code == 200
    assert (await worklist.cancel(uid)).status_code == 202
    (progress,) = (await worklist.get(uid))["00741002"]["Value"]
    assert progress["0074100E"]["Value"][0]["00080100"]["Value"] == ["110513"]


@pytest.mark.conforms("PS3.18 §11.8.3.1", "409 for what is completed, or nobody can be told of")
async def test_a_request_that_nobody_hears_is_a_conflict(worklist: Worklist) -> None:
    uid, lock = await worklist.claimed()
    assert (await worklist.cancel(uid)).status_code == 409
    await worklist.subscribe(uid, "PERFORMER")
    assert (await worklist.cancel(uid)).status_code == 202
    assert (await worklist.get(uid))["00741000"]["Value"] == ["IN PROGRESS"]
    await worklist.update(uid, PERFORMED, lock)
    await worklist.change(uid, "COMPLETED", lock)
    assert (await worklist.cancel(uid)).status_code == 409
    assert (await worklist.cancel("1.2.3")).status_code == 404
    bad = {"00100020": element("LO", "x")}
    assert (await worklist.cancel(uid, bad)).status_code == 400


# Search


@pytest.mark.conforms("PS3.18 §11.9", "Keys of every kind, also in sequences")
@pytest.mark.parametrize(
    ("keys", "is_found"),
    [
        ({"ScheduledProcedureStepPriority": "HIGH"}, True),
        ({"ScheduledProcedureStepPriority": "LOW"}, False),
        ({"00741200": "H*"}, True),
        ({"ProcedureStepState": "SCHEDULED", "InputReadinessState": "READY"}, True),
        ({"PatientName": "akesson^MANS"}, True),
        ({"PatientName": "Åke*"}, True),
        ({"PatientName": "Ake"}, False),
        ({"PatientBirthDate": "19690101-19700101"}, True),
        ({"PatientBirthDate": "19700102-"}, False),
        ({"ScheduledProcedureStepStartDateTime": "20260301"}, True),
        ({"ScheduledProcedureStepStartDateTime": "202603"}, True),
        ({"ScheduledProcedureStepStartDateTime": "2026-2027"}, True),
        ({"ScheduledProcedureStepStartDateTime": "20260301120000+0100"}, False),
        ({"ScheduledProcedureStepStartDateTime": "20260301130000+0100-"}, True),
        ({"ScheduledProcedureStepStartDateTime": "-202602"}, False),
        ({"ScheduledWorkitemCodeSequence.CodeValue": "110005"}, True),
        (
            {
                "ScheduledWorkitemCodeSequence.CodeValue": "110005",
                "ScheduledWorkitemCodeSequence.CodeMeaning": "Inter*",
            },
            True,
        ),
        (
            {
                "ScheduledWorkitemCodeSequence.CodeValue": "110005",
                "ScheduledWorkitemCodeSequence.CodeMeaning": "Image*",
            },
            False,
        ),
        (
            {
                "ScheduledHumanPerformersSequence.HumanPerformerCodeSequence.CodeValue": "P1",
                "ScheduledHumanPerformersSequence.HumanPerformerName": "ost*",
            },
            True,
        ),
        ({"WorklistLabel": ""}, True),
        ({"StudyInstanceUID": "1.2.3,1.2.826.0.1.3680043.10.998.1"}, True),
    ],
)
async def test_workitems_are_found_by_any_attribute(
    worklist: Worklist, keys: dict[str, str], is_found: bool
) -> None:
    other = code("110003", "Image Processing")
    performer = {
        "00404009": element("SQ", code("P1", "Performer 1")),
        "00404036": element("LO", "Reading room"),
        "00404037": element("PN", {"Alphabetic": "Öst^Eva"}),
    }
    uid = await worklist.created(
        T00741200=element("CS", "HIGH"),
        T00404018=element("SQ", code("110005", "Interpretation"), other),
        T00404034=element("SQ", performer),
    )
    found = await worklist.search(SOPInstanceUID=uid, **keys)
    assert [one["00080018"]["Value"] for one in found] == ([[uid]] if is_found else [])


@pytest.mark.conforms("PS3.4 §CC.2.8.1.3", "Times are of the time zone that a data set names")
async def test_times_are_of_the_zone_of_the_data_set(worklist: Worklist) -> None:
    uid = await worklist.created(T00080201=element("SH", "+0100"))
    for start, found in (("20260301110000", 1), ("20260301120000", 0)):
        keys = {"ScheduledProcedureStepStartDateTime": start}
        assert len(await worklist.search(SOPInstanceUID=uid, **keys)) == found


@pytest.mark.conforms("PS3.18 §11.9.2", "The return keys of the table, and what is asked for")
async def test_a_search_returns_what_the_table_says_and_what_is_asked(worklist: Worklist) -> None:
    uid = await worklist.created(T00400400=element("LT", "Take care"))
    (found,) = await worklist.search(SOPInstanceUID=uid)
    assert "00400400" not in found
    assert {"00080016", "00741000", "00741204", "00404005", "00100010"} <= found.keys()
    (found,) = await worklist.search(
        SOPInstanceUID=uid, includefield="CommentsOnTheScheduledProcedureStep"
    )
    assert found["00400400"]["Value"] == ["Take care"]


@pytest.mark.conforms("PS3.18 §11.9.3", "Pages without gap or double; 204 for nothing")
async def test_a_search_is_paged(worklist: Worklist) -> None:
    label = new_uid()
    uids = [await worklist.created(T00741202=element("LO", label)) for _ in range(5)]
    pages = [
        await worklist.search(WorklistLabel=label, limit="2", offset=str(offset))
        for offset in (0, 2, 4, 6)
    ]
    assert [one["00080018"]["Value"][0] for page in pages for one in page] == uids
    nothing = await worklist.web.client.get(WORKITEMS, params={"WorklistLabel": "none"})
    assert (nothing.status_code, nothing.content) == (204, b"")


@pytest.mark.parametrize(
    "query",
    [
        "Nonsense=1",
        "ScheduledProcedureStepStartDateTime=yesterday",
        "PatientBirthDate=-",
        "PatientBirthDate=20261301",
        "WorklistLabel=a%00b",
        "limit=x",
        "ScheduledWorkitemCodeSequence=x",
        "WorklistLabel=a&WorklistLabel=b",
        ".".join(["00404018"] * 20) + ".00080100=x",
    ],
)
async def test_a_search_that_cannot_be_understood_is_told(worklist: Worklist, query: str) -> None:
    answer = await worklist.web.client.get(f"{WORKITEMS}?{query}")
    assert answer.status_code == 400


# Deletion and audit


@pytest.mark.conforms("PS3.18 §11.5.3.1", "410 for a workitem that has been deleted")
@pytest.mark.conforms("PS3.4 §CC.2.1.3", "A deletion lock keeps a final workitem")
async def test_what_is_final_and_old_is_deleted_unless_it_is_locked(worklist: Worklist) -> None:
    kept, deleted, open_ = [await worklist.created() for _ in range(3)]
    await worklist.subscribe(kept, "KEEPER", deletionlock="true")
    await worklist.subscribe(deleted, "WATCHER")
    for uid in (kept, deleted):
        await worklist.cancel(uid)
    async with worklist.web.store.database.transaction() as tx:
        await tx.run("UPDATE workitem SET changed_at = now() - interval '10 days'")
        assert await workitems.delete_old(tx, 9) >= 1
    await worklist.get(kept)
    await worklist.get(open_)
    client = worklist.web.client
    assert (await client.get(f"{WORKITEMS}/{deleted}")).status_code == 410
    assert (await worklist.cancel(deleted)).status_code == 410
    assert (await worklist.create(deleted)).status_code == 409
    assert await worklist.search(SOPInstanceUID=deleted) == []


async def test_every_access_is_on_record_and_tells_no_person(worklist: Worklist) -> None:
    uid, lock = await worklist.claimed()
    await worklist.change(uid, "IN PROGRESS", new_uid())
    await worklist.update(uid, {"00741200": element("CS", "LOW")}, lock)
    await worklist.get(uid)
    await worklist.search(PatientID="TEST-1", SOPInstanceUID=uid)
    async with worklist.web.store.database.transaction() as tx:
        records = await tx.tuples(
            "SELECT action, outcome, detail ->> 'operation' FROM audit_record"
            " WHERE sop_instance_uid = %(uid)s ORDER BY recorded_at",
            uid=uid,
        )
        texts = await tx.tuples("SELECT audit_record::text FROM audit_record")
    assert records == [
        ("create", "success", "create"),
        ("update", "success", "change to IN PROGRESS"),
        ("update", "refused", "change to IN PROGRESS"),
        ("update", "success", "update"),
        ("read", "success", "retrieve"),
    ]
    for (text,) in texts:
        assert "TEST-1" not in text
        assert "kesson" not in text
        assert lock not in text


async def test_the_record_names_the_row_of_a_known_patient(worklist: Worklist) -> None:
    async with worklist.web.store.database.transaction() as tx:
        patient_id = await tx.value(
            "INSERT INTO patient (archive_id, patient_identifier, issuer, name, name_normalised,"
            " sex) SELECT archive_id, 'KNOWN', '', '', '', '' FROM archive"
            " WHERE ae_title = 'ARCHIVE' RETURNING patient_id"
        )
    known = await worklist.created(T00100020=element("LO", "KNOWN"))
    unknown = await worklist.created(T00100020=element("LO"))
    async with worklist.web.store.database.transaction() as tx:
        for uid, expected in ((known, patient_id), (unknown, None)):
            rows = await tx.tuples(
                "SELECT patient_id FROM audit_record WHERE sop_instance_uid = %(uid)s", uid=uid
            )
            assert rows == [(expected,)]
