"""Limits of equal log messages that callers and the system can cause."""

from __future__ import annotations

import logging

from gateway import errors
from gateway.errors import GatewayError, Reason
from gateway.telemetry.log_repetition import LogRateLimit
from tests.doubles.clock import FakeClock


def record(name: str, message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "file", 1, message, args, None)


def rejection(reason: Reason, number: int) -> logging.LogRecord:
    error = GatewayError(reason, f"detail {number}")
    return record("gateway.pipeline.handler", "%s (request %s)", error, f"id-{number}")


def test_equal_messages_of_asyncio_are_limited():
    """The rest of the period is counted, and reported in the next."""
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
    limit = LogRateLimit(burst=1, period=10, clock=lambda: 0.0)
    assert limit.filter(record("asyncio", "a"))
    assert limit.filter(record("asyncio", "b"))
    assert not limit.filter(record("asyncio", "a"))
    for name in ("gateway.x", "gateway.proxyish", "gateway"):
        assert all(limit.filter(record(name, "a")) for _ in range(3))


def test_failed_requests_are_limited_by_reason():
    limit = LogRateLimit(clock=lambda: 0.0)
    refused = [limit.filter(rejection(errors.BAD_REQUEST, n)) for n in range(300)]
    assert refused == 10 * [True] + 290 * [False]
    assert limit.filter(rejection(errors.URL_TOO_LONG, 1))


def test_an_outage_is_one_line_in_a_period():
    clock = FakeClock()
    limit = LogRateLimit(clock=clock)
    passed = [limit.filter(rejection(errors.UPSTREAM_UNREACHABLE, n)) for n in range(300)]
    assert passed == [True] + 299 * [False]
    clock.now += 10
    [summary] = limit.summaries()
    assert summary.suppressed == 299  # type: ignore[attr-defined]


def test_counts_outlast_the_limit_of_counted_messages():
    limit = LogRateLimit(burst=1, clock=lambda: 0.0)
    for number in range(5):
        limit.filter(rejection(errors.BAD_REQUEST, number))
    for number in range(300):
        limit.filter(record("asyncio", str(number)))
    [summary] = limit.summaries()
    assert summary.suppressed == 4  # type: ignore[attr-defined]


def test_suppressed_lines_are_reported_without_a_later_line():
    clock = FakeClock()
    limit = LogRateLimit(clock=clock)
    for number in range(300):
        limit.filter(rejection(errors.BAD_REQUEST, number))
    limit.filter(rejection(errors.URL_TOO_LONG, 1))
    clock.now += 9.9
    assert limit.summaries() == []
    clock.now += 0.1
    [summary] = limit.summaries()
    assert summary.getMessage() == "left out: bad-request"
    assert (summary.suppressed, summary.levelno) == (290, logging.ERROR)  # type: ignore[attr-defined]
    assert limit.summaries() == []
    assert not limit.is_counting


def test_the_number_of_counted_messages_is_bounded():
    limit = LogRateLimit(clock=lambda: 0.0)
    assert all(limit.filter(record("asyncio", str(number))) for number in range(5000))
    assert len(limit._seen) <= 256


def test_access_log_and_exporter_messages_are_never_written():
    """The gateway reports both itself."""
    limit = LogRateLimit(clock=lambda: 0.0)
    assert not limit.filter(record("aiohttp.access", "a"))
    assert not limit.filter(record("opentelemetry.exporter.otlp", "a"))
    assert limit.filter(record("opentelemetryish", "a"))
