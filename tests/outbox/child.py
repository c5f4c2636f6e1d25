"""A separate process that writes to an outbox or delivers from one; tests kill it.

write URL            enqueues writes; sends a message for each stored entry
claim URL            claims everything that may be sent, as a gateway, and waits
deliver URL SOCKET   delivers to the listener at the Unix socket
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from pathlib import Path

import orjson

from gateway.clock import TimeSource
from gateway.config.operations_settings import OutboxSettings
from gateway.outbox.attempt_result import AttemptResult, VerificationStatus
from gateway.outbox.delivery import DeliveryLoop
from gateway.outbox.delivery_pacing import RetryDelays
from gateway.outbox.entry import OutboxEntry, QueuedRequest, RecoveryMode, StoredResponse
from gateway.outbox.open_outbox import open_outbox_store
from tests.doubles.forked import FORKS
from tests.outbox.attempts import claim
from tests.outbox.drafts import draft

KEY = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"
RAW_KEY = bytes([7]) * 32
# Short, so that tests need not wait long for the entries that a killed process had claimed.
INTERVALS = {"lease_seconds": 2.0, "poll_interval": 0.1, "recovery_interval": 0.3}
DELAYS = RetryDelays(first=0.05, max_entry_delay=0.2, max_outage_delay=0.2, index_lag=0.1)
WRITERS = 4


def settings(url: str) -> OutboxSettings:
    """Return the settings of the outbox at `url`."""
    described = {"enabled": True, "url": url, "encryption_key": KEY}
    return OutboxSettings.model_validate({**described, "max_age": 86400, "retention": 86400})


class SocketSender:
    """Sends to a platform that speaks a line protocol: a write's name and recovery, then `ok`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def send(self, entry: OutboxEntry, request: QueuedRequest) -> AttemptResult:
        """Send one attempt."""
        try:
            answer = await self._say(["send", request.request_id, entry.recovery])
        except OSError:
            return AttemptResult(cause="upstream-failed", may_have_effect=True)
        return (
            AttemptResult(StoredResponse(200))
            if answer == b"ok\n"
            else AttemptResult(cause="upstream-failed", may_have_effect=True)
        )

    async def probe(self) -> None:
        """Do nothing: this platform serves no other requests."""

    async def verify(self, entry: OutboxEntry, request: QueuedRequest) -> AttemptResult:
        """Ask the platform whether the write took effect."""
        answer = await self._say(["ask", request.request_id, entry.recovery])
        return AttemptResult(
            finding=VerificationStatus.PRESENT if answer == b"yes\n" else VerificationStatus.ABSENT
        )

    async def _say(self, words: list[str]) -> bytes:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            writer.write(orjson.dumps(words) + b"\n")
            return await reader.readline()
        finally:
            writer.close()


async def _write(says: Connection, url: str) -> None:
    async with open_outbox_store(settings(url), RAW_KEY) as store:
        numbers = itertools.count()

        async def go_on() -> None:
            for number in numbers:
                kept = await store.enqueue(draft(str(number), f"P/{number % 5}"))
                says.send([kept.id, f"r-{number}"])

        await asyncio.gather(*(go_on() for _ in range(WRITERS)))


async def _deliver(says: Connection, url: str, socket: Path) -> None:
    async with open_outbox_store(settings(url), RAW_KEY) as store:
        delivery = DeliveryLoop(
            store=store,
            sender=SocketSender(socket),  # type: ignore[arg-type]
            timing=TimeSource(),
            delays=DELAYS,
            **INTERVALS,
        )
        says.send(["ready"])
        await delivery.run()


async def _claim(says: Connection, url: str) -> None:
    async with open_outbox_store(settings(url), RAW_KEY, delivers=True) as store:
        await claim(store, 100, "a gateway", lease=3600.0)
        says.send(["ready"])
        await asyncio.Event().wait()


class Child:
    """A running process, forked from one that has imported everything; its messages can be read."""

    def __init__(self, *arguments: str) -> None:
        said, says = FORKS.Pipe(duplex=False)
        self._process = FORKS.Process(target=_run, args=(says, *arguments), daemon=True)
        self._process.start()
        says.close()
        self._said = said

    async def lines(self) -> AsyncIterator[list[str]]:
        """Yield the messages of the process, each a list of words."""
        while True:
            try:
                yield await asyncio.to_thread(self._said.recv)
            except (EOFError, OSError):  # OSError: the process was killed within a message
                return

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    async def killed(self) -> None:
        """Send SIGKILL and wait for the end."""
        self.kill()
        await asyncio.to_thread(self._process.join)


def _run(says: Connection, mode: str, url: str, *rest: str) -> None:
    if mode == "write":
        asyncio.run(_write(says, url))
    elif mode == "claim":
        asyncio.run(_claim(says, url))
    else:
        asyncio.run(_deliver(says, url, Path(*rest)))


RECOVERIES = (RecoveryMode.RESEND, RecoveryMode.VERIFY, RecoveryMode.HOLD)
