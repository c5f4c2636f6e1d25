"""Equal messages of those that callers and the system can make repeat themselves."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

import pytest

from gateway import errors
from gateway.errors import REASONS, GatewayError, Reason
from gateway.telemetry.log_repetition import LogRateLimit
from gateway.telemetry.logs import LogEvent
from tests.doubles.clock import FakeClock


def record(name: str, message: str, *args: object) -> logging.LogRecord:
    """A record as a logger makes it."""
    return logging.LogRecord(name, logging.ERROR, "file", 1, message, args, None)


def refusal(reason: Reason, number: int) -> logging.LogRecord:
    """What the request path logs of a request that failed."""
    error = GatewayError(reason, f"detail {number}")
    return record("gateway.pipeline.handler", "%s (request %s)", error, f"id-{number}")


def test_equal_messages_of_asyncio_are_limited():
    """A burst passes, the rest of the period is counted, and the next period says how many."""
    clock = FakeClock()
    limit = LogRateLimit(burst=2, period=10, clock=clock)
    passed = [limit.filter(record("asyncio", f"accept failed\nsocket {n}")) for n in range(5)]
    assert passed == [True, True, False, False, False]
    clock.now += 10
    first = record("asyncio", "accept failed\nsocket 6")
    assert limit.filter(first)
    assert first.suppressed == 3  # type: ignore[attr-defined]
    assert limit.summaries(at_end=True) == []


def test_other_messages_and_other_loggers_are_not_limited():
    """The limit is for each message of the chatty loggers; the gateway's own always pass."""
    limit = LogRateLimit(burst=1, period=10, clock=lambda: 0.0)
    assert limit.filter(record("asyncio", "a"))
    assert limit.filter(record("asyncio", "b"))
    assert not limit.filter(record("asyncio", "a"))
    for name in ("gateway.x", "gateway.proxyish", "gateway"):
        assert all(limit.filter(record(name, "a")) for _ in range(3))


def test_failed_requests_are_limited_by_reason():
    """Requests that fail for one reason do not hide those that fail for another."""
    limit = LogRateLimit(clock=lambda: 0.0)
    refused = [limit.filter(refusal(errors.BAD_REQUEST, n)) for n in range(300)]
    assert refused == 10 * [True] + 290 * [False]
    assert limit.filter(refusal(errors.URL_TOO_LONG, 1))


def test_an_outage_is_one_line():
    """What fails every request is said once in a period, with how many more there were."""
    clock = FakeClock()
    limit = LogRateLimit(clock=clock)
    passed = [limit.filter(refusal(errors.UPSTREAM_UNREACHABLE, n)) for n in range(300)]
    assert passed == [True] + 299 * [False]
    clock.now += 10
    [summary] = limit.summaries()
    assert summary.suppressed == 299  # type: ignore[attr-defined]


def failure(reason: Reason, request_id: str, **fields: str) -> logging.LogRecord:
    """What the request path logs of a request, as its logger makes it."""
    event = {"event": "%s", "request_id": request_id, "credential": "default", **fields}
    logged = record("gateway.pipeline.handler", "")
    logged.msg = LogEvent(event, (GatewayError(reason, "detail"),))
    return logged


def ids_of(records: Iterable[logging.LogRecord]) -> list[str]:
    """The ids that these lines tell."""
    return [each for record in records for each in record.request_ids]  # type: ignore[attr-defined]


@pytest.mark.parametrize("reason", REASONS.values(), ids=REASONS)
def test_the_ids_of_what_is_left_out_are_told(reason: Reason):
    """Whatever the reason, each failed request's id stands in a line, with none longer than 4 KiB.

    Those of the period before are told though another line takes its place.
    """
    clock = FakeClock()
    limit = LogRateLimit(clock=clock)
    ids = [f"{number:03}-{'x' * (number % 125)}" for number in range(600)]
    told: list[str] = []
    lines: list[logging.LogRecord] = []
    for number, request_id in enumerate(ids):
        if number == 300:
            clock.now += 10
        if number % 50 == 0:
            lines += limit.summaries()
        if limit.filter(failure(reason, request_id)):
            told.append(request_id)
    clock.now += 10
    lines += limit.summaries()
    assert sorted(told + ids_of(lines)) == ids
    assert all(len(json.dumps(line.request_ids)) < 3500 for line in lines)  # type: ignore[attr-defined]
    assert len(lines) < 30
    assert limit.summaries(at_end=True) == []
    assert not limit.is_counting


