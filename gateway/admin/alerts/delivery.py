"""Delivers messages to one address, in order, with retries for as long as it is unreachable.

The library blocks, so that each attempt runs in a thread. An address has one such thread at most,
and the process does not wait for it at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from gateway.admin.alerts.addresses import AlertAddress, AlertMessage
from gateway.duration import format_duration
from gateway.telemetry.logs import get_logger
from gateway.timing import TimeSource, backoff

_log = get_logger(__name__)

# Number of messages above which the oldest are dropped.
_MAX_WAITING: Final = 50
_ATTEMPT_TIMEOUT: Final = 60.0
_FIRST_RETRY_DELAY, _MAX_RETRY_DELAY = 15.0, 900.0


class AddressSender:
    """Sends messages to one address, each in a thread; `timeout` is in seconds."""

    def __init__(self, address: AlertAddress, timeout: float = _ATTEMPT_TIMEOUT) -> None:
        self.address = address
        self._timeout = timeout
        self.thread: threading.Thread | None = None
        # True until the thread has ended, even if the attempt has timed out before.
        self._is_sending = False

    async def send(self, message: AlertMessage) -> bool:
        """Send a message and return whether the address accepted it in time."""
        if self._is_sending:
            return False  # the thread of an attempt that timed out is still running
        loop = asyncio.get_running_loop()
        taken: asyncio.Future[bool] = loop.create_future()

        def settle(result: bool) -> None:
            if not taken.done():
                taken.set_result(result)

        def attempt() -> None:
            result = self.address.send(message)
            self._is_sending = False
            # Raised where the loop has been closed meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, result)

        self._is_sending = True
        self.thread = threading.Thread(target=attempt, name="alert message", daemon=True)
        self.thread.start()
        try:
            async with asyncio.timeout(self._timeout):
                return await taken
        except TimeoutError:
            return False


class AddressQueue:
    """Messages that one address has not accepted yet.

    `count` is called with `sent`, `failed` or `dropped` and a number.
    """

    def __init__(
        self, address: AlertAddress, time: TimeSource, count: Callable[[str, int], None]
    ) -> None:
        self._sender = AddressSender(address)
        self._time = time
        self._count = count
        self._waiting: deque[AlertMessage] = deque()
        self._has_messages = asyncio.Event()

    def enqueue(self, message: AlertMessage) -> None:
        """Append a message; beyond the limit the oldest ones are dropped."""
        self._waiting.append(message)
        while len(self._waiting) > _MAX_WAITING:
            self._waiting.popleft()
            self._count("dropped", 1)
        self._has_messages.set()

    async def run(self) -> None:
        """Send queued messages until cancelled."""
        while True:
            await self._has_messages.wait()
            self._has_messages.clear()
            if self._waiting:
                await self._deliver()

    async def _deliver(self) -> None:
        failures = 0
        while not await self._attempt():
            failures += 1
            delay = backoff(failures, _FIRST_RETRY_DELAY, _MAX_RETRY_DELAY, self._time.random)
            if failures == 1:
                _log.warning(
                    "%s takes no message; it is tried again in %s, then less often",
                    *(self._sender.address.name, format_duration(delay)),
                    key="alerts.notify",
                )
            await self._time.sleep(delay)
        if failures:
            _log.info("%s takes messages again", self._sender.address.name, key="alerts.notify")

    async def _attempt(self) -> bool:
        """Send all queued messages as one: after an outage a single message arrives, not fifty."""
        together = tuple(self._waiting)
        last = together[-1]
        body = "\n".join(message.body for message in together)
        if not await self._sender.send(AlertMessage(last.kind, last.title, body)):
            self._count("failed", 1)
            return False
        for message in together:
            # Messages dropped during the attempt are no longer in the queue.
            if self._waiting and self._waiting[0] is message:
                self._waiting.popleft()
        self._count("sent", 1)
        if self._waiting:
            self._has_messages.set()
        return True
