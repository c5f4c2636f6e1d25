"""A gateway with a token, whose admin listener is tested."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.doubles.gateway import RunningGateway, running_gateway
from tests.doubles.platform import Platform
from tests.doubles.sso import Sso
from tests.outbox.conftest import server  # noqa: F401 - a fixture


@pytest.fixture
async def gateway(platform: Platform, sso: Sso) -> AsyncIterator[RunningGateway]:
    async with running_gateway(platform.url, sso.token_url) as started:
        await started.wait_until_ready()
        yield started