def test_ids_outlast_messages_that_push_others_out():
    """Where too many different messages are counted, nothing of what was left out is forgotten."""
    limit = LogRateLimit(burst=1, clock=lambda: 0.0)
    for number in range(5):
        limit.filter(failure(errors.BAD_REQUEST, f"id-{number}"))
    for number in range(300):
        limit.filter(record("asyncio", str(number)))
    [summary] = limit.summaries()
    assert (summary.suppressed, ids_of([summary])) == (4, [f"id-{n}" for n in range(1, 5)])  # type: ignore[attr-defined]


def test_ids_that_nobody_reads_take_bounded_memory():
    """While no line is taken only so many ids are kept."""
    limit = LogRateLimit(clock=lambda: 0.0)
    for number in range(50_000):
        limit.filter(failure(errors.UPSTREAM_FAILED, f"id-{number}"))
    lines = limit.summaries(at_end=True)
    assert len(ids_of(lines)) == 20_000
    assert sum(line.suppressed for line in lines) == 49_999  # type: ignore[attr-defined]


def test_unidentified_callers_beyond_their_limit_fill_no_log_with_ids():
    """What the audit only counts, the log only counts too; a caller's own 429 are told."""
    limit = LogRateLimit(clock=lambda: 0.0)
    for number in range(20):
        stranger = failure(errors.RATE_LIMITED, f"stranger-{number}")
        del stranger.msg["credential"]  # type: ignore[attr-defined]
        limit.filter(stranger)
        limit.filter(failure(errors.RATE_LIMITED, f"caller-{number}"))
    told = ids_of(limit.summaries(at_end=True))
    assert len(told) == 15
    assert all(each.startswith("caller-") for each in told)


def test_left_out_lines_are_told_though_none_comes_after_them():
    """When the period is over, a line says how many were left out of it, and only once."""
    clock = FakeClock()
    limit = LogRateLimit(clock=clock)
    for number in range(300):
        limit.filter(refusal(errors.BAD_REQUEST, number))
    limit.filter(refusal(errors.URL_TOO_LONG, 1))
    clock.now += 9.9
    assert limit.summaries() == []
    clock.now += 0.1
    [summary] = limit.summaries()
    assert summary.getMessage() == "left out: bad-request"
    assert (summary.suppressed, summary.levelno) == (290, logging.ERROR)  # type: ignore[attr-defined]
    assert limit.summaries() == []
    assert not limit.is_counting


def test_the_end_does_not_wait_for_the_period():
    """At the end of the process all that was left out is told."""
    limit = LogRateLimit(clock=lambda: 0.0)
    for number in range(11):
        limit.filter(refusal(errors.BAD_REQUEST, number))
    assert limit.is_counting
    assert len(limit.summaries(at_end=True)) == 1


def test_invented_messages_take_no_memory():
    """However many different messages there are, only so many are remembered."""
    limit = LogRateLimit(clock=lambda: 0.0)
    assert all(limit.filter(record("asyncio", str(number))) for number in range(5000))
    assert len(limit._seen) <= 256


def test_what_is_told_in_other_words_is_silenced():
    """The access log, and what OpenTelemetry says of a collector that is away, never go out."""
    limit = LogRateLimit(clock=lambda: 0.0)
    assert not limit.filter(record("aiohttp.access", "a"))
    assert not limit.filter(record("opentelemetry.exporter.otlp", "a"))
    assert limit.filter(record("opentelemetryish", "a"))
