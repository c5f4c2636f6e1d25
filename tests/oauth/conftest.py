"""Fixtures of the tests about tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.oauth.harness import Bench, bench


@pytest.fixture
async def given() -> AsyncIterator[Bench]:
    """Yield tokens with an SSO, a clock and an observer, before the first request."""
    async with bench() as made:
        yield made
