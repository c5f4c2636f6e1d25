"""Fixtures of the tests about the browser sign-in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.sandbox.server import Sandbox
from tests.login.provider import LoginSetup, between_doubles
from tests.login.stage import Stage, sandbox, stage


@pytest.fixture
async def setup() -> AsyncIterator[LoginSetup]:
    async with between_doubles() as made:
        yield made


@pytest.fixture
async def platform() -> AsyncIterator[Sandbox]:
    async with sandbox() as running:
        yield running


@pytest.fixture
async def scene(platform: Sandbox) -> AsyncIterator[Stage]:
    """Yield a gateway whose login is enabled, in front of the sandbox."""
    async with stage(
        platform.fhir_base_url,
        platform.token_url,
        platform.authorize_url,
        login={
            "allowed_return_origins": ["http://his.localhost:1234"],
            "cors_origins": ["http://127.0.0.1:4321"],
        },
    ) as made:
        yield made
