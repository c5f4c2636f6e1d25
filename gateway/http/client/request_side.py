"""The sending half of a connection to the platform, and how its exchange waits for events."""

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
    """Sends requests, but not on a reused connection on which data arrived since its last exchange.

    `clock` is monotonic, `response_timeout` in seconds.
    """

    def __init__(
        self, clock: Callable[[], float], response_timeout: float, batching: WriteBatcher
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._response_timeout = response_timeout
        self._batching = batching
        self.transport: asyncio.Transport | TlsTransport | None = None
        # Returns whether data can be read; None where there is no socket.
        self._has_data: Callable[[], object] | None = None
        self.deadline = NO_DEADLINE
        self.failure: FailureKind | None = None
        # Whether the connection is reused and nothing of the current request has been sent yet.
        self._is_unsent = False
        self._held_request = b""
        self._write_paused = False
        self._drained: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport | TlsTransport) -> None:
        """Store the transport (asyncio.Protocol)."""
        self.transport = cast("asyncio.Transport | TlsTransport", transport)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            self._has_data = os_support.readability_check(raw.fileno())

    def write(self, data: bytes) -> None:
        """Write bytes to the transport and set the deadline `response_timeout` from now."""
        self._send(data)
        self.deadline = self._clock() + self._response_timeout

    def write_request(self, request: bytes) -> None:
        """Do the same for a complete request, which is written at the end of the loop iteration."""
        if len(request) > MAX_BATCHED_BYTES:
            self.write(request)
            return
        self._held_request = request
        self._batching.schedule_flush(self)
        self.deadline = self._clock() + self._response_timeout

    def flush(self) -> None:
        """Write the held request to the transport; there is none after a failure."""
        held, self._held_request = self._held_request, b""
        if held:
            self._send(held)

    def _send(self, data: bytes) -> None:
        if self.transport is None:
            return
        if self._is_unsent:
            # Data that has arrived already cannot be the response to a request that was not sent.
            if self._has_data is not None and self._has_data():
                self.abort()
                return
            self._is_unsent = False
        self.transport.write(data)

    def suspend_deadline(self) -> None:
        """Remove the deadline while the exchange waits for the caller and not for the platform."""
        self.deadline = NO_DEADLINE

    async def drain(self) -> None:
        """Wait until the transport accepts more; return at once on a lost connection."""
        if self._write_paused and self.transport is not None:
            self._drained = self._loop.create_future()
            await self._drained

    def next_event(self) -> asyncio.Future[None]:
        """Return a future that completes at the next event: data, close, failure or deadline."""
        self._waiter = self._loop.create_future()
        return self._waiter

    def abort(self, kind: FailureKind = "closed") -> None:
        """Close the connection at once; the running exchange fails with `kind`, or `unsent`."""
        self._fail(kind)
        if self.transport is not None:
            self.transport.abort()

    def pause_writing(self) -> None:
        """Record that the transport's buffer is full (asyncio.Protocol)."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """Record that the transport accepts more and wake `drain` (asyncio.Protocol)."""
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
