"""When a request is retried, and when it never is."""

from __future__ import annotations

import asyncio

import pytest

from gateway.pipeline.upstream import RetryBudget
from tests.doubles.clock import FakeClock
from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import (
    PATIENT,
    Platform,
    PlatformConnection,
    ScriptedResponse,
    chunked,
    fhir,
    outcome,
    page,
    read_body,
    then_close,
    then_reset,
    unauthorized,
)
from tests.doubles.processes import free_port
from tests.doubles.sso import status as sso_status
from tests.doubles.wire import Response, Wire, fetch, get, post
from tests.pipeline.testbed import Testbed

READS = {
    "GET": get("/fhir/Patient/1"),
    "HEAD": get("/fhir/Patient/1", method="HEAD"),
    "search by POST": post("/fhir/Patient/_search", b"name=Karimov"),
    "search of everything by POST": post("/fhir/_search", b"_id=1"),
}
WRITES = {
    "POST": post("/fhir/Patient", b'{"a":1}'),
    "PUT": post("/fhir/Patient/1", b'{"a":1}', method="PUT"),
    "PATCH": post("/fhir/Patient/1", b"[]", method="PATCH"),
    "DELETE": get("/fhir/Patient/1", method="DELETE"),
    "transaction": post("/fhir", b'{"resourceType":"Bundle","type":"transaction"}'),
    "operation": post("/fhir/Patient/$validate", b"{}"),
    "conditional create": post("/fhir/Patient", b"{}", "If-None-Exist: identifier=1"),
    "operation called _search": post("/fhir/Patient/1/$_search", b"{}"),
}
_HALF = b"HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\nContent-Length: 99\r\n\r\n{"
FAULTS: dict[str, tuple[ScriptedResponse, str]] = {
    "closed": (then_close(b""), "broken"),
    "reset": (then_reset(b""), "broken"),
    "truncated": (then_close(_HALF), "broken"),
    "cut chunks": (then_close(chunked(PATIENT, end=False)), "broken"),
    "garbage": (then_close(b"garbage\r\n\r\n"), "broken"),
    "502": (outcome(502), "status"),
    "503": (outcome(503), "status"),
    "504": (outcome(504), "status"),
    "page 503": (page(503), "status"),
}
# No body means no truncated one.
BODILESS = {"truncated", "cut chunks"}


async def sent(gateway: RunningGateway, request: bytes) -> Response:
    return await fetch(gateway.address, request, head=request.startswith(b"HEAD"))


async def retried(gateway: RunningGateway, cause: str) -> float:
    return await gateway.metric("dhp_gateway_upstream_retries_total", cause=cause)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("read", READS)
async def test_a_failed_read_is_retried(testbed: Testbed, read: str, fault: str) -> None:
    """With the same octets, and its attempts counted."""
    if read == "HEAD" and fault in BODILESS:
        fault = "closed"
    response, cause = FAULTS[fault]
    testbed.platform.script(response, response)
    gateway = await testbed.start()
    assert (await sent(gateway, READS[read])).status == 200
    first, *others = testbed.platform.requests
    assert len(others) == 2
    for other in others:
        assert other.method == first.method
        assert (other.target, other.headers) == (first.target, first.headers)
    assert testbed.platform.requests[2].body == READS[read].partition(b"\r\n\r\n")[2]
    (record,) = await gateway.audit()
    assert (record["attempts"], record["upstream_status"], record["reason"]) == (3, 200, "")
    assert await retried(gateway, cause) == 2


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_write_that_the_platform_may_have_received_is_not_retried(
    testbed: Testbed, fault: str
) -> None:
    response, cause = FAULTS[fault]
    testbed.platform.respond(response)
    gateway = await testbed.start()
    replies = {write: await sent(gateway, request) for write, request in WRITES.items()}
    passed_on = "upstream-non-fhir" if fault == "page 503" else None
    reason = "upstream-failed" if cause == "broken" else passed_on
    assert {write: reply.reason for write, reply in replies.items()} == dict.fromkeys(
        WRITES, reason
    )
    assert len(testbed.platform.requests) == len(WRITES)
    records = await gateway.audit(len(WRITES))
    assert [record["attempts"] for record in records] == [1] * len(WRITES)
    assert await retried(gateway, cause) == 0


@pytest.mark.parametrize("request_name", [*READS, *WRITES])
async def test_a_refused_connection_is_retried_for_every_method(
    testbed: Testbed, request_name: str
) -> None:
    """Nothing was delivered."""
    port = free_port()
    gateway = await testbed.start(
        platform_url=f"http://127.0.0.1:{port}/r5", retries={"backoff": 0.5, "max_attempts": 10}
    )
    request = {**READS, **WRITES}[request_name]
    asking = asyncio.create_task(sent(gateway, request))
    while not await retried(gateway, "connect"):
        pass
    server = await asyncio.start_server(_one_answer, "127.0.0.1", port)
    async with server:
        assert (await asking).status == 200
    (record,) = await gateway.audit()
    assert record["attempts"] == 1 + await retried(gateway, "connect")


