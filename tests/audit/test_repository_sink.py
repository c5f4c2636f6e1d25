"""Sending AuditEvents to a FHIR repository."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiohttp
import pytest

from gateway.app.observability_setup import open_trail, repository_writer
from gateway.audit.audit_trail import WriterAuditTrail
from gateway.audit.audit_writer import SinkError, WriterThread
from gateway.audit.repository_sink import (
    MAX_ENTRIES,
    RepositoryClient,
    RepositorySink,
    RepositoryWriter,
)
from gateway.clock import TimeSource
from gateway.config.settings import Settings
from tests.audit.conftest import MAX_WAIT, handed_over
from tests.doubles.repository import Repository


@pytest.fixture
def repository() -> Iterator[Repository]:
    double = Repository()
    yield double
    double.close()


@pytest.fixture
def counted() -> Counter[str]:
    return Counter()


@pytest.fixture
def now() -> list[float]:
    """The sink's clock."""
    return [100.0]


@pytest.fixture
async def open_sink(
    repository: Repository, counted: Counter[str], now: list[float]
) -> AsyncIterator[Callable[..., RepositorySink]]:
    async with aiohttp.ClientSession() as session:

        def build(**more: Any) -> RepositorySink:
            post = RepositoryClient(session, repository.url, **more)
            return RepositorySink(
                repository.url,
                post,
                lambda outcome, n: counted.update({outcome: n}),
                times=TimeSource(lambda: now[0]),
            )

        yield build


def line(number: int, **more: Any) -> bytes:
    return json.dumps({"resourceType": "AuditEvent", "id": f"e-{number}", **more}).encode() + b"\n"


def lines(count: int) -> list[bytes]:
    return [line(number) for number in range(count)]


async def test_resources_are_sent_in_batches_in_order(open_sink, repository: Repository) -> None:
    await asyncio.to_thread(open_sink().write, lines(MAX_ENTRIES * 2 + 1))
    sizes = [len(batch.bundle["entry"]) for batch in repository.batches]
    assert sizes == [MAX_ENTRIES, MAX_ENTRIES, 1]
    assert list(repository.stored) == [f"e-{n}" for n in range(MAX_ENTRIES * 2 + 1)]
    first = repository.batches[0].bundle["entry"][0]
    assert first["fullUrl"] == f"{repository.url}/AuditEvent/e-0"


async def test_batches_are_limited_in_size(open_sink, repository: Repository) -> None:
    large = [line(number, text="x" * 400_000) for number in range(5)]
    await asyncio.to_thread(open_sink().write, large)
    assert [len(batch.bundle["entry"]) for batch in repository.batches] == [2, 2, 1]


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_rejected_batch_is_split(
    open_sink, repository: Repository, counted: Counter[str], status: int
) -> None:
    repository.behave(status)
    sink = open_sink()
    await asyncio.to_thread(sink.write, lines(4))
    assert [len(batch.bundle["entry"]) for batch in repository.batches] == [4, 2, 1, 1, 1, 1]
    sink.count_outcome("written", 4)
    assert counted == {"dropped": 4}


async def test_delays_grow_and_end_with_success(
    open_sink, repository: Repository, now: list[float]
) -> None:
    repository.behave(500)
    sink = open_sink()
    pauses = []
    for _ in range(8):
        with pytest.raises(SinkError, match="HTTP 500"):
            await asyncio.to_thread(sink.write, lines(1))
        asked = len(repository.batches)
        with pytest.raises(SinkError, match="paused"):
            await asyncio.to_thread(sink.write, lines(1))
        assert len(repository.batches) == asked
        pauses.append(sink._not_before - now[0])
        now[0] = sink._not_before
    for number, pause in enumerate(pauses):
        longest = min(0.5 * 2**number, 15.0)
        assert longest / 2 <= pause <= longest
    repository.behave(None)
    await asyncio.to_thread(sink.write, lines(1))
    assert list(repository.stored) == ["e-0"]


async def test_skip_pauses_ends_a_delay(open_sink, repository: Repository) -> None:
    repository.behave(500)
    sink = open_sink()
    with pytest.raises(SinkError):
        await asyncio.to_thread(sink.write, lines(1))
    repository.behave(None)
    sink.skip_pauses()
    await asyncio.to_thread(sink.write, lines(1))
    assert list(repository.stored) == ["e-0"]


async def test_a_request_times_out(open_sink, repository: Repository) -> None:
    repository.behave("hang")
    sink = open_sink(timeout=0.2)
    with pytest.raises(SinkError) as caught:
        await asyncio.to_thread(sink.write, lines(1))
    assert str(caught.value) == "TimeoutError"


