"""A sequence of requests to a FHIR server as a hospital system sends them, run twice and compared.

A `World` is one route to the server, with or without the gateway. Both runs send the same requests
in the same order. What a server generates (ids, versions, times) is replaced by a name in the order
of appearance, and the base URL by `BASE`. All else must be equal, octet for octet.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import itertools
import json
import re
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, urljoin

import aiohttp
from yarl import URL

FHIR = "application/fhir+json"
# Fields of one connection, of the length of what may hold links, and those that the gateway sets.
IGNORED = frozenset(
    (
        *("connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"),
        *("via", "x-gateway-warning", "x-request-id"),
    )
)
KEPT_WITH_ERRORS = ("allow", "retry-after")
LOCATIONS = ("location", "content-location")
# UUIDs, 16 hexadecimal digits, and HAPI's ids of exported files.
_MADE_UP = re.compile(
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|\b[0-9a-f]{16}\b|(?<=Binary/)[0-9A-Za-z]{32}\b"
)
_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)"
    r"|[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT|Took \d+ms"
)


Leg = Callable[["World"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Answer:
    """The response to a request, with names in place of generated values."""

    request: str
    status: int
    fields: Mapping[str, str]
    body: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """The bodies of a request and of its response at the caller, with their media types."""

    request_id: str
    sent: bytes
    sent_type: str
    received: bytes
    received_type: str


@dataclass(slots=True)
class World:
    """One route to a server; `fields` go with each request, `answers` are in order.

    `behind` is the base of the server where `base` is that of a gateway, `added` the names of the
    fields that it adds.
    """

    session: aiohttp.ClientSession
    base: str
    fields: Mapping[str, str] = field(default_factory=dict)
    behind: str = ""
    added: frozenset[str] = frozenset()
    family: str = field(default_factory=lambda: f"Drive{uuid.uuid4()}")
    answers: list[Answer] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)

    async def ask(
        self, method: str, path: str, body: Any = None, kind: str = FHIR, **fields: str
    ) -> tuple[Mapping[str, str], Any]:
        """Send a request to a path below the base, or to a URL that the server has returned."""
        url = path if path.startswith("http") else f"{self.base}{path}"
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        if body is not None:
            headers["Content-Type"] = kind
            body = body if isinstance(body, bytes | str) else json.dumps(body)
        headers = {"Accept": FHIR, **self.fields, **headers}
        target = URL(url, encoded=True)
        async with self.session.request(
            method, target, data=body, headers=headers, allow_redirects=False
        ) as answer:
            content = await answer.read()
        sent_body = body.encode() if isinstance(body, str) else body or b""
        declared = (answer.headers.get("X-Request-Id", ""), sent_body, kind)
        self.exchanges.append(Exchange(*declared, content, answer.content_type))
        kept = {
            name: ", ".join(answer.headers.getall(name))
            for name in map(str.lower, answer.headers)
            if name not in IGNORED | self.added
        }
        # Some servers return a path instead of a URL.
        kept |= {name: urljoin(url, kept[name]) for name in LOCATIONS if name in kept}
        kept = {name: self.normalized(value) for name, value in kept.items()}
        # Added by the gateway where the server says nothing.
        kept.setdefault("cache-control", "no-store")
        kept.setdefault("vary", "Accept-Encoding")
        text = content.decode("utf-8", "surrogateescape")
        sent = self.normalized(f"{method} {url}")
        # What the gateway makes up itself would move the numbers of all that follows.
        body = text if "x-gateway-error" in kept else self.normalized(text)
        self.answers.append(Answer(sent, answer.status, kept, body))
        is_json = "json" in answer.content_type and "ndjson" not in answer.content_type
        return answer.headers, json.loads(text) if is_json and text else text

    def edit(self, change: Callable[[str], str]) -> None:
        """Replace the body of the last response, of which a part cannot be compared."""
        last = self.answers.pop()
        self.answers.append(replace(last, body=change(last.body)))

    def normalized(self, text: str) -> str:
        """Return the text with names in place of what differs between worlds."""
        escaped = re.escape(self.base).replace("/", "\\/")
        # A link's query is the server's own and stays as it is; its values are percent-encoded.
        queries = (quote(self.base, safe=""), quote(self.behind or self.base, safe=""))
        for written in (self.base, escaped, *queries):
            text = text.replace(written, "BASE")
        text = _TIME.sub("TIME", text)
        return _MADE_UP.sub(self._name, text)

    def _name(self, found: re.Match[str]) -> str:
        return self._names.setdefault(found[0], f"#{len(self._names) + 1}")

    def patient(self, **elements: Any) -> dict[str, Any]:
        """Return a patient with a family name that only this world uses."""
        return {"resourceType": "Patient", "name": [{"family": self.family}], **elements}

    async def create_patient(self, **elements: Any) -> str:
        head, created = await self.ask("POST", "/Patient", self.patient(**elements))
        if not created:
            created = {"id": head["Location"].partition("/Patient/")[2].partition("/")[0]}
        return f"/Patient/{created['id']}"

    async def search_all_pages(self, path: str) -> list[str]:
        """Return the ids that a search finds, page by page."""
        found: list[str] = []
        following: str | None = path
        while following is not None:
            _, page = await self.ask("GET", following)
            found += [each["resource"]["id"] for each in page.get("entry", ())]
            links = {each["relation"]: each["url"] for each in page.get("link", ())}
            following = links.get("next")
        return found


async def statement(world: World) -> None:
    """Compare what the server declares.

    Left out are the sign-in, which the gateway replaces, and canonicals, which are identifiers and
    no links, whatever address they start with.
    """
    await world.ask("GET", "/metadata")
    declared = json.loads(world.answers[-1].body)
    shown = {
        "implementation": declared.get("implementation"),
        "resources": [
            {key: value for key, value in each.items() if key not in {"operation", "searchParam"}}
            for each in declared["rest"][0]["resource"]
        ],
    }
    assert shown["resources"]
    world.edit(lambda _: json.dumps(shown))


async def create_to_delete(world: World) -> None:
    """Go from create to delete with what every server has."""
    path = await world.create_patient()
    await world.ask("GET", path)
    await world.ask("HEAD", path)
    body = world.patient(id=path.rpartition("/")[2], gender="female")
    await world.ask("PUT", path, body)
    await world.ask("GET", path)
    await world.ask("GET", f"/Patient?family={world.family}")
    await world.ask("DELETE", path)
    await world.ask("GET", path)
    await world.ask("DELETE", path)


async def patch(world: World) -> None:
    """Send JSON Patches, one of which does not fit."""
    path = await world.create_patient(gender="female")
    for element in ("/gender", "/none-such/0"):
        body = [{"op": "replace", "path": element, "value": "other"}]
        await world.ask("PATCH", path, body, kind="application/json-patch+json")
    await world.ask("GET", path)


async def preconditions(world: World) -> None:
    """Read and write under conditions that hold and that do not."""
    path = await world.create_patient()
    read, created = await world.ask("GET", path)
    for tag in (read["ETag"], 'W/"77"', "*"):
        await world.ask("GET", path, If_None_Match=tag)
    for moment in (read["Last-Modified"], "Mon, 01 Jan 2024 00:00:00 GMT"):
        await world.ask("GET", path, If_Modified_Since=moment)
    body = created | {"gender": "female"}
    change = [{"op": "add", "path": "/active", "value": True}]
    for tag in (read["ETag"], read["ETag"], 'W/"77"', "no tag"):
        await world.ask("PUT", path, body, If_Match=tag)
    for tag in (read["ETag"], 'W/"2"'):
        kind = "application/json-patch+json"
        await world.ask("PATCH", path, change, kind=kind, If_Match=tag)
    await world.ask("DELETE", path, If_Match=read["ETag"])
    await world.ask("GET", path)


async def history(world: World) -> None:
    """Read versions, and the histories of a record, a type and the server."""
    path = await world.create_patient()
    body = world.patient(id=path.rpartition("/")[2], gender="female")
    head, _ = await world.ask("PUT", path, body)
    if "Location" in head:
        await world.ask("GET", head["Location"].removesuffix("/"))
    await world.ask("DELETE", path)
    _, versions = await world.ask("GET", f"{path}/_history")
    for entry in versions.get("entry", ()):
        version = entry.get("resource", {}).get("meta", {}).get("versionId")
        await world.ask("GET", f"{path}/_history/{version}")
    await world.ask("GET", f"{path}/_history/77")
    for each in ("/Patient/_history?_count=2", "/_history?_count=2"):
        await world.ask("GET", each)
        # Other tests have written, too: how much there is differs.
        world.edit(lambda text: re.sub(r'"total": ?\d+', '"total":0', text))


async def preferences(world: World) -> None:
    """Ask for each of the three kinds of responses to a create and to an update."""
    for value in ("minimal", "representation", "OperationOutcome"):
        head, _ = await world.ask("POST", "/Patient", world.patient(), Prefer=f"return={value}")
        path = "/Patient/" + head["Location"].partition("/Patient/")[2].partition("/")[0]
        body = world.patient(id=path.rpartition("/")[2], active=True)
        await world.ask("PUT", path, body, Prefer=f"return={value}")
    for value in ("strict", "lenient"):
        await world.ask("GET", "/Patient?no-such-parameter=1&_count=0", Prefer=f"handling={value}")
        world.edit(lambda text: re.sub(r'"total": ?\d+', '"total":0', text))


async def formats(world: World) -> None:
    """Ask for formats by parameter and by field, known ones and others, and for codings."""
    path = await world.create_patient(gender="other")
    for query in ("_format=json", "_format=application%2Ffhir%2Bjson", "_format=nothing"):
        await world.ask("GET", f"{path}?{query}", Accept="*/*")
    await world.ask("GET", f"{path}?_pretty=true&_summary=true")
    for accept in ("application/json", "application/fhir+json;fhirVersion=4.0", "image/png"):
        await world.ask("GET", path, Accept=accept)
    for coding in ("gzip", "identity", "br"):
        await world.ask("GET", path, Accept_Encoding=coding)
    packed = gzip.compress(json.dumps(world.patient(active=True)).encode(), mtime=0)
    await world.ask("POST", "/Patient", packed, Content_Encoding="gzip")


async def searches(world: World) -> None:
    """Create results of a patient, one with an absolute reference, and find them page by page."""
    patient = await world.create_patient()
    code = {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}
    observation = {"resourceType": "Observation", "status": "final", "code": code}
    absolute = observation | {"subject": {"reference": f"{world.base}{patient}"}}
    head, _ = await world.ask("POST", "/Observation", absolute)
    await world.ask("GET", head["Location"])
    await world.ask("DELETE", head["Location"].partition("/_history")[0])
    subject = patient.removeprefix("/")
    count = 7
    for number in range(count):
        value = {"valueQuantity": {"value": number + 0.50, "unit": "g/dL"}}
        body = observation | {"subject": {"reference": subject}} | value
        await world.ask("POST", "/Observation", body)
    found = await world.search_all_pages(
        f"/Observation?subject={subject}&_count=3&_sort=_lastUpdated"
    )
    assert len(set(found)) == len(found) == count
    await world.ask("GET", f"/Observation?subject={world.base}{patient}&_count=1")
    encoded = quote(f"{world.base}{patient}", safe="")
    await world.ask("GET", f"/Observation?subject={encoded}&_count=1")
    await world.ask("GET", f"/Observation?subject={subject}&_include=Observation:subject&_count=1")
    form = f"subject={subject.replace('/', '%2F')}&_count=2"
    await world.ask("POST", "/Observation/_search", form, kind="application/x-www-form-urlencoded")
    await world.ask("GET", f"/Patient?family={world.family}&_summary=count")
    await world.ask("HEAD", f"/Patient?family={world.family}")


async def conditions(world: World) -> None:
    """Send conditional create, update, patch and delete; what exists is not created again."""
    value = f"drive|{uuid.uuid4()}"
    criteria = f"identifier={value.replace('|', '%7C')}"
    system, _, number = value.partition("|")
    body = world.patient(identifier=[{"system": system, "value": number}])
    await world.ask("POST", "/Patient", body, If_None_Exist=criteria)
    await world.ask("POST", "/Patient", body, If_None_Exist=criteria)
    await world.ask("PUT", f"/Patient?{criteria}", body | {"active": True})
    await world.ask("GET", f"/Patient?{criteria}")
    change = [{"op": "add", "path": "/gender", "value": "other"}]
    kind = "application/json-patch+json"
    await world.ask("PATCH", f"/Patient?{criteria}", change, kind=kind)
    await world.ask("DELETE", f"/Patient?{criteria}")
    await world.ask("GET", f"/Patient?{criteria}")


async def bundles(world: World) -> None:
    """Send a batch that fails in part, a transaction, and one that fails as a whole."""
    patient = await world.create_patient()
    full_url = f"urn:uuid:{uuid.uuid4()}"
    create = {"method": "POST", "url": "Observation"}
    observation = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}
    entries = [
        {"request": {"method": "GET", "url": patient.removeprefix("/")}},
        {"request": {"method": "GET", "url": "Patient/none-such"}},
        {"request": {"method": "GET", "url": f"Patient?family={world.family}"}},
    ]
    await world.ask("POST", "", {"resourceType": "Bundle", "type": "batch", "entry": entries})
    entries = [
        {
            "fullUrl": full_url,
            "resource": world.patient(),
            "request": {"method": "POST", "url": "Patient"},
        },
        {
            "fullUrl": f"urn:uuid:{uuid.uuid4()}",
            "resource": observation | {"subject": {"reference": full_url}},
            "request": create,
        },
        {
            "fullUrl": f"urn:uuid:{uuid.uuid4()}",
            "resource": observation | {"subject": {"reference": f"{world.base}{patient}"}},
            "request": create,
        },
    ]
    whole = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    _, made = await world.ask("POST", "", whole)
    for each in made["entry"]:
        await world.ask("GET", "/" + each["response"]["location"].split("/fhir/")[-1].lstrip("/"))
    broken = {"resource": {"resourceType": "Nothing"}, "request": create}
    await world.ask("POST", "", whole | {"entry": [*entries, broken]})


async def operations(world: World) -> None:
    """Call operations of a record and of a type, and one that there is not."""
    patient = await world.create_patient()
    observation = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}
    subject = {"subject": {"reference": f"{world.base}{patient}"}}
    await world.ask("POST", "/Observation", observation | subject)
    await world.ask("GET", f"{patient}/$everything")
    await world.ask("POST", "/Patient/$validate", world.patient(gender="female"))
    await world.ask("POST", "/Patient/$validate", world.patient(gender="no code"))
    await world.ask("POST", f"{patient}/$no-such-operation", {"resourceType": "Parameters"})


async def binary_in_fhir(world: World) -> None:
    """Create a Binary as a resource with a security context, and read it."""
    patient = await world.create_patient()
    binary = {
        "resourceType": "Binary",
        "contentType": "application/pdf",
        "securityContext": {"reference": patient.removeprefix("/")},
        "data": base64.b64encode(bytes(range(256)) * 40).decode(),
    }
    head, _ = await world.ask("POST", "/Binary", binary)
    await world.ask("GET", head["Location"].partition("/_history")[0])


async def binary_as_octets(world: World) -> None:
    """Create and read a Binary as raw octets, which are no valid text."""
    patient = await world.create_patient()
    content = bytes(range(256)) * 1000 + f"{world.base}/Patient/1".encode()
    context = patient.removeprefix("/")
    head, _ = await world.ask(
        *("POST", "/Binary", content),
        kind="application/pdf",
        X_Security_Context=context,
        Prefer="return=minimal",
    )
    read, _ = await world.ask("GET", head["Location"], Accept="*/*")
    assert read["Content-Type"] == "application/pdf"
    assert read["Content-Length"] == str(len(content))


async def exported(world: World, path: str) -> tuple[str, Any]:
    """Return the status URL and the manifest of an export, once it is complete."""
    head, _ = await world.ask("GET", path, Prefer="respond-async")
    place = head["Content-Location"]
    while True:
        _, manifest = await world.ask("GET", place)
        if world.answers[-1].status != 202:
            return place, manifest
        # The number of polls is random, so that these responses are not compared.
        world.answers.pop()
        await asyncio.sleep(0.1)


async def export(world: World) -> None:
    """Export a group with one patient, fetch every file, and delete the export."""
    patient = await world.create_patient()
    subject = {"subject": {"reference": patient.removeprefix("/")}}
    code = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}
    await world.ask("POST", "/Observation", code | subject)
    member = {"entity": {"reference": patient.removeprefix("/")}}
    group = {"resourceType": "Group", "type": "person", "actual": True, "member": [member]}
    _, made = await world.ask("POST", "/Group", group)
    path = f"/Group/{made['id']}/$export"
    await world.ask("GET", path)
    place, manifest = await exported(world, path)
    assert {each["type"] for each in manifest["output"]} >= {"Patient", "Observation"}
    for each in manifest["output"]:
        await world.ask("GET", each["url"], Accept="application/fhir+ndjson")
        # The server sorts the resources by ids, which are random.
        world.edit(lambda text: "\n".join(sorted(text.splitlines())))
    await world.ask("DELETE", place)
    await world.ask("GET", place)


async def in_xml(world: World) -> None:
    """Read and write FHIR's XML format, with absolute references in both directions."""
    patient = await world.create_patient()
    xml = "application/fhir+xml"
    subject = f'<subject><reference value="{world.base}{patient}"/></subject>'
    head, _ = await world.ask(
        "POST",
        "/Observation",
        '<Observation xmlns="http://hl7.org/fhir"><status value="final"/>'
        f'<code><text value="x"/></code>{subject}</Observation>',
        kind=xml,
        Accept=xml,
    )
    for path in (
        head["Location"],
        f"/Observation?subject={patient.removeprefix('/')}&_count=2&_sort=_lastUpdated",
        f"{patient}/_history?_format=xml",
        "/Patient/none-such",
    ):
        head, text = await world.ask("GET", path, Accept=xml)
        assert head["Content-Type"].startswith(xml)
        assert text.startswith("<")


