"""Which writes are queued, and what the platform receives."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doubles.platform import fhir, http, once, outcome, page, silence, then_close
from tests.doubles.sso import ScriptedResponse, oauth_error
from tests.doubles.wire import Wire, get, post
from tests.outbox.path.conftest import Open
from tests.outbox.path.harness import OutboxSetup, observation
from tests.pipeline.testbed import reset_connection

WITH_RESPOND_ASYNC = "return=minimal;x=1 ,  respond-async; y=2,handling=strict"
WITHOUT_RESPOND_ASYNC = "return=minimal;x=1 ,handling=strict"
WRITES = {
    "create": ("POST", "/Observation", observation()),
    "update": ("PUT", "/Observation/1", observation()),
    "conditional update": ("PUT", "/Observation?subject=Patient/1", observation()),
    "patch": ("PATCH", "/Observation/1", b"[]"),
    "delete": ("DELETE", "/Observation/1", None),
    "transaction": ("POST", "", b'{"resourceType":"Bundle","type":"transaction","entry":[]}'),
    "batch": ("POST", "", b'{"resourceType":"Bundle","type":"batch","entry":[]}'),
    "no FHIR": ("PUT", "/Observation/1", b"no FHIR"),
}
NO_WRITES = {
    "read": ("GET", "/Patient/1", None),
    "search by POST": ("POST", "/Patient/_search", b""),
    "operation": ("POST", "/Patient/1/$everything", b"{}"),
    "operation by GET": ("GET", "/$export", None),
}


@pytest.mark.parametrize("mode", ["always", "on-request"])
@pytest.mark.parametrize("name", WRITES)
async def test_respond_async_is_removed_from_writes(opened: Open, name: str, mode: str) -> None:
    method, path, body = WRITES[name]
    callers = [{"name": "lab", "networks": ["127.0.0.1/32"], "outbox": mode}]
    async with opened(callers=callers) as setup:
        for prefer in (WITH_RESPOND_ASYNC, "respond-async"):
            assert (await setup.ask(method, path, body, Prefer=prefer)).status == 200
        writes = [seen for seen in setup.platform.requests if seen.method == method]
        assert [seen.all("prefer") for seen in writes] == [[WITHOUT_RESPOND_ASYNC], []]


@pytest.mark.parametrize("name", NO_WRITES)
async def test_respond_async_is_forwarded_for_other_requests(setup: OutboxSetup, name: str) -> None:
    method, path, body = NO_WRITES[name]
    await setup.ask(method, path, body, Prefer=WITH_RESPOND_ASYNC)
    assert setup.platform.requests[0].header("prefer") == WITH_RESPOND_ASYNC


@pytest.mark.parametrize("name", WRITES)
async def test_respond_async_is_forwarded_for_callers_without_outbox(
    opened: Open, name: str
) -> None:
    method, path, body = WRITES[name]
    callers = [{"name": "lab", "networks": ["127.0.0.1/32"], "outbox": "off"}]
    async with opened(callers=callers) as setup:
        await setup.ask(method, path, body, Prefer=WITH_RESPOND_ASYNC)
        assert setup.platform.requests[0].header("prefer") == WITH_RESPOND_ASYNC


async def test_respond_async_is_removed_by_request_on_one_connection(setup: OutboxSetup) -> None:
    fields = ("Prefer: respond-async", "Content-Type: application/fhir+json", "Content-Length: 0")
    async with await Wire.open(setup.gateway.address) as wire:
        for method in ("DELETE", "GET", "DELETE"):
            await wire.fetch(get("/fhir/Observation/1", *fields, method=method))
    assert [seen.header("prefer") for seen in setup.platform.requests] == [
        None,
        "respond-async",
        None,
    ]


async def test_a_write_is_queued_and_delivered_once(setup: OutboxSetup) -> None:
    setup.relay.cut()
    reply = await setup.write(Prefer="return=minimal, respond-async", Warning="kept")
    assert reply.status == 202
    assert reply.state == "queued"
    assert reply.location.startswith(f"{setup.gateway.url}/_outbox/")
    assert reply.headers["Cache-Control"] == "no-store"
    setup.platform.respond(fhir(b'{"resourceType":"Observation","id":"1"}', 201))
    ended = await setup.deliver(reply.location)
    assert ended.json["entry"][0]["response"]["status"] == "201 Created"
    (seen,) = setup.sent
    assert (seen.method, seen.target, seen.body) == ("PUT", "/r5/Observation/1", observation())
    assert seen.header("prefer") == "return=minimal"
    assert seen.header("warning") == "kept"
    assert seen.header("content-type") == "application/fhir+json"
    assert seen.header("x-request-id") == reply.headers["X-Request-Id"]
    assert seen.header("authorization") == "Bearer token-1"


async def test_reads_and_synchronous_writes_are_not_queued(setup: OutboxSetup) -> None:
    setup.relay.cut()
    answers = [
        await setup.ask("GET", "/Patient/1", Prefer="respond-async"),
        await setup.ask("POST", "/Patient/_search", b"", Prefer="respond-async"),
        await setup.ask("POST", "/Patient/1/$everything", b"{}", Prefer="respond-async"),
        await setup.ask("PUT", "/Patient/1", b"{}"),
        await setup.ask("PUT", "/Patient/1", b"not FHIR", Prefer="respond-async"),
    ]
    assert [each.status for each in answers] == [503] * 5
    assert {each.headers["X-Gateway-Error"] for each in answers} <= {
        "upstream-unreachable",
        "circuit-open",
    }


@pytest.mark.parametrize(
    ("mode", "headers", "status"),
    [("always", {}, 202), ("off", {"Prefer": "respond-async"}, 503), ("on-request", {}, 503)],
)
async def test_the_callers_setting_decides(
    opened: Open, mode: str, headers: dict[str, str], status: int
) -> None:
    callers = [{"name": "lab", "networks": ["127.0.0.1/32"], "outbox": mode}]
    async with opened(callers=callers) as setup:
        setup.relay.cut()
        reply = await setup.ask("PUT", "/Observation/1", observation(), **headers)
        assert reply.status == status


async def test_later_writes_of_a_patient_are_queued_behind_earlier_ones(setup: OutboxSetup) -> None:
    delivered = asyncio.Event()
    setup.answer_writes(outcome(503), once(delivered, fhir()))
    first = await setup.write(patient=1, number=1)
    await setup.wait_until_sent(2)
    second = await setup.write(patient=1, number=2)
    assert (first.status, second.status) == (202, 202)
    assert (await setup.write(patient=3, number=3)).status == 200
    delivered.set()
    for reply in (first, second):
        assert (await setup.final_response(reply.location)).status == 200
    assert [target[-1] for _, target in setup.writes()] == ["1", "1", "3", "2"]


async def test_a_write_in_doubt_is_queued_if_it_is_idempotent(
    setup: OutboxSetup,
) -> None:
    setup.platform.script(then_close(b""))
    assert (await setup.write(method="POST")).headers["X-Gateway-Error"] == "upstream-failed"
    setup.platform.script(then_close(b""))
    reply = await setup.write()
    assert reply.status == 202
    assert (await setup.final_response(reply.location)).json["entry"][0]["response"][
        "status"
    ] == "200 OK"
    assert [method for method, _ in setup.writes()] == ["POST", "PUT", "PUT"]


LATE = (502, "upstream-failed")


async def test_a_late_failure_does_not_undo_a_later_write(setup: OutboxSetup) -> None:
    async with setup.late_failure() as hanging:
        assert (await setup.write()).status == 200
    reply = hanging.result()
    assert (reply.status, reply.headers["X-Gateway-Error"]) == LATE
    assert "entry" not in (await setup.ask("GET", "/_outbox")).json


async def test_a_late_failure_does_not_undo_a_pending_later_write(setup: OutboxSetup) -> None:
    released = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        async with setup.late_failure() as hanging:
            setup.platform.script(once(released, fhir()))
            newer = group.create_task(setup.write())
            await setup.platform.wait_for_requests(2)
        released.set()
    assert (newer.result().status, hanging.result().status) == (200, 502)
    assert "entry" not in (await setup.ask("GET", "/_outbox")).json


async def test_a_late_failure_is_not_queued_behind_a_later_write(
    setup: OutboxSetup,
) -> None:
    delivered = asyncio.Event()
    async with setup.late_failure() as hanging:
        setup.platform.script(outcome(503), once(delivered, fhir()))
        assert (await setup.write(patient=2, number=2)).status == 202
        newer = await setup.write(patient=2)
    assert (newer.status, hanging.result().status) == (202, 502)
    delivered.set()
    await setup.final_response(newer.location)
    assert setup.sent[-1].body == observation(patient=2)
    assert [target[-1] for _, target in setup.writes()] == ["1", "2", "2", "1"]


async def test_a_late_failure_is_queued_beside_writes_of_other_resources(opened: Open) -> None:
    callers = [
        {"name": "lab", "networks": ["127.0.0.1/32"], "outbox": "always"},
        {"name": "his", "api_key": "a-key-of-his-own", "outbox": "always"},
    ]
    async with opened(callers=callers) as setup:
        async with setup.late_failure() as hanging:
            assert (await setup.write(number=2)).status == 200
            assert (await setup.write(X_Api_Key="a-key-of-his-own")).status == 200
        assert hanging.result().status == 202


DISCONNECTS = {"reset": reset_connection, "close": lambda wire: wire.writer.close()}


@pytest.mark.parametrize("leave", DISCONNECTS.values(), ids=DISCONNECTS)
async def test_a_disconnected_callers_write_is_not_queued(
    setup: OutboxSetup, leave: Callable[[Wire], None]
) -> None:
    """The caller would not receive the 202, would send it again, and it would be stored twice."""
    setup.platform.script(silence)
    async with await Wire.open(setup.gateway.address) as wire:
        asked = "Prefer: respond-async"
        await wire.send(post("/fhir/Observation/1", observation(), asked, method="PUT"))
        await setup.platform.wait_for_requests(1)
        leave(wire)
    # When this is answered the gateway has seen that it is left.
    assert (await setup.ask("GET", "/Patient/1")).status == 200
    setup.platform.drop_connections()
    outcomes = {record["outcome"] for record in await setup.gateway.audit(2)}
    assert outcomes == {"success", "aborted"}
    assert "entry" not in (await setup.ask("GET", "/_outbox")).json


HALF_CLOSED = {
    "the line is cut": (True, 503, "upstream-unreachable"),
    "the platform does not answer": (False, 504, "upstream-timeout"),
}


@pytest.mark.parametrize(("is_cut", "status", "reason"), HALF_CLOSED.values(), ids=HALF_CLOSED)
async def test_a_half_closed_caller_gets_the_failure_instead_of_a_queued_write(
    opened: Open, is_cut: bool, status: int, reason: str
) -> None:
    """It may have left, would send the write again, and the write would be stored twice."""
    async with opened(platform={"response_timeout": 0.5}) as setup:
        setup.platform.script(silence)
        if is_cut:
            setup.relay.cut()
        async with await Wire.open(setup.gateway.address) as wire:
            asked = "Prefer: respond-async"
            wire.writer.write(post("/fhir/Observation/1", observation(), asked, method="PUT"))
            wire.writer.write_eof()
            reply = await wire.read_response()
        assert (reply.status, reply.reason) == (status, reason)
        assert "entry" not in (await setup.ask("GET", "/_outbox")).json


async def test_a_full_outbox_says_so_where_the_platform_refuses_for_now(opened: Open) -> None:
    """The platform's own 503 would not say that the gateway has not taken the write either."""
    async with opened(outbox={"max_entries": 1}) as setup:
        setup.answer_writes(outcome(503), outcome(503), outcome(503), outcome(503))
        assert (await setup.write(patient=1)).status == 202
        refused = await setup.write(patient=2)
        assert (refused.status, refused.headers["X-Gateway-Error"]) == (503, "outbox-full")
        assert "Retry-After" in refused.headers


