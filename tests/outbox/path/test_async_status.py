"""The outbox's own addresses: FHIR's asynchronous pattern, the list, cancelling."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import zlib
from pathlib import Path

from gateway.config.operations_settings import OutboxSettings
from gateway.outbox.open_outbox import open_outbox_store
from tests.doubles.platform import PlatformConnection, fhir, http
from tests.outbox.path.conftest import Open, outbox_in
from tests.outbox.path.harness import OutboxSetup, observation

LAB, WARD = {"X_Api_Key": "lab-key"}, {"X_Api_Key": "ward-key"}
CALLERS = [
    {
        "name": "lab",
        "api_key": "lab-key",
        "outbox": "always",
        "allow": {"interactions": ["update"], "resources": ["Observation"]},
    },
    {"name": "ward", "api_key": "ward-key"},
]


async def test_the_status_of_a_waiting_write_is_202(setup: OutboxSetup) -> None:
    setup.relay.cut()
    location = (await setup.write()).location
    # Between two attempts; a moment later it may be sent once more.
    reply = await setup.wait_until_state("waiting", location)
    assert reply.status == 202
    assert int(reply.headers["Retry-After"]) >= 1
    assert reply.headers["X-Progress"].startswith("waiting")
    assert (await setup.ask("HEAD", location)).status == 202


async def test_the_status_of_a_rejected_write_has_the_platforms_outcome(setup: OutboxSetup) -> None:
    setup.relay.cut()
    location = (await setup.write()).location
    # A long one, whose type comes last.
    issue = {"severity": "error", "code": "invalid", "diagnostics": "x" * 300_000}
    rejected = {"issue": [issue], "resourceType": "OperationOutcome"}
    setup.platform.respond(fhir(json.dumps(rejected).encode(), 422))
    bundle = (await setup.deliver(location)).json
    assert bundle["type"] == "batch-response"
    response = bundle["entry"][0]["response"]
    assert response["status"].startswith("422")
    assert response["outcome"] == rejected
    assert (await setup.ask("DELETE", location)).status == 202
    assert (await setup.ask("GET", location)).status == 410


async def test_the_status_of_an_unclear_write_is_502(setup: OutboxSetup) -> None:
    location = await setup.unclear_write()
    response = (await setup.final_response(location)).json["entry"][0]["response"]
    assert response["status"].startswith("502")
    coding = response["outcome"]["issue"][0]["details"]["coding"]
    assert [each["code"] for each in coding] == ["unclear", "upstream-failed"]
    assert (await setup.ask("DELETE", location)).status == 409


async def test_the_status_of_a_write_that_became_too_old_leads_to_the_operator(
    opened: Open, tmp_path: Path
) -> None:
    async with opened() as setup:
        setup.relay.cut()
        entry_id = (await setup.write()).location.rpartition("/")[2]
    settings = OutboxSettings.model_validate(outbox_in(tmp_path))
    late = time.time() + 2 * settings.max_age
    async with open_outbox_store(settings, b"\0" * 32, lambda: late) as store:
        assert await store.expire_entries()
    async with opened() as setup:
        ended = await setup.ask("GET", f"/_outbox/{entry_id}")
    (issue,) = ended.json["entry"][0]["response"]["outcome"]["issue"]
    codes = [coding["code"] for coding in issue["details"]["coding"]]
    assert (issue["code"], codes) == ("processing", ["expired", "upstream-unreachable"])
    assert "Ask the gateway's operator, who can still deliver it" in issue["details"]["text"]


async def test_a_waiting_write_can_be_cancelled(setup: OutboxSetup) -> None:
    setup.relay.cut()
    first, second = await setup.write(number=1), await setup.write(number=2)
    assert (await setup.ask("DELETE", second.location)).status == 202
    for language, word in (("ru", "отменена"), ("uz", "bekor"), ("en", "cancelled")):
        gone = await setup.ask("GET", second.location, Accept_Language=language)
        assert gone.status == 410
        assert word in gone.json["issue"][0]["details"]["text"]
    assert (await setup.ask("DELETE", second.location)).status == 410
    await setup.deliver(first.location)
    assert (await setup.ask("DELETE", first.location)).status == 409
    assert setup.writes() == [("PUT", "/r5/Observation/1")]


async def test_a_write_can_be_cancelled_while_no_connection_can_be_made(opened: Open) -> None:
    # With several attempts at the connection, the delivery that begins at once is still going on.
    async with opened(retries={"max_attempts": 3}) as setup:
        setup.relay.cut()
        location = (await setup.write()).location
        assert (await setup.ask("DELETE", location)).status == 202
        assert (await setup.ask("GET", location)).status == 410
        assert setup.writes() == []


async def test_a_write_that_the_platform_has_got_cannot_be_cancelled(setup: OutboxSetup) -> None:
    ends = asyncio.Event()

    async def hanging(connection: PlatformConnection) -> None:
        await ends.wait()
        connection.writer.close()

    setup.relay.cut()
    location = (await setup.write()).location
    setup.answer_writes(hanging)
    await setup.relay.restore()
    await setup.wait_until_sent(1)
    assert (await setup.ask("DELETE", location)).status == 409
    ends.set()


async def test_a_write_becomes_too_old_soon_after_max_age(opened: Open) -> None:
    async with opened(outbox={"max_age": 1, "retention": 60}) as setup:
        setup.relay.cut()
        location = (await setup.write()).location
        async with asyncio.timeout(30):
            ended = await setup.final_response(location)
    (issue,) = ended.json["entry"][0]["response"]["outcome"]["issue"]
    assert issue["details"]["coding"][0]["code"] == "expired"


async def test_callers_see_their_own_entries_only(opened: Open) -> None:
    async with opened(callers=CALLERS) as setup:
        setup.relay.cut()
        location = (await setup.write(**LAB)).location
        assert (await setup.ask("GET", location, **LAB)).status == 202
        other = await setup.ask("GET", location, **WARD)
        nobody = await setup.ask("GET", f"{location}x", **WARD)
        assert (other.status, nobody.status) == (404, 404)
        assert other.headers["X-Gateway-Error"] == "unknown-path"
        assert (await setup.ask("DELETE", location, **WARD)).status == 404
        assert (await setup.ask("GET", location)).status == 401
        assert len((await setup.ask("GET", "/_outbox", **LAB)).json["entry"]) == 1
        assert "entry" not in (await setup.ask("GET", "/_outbox", **WARD)).json


async def test_the_list_is_paged(setup: OutboxSetup) -> None:
    setup.relay.cut()
    await asyncio.gather(*(setup.write(patient=n, number=n) for n in range(120)))
    first = (await setup.ask("GET", "/_outbox")).json
    following = [each["url"] for each in first["link"] if each["relation"] == "next"]
    second = (await setup.ask("GET", following[0])).json
    assert [len(page["entry"]) for page in (first, second)] == [100, 20]
    assert [each["relation"] for each in second["link"]] == ["self"]
    task = first["entry"][0]["resource"]
    assert (task["resourceType"], task["status"] in ("accepted", "in-progress")) == ("Task", True)


async def test_status_and_list_in_xml(setup: OutboxSetup) -> None:
    setup.relay.cut()
    fields = {
        "Prefer": "respond-async",
        "Accept": "application/fhir+xml",
        "Content_Type": "application/fhir+xml",
    }
    body = (
        b'<Observation xmlns="http://hl7.org/fhir"><subject><reference value="Patient/1"/>'
        b"</subject></Observation>"
    )
    reply = await setup.ask("PUT", "/Observation/1", body, **fields)
    assert reply.status == 202
    assert reply.body.startswith(b'<?xml version="1.0" encoding="UTF-8"?><OperationOutcome')
    listed = await setup.ask("GET", "/_outbox", Accept="application/fhir+xml")
    assert b"<resource><Task><id value=" in listed.body
    kind = ("Content-Type", "application/fhir+xml")
    setup.platform.respond(http(200, b'<?xml version="1.0"?>' + body, kind))
    ended = await setup.deliver(reply.location)
    assert b"<resource>" + body + b"</resource>" in ended.body
    assert ended.headers["Content-Type"].startswith("application/fhir+xml")


async def test_unknown_methods_and_paths_are_rejected(setup: OutboxSetup) -> None:
    assert (await setup.ask("POST", "/_outbox", b"{}")).status == 405
    assert (await setup.ask("PUT", "/_outbox/1", b"{}")).headers["Allow"] == "GET, HEAD, DELETE"
    assert (await setup.ask("GET", "/_outbox/1/2")).status == 404
    assert setup.platform.requests == []


async def test_a_path_that_only_begins_like_those_of_the_outbox_is_forwarded(
    setup: OutboxSetup,
) -> None:
    assert (await setup.ask("GET", "/_outboxes")).status == 200
    assert setup.platform.requests[0].target == "/r5/_outboxes"


async def test_without_an_outbox_its_paths_are_forwarded(opened: Open) -> None:
    async with opened(outbox={"enabled": False}) as setup:
        assert (await setup.ask("GET", "/_outbox/1")).status == 200
        assert setup.platform.requests[0].target == "/r5/_outbox/1"
        setup.relay.cut()
        # What is sent into a connection that breaks in this very moment would be unclear: 502.
        while True:
            if not await setup.gateway.metric("dhp_gateway_upstream_connections", state="idle"):
                break
            await asyncio.sleep(0.01)
        assert (await setup.write()).status == 503


async def test_a_compressed_response_is_decoded(opened: Open) -> None:
    caller = {"name": "lab", "networks": ["127.0.0.1"], "user_header": "X-User"}
    async with opened(callers=[caller]) as setup:
        setup.relay.cut()
        reply = await setup.write(X_User="dilnoza")
        saved = {"resourceType": "Observation", "id": "1"}
        packed = zlib.compress(json.dumps(saved).encode())
        setup.platform.respond(fhir(packed, 200, ("Content-Encoding", "deflate")))
        (entry,) = (await setup.deliver(reply.location)).json["entry"]
        record = (await setup.gateway.audit(1))[0]
    assert entry["resource"] == saved
    (seen,) = setup.sent
    assert (seen.header("x-user"), seen.header("accept-encoding")) == (None, "identity")
    assert (record["user"], record["user_asserted"]) == ("dilnoza", True)


def modified(date: str) -> bytes:
    return fhir(b"", 200, ("Last-Modified", date))


RESPONSES: list[tuple[bytes, dict[str, str | None]]] = [
    (http(204, b"", length=False), {"status": "204 No Content", "lastModified": None}),
    # Apache's mod_deflate appends `-gzip`; as If-Match the platform would reject that.
    (
        fhir(
            gzip.compress(observation()), 200, ("Content-Encoding", "gzip"), ("ETag", 'W/"3-gzip"')
        ),
        {"etag": 'W/"3"'},
    ),
    (modified("Thu, 03 Dec 2026 12:00:00 GMT"), {"lastModified": "2026-12-03T12:00:00+00:00"}),
    # No zone is known; with an offset that FHIR does not permit.
    (modified("Thu, 03 Dec 2026 12:00:00 -0000"), {"lastModified": "2026-12-03T12:00:00+00:00"}),
    (modified("Thu, 03 Dec 2026 12:00:00 +2359"), {"lastModified": "2026-12-02T12:01:00+00:00"}),
    (modified(f"Thu, 03 Dec 2026 12:00:00 +{'9' * 20}"), {"lastModified": None}),
    (modified(f"Thu, 03 Dec {'9' * 20} 12:00:00 GMT"), {"lastModified": None}),
    (modified("Fri, 31 Dec 9999 23:59:59 -0100"), {"lastModified": None}),
    (modified("yesterday"), {"lastModified": None}),
]


async def test_the_status_says_what_the_response_said(setup: OutboxSetup) -> None:
    """An instant with a zone, and no resource where there was no content."""
    setup.relay.cut()
    kept = [await setup.write(number=number) for number, _ in enumerate(RESPONSES)]
    setup.answer_writes(*(response for response, _ in RESPONSES))
    await setup.relay.restore()
    for reply, (_, expected) in zip(kept, RESPONSES, strict=True):
        (entry,) = (await setup.final_response(reply.location)).json["entry"]
        found = {name: entry["response"].get(name) for name in expected}
        assert found == expected
        assert ("resource" in entry) == ("etag" in expected)