async def invalid_requests(world: World) -> None:
    """Send invalid requests: the server's own errors must arrive unchanged."""
    patient = await world.create_patient()
    await world.ask("GET", "/Patient/none-such")
    await world.ask("GET", "/NoType/1")
    await world.ask("POST", "/Patient", '{"resourceType":"Patient",')
    await world.ask("POST", "/Patient", "")
    await world.ask("POST", "/Patient", {"resourceType": "Observation"})
    await world.ask("POST", "/Patient", world.patient(gender=["no", "code"]))
    await world.ask("POST", "/Patient", world.patient(), kind="text/csv")
    await world.ask("PUT", patient, world.patient(id="another"))
    assigned = str(uuid.uuid4())
    await world.ask("PUT", f"/Patient/{assigned}", world.patient(id=assigned))
    await world.ask("DELETE", "/Patient/none-such")
    await world.ask("DELETE", "/metadata")


# The rows of the table.
LEGS: dict[str, Leg] = {
    "statement": statement,
    "create, read, update, delete": create_to_delete,
    "JSON Patch": patch,
    "preconditions: 304, 412": preconditions,
    "vread and histories": history,
    "Prefer": preferences,
    "formats and codings": formats,
    "search, pages to the end": searches,
    "conditional writes": conditions,
    "batch and transaction": bundles,
    "operations": operations,
    "Binary as a resource": binary_in_fhir,
    "Binary as octets": binary_as_octets,
    "bulk export": export,
    "XML": in_xml,
    "mistakes": invalid_requests,
}