@pytest.mark.parametrize("leave", DISCONNECTS.values(), ids=DISCONNECTS)
async def test_a_write_is_not_queued_if_its_caller_disconnects_meanwhile(
    setup: OutboxSetup, tmp_path: Path, leave: Callable[[Wire], None]
) -> None:
    setup.relay.cut()
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with await Wire.open(setup.gateway.address) as wire:
            asked = "Prefer: respond-async"
            await wire.send(post("/fhir/Observation", observation(), asked))
            # Time to come as far as the outbox.
            await asyncio.sleep(0.3)
            leave(wire)
        # When this is answered the gateway has seen that it is left.
        assert (await setup.ask("GET", "/Patient/1")).status == 503
        other.execute("ROLLBACK")
    assert "aborted" in {record["outcome"] for record in await setup.gateway.audit(2)}
    again = await setup.write(method="POST")
    await setup.deliver(again.location)
    assert len(setup.writes()) == 1


@pytest.mark.parametrize("status", [502, 504])
async def test_502_and_504_of_an_intermediary_leave_a_write_in_doubt(
    setup: OutboxSetup, status: int
) -> None:
    setup.platform.script(page(status))
    assert (await setup.write(method="POST")).status == status
    setup.platform.script(page(status))
    reply = await setup.write()
    assert reply.status == 202
    assert (await setup.final_response(reply.location)).status == 200


