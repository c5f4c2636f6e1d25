"""Fixtures that several modules share because they are slow."""

from __future__ import annotations

import asyncio

import pytest

from tests.deploy.faulty import AlertRecording, record_alerts


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> AlertRecording:
    """Return what a real Prometheus recorded of gateways with faults; takes most of a minute."""
    return asyncio.run(record_alerts(tmp_path_factory.mktemp("recording")))
