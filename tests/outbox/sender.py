"""A `Sender` that records its calls and returns what a test specifies."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

from gateway.outbox.attempt_result import AttemptResult, VerificationStatus
from gateway.outbox.entry import OutboxEntry, QueuedRequest, StoredResponse

OK = StoredResponse(200, ((b"etag", b'W/"1"'),), b'{"resourceType":"Observation"}')
UNREACHABLE = AttemptResult(cause="upstream-unreachable")
LOST = AttemptResult(cause="upstream-timeout", may_have_effect=True)
NONE_FOUND = AttemptResult(finding=VerificationStatus.ABSENT)

SendResult = StoredResponse | AttemptResult


@dataclass
class RecordingSender:
    """A sender; `results` and `findings` by request id are used first, then the usual ones.

    Sends of request ids in `held` wait until their event is set. `seen` has the request ids sent,
    in order, `asked` those verified.
    """

    usual: SendResult = OK
    usual_finding: AttemptResult = NONE_FOUND
    results: dict[str, list[SendResult | Exception]] = field(
        default_factory=lambda: defaultdict(list)
    )
    findings: dict[str, list[AttemptResult]] = field(default_factory=lambda: defaultdict(list))
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    probed: int = 0
    stopped: list[str] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0

    def hold(self, request_id: str) -> None:
        """Let the sends of this request id wait."""
        self.held[request_id] = asyncio.Event()

    async def send(self, entry: OutboxEntry, request: QueuedRequest) -> AttemptResult:
        name = request.request_id
        self.seen.append(name)
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            gate = self.held.get(name)
            if gate is not None:
                await gate.wait()
        except asyncio.CancelledError:
            self.stopped.append(name)
            raise
        finally:
            self.busy -= 1
        results = self.results[name]
        result = results.pop(0) if results else self.usual
        if isinstance(result, Exception):
            raise result
        return result if isinstance(result, AttemptResult) else AttemptResult(result)

    async def probe(self) -> None:
        """Count a probe; the test itself reports its result."""
        self.probed += 1

    async def verify(self, entry: OutboxEntry, request: QueuedRequest) -> AttemptResult:
        self.asked.append(request.request_id)
        findings = self.findings[request.request_id]
        return findings.pop(0) if findings else self.usual_finding