async def test_a_closed_idle_connection_is_replaced(open_sink, repository: Repository) -> None:
    sink = open_sink()
    await asyncio.to_thread(sink.write, [line(0)])
    repository.hang_up()
    await asyncio.to_thread(sink.write, [line(1)])
    repository.resets = 1
    await asyncio.to_thread(sink.write, [line(2)])
    assert list(repository.stored) == ["e-0", "e-1", "e-2"]
    assert len(repository.batches) == 4


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_a_response_without_a_body_is_verified_by_a_read(
    open_sink, repository: Repository, counted: Counter[str], status: int
) -> None:
    repository.minimal = status
    sink = open_sink()
    await asyncio.to_thread(sink.write, lines(MAX_ENTRIES + 1))
    sink.count_outcome("written", MAX_ENTRIES + 1)
    assert len(repository.batches) == 2
    assert repository.reads == [f"/fhir/AuditEvent/e-{n}" for n in (MAX_ENTRIES - 1, MAX_ENTRIES)]
    assert counted == {"written": MAX_ENTRIES + 1}


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_a_batch_that_cannot_be_verified_is_sent_again(
    *,
    open_sink,
    repository: Repository,
    now: list[float],
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    repository.minimal = status
    repository.behave("lose")
    sink = open_sink()
    for _ in range(2):
        with pytest.raises(SinkError, match=f"HTTP {status} without a body.* HTTP 404"):
            await asyncio.to_thread(sink.write, lines(3))
        now[0] += 60
    (told,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "audit.fhir_endpoint" in str(told.msg)
    assert "audit.fhir_credential" in str(told.msg)
    repository.behave(None)
    await asyncio.to_thread(sink.write, lines(3))
    assert list(repository.stored) == ["e-0", "e-1", "e-2"]


@pytest.mark.parametrize(
    "reply",
    [
        (200, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"resourceType":"AuditEvent"}'),
        (200, b'{"resourceType":"AuditEvent","id":"other"}'),
        (200, b'{"resourceType":"Bundle","id":"e-0"}'),
        (403, b'{"resourceType":"AuditEvent","id":"e-0"}'),
        (204, b""),
        (302, b""),
        (503, b""),
    ],
)
async def test_only_the_resource_itself_verifies_a_batch(
    open_sink, repository: Repository, reply: tuple[int, bytes]
) -> None:
    repository.minimal, repository.read_reply = 200, reply
    with pytest.raises(SinkError, match="without a body"):
        await asyncio.to_thread(open_sink().write, lines(1))


async def test_after_a_response_without_a_body_a_representation_is_requested(
    open_sink, repository: Repository, now: list[float], counted: Counter[str]
) -> None:
    repository.minimal, repository.is_minimal_always = 200, False
    repository.behave("lose")
    sink = open_sink()
    with pytest.raises(SinkError):
        await asyncio.to_thread(sink.write, lines(3))
    repository.entry_status = lambda resource: 410 if resource["id"] == "e-1" else None
    repository.behave(None)
    now[0] += 60
    await asyncio.to_thread(sink.write, lines(3))
    sink.count_outcome("written", 3)
    assert [batch.headers.get("prefer") for batch in repository.batches] == ["return=minimal", None]
    assert len(repository.reads) == 1
    assert list(repository.stored) == ["e-0", "e-2"]
    assert counted == {"written": 2, "dropped": 1}


@pytest.mark.parametrize("status", [302, 401, 429, 500, 503])
async def test_a_failure_without_a_body_is_an_error(
    open_sink, repository: Repository, status: int
) -> None:
    repository.minimal = status
    with pytest.raises(SinkError, match=f"HTTP {status}"):
        await asyncio.to_thread(open_sink().write, lines(2))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"resourceType":"OperationOutcome"}', "application/fhir.json, OperationOutcome"),
        (b'{"resourceType":"Bundle","type":"searchset"}', "fhir.json, Bundle, searchset"),
        (b"<html>planted</html>", "HTTP 200, 20 bytes, application/fhir.json$"),
        (b'{"resourceType":"planted one","type":7}', "39 bytes, application/fhir.json$"),
        (b"[]", "2 bytes, application/fhir.json$"),
        (
            b'{"resourceType":"Bundle","type":"batch-response","entry":[{}]}',
            "fhir.json, Bundle, batch-response$",
        ),
    ],
)
async def test_an_unexpected_response_is_described_without_its_content(
    open_sink, repository: Repository, body: bytes, words: str
) -> None:
    repository.other = body
    with pytest.raises(SinkError, match=words) as caught:
        await asyncio.to_thread(open_sink().write, lines(1))
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        *((status, f"HTTP {status}") for status in (307, 403, 500, 503)),
        *((trouble, "batch-response") for trouble in (202, "short", "nonsense")),
        *((trouble, "ServerDisconnectedError") for trouble in ("reset", "take-and-reset")),
    ],
)
async def test_a_failed_batch_is_sent_again(
    open_sink, repository: Repository, now: list[float], trouble: Any, error: str
) -> None:
    sink = open_sink()
    repository.behave(trouble)
    for _ in range(2):
        with pytest.raises(SinkError, match=error):
            await asyncio.to_thread(sink.write, lines(3))
        now[0] += 60
    repository.behave(None)
    await asyncio.to_thread(sink.write, lines(3))
    assert list(repository.stored) == ["e-0", "e-1", "e-2"]
    for versions in repository.stored.values():
        assert all(version == versions[0] for version in versions)
    assert {batch.path for batch in repository.batches} == {"/fhir"}


