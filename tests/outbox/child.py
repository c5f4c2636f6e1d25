"""A process of its own that writes to an outbox, or delivers from one; made to be killed.

python -m tests.outbox.child write URL            puts writes in; a line for each that was kept
python -m tests.outbox.child claim URL            has all that may be sent in hand, and waits
python -m tests.outbox.child deliver URL SOCKET   delivers to whoever listens at the Unix socket
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import orjson

from gateway.config import OutboxSettings
from gateway.outbox.delivery import Delivery, Options
from gateway.outbox.entry import Entry, Recovery, Request, Response
from gateway.outbox.opening import opened
from gateway.outbox.owner import named
from gateway.outbox.pacing import Pauses
from gateway.outbox.sending import Comparison, Effect, Failure, Found, Result
from gateway.timing import TimeSource
from tests.outbox.drafts import ROOMY, draft

KEY = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"
# Short, so that a test need not wait long for what a killed process had in hand.
OPTIONS = Options(
    max_age=86400,
    retention=86400,
    lease=2.0,
    poll=0.1,
    recovery=0.3,
    pauses=Pauses(first=0.05, longest=0.2, longest_of_line=0.2, settle=0.1),
)
WRITERS = 4


def settings(url: str) -> OutboxSettings:
    """For the outbox at that place."""
    return OutboxSettings.model_validate({"enabled": True, "url": url, "encryption_key": KEY})


class SocketSender:
    """Asks a platform that understands lines: a write's name and recovery, answered by `ok`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def send(self, entry: Entry, request: Request) -> Result:
        """One attempt."""
        try:
            answer = await self._say(["send", request.request_id, entry.recovery])
        except OSError:
            return Failure(Effect.UNKNOWN, "upstream-failed")
        return Response(200) if answer == b"ok\n" else Failure(Effect.UNKNOWN, "upstream-failed")

    async def probe(self) -> None:
        """The platform here answers nobody else."""

    async def ask(self, entry: Entry, request: Request) -> Comparison | Failure:
        """The question."""
        answer = await self._say(["ask", request.request_id, entry.recovery])
        return Comparison(Found.YES if answer == b"yes\n" else Found.NO)

    async def _say(self, words: list[str]) -> bytes:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            writer.write(orjson.dumps(words) + b"\n")
            return await reader.readline()
        finally:
            writer.close()


async def _write(url: str) -> None:
    async with opened(settings(url)) as store:
        numbers = itertools.count()

        async def go_on() -> None:
            for number in numbers:
                kept = await store.put(draft(str(number), f"P/{number % 5}"), ROOMY)
                print(kept.id, f"r-{number}", flush=True)  # noqa: T201 - what the test waits for

        await asyncio.gather(*(go_on() for _ in range(WRITERS)))


async def _deliver(url: str, socket: Path) -> None:
    async with opened(settings(url)) as store:
        delivery = Delivery(store, SocketSender(socket), lambda _: None, OPTIONS, TimeSource())
        print("ready", flush=True)  # noqa: T201 - what the test waits for
        await delivery.run()


async def _claim(url: str) -> None:
    async with opened(settings(url)) as store:
        await store.claim(named(), most=100, lease=3600.0)
        print("ready", flush=True)  # noqa: T201 - what the test waits for
        await asyncio.Event().wait()


async def lines_of(process: asyncio.subprocess.Process) -> AsyncIterator[list[str]]:
    """What a child has said, word by word; only whole lines."""
    assert process.stdout is not None
    while (line := await process.stdout.readline()).endswith(b"\n"):
        yield line.decode().split()


async def start(*arguments: str) -> asyncio.subprocess.Process:
    """Start one."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.outbox.child", *arguments),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )


async def kill(process: asyncio.subprocess.Process) -> None:
    """SIGKILL, whatever it is doing."""
    if process.returncode is None:
        process.kill()
    await process.wait()


RECOVERIES = (Recovery.REPEAT, Recovery.ASK, Recovery.PARK)

if __name__ == "__main__":
    mode, *rest = sys.argv[1:]
    if mode == "write":
        asyncio.run(_write(rest[0]))
    elif mode == "claim":
        asyncio.run(_claim(rest[0]))
    else:
        asyncio.run(_deliver(rest[0], Path(rest[1])))
