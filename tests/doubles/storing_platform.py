"""A platform that stores what is created, and may fail after it has done so.

It searches by identifier, and applies conditions only where it `declares` them. The `valueString`
of a created resource says how its create fails: `lost`, which alone has no effect, `reset`,
`close`, `hang`, `cut`, or a status; each create fails once.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.doubles.platform import PlatformConnection, fhir, outcome, read_body, silence

FAULTS = ("lost", "reset", "close", "hang", "cut", "500", "502", "504")


class StoringPlatform:
    """The state of such a platform; `respond` is passed to a `Platform`."""

    def __init__(
        self,
        *,
        declares: bool = False,
        parameters: tuple[str, ...] = ("identifier",),
        statement: bool = True,
    ) -> None:
        self._declares = declares
        self._parameters = parameters
        self._has_statement = statement
        self._failed: set[str] = set()
        self.held: list[dict[str, Any]] = []

    def copies(self) -> Counter[str]:
        """Return how many stored resources have each key, the text of the note."""
        return Counter(each["note"][0]["text"] for each in self.held)

    async def respond(self, connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        path = urlsplit(connection.request.target).path
        if path.endswith("/metadata"):
            connection.writer.write(self._statement())
        elif connection.request.method == "GET":
            connection.writer.write(self._search(connection.request.target))
        else:
            await self._create(connection, json.loads(connection.request.body))

    async def _create(self, connection: PlatformConnection, body: dict[str, Any]) -> None:
        is_bundle = body["resourceType"] == "Bundle"
        entries = body["entry"] if is_bundle else [{"resource": body}]
        fault = entries[0]["resource"]["valueString"]
        is_first = (text := connection.request.body.decode()) not in self._failed
        self._failed.add(text)
        if is_first and fault == "lost":
            connection.reset()
            return
        for entry in entries:
            condition = entry.get("request", {}).get("ifNoneExist")
            self._store(
                entry["resource"], condition or connection.request.header("if-none-exist") or ""
            )
        made = {"resourceType": "Bundle", "type": "transaction-response"}
        if is_first and await _failed(connection, fault):
            return
        connection.writer.write(fhir(json.dumps(made if is_bundle else body).encode(), 201))

    def _store(self, resource: dict[str, Any], condition: str) -> None:
        if self._declares and condition and self._matching(condition):
            return
        self.held.append({**resource, "id": str(uuid.uuid4()), "meta": {"versionId": "1"}})

    def _matching(self, query: str) -> list[dict[str, Any]]:
        identifier = dict(parse_qsl(query)).get("identifier")
        if identifier is None or "identifier" not in self._parameters:
            return self.held
        return [
            each
            for each in self.held
            for one in each.get("identifier", ())
            if f"{one['system']}|{one['value']}" == identifier
        ]

    def _search(self, target: str) -> bytes:
        query = urlsplit(target).query
        found = self._matching(query)
        bundle = {
            "resourceType": "Bundle",
            "type": "searchset",
            "total": len(found),
            "link": [{"relation": "self", "url": f"http://p/r5/Observation?{query}"}],
            "entry": [{"resource": each} for each in found[:2]],
        }
        return fhir(json.dumps(bundle).encode())

    def _statement(self) -> bytes:
        if not self._has_statement:
            return outcome(404)
        names = [{"name": name, "type": "token"} for name in self._parameters]
        observation = {
            "type": "Observation",
            "conditionalCreate": self._declares,
            "searchParam": names,
        }
        rest = [{"mode": "server", "resource": [observation]}]
        return fhir(json.dumps({"resourceType": "CapabilityStatement", "rest": rest}).encode())


async def _failed(connection: PlatformConnection, fault: str) -> bool:
    """Fail as `fault` says, after the effect.

    Return False where the response is still to be sent.
    """
    if fault == "reset":
        connection.reset()
    elif fault == "close":
        connection.writer.close()
    elif fault == "hang":
        await silence(connection)
        connection.writer.close()
    elif fault == "cut":
        connection.writer.write(fhir(b'{"resourceType":"Observation"}', 201)[:-5])
        connection.writer.close()
    elif fault.isdigit():
        connection.writer.write(outcome(int(fault)))
    else:
        return False
    return True
