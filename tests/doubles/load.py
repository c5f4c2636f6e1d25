"""Callers that send requests in sequence, mostly on persistent connections; failures count."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.doubles.waiting import wait_until
from tests.doubles.wire import Response, TruncatedResponseError, Wire, get


@dataclass
class Load:
    """A number of callers; `start`, then `finish`, or `until_refused` once the gateway stops.

    Each waits for `pause` seconds between a response and its next request, and makes a connection
    for each request where `once` is true. One whose connection is refused ends: `refused`.
    `failures` counts the
    requests that the gateway had accepted and did not serve: a connection that was made and then
    broke, and a response other than 200.
    """

    address: Any
    callers: int
    target: str = "/fhir/Patient/1"
    tls: ssl.SSLContext | None = None
    pause: float = 0.0
    once: bool = False
    served: int = 0
    refused: int = 0
    inflight: int = 0
    max_inflight: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def start(self) -> None:
        self._ending = False
        self._tasks = [asyncio.ensure_future(self._call()) for _ in range(self.callers)]

    async def wait_until_served(self, count: int) -> None:
        await wait_until(lambda: self.served >= count)

    async def wait_until_inflight(self, count: int) -> None:
        await wait_until(lambda: self.inflight >= count)

    async def finish(self) -> None:
        """Send no more requests, and wait for those in flight."""
        self._ending = True
        await asyncio.gather(*self._tasks)

    async def wait_until_refused(self) -> None:
        await asyncio.gather(*self._tasks)

    async def _call(self) -> None:
        wire: Wire | None = None
        while not self._ending:
            if wire is None:
                try:
                    wire = await Wire.open(self.address, tls=self.tls)
                except (ConnectionRefusedError, FileNotFoundError):
                    self.refused += 1
                    return
                except (OSError, ssl.SSLError) as error:
                    self.failures[f"connect: {type(error).__name__}"] += 1
                    return
            if not await self._exchange(wire) or self.once:
                wire.writer.transport.abort()
                wire = None
            if self.pause:
                await asyncio.sleep(self.pause)
        if wire is not None:
            wire.writer.transport.abort()

    async def _exchange(self, wire: Wire) -> bool:
        """Send one request. Return whether the connection can be reused."""
        self.inflight += 1
        self.max_inflight = max(self.max_inflight, self.inflight)
        try:
            response: Response = await wire.fetch(get(self.target))
        except (TruncatedResponseError, OSError) as error:
            self.failures[f"{type(error).__name__}: {error}"] += 1
            return False
        finally:
            self.inflight -= 1
        self.served += 1
        if response.status != 200:
            self.failures[f"{response.status} {response.reason}"] += 1
        return (response.header("connection") or "").lower() != "close"
