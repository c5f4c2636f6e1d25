"""A hand-written `Sender` which records what it was given and answers as told."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.outbox.entry import Entry, Request, Response
from gateway.outbox.sending import Comparison, Effect, Failure, Found, Result

OK = Response(200, ((b"etag", b'W/"1"'),), b'{"resourceType":"Observation"}')
UNREACHABLE = Failure(Effect.NONE, "upstream-unreachable")
LOST = Failure(Effect.UNKNOWN, "upstream-timeout")
NONE_FOUND = Comparison(Found.NO)

Say = Result | Callable[[], Result]


@dataclass
class RecordingSender:
    """`results` and `findings` are used up by request id, then the usual ones follow.

    Sends of request ids in `held` wait until they are let go. `seen` has what was called, in order.
    """

    usual: Result = OK
    usual_finding: Comparison | Failure = NONE_FOUND
    results: dict[str, list[Result | Exception]] = field(default_factory=lambda: defaultdict(list))
    findings: dict[str, list[Comparison | Failure]] = field(
        default_factory=lambda: defaultdict(list)
    )
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    probed: int = 0
    stopped: list[str] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0

    def hold(self, request_id: str) -> None:
        """Let the sends of this one hang."""
        self.held[request_id] = asyncio.Event()

    async def send(self, entry: Entry, request: Request) -> Result:
        """One attempt."""
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
        return result

    async def probe(self) -> None:
        """The light question; a test says itself what came of it."""
        self.probed += 1

    async def ask(self, entry: Entry, request: Request) -> Comparison | Failure:
        """The question."""
        self.asked.append(request.request_id)
        findings = self.findings[request.request_id]
        return findings.pop(0) if findings else self.usual_finding
