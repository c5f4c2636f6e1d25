"""When a request is sent to the platform once more, and when it never is."""

from __future__ import annotations

import asyncio

import pytest

from gateway.pipeline.upstream import RetryBudget
from tests.doubles.clock import FakeClock
from tests.doubles.gateway import Running
from tests.doubles.platform import (
    PATIENT,
    Answer,
    Line,
    Platform,
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
from tests.doubles.wire import Reply, Wire, ask, get, post
from tests.pipeline.stage import Stage

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
FAULTS: dict[str, tuple[Answer, str]] = {
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


async def sent(gateway: Running, request: bytes) -> Reply:
    """The answer, on a connection of its own."""
    return await ask(gateway.address, request, head=request.startswith(b"HEAD"))


async def retried(gateway: Running, cause: str) -> float:
    """How many repetitions the metrics tell of."""
    return await gateway.metric("dhp_gateway_upstream_retries_total", cause=cause)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("read", READS)
async def test_read_is_repeated(stage: Stage, read: str, fault: str) -> None:
    """A read whose answer failed is sent again with the same bytes, and its attempts counted."""
    if read == "HEAD" and fault in BODILESS:
        fault = "closed"
    answer, cause = FAULTS[fault]
    stage.platform.script(answer, answer)
    gateway = await stage.start()
    assert (await sent(gateway, READS[read])).status == 200
    first, *others = stage.platform.seen
    assert len(others) == 2
    for other in others:
        assert other.method == first.method
        assert (other.target, other.headers) == (first.target, first.headers)
    assert stage.platform.seen[2].body == READS[read].partition(b"\r\n\r\n")[2]
    (record,) = await gateway.audit()
    assert (record["attempts"], record["upstream_status"], record["reason"]) == (3, 200, "")
    assert await retried(gateway, cause) == 2


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("write", WRITES)
async def test_write_is_never_repeated(stage: Stage, write: str, fault: str) -> None:
    """A write that the platform may have seen is sent once, whatever came back."""
    answer, cause = FAULTS[fault]
    stage.platform.answer(answer)
    gateway = await stage.start()
    reply = await sent(gateway, WRITES[write])
    assert len(stage.platform.seen) == 1
    (record,) = await gateway.audit()
    assert record["attempts"] == 1
    passed_on = "upstream-non-fhir" if fault == "page 503" else None
    assert reply.reason == ("upstream-failed" if cause == "broken" else passed_on)
    assert await retried(gateway, cause) == 0


@pytest.mark.parametrize("request_name", [*READS, *WRITES])
async def test_refused_connection_is_tried_again(stage: Stage, request_name: str) -> None:
    """Where no connection could be made nothing was delivered: any method is tried again."""
    port = free_port()
    gateway = await stage.start(
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
async def test_max_attempts(stage: Stage, most: int) -> None:
    """`max_attempts` counts the first one; the last answer is passed on as it is."""
    stage.platform.answer(outcome(503))
    gateway = await stage.start(retries={"max_attempts": most, "backoff": 0.01, "budget_ratio": 1})
    reply = await sent(gateway, READS["GET"])
    assert (reply.status, reply.reason) == (503, None)
    assert len(stage.platform.seen) == most


async def test_attempts_before_a_new_token_count(stage: Stage) -> None:
    """A 401 grants one more attempt with a new token, not a new set of attempts."""
    stage.platform.script(outcome(503), outcome(503), unauthorized(), outcome(503))
    gateway = await stage.start()
    reply = await sent(gateway, READS["GET"])
    assert reply.status == 503
    tokens = [seen.header("authorization") for seen in stage.platform.seen]
    assert tokens == ["Bearer token-1"] * 3 + ["Bearer token-2"]
    (record,) = await gateway.audit()
    assert record["attempts"] == 4


async def test_attempts_left_after_a_new_token(stage: Stage) -> None:
    """What is left of `max_attempts` after a 401 may be used with the new token."""
    stage.platform.script(unauthorized(), outcome(503))
    gateway = await stage.start()
    assert (await sent(gateway, READS["GET"])).status == 200
    assert len(stage.platform.seen) == 3


async def test_retry_after_is_waited_for(stage: Stage) -> None:
    """The platform's own Retry-After is what the next attempt waits for."""
    stage.platform.script(outcome(503, ("Retry-After", "1")))
    gateway = await stage.start()
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert (await sent(gateway, READS["GET"])).status == 200
    # The platform asked for a delay of a second; the delay may be longer.
    assert loop.time() - started >= 1


@pytest.mark.parametrize("value", ["soon", "-1", "", "1.5", "Mon, 99 Foo 2026 00:00:00 GMT"])
async def test_broken_retry_after(stage: Stage, value: str) -> None:
    """A Retry-After that means nothing does no harm."""
    stage.platform.script(outcome(503, ("Retry-After", value)))
    gateway = await stage.start()
    assert (await sent(gateway, READS["GET"])).status == 200


async def test_body_larger_than_the_replay_buffer_is_not_repeated(stage: Stage) -> None:
    """A search whose body is no longer at hand is sent once."""
    stage.platform.answer(then_close(b""))
    gateway = await stage.start(limits={"replay_buffer_bytes": 10})
    request = post("/fhir/Patient/_search", b"name=" + b"x" * 1000)
    assert (await sent(gateway, request)).reason == "upstream-failed"
    assert len(stage.platform.seen) == 1


async def test_budget_bounds_the_load(stage: Stage) -> None:
    """When everything fails, repetitions are a share of the requests and a few a second."""
    stage.platform.answer(outcome(503))
    gateway = await stage.start(
        retries={"budget_ratio": 0.1, "backoff": 0},
        circuit_breaker={"min_requests": 1000},
    )
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with await Wire.open(gateway.address) as wire:
        for _ in range(100):
            await wire.ask(READS["GET"])
    seconds = loop.time() - started
    repeated = len(stage.platform.seen) - 100
    assert 3 <= repeated <= 0.1 * 100 + 3 * (seconds + 1) + 1
    assert repeated == await retried(gateway, "status")


def test_budget_always_grants_three_a_second() -> None:
    """Without any savings three repetitions a second are granted, and no more."""
    clock = FakeClock()
    budget = RetryBudget(0.0, clock)
    for _ in range(3):
        assert [budget.withdraw() for _ in range(5)] == [True] * 3 + [False] * 2
        clock.now += 1


def test_budget_earns_its_share() -> None:
    """Every request adds its share to what may be repeated."""
    budget = RetryBudget(0.25, FakeClock())
    for _ in range(40):
        budget.deposit()
    granted = [budget.withdraw() for _ in range(20)]
    assert granted == [True] * 13 + [False] * 7


async def dead_connection(stage: Stage, how: str) -> tuple[Running, Wire]:
    """A gateway whose kept connection to the platform dies when it is used again."""
    gateway = await stage.start()
    wire = await stage.open(gateway.address)
    stage.platform.script(fhir(), then_reset(b"") if how == "reset" else then_close(b""))
    assert (await wire.ask(READS["GET"])).status == 200
    return gateway, wire


@pytest.mark.parametrize("how", ["reset", "closed"])
@pytest.mark.parametrize("read", READS)
async def test_read_on_a_dead_connection(stage: Stage, read: str, how: str) -> None:
    """A read that met a kept connection's end is sent again on a new one."""
    gateway, wire = await dead_connection(stage, how)
    reply = await wire.ask(READS[read], head=read == "HEAD")
    assert reply.status == 200
    assert [seen.connection for seen in stage.platform.seen] == [1, 1, 2]
    assert await retried(gateway, "reused") == 1
    assert [record["attempts"] for record in await gateway.audit(2)] == [1, 2]


async def test_second_attempt_trusts_no_kept_connection(stage: Stage) -> None:
    """Where one kept connection died others did too: the second attempt makes a new one."""
    together = asyncio.Barrier(3)

    async def answer(line: Line) -> None:
        seen = [each.connection for each in stage.platform.seen]
        if seen.count(line.seen.connection) == 1:
            await read_body(line.reader, line.seen)
            if line.seen.connection <= 3:
                await together.wait()
            line.writer.write(fhir())
        else:
            line.writer.close()

    stage.platform.answer(answer)
    gateway = await stage.start(retries={"max_attempts": 2, "backoff": 0.01})
    await asyncio.gather(*(sent(gateway, READS["GET"]) for _ in range(3)))
    assert (await sent(gateway, READS["GET"])).status == 200
    assert [seen.connection for seen in stage.platform.seen][-1] == 4


@pytest.mark.parametrize("how", ["reset", "closed"])
@pytest.mark.parametrize("write", WRITES)
async def test_write_on_a_dead_connection(stage: Stage, write: str, how: str) -> None:
    """A write that met a kept connection's end is not sent again: its outcome is unknown."""
    gateway, wire = await dead_connection(stage, how)
    reply = await wire.ask(WRITES[write])
    assert (reply.status, reply.reason) == (502, "upstream-failed")
    assert "outcome unknown" in reply.json()["issue"][0]["diagnostics"]
    assert len(stage.platform.seen) == 2
    assert await gateway.metric("dhp_gateway_upstream_retries_total") == 0
    _, record = await gateway.audit(2)
    assert (record["attempts"], record["outcome"]) == (1, "failure")


SAID_OF_ATTEMPTS = {
    "none": ("Nothing was delivered.",) * 2,
    "refused": ("refused it and saved nothing.", "got an earlier attempt and refused it."),
    "unclear": ("it is not known whether the data was saved", "got no usable answer."),
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
async def test_what_was_sent_before_is_told(
    stage: Stage, first: Answer | None, delivered: str, request_name: str
) -> None:
    """Where no further attempt can be made, the text tells what became of the earlier one."""
    if first is None:
        gateway = await stage.start(platform_url=f"http://127.0.0.1:{free_port()}/r5")
    else:
        gateway = await stage.start()
        stage.platform.answer(once_only(stage.platform, first))
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


async def test_a_request_whose_token_was_refused_is_not_told_that_nothing_was_sent(
    stage: Stage,
) -> None:
    """The SSO gives no new token: the platform has seen the request, and did not process it."""
    stage.platform.answer(unauthorized())
    gateway = await stage.start()
    await stage.sso.seen(1)
    stage.sso.handle(sso_status(503))
    reply = await sent(gateway, WRITES["POST"])
    assert (reply.reason, len(stage.platform.seen)) == ("sso-unavailable", 1)
    text = text_of(reply)
    assert "refused it and saved nothing." in text
    assert "nothing was sent" not in text


def text_of(reply: Reply) -> str:
    """The text for the user, in English."""
    return str(reply.json()["issue"][0]["details"]["text"])


def once_only(platform: Platform, first: Answer) -> Answer:
    """The answer to the first request, after which nobody can connect any more."""

    async def answer(line: Line) -> None:
        platform.stop_listening()
        await read_body(line.reader, line.seen)
        if isinstance(first, bytes):
            line.writer.write(first.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            line.writer.close()
        else:
            await first(line)

    return answer
