"""A platform, an SSO, a relay that can be cut, and a gateway with an outbox."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from gateway.outbox import delivery, delivery_attempts, delivery_pacing, write_classification
from gateway.outbox.store import sqlite_database
from tests.doubles.gateway import running_gateway
from tests.doubles.platform import Platform
from tests.doubles.relay import Relay
from tests.doubles.sso import Sso
from tests.outbox.path.harness import OutboxSetup

KEY = "A" * 43
Open = Callable[..., AbstractAsyncContextManager[OutboxSetup]]


# Seconds. Deliveries wait less than they do for real platforms, writes as long as they have to for
# a busy disk.
WAITS = [
    (sqlite_database, "BUSY_TIMEOUT", 600.0),
    (delivery_attempts, "INDEX_LAG", 0.5),
    (write_classification, "INDEX_LAG", 0.5),
    (delivery_pacing, "_FIRST_DELAY", 0.05),
    (delivery_pacing, "MAX_OUTAGE_DELAY", 0.2),
    (delivery, "PROBE_INTERVAL", 0.2),
    (delivery, "_POLL_INTERVAL", 0.05),
]


@pytest.fixture(scope="module", autouse=True)
def waits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module, name, seconds in WAITS:
            patch.setattr(module, name, seconds)
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
