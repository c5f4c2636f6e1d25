"""The cards at the top of the status page, by the facts that they are made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.admin.page_rendering import format_duration, format_number, format_percentage
from gateway.admin.status_page import page_facts, page_update
from gateway.health.health import Component, judge_outbox
from gateway.i18n import format_span
from tests.doubles.gateway_states import VALID_TOKEN, GatewayState, StatusSources

TOKEN: dict[str, Any] = {
    "valid": True,
    "expires_in": 200,
    "rejected": False,
    "fetching": False,
    "failure": None,
    "cause": None,
    "status": None,
    "oauth_error": None,
    "oauth_description": None,
    "next_attempt_in": 100,
}
FACTS: dict[str, Any] = {
    "tokens": {"default": TOKEN},
    "platform": {
        "url": "https://platform.example/fhir",
        "circuit": "closed",
        "connections": {"idle": 2, "active": 0},
        "state": "answers",
        "reason": "answers",
        "since": "2026-01-02T03:04:05Z",
        "probe": None,
    },
    "sso": {"url": "https://sso.example/token", "failure": None},
    "outbox": None,
    "inflight": 3,
}


def cards(*components: Component, **members: Any) -> str:
    facts = {**StatusSources("quiet").facts("en"), **FACTS, **members}
    page = page_update(page_facts(facts, components, {}))["main"]
    return page[page.index('<div id="glance"') : page.index('<section id="reasons"')]


def seen(*components: Component, **members: Any) -> str:
    text = cards(*components, **members)
    for tag in ("<code>", "</code>"):
        text = text.replace(tag, "`")
    while "<" in text:
        text = text[: text.index("<")] + " " + text[text.index(">") + 1 :]
    return " ".join(text.split())


def test_a_healthy_gateway() -> None:
    text = seen()
    assert "Token: expires in ✔ 3 min 20 s valid renewed in 1 min 40 s" in text
    assert "✔ answers sso.example" in text
    since = "Since 2026-01-02 03:04:05 UTC"
    assert f"✔ answers platform.example {since} Requests under way: 3 Connections: idle 2" in text
    assert "Outbox" not in text


@pytest.mark.parametrize(
    ("reason", "token", "expected"),
    [
        ("renewal-fails", {"next_attempt_in": 4}, "⚠ 3 min 20 s not renewed next attempt in 4 s"),
        ("token-awaited", {"expires_in": None}, "✖ missing next attempt"),
        ("platform-refuses", {}, "✖ refused by the platform"),
        ("secret-refused", {}, "✔ 3 min 20 s valid renewed in"),
    ],
)
def test_each_state_of_a_token(reason: str, token: dict[str, Any], expected: str) -> None:
    component = Component("token", "failed", reason, about="default")
    assert expected in seen(component, tokens={"default": {**TOKEN, **token}})


def test_a_missing_token_is_not_shown_as_rejected() -> None:
    gateway = GatewayState()
    gateway.tokens = {"default": replace(VALID_TOKEN, is_valid=False, is_rejected=True)}
    facts = gateway.status().facts("en")
    assert facts["care"]["reason"] == "token-awaited"
    assert "✖ missing" in page_update(page_facts(facts, gateway.health.components(), {}))["main"]


def test_the_token_of_the_audit_is_shown() -> None:
    component = Component("audit", "degraded", "token-refused", about="records")
    text = seen(component, tokens={"default": TOKEN, "records": {**TOKEN, "expires_in": None}})
    assert "✖ missing" in text
    assert "Credential: `records` 1 of 2 are well" in text


def test_the_worst_of_several_tokens_is_shown() -> None:
    lacking = {**TOKEN, "valid": False, "expires_in": None}
    missing = Component("token", "failed", "token-awaited", about="laboratory")
    text = seen(
        missing, tokens={"ward": TOKEN, "laboratory": lacking, "desk": {**TOKEN, "expires_in": 1}}
    )
    assert "✖ missing" in text
    assert "Credential: `laboratory` 2 of 3 are well" in text


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (
            "refused",
            "✖ does not accept the client_id or secret sso.example Last failure: "
            "the token request is refused, ",
        ),
        ("throttled", "✖ asks to wait"),
        ("transient", "✖ gives no token"),
    ],
)
def test_each_failure_of_the_sso(failure: str, expected: str) -> None:
    reported = {"cause": "refused", "status": 401, "oauth_error": "invalid_client"}
    token = {**TOKEN, "failure": failure, **reported}
    text = seen(tokens={"default": token}, sso={"url": "https://sso.example", "failure": failure})
    assert expected in text
    assert "the token request is refused, HTTP 401, `invalid_client`" in text


def test_an_sso_without_a_response_is_unknown() -> None:
    token = {**TOKEN, "valid": False, "expires_in": None, "fetching": True}
    missing = Component("token", "failed", "token-awaited", about="default")
    assert "? no response yet sso.example" in seen(missing, tokens={"default": token})


@pytest.mark.parametrize(
    ("state", "reason", "expected"),
    [
        ("untried", "untried", "? not tried yet"),
        ("doubtful", "many-refusals", "⚠ refuses nearly all"),
        ("fails", "platform-not-fhir", "✖ no FHIR server"),
    ],
)
def test_each_state_of_the_platform(state: str, reason: str, expected: str) -> None:
    assert expected in seen(platform={**FACTS["platform"], "state": state, "reason": reason})


def test_the_last_probe_is_shown() -> None:
    probe = {"found": "platform-tls", "at": "2026-01-02T03:04:09Z"}
    text = seen(platform={**FACTS["platform"], "probe": probe})
    assert "The gateway itself checked 2026-01-02 03:04:09 UTC : no secure connection" in text


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"waiting": 0}, "✔ nothing waits"),
        ({"delivered": 4}, "✔ nothing waits"),
        ({"waiting": 2, "sending": 1}, "✔ writes wait They are sent by themselves"),
        (
            {"waiting": 2, "unclear": 1},
            "⚠ an operator must decide Run `dhp-gateway outbox list`",
        ),
        ({"failed": 1}, "⚠ an operator must decide"),
    ],
)
def test_each_state_of_the_outbox(entries: dict[str, int], expected: str) -> None:
    report = {"entries": entries, "oldest_seconds": 3700.4}
    text = seen(judge_outbox(report), outbox=report)
    assert expected in text
    assert "The oldest waits: 1 h 1 min" in text


def test_waiting_writes_are_a_warning_while_the_platform_fails() -> None:
    fails = {**FACTS["platform"], "state": "fails", "reason": "platform-fails"}
    waiting = {"entries": {"waiting": 2}, "oldest_seconds": 3700.4}
    empty = {"entries": {}, "oldest_seconds": None}
    for report, expected in ((waiting, "⚠ writes wait"), (empty, "✔ nothing waits")):
        component = judge_outbox(report, is_platform_failing=True)
        assert expected in seen(component, platform=fails, outbox=report)


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3661, "1 h 1 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(duration: int, expected: str) -> None:
    assert format_span(duration, "en") == expected


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        *[(0, 15, "0 %"), (15, 15, "100 %"), (1, 3, "33 %"), (9, 10, "90 %"), (1, 10, "10 %")],
        *[(1, 40, "2.5 %"), (1, 50, "2 %"), (1, 1000, "0.1 %"), (1, 12_346, "< 0.1 %")],
        *[(199, 200, "99.5 %"), (12_345, 12_346, "> 99.9 %"), (10**9, 10**9, "100 %")],
    ],
)
def test_shares_are_formatted(part: int, whole: int, expected: str) -> None:
    assert format_percentage(part, whole, "en").replace("\N{NO-BREAK SPACE}", " ") == expected
    russian = format_percentage(part, whole, "ru").replace("\N{NO-BREAK SPACE}", " ")
    assert russian == expected.replace(".", ",")


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        *[(0.0, "0 ms"), (0.4, "0.4 ms"), (9.96, "10 ms"), (84.3, "84 ms"), (999.4, "999 ms")],
        *[(999.6, "1 s"), (1234.5, "1.2 s"), (59_940.0, "59.9 s"), (59_990.0, "1 min 0 s")],
        *[(75_500.0, "1 min 16 s"), (7_200_000.0, "2 h 0 min")],
    ],
)
def test_response_times_are_formatted(duration: float, expected: str) -> None:
    assert format_duration(duration, "en").replace("\N{NO-BREAK SPACE}", " ") == expected


@pytest.mark.parametrize(
    ("value", "english", "uzbek"),
    [(0, "0", "0"), (9999, "9999", "9999"), (1_234_567, "1,234,567", "1 234 567")],
)
def test_large_numbers_are_grouped(value: int, english: str, uzbek: str) -> None:
    assert format_number(value, "en") == english
    assert format_number(value, "uz").replace("\N{NO-BREAK SPACE}", " ") == uzbek


def test_the_outbox_is_linked() -> None:
    outbox = {"entries": {}, "oldest_seconds": None}
    assert 'href="outbox?lang=en"' in cards(judge_outbox(outbox), outbox=outbox)
