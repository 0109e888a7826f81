"""Fixtures of the DIMSE door: the real server on the real core."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.conftest import House

from bfr_core.store import Store
from bfr_legacy.dimse.bridge import Bridge
from bfr_legacy.dimse.server import DimseServer, dimse_server


@pytest.fixture
async def dimse(store: Store, house: House) -> AsyncIterator[DimseServer]:
    bridge = Bridge(asyncio.get_running_loop())
    server = dimse_server(store, bridge)
    server.start()
    yield server
    await asyncio.to_thread(server.stop, 0.0)
    bridge.close()
