"""Searchset pages made of the example resources, for the benchmark of rewriting.

Run as a program it serves them over HTTP/1.1: `pages.py PORT BASE SIZE…` at `/fhir/page/SIZE`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

DATA = Path(__file__).resolve().parent.parent / "gateway" / "sandbox" / "data"
EXAMPLE_BASE = "https://playground.dhp.uz/fhir"
NAMES = (
    *("patient-uz", "patient-ru", "patient-foreign", "observation-cbc", "encounter-visit"),
    *("diagnosticreport-cbc", "condition-hypertension", "observation-blood-pressure"),
)


def _compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _entries(size: int) -> Iterator[dict[str, Any]]:
    """Return resources with their fullUrl, until they take `size` bytes."""
    resources = [json.loads((DATA / f"{name}.json").read_text()) for name in NAMES]
    length = number = 0
    while length < size:
        resource = {**resources[number % len(resources)], "id": f"id-{number}"}
        url = f"{EXAMPLE_BASE}/{resource['resourceType']}/{resource['id']}"
        entry = {"fullUrl": url, "resource": resource}
        yield entry
        length += len(_compact(entry)) + 1
        number += 1


def transaction(size: int, base: str) -> bytes:
    """Return a transaction Bundle of at least `size` bytes that updates resources under `base`."""
    entries = []
    for entry in _entries(size):
        path = entry["fullUrl"].removeprefix(f"{EXAMPLE_BASE}/")
        entries.append(_compact({**entry, "request": {"method": "PUT", "url": path}}))
    bundle = b'{"resourceType":"Bundle","type":"transaction","entry":[%s]}' % b",".join(entries)
    return bundle.replace(EXAMPLE_BASE.encode(), base.encode())


def searchset(size: int, base: str, *, dense: bool = False, query: str = "Patient") -> bytes:
    """Return a page of at least `size` bytes whose links are under `base`, found by `query`.

    In a `dense` one all references are absolute too, which few servers do.
    """
    entries = [_compact({**entry, "search": {"mode": "match"}}) for entry in _entries(size)]
    joint = "&" if "?" in query else "?"
    links = [
        {"relation": relation, "url": f"{EXAMPLE_BASE}/{query}{joint}_page={page}"}
        for relation, page in (("self", 2), ("next", 3), ("previous", 1))
    ]
    head = {"resourceType": "Bundle", "type": "searchset", "total": 10**6, "link": links}
    page = b'%s,"entry":[%s]}' % (_compact(head)[:-1], b",".join(entries))
    if dense:
        page = re.sub(rb'("reference":")(?=[A-Z])', rb"\1%s/" % EXAMPLE_BASE.encode(), page)
    return page.replace(EXAMPLE_BASE.encode(), base.encode())


def linked(size: int, base: str) -> bytes:
    """Return a page of Observations of at least `size` bytes, with a link in each 200 bytes."""
    entries: list[dict[str, Any]] = []
    while len(entries) * 780 < size:
        url = f"{base}/Observation/id-{len(entries)}"
        resource = {
            "resourceType": "Observation",
            "id": f"id-{len(entries)}",
            "status": "final",
            "code": {
                "coding": [{"system": "http://loinc.org", "code": "718-7"}],
                "text": "Hgb, г/л",
            },
            "subject": {"reference": f"{base}/Patient/id-{len(entries)}", "display": "Каримова Д."},
            "encounter": {"reference": f"{base}/Encounter/id-{len(entries)}"},
            "effectiveDateTime": "2026-11-20T09:30:00+05:00",
            "performer": [{"reference": f"{base}/Practitioner/{number}"} for number in (1,)],
            "valueQuantity": {"value": 7.20, "unit": "g/dL", "system": "http://unitsofmeasure.org"},
        }
        entries.append({"fullUrl": url, "resource": resource, "search": {"mode": "match"}})
    link = [{"relation": "self", "url": f"{base}/Observation?_count={len(entries)}"}]
    head = {"resourceType": "Bundle", "type": "searchset", "total": 9, "link": link}
    return _compact({**head, "entry": entries})


def linked_xml(size: int, base: str) -> bytes:
    """Return such a page in XML."""
    entry = (
        '<entry><fullUrl value="{0}/Observation/id-{1}"/><resource><Observation><id value="{1}"/>'
        '<status value="final"/><subject><reference value="{0}/Patient/id-{1}"/></subject>'
        '<encounter><reference value="{0}/Encounter/id-{1}"/></encounter><performer>'
        '<reference value="{0}/Practitioner/1"/></performer></Observation></resource></entry>'
    )
    entries = "".join(entry.format(base, number) for number in range(size // 400))
    head = '<Bundle xmlns="http://hl7.org/fhir"><type value="searchset"/>'
    return f"{head}{entries}</Bundle>".encode()


def _turned(value: Any) -> Any:
    """Return the value with the members of all objects in the opposite order."""
    if isinstance(value, dict):
        return {name: _turned(value[name]) for name in reversed(value)}
    return [_turned(each) for each in value] if isinstance(value, list) else value


SPELLINGS: Final[dict[str, Callable[[Any], str]]] = {
    "compact": lambda page: _compact(page).decode(),
    "python": json.dumps,
    "turned": lambda page: _compact(_turned(page)).decode(),
    "sorted": lambda page: _compact(json.loads(json.dumps(page, sort_keys=True))).decode(),
    "indented": lambda page: json.dumps(page, indent=2, ensure_ascii=False),
    "tabs": lambda page: json.dumps(page, indent="\t", ensure_ascii=False).replace("\n", "\r\n"),
    "ascii": lambda page: json.dumps(page, separators=(",", ":")),
    "slashes": lambda page: _compact(page).decode().replace("/", "\\/"),
}
"""The ways to write one page, by name: blanks, orders of members and escapes of many libraries."""


def spelled(page: bytes, spelling: str) -> bytes:
    """Return the page in another spelling."""
    return SPELLINGS[spelling](json.loads(page)).encode()


def signed(page: bytes) -> bytes:
    """Return the Bundle with a signature at its end."""
    return page[:-1] + b',"signature":{"who":{"reference":"Practitioner/1"},"data":"c2ln"}}'


def document(size: int) -> bytes:
    """Return a DocumentReference of `size` bytes with a file in it."""
    data = base64.b64encode(random.Random(7).randbytes(size * 3 // 4)).decode()  # noqa: S311
    attachment = {"contentType": "application/pdf", "data": data}
    resource = {"resourceType": "DocumentReference", "status": "current"}
    return _compact({**resource, "content": [{"attachment": attachment}]})


def documents(size: int, base: str) -> bytes:
    """Return a searchset of `size` bytes: 500 DocumentReferences with files, and 1,000 links."""
    resource = json.loads(document(size // 500))
    entries = []
    for number in range(500):
        name = f"id-{number}"
        linked_resource = {**resource, "id": name, "subject": {"reference": f"{base}/Patient/1"}}
        url = f"{base}/DocumentReference/{name}"
        entries.append({"fullUrl": url, "resource": linked_resource})
    return _compact({"resourceType": "Bundle", "type": "searchset", "entry": entries})


def observation(size: int) -> bytes:
    """Return a new Observation of at least `size` bytes, with as many components as that takes."""
    resource = json.loads((DATA / "observation-blood-pressure.json").read_text())
    del resource["id"]
    components = list(resource["component"])
    while len(body := _compact(resource)) < size:
        resource["component"] += components[:1]
    return body


class _Server(asyncio.Protocol):
    """Responds to every GET with the page that its path names, as fast as it is read."""

    def __init__(self, pages: dict[bytes, bytes]) -> None:
        self._pages = pages
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport (asyncio.Protocol)."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Respond to each request whose header section is complete (asyncio.Protocol)."""
        *requests, self._received = (self._received + data).split(b"\r\n\r\n")
        for request in requests:
            page = self._pages[request.split(b" ", 2)[1].rpartition(b"/")[2]]
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\nContent-Length: %d"
            assert isinstance(self._transport, asyncio.Transport)
            self._transport.write(head % len(page) + b"\r\n\r\n")
            self._transport.write(page)


async def _serve(port: int, base: str, sizes: list[str]) -> None:
    pages = {size.encode(): searchset(int(size), base) for size in sizes}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Server(pages), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
