"""Fixtures of the tests about the browser sign-in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.login import user_tokens
from gateway.sandbox.server import Sandbox
from tests.doubles.sandbox_key import one_sandbox_key
from tests.login.provider import LoginSetup, between_doubles
from tests.login.stage import Stage, sandbox, stage

sandbox_key = pytest.fixture(one_sandbox_key, scope="session", autouse=True)


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next renewal follow soon after one that failed."""
    monkeypatch.setattr(user_tokens, "_MAX_PAUSE", 0.1)


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
