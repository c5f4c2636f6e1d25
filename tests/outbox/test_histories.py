"""A short random history of two gateways; those of one are simulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.outbox.histories import run
from tests.outbox.postgres_server import postgres_server


@pytest.mark.ci
async def test_a_short_history_of_two_gateways_has_no_fault(tmp_path: Path) -> None:
    for server in postgres_server():
        url = await server.fresh_database("history")
        events = ("cut", "weather", "kill", "restart")
        figures, wrong = await run(tmp_path, 2, 8, events=events, url=url)
        assert wrong == []
        assert figures["effects"]
        assert figures["kill"]
