"""Fixtures of the tests about tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.oauth.harness import Setup, make_setup


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    """Yield tokens with an SSO, a clock and an observer, before the first request."""
    async with make_setup() as made:
        yield made
