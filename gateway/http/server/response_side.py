"""The writing half of a caller's connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final

from gateway import os_support
from gateway.http.server.closing import unsent_transport_bytes
from gateway.http.server.reader import ListenLimits, MessageReader
from gateway.http.write_batching import MAX_BATCHED_BYTES, WriteBatcher

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

    def __init__(self, limits: ListenLimits, batching: WriteBatcher) -> None:
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
