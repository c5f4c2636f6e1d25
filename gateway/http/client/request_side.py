"""The half of a connection to the platform that sends, and how its exchange waits for news."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from gateway import os_support
from gateway.http.client.framing import FailureKind
from gateway.http.client.small_reads import BoundedReadProtocol
from gateway.http.client.tls import TlsTransport
from gateway.http.write_batching import MAX_BATCHED_BYTES, WriteBatcher

NO_DEADLINE: Final = float("inf")


class UpstreamWriter(BoundedReadProtocol):
    """Nothing is sent behind an earlier exchange where anything has come since that ended."""

    def __init__(
        self, clock: Callable[[], float], response_timeout: float, batching: WriteBatcher
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._response_timeout = response_timeout
        self._batching = batching
        self.transport: asyncio.Transport | TlsTransport | None = None
        # Whether anything waits to be read; none where there is no socket to look at.
        self._arrived: Callable[[], object] | None = None
        self.deadline = NO_DEADLINE
        self.failure: FailureKind | None = None
        # Whether nothing of a request has gone out yet behind an earlier exchange.
        self._is_unsent = False
        self._held_request = b""
        self._write_paused = False
        self._drained: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport | TlsTransport) -> None:
        """Keep the transport (asyncio.Protocol)."""
        self.transport = cast("asyncio.Transport | TlsTransport", transport)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            self._arrived = os_support.readability_check(raw.fileno())

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport and give the platform `response_timeout` from now."""
        self._send(data)
        self.deadline = self._clock() + self._response_timeout

    def write_request(self, request: bytes) -> None:
        """The same for a whole request, which is sent when the loop's turn is over."""
        if len(request) > MAX_BATCHED_BYTES:
            self.write(request)
            return
        self._held_request = request
        self._batching.schedule_flush(self)
        self.deadline = self._clock() + self._response_timeout

    def flush(self) -> None:
        """Hand the request that is held back to the transport; there is none after a failure."""
        held, self._held_request = self._held_request, b""
        if held:
            self._send(held)

    def _send(self, data: bytes) -> None:
        if self.transport is None:
            return
        if self._is_unsent:
            # What has come already cannot answer a request that has not gone out.
            if self._arrived is not None and self._arrived():
                self.abort()
                return
            self._is_unsent = False
        self.transport.write(data)

    def suspend_deadline(self) -> None:
        """Stop the clock: the caller, not the platform, is what the exchange waits for."""
        self.deadline = NO_DEADLINE

    async def drain(self) -> None:
        """Wait until the transport takes more; returns at once on a lost connection."""
        if self._write_paused and self.transport is not None:
            self._drained = self._loop.create_future()
            await self._drained

    def next_event(self) -> asyncio.Future[None]:
        """What is done as soon as anything happens."""
        self._waiter = self._loop.create_future()
        return self._waiter

    def abort(self, kind: FailureKind = "closed") -> None:
        """Drop the connection without ceremony; what waits on it fails."""
        self._fail(kind)
        if self.transport is not None:
            self.transport.abort()

    def pause_writing(self) -> None:
        """Back-pressure from the platform (asyncio.Protocol)."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """The transport takes more (asyncio.Protocol)."""
        self._write_paused = False
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None

    def _fail(self, kind: FailureKind) -> None:
        self._held_request = b""
        if self.failure is None:
            self.failure = "unsent" if self._is_unsent else kind
        self._notify_waiter()

    def _notify_waiter(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
