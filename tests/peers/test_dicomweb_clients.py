"""DICOMweb clients in use at a system that `bfr up` started: dicomweb-client, dcmjs', Orthanc."""

import base64
import io
import json
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from playwright.sync_api import sync_playwright
from tests.conftest import need
from tests.journeys.conftest import CHROMIUM_ARGUMENTS
from tests.peers.test_dcmjs import FOLDER, need_package
from tests.peers.test_query_retrieve import running
from tests.samples import ct_series, part10_bytes
from tests.samples.images import new_uid
from tests.system import System, free_port

from bfr_command.demonstration import ARCHIVE_AE_TITLE

PLUGINS = (Path("/usr/share/orthanc/plugins"), Path("/usr/lib/orthanc/plugins"))
PLUGIN = "libOrthancDicomWeb.so"


@pytest.fixture(scope="module")
def root(system: System) -> str:
    return f"{system.url}/archives/{ARCHIVE_AE_TITLE}/dicomweb"


def new_series(name: str) -> list[pydicom.Dataset]:
    made = ct_series(3, PatientID=f"TEST-{new_uid()[-12:]}", PatientName=name)
    return [pydicom.dcmread(io.BytesIO(part10_bytes(one))) for one in made]


@pytest.mark.conforms("PS3.18 §10", "dicomweb-client (Python) stores, searches and retrieves")
def test_the_client_of_python_stores_finds_and_retrieves(root: str) -> None:
    sent = new_series("Ångström^Åsa")
    client = DICOMwebClient(root)
    study, series = sent[0].StudyInstanceUID, sent[0].SeriesInstanceUID
    answer = client.store_instances(sent)
    assert len(answer.ReferencedSOPSequence) == 3

    found = client.search_for_studies(
        search_filters={"PatientName": "angstrom*", "PatientID": sent[0].PatientID},
        fields=["NumberOfStudyRelatedInstances"],
    )
    assert [one["0020000D"]["Value"] for one in found] == [[study]]
    assert client.search_for_studies(
        search_filters={"PatientName": "asa", "PatientID": sent[0].PatientID}, fuzzymatching=True
    )
    assert len(client.search_for_series(study)) == 1
    assert len(client.search_for_instances(study, series, limit=2, offset=1)) == 2

    metadata = client.retrieve_series_metadata(study, series)
    uids = [one["00080018"]["Value"][0] for one in metadata]
    assert uids == [one.SOPInstanceUID for one in sent]
    for got in (
        client.retrieve_study(study),
        client.retrieve_series(study, series),
        [client.retrieve_instance(study, series, uid) for uid in uids],
    ):
        assert [one.PixelData for one in got] == [one.PixelData for one in sent]
    [frame] = client.retrieve_instance_frames(study, series, uids[0], [1])
    assert frame == sent[0].PixelData
    for media_type in ("image/jpeg", "image/png"):
        picture = client.retrieve_instance_rendered(
            study, series, uids[0], media_types=(media_type,), params={"viewport": "32,32"}
        )
        assert len(picture) > 100


IN_A_BROWSER = """
async ({ url, patientID, files }) => {
  const { api } = window['dicomweb-client'] || window.DICOMwebClient
  const client = new api.DICOMwebClient({ url })
  const uid = (dataset, tag) => dataset[tag].Value[0]
  const datasets = files.map((one) => Uint8Array.from(atob(one), (c) => c.charCodeAt(0)).buffer)
  await client.storeInstances({ datasets })
  const [study] = await client.searchForStudies({ queryParams: { PatientID: patientID } })
  const studyInstanceUID = uid(study, '0020000D')
  const series = await client.searchForSeries({ studyInstanceUID })
  const seriesInstanceUID = uid(series[0], '0020000E')
  const metadata = await client.retrieveSeriesMetadata({ studyInstanceUID, seriesInstanceUID })
  const sopInstanceUID = uid(metadata[1], '00080018')
  const names = { studyInstanceUID, seriesInstanceUID, sopInstanceUID }
  const frames = await client.retrieveInstanceFrames({ ...names, frameNumbers: [1] })
  const picture = await client.retrieveInstanceRendered({
    ...names,
    mediaTypes: [{ mediaType: 'image/png' }],
  })
  const instance = await client.retrieveInstance(names)
  const whole = await client.retrieveStudy({ studyInstanceUID })
  return {
    studyInstanceUID,
    sopInstanceUID,
    instances: metadata.length,
    frame: Array.from(new Uint8Array(frames[0])),
    pictureBytes: (Array.isArray(picture) ? picture[0] : picture).byteLength,
    instanceBytes: instance.byteLength,
    wholeBytes: whole.map((one) => one.byteLength),
  }
}
"""


