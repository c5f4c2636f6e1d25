"""A platform that records each write that took effect, in order.

Its `weather` has one word for each of the next writes: `busy` is a 503, `lost` breaks off before
the effect, `answer-lost` after it, `slow` delays the response.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.doubles.platform import (
    PlatformConnection,
    ReceivedRequest,
    fhir,
    http,
    outcome,
    read_body,
)

REQUEST_ID = "X-Request-Id"
_STATEMENT: dict[str, Any] = {
    "resourceType": "CapabilityStatement",
    "fhirVersion": "5.0.0",
    "rest": [
        {
            "mode": "server",
            "resource": [
                {
                    "type": "Observation",
                    "conditionalCreate": True,
                    "searchParam": [{"name": "identifier", "type": "token"}],
                }
            ],
        }
    ],
}


class RememberingPlatform:
    """Its state; `answer` is passed to a `Platform`.

    `effects` has request id and content of each write.
    """

    def __init__(self) -> None:
        self.effects: list[tuple[str, bytes]] = []
        self.faults_ahead: list[str] = []
        self._created: list[dict[str, Any]] = []
        self._stored: dict[str, dict[str, Any]] = {}

    async def respond(self, connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        target = connection.request.target.removeprefix("/r5/")
        if connection.request.method == "GET":
            connection.writer.write(self._read(target))
            return
        faults_ahead = self.faults_ahead.pop(0) if self.faults_ahead else "fine"
        if faults_ahead == "busy":
            connection.writer.write(outcome(503, ("Retry-After", "30")))
            return
        if faults_ahead != "lost":
            answer = self._write(connection.request, target)
        if faults_ahead in ("lost", "answer-lost"):
            connection.writer.close()
            return
        if faults_ahead == "slow":
            await asyncio.sleep(0.7)
        connection.writer.write(answer)

    def _read(self, target: str) -> bytes:
        path, _, query = target.partition("?")
        if path == "metadata":
            return _json(_STATEMENT)
        if query:
            return self._search(target, query)
        return _json(self._stored[path]) if path in self._stored else outcome(404)

    def _search(self, target: str, query: str) -> bytes:
        value = query.split("&")[0].rpartition("%7C")[2]
        matches = [{"resource": each} for each in self._identified(value)]
        bundle = {
            "resourceType": "Bundle",
            "type": "searchset",
            "total": len(matches),
            "link": [{"relation": "self", "url": f"http://p/r5/{target}"}],
            "entry": matches,
        }
        return _json(bundle)

    def _identified(self, value: str) -> list[dict[str, Any]]:
        return [
            each
            for each in self._created
            if value in [identifier["value"] for identifier in each.get("identifier", ())]
        ]

    def _write(self, seen: ReceivedRequest, path: str) -> bytes:
        condition = seen.header("If-None-Exist")
        if condition is not None and (found := self._identified(condition.rpartition("|")[2])):
            return _json(found[0])
        self.effects.append((seen.header(REQUEST_ID) or "", seen.body))
        if seen.method == "DELETE":
            self._stored.pop(path, None)
            return http(204, length=False)
        resource = json.loads(seen.body)
        if seen.method == "POST":
            resource["id"] = str(len(self._created))
            self._created.append(resource)
            return _json(resource, 201)
        self._stored[path] = resource
        return _json(resource)


def _json(resource: dict[str, Any], status: int = 200) -> bytes:
    return fhir(json.dumps(resource).encode(), status)
