"""Requests under steady load while tokens come and go."""

from __future__ import annotations

import asyncio

from tests.doubles.clock import FakeClock
from tests.doubles.gateway import running
from tests.doubles.platform import Line, Platform, fhir, read_body, unauthorized
from tests.doubles.sso import Answer, Sso, token
from tests.doubles.wire import Wire, get

LIFETIME = 3
LIFETIMES = 10
CALLERS = 4
STEPS_PER_SECOND = 5


class RollingSso(Sso):
    """Issues tokens that live three seconds, and remembers when each ends."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.ends: dict[str, float] = {}
        self._clock = clock
        self._default = self._short_lived

    def _short_lived(self) -> Answer:
        value = f"short-{len(self.ends) + 1}"
        self.ends[value] = self._clock() + LIFETIME
        return token(value, expires_in=LIFETIME)


async def test_no_request_fails_over_ten_lifetimes(token_clock: FakeClock) -> None:
    """Over ten lifetimes of 3 s no request fails, and none carries an expired or missing token."""
    expired: set[str] = set()
    statuses: set[int] = set()
    is_over = asyncio.Event()

    async def check(line: Line) -> None:
        value = (line.seen.header("authorization") or "").removeprefix("Bearer ")
        await read_body(line.reader, line.seen)
        if sso.ends.get(value, 0) <= token_clock():
            expired.add(value)
            line.writer.write(unauthorized())
        else:
            line.writer.write(fhir())

    async def call() -> None:
        async with await Wire.open(gateway.address) as wire:
            while not is_over.is_set():
                statuses.add((await wire.ask(get("/fhir/Patient/1"))).status)

    async with (
        RollingSso(token_clock) as sso,
        Platform() as platform,
        running(platform.url, sso.token_url) as gateway,
    ):
        platform.answer(check)
        callers = [asyncio.ensure_future(call()) for _ in range(CALLERS)]
        for _ in range(LIFETIME * LIFETIMES * STEPS_PER_SECOND):
            # A request is on its way for a step or two.
            await platform.until_seen(len(platform.seen) + CALLERS)
            await token_clock.advance(1 / STEPS_PER_SECOND)
        is_over.set()
        await asyncio.gather(*callers)
        assert (statuses, expired) == ({200}, set())
        # Renewed ahead of expiry, one at a time, and not much more often than needed.
        assert LIFETIMES <= len(sso.requests) <= 2 * LIFETIMES
        assert sso.most_at_once == 1
