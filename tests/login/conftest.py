"""Fixtures of the tests about the browser sign-in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from gateway.sandbox.server import Sandbox
from tests.doubles.platform import Platform
from tests.login.provider import Provider
from tests.login.stage import Browser, Stage, sandbox, stage


@dataclass
class LoginSetup:
    """The doubles and the gateway between them."""

    sso: Provider
    platform: Platform
    scene: Stage
    browser: Browser


@pytest.fixture
async def setup() -> AsyncIterator[LoginSetup]:
    async with (
        Provider() as sso,
        Platform() as platform,
        stage(platform.url, sso.token_url, f"{sso.issuer}/authorize") as scene,
    ):
        yield LoginSetup(sso, platform, scene, await scene.browser())


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
