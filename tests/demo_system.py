"""The system that journeys and peers share: `bfr up --demo`, started once in a test run."""

import shutil
import time

import pytest
from tests.system import System

from bfr_command.demonstration import ARCHIVE_AE_TITLE

GREETING = "BFR is running."
GREETING_TIMEOUT_S = 240.0

_SYSTEM = pytest.StashKey[System]()


def shared_demo_system(config: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> System:
    """Return the system of this test run, started when the first test asks for it."""
    if _SYSTEM not in config.stash:
        system = System(tmp_path_factory.mktemp("demo"))
        config.add_cleanup(lambda: _end(system))
        start_demo(system)
        config.stash[_SYSTEM] = system
    return config.stash[_SYSTEM]


def start_demo(system: System) -> None:
    """Start with the demonstration and return when it is loaded and the system has greeted."""
    already = len(system.log) if (system.directory / "up.log").exists() else 0
    system.start("--demo")
    deadline = time.monotonic() + GREETING_TIMEOUT_S
    while GREETING not in system.log[already:]:
        assert time.monotonic() < deadline, system.log[-3000:]
        assert system.process is not None
        assert system.process.poll() is None, system.log[-3000:]
        time.sleep(0.1)
    missing = [line for line in system.log[already:].splitlines() if "was not stored" in line]
    assert not missing, f"{len(missing)} demo objects are missing, first of them: {missing[0]}"


def archive_url(system: System, ae_title: str = ARCHIVE_AE_TITLE) -> str:
    """Return the DICOMweb root of an archive."""
    return f"{system.url}/archives/{ae_title}/dicomweb"


def _end(system: System) -> None:
    if system.process is not None and system.process.poll() is None:
        system.stop()
    shutil.rmtree(system.directory / "var", ignore_errors=True)
