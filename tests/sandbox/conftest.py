"""Fixtures of the tests about the sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.sandbox.options import SandboxOptions
from tests.sandbox.harness import Trial, trial


@pytest.fixture
async def given() -> AsyncIterator[Trial]:
    """Yield a running sandbox with default options."""
    async with trial() as made:
        yield made


@pytest.fixture
async def lenient() -> AsyncIterator[Trial]:
    """Yield a running sandbox without the playground's traps."""
    async with trial(SandboxOptions(port=0, lenient=True)) as made:
        yield made