async def test_error_responses_are_forwarded(setup: OutboxSetup) -> None:
    for status in (422, 412, 429, 500):
        setup.platform.script(outcome(status))
        assert (await setup.write()).status == status


async def test_writes_are_queued_while_the_sso_is_unavailable(setup: OutboxSetup) -> None:
    setup.sso.respond(ScriptedResponse())
    setup.platform.script(outcome(401))
    assert (await setup.write()).status == 202


async def test_writes_are_queued_while_the_sso_refuses_the_secret(setup: OutboxSetup) -> None:
    setup.sso.respond(oauth_error("invalid_client", 401))
    setup.platform.script(outcome(401))
    assert (await setup.write()).status == 202


async def test_writes_are_queued_until_the_platform_accepts_the_token(setup: OutboxSetup) -> None:
    setup.platform.respond(outcome(401))
    reply = await setup.write()
    assert reply.status == 202
    setup.platform.respond(fhir(b'{"resourceType":"Observation","id":"1"}', 201))
    ended = await setup.final_response(reply.location)
    assert ended.json["entry"][0]["response"]["status"] == "201 Created"


async def test_large_bodies_are_queued(opened: Open) -> None:
    body = json.dumps({"resourceType": "Binary", "data": "x" * 300_000}).encode()
    async with opened(limits={"replay_buffer_bytes": 1000}) as setup:
        setup.relay.cut()
        reply = await setup.enqueue("PUT", "/Binary/1", body)
        await setup.deliver(reply.location)
        assert setup.sent[-1].body == body


