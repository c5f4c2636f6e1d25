"""Access to a store that fails, hangs or recovers."""

from __future__ import annotations

import logging

import pytest

from gateway.oauth.token_response import AccessToken
from gateway.oauth.token_store import (
    NULL_LEASE,
    StoreBreaker,
    StoreKey,
    token_store_breaker,
)
from gateway.secret import Secret
from tests.doubles.clock import FakeClock
from tests.oauth.harness import BreakableStore

KEY = StoreKey("key", Secret("s"))
TOKEN = AccessToken("planted", received_at=1000, lifetime=300, wall_expiry=0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> BreakableStore:
    return BreakableStore()


@pytest.fixture
def breaker(clock: FakeClock) -> StoreBreaker:
    return token_store_breaker(clock, timeout=0.02)


async def test_results_of_the_store_are_returned(
    breaker: StoreBreaker, store: BreakableStore
) -> None:
    await breaker.call_or(None, store.put, KEY, TOKEN)
    assert await breaker.call_or(None, store.get, KEY) == TOKEN
    await breaker.call_or(None, store.delete, KEY, TOKEN)
    assert await breaker.call_or(None, store.get, KEY) is None


@pytest.mark.parametrize("trouble", ["broken", "hangs"])
async def test_failures_of_the_store_are_misses(
    breaker: StoreBreaker, store: BreakableStore, trouble: str
) -> None:
    """No error is raised, nothing is found, and every replica may send a token request."""
    setattr(store, trouble, True)
    await breaker.call_or(None, store.put, KEY, TOKEN)
    assert await breaker.call_or(None, store.get, KEY) is None
    await breaker.call_or(None, store.delete, KEY, TOKEN)
    assert await breaker.call_or(NULL_LEASE, store.acquire_lease, KEY) is NULL_LEASE


async def test_a_failed_store_is_asked_again_after_a_growing_delay(
    breaker: StoreBreaker, store: BreakableStore, clock: FakeClock
) -> None:
    store.broken = True
    pauses = []
    for _ in range(8):
        before, asked = clock.now, store.asked
        while store.asked == asked:
            clock.now += 0.125
            await breaker.call_or(None, store.get, KEY)
        pauses.append(clock.now - before)
    assert pauses[1:] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


async def test_outage_and_recovery_are_logged_once(
    breaker: StoreBreaker,
    store: BreakableStore,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    store.broken = True
    for _ in range(20):
        await breaker.call_or(None, store.get, KEY)
        clock.now += 1
    store.broken = False
    clock.now += 10
    for _ in range(5):
        await breaker.call_or(None, store.get, KEY)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "ConnectionError" in caplog.text
    assert "planted" not in caplog.text


async def test_a_lease_is_released_during_the_delay(
    breaker: StoreBreaker, store: BreakableStore
) -> None:
    """A right is given back even while the store is left alone: its renewing must end."""

    class Right:
        released = 0

        async def release(self) -> None:
            self.released += 1
            raise ConnectionError

    store.broken = True
    await breaker.call_or(None, store.get, KEY)
    right = Right()
    await breaker.release(right)
    assert right.released == 1
