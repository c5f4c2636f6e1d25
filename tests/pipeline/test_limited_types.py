"""A caller that is limited to some resource types gets no others by a detour."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import pytest

from tests.doubles.gateway import Running
from tests.doubles.platform import Platform
from tests.doubles.wire import Reply, ask, get, post
from tests.pipeline.conftest import StartGateway

CALLER: Final = {
    "name": "registry",
    "networks": ["127.0.0.0/8"],
    "allow": {"interactions": ["*"], "resources": ["Patient"]},
}


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> AsyncIterator[Running]:
    """A gateway whose only caller may see patients."""
    async with start_gateway(callers=[CALLER]) as started:
        yield started


async def searched(gateway: Running, form: str) -> Reply:
    """The answer to a search by POST."""
    kind = "Content-Type: application/x-www-form-urlencoded"
    length = f"Content-Length: {len(form)}"
    return await ask(
        gateway.address, get("/fhir/Patient/_search", kind, length, method="POST") + form.encode()
    )


DETOURS = [
    "/Patient?_revinclude=Observation:subject",
    "/Patient?_revinclude:iterate=Observation:subject",
    "/Patient?_include=Patient:general-practitioner",
    "/Patient?%5Finclude=Patient:general-practitioner",
    "/Patient?_has:Observation:patient:code=1234-5",
    "/Patient?name=x&_list=42",
    "/Patient?_contained=true",
    "/Patient?_getpages=0d1f",
    "/Patient/1/$everything",
    "/Patient/$export",
    "/Patient/$graphql?query=x",
    "/Patient/1/Observation",
    "/$export",
    "/?_type=Patient",
    "/Observation?patient=1",
    "/Observation/../Patient/1",
]


@pytest.mark.parametrize("target", DETOURS)
async def test_nothing_of_other_types_comes_along(
    gateway: Running, platform: Platform, target: str
) -> None:
    """Includes, reverse chains, compartments and operations that reach further are forbidden."""
    reply = await ask(gateway.address, get(f"/fhir{target}"))
    assert (reply.status, reply.reason) in [(403, "caller-forbidden"), (400, "bad-request")]
    assert platform.seen == []


@pytest.mark.parametrize("form", ["_revinclude=Observation:subject", "%5Fhas:Observation:x:y=1"])
async def test_nor_by_a_search_in_a_body(gateway: Running, platform: Platform, form: str) -> None:
    """Of a search by POST the body is looked at too."""
    reply = await searched(gateway, form)
    assert (reply.status, reply.reason) == (403, "caller-forbidden")
    assert platform.seen == []


@pytest.mark.parametrize("kind", ["transaction", "batch"])
async def test_nor_by_a_bundle(gateway: Running, platform: Platform, kind: str) -> None:
    """A Bundle to the system may hold anything."""
    body = b'{"resourceType":"Bundle","type":"%s"}' % kind.encode()
    reply = await ask(gateway.address, post("/fhir", body))
    assert (reply.status, reply.reason) == (403, "caller-forbidden")
    assert platform.seen == []


@pytest.mark.parametrize(
    "target", ["/Patient/1", "/Patient?name=x&_count=5", "/Patient/1/_history", "/metadata"]
)
async def test_its_own_types_are_served(gateway: Running, platform: Platform, target: str) -> None:
    """What is asked of the allowed types goes through."""
    assert (await ask(gateway.address, get(f"/fhir{target}"))).status == 200
    assert platform.seen[0].target.endswith(target)


async def test_its_own_search_by_post_is_served(gateway: Running, platform: Platform) -> None:
    """A search by POST for nothing else too."""
    assert (await searched(gateway, "name=x&birthdate=1980")).status == 200
    assert platform.seen[0].target.endswith("/Patient/_search")
