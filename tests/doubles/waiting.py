"""Waits until something is true, or a gateway idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.doubles.gateway import RunningGateway

_PATIENCE = 120.0  # seconds


async def wait_until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds. It is polled: a thread or a socket brings it about.

    Fails after two minutes.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PATIENCE
    while not condition():
        assert loop.time() < deadline, "what is waited for has not happened"
        await asyncio.sleep(0.005)


async def wait_until_idle(gateway: RunningGateway) -> None:
    """Wait until no request is in flight and no connection in use.

    Asks the gateway's own counts: many tests end with it, and a scrape takes longer than most of
    what they do. Fails after two minutes.
    """
    cores = gateway.gateway._cores

    def is_idle() -> bool:
        connections = cores.connections()
        return not (cores.inflight or connections["active"] or connections["connecting"])

    await wait_until(is_idle)
