"""The platform's data for the programs, and the count of what each of them did to it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.doubles.platform import PlatformConnection, fhir, read_body

KNOWN = {"resourceType": "Patient", "id": "known", "name": [{"family": "Ғуломова"}]}
PAGES = 3
_STATEMENT = {
    "resourceType": "CapabilityStatement",
    "rest": [
        {"mode": "server", "resource": [{"type": "Patient", "searchParam": [{"name": "name"}]}]}
    ],
}
_ISSUE = {"severity": "error", "code": "not-found", "details": {"text": "Бундай ёзув йўқ"}}
_OUTCOME = {"resourceType": "OperationOutcome", "issue": [_ISSUE]}


class Records:
    """Patients by their family name, and one Binary for all; `respond` is passed to a `Platform`.

    `done` counts requests by name and kind: `search`, `create`, `update`, `delete`.
    """

    def __init__(self, base: str, content: bytes) -> None:
        self._base = base
        self._content = content
        self._names: dict[str, str] = {}
        self._versions: dict[str, int] = {}
        self.done: Counter[tuple[str, str]] = Counter()

    async def respond(self, connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        body, connection.request.body = connection.request.body, b""
        parts = urlsplit(connection.request.target)
        type_, _, id_ = parts.path.removeprefix("/r5/").partition("/")
        if type_ == "Binary":
            response = self._binary(body)
        elif connection.request.method == "GET":
            response = self._get(type_, id_, parts.query)
        else:
            response = self._write(
                connection.request.method, id_, body, connection.request.header("if-match")
            )
        connection.writer.write(response)
        await connection.writer.drain()

    def _binary(self, body: bytes) -> bytes:
        if not body:
            return fhir(self._content)
        status = 201 if body == self._content else 422
        return fhir(b'{"resourceType":"Binary"}', status, ("Location", f"{self._base}/Binary/1"))

    def _get(self, type_: str, id_: str, query: str) -> bytes:
        if type_ == "metadata":
            return _json(_STATEMENT)
        if not id_:
            return _json(self._search(query))
        return _json(KNOWN) if id_ == "known" else _json(_OUTCOME, 404)

    def _search(self, query: str) -> dict[str, Any]:
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        page = int(asked.get("_page", 1))
        links = [{"relation": "self", "url": f"{self._base}/Patient?{query}"}]
        if "name" in asked:
            self.done[asked["name"], "search"] += 1
        elif page < PAGES:
            url = f"{self._base}/Patient?_count=1&_page={page + 1}"
            links.append({"relation": "next", "url": url})
        found = {**KNOWN, "id": str(page)}
        entry = [{"fullUrl": f"{self._base}/Patient/{page}", "resource": found}]
        return {"resourceType": "Bundle", "type": "searchset", "link": links, "entry": entry}

    def _write(self, method: str, id_: str, body: bytes, etag: str | None) -> bytes:
        if method == "POST":
            id_ = str(len(self._names))
            self._names[id_] = json.loads(body)["name"][0]["family"]
            self._versions[id_] = 0
        elif id_ not in self._names:
            return _json(_OUTCOME, 404)
        elif method == "PUT" and etag != f'W/"{self._versions[id_]}"':
            return _json(_OUTCOME, 412)
        what = {"POST": "create", "PUT": "update", "DELETE": "delete"}[method]
        self.done[self._names[id_], what] += 1
        self._versions[id_] += 1
        if method == "DELETE":
            return _json(_OUTCOME)
        headers = [("ETag", f'W/"{self._versions[id_]}"')]
        if method == "POST":
            headers.append(("Location", f"{self._base}/Patient/{id_}/_history/1"))
        return fhir(body, 201 if method == "POST" else 200, *headers)


def _json(resource: dict[str, Any], status: int = 200) -> bytes:
    return fhir(json.dumps(resource, ensure_ascii=False).encode(), status)