def difference(direct: Answer | None, through: Answer | None) -> str:
    """Return what differs, with the place in the body, or nothing.

    Requests differ where links were followed that do. For an error that is no FHIR the gateway
    returns an OperationOutcome with the same status.
    """
    if direct is None or through is None or direct.request != through.request:
        return f"{direct and direct.request} → {through and through.request}"
    is_error = direct.status == through.status >= 400 and '"resourceType"' not in direct.body
    if is_error and through.fields.get("x-gateway-error") == "upstream-non-fhir":
        kept = {name: direct.fields[name] for name in direct.fields if name in KEPT_WITH_ERRORS}
        return difference(replace(through, fields={**through.fields, **kept}), through)
    found = [f"status {direct.status} → {through.status}"] * (direct.status != through.status)
    for name in sorted({*direct.fields, *through.fields}):
        one, other = direct.fields.get(name), through.fields.get(name)
        found += [f"{name}: {one} → {other}"] * (one != other)
    if direct.body != through.body:
        pairs = zip(direct.body, through.body, strict=False)
        at = next((at for at, (one, other) in enumerate(pairs) if one != other), 0)
        begin, end = max(0, at - 30), at + 50
        found.append(f"{direct.body[begin:end]!r} → {through.body[begin:end]!r}")
    return f"{direct.request}: {'; '.join(found)}" if found else ""


async def compare_routes(
    direct: World, through: World, legs: Iterable[str], known: Mapping[str, Leg] = LEGS
) -> None:
    """Send the requests of these rows on both routes, and compare all responses."""
    for each in legs:
        await known[each](direct)
        await known[each](through)
    pairs = itertools.zip_longest(direct.answers, through.answers)
    differing = [found for each in pairs if (found := difference(*each))]
    assert not differing, "\n".join(differing)
