"""A platform, an SSO, a relay that can be cut, and a gateway with an outbox."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from gateway.outbox.store import sqlite_database
from tests.doubles.gateway import running_gateway
from tests.doubles.platform import Platform
from tests.doubles.relay import Relay
from tests.doubles.sso import Sso
from tests.outbox.path.harness import OutboxSetup

KEY = "A" * 43
Open = Callable[..., AbstractAsyncContextManager[OutboxSetup]]


@pytest.fixture(scope="module", autouse=True)
def patient_outbox() -> Iterator[None]:
    """Let writes wait for a busy disk as long as they have to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_database, "BUSY_TIMEOUT", 600.0)
        yield


def outbox_in(folder: Path) -> dict[str, Any]:
    return {"enabled": True, "url": f"sqlite:///{folder}/outbox.db", "encryption_key": KEY}


@contextlib.asynccontextmanager
async def opening(
    platform: Platform, folder: Path, /, **sections: Any
) -> AsyncIterator[OutboxSetup]:
    """Yield a gateway with some settings changed; `outbox` adds to those of the outbox."""
    outbox = outbox_in(folder) | sections.pop("outbox", {})
    sections.setdefault("retries", {"max_attempts": 1})
    async with Sso() as sso, Relay(platform.port) as relay:
        url = f"http://127.0.0.1:{relay.port}{platform.base_path}"
        async with (
            running_gateway(url, sso.token_url, outbox=outbox, **sections) as gateway,
            OutboxSetup(gateway, platform, sso, relay) as setup,
        ):
            yield setup


@pytest.fixture
def opened(platform: Platform, tmp_path: Path) -> Open:
    """Return a function that opens a gateway in front of the test's platform."""
    return functools.partial(opening, platform, tmp_path)


@pytest.fixture
async def setup(opened: Open) -> AsyncIterator[OutboxSetup]:
    async with opened() as made:
        yield made
