"""The writing half of a caller's connection, and the end of closing connections.

A closed transport first sends its buffer, without a time limit, and occupies a connection slot
until then. `ClosingConnection` therefore aborts closing connections whose callers read nothing of
the data that is still buffered.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any, Final

from gateway import os_support
from gateway.http.server.request_reader import MessageReader
from gateway.http.write_batching import MAX_BATCHED_BYTES

if TYPE_CHECKING:
    from gateway.config.inbound_settings import LimitsSettings
    from gateway.http.write_batching import WriteBatcher

# Seconds for which a TLS connection waits for the caller's close_notify once all data is received.
_CLOSE_NOTIFY_TIMEOUT: Final = 2.0


class ClosingConnection:
    """A connection's closed transport, and how many bytes its caller has not received yet."""

    __slots__ = ("_since", "_transport", "_unsent_bytes")

    def __init__(self, transport: asyncio.Transport, now: float) -> None:
        self._transport = transport
        self._since = now
        self._unsent_bytes = unsent_transport_bytes(transport)

    def abort_if_stalled(self, now: float, stall_timeout: float) -> None:
        """Abort if the caller received nothing at all in `stall_timeout` seconds.

        Slow reads are allowed. `now` is monotonic time in seconds.
        """
        unsent_bytes = unsent_transport_bytes(self._transport)
        # More is progress, too: the kernel has taken data from a buffer of the TLS layer.
        if unsent_bytes != self._unsent_bytes:
            self._since, self._unsent_bytes = now, unsent_bytes
        elif now - self._since >= (stall_timeout if unsent_bytes else _CLOSE_NOTIFY_TIMEOUT):
            self._transport.abort()


def unsent_transport_bytes(transport: asyncio.Transport) -> int:
    """Return how many bytes the peer has not acknowledged, including those in the kernel."""
    return transport.get_write_buffer_size() + _unsent_kernel_bytes(
        transport.get_extra_info("socket")
    )


def _unsent_kernel_bytes(raw: Any) -> int:
    """Return how many bytes the kernel has not delivered yet, 0 where it does not report that."""
    try:
        return 0 if raw is None else os_support.unacknowledged_bytes(raw)
    except (OSError, ValueError):
        return 0


# Seconds. How long a half-closed caller may acknowledge nothing of a response until `has_left`
# stops waiting, and the shortest and longest pause between two checks.
_ACKNOWLEDGEMENT_TIMEOUT: Final = 1.0
_MIN_PAUSE: Final = 0.001
_MAX_PAUSE: Final = 0.05


class ConnectionWriter(MessageReader):
    """Writes small responses in a batch with those of other connections; handles back-pressure.

    `aborts_by_reset`: the current request is one of HTTP/1.0, whose callers cannot distinguish a
    truncated response from a complete one if the connection just ends.
    """

    __slots__ = ("_batching", "_held_bytes", "_writable", "aborts_by_reset", "is_write_paused")

    def __init__(self, limits: LimitsSettings, batching: WriteBatcher) -> None:
        super().__init__(limits)
        self._batching = batching
        self._held_bytes = b""
        self._writable: asyncio.Future[None] | None = None
        self.is_write_paused = False
        self.aborts_by_reset = False

    def write(self, data: bytes) -> None:
        """Write bytes to the transport, after batched ones. Does nothing without a transport."""
        if self._held_bytes:
            self.flush()
        if self.transport is not None:
            self.transport.write(data)

    def write_batched(self, data: bytes) -> None:
        """Write bytes at the end of the loop iteration, or earlier before the next bytes."""
        if self._held_bytes or len(data) > MAX_BATCHED_BYTES:
            self.write(data)
        else:
            self._held_bytes = data
            self._batching.schedule_flush(self)

    def flush(self) -> None:
        """Write the batched bytes to the transport."""
        held, self._held_bytes = self._held_bytes, b""
        if held and self.transport is not None:
            self.transport.write(held)

    async def drain(self) -> None:
        """Wait until the transport accepts more or is lost; may be called again after a timeout."""
        self._writable = self._loop.create_future()
        if self.is_write_paused and self.transport is not None:
            await self._writable

    def pause_writing(self) -> None:
        """Record that the transport's buffer is full (asyncio.Protocol)."""
        self.is_write_paused = True

    def resume_writing(self) -> None:
        """Record that the transport accepts more and wake `drain` (asyncio.Protocol)."""
        self.is_write_paused = False
        self._wake_writer()

    def _wake_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    @property
    def unsent_bytes(self) -> int:
        """How many bytes the caller has not acknowledged, including those in the kernel."""
        transport = self.transport
        if transport is None:
            return 0
        return len(self._held_bytes) + unsent_transport_bytes(transport)

    async def has_left(self) -> bool:
        """Return whether a half-closed caller has disconnected, judged by its acknowledgements.

        A caller that is still connected acknowledges what was written. The result is False also if
        there is neither an acknowledgement nor a reset in time.
        """
        self.flush()
        pause = silence = 0.0
        unsent = 0
        while silence < _ACKNOWLEDGEMENT_TIMEOUT:
            await asyncio.sleep(pause)
            transport = self.transport
            if transport is None or transport.is_closing():
                return True
            if os_support.has_failed(transport.get_extra_info("socket")):
                return True
            before, unsent = unsent, self.unsent_bytes
            if not unsent:
                break
            silence = 0.0 if unsent < before else silence + pause
            pause = min(max(2 * pause, _MIN_PAUSE), _MAX_PAUSE)
        return False

    def abort(self) -> None:
        """End the connection so that no truncated response looks complete."""
        transport = self.transport
        if transport is None:
            return
        raw = transport.get_extra_info("socket")
        if self.aborts_by_reset and raw is not None:
            # The caller may have closed the connection a moment ago.
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, os_support.RESET_ON_CLOSE)
        self._ended = True
        self._held_bytes = b""
        transport.abort()
