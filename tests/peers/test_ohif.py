"""OHIF, another group's web viewer, in a real browser on our DICOMweb."""

import mimetypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright
from tests.conftest import need
from tests.journeys.conftest import CHROMIUM_ARGUMENTS
from tests.peers.test_dcmjs import FOLDER
from tests.system import System

from bfr_command.demonstration import ARCHIVE_AE_TITLE

DIST = FOLDER / "ohif" / "package" / "dist"
PATIENCE_MS = 120_000
CONFIGURATION = f"""
window.config = {{
  routerBasename: '/', extensions: [], modes: [], showStudyList: true,
  maxNumberOfWebWorkers: 1, showWarningMessageForCrossOrigin: false,
  showCPUFallbackMessage: false, showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  defaultDataSourceName: 'bfr',
  dataSources: [{{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
    sourceName: 'bfr',
    configuration: {{
      friendlyName: 'BFR', name: 'bfr',
      qidoRoot: '/archives/{ARCHIVE_AE_TITLE}/dicomweb',
      wadoRoot: '/archives/{ARCHIVE_AE_TITLE}/dicomweb',
      wadoUriRoot: '/archives/{ARCHIVE_AE_TITLE}/dicomweb',
      qidoSupportsIncludeField: true, imageRendering: 'wadors', thumbnailRendering: 'thumbnail',
      enableStudyLazyLoad: true, supportsFuzzyMatching: true, supportsWildcard: true,
      omitQuotationForMultipartRequest: true,
    }},
  }}],
}}
"""


def need_ohif() -> None:
    if not (DIST / "index.html").exists():
        reason = "OHIF is not there: `make test` fetches it into tests/peers/node/ohif"
        if os.environ.get("BFR_REQUIRE_PEERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@contextmanager
def served(archive_url: str) -> Iterator[str]:
    """OHIF and the archive under one origin, as a hospital's proxy would have them."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/archives/"):
                kept = {k: v for k, v in self.headers.items() if k.lower() == "accept"}
                answer = httpx.get(archive_url + self.path, headers=kept, timeout=60)
                kind = answer.headers.get("content-type", "")
                self._send(answer.status_code, kind, answer.content)
                return
            path = DIST / self.path.partition("?")[0].lstrip("/")
            if self.path.startswith("/app-config.js"):
                self._send(200, "text/javascript", CONFIGURATION.encode())
            elif path.is_file():
                kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
                self._send(200, kind, path.read_bytes())
            else:
                self._send(200, "text/html", (DIST / "index.html").read_bytes())

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            if kind:
                self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            with suppress(ConnectionError):  # the browser has changed its mind
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.conforms("PS3.18 §10", "OHIF lists the studies and draws one")
def test_ohif_lists_studies_and_draws_one(system: System, tmp_path: Path) -> None:
    need_ohif()
    root = f"{system.url}/archives/{ARCHIVE_AE_TITLE}/dicomweb"
    keys = {"ModalitiesInStudy": "CT", "limit": "1", "StudyDate": "20200101-"}
    [study] = httpx.get(f"{root}/studies", params=keys, timeout=60).json()
    uid = study["0020000D"]["Value"][0]
    family = study["00100010"]["Value"][0]["Alphabetic"].partition("^")[0]
    with served(system.url) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=need("chromium"), args=list(CHROMIUM_ARGUMENTS)
        )
        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        faults: list[str] = []
        page.on("response", lambda one: faults.append(one.url) if one.status >= 400 else None)
        page.goto(url)
        page.get_by_text(family, exact=False).first.wait_for(timeout=PATIENCE_MS)
        page.goto(f"{url}/viewer?StudyInstanceUIDs={uid}")
        canvas = page.locator("canvas.cornerstone-canvas").first
        canvas.wait_for(timeout=PATIENCE_MS)
        picture = tmp_path / "canvas.png"
        for _ in range(120):
            canvas.screenshot(path=picture)
            with Image.open(picture) as shown:
                grey = np.asarray(shown.convert("L"))
            if grey.std() > 15:
                break
            page.wait_for_timeout(500)
        assert grey.std() > 15, "OHIF has drawn nothing"
        assert [one for one in faults if "/archives/" in one] == []
        browser.close()