async def _one_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(fhir())
    writer.close()


@pytest.mark.parametrize("most", [1, 2, 5])
async def test_max_attempts_includes_the_first(testbed: Testbed, most: int) -> None:
    """The last response is passed on unchanged."""
    testbed.platform.respond(outcome(503))
    gateway = await testbed.start(
        retries={"max_attempts": most, "backoff": 0.01, "budget_ratio": 1}
    )
    reply = await sent(gateway, READS["GET"])
    assert (reply.status, reply.reason) == (503, None)
    assert len(testbed.platform.requests) == most


async def test_attempts_before_a_new_token_count(testbed: Testbed) -> None:
    """A 401 grants one more attempt with a new token, not a new set of attempts."""
    testbed.platform.script(outcome(503), outcome(503), unauthorized(), outcome(503))
    gateway = await testbed.start()
    reply = await sent(gateway, READS["GET"])
    assert reply.status == 503
    tokens = [request.header("authorization") for request in testbed.platform.requests]
    assert tokens == ["Bearer token-1"] * 3 + ["Bearer token-2"]
    (record,) = await gateway.audit()
    assert record["attempts"] == 4


async def test_attempts_left_after_a_new_token(testbed: Testbed) -> None:
    """The rest of `max_attempts` may be used with the new token."""
    testbed.platform.script(unauthorized(), outcome(503))
    gateway = await testbed.start()
    assert (await sent(gateway, READS["GET"])).status == 200
    assert len(testbed.platform.requests) == 3


async def test_a_retry_waits_for_the_retry_after(testbed: Testbed) -> None:
    testbed.platform.script(outcome(503, ("Retry-After", "1")))
    gateway = await testbed.start()
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert (await sent(gateway, READS["GET"])).status == 200
    # The platform asked for a delay of a second; the delay may be longer.
    assert loop.time() - started >= 1


@pytest.mark.parametrize("value", ["soon", "-1", "", "1.5", "Mon, 99 Foo 2026 00:00:00 GMT"])
async def test_an_invalid_retry_after_is_ignored(testbed: Testbed, value: str) -> None:
    testbed.platform.script(outcome(503, ("Retry-After", value)))
    gateway = await testbed.start()
    assert (await sent(gateway, READS["GET"])).status == 200


async def test_a_body_larger_than_the_replay_buffer_is_not_retried(testbed: Testbed) -> None:
    testbed.platform.respond(then_close(b""))
    gateway = await testbed.start(limits={"replay_buffer_bytes": 10})
    request = post("/fhir/Patient/_search", b"name=" + b"x" * 1000)
    assert (await sent(gateway, request)).reason == "upstream-failed"
    assert len(testbed.platform.requests) == 1


async def test_the_retry_budget_bounds_the_load(testbed: Testbed) -> None:
    """A share of the requests, and a few a second."""
    testbed.platform.respond(outcome(503))
    gateway = await testbed.start(
        retries={"budget_ratio": 0.1, "backoff": 0}, circuit_breaker={"min_requests": 1000}
    )
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with await Wire.open(gateway.address) as wire:
        for _ in range(100):
            await wire.fetch(READS["GET"])
    seconds = loop.time() - started
    repeated = len(testbed.platform.requests) - 100
    assert 3 <= repeated <= 0.1 * 100 + 3 * (seconds + 1) + 1
    assert repeated == await retried(gateway, "status")


def test_the_retry_budget_grants_three_a_second_without_deposits() -> None:
    clock = FakeClock()
    budget = RetryBudget(0.0, clock)
    for _ in range(3):
        assert [budget.withdraw() for _ in range(5)] == [True] * 3 + [False] * 2
        clock.now += 1


def test_each_request_deposits_its_share_of_the_retry_budget() -> None:
    budget = RetryBudget(0.25, FakeClock())
    for _ in range(40):
        budget.deposit()
    granted = [budget.withdraw() for _ in range(20)]
    assert granted == [True] * 13 + [False] * 7


async def test_successful_requests_let_more_than_three_reads_a_second_be_retried(
    testbed: Testbed,
) -> None:
    gateway = await testbed.start(retries={"budget_ratio": 1.0, "backoff": 0.0})
    for _ in range(20):
        assert (await fetch(gateway.address, READS["GET"])).status == 200
    for _ in range(20):
        testbed.platform.script(outcome(503))
        assert (await fetch(gateway.address, READS["GET"])).status == 200


async def dead_connection(testbed: Testbed, how: str) -> tuple[RunningGateway, Wire]:
    """Return a gateway whose idle connection to the platform fails at its next use."""
    gateway = await testbed.start()
    wire = await testbed.open(gateway.address)
    testbed.platform.script(fhir(), then_reset(b"") if how == "reset" else then_close(b""))
    assert (await wire.fetch(READS["GET"])).status == 200
    return gateway, wire


