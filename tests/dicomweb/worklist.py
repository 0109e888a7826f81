"""Workitems as a scheduling system sends them, and a client that works through them."""

import itertools
from typing import Any

import httpx
from tests.dicomweb.conftest import Web

Dataset = dict[str, Any]

WORKITEMS = "/archives/ARCHIVE/dicomweb/workitems"
GLOBAL = "1.2.840.10008.5.1.4.34.5"
FILTERED = "1.2.840.10008.5.1.4.34.5.1"
JSON = {"Content-Type": "application/dicom+json"}
_numbers = itertools.count(1)


def new_uid() -> str:
    return f"1.2.826.0.1.3680043.10.999.{next(_numbers)}"


def element(vr: str, *values: Any) -> Dataset:
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def code(value: str, meaning: str) -> Dataset:
    return {
        "00080100": element("SH", value),
        "00080102": element("SH", "DCM"),
        "00080104": element("LO", meaning),
    }


def new_workitem(**changed: Dataset) -> Dataset:
    """A workitem with everything that table CC.2.5-3 wants; `T00741200=` changes an attribute."""
    dataset = {
        "00081080": element("LO"),
        "00081084": element("SQ"),
        "00081195": element("UI"),
        "00100010": element("PN", {"Alphabetic": "Åkesson^Måns"}),
        "00100020": element("LO", "TEST-1"),
        "00100030": element("DA", "19700101"),
        "00100040": element("CS", "O"),
        "00101002": element("SQ"),
        "0020000D": element("UI", "1.2.826.0.1.3680043.10.998.1"),
        "00380010": element("LO"),
        "00380014": element("SQ"),
        "00400400": element("LT"),
        "00404005": element("DT", "20260301120000"),
        "00404018": element("SQ", code("110005", "Interpretation")),
        "00404021": element("SQ"),
        "00404025": element("SQ"),
        "00404026": element("SQ"),
        "00404027": element("SQ"),
        "00404041": element("CS", "READY"),
        "0040A370": element("SQ"),
        "00741000": element("CS", "SCHEDULED"),
        "00741002": element("SQ"),
        "00741200": element("CS", "MEDIUM"),
        "00741202": element("LO", "Reading room"),
        "00741204": element("LO", "Read the chest"),
        "00741210": element("SQ"),
        "00741216": element("SQ"),
    }
    dataset.update({name[1:]: value for name, value in changed.items()})
    return dataset


PERFORMED = {
    "00741216": element(
        "SQ",
        {
            "00404028": element("SQ", code("S1", "Station 1")),
            "00404019": element("SQ", code("110005", "Interpretation")),
            "00404050": element("DT", "20260301121000"),
            "00404051": element("DT", "20260301122000"),
            "00404033": element("SQ"),
        },
    )
}
DISCONTINUED = {
    "00741002": element(
        "SQ", {"0074100E": element("SQ", code("110500", "Doctor canceled procedure"))}
    )
}


class Worklist:
    """A client of the worklist at one root."""

    def __init__(self, web: Web, url: str = WORKITEMS) -> None:
        self.web = web
        self.url = url

    async def create(self, uid: str, dataset: Dataset | None = None) -> httpx.Response:
        body = new_workitem() if dataset is None else dataset
        return await self.web.client.post(f"{self.url}?{uid}", json=[body], headers=JSON)

    async def created(self, **changed: Dataset) -> str:
        uid = new_uid()
        answer = await self.create(uid, new_workitem(**changed))
        assert answer.status_code == 201, answer.text
        return uid

    async def get(self, uid: str) -> Dataset:
        answer = await self.web.client.get(f"{self.url}/{uid}")
        assert answer.status_code == 200, answer.text
        (dataset,) = answer.json()
        return dict(dataset)

    async def update(self, uid: str, changes: Dataset, lock: str | None = None) -> httpx.Response:
        query = "" if lock is None else f"?{lock}"
        return await self.web.client.post(f"{self.url}/{uid}{query}", json=[changes], headers=JSON)

    async def change(self, uid: str, state: str, lock: str | None) -> httpx.Response:
        body = {"00741000": element("CS", state)}
        if lock is not None:
            body["00081195"] = element("UI", lock)
        return await self.web.client.put(f"{self.url}/{uid}/state", json=[body], headers=JSON)

    async def claimed(self) -> tuple[str, str]:
        uid, lock = await self.created(), new_uid()
        assert (await self.change(uid, "IN PROGRESS", lock)).status_code == 200
        return uid, lock

    async def cancel(self, uid: str, request: Dataset | None = None) -> httpx.Response:
        return await self.web.client.post(
            f"{self.url}/{uid}/cancelrequest",
            headers=JSON,
            **({} if request is None else {"json": [request]}),  # type: ignore[arg-type]
        )

    async def search(self, **keys: str) -> list[Dataset]:
        answer = await self.web.client.get(self.url, params=keys)
        assert answer.status_code in (200, 204), answer.text
        return list(answer.json()) if answer.content else []

    async def subscribe(self, uid: str, receiver: str, **query: str) -> httpx.Response:
        return await self.web.client.post(f"{self.url}/{uid}/subscribers/{receiver}", params=query)

    async def unsubscribe(self, uid: str, receiver: str) -> httpx.Response:
        return await self.web.client.delete(f"{self.url}/{uid}/subscribers/{receiver}")
