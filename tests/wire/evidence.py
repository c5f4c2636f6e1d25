"""The evidence of one exchange: at the caller, at the platform, in metrics and in the audit."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from tests.doubles.gateway import Running
from tests.doubles.platform import Platform
from tests.doubles.wire import Reply

RETRIES = "dhp_gateway_upstream_retries_total"
REQUESTS = "dhp_gateway_requests_total"


@dataclass(frozen=True)
class Expected:
    """The expected end of an exchange.

    `seen` is the number of its requests at the platform, `retries` the retries by cause; `outcome`
    is that of the audit record. `reason` is set for a local error; `unknown`: its outcome is
    unknown.
    """

    status: int
    reason: str = ""
    seen: int = 1
    attempts: int | None = None
    outcome: str = "success"
    upstream_status: int | None = None
    retries: dict[str, int] = field(default_factory=dict)
    retry_after: bool = False
    unknown: bool = False


async def check(
    gateway: Running, platform: Platform, reply: Reply | None, expected: Expected
) -> dict[str, Any]:
    """Check the evidence of a gateway's only exchange. Return its audit record."""
    if reply is not None:
        _check_reply(reply, expected)
    record = (await gateway.audit())[-1]
    assert len(await gateway.audit()) == 1, "every request has exactly one record"
    assert (record["status"], record["reason"]) == (expected.status, expected.reason)
    assert record["outcome"] == expected.outcome
    assert record["upstream_status"] == expected.upstream_status
    attempts = expected.seen if expected.attempts is None else expected.attempts
    assert record["attempts"] == attempts
    assert len(platform.seen) == expected.seen
    labels = {"status": str(expected.status), "reason": expected.reason}
    assert await gateway.metric(REQUESTS, **labels) == 1
    for cause in ("connect", "reused", "broken", "status", "token", "other"):
        assert await gateway.metric(RETRIES, cause=cause) == expected.retries.get(cause, 0), cause
    return record


def _check_reply(reply: Reply, expected: Expected) -> None:
    assert (reply.status, reply.reason or "") == (expected.status, expected.reason)
    assert (reply.header("retry-after") is not None) is expected.retry_after
    if not expected.reason:
        return
    (issue,) = reply.json()["issue"]
    assert issue["details"]["text"]
    assert reply.header("x-request-id") in issue["diagnostics"]
    assert ("outcome unknown" in issue["diagnostics"]) is expected.unknown


async def until_metric(gateway: Running, name: str, value: float, **labels: str) -> None:
    """Wait until a metric has a value."""
    while True:
        if await gateway.metric(name, **labels) == value:
            return
        await asyncio.sleep(0.01)
