"""Non-Patient Instance service: what belongs to no patient is stored, found and retrieved."""

import io
from typing import Any

import httpx
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import CTDefinedProcedureProtocolStorage, ExplicitVRBigEndian, InventoryStorage
from tests.dicomweb.conftest import Web, bodies_of, multipart, related
from tests.samples import ct_instance, part10_bytes
from tests.samples.non_patient import color_palette, hanging_protocol

from bfr_dicomweb.dicom_xml import read_xml, write_xml

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = "/archives/ARCHIVE/dicomweb"
PROTOCOLS = f"{ROOT}/hanging-protocols"
PALETTES = f"{ROOT}/color-palettes"
DICOM = {"Accept": "application/dicom"}


async def post(
    web: Web, url: str, *datasets: Dataset, kind: str = "application/dicom"
) -> httpx.Response:
    body = multipart(*((kind, part10_bytes(one)) for one in datasets))
    return await web.client.post(url, content=body, headers={"Content-Type": related()})


async def stored(web: Web, url: str, *datasets: Dataset) -> None:
    answer = await post(web, url, *datasets)
    assert answer.status_code == 200, answer.text


def items(answer: httpx.Response, tag: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer.json()[0].get(tag, {}).get("Value", [])
    return found


def reasons(answer: httpx.Response) -> list[int]:
    failures = [*items(answer, "00081198"), *items(answer, "0008119A")]
    return [one["00081197"]["Value"][0] for one in failures]


def without_uid() -> Dataset:
    dataset = hanging_protocol()
    del dataset.SOPInstanceUID
    return dataset


@pytest.mark.conforms("PS3.18 §12.5", "Instances are stored and told of with their Retrieve URL")
@pytest.mark.conforms("PS3.18 §12.4", "An instance comes back byte for byte as application/dicom")
async def test_an_instance_comes_back_as_it_was_stored(web: Web) -> None:
    protocol, palette = hanging_protocol(), color_palette()
    for url, dataset in ((PROTOCOLS, protocol), (PALETTES, palette)):
        answer = await post(web, url, dataset)
        assert answer.status_code == 200
        (reference,) = items(answer, "00081199")
        retrieve_url = reference["00081190"]["Value"][0]
        assert retrieve_url == f"{web.client.base_url}{url}/{dataset.SOPInstanceUID}"
        for accept in ("application/dicom", "application/dicom; transfer-syntax=*"):
            found = await web.client.get(retrieve_url, headers={"Accept": accept})
            assert found.content == part10_bytes(dataset)
            assert found.headers["content-type"].startswith("application/dicom")
        found = await web.client.get(retrieve_url, headers={"Accept": related()})
        assert bodies_of(found) == [part10_bytes(dataset)]
    assert await web.count("study") == await web.count("patient") == 0
    assert await web.count("non_patient_instance") == 2


@pytest.mark.conforms("PS3.18 §12.1.3", "DICOM JSON is the default, XML is offered")
async def test_json_is_the_default_and_names_large_values_by_uri(web: Web) -> None:
    palette = color_palette()
    await stored(web, PALETTES, palette)
    url = f"{PALETTES}/{palette.SOPInstanceUID}"
    answer = await web.client.get(url)
    assert answer.headers["content-type"] == "application/dicom+json"
    (header,) = answer.json()
    assert header["00700081"]["Value"] == ["Glöd"]
    profile = await web.client.get(
        header["00282000"]["BulkDataURI"], headers={"Accept": "application/octet-stream"}
    )
    assert profile.content == bytes(4096)
    for accept in ("application/dicom+xml", 'multipart/related; type="application/dicom+xml"'):
        answer = await web.client.get(url, headers={"Accept": accept})
        body = answer.content if accept == "application/dicom+xml" else bodies_of(answer)[0]
        assert read_xml(body, 16)["00700080"]["Value"] == ["GLOED"]
    assert (await web.client.get(url, headers={"Accept": "image/png"})).status_code == 406
    syntax = f"application/dicom; transfer-syntax={ExplicitVRBigEndian}"
    assert (await web.client.get(url, headers={"Accept": syntax})).status_code == 406


@pytest.mark.conforms("PS3.18 §12.6", "Any attribute is a key; matches tell what their kind has")
@pytest.mark.parametrize("root", ["/dicomweb", ROOT])
async def test_instances_are_found_by_their_attributes(web: Web, root: str) -> None:
    ct = hanging_protocol()
    mr = hanging_protocol(HangingProtocolName="MR hjärna", HangingProtocolLevel="USER_GROUP")
    mr.HangingProtocolDefinitionSequence[0].Modality = "MR"
    await stored(web, PROTOCOLS, ct)
    await stored(web, PROTOCOLS, mr)
    await stored(web, PALETTES, color_palette())

    async def found(**query: str) -> list[str]:
        answer = await web.client.get(f"{root}/hanging-protocols", params=query)
        if answer.status_code == 204:
            return []
        assert answer.status_code == 200, answer.text
        return [one["00080018"]["Value"][0] for one in answer.json()]

    assert await found() == [ct.SOPInstanceUID, mr.SOPInstanceUID]
    assert await found(HangingProtocolName="DT*") == [ct.SOPInstanceUID]
    assert await found(HangingProtocolLevel="USER_GROUP") == [mr.SOPInstanceUID]
    assert await found(HangingProtocolCreator="Granskarsson") == []
    assert len(await found(HangingProtocolCreator="Granskarsson^*")) == 2
    key = "HangingProtocolDefinitionSequence.Modality"
    assert await found(**{key: "MR"}) == [mr.SOPInstanceUID]
    assert len(await found(HangingProtocolCreationDateTime="20240305-20240306")) == 2
    assert await found(HangingProtocolCreationDateTime="20250101-") == []
    assert await found(SOPInstanceUID=ct.SOPInstanceUID) == [ct.SOPInstanceUID]
    assert await found(limit="1", offset="1") == [mr.SOPInstanceUID]
    (one,) = (await web.client.get(f"{root}/hanging-protocols?limit=1")).json()
    assert one["00720002"]["Value"] == ["DT thorax"]
    assert one["00081190"]["Value"] == [
        f"{web.client.base_url}{root}/hanging-protocols/{ct.SOPInstanceUID}"
    ]
    bad = await web.client.get(f"{root}/hanging-protocols?NoSuchAttribute=1")
    assert bad.status_code == 400
    bad = await web.client.get(f"{root}/hanging-protocols?HangingProtocolCreationDateTime=today")
    assert bad.status_code == 400


async def test_a_search_tells_more_where_it_is_asked_to(web: Web) -> None:
    await stored(web, PALETTES, color_palette(InstanceCreatorUID="1.2.3"))

    async def tags(**query: str) -> set[str]:
        (one,) = (await web.client.get(PALETTES, params=query)).json()
        return set(one)

    assert not {"00080014", "00282000"} & await tags()
    assert "00080014" in await tags(includefield="InstanceCreatorUID")
    assert {"00080014", "00282000"} <= await tags(includefield="all")
    answer = await web.client.get(
        PALETTES, headers={"Accept": 'multipart/related; type="application/dicom+xml"'}
    )
    assert len(bodies_of(answer)) == 1


@pytest.mark.conforms("PS3.18 §12.5.1.4", "One instance alone, and JSON and XML, are stored too")
async def test_an_instance_is_stored_alone_and_as_json_and_xml(web: Web) -> None:
    protocol = hanging_protocol()
    for kind, body in (
        ("application/dicom", part10_bytes(hanging_protocol())),
        ("application/dicom+json", f"[{protocol.to_json()}]".encode()),
        ("application/dicom+xml", write_xml(hanging_protocol().to_json_dict())),
    ):
        answer = await web.client.post(PROTOCOLS, content=body, headers={"Content-Type": kind})
        assert answer.status_code == 200, answer.text
    answer = await web.client.get(f"{PROTOCOLS}/{protocol.SOPInstanceUID}", headers=DICOM)
    made = pydicom.dcmread(io.BytesIO(answer.content))
    assert made.HangingProtocolDescription == protocol.HangingProtocolDescription
    assert made.HangingProtocolDefinitionSequence[0].Modality == "CT"
    (header,) = (await web.client.get(f"{PROTOCOLS}/{protocol.SOPInstanceUID}")).json()
    assert header["00720002"]["Value"] == ["DT thorax"]


@pytest.mark.conforms("PS3.18 §12.5.3.1", "What is not stored is told with status and reason")
async def test_what_does_not_belong_is_refused_and_leaves_nothing(web: Web) -> None:
    protocol = hanging_protocol()
    for url, dataset, reason in (
        (PALETTES, protocol, 0xA900),
        (f"{PROTOCOLS}/1.2.3", protocol, 0xA900),
        (PROTOCOLS, ct_instance(), 0xA900),
        (PROTOCOLS, hanging_protocol(StudyInstanceUID="1.2"), 0xC000),
        (PROTOCOLS, without_uid(), 0xC000),
    ):
        answer = await post(web, url, dataset)
        assert (answer.status_code, reasons(answer)) == (400, [reason]), answer.text
    text = await web.client.post(PROTOCOLS, content=b"x", headers={"Content-Type": "text/plain"})
    assert text.status_code == 415
    answer = await post(web, PROTOCOLS, protocol, kind="text/plain")
    assert (answer.status_code, reasons(answer)) == (415, [0x0122])
    for kind, body in (
        ("application/dicom", b"DICM"),
        ("application/dicom+json", b"{"),
        ("application/dicom+json", b'{"00080016": {"vr": "UI"}}'),
        ("application/dicom+xml", b"<NativeDicomModel"),
    ):
        answer = await web.client.post(PROTOCOLS, content=body, headers={"Content-Type": kind})
        assert answer.status_code == 400, answer.text
    assert await web.count("non_patient_instance") == await web.count("study") == 0
    assert web.packs() == []
    # The doors of patients' objects do not take them.
    answer = await web.stow(part10_bytes(protocol))
    assert answer.status_code == 409
    assert await web.count("non_patient_instance") == 0


@pytest.mark.conforms("PS3.18 §12.5.3.1", "Another instance under a known UID is a 409")
async def test_the_same_again_changes_nothing_and_another_is_refused(web: Web) -> None:
    protocol = hanging_protocol()
    for _ in range(2):
        await stored(web, f"{PROTOCOLS}/{protocol.SOPInstanceUID}", protocol)
    assert await web.count("non_patient_instance") == 1
    protocol.HangingProtocolName = "another"
    answer = await post(web, PROTOCOLS, protocol)
    assert (answer.status_code, reasons(answer)) == (409, [0x0111])
    answer = await post(web, PROTOCOLS, protocol, hanging_protocol())
    assert (answer.status_code, reasons(answer)) == (200, [0x0111])
    # The other archive knows nothing of it.
    await stored(web, "/archives/OTHER/dicomweb/hanging-protocols", protocol)
    assert len((await web.client.get("/dicomweb/hanging-protocols")).json()) == 2
    answer = await web.client.get(
        f"/archives/OTHER/dicomweb/hanging-protocols/{protocol.SOPInstanceUID}"
    )
    assert answer.json()[0]["00720002"]["Value"] == ["another"]


@pytest.mark.conforms("PS3.18 §12.4.3.1", "What is not there, or of another kind, is a 404")
async def test_what_is_not_there_is_a_404(web: Web) -> None:
    protocol = hanging_protocol()
    await stored(web, PROTOCOLS, protocol)
    uid = protocol.SOPInstanceUID
    for path in (
        f"{PROTOCOLS}/1.2.3",
        f"{PALETTES}/{uid}",
        f"/archives/OTHER/dicomweb/hanging-protocols/{uid}",
        f"{PROTOCOLS}/{uid}/bulkdata/00720002",
        f"{ROOT}/doorknob-photos",
    ):
        assert (await web.client.get(path)).status_code == 404
    assert (await web.client.get(f"{ROOT}/implant-templates")).status_code == 204


@pytest.mark.parametrize(
    ("category", "sop_class_uid"),
    [
        ("defined-procedure-protocols", CTDefinedProcedureProtocolStorage),
        ("implant-templates", "1.2.840.10008.5.1.4.43.1"),
        ("implant-templates", "1.2.840.10008.5.1.4.45.1"),
        ("inventories", InventoryStorage),
    ],
)
async def test_every_category_takes_its_own(web: Web, category: str, sop_class_uid: str) -> None:
    dataset = hanging_protocol(SOPClassUID=sop_class_uid)
    await stored(web, f"{ROOT}/{category}", dataset)
    answer = await web.client.get(f"{ROOT}/{category}/{dataset.SOPInstanceUID}", headers=DICOM)
    assert answer.content == part10_bytes(dataset)


async def test_every_access_is_on_record(web: Web) -> None:
    protocol = hanging_protocol()
    await stored(web, PROTOCOLS, protocol)
    await web.client.get(f"{PROTOCOLS}/{protocol.SOPInstanceUID}")
    await web.client.get(f"{PROTOCOLS}?HangingProtocolCreator=Granskarsson^Ylva")
    protocol.HangingProtocolName = "another"
    await post(web, PROTOCOLS, protocol)
    async with web.store.database.transaction() as tx:
        rows = await tx.tuples(
            "SELECT action, outcome, sop_instance_uid, detail FROM audit_record"
            " WHERE door = 'Non-Patient Instance' ORDER BY recorded_at"
        )
    uid = protocol.SOPInstanceUID
    reason = "another object is stored under this SOP Instance UID"
    assert rows == [
        ("store", "success", uid, None),
        ("read", "success", uid, None),
        ("search", "success", None, {"keys": ["00720008"], "results": 1}),
        ("store", "refused", uid, {"reason": reason}),
    ]


PALETTE = color_palette()
BODIES = [
    ("application/dicom", part10_bytes(PALETTE)),
    ("application/dicom+json", PALETTE.to_json().encode()),
    ("application/dicom+xml", write_xml(PALETTE.to_json_dict())),
]


@settings(max_examples=60)
@given(
    body=st.sampled_from(BODIES),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=3),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
async def test_no_damaged_body_makes_the_server_fail(
    shared: Web, body: tuple[str, bytes], changes: list[tuple[float, int]], kept: float
) -> None:
    kind, whole = body
    damaged = bytearray(whole)
    for place, octet in changes:
        damaged[int(place * len(damaged))] = octet
    damaged = damaged[: int(kept * len(damaged))]
    answer = await shared.client.post(
        PALETTES, content=bytes(damaged), headers={"Content-Type": kind}
    )
    assert answer.status_code in (200, 400, 409, 415), answer.text
    if answer.status_code == 200:
        listed = await shared.client.get(f"{PALETTES}?includefield=all")
        assert listed.status_code == 200
