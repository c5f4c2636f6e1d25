"""The body of a caller's request: streamed with flow control, and retained while it is small.

Up to `replay_bytes` of what was read are retained, so that the request can be sent a second time
after a 401 or before the platform can have acted. Limits of size and time are enforced here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from gateway import errors
from gateway.errors import GatewayError
from gateway.http.content_coding import STEP_BYTES, BodyTransform
from gateway.http.server.request_payload import Payload

_RATE_WINDOW: Final = 30.0


class CallerDisconnectedError(Exception):
    """The caller's connection ended before its exchange did."""


class MemoryBudget:
    """A memory budget in bytes, shared by the bodies that are buffered beyond their own limits."""

    def __init__(self, size: int) -> None:
        self._free = size

    def try_reserve(self, size: int) -> bool:
        """Reserve `size` bytes. Return False when less is left."""
        if size > self._free:
            return False
        self._free -= size
        return True

    def release(self, size: int) -> None:
        """Release `size` reserved bytes."""
        self._free += size


class RequestBody:
    """Reads one request's body. `length` is the announced length, None for chunked coding.

    At most `max_bytes` are read, and up to `replay_bytes` are retained. `stall_timeout` is the
    longest time between two reads, in seconds; `min_rate` is bytes a second. `before_wait` is
    called once, before the first wait for the caller's data.
    """

    def __init__(
        self,
        payload: Payload,
        length: int | None,
        *,
        max_bytes: int,
        replay_bytes: int,
        stall_timeout: float,
        min_rate: int,
        clock: Callable[[], float],
        before_wait: Callable[[], None] | None = None,
    ) -> None:
        self._payload = payload
        self._max_bytes = max_bytes
        self._replay_bytes = replay_bytes
        self._stall_timeout = stall_timeout
        self._min_rate = min_rate
        self._clock = clock
        self._before_wait = before_wait
        self._transform: BodyTransform | None = None
        # What the caller sent behind the bytes that the transform has returned unchanged; None once
        # it has changed any.
        self._unmatched: bytes | None = b""
        self._observers: list[Callable[[bytes], None]] = []
        self._retained: list[bytes] = []
        self._output_bytes = 0
        self._position = 0
        # Chunks that were read ahead and are not retained; `read_chunk` returns them first.
        self._ahead: list[bytes] = []
        self._ended = False
        self._waited = 0.0
        self._window_bytes = 0
        self._budget: MemoryBudget | None = None
        self._reserved_bytes = 0
        self.length = length
        self.received_bytes = 0
        self.is_replayable = True
        if length is not None and length > max_bytes:
            raise _too_large()

    def set_transform(self, transform: BodyTransform) -> None:
        """Pass the body through a transform, so that its length is no longer known in advance."""
        self._transform = transform
        self.length = None

    def retain_in(self, budget: MemoryBudget) -> None:
        """Retain the body beyond `replay_bytes` while the budget `budget` allows; see `release`."""
        self._budget = budget

    def release(self) -> None:
        """Release the reserved memory; the body is not read again."""
        if self._budget is not None and self._reserved_bytes:
            self._budget.release(self._reserved_bytes)
            self._reserved_bytes = 0

    def add_observer(self, observer: Callable[[bytes], None]) -> None:
        """Call `observer` with each chunk, once and in order, including those that were read ahead.

        An exception of an observer ends the request. Observers that were added earlier are kept.
        """
        for chunk in self._retained if self.is_replayable else self._ahead:
            observer(chunk)
        self._observers.append(observer)

    @property
    def is_transformed(self) -> bool:
        """Whether the body that is read may differ from the one that the caller sent."""
        return self._transform is not None and not (self._ended and self._unmatched == b"")

    def buffered(self) -> bytes | None:
        """Return the complete body if it has arrived already, else None. Does not wait.

        Raises `GatewayError` payload-too-large.
        """
        if self.received_bytes or self._ended:
            return b"".join(self._retained) if self._ended and self.is_replayable else None
        if not self._payload.is_eof() or self._payload.exception() is not None:
            return None
        data = self._consume(self._payload.read_nowait(-1))
        if data and not self.is_replayable:
            # It is not retained, and may have to be streamed after all.
            self._ahead = [data]
        return data

    def rewind(self) -> None:
        """Start again at the first byte; allowed while `is_replayable`."""
        self._position = 0

    async def read_chunk(self) -> bytes:
        """Return the next chunk, b"" at the end.

        Raises `GatewayError` payload-too-large, body-timeout or bad-request, and
        `CallerDisconnectedError`.
        """
        if self._ahead:
            return self._ahead.pop(0)
        if self._position < len(self._retained):
            self._position += 1
            return self._retained[self._position - 1]
        while not self._ended:
            data = await self._consume_yielding(await self._receive())
            self._position = len(self._retained)
            if data:
                return data
        return b""

    async def discard(self) -> None:
        """Read the complete body and retain nothing. Raises as `read_chunk`."""
        self.is_replayable = False
        while await self.read_chunk():
            pass

    async def read_all(self) -> bytes | None:
        """Return the complete body; `read_chunk` returns it again. Raises as `read_chunk`.

        None when it cannot be retained; `read_chunk` then still returns what was read, unless
        chunks had been dropped before this call.
        """
        is_retained = self.is_replayable
        if not is_retained:
            return None
        self.rewind()
        chunks: list[bytes] = []
        while is_retained and (data := await self.read_chunk()):
            chunks.append(data)
            is_retained = self.is_replayable
        if not is_retained:
            self._ahead = chunks
            return None
        self.rewind()
        return b"".join(chunks)

    async def peek(self, size: int) -> bytes:
        """Return the first `size` bytes or more; `read_chunk` returns them again.

        Returns fewer if the body is shorter. Raises as `read_chunk`.
        """
        chunks: list[bytes] = []
        seen = 0
        while seen < size and (data := await self.read_chunk()):
            chunks.append(data)
            seen += len(data)
        if self.is_replayable:
            self.rewind()
        else:
            # What an earlier, longer peek had read ahead still follows.
            self._ahead = chunks + self._ahead
        return b"".join(chunks)

    async def _receive(self) -> bytes:
        payload = self._payload
        if payload.is_eof() or payload.total_bytes > self.received_bytes:
            data = await self._read()
            self._window_bytes += len(data)
            return data
        if self._before_wait is not None:
            self._before_wait()
            self._before_wait = None
        timer = asyncio.get_running_loop().call_later(self._stall_timeout, self._on_stall)
        started = self._clock()
        try:
            data = await self._read()
        finally:
            timer.cancel()
        self._check_rate(len(data), self._clock() - started)
        return data

    def _on_stall(self) -> None:
        self._payload.set_exception(
            GatewayError(errors.BODY_TIMEOUT, "no byte in time", close_connection=True)
        )

    def _check_rate(self, size: int, waited: float) -> None:
        """Check the rate in windows of `_RATE_WINDOW` seconds of waiting for the caller.

        Time spent on anything else does not count.
        """
        self._waited += waited
        self._window_bytes += size
        if self._waited < _RATE_WINDOW:
            return
        if self._window_bytes < self._min_rate * self._waited:
            raise GatewayError(errors.BODY_TIMEOUT, "below the minimum rate", close_connection=True)
        self._waited, self._window_bytes = 0.0, 0

    async def _read(self) -> bytes:
        try:
            return await self._payload.readany()
        except (ConnectionError, EOFError):
            raise CallerDisconnectedError from None

    async def _consume_yielding(self, data: bytes) -> bytes:
        """Do as `_consume`; while much is transformed, other tasks run in between."""
        if self._transform is None or len(data) <= STEP_BYTES:
            return self._consume(data)
        changed = [self._consume(data[:STEP_BYTES])]
        for at in range(STEP_BYTES, len(data), STEP_BYTES):
            await asyncio.sleep(0)
            changed.append(self._consume(data[at : at + STEP_BYTES]))
        return b"".join(changed)

    def _consume(self, data: bytes) -> bytes:
        """Count what the caller sent, transform it and retain it."""
        self.received_bytes += len(data)
        if self.received_bytes > self._max_bytes:
            raise _too_large()
        payload = self._payload
        self._ended = payload.is_eof() and payload.total_bytes == self.received_bytes
        if self._transform is not None:
            data = self._match(data, self._transformed(self._transform, data))
        if data:
            for observer in self._observers:
                observer(data)
            self._retain(data)
        return data

    def _transformed(self, transform: BodyTransform, data: bytes) -> bytes:
        """Return what the transform makes of the next bytes, which may be all of the body."""
        chunks: list[bytes] | None = None
        if self._ended and len(data) == self.received_bytes <= STEP_BYTES:
            chunks = transform.transform_complete(data)
        if chunks is not None:
            return b"".join(chunks)
        data = transform.feed(data)
        return data + transform.finish() if self._ended else data

    def _match(self, data: bytes, output: bytes) -> bytes:
        """Return the output of the transform; note whether it still is what the caller sent."""
        if self._unmatched is not None:
            sent = self._unmatched + data
            self._unmatched = sent[len(output) :] if sent.startswith(output) else None
        return output

    def _retain(self, data: bytes) -> None:
        self._output_bytes += len(data)
        if self._output_bytes > self._replay_bytes and not self._reserve_memory(len(data)):
            self.is_replayable = False
            self._retained.clear()
        elif self.is_replayable:
            self._retained.append(data)

    def _reserve_memory(self, size: int) -> bool:
        if self._budget is None or not self.is_replayable or not self._budget.try_reserve(size):
            return False
        self._reserved_bytes += size
        return True


def _too_large() -> GatewayError:
    return GatewayError(errors.PAYLOAD_TOO_LARGE, "body over the limit", close_connection=True)


class BufferedBody:
    """A body in memory, with the methods of `RequestBody` for sending it."""

    is_replayable = True

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._sent = False
        self.length = len(data)

    def buffered(self) -> bytes:
        return self._data

    def rewind(self) -> None:
        self._sent = False

    async def read_chunk(self) -> bytes:
        data, self._sent = b"" if self._sent else self._data, True
        return data
