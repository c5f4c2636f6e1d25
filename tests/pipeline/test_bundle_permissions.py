"""What a limited caller may do inside a Bundle, compared with `bundle_rules`."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.platform import Platform, outcome
from tests.doubles.wire import Wire, fetch, get, post
from tests.extent import left_to_ci
from tests.fhir.test_bundle_requests import XML_BATCH
from tests.pipeline.bundle_rules import allows
from tests.pipeline.conftest import StartGateway
from tests.pipeline.odd_bundles import CALLERS, generate

PER_SEED = 650


def settings() -> list[dict[str, Any]]:
    """Return `callers` of the settings, each known by its key."""
    return [
        {
            "name": name,
            "api_key": name,
            "allow": {
                "interactions": allow.interactions,
                "resources": allow.resources,
                "operations": allow.operations,
            },
        }
        for name, allow in CALLERS.items()
    ]


@pytest.mark.parametrize("seed", left_to_ci(range(8), but=1))
async def test_a_bundle_passes_exactly_where_the_rules_allow_it(
    start_gateway: StartGateway, platform: Platform, seed: int
) -> None:
    rng, passed = random.Random(seed), 0  # noqa: S311 - the same Bundles each time
    async with (
        start_gateway(callers=settings(), fhir={"condition_guard": "off"}) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        for number in range(PER_SEED):
            made = generate(rng, platform.url)
            is_allowed = allows(
                CALLERS[made.caller], platform.url, made.content_type, made.coding, made.read
            )
            head, _, body = post("/fhir", made.sent, *made.fields).partition(b"\r\n\r\n")
            if made.content_type is None:
                head = head.replace(b"\r\nContent-Type: application/fhir+json", b"")
            response = await wire.fetch(head + b"\r\n\r\n" + body)
            found = (response.status, response.reason)
            assert found == ((200, None) if is_allowed else (403, "caller-forbidden")), (
                f"{seed}.{number}: {made}, {response.body!r}"
            )
            passed += is_allowed
            assert len(platform.requests) == passed
            assert not is_allowed or platform.requests[-1].body == made.read
    assert PER_SEED // 4 < passed < 3 * PER_SEED // 4


def caller(**allow: Any) -> dict[str, Any]:
    return {"name": "his", "networks": ["127.0.0.0/8"], "allow": allow}


def entry(method: str, url: str, kind: str | None = None, **request: str) -> dict[str, Any]:
    resource = {} if kind is None else {"resource": {"resourceType": kind, "id": "1"}}
    return {**resource, "request": {"method": method, "url": url, **request}}


def bundle(*entries: dict[str, Any], kind: str = "batch", pad: int = 0) -> bytes:
    document = {"resourceType": "Bundle", "type": kind, "entry": entries, "id": "x" * pad}
    return json.dumps(document).encode()


DELETE = entry("DELETE", "Patient/30101901234567")
READER = caller(interactions=["read", "search-type", "batch"])


async def test_a_batch_of_a_reader_must_not_delete(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """The error names the entry and its interaction, and no patient data."""
    async with start_gateway(callers=[READER]) as gateway:
        response = await fetch(
            gateway.address, post("/fhir", bundle(entry("GET", "Patient/1"), DELETE))
        )
        assert (response.status, response.reason) == (403, "caller-forbidden")
        (issue,) = response.json()["issue"]
        assert issue["diagnostics"].endswith("entry 2: delete Patient: interaction")
        assert "Bundle" in issue["details"]["text"]
        assert b"30101901234567" not in response.body
        assert platform.requests == []
        (record,) = await gateway.audit()
        assert (record["interaction"], record["reason"]) == ("batch", "caller-forbidden")
        response = await fetch(gateway.address, post("/fhir", bundle(entry("GET", "Patient/1"))))
        assert response.status == 200


@pytest.mark.parametrize("pad", [1000, 100_000, 2_000_000])
@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("is_chunked", [True, False])
async def test_a_forbidden_entry_is_found_at_any_position(
    start_gateway: StartGateway, platform: Platform, pad: int, enabled: bool, is_chunked: bool
) -> None:
    """Nothing is sent before the whole Bundle was read, whatever its length and framing."""
    long = bundle(entry("GET", "Patient/1"), pad=pad)
    behind = [
        long[:-1] + b',"type":"transaction"}',
        bundle(entry("GET", "Patient/1"), DELETE, pad=pad),
        long.replace(b"batch", b"transaction"),
        long[:-1],
    ]

    def request(body: bytes) -> bytes:
        if not is_chunked:
            return post("/fhir", body)
        fields = "Content-Type: application/fhir+json", "Transfer-Encoding: chunked"
        return get("/fhir", *fields, method="POST") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)

    async with start_gateway(callers=[READER], rewrite={"enabled": enabled}) as gateway:
        for body in behind:
            response = await fetch(gateway.address, request(body))
            assert (response.status, response.reason) == (403, "caller-forbidden")
        assert platform.requests == []
        assert (await fetch(gateway.address, request(long))).status == 200
    assert platform.requests[-1].body == long


async def test_a_bundle_of_a_limited_caller_has_at_most_16_mib(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """Compressed or decompressed; callers without limits may send more."""
    large = bundle(pad=16 * 2**20)
    bomb = gzip.compress(bundle(pad=40 * 2**20), 1)
    tiny = b'{"resourceType":"Bundle","type":"batch","entry":[%s{}]}' % (b"[{}]," * 2_000_000)
    free = {"name": "free", "api_key": "free"}
    async with start_gateway(callers=[READER, free]) as gateway:
        for body, *fields in ((large,), (bomb, "Content-Encoding: gzip"), (tiny,)):
            response = await fetch(gateway.address, post("/fhir", body, *fields))
            assert (response.status, response.reason) == (413, "payload-too-large")
            assert platform.requests == []
        sent = post("/fhir", large, "X-Api-Key: free")
        assert (await fetch(gateway.address, sent)).status == 200
    assert platform.requests[0].body == large


async def test_a_gateway_url_in_an_entry_is_checked_after_translation(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """A URL that is not translated names another host and is rejected."""
    for enabled in (True, False):
        async with start_gateway(callers=[READER], rewrite={"enabled": enabled}) as gateway:
            for method, path in (("GET", "Patient/1"), ("DELETE", "Patient/1"), ("GET", "")):
                sent = bundle(entry(method, f"http://gateway/fhir/{path}"))
                expected = 200 if enabled and method == "GET" and path else 403
                assert (await fetch(gateway.address, post("/fhir", sent))).status == expected
    (received,) = platform.requests
    assert json.loads(received.body)["entry"][0]["request"]["url"] == f"{platform.url}/Patient/1"


@pytest.mark.parametrize("fields", [(), ("Content-Length: 0",)])
async def test_a_post_to_the_base_without_a_body_is_no_bundle(
    start_gateway: StartGateway, platform: Platform, fields: tuple[str, ...]
) -> None:
    async with start_gateway(callers=[caller(resources=["Patient"])]) as gateway:
        response = await fetch(gateway.address, get("/fhir", *fields, method="POST"))
        assert (response.status, response.reason) == (403, "caller-forbidden")
    assert platform.requests == []


async def test_a_bundle_without_a_type_is_read_as_the_configured_type(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """It is checked, and sent, as `callers[].content_type`."""
    typed = {**READER, "content_type": "application/fhir+xml"}
    async with start_gateway(callers=[typed]) as gateway:
        for body, status in ((bundle(), 403), (XML_BATCH, 200)):
            request = post("/fhir", body, "Content-Type: text/plain")
            assert (await fetch(gateway.address, request)).status == status
    assert platform.requests[0].header("content-type") == "application/fhir+xml"


async def test_a_bundle_is_checked_before_it_is_enqueued(
    start_gateway: StartGateway, platform: Platform, tmp_path: Path
) -> None:
    limited = {**caller(interactions=["update", "transaction"]), "outbox": "always"}
    outbox = {"enabled": True, "url": f"sqlite:///{tmp_path}/outbox.db", "encryption_key": "A" * 43}
    platform.respond(outcome(503))
    async with start_gateway(
        callers=[limited], outbox=outbox, retries={"max_attempts": 1}
    ) as gateway:
        update = entry("PUT", "Patient/1", "Patient")
        for entries, status in (((update, DELETE), 403), ((update,), 202)):
            request = post("/fhir", bundle(*entries, kind="transaction", pad=2_000_000))
            assert (await fetch(gateway.address, request)).status == status
        await gateway.wait_for_metric(1, "dhp_gateway_outbox_entries")


async def test_a_bundle_is_rejected_while_the_memory_budget_is_used_up(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """With a Retry-After; later it is accepted."""
    long = post("/fhir", bundle(entry("GET", "Patient/1"), pad=3 * 2**20))
    async with start_gateway(callers=[READER]) as gateway:
        budget = gateway.gateway._cores.current.admission.buffer_budget
        assert budget.try_reserve(254 * 2**20)
        response = await fetch(gateway.address, long)
        assert (response.status, response.reason) == (503, "overloaded")
        assert response.header("retry-after")
        assert platform.requests == []
        budget.release(254 * 2**20)
        assert (await fetch(gateway.address, long)).status == 200
        assert budget.try_reserve(256 * 2**20)
