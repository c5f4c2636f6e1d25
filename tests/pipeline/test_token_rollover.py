"""Requests under steady load while tokens come and go."""

from __future__ import annotations

import asyncio
import time

from tests.doubles.gateway import running
from tests.doubles.platform import Line, Platform, fhir, read_body, unauthorized
from tests.doubles.sso import Answer, Sso, token
from tests.doubles.wire import Wire, get

LIFETIME = 3
LIFETIMES = 10
# Seconds: shorter than a token is renewed ahead of its end.
STALL = 0.2


class RollingSso(Sso):
    """Issues tokens that live three seconds, and remembers when each ends."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: dict[str, float] = {}
        self._default = self._short_lived

    def _short_lived(self) -> Answer:
        value = f"short-{len(self.ends) + 1}"
        self.ends[value] = time.monotonic() + LIFETIME
        return token(value, expires_in=LIFETIME)


async def test_no_request_fails_over_ten_lifetimes() -> None:
    """Over ten lifetimes of 3 s no request fails, and none carries an expired or missing token."""
    expired: set[str] = set()
    stalls = 0

    async def check(line: Line) -> None:
        value = (line.seen.header("authorization") or "").removeprefix("Bearer ")
        await read_body(line.reader, line.seen)
        if sso.ends.get(value, 0) <= time.monotonic():
            expired.add(value)
            line.writer.write(unauthorized())
        else:
            line.writer.write(fhir())

    async def caller(until: float) -> set[int]:
        statuses = set()
        async with await Wire.open(gateway.address) as wire:
            while time.monotonic() < until:
                statuses.add((await wire.ask(get("/fhir/Patient/1"))).status)
                await asyncio.sleep(0.02)
        return statuses

    async def watch() -> None:
        nonlocal stalls
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            stalls += time.monotonic() - began > STALL

    async with (
        RollingSso() as sso,
        Platform() as platform,
        running(platform.url, sso.token_url) as gateway,
    ):
        platform.answer(check)
        watching = asyncio.create_task(watch())
        until = time.monotonic() + LIFETIME * LIFETIMES + 0.5
        statuses = await asyncio.gather(*(caller(until) for _ in range(8)))
        assert set().union(*statuses) == {200}
        watching.cancel()
        # A busy machine may hold up all of this between the choice of a token and its arrival.
        assert len(expired) <= stalls
        assert len(platform.seen) > 1000
        # Renewed ahead of expiry, one at a time, and not much more often than needed.
        assert LIFETIMES <= len(sso.requests) <= 2 * LIFETIMES
        assert sso.most_at_once == 1
