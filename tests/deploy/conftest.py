"""What takes so long that several modules share it."""

from __future__ import annotations

import asyncio

import pytest

from tests.deploy.faulty import Night, bad_night


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    """What a real Prometheus saw of gateways with faults; takes most of a minute."""
    return asyncio.run(bad_night(tmp_path_factory.mktemp("night")))