async def test_compressed_bodies_are_delivered_unchanged(setup: OutboxSetup) -> None:
    body = gzip.compress(observation())
    setup.relay.cut()
    fields = {"Prefer": "respond-async", "Content_Encoding": "gzip"}
    reply = await setup.ask("PUT", "/Observation/1", body, **fields)
    assert reply.status == 202
    assert (await setup.write(number=2)).status == 202
    await setup.deliver(reply.location)
    seen = setup.sent[0]
    assert (seen.body, seen.header("content-encoding")) == (body, "gzip")


async def test_links_are_rewritten_in_both_directions(setup: OutboxSetup) -> None:
    gateway, platform = setup.gateway.url, setup.gateway.settings.platform.fhir_base_url
    body = observation().replace(b"Patient/1", f"{gateway}/Patient/1".encode())
    setup.relay.cut()
    fields = {"Prefer": "respond-async", "If_None_Exist": f"subject={gateway}/Patient/1"}
    reply = await setup.ask("PUT", "/Observation/1", body, **fields)
    answer = observation().replace(b"Patient/1", f"{platform}/Patient/1".encode())
    location = ("Location", f"{platform}/Observation/1/_history/1")
    setup.platform.respond(fhir(answer, 200, location))
    entry = (await setup.deliver(reply.location)).json["entry"][0]
    (sent,) = setup.sent
    assert json.loads(sent.body)["subject"]["reference"] == f"{platform}/Patient/1"
    assert sent.header("if-none-exist") == f"subject={platform}/Patient/1"
    assert entry["response"]["location"] == f"{gateway}/Observation/1/_history/1"
    assert entry["resource"]["subject"]["reference"] == f"{gateway}/Patient/1"


async def test_every_step_is_audited_and_counted(setup: OutboxSetup) -> None:
    setup.relay.cut()
    reply = await setup.write()
    await setup.deliver(reply.location)
    records = await setup.gateway.audit(3, event="outbox")
    steps = [record["step"] for record in records]
    assert steps[0] == "queued"
    assert steps[-2:] == ["sent", "delivered"]
    assert {record["entry"] for record in records} == {reply.location.rsplit("/", 1)[1]}
    assert await setup.gateway.metric("dhp_gateway_outbox_steps_total", step="delivered") == 1
    (record,) = [each for each in await setup.gateway.audit() if each["status"] == 202][:1]
    assert (record["reason"], record["resource_id"]) == ("", "1")


async def test_a_page_of_an_intermediary_is_no_delivery(setup: OutboxSetup) -> None:
    setup.relay.cut()
    reply = await setup.write()
    setup.answer_writes(page(200), http(302, b"", ("Location", "http://login.example/")))
    ended = await setup.deliver(reply.location)
    assert ended.json["entry"][0]["response"]["status"] == "200 OK"
    assert len(setup.sent) == 3


async def test_a_queued_delete_is_sent_without_a_body(setup: OutboxSetup) -> None:
    setup.relay.cut()
    kept = await setup.ask("DELETE", "/Observation/1", b"{}", Prefer="respond-async")
    assert kept.status == 202
    await setup.deliver(kept.location)
    (sent,) = setup.sent
    assert [name for name, _ in sent.headers if name.lower().startswith("content-")] == []
