"""Fixtures that take so long that several modules share them."""

from __future__ import annotations

import asyncio

import pytest

from tests.deploy.faulty import Night, bad_night


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    """Return what a real Prometheus recorded of gateways with faults; takes most of a minute."""
    return asyncio.run(bad_night(tmp_path_factory.mktemp("night")))
