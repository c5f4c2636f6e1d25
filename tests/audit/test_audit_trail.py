"""Audit records as they are written."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from gateway.audit.audit_trail import NullAuditTrail, WriterAuditTrail
from gateway.audit.audit_writer import DescriptorSink, OnFailure, WriterThread
from gateway.secret import Secret
from tests.audit.conftest import MAX_WAIT, handed_over

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def records() -> Counter[str]:
    return Counter()


@pytest.fixture
def open_audit(pipe, records) -> Callable[..., WriterAuditTrail]:
    def build(
        on_failure: OnFailure = "block", translate: Any = None, **limits: int
    ) -> WriterAuditTrail:
        writer = WriterThread(
            DescriptorSink(pipe.writer),
            on_failure=on_failure,
            on_records=lambda outcome, n: records.update({outcome: n}),
            **limits,
        )
        return WriterAuditTrail(writer, translate=translate, clock=lambda: 1767225661.007)

    return build


async def _written(audit: WriterAuditTrail, pipe: Any) -> list[dict[str, Any]]:
    assert await audit.close(MAX_WAIT) == 0
    return [json.loads(line) for line in pipe.read_to_end().splitlines()]


async def test_an_exchange_has_exactly_the_documented_fields(open_audit, pipe, make_exchange):
    audit = open_audit()
    audit.record_exchange(
        make_exchange(
            traceparent=TRACEPARENT,
            user="aziza",
            interaction="search-type",
            query_params=("name", "birthdate", "subject:Patient.name"),
            request_bytes=12,
            attempts=2,
        )
    )
    [record] = await _written(audit, pipe)
    assert list(record.items()) == [
        ("event", "exchange"),
        ("timestamp", "2026-01-01T00:00:00.125Z"),
        ("request_id", "r-1"),
        ("traceparent", TRACEPARENT),
        ("caller", "lab"),
        ("remote", "10.20.0.7"),
        ("user", "aziza"),
        ("credential", "default"),
        ("method", "GET"),
        ("interaction", "search-type"),
        ("resource", "Patient"),
        ("resource_id", "42"),
        ("query_params", ["name", "birthdate", "subject:Patient.name"]),
        ("status", 200),
        ("reason", ""),
        ("upstream_status", 200),
        ("attempts", 2),
        ("request_bytes", 12),
        ("response_bytes", 1700),
        ("duration_ms", 20.4),
        ("upstream_ms", 18.0),
        ("outcome", "success"),
    ]


async def test_a_rejected_request_has_nulls(open_audit, pipe, make_exchange):
    audit = open_audit()
    audit.record_exchange(
        make_exchange(
            status=403,
            reason="caller-forbidden",
            credential=None,
            resource_id=None,
            upstream_status=None,
            upstream_duration=None,
            attempts=0,
        )
    )
    [record] = await _written(audit, pipe)
    empty = {name for name, value in record.items() if value is None}
    assert empty == {
        *("traceparent", "user", "credential", "resource_id", "upstream_status", "upstream_ms")
    }
    assert record["outcome"] == "client-error"


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"status": 201}, "success"),
        ({"status": 404}, "client-error"),
        ({"status": 502}, "failure"),
        ({"status": 0}, "failure"),
        ({"status": 200, "is_aborted": True}, "aborted"),
    ],
)
async def test_the_outcome_follows_status_and_abort(
    open_audit, pipe, make_exchange, changes, outcome
):
    audit = open_audit()
    audit.record_exchange(make_exchange(**changes))
    [record] = await _written(audit, pipe)
    assert record["outcome"] == outcome


@pytest.mark.parametrize(
    ("field", "sent", "written"),
    [
        # What does not look like a parameter's name may be a value.
        *[
            ("query_params", ("name", value), ["name", "***"])
            for value in (
                *("30101901234567", "AA1234567", "Алиев", "a b", "name=x", "x" * 200),
                "_30101901234567",
            )
        ],
        # A caller cannot write free text or a number into the audit by way of other fields.
        ("traceparent", f"{TRACEPARENT} 30101901234567", None),
        ("request_id", "31505901234567", "***"),
        ("request_id", "AA1234567", "***"),
        ("request_id", "20260301083000", "20260301083000"),
        ("request_id", "req-31505901234567", "req-31505901234567"),
        ("request_id", "7f1c", "7f1c"),
        ("method", "GET", "GET"),
        ("method", "VERSION-CONTROL", "VERSION-CONTROL"),
        ("method", "AA1234567", "***"),
        # The audit tells whose record was touched even when the id is a patient's number.
        ("resource_id", "30101901234567", "30101901234567"),
    ],
)
async def test_values_from_callers_are_masked(
    open_audit, pipe, make_exchange, field, sent, written
):
    audit = open_audit()
    audit.record_exchange(make_exchange(**{field: sent}))
    [record] = await _written(audit, pipe)
    assert record[field] == written


async def test_a_translation_follows_its_record(open_audit, pipe, make_exchange):
    def translate(record: Any) -> Any:
        if record["event"] == "stop":
            raise ValueError
        return {"of": record["request_id"]} if record["event"] == "exchange" else None

    audit = open_audit(translate=translate)
    audit.record_exchange(make_exchange())
    audit.record_event("start")
    audit.record_event("stop")
    written = await _written(audit, pipe)
    assert [record["event"] for record in written] == ["exchange", "audit-event", "start", "stop"]
    assert written[1]["resource"] == {"of": "r-1"}
    assert written[1]["timestamp"] == written[0]["timestamp"]


async def test_a_record_with_undecodable_text_is_not_lost(open_audit, pipe, make_exchange):
    audit = open_audit()
    audit.record_exchange(make_exchange(request_id="r-1"))
    audit.record_exchange(make_exchange(request_id="r-2", resource_id="\udcff\n"))
    first, second = await _written(audit, pipe)
    assert first["request_id"] == "r-1"
    assert second["resource_id"] == "\\udcff\n"
    assert second["duration_ms"] == 20.4


async def test_events_have_a_timestamp_and_their_fields(open_audit, pipe):
    audit = open_audit()
    audit.record_event("start", version="0.1.0")
    audit.record_event("login", user="30101901234567", remote="10.0.0.1")
    audit.record_event("token", credential="default", outcome="refused", error="Bearer abc")
    assert await _written(audit, pipe) == [
        {"event": "start", "timestamp": "2026-01-01T00:01:01.007Z", "version": "0.1.0"},
        {
            "event": "login",
            "timestamp": "2026-01-01T00:01:01.007Z",
            "user": "30101901234567",
            "remote": "10.0.0.1",
        },
        {
            "event": "token",
            "timestamp": "2026-01-01T00:01:01.007Z",
            "credential": "default",
            "outcome": "refused",
            "error": "Bearer ***",
        },
    ]


async def test_an_event_shows_no_secret(open_audit, pipe):
    audit = open_audit()
    audit.record_event("token", key=Secret("s3cr3t"), nested={"access_token": "abc"})
    await audit.close(MAX_WAIT)
    written = pipe.read_to_end()
    assert b"s3cr3t" not in written
    assert b"abc" not in written


async def test_records_are_written_without_closing(open_audit, pipe, make_exchange):
    audit = open_audit()
    audit.record_exchange(make_exchange())
    line = await asyncio.to_thread(pipe.read)
    assert json.loads(line)["request_id"] == "r-1"
    await audit.close(MAX_WAIT)


@pytest.mark.parametrize("on_failure", ["block", "drop"])
async def test_over_the_limit_only_forwarded_exchanges_are_kept(
    open_audit, pipe, records, make_exchange, on_failure
):
    audit = open_audit(on_failure, max_bytes=100)
    filler = pipe.fill()
    audit.record_exchange(make_exchange(request_id="fills"))
    await handed_over()
    assert audit.is_available is (on_failure == "drop")
    audit.record_exchange(make_exchange(request_id="in flight before", attempts=1))
    audit.record_exchange(make_exchange(request_id="refused", status=503, attempts=0))
    await handed_over()
    pipe.read(filler)
    written = [record["request_id"] for record in await _written(audit, pipe)]
    assert written == ["fills", *(["in flight before"] if on_failure == "block" else [])]
    assert records == {"written": len(written), "dropped": 3 - len(written)}


async def test_with_block_events_are_kept_over_the_limit(open_audit, pipe, records):
    audit = open_audit(max_bytes=100)
    filler = pipe.fill()
    audit.record_event("login", user="fills", outcome="success")
    audit.record_event("login", user="still fills", outcome="success")
    await handed_over()
    assert not audit.is_available
    audit.record_event("logout", user="over the limit", outcome="success")
    await handed_over()
    pipe.read(filler)
    written = [record["user"] for record in await _written(audit, pipe)]
    assert written == ["fills", "still fills", "over the limit"]
    assert records == {"written": 3}


async def test_no_record_is_dropped_while_there_is_memory(open_audit, pipe, records, make_exchange):
    """As while rsyslog 8.2302 restarts: unavailable at once, but the backlog is far from full."""
    audit = open_audit(stalled_bytes=100, stuck_after=0)
    filler = pipe.fill()
    for request_id in ("fills", "detects the stall"):
        audit.record_exchange(make_exchange(request_id=request_id))
        await handed_over()
    assert not audit.is_available
    audit.record_exchange(make_exchange(request_id="refused", status=503, attempts=0))
    await handed_over()
    pipe.read(filler)
    written = [record["request_id"] for record in await _written(audit, pipe)]
    assert written == ["fills", "detects the stall", "refused"]
    assert records == {"written": 3}


@pytest.mark.parametrize("on_failure", ["block", "drop"])
async def test_unflushed_records_count_towards_the_limit(
    open_audit, pipe, records, make_exchange, on_failure
):
    audit = open_audit(on_failure, max_bytes=100_000)
    for _ in range(1000):
        audit.record_exchange(make_exchange(status=404, attempts=0))
    assert audit.is_available is (on_failure == "drop")
    assert records["dropped"] > 800
    audit.record_exchange(make_exchange(request_id="seen", attempts=1))
    await handed_over()
    assert audit.is_available
    written = await _written(audit, pipe)
    assert len(written) + records["dropped"] == 1001
    assert (written[-1]["request_id"] == "seen") is (on_failure == "block")


async def test_with_block_a_full_backlog_makes_the_audit_unavailable(
    open_audit, pipe, make_exchange
):
    audit = open_audit(max_bytes=100_000)
    for _ in range(300):
        audit.record_exchange(make_exchange())
    await handed_over()
    assert not audit.is_available
    closing = asyncio.ensure_future(audit.close(MAX_WAIT))
    read = b""
    while read.count(b"\n") < 300:
        read += await asyncio.to_thread(pipe.read)
    assert await closing == 0
    assert audit.is_available


async def test_a_flush_waits_for_all_records(open_audit, pipe, make_exchange):
    audit = open_audit()
    for number in range(3):
        audit.record_exchange(make_exchange(request_id=f"r-{number}"))
        audit.record_event("outbox", step="revealed")
        assert await audit.flush(MAX_WAIT)
        assert [json.loads(line)["event"] for line in pipe.read().splitlines()] == [
            "exchange",
            "outbox",
        ]
    assert await audit.flush(MAX_WAIT)
    await audit.close(MAX_WAIT)


async def test_a_flush_ends_at_its_timeout(open_audit, pipe):
    audit = open_audit()
    filler = pipe.fill()
    audit.record_event("outbox", step="revealed")
    assert not await audit.flush(0.05)
    flushing = asyncio.ensure_future(audit.flush(MAX_WAIT))
    await asyncio.sleep(0)
    pipe.read(filler)
    assert await flushing
    await audit.close(MAX_WAIT)


@pytest.mark.parametrize("on_failure", ["block", "drop"])
async def test_a_flush_of_lost_records_fails(on_failure, full_device):
    writer = WriterThread(
        DescriptorSink(full_device), on_failure=on_failure, on_records=lambda *_: None
    )
    audit = WriterAuditTrail(writer)
    audit.record_event("outbox", step="revealed")
    assert not await audit.flush(0.1)
    await audit.close(0)


async def test_a_flush_fails_when_the_backlog_was_full(open_audit, pipe, make_exchange):
    audit = open_audit("drop", max_bytes=100)
    filler = pipe.fill()
    audit.record_exchange(make_exchange(request_id="fills"))
    await handed_over()
    audit.record_event("outbox", step="revealed")
    assert not await audit.flush(MAX_WAIT)
    pipe.read(filler)
    await audit.close(MAX_WAIT)


async def test_the_null_trail_accepts_everything(make_exchange):
    audit = NullAuditTrail()
    assert not await audit.flush(0)
    audit.record_exchange(make_exchange())
    audit.record_event("stop")
    assert audit.is_available
    assert await audit.close(MAX_WAIT) == 0