@pytest.mark.conforms("PS3.18 §10", "dicomweb-client (dcmjs) stores, searches and retrieves")
def test_the_client_of_dcmjs_works_in_a_browser(system: System, root: str) -> None:
    need_package()
    sent = new_series("Öberg^Östen")
    files = [part10_bytes(one) for one in sent]
    script = FOLDER / "node_modules" / "dicomweb-client" / "build" / "dicomweb-client.js"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=need("chromium"), args=list(CHROMIUM_ARGUMENTS)
        )
        # The page is ours; the client is brought along, which its own policy would not allow.
        page = browser.new_context(bypass_csp=True).new_page()
        page.goto(system.url)
        page.add_script_tag(path=script)
        told = page.evaluate(
            IN_A_BROWSER,
            {"url": root, "patientID": sent[0].PatientID, "files": list(map(_base64, files))},
        )
        browser.close()
    assert told["studyInstanceUID"] == sent[0].StudyInstanceUID
    assert told["sopInstanceUID"] == sent[1].SOPInstanceUID
    assert told["instances"] == 3
    assert bytes(told["frame"]) == sent[1].PixelData
    assert told["pictureBytes"] > 100
    assert told["instanceBytes"] == len(files[1])
    assert sorted(told["wholeBytes"]) == sorted(map(len, files))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.conforms("PS3.18 §10", "Orthanc as DICOMweb client searches, retrieves and stores")
def test_orthanc_searches_retrieves_and_stores(root: str, tmp_path: Path) -> None:
    orthanc = need("Orthanc")
    plugin = next((one / PLUGIN for one in PLUGINS if (one / PLUGIN).exists()), None)
    if plugin is None:
        need(PLUGIN)
    http_port = free_port()
    configuration = tmp_path / "orthanc.json"
    configuration.write_text(
        json.dumps(
            {
                "StorageDirectory": str(tmp_path / "storage"),
                "IndexDirectory": str(tmp_path / "storage"),
                "HttpPort": http_port,
                "DicomPort": free_port(),
                "Plugins": [str(plugin)],
                "DicomWeb": {"Enable": True, "Servers": {"bfr": [f"{root}/"]}},
            }
        )
    )
    base = f"http://127.0.0.1:{http_port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{base}/system").status_code == 200
        except httpx.TransportError:
            return False

    sent = new_series("Åhlén^Örjan")
    back = new_series("Återvänd^Ör")
    study = str(sent[0].StudyInstanceUID)
    stored = DICOMwebClient(root).store_instances(sent)
    assert len(stored.ReferencedSOPSequence) == 3
    with running(orthanc, str(configuration), directory=tmp_path, until=answers):
        server = f"{base}/dicom-web/servers/bfr"
        asked = {"Uri": "/studies", "Arguments": {"PatientID": sent[0].PatientID}}
        found = httpx.post(f"{server}/qido", json=asked, timeout=60)
        assert found.status_code == 200, found.text
        assert [one["0020000D"]["Value"] for one in found.json()] == [study], found.text

        resources = {"Resources": [{"Study": study}], "Synchronous": True}
        retrieved = httpx.post(f"{server}/retrieve", json=resources, timeout=60)
        assert retrieved.status_code == 200, retrieved.text
        uids = {}
        for instance in httpx.get(f"{base}/instances").json():
            tags = httpx.get(f"{base}/instances/{instance}/simplified-tags").json()
            uids[tags["SOPInstanceUID"]] = tags["PatientName"]
        assert uids == {str(one.SOPInstanceUID): "Åhlén^Örjan" for one in sent}

        ids = [
            httpx.post(f"{base}/instances", content=part10_bytes(one), timeout=60).json()["ID"]
            for one in back
        ]
        pushed = httpx.post(
            f"{server}/stow", json={"Resources": ids, "Synchronous": True}, timeout=60
        )
        assert pushed.status_code == 200, pushed.text
    client = DICOMwebClient(root)
    got = client.retrieve_study(str(back[0].StudyInstanceUID))
    assert {str(one.SOPInstanceUID) for one in got} == {str(one.SOPInstanceUID) for one in back}
    for one in got:
        original = next(each for each in back if each.SOPInstanceUID == one.SOPInstanceUID)
        assert np.array_equal(one.pixel_array, original.pixel_array)
