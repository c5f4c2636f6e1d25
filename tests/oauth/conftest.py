"""Fixtures of the tests about tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.oauth.harness import Bench, bench


@pytest.fixture
async def given() -> AsyncIterator[Bench]:
    """Tokens with an SSO, a clock and an observer; nothing has been asked yet."""
    async with bench() as made:
        yield made
