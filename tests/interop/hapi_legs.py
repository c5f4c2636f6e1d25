"""Requests to HAPI FHIR alone, on each route."""

from __future__ import annotations

import re
import uuid
from urllib.parse import quote

from tests.interop.drive import Leg, World, exported

XML = "application/fhir+xml"
OBSERVATION = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}


async def exports(world: World) -> None:
    """Export the patients of this world, of all the server and by type, and cancel twice."""
    await world.create_patient()
    family = quote(f"Patient?family={world.family}", safe="")
    for path in ("/$export", "/Patient/$export"):
        place, manifest = await exported(world, f"{path}?_type=Patient&_typeFilter={family}")
        assert [each["type"] for each in manifest["output"]] == ["Patient"]
        url = manifest["output"][0]["url"]
        _, file = await world.ask("GET", url, Accept="application/fhir+ndjson")
        assert world.family in file
        await world.ask("DELETE", place)
        await world.ask("DELETE", place)


async def subscription(world: World) -> None:
    """Create a Subscription, whose endpoint is an address and no link, and read and change it."""
    body = {
        "resourceType": "Subscription",
        "status": "requested",
        "topic": f"{world.base}/SubscriptionTopic/results",
        "channelType": {"code": "rest-hook"},
        "endpoint": f"{world.base}/hook",
        "content": "id-only",
    }
    head, created = await world.ask("POST", "/Subscription", body)
    path = f"/Subscription/{created['id']}"
    read, _ = await world.ask("GET", path, Accept=XML)
    assert read["ETag"] == head["ETag"]
    await world.ask("PUT", path, created | {"status": "off"}, If_Match=read["ETag"])
    await world.ask("PUT", path, created | {"status": "error"}, If_Match=read["ETag"])
    await world.ask("DELETE", path)


async def conditional_references(world: World) -> None:
    """Refer to a patient by a search in a transaction, and delete many results by another."""
    system, value = "urn:drive", str(uuid.uuid4())
    patient = await world.create_patient(identifier=[{"system": system, "value": value}])
    criteria = f"Patient?identifier={system}%7C{value}"
    full_url = f"urn:uuid:{uuid.uuid4()}"
    create = {"method": "POST", "url": "Observation"}
    entries: list[dict[str, object]] = [
        {
            "fullUrl": full_url,
            "resource": world.patient(identifier=[{"system": system, "value": value}]),
            "request": {"method": "POST", "url": "Patient", "ifNoneExist": criteria[8:]},
        },
        *(
            {"resource": OBSERVATION | {"subject": {"reference": reference}}, "request": create}
            for reference in (full_url, criteria, f"{world.base}{patient}")
        ),
        {"request": {"method": "GET", "url": f"Observation?subject={criteria[:7]}/none"}},
        {
            "resource": world.patient(identifier=[{"system": system, "value": value}]),
            "request": {"method": "PUT", "url": criteria},
        },
    ]
    whole = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    await world.ask("POST", "", whole, Prefer="return=representation")
    # The diagnostics name the row in the database.
    world.edit(lambda text: re.sub(r'resource \\"\d+\\"', "resource", text))
    await world.ask("GET", f"/Observation?subject={patient[1:]}&_count=2&_sort=_lastUpdated")
    await world.ask("DELETE", f"/Observation?subject={patient[1:]}")
    await world.ask("GET", f"/Observation?subject={patient[1:]}&_summary=count")
    await world.ask("GET", f"{patient}/_history")


async def parts(world: World) -> None:
    """Ask for parts of resources, and for those that refer to others."""
    patient = await world.create_patient(gender="female", active=True)
    await world.ask("POST", "/Observation", OBSERVATION | {"subject": {"reference": patient[1:]}})
    for query in (
        *("_summary=true", "_summary=text", "_summary=data", "_elements=gender"),
        *("_revinclude=Observation:subject", "_count=0", "_total=accurate", "_format=xml"),
        *("_has:Observation:subject:status=final", "gender:not=male", "_sort=-_lastUpdated"),
    ):
        await world.ask("GET", f"/Patient?family={world.family}&{query}")
    form = f"family={world.family}&_elements=name&_format=xml"
    await world.ask("POST", "/Patient/_search", form, kind="application/x-www-form-urlencoded")
    await world.ask("GET", f"{patient}?_elements=gender&_format=xml")
    await world.ask("HEAD", f"{patient}/_history/1")


async def links_in_xml(world: World) -> None:
    """Write attachments' links in one format, and read them in the other, packed."""
    patient = await world.create_patient()
    url = f"{world.base}/Binary/{uuid.uuid4()}"
    document = {
        "resourceType": "DocumentReference",
        "status": "current",
        "subject": {"reference": f"{world.base}{patient}"},
        "description": f"see {url}",
        "content": [{"attachment": {"url": url, "title": url}}],
    }
    head, _ = await world.ask("POST", "/DocumentReference", document)
    for accept in (XML, "application/fhir+json"):
        for coding in ("gzip", "identity"):
            await world.ask("GET", head["Location"], Accept=accept, Accept_Encoding=coding)
    _, text = await world.ask("GET", head["Location"], Accept=XML)
    await world.ask("POST", "/DocumentReference", text, kind=XML, Accept=XML)
    await world.ask("GET", f"/DocumentReference?subject={patient[1:]}&_format=xml&_count=1")


HAPI_LEGS: dict[str, Leg] = {
    "exports of all and by type": exports,
    "Subscription": subscription,
    "conditional references": conditional_references,
    "parts and includes": parts,
    "links in attachments, XML": links_in_xml,
}
