"""Fixtures of the core's tests."""

from collections.abc import AsyncIterator

import pytest
from tests.conftest import add_house
from tests.core.spooled_site import Site, with_buckets
from tests.object_storage import ObjectStorage

from bfr_core.settings import Settings
from bfr_core.store import open_store


@pytest.fixture
def bucketed(settings: Settings, object_storage: ObjectStorage) -> Settings:
    """The test's settings with two buckets."""
    return with_buckets(settings, object_storage)


@pytest.fixture
async def site(bucketed: Settings, object_storage: ObjectStorage) -> AsyncIterator[Site]:
    async with open_store(bucketed) as store:
        yield Site(store, await add_house(store, "ARCHIVE", "MODALITY"), object_storage)
