"""Result counts: as many as the search finds, and a bound on what is counted."""

from dataclasses import replace
from typing import Any

import pytest
from tests.dicomweb.conftest import Web
from tests.samples import ct_series, mr_instance, part10_bytes

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = "/archives/ARCHIVE/dicomweb"


async def fill(web: Web) -> str:
    """Store a CT of three instances and two MR of another patient; the UID of the CT's study."""
    ct = ct_series(3)
    others = [mr_instance(PatientID="TEST-2", PatientName="Andersson^Örjan") for _ in range(2)]
    await web.stow(*(part10_bytes(one) for one in (*ct, *others)))
    return str(ct[0].StudyInstanceUID)


async def count(web: Web, path: str, **keys: str) -> Any:
    answer = await web.client.get(f"{ROOT}/{path}/count", params=keys)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.conforms("PS3.18 beyond", "A count is the number of results that the search has")
@pytest.mark.parametrize("sealed", [False, True])
async def test_a_count_is_what_the_search_finds(web: Web, *, sealed: bool) -> None:
    study = await fill(web)
    if sealed:
        await web.seal()
    for path, keys, expected in (
        ("studies", {}, 3),
        ("studies", {"PatientName": "anders*"}, 2),
        ("studies", {"ModalitiesInStudy": "CT"}, 1),
        ("studies", {"PatientID": "nobody"}, 0),
        ("series", {"Modality": "MR"}, 2),
        ("series", {"00100020": "TEST-2"}, 2),
        ("instances", {}, 5),
        ("instances", {"Modality": "CT"}, 3),
        (f"studies/{study}/series", {}, 1),
        (f"studies/{study}/instances", {}, 3),
    ):
        told = await count(web, path, **keys)
        assert told == {"count": expected, "atLeast": False}, (path, keys)
        found = await web.client.get(f"{ROOT}/{path}", params=keys)
        assert len(found.json() if found.content else []) == expected


async def test_an_archive_counts_its_own(web: Web) -> None:
    await fill(web)
    await web.stow(part10_bytes(mr_instance()), url="/archives/OTHER/dicomweb/studies")
    assert (await count(web, "studies"))["count"] == 3
    joint = await web.client.get("/dicomweb/studies/count")
    assert joint.json()["count"] == 4


@pytest.mark.conforms("PS3.18 beyond", "A count says when there are more than are counted")
async def test_what_is_counted_is_bounded(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(web)
    settings = replace(web.store.settings, search_counted_max=2)
    monkeypatch.setattr(web.store, "settings", settings)
    assert await count(web, "studies") == {"count": 2, "atLeast": True}
    assert await count(web, "series", Modality="MR") == {"count": 2, "atLeast": False}
    assert await count(web, "instances") == {"count": 2, "atLeast": True}


@pytest.mark.conforms("PS3.18 beyond", "A count takes the keys of the search and no others")
async def test_a_count_takes_the_keys_of_its_search(shared: Web) -> None:
    for path, keys, named in (
        ("studies", {"Modality": "CT"}, "Modality"),
        ("studies", {"Nonsense": "1"}, "Nonsense"),
        ("instances", {"InstanceNumber": "1"}, "InstanceNumber"),
        ("studies", {"StudyDate": "spring"}, "00080020"),
    ):
        answer = await shared.client.get(f"{ROOT}/{path}/count", params=keys)
        assert answer.status_code == 400
        assert named in answer.json()["detail"]


async def test_a_count_is_on_record_by_its_keys(web: Web) -> None:
    await fill(web)
    await count(web, "studies", PatientName="anders*")
    async with web.store.database.transaction() as tx:
        detail = await tx.value(
            "SELECT detail FROM audit_record WHERE action = 'search'"
            " ORDER BY recorded_at DESC LIMIT 1"
        )
    assert detail == {"keys": ["00100010"], "results": 2}