@pytest.mark.parametrize("how", ["reset", "closed"])
@pytest.mark.parametrize("read", READS)
async def test_a_read_on_a_closed_idle_connection_is_retried_on_a_new_one(
    testbed: Testbed, read: str, how: str
) -> None:
    gateway, wire = await dead_connection(testbed, how)
    reply = await wire.fetch(READS[read], head=read == "HEAD")
    assert reply.status == 200
    assert [request.connection for request in testbed.platform.requests] == [1, 1, 2]
    assert await retried(gateway, "reused") == 1
    assert [record["attempts"] for record in await gateway.audit(2)] == [1, 2]


async def test_a_retry_uses_no_idle_connection(testbed: Testbed) -> None:
    """Where one was closed, others were too."""
    together = asyncio.Barrier(3)

    async def respond(connection: PlatformConnection) -> None:
        received = [each.connection for each in testbed.platform.requests]
        if received.count(connection.request.connection) == 1:
            await read_body(connection.reader, connection.request)
            if connection.request.connection <= 3:
                await together.wait()
            connection.writer.write(fhir())
        else:
            connection.writer.close()

    testbed.platform.respond(respond)
    gateway = await testbed.start(retries={"max_attempts": 2, "backoff": 0.01})
    await asyncio.gather(*(sent(gateway, READS["GET"]) for _ in range(3)))
    assert (await sent(gateway, READS["GET"])).status == 200
    assert [request.connection for request in testbed.platform.requests][-1] == 4


@pytest.mark.parametrize("how", ["reset", "closed"])
@pytest.mark.parametrize("write", WRITES)
async def test_a_write_on_a_closed_idle_connection_is_not_retried(
    testbed: Testbed, write: str, how: str
) -> None:
    """Its outcome is unknown."""
    gateway, wire = await dead_connection(testbed, how)
    reply = await wire.fetch(WRITES[write])
    assert (reply.status, reply.reason) == (502, "upstream-failed")
    assert "outcome unknown" in reply.json()["issue"][0]["diagnostics"]
    assert len(testbed.platform.requests) == 2
    assert await gateway.metric("dhp_gateway_upstream_retries_total") == 0
    _, record = await gateway.audit(2)
    assert (record["attempts"], record["outcome"]) == (1, "failure")


SAID_OF_ATTEMPTS = {
    "none": ("Nothing was delivered.",) * 2,
    "refused": ("refused it and saved nothing.", "received an earlier attempt and refused it."),
    "unclear": ("It is not known whether the data was saved", "got no usable response."),
}


@pytest.mark.parametrize("request_name", ["GET", "search by POST", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    ("first", "delivered"),
    [
        (None, "none"),
        (outcome(503), "unclear"),
        (then_close(b""), "unclear"),
        (then_close(_HALF), "unclear"),
        (unauthorized(), "refused"),
    ],
    ids=["nothing", "503", "closed", "truncated", "401"],
)
async def test_the_error_says_what_became_of_earlier_attempts(
    testbed: Testbed, first: ScriptedResponse | None, delivered: str, request_name: str
) -> None:
    """Where no further attempt can be made."""
    if first is None:
        gateway = await testbed.start(platform_url=f"http://127.0.0.1:{free_port()}/r5")
    else:
        gateway = await testbed.start()
        testbed.platform.respond(once_only(testbed.platform, first))
    is_read = request_name in READS
    reply = await sent(gateway, {**READS, **WRITES}[request_name])
    if not is_read and delivered == "unclear":
        # No further attempt was made at all.
        assert reply.reason in ("upstream-failed", None)
        return
    assert reply.reason == "upstream-unreachable"
    text = text_of(reply)
    assert SAID_OF_ATTEMPTS[delivered][is_read] in text
    assert ("Nothing was delivered" in text) == (delivered == "none")


async def test_after_a_401_the_error_does_not_say_that_nothing_was_sent(testbed: Testbed) -> None:
    """The platform received the request and did not process it."""
    testbed.platform.respond(unauthorized())
    gateway = await testbed.start()
    await testbed.sso.wait_for_requests(1)
    testbed.sso.respond(sso_status(503))
    reply = await sent(gateway, WRITES["POST"])
    assert (reply.reason, len(testbed.platform.requests)) == ("sso-unavailable", 1)
    text = text_of(reply)
    assert "refused it and saved nothing." in text
    assert "nothing was sent" not in text


def text_of(reply: Response) -> str:
    return str(reply.json()["issue"][0]["details"]["text"])


def once_only(platform: Platform, first: ScriptedResponse) -> ScriptedResponse:
    """Respond to the first request, and then stop listening."""

    async def respond(connection: PlatformConnection) -> None:
        platform.stop_listening()
        await read_body(connection.reader, connection.request)
        if isinstance(first, bytes):
            connection.writer.write(first.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            connection.writer.close()
        else:
            await first(connection)

    return respond
