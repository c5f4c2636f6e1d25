"""Waits until something is true, or a gateway idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.doubles.gateway import RunningGateway
from tests.doubles.metrics import total

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

    Fails after two minutes.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PATIENCE
    while busy := await _busy(gateway):
        assert loop.time() < deadline, f"still busy: {busy}"
        await asyncio.sleep(0.02)


async def _busy(gateway: RunningGateway) -> dict[str, float]:
    metrics = await gateway.metrics()
    connections = "dhp_gateway_upstream_connections"
    gauges = {
        "requests": total(metrics, "dhp_gateway_inflight_requests"),
        "active": total(metrics, connections, state="active"),
        "connecting": total(metrics, connections, state="connecting"),
    }
    return {name: value for name, value in gauges.items() if value}
