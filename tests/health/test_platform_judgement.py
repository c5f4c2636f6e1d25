"""Whether requests can succeed, as a table of what is known and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.exchange import Exchange
from gateway.health.evidence import CircuitState, Evidence, signal_of_exchange
from gateway.health.health import REASONS, Component, judge_platform, judge_token, usability
from tests.doubles.duty import GOOD

NOW = 1000.0
# Callers have been asking for two minutes, the gateway itself has not had to.
WORKED = Evidence(
    has_succeeded=True,
    last_success_at=NOW - 120,
    last_request_at=NOW,
    now=NOW,
)
NEW = replace(WORKED, has_succeeded=False, last_success_at=-1e9)
# Its own question was answered a second ago, and callers went on asking.
ASKED = replace(WORKED, probe="answers", probed_at=NOW - 1)


def bad(before: Evidence, kinds: int = 1, lasting: float = 90, **counts: int) -> Evidence:
    """Nothing but these answers for a while; the last minute is a part of it."""
    told = {found.replace("_", "-"): count for found, count in counts.items()}
    return replace(before, last_minute=told, since_good=told, kinds=kinds, bad_since=NOW - lasting)


def mixed(before: Evidence, **counts: int) -> Evidence:
    """These answers in the last minute, good ones among them."""
    return replace(before, last_minute={f.replace("_", "-"): n for f, n in counts.items()})


def own(found: str, age: float = 1) -> Evidence:
    """The gateway itself has found that."""
    return replace(WORKED, probe=found, probed_at=NOW - age)


CASES: list[tuple[str, Evidence, str, str]] = [
    # Nothing is known yet, or all is well.
    ("nobody has asked", Evidence(), "untried", "untried"),
    ("callers are answered", mixed(WORKED, answers=5), "ok", "answers"),
    ("its own question is answered", own("answers"), "ok", "answers"),
    ("nobody asks any more", replace(WORKED, now=NOW + 9000), "ok", "answers"),
    # What no caller's mistake can be the cause of.
    ("all of 15 fail", bad(WORKED, platform_fails=15), "failed", "platform-fails"),
    ("all of 15, its own is answered", bad(ASKED, platform_fails=15), "failed", "platform-fails"),
    ("a few fail", bad(WORKED, platform_fails=4), "degraded", "many-errors"),
    ("two fail", bad(WORKED, platform_fails=2), "ok", "answers"),
    ("two fail at first", bad(NEW, platform_fails=2), "untried", "untried"),
    ("no connection", bad(WORKED, platform_unreachable=10), "failed", "platform-unreachable"),
    ("no TLS", bad(WORKED, platform_tls=10), "failed", "platform-tls"),
    ("no answer in time", bad(WORKED, platform_timeout=10), "failed", "platform-timeout"),
    (
        "of several the most frequent",
        bad(WORKED, platform_timeout=4, platform_fails=6),
        "failed",
        "platform-fails",
    ),
    (
        "a busy minute, all but one fail",
        mixed(WORKED, platform_fails=39, answers=1),
        "failed",
        "platform-fails",
    ),
    ("half fail", mixed(WORKED, platform_fails=20, answers=20), "ok", "answers"),
    (
        "good answers of this minute, then nothing else than failures for ten seconds",
        replace(
            mixed(WORKED, platform_fails=20, answers=40),
            since_good={"platform-fails": 20},
            bad_since=NOW - 10,
        ),
        "failed",
        "platform-fails",
    ),
    (
        "a hiccup",
        replace(
            mixed(WORKED, platform_fails=20, answers=40),
            since_good={"platform-fails": 20},
            bad_since=NOW - 2,
        ),
        "ok",
        "answers",
    ),
    # What may be callers' mistakes.
    (
        "404 without FHIR from the start",
        bad(NEW, platform_not_fhir=40),
        "failed",
        "platform-not-fhir",
    ),
    ("403 from the start", bad(NEW, platform_refuses=40), "failed", "platform-refuses"),
    ("404 in FHIR from the start", bad(NEW, unclear=40), "degraded", "many-refusals"),
    ("a few 403 from the start", bad(NEW, platform_refuses=5), "degraded", "many-refusals"),
    ("403 after good answers", bad(WORKED, platform_refuses=40), "degraded", "many-refusals"),
    ("a burst of one 403", bad(ASKED, platform_refuses=40), "degraded", "many-refusals"),
    ("a missing id all night", bad(ASKED, unclear=5), "degraded", "many-refusals"),
    ("many 404 of many kinds", bad(ASKED, kinds=3, unclear=90), "degraded", "many-refusals"),
    ("403 for all", bad(ASKED, kinds=3, platform_refuses=40), "failed", "platform-refuses"),
    (
        "403 of many kinds, for a moment",
        bad(ASKED, kinds=3, lasting=20, platform_refuses=40),
        "degraded",
        "many-refusals",
    ),
    (
        "most are 404, some 403",
        bad(ASKED, kinds=3, platform_refuses=10, unclear=30),
        "degraded",
        "many-refusals",
    ),
    ("19 of 20 are mistakes", mixed(ASKED, unclear=95, answers=5), "degraded", "many-refusals"),
    ("a fifth are mistakes", mixed(WORKED, platform_refuses=20, answers=80), "ok", "answers"),
    # The gateway's own question decides, until a caller is answered.
    ("its own is refused", own("platform-refuses"), "failed", "platform-refuses"),
    ("its own finds no FHIR", own("platform-not-fhir"), "failed", "platform-not-fhir"),
    (
        "callers' mistakes and its own is refused",
        replace(bad(WORKED, unclear=5), probe="platform-refuses", probed_at=NOW - 1),
        "failed",
        "platform-refuses",
    ),
    (
        "callers are answered since",
        replace(own("platform-timeout", age=9), last_success_at=NOW - 3),
        "ok",
        "answers",
    ),
    (
        "all failed, then nobody asked but the gateway itself",
        replace(bad(ASKED, platform_fails=15), last_request_at=NOW - 30),
        "ok",
        "answers",
    ),
    (
        "nearly all was refused, then only its own was answered",
        replace(bad(ASKED, platform_refuses=15), last_request_at=NOW - 30),
        "degraded",
        "many-refusals",
    ),
    # The circuit.
    ("it is left alone", replace(WORKED, circuit=CircuitState.OPEN), "failed", "circuit-open"),
    (
        "left alone, and its own question failed",
        replace(own("platform-fails"), circuit=CircuitState.OPEN),
        "failed",
        "platform-fails",
    ),
    (
        "it is being tried",
        replace(WORKED, circuit=CircuitState.HALF_OPEN),
        "degraded",
        "circuit-half-open",
    ),
]


@pytest.mark.parametrize(
    ("evidence", "state", "reason"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_the_platform_is_judged(evidence: Evidence, state: str, reason: str) -> None:
    """Row by row."""
    found = judge_platform(evidence)
    assert (found.state, found.reason) == (state, reason)
    assert usability([found]) == (state != "failed", reason)
    assert found.reason in REASONS


REJECTED = {"is_valid": True, "is_rejected": True}
REFUSED = {"is_valid": False, "failure": "refused"}
TRANSIENT = {"is_valid": False, "failure": "transient"}


@pytest.mark.parametrize(
    ("tokens", "usable", "reason"),
    [
        ([], True, "answers"),
        ([{}, REFUSED], True, "answers"),
        ([{"is_valid": False}], True, "token-awaited"),
        ([REFUSED], False, "token-refused"),
        ([TRANSIENT], False, "sso-unavailable"),
        ([{"is_valid": False, "failure": "throttled"}], False, "sso-unavailable"),
        ([REFUSED, TRANSIENT], False, "token-refused"),
        ([{"is_valid": False}, TRANSIENT], False, "sso-unavailable"),
        ([REJECTED, REFUSED], False, "platform-refuses"),
    ],
)
def test_without_a_token_no_request_can_succeed(
    tokens: list[dict[str, Any]], usable: bool, reason: str
) -> None:
    """What is known of the platform stays; whether requests can succeed does not."""
    judged = [judge_token(f"t{n}", replace(GOOD, **each)) for n, each in enumerate(tokens)]
    assert usability([*judged, judge_platform(WORKED)]) == (usable, reason)
    assert reason in REASONS


@pytest.mark.parametrize(
    ("members", "state", "reason"),
    [
        ({}, "ok", "fine"),
        ({"is_rejected": True}, "failed", "platform-refuses"),
        ({"is_rejected": True, "is_valid": False}, "failed", "token-awaited"),
        ({"failure": "transient"}, "degraded", "renewal-fails"),
        ({"uses_previous_secret": True}, "degraded", "secret-refused"),
        ({"is_valid": False}, "failed", "token-awaited"),
        ({"is_valid": False, "failure": "refused"}, "failed", "token-refused"),
        ({"is_valid": False, "failure": "transient"}, "failed", "sso-unavailable"),
    ],
)
def test_a_token_is_judged(members: dict[str, Any], state: str, reason: str) -> None:
    """One that is valid serves although it could not be renewed."""
    found = judge_token("a", replace(GOOD, **members))
    assert found == Component("token", state, reason, about="a")  # type: ignore[arg-type]


def test_the_credential_that_the_platform_refuses_is_named() -> None:
    """Only where that is the reason."""
    refused = replace(own("platform-refuses"), credential="a")
    assert judge_platform(refused).about == "a"
    assert judge_platform(replace(refused, probe="platform-tls")).about == ""


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ({"upstream_status": 200, "response_bytes": 9}, "answers"),
        ({"upstream_status": 200, "response_bytes": 0}, "platform-not-fhir"),
        ({"upstream_status": 200, "response_bytes": 0, "resource": "Binary"}, "answers"),
        ({"upstream_status": 200, "response_bytes": 0, "is_aborted": True}, "answers"),
        ({"upstream_status": 204, "method": "DELETE"}, "answers"),
        ({"upstream_status": 304}, "answers"),
        ({"upstream_status": 404}, "unclear"),
        ({"upstream_status": 400}, "unclear"),
        ({"upstream_status": 429}, "unclear"),
        ({"upstream_status": 412}, "answers"),
        ({"upstream_status": 422}, "answers"),
        ({"upstream_status": 403}, "platform-refuses"),
        ({"upstream_status": 500}, "platform-fails"),
        ({"upstream_status": 501}, "unclear"),
        ({"upstream_status": 401, "reason": "token-rejected"}, "platform-refuses"),
        ({"upstream_status": 404, "reason": "upstream-non-fhir"}, "platform-not-fhir"),
        ({"upstream_status": 200, "reason": "upstream-non-fhir"}, "platform-not-fhir"),
        ({"upstream_status": 403, "reason": "upstream-non-fhir"}, "platform-refuses"),
        ({"upstream_status": 502, "reason": "upstream-non-fhir"}, "platform-fails"),
        ({"upstream_status": 302, "reason": "upstream-redirect"}, "platform-not-fhir"),
        ({"reason": "upstream-unreachable"}, "platform-unreachable"),
        ({"reason": "upstream-tls"}, "platform-tls"),
        ({"reason": "upstream-timeout"}, "platform-timeout"),
        ({"reason": "upstream-busy"}, "platform-timeout"),
        ({"upstream_status": 200, "reason": "upstream-failed"}, "platform-fails"),
        ({"upstream_status": 200, "reason": "search-parameter-ignored"}, "answers"),
        # The platform was not asked.
        ({"reason": "circuit-open"}, None),
        ({"reason": "token-refused"}, None),
        ({"reason": "sso-unavailable"}, None),
        ({"reason": "caller-forbidden"}, None),
        ({"reason": "rate-limited"}, None),
    ],
)
def test_an_exchange_tells_of_the_platform(members: dict[str, Any], found: str | None) -> None:
    """What its end says, or nothing; nothing bad where the caller may have left before it."""
    exchange = Exchange("id", 0.0, 0.0, method="GET", response_bytes=1, resource="Patient")
    exchange.status = members.get("upstream_status", 0)
    for name, value in members.items():
        setattr(exchange, name, value)
    assert signal_of_exchange(exchange) == found
    exchange.half_closed = True
    assert signal_of_exchange(exchange) == (found if found == "answers" else None), (
        "its caller gave up"
    )
