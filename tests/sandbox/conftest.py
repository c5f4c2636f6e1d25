"""Fixtures of the tests about the sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.sandbox.harness import Trial, trial


@pytest.fixture
async def given() -> AsyncIterator[Trial]:
    """A running sandbox with everything as it comes."""
    async with trial() as made:
        yield made
