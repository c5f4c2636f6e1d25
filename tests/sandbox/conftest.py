"""Fixtures of the tests about the sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.sandbox.options import SandboxOptions
from tests.doubles.sandbox_key import one_sandbox_key
from tests.sandbox.harness import SandboxClient, running_sandbox

sandbox_key = pytest.fixture(one_sandbox_key, scope="session", autouse=True)


@pytest.fixture
async def client() -> AsyncIterator[SandboxClient]:
    async with running_sandbox() as made:
        yield made


@pytest.fixture
async def lenient() -> AsyncIterator[SandboxClient]:
    async with running_sandbox(SandboxOptions(port=0, lenient=True)) as made:
        yield made
