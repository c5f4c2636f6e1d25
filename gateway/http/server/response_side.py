"""The half of a caller's connection that answers are written to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final

from gateway import os_support
from gateway.http.server.closing import unsent_transport_bytes
from gateway.http.server.reader import ListenLimits, MessageReader
from gateway.http.write_batching import MAX_BATCHED_BYTES, WriteBatcher

# Seconds. How long a caller that sends no more may take nothing of an answer before no news of it
# is awaited, and between how many it is looked for.
_NEWS_TIMEOUT: Final = 1.0
_MIN_PAUSE: Final = 0.001
_MAX_PAUSE: Final = 0.05


class ConnectionWriter(MessageReader):
    """Writes small answers together with those of other connections, and knows back-pressure.

    `aborts_by_reset`: the request under way is of HTTP/1.0, whose callers cannot tell a cut answer
    from a complete one by a plain end.
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
        """Hand bytes to the transport, behind what is held back. Nothing happens without one."""
        if self._held_bytes:
            self.flush()
        if self.transport is not None:
            self.transport.write(data)

    def write_batched(self, data: bytes) -> None:
        """Hand bytes to the transport when the loop's turn is over, or before the next ones."""
        if self._held_bytes or len(data) > MAX_BATCHED_BYTES:
            self.write(data)
        else:
            self._held_bytes = data
            self._batching.schedule_flush(self)

    def flush(self) -> None:
        """Hand what is held back to the transport."""
        held, self._held_bytes = self._held_bytes, b""
        if held and self.transport is not None:
            self.transport.write(held)

    async def drain(self) -> None:
        """Wait until the transport takes more or is lost; may be tried again after a time-out."""
        self._writable = self._loop.create_future()
        if self.is_write_paused and self.transport is not None:
            await self._writable

    def pause_writing(self) -> None:
        """The transport takes no more (asyncio.Protocol)."""
        self.is_write_paused = True

    def resume_writing(self) -> None:
        """The transport takes more (asyncio.Protocol)."""
        self.is_write_paused = False
        self._wake_writer()

    def _wake_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    @property
    def unsent_bytes(self) -> int:
        """How many bytes wait to be taken by the caller, those in the kernel included."""
        transport = self.transport
        if transport is None:
            return 0
        return len(self._held_bytes) + unsent_transport_bytes(transport)

    async def has_left(self) -> bool:
        """Whether a caller that sends no more turns out to be gone, by what was written to it.

        One that is there acknowledges that; False also where nothing is told in time.
        """
        self.flush()
        pause = silence = 0.0
        waiting = 0
        while silence < _NEWS_TIMEOUT:
            await asyncio.sleep(pause)
            transport = self.transport
            if transport is None or transport.is_closing():
                return True
            if os_support.has_failed(transport.get_extra_info("socket")):
                return True
            before, waiting = waiting, self.unsent_bytes
            if not waiting:
                break
            silence = 0.0 if waiting < before else silence + pause
            pause = min(max(2 * pause, _MIN_PAUSE), _MAX_PAUSE)
        return False

    def abort(self) -> None:
        """End the connection so that no answer looks complete."""
        transport = self.transport
        if transport is None:
            return
        raw = transport.get_extra_info("socket")
        if self.aborts_by_reset and raw is not None:
            # The caller may have ended the connection a moment ago.
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, os_support.RESET_ON_CLOSE)
        self._ended = True
        self._held_bytes = b""
        transport.abort()
