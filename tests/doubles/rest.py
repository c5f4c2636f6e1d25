"""Waits until a gateway is idle: no request in flight, no connection in use."""

from __future__ import annotations

import asyncio

from tests.doubles.gateway import Running
from tests.doubles.metrics import total


async def come_to_rest(gateway: Running, *, patience: float = 120.0) -> None:
    """Wait until no request is in flight and no connection in use.

    Fails after `patience` seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while busy := await _busy(gateway):
        assert loop.time() < deadline, f"still busy: {busy}"
        await asyncio.sleep(0.02)


async def _busy(gateway: Running) -> dict[str, float]:
    metrics = await gateway.metrics()
    connections = "dhp_gateway_upstream_connections"
    gauges = {
        "requests": total(metrics, "dhp_gateway_inflight_requests"),
        "active": total(metrics, connections, state="active"),
        "connecting": total(metrics, connections, state="connecting"),
    }
    return {name: value for name, value in gauges.items() if value}
