"""Requests under steady load while tokens are renewed."""

from __future__ import annotations

import asyncio

from tests.doubles.clock import FakeClock
from tests.doubles.gateway import running_gateway
from tests.doubles.platform import Platform, PlatformConnection, fhir, read_body, unauthorized
from tests.doubles.sso import ScriptedResponse, Sso, token
from tests.doubles.wire import Wire, get

LIFETIME = 3
LIFETIMES = 10
CALLERS = 4
STEPS_PER_SECOND = 5


class RollingSso(Sso):
    """Issues tokens that live three seconds, and records when each ends."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.ends: dict[str, float] = {}
        self._clock = clock
        self._default = self._short_lived

    def _short_lived(self) -> ScriptedResponse:
        value = f"short-{len(self.ends) + 1}"
        self.ends[value] = self._clock() + LIFETIME
        return token(value, expires_in=LIFETIME)


async def test_no_request_fails_over_ten_token_lifetimes(token_clock: FakeClock) -> None:
    """None carries an expired or missing token."""
    expired: set[str] = set()
    statuses: set[int] = set()
    is_over = asyncio.Event()

    async def check(connection: PlatformConnection) -> None:
        value = (connection.request.header("authorization") or "").removeprefix("Bearer ")
        await read_body(connection.reader, connection.request)
        if sso.ends.get(value, 0) <= token_clock():
            expired.add(value)
            connection.writer.write(unauthorized())
        else:
            connection.writer.write(fhir())

    async def call() -> None:
        async with await Wire.open(gateway.address) as wire:
            while not is_over.is_set():
                statuses.add((await wire.fetch(get("/fhir/Patient/1"))).status)

    async with (
        RollingSso(token_clock) as sso,
        Platform() as platform,
        running_gateway(platform.url, sso.token_url) as gateway,
    ):
        platform.respond(check)
        callers = [asyncio.ensure_future(call()) for _ in range(CALLERS)]
        for _ in range(LIFETIME * LIFETIMES * STEPS_PER_SECOND):
            # A request is on its way for a step or two.
            await platform.wait_for_requests(len(platform.requests) + CALLERS)
            await token_clock.advance(1 / STEPS_PER_SECOND)
        is_over.set()
        await asyncio.gather(*callers)
        assert (statuses, expired) == ({200}, set())
        # Renewed ahead of expiry, one at a time, and not much more often than needed.
        assert LIFETIMES <= len(sso.requests) <= 2 * LIFETIMES
        assert sso.max_concurrent == 1
