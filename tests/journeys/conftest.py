"""Fixtures of the journeys: the demonstration, a browser, and a person who uses it."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright
from tests.conftest import need
from tests.demo_system import shared_demo_system
from tests.journeys.journey import Journey
from tests.system import System

CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    # WebGL 2 without a GPU: Mesa's llvmpipe, which is faster than Chromium's own renderer.
    "--use-gl=angle",
    "--use-angle=gl-egl",
    "--ignore-gpu-blocklist",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="session")
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> System:
    need("chromium")
    return shared_demo_system(request.config, tmp_path_factory)


# One browser a module: Playwright keeps an event loop running, in which no other test may be.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = need("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def journey(system: System, browser: Browser) -> Iterator[Journey]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="sv-SE")
    journey = Journey(system.url, context.new_page())
    yield journey
    journey.end()
    context.close()
