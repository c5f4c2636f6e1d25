"""A separate process that writes to an outbox or claims its entries; tests kill it.

write URL    enqueues writes; sends a message for each stored entry
claim URL    claims everything that may be sent, as a gateway, and waits
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection

from gateway.config.operations_settings import OutboxSettings
from gateway.outbox.open_outbox import open_outbox_store
from tests.doubles.forked import FORKS
from tests.outbox.attempts import claim
from tests.outbox.drafts import draft

KEY = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"
RAW_KEY = bytes([7]) * 32
# More than one write is in most groups that are stored together.
WRITERS = 16


def settings(url: str) -> OutboxSettings:
    described = {"enabled": True, "url": url, "encryption_key": KEY}
    return OutboxSettings.model_validate({**described, "max_age": 86400, "retention": 86400})


async def _write(says: Connection, url: str) -> None:
    async with open_outbox_store(settings(url), RAW_KEY) as store:
        numbers = itertools.count()

        async def write() -> None:
            for number in numbers:
                kept = await store.enqueue(draft(str(number), f"P/{number % 5}"))
                says.send([kept.id, f"r-{number}"])

        await asyncio.gather(*(write() for _ in range(WRITERS)))


async def _claim(says: Connection, url: str) -> None:
    async with open_outbox_store(settings(url), RAW_KEY, delivers=True) as store:
        await claim(store, 100, "a gateway", lease=3600.0)
        says.send(["ready"])
        await asyncio.Event().wait()


class Child:
    """A running process, forked from one that has imported everything; its messages can be read."""

    def __init__(self, mode: str, url: str) -> None:
        said, says = FORKS.Pipe(duplex=False)
        self._process = FORKS.Process(target=_run, args=(says, mode, url), daemon=True)
        self._process.start()
        says.close()
        self._said = said

    async def lines(self) -> AsyncIterator[list[str]]:
        while True:
            try:
                yield await asyncio.to_thread(self._said.recv)
            except (EOFError, OSError):  # OSError: the process was killed within a message
                return

    def kill(self) -> None:
        self._process.kill()

    async def killed(self) -> None:
        self.kill()
        await asyncio.to_thread(self._process.join)


def _run(says: Connection, mode: str, url: str) -> None:
    asyncio.run(_write(says, url) if mode == "write" else _claim(says, url))
