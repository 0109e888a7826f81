"""Fixtures of the peers: the demonstration that the journeys use too."""

import pytest
from tests.demo_system import shared_demo_system
from tests.system import System


@pytest.fixture(scope="session")
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> System:
    return shared_demo_system(request.config, tmp_path_factory)
