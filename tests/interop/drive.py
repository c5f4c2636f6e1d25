"""A sequence of requests to a FHIR server as a hospital system sends them, run twice and compared.

A `World` is one route to the server, with or without the gateway. Both runs send the same requests
in the same order. What a server generates (ids, versions, times) is replaced by a name in the order
of appearance, and the base URL by `BASE`. All else must be equal, octet for octet.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
from yarl import URL

FHIR = "application/fhir+json"
# Fields of a response that a client uses; the last one would mark a local error of the gateway.
FIELDS = (
    *("Content-Type", "ETag", "Location", "Content-Location", "Last-Modified", "Allow"),
    *("Retry-After", "X-Progress", "X-Security-Context", "X-Gateway-Error"),
)
_MADE_UP = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|\b[0-9a-f]{16}\b")
_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)"
    r"|[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"
)


Leg = Callable[["World", str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Answer:
    """The response to a request, with names in place of generated values."""

    request: str
    status: int
    fields: Mapping[str, str]
    body: str


@dataclass(slots=True)
class World:
    """One route to a server; `fields` go with each request, `answers` are in order."""

    session: aiohttp.ClientSession
    base: str
    fields: Mapping[str, str] = field(default_factory=dict)
    family: str = field(default_factory=lambda: f"Drive{uuid.uuid4()}")
    answers: list[Answer] = field(default_factory=list)
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
        kept = {each: self.named(answer.headers[each]) for each in FIELDS if each in answer.headers}
        text = content.decode("utf-8", "surrogateescape")
        sent = self.named(f"{method} {url}")
        self.answers.append(Answer(sent, answer.status, kept, self.named(text)))
        is_json = "json" in answer.content_type and "ndjson" not in answer.content_type
        return answer.headers, json.loads(text) if is_json and text else text

    def named(self, text: str) -> str:
        """Return the text with names in place of what differs between worlds."""
        # Some servers return a path instead of a URL.
        for written in (self.base, re.escape(self.base).replace("/", "\\/")):
            text = text.replace(written, "BASE")
        text = _TIME.sub("TIME", text)
        return _MADE_UP.sub(self._name, text)

    def _name(self, found: re.Match[str]) -> str:
        return self._names.setdefault(found[0], f"#{len(self._names) + 1}")

    def patient(self, **elements: Any) -> dict[str, Any]:
        """Return a patient with a family name that only this world uses."""
        return {"resourceType": "Patient", "name": [{"family": self.family}], **elements}

    async def to_the_end(self, path: str) -> list[str]:
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
    answer = world.answers.pop()
    told = json.loads(answer.body)
    shown = {
        "implementation": told.get("implementation"),
        "resources": [
            {key: value for key, value in each.items() if key not in {"operation", "searchParam"}}
            for each in told["rest"][0]["resource"]
        ],
    }
    assert len(shown["resources"]) > 2
    world.answers.append(replace(answer, body=json.dumps(shown)))


async def life_of_a_record(world: World) -> str:
    """Go from create to history, with versions and conditions by entity tag. Return the path."""
    head, created = await world.ask("POST", "/Patient", world.patient())
    path = f"/Patient/{created['id']}"
    await world.ask("GET", head["Location"].removesuffix("/"))
    read, _ = await world.ask("GET", path)
    await world.ask("HEAD", path)
    await world.ask("GET", path, If_None_Match=read["ETag"])
    body = world.patient(id=created["id"], gender="female")
    await world.ask("PUT", path, body, If_Match=read["ETag"])
    await world.ask("PUT", path, body | {"gender": "male"}, If_Match='W/"77"')
    patch = [{"op": "replace", "path": "/gender", "value": "other"}]
    await world.ask("PATCH", path, patch, kind="application/json-patch+json")
    _, history = await world.ask("GET", f"{path}/_history")
    for entry in history.get("entry", ()):
        version = entry.get("resource", {}).get("meta", {}).get("versionId")
        await world.ask("GET", f"{path}/_history/{version}")
    await world.ask("POST", "/Patient", world.patient(active=True), Prefer="return=minimal")
    return path


async def observations(world: World, patient: str, count: int = 7) -> None:
    """Create results of a patient, one with an absolute reference, and search for them."""
    code = {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}
    observation = {"resourceType": "Observation", "status": "final", "code": code}
    absolute = observation | {"subject": {"reference": f"{world.base}{patient}"}}
    head, _ = await world.ask("POST", "/Observation", absolute)
    await world.ask("GET", head["Location"])
    await world.ask("DELETE", head["Location"].partition("/_history")[0])
    subject = patient.removeprefix("/")
    for number in range(count):
        value = {"valueQuantity": {"value": number + 0.50, "unit": "g/dL"}}
        body = observation | {"subject": {"reference": subject}} | value
        await world.ask("POST", "/Observation", body)
    found = await world.to_the_end(f"/Observation?subject={subject}&_count=3&_sort=_lastUpdated")
    assert len(set(found)) == len(found) == count
    await world.ask("GET", f"/Observation?subject={world.base}{patient}&_count=1")
    await world.ask("GET", f"/Observation?subject={subject}&_include=Observation:subject&_count=1")
    form = f"subject={subject.replace('/', '%2F')}&_count=2"
    await world.ask("POST", "/Observation/_search", form, kind="application/x-www-form-urlencoded")
    await world.ask("GET", f"/Patient?family={world.family}&_summary=count")


async def conditions(world: World) -> None:
    """Send conditional create, update and delete; an existing resource is not created again."""
    value = f"drive|{uuid.uuid4()}"
    criteria = f"identifier={value.replace('|', '%7C')}"
    system, _, number = value.partition("|")
    body = world.patient(identifier=[{"system": system, "value": number}])
    await world.ask("POST", "/Patient", body, If_None_Exist=criteria)
    await world.ask("POST", "/Patient", body, If_None_Exist=criteria)
    await world.ask("PUT", f"/Patient?{criteria}", body | {"active": True})
    await world.ask("GET", f"/Patient?{criteria}")
    await world.ask("DELETE", f"/Patient?{criteria}")
    await world.ask("GET", f"/Patient?{criteria}")


async def bundles(world: World, patient: str) -> None:
    """Send a batch that fails in part, a transaction, and one that fails as a whole."""
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


async def binary_in_fhir(world: World, patient: str) -> None:
    """Create a Binary as a resource with a security context, and read it."""
    binary = {
        "resourceType": "Binary",
        "contentType": "application/pdf",
        "securityContext": {"reference": patient.removeprefix("/")},
        "data": base64.b64encode(bytes(range(256)) * 40).decode(),
    }
    head, _ = await world.ask("POST", "/Binary", binary)
    await world.ask("GET", head["Location"].partition("/_history")[0])


async def binary_as_it_is(world: World, patient: str) -> None:
    """Create and read a Binary as raw octets, which are no valid text."""
    content = bytes(range(256)) * 1000 + f"{world.base}/Patient/1".encode()
    context = patient.removeprefix("/")
    head, _ = await world.ask(
        "POST", "/Binary", content, kind="application/pdf", X_Security_Context=context
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


async def export(world: World, patient: str) -> None:
    """Export a group with one patient, fetch every file, and delete the export."""
    member = {"entity": {"reference": patient.removeprefix("/")}}
    group = {"resourceType": "Group", "type": "person", "actual": True, "member": [member]}
    _, made = await world.ask("POST", "/Group", group)
    path = f"/Group/{made['id']}/$export"
    await world.ask("GET", path)
    place, manifest = await exported(world, path)
    assert {each["type"] for each in manifest["output"]} >= {"Patient", "Observation"}
    for each in manifest["output"]:
        await world.ask("GET", each["url"], Accept="application/fhir+ndjson")
        file = world.answers.pop()
        # The server sorts the resources by ids, which are random.
        lines = "\n".join(sorted(file.body.splitlines()))
        world.answers.append(replace(file, body=lines))
    await world.ask("DELETE", place)
    await world.ask("GET", place)


async def in_xml(world: World, patient: str) -> None:
    """Read and write FHIR's XML format, with absolute references in both directions."""
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


async def mistakes(world: World, patient: str) -> None:
    """Send invalid requests: the server's own errors must arrive unchanged."""
    await world.ask("GET", "/Patient/none-such")
    await world.ask("POST", "/Patient", '{"resourceType":"Patient",')
    await world.ask("POST", "/Patient", {"resourceType": "Observation"})
    await world.ask("POST", "/Patient", world.patient(gender=["no", "code"]))
    await world.ask("GET", "/Patient?no-such-parameter=1", Prefer="handling=strict")
    await world.ask("DELETE", patient)
    await world.ask("GET", patient)
    await world.ask("GET", f"{patient}/_history")


async def drive(world: World, *more: Leg) -> None:
    """Send the requests for every server, and `more`."""
    await statement(world)
    patient = await life_of_a_record(world)
    await observations(world, patient)
    await conditions(world)
    await bundles(world, patient)
    await binary_in_fhir(world, patient)
    for each in more:
        await each(world, patient)
    await mistakes(world, patient)