@pytest.mark.parametrize("status", [403, 429, 500, 503])
async def test_only_entries_with_a_temporary_error_are_sent_again(
    open_sink, repository: Repository, now: list[float], status: int
) -> None:
    refused = {"e-1", "e-2"}
    repository.entry_status = lambda event: status if event["id"] in refused else None
    sink = open_sink()
    with pytest.raises(SinkError, match=f"HTTP {status}"):
        await asyncio.to_thread(sink.write, lines(4))
    refused.clear()
    now[0] += 60
    await asyncio.to_thread(sink.write, lines(4))
    assert list(repository.stored) == ["e-0", "e-3", "e-1", "e-2"]
    assert all(len(versions) == 1 for versions in repository.stored.values())


async def test_retry_after_prolongs_the_delay(
    open_sink, repository: Repository, now: list[float]
) -> None:
    sink = open_sink()
    repository.behave(503)
    for asked, pause in (("7", 7.0), ("86400", 15.0)):
        repository.retry_after = asked
        with pytest.raises(SinkError):
            await asyncio.to_thread(sink.write, lines(1))
        assert sink._not_before - now[0] == pause
        now[0] = sink._not_before


@pytest.mark.parametrize(("profile", "claims"), [("base", False), ("uz-core", True)])
async def test_fhir_profile_decides_whether_the_profile_is_claimed(
    pipe, repository: Repository, profile: str, claims: bool
) -> None:
    settings = Settings.model_validate(
        {
            "environment": "dhp-playground",
            "credentials": {"default": {"client_id": "a", "client_secret": "b"}},
            "audit": {
                "fhir_audit_events": True,
                "fhir_endpoint": repository.url,
                "fhir_profile": profile,
            },
        }
    )
    async with aiohttp.ClientSession() as session:
        audit = open_trail(
            settings,
            lambda *_: None,
            stdout=pipe.writer,
            repository=repository_writer(settings, lambda *_: None, session, lambda _: None),
        )
        audit.record_event("login", user="aziza")
        assert await audit.close(MAX_WAIT) == 0
    [event] = repository.current().values()
    assert ("meta" in event) is claims


async def raise_no_token() -> bytes:
    """Fail, with a text that must not be seen."""
    raise LookupError("planted-secret")


async def test_without_its_token_nothing_is_sent(open_sink, repository: Repository) -> None:
    with pytest.raises(SinkError) as caught:
        await asyncio.to_thread(open_sink(authorization=raise_no_token).write, lines(1))
    assert str(caught.value) == "no token for the repository"
    assert repository.batches == []


class Lines:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, lines: Any) -> None:
        self.lines += lines

    def discard_failed(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing to release."""


def translated(record: Any) -> dict[str, Any]:
    """A resource large enough to fill a small backlog soon."""
    return {"resourceType": "AuditEvent", "id": record["request_id"], "text": "x" * 500}


@pytest.mark.parametrize("on_failure", ["block", "drop"])
async def test_a_backlog_over_its_limit_blocks_or_drops(
    open_sink, repository, counted, make_exchange, on_failure: Any, caplog
) -> None:
    """Trouble alone blocks nothing; over the limit `block` refuses, `drop` drops and counts.

    What was accepted is delivered once the repository is back, and the records lose nothing.
    """
    caplog.set_level(logging.INFO)
    repository.behave(500)
    sink = open_sink()
    sink._times = TimeSource(asyncio.get_running_loop().time)
    kept = Lines()
    audit = WriterAuditTrail(
        WriterThread(kept, on_failure=on_failure, on_records=lambda *_: None),
        translate=translated,
        resources=RepositoryWriter(sink, on_failure=on_failure, max_bytes=5000, retry_delay=0.01),
    )
    audit.record_exchange(make_exchange(request_id="r-0"))
    await asyncio.to_thread(repository.wait_for_requests, 2)
    assert audit.is_available
    for number in range(1, 30):
        audit.record_exchange(make_exchange(request_id=f"r-{number}", attempts=0))
    await handed_over()
    assert audit.is_available is (on_failure == "drop")
    audit.record_exchange(make_exchange(request_id="let-in", attempts=1))
    audit.record_exchange(make_exchange(request_id="refused", attempts=0))
    await handed_over()
    assert counted["dropped"] == (1 if on_failure == "block" else 2)
    repository.behave(None)
    assert await audit.close(MAX_WAIT) == 0
    assert audit.is_available
    assert len(kept.lines) == 32
    expected = [f"r-{n}" for n in range(30)] + (["let-in"] if on_failure == "block" else [])
    assert list(repository.stored) == expected
    assert counted["written"] == len(expected)
