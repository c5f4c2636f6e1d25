"""The status page and its facts, over real sockets; how the last hour is counted, with a clock."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pytest_aiohttp import AiohttpClient

from gateway import __version__
from gateway.admin.admin_server import build_application
from gateway.admin.operators import Operators
from gateway.admin.status_facts import StatusReporter
from gateway.exchange import Exchange
from gateway.guidance import COMPONENT_GUIDANCE, REASON_GUIDANCE
from gateway.health.health import Health
from gateway.health.recent_requests import MINUTES, PLATFORM_ERROR, PLATFORM_REFUSAL, RecentRequests
from gateway.oauth.token_failures import TOKEN_CAUSES
from tests.doubles import platform as platform_answers
from tests.doubles import sso as sso_answers
from tests.doubles.clock import FakeClock
from tests.doubles.gateway import RunningGateway, running_gateway
from tests.doubles.gateway_states import StatusSources
from tests.doubles.platform import Platform
from tests.doubles.sections import CLIENT_SECRET
from tests.doubles.sso import Sso
from tests.doubles.waiting import wait_until

STATUS_JSON = "/status.json"
PATIENT_ID = "pinfl-31503850200017"
HOSTILE = '<script>alert("x")</script>'


def reporter(gateway: RunningGateway, traffic: RecentRequests) -> StatusReporter:
    """Return the source of the page's facts, all well but for the traffic."""
    return StatusReporter(
        settings=lambda: gateway.settings,
        health=Health(
            platform=lambda: gateway.gateway.health.platform(),
            tokens=dict,
            credentials_in_use=tuple,
            is_audit_available=lambda: True,
            is_draining=lambda: False,
            outbox=lambda: None,
            recent_requests=traffic,
        ),
        connections=dict,
        inflight=int,
        audit_dropped=int,
    )


async def get(url: str, **headers: str) -> tuple[Any, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with aiohttp.request("GET", url, headers=named) as answer:
        return answer, await answer.text()


def exchange(clock: FakeClock, **members: Any) -> Exchange:
    duration = members.get("duration", 0.0)
    made = Exchange("id", clock.wall() - duration, clock() - duration, status=200)
    for name, value in members.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def traffic(clock: FakeClock) -> RecentRequests:
    return RecentRequests(clock, clock.wall)


async def test_a_healthy_gateway(gateway: RunningGateway) -> None:
    answer, _ = await get(f"{gateway.url}/Patient/1")
    assert answer.status == 200
    facts = await gateway.facts()
    assert facts["contact"] is None
    assert "Whom to call" not in (await gateway.admin_page("/status?lang=en"))[1]
    assert facts["care"] == {
        "answer": "yes",
        "reason": "fine",
        "text": COMPONENT_GUIDANCE["fine"].meaning,
    }
    assert facts["version"] == __version__
    assert facts["tokens"]["default"]["valid"] is True
    assert 290 <= facts["tokens"]["default"]["expires_in"] <= 300
    assert facts["platform"]["circuit"] == "closed"
    assert facts["sso"]["failure"] is None
    hour = facts["last_hour"]
    assert (hour["requests"], hour["errors"], len(hour["minutes"])) == (1, 0, MINUTES)
    counts = {"requests": 1, "errors": 0, "refusals": 0}
    assert facts["callers"] == [{"name": "anonymous", **counts}]
    (slowest,) = facts["slowest"]
    assert (slowest["interaction"], slowest["resource"]) == ("read", "Patient")
    assert facts["errors"] == []


async def test_a_rejected_client_is_shown_with_a_remedy(platform: Platform, sso: Sso) -> None:
    sso.respond(sso_answers.oauth_error("invalid_client", 401))
    async with running_gateway(platform.url, sso.token_url) as gateway:
        answer, _ = await get(f"{gateway.url}/Patient/1")
        facts = await gateway.facts()
    assert answer.status == 502
    assert (facts["care"]["answer"], facts["care"]["reason"]) == ("no", "token-refused")
    assert facts["sso"]["failure"] == "refused"
    token = facts["tokens"]["default"]
    assert (token["valid"], token["failure"], token["expires_in"]) == (False, "refused", None)
    (error,) = facts["errors"]
    assert (error["reason"], error["last_hour"], error["last_status"]) == ("token-refused", 1, 502)
    assert error["text"] == REASON_GUIDANCE["token-refused"].meaning
    assert error["remedy"] == REASON_GUIDANCE["token-refused"].remedy
    assert facts["callers"][0]["errors"] == 1


@pytest.mark.parametrize("language", ["en", "ru", "uz"])
async def test_a_firewall_before_the_sso_is_not_shown_as_a_rejection(
    platform: Platform, sso: Sso, language: str
) -> None:
    blocked = {"success": False, "errors": ["planted words of the firewall"]}
    sso.respond(sso_answers.json_body(blocked, 403))
    async with running_gateway(platform.url, sso.token_url) as gateway:
        answer, _ = await get(f"{gateway.url}/Patient/1")
        facts = await gateway.facts()
        _, shown = await gateway.admin_page("/status", **{"Accept-Language": language})
    assert answer.status == 503
    assert (facts["care"]["answer"], facts["care"]["reason"]) == ("no", "sso-unavailable")
    assert facts["tokens"]["default"]["failure"] == "transient"
    shown = unescape(shown)
    assert TOKEN_CAUSES["no OAuth error"].meaning.in_language(language) in shown
    assert TOKEN_CAUSES["refused"].meaning.in_language(language) not in shown
    assert "planted" not in shown


async def test_an_open_circuit_is_shown(platform: Platform, sso: Sso) -> None:
    platform.respond(platform_answers.outcome(503))
    breaker = {"min_requests": 1, "failure_ratio": 0.1, "open_for": 600}
    retries = {"max_attempts": 1}
    async with running_gateway(
        platform.url, sso.token_url, circuit_breaker=breaker, retries=retries
    ) as gateway:
        await get(f"{gateway.url}/Patient/1")
        await gateway.wait_for_metric(2, "dhp_gateway_circuit_state")
        facts = await gateway.facts()
    assert facts["platform"]["circuit"] == "open"
    assert (facts["care"]["answer"], facts["care"]["reason"]) == ("no", "platform-fails")
    (error,) = facts["errors"]
    assert (error["reason"], error["last_status"]) == (PLATFORM_ERROR, 503)


async def test_a_blocking_audit_is_shown_by_page_readiness_and_metrics(
    platform: Platform, sso: Sso
) -> None:
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: ASYNC230 - a device
        async with running_gateway(platform.url, sso.token_url, audit_fd=full.fileno()) as gateway:
            await wait_until(lambda: not gateway.gateway.audit.is_available)
            answer, _ = await get(f"{gateway.url}/Patient/1")
            assert (answer.status, platform.requests) == (503, [])
            status, body = await gateway.ready()
            assert (status, body["failing"]) == (503, ["audit"])
            assert 'reason="audit-unavailable"' in await gateway.metrics()
            care = (await gateway.facts())["care"]
    assert (care["answer"], care["reason"]) == ("no", "audit-unavailable")


@pytest.mark.parametrize(
    ("requests", "errors", "reason"),
    [
        *[(2, 2, "fine"), (3, 3, "many-errors"), (6, 6, "many-errors"), (6, 5, "fine")],
        *[(10, 4, "fine"), (10, 5, "many-errors")],
    ],
)
async def test_many_errors_limit_the_service(
    gateway: RunningGateway,
    traffic: RecentRequests,
    clock: FakeClock,
    requests: int,
    errors: int,
    reason: str,
) -> None:
    gateway.gateway.health.platform().record_delivery("answers", None, "default")
    for number in range(requests):
        failed = {"status": 502, "reason": "upstream-failed"} if number < errors else {}
        traffic.record_exchange(exchange(clock, **failed))
    facts = reporter(gateway, traffic).facts("en")
    assert facts["care"]["reason"] == reason


async def test_a_rejected_first_secret_limits_the_service(
    platform: Platform, sso: Sso, tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets"
    secrets.write_text("planted-new\nplanted-old\n")
    secrets.chmod(0o600)
    sso.script(sso_answers.oauth_error("invalid_client", 401))
    credentials = {"default": {"client_id": "a", "client_secret_file": str(secrets)}}
    async with running_gateway(platform.url, sso.token_url, credentials=credentials) as gateway:
        await gateway.wait_until_ready()
        facts = await gateway.facts()
        metrics = await gateway.metrics()
    assert (facts["care"]["answer"], facts["care"]["reason"]) == ("degraded", "secret-refused")
    assert facts["tokens"]["default"]["spare_secret"] is True
    counted = 'dhp_gateway_token_requests_total{credential="default",outcome="%s"} 1.0'
    assert counted % "refused" in metrics
    assert counted % "ok" in metrics


async def test_queued_writes_are_counted_without_contents(
    platform: Platform, sso: Sso, tmp_path: Path
) -> None:
    platform.respond(platform_answers.outcome(503))
    sections: dict[str, Any] = {
        "outbox": {
            "enabled": True,
            "url": f"sqlite:///{tmp_path / 'outbox.db'}",
            "encryption_key": base64.urlsafe_b64encode(b"planted-" * 4).decode(),
        },
        "callers": [{"name": "lab", "api_key": "planted-api-key", "outbox": "always"}],
    }
    async with running_gateway(platform.url, sso.token_url, **sections) as gateway:
        await gateway.wait_until_ready()
        body = {"resourceType": "Patient", "id": PATIENT_ID, "name": [{"family": "planted-name"}]}
        async with aiohttp.request(
            "PUT",
            f"{gateway.url}/Patient/{PATIENT_ID}",
            data=json.dumps(body),
            headers={"Content-Type": "application/fhir+json", "X-Api-Key": "planted-api-key"},
        ) as answer:
            assert answer.status == 202
        facts = await gateway.facts()
        while sum(facts["outbox"]["entries"].values()) != 1:
            facts = await gateway.facts()
        _, html = await gateway.admin_page("/status")
    assert facts["outbox"]["oldest_seconds"] >= 0
    assert "writes wait" in html
    for shown in (html, str(facts)):
        assert "planted" not in shown
        assert sections["outbox"]["encryption_key"] not in shown
        assert PATIENT_ID not in shown


async def test_nothing_secret_is_shown(platform: Platform, sso: Sso) -> None:
    sections: dict[str, Any] = {
        "callers": [{"name": "lab", "api_key": "planted-api-key", "credential": "default"}],
        "listen": {"address": "127.0.0.1:0"},
    }
    async with running_gateway(platform.url, sso.token_url, **sections) as gateway:
        url = f"{gateway.url}/Patient/{PATIENT_ID}?name=planted-name"
        for key in ("planted-api-key", "planted-wrong-key"):
            await get(url, X_Api_Key=key, X_Request_Id="planted-request-id")
        shown = [(await gateway.admin_page(path))[1] for path in ("/status", STATUS_JSON)]
    for words in shown:
        assert "caller-unknown" in words
        assert "planted" not in words
        assert CLIENT_SECRET not in words
        assert PATIENT_ID not in words
        assert "token-1" not in words


async def test_the_page_loads_nothing_from_other_hosts(gateway: RunningGateway) -> None:
    answer, html = await get(f"{gateway.admin_url}/status")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    outside = re.findall(r'(?:src|href|action)="(?!\?|data:)[^"]*[:/][^"]*"|@import|url\(', html)
    assert outside == []
    assert 'name="viewport"' in html
    assert "prefers-color-scheme" in html
    assert "<title>? Not tried yet · DHP Gateway</title>" in html
    assert "<strong>Not tried yet</strong>" in html
    assert f"Version: {__version__}" in html


async def test_the_content_security_policy_names_script_and_style_by_digest(
    gateway: RunningGateway,
) -> None:
    answer, html = await get(f"{gateway.admin_url}/status")
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";")
    )
    for tag in ("script", "style"):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert re.findall(r"\s(?:on\w+|style)=", html.split("<script>", maxsplit=1)[0]) == []


@pytest.mark.parametrize("path", ["/status", STATUS_JSON])
@pytest.mark.parametrize(
    ("query", "accepted", "language"),
    [
        ("", "ru-RU, en;q=0.5", "ru"),
        ("", "uz", "uz"),
        ("", "de", "en"),
        ("?lang=uz", "ru", "uz"),
        ("?lang=%3Cb%3E", "ru", "ru"),
    ],
)
async def test_the_language_follows_query_field_and_settings(
    gateway: RunningGateway, path: str, query: str, accepted: str, language: str
) -> None:
    answer, words = await get(f"{gateway.admin_url}{path}{query}", Accept_Language=accepted)
    assert COMPONENT_GUIDANCE["untried"].meaning.in_language(language) in unescape(words)
    assert path == STATUS_JSON or f'<html lang="{language}"' in words
    assert answer.headers["Vary"] == "Accept-Language"


@pytest.mark.parametrize("path", ["/status", STATUS_JSON])
async def test_only_get_and_head_are_allowed(gateway: RunningGateway, path: str) -> None:
    async with aiohttp.ClientSession(gateway.admin_url) as session:
        async with session.head(path) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
        async with session.post(path) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")
        async with session.get("/") as answer:
            assert path in (await answer.json())["links"]


class Facts(HTMLParser):
    """The tags of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


_ERROR = ("reason", "last_at", "last_status", "text", "remedy")


class HostileStatus:
    """Facts in which every text is markup."""

    def __init__(self, facts: dict[str, Any], planted: str) -> None:
        self._facts = {
            **facts,
            "version": planted,
            "care": {**facts["care"], "text": planted},
            "tokens": {planted: {**facts["tokens"]["default"], "cause": "refused"}},
            "platform": {**facts["platform"], "url": planted},
            "sso": {"url": planted, "failure": "refused"},
            "callers": [{"name": planted, "requests": 1, "errors": 0, "refusals": 0}],
            "slowest": [{**dict.fromkeys(("interaction", "resource", "status", "at"), planted)}],
            "errors": [{**dict.fromkeys(_ERROR, planted), "last_hour": 1, "since_start": 1}],
            "outbox": {"entries": {planted: 1}, "oldest_seconds": None},
            "settings": {planted: planted, "environment": planted},
        }
        self._facts["tokens"][planted] |= {"failure": "refused", "oauth_error": planted}
        self._facts["slowest"][0]["duration_ms"] = 1.0

    def language(self, asked: str | None, accept_language: str | None) -> str:
        return "en"

    def facts(self, language: str) -> dict[str, Any]:
        return self._facts


async def test_facts_are_escaped(gateway: RunningGateway, aiohttp_client: AiohttpClient) -> None:
    facts = await gateway.facts()
    pages = []
    for planted in (HOSTILE, "harmless"):
        quiet = StatusSources("quiet")
        application = build_application(
            metrics=quiet,
            health=quiet,
            status=HostileStatus(facts, planted),
            operators=Operators(()),
        )
        client = await aiohttp_client(application)
        pages.append(await (await client.get("/status")).text())
    assert HOSTILE not in pages[0]
    assert "&lt;script&gt;" in pages[0]
    assert Facts(pages[0]).tags == Facts(pages[1]).tags


def test_requests_are_counted_for_an_hour(traffic: RecentRequests, clock: FakeClock) -> None:
    traffic.record_exchange(exchange(clock))
    clock.now += 60
    traffic.record_exchange(exchange(clock, status=500, reason="internal"))
    minutes = traffic.facts()["last_hour"]["minutes"]
    assert [(each["requests"], each["errors"]) for each in minutes[-3:]] == [(0, 0), (1, 0), (1, 1)]
    clock.now += 59 * 60
    assert traffic.facts()["last_hour"]["requests"] == 1
    clock.now += 60
    facts = traffic.facts()
    assert facts["last_hour"]["requests"] == 0
    assert facts["slowest"] == []
    (error,) = facts["errors"]
    assert (error["last_hour"], error["since_start"]) == (0, 1)
    for _ in range(2):
        traffic.record_exchange(exchange(clock))
        clock.now += 60 * MINUTES
    clock.now -= 60
    assert traffic.facts()["last_hour"]["requests"] == 1


@pytest.mark.parametrize(
    ("members", "errors", "refusals", "reasons"),
    [
        ({"status": 404, "upstream_status": 404}, 0, 1, [PLATFORM_REFUSAL]),
        ({"status": 404}, 0, 0, []),
        ({"status": 200, "upstream_status": 200}, 0, 0, []),
        ({"status": 429, "reason": "rate-limited"}, 0, 1, ["rate-limited"]),
        ({"status": 404, "reason": "upstream-non-fhir"}, 0, 1, ["upstream-non-fhir"]),
        ({"status": 0, "is_aborted": True}, 0, 0, []),
        (
            {"status": 200, "is_aborted": True, "reason": "upstream-failed"},
            1,
            0,
            ["upstream-failed"],
        ),
        ({"status": 500}, 1, 0, [PLATFORM_ERROR]),
        ({"status": 503, "reason": "circuit-open"}, 1, 0, ["circuit-open"]),
    ],
)
def test_errors_and_rejections_are_counted_apart(
    traffic: RecentRequests,
    clock: FakeClock,
    members: dict[str, Any],
    errors: int,
    refusals: int,
    reasons: list[str],
) -> None:
    traffic.record_exchange(exchange(clock, **members))
    facts = traffic.facts()
    counts = {"requests": 1, "errors": errors, "refusals": refusals}
    assert counts.items() <= facts["last_hour"].items()
    assert counts.items() <= facts["last_hour"]["minutes"][-1].items()
    assert counts.items() <= facts["callers"][0].items()
    assert [error["reason"] for error in facts["errors"]] == reasons


def test_the_slowest_exchanges_come_first(traffic: RecentRequests, clock: FakeClock) -> None:
    for duration, interaction in ((0.5, "read"), (0.1, "create"), (2.0, "search-type")):
        traffic.record_exchange(exchange(clock, duration=duration, interaction=interaction))
        clock.now += 60 if interaction == "create" else 0
    found = [(each["interaction"], each["duration_ms"]) for each in traffic.facts()["slowest"]]
    assert found == [("search-type", 2000.0), ("read", 500.0)]


def test_the_number_of_counted_callers_is_bounded(
    traffic: RecentRequests, clock: FakeClock
) -> None:
    for number in range(7000):
        traffic.record_exchange(exchange(clock, caller=f"caller-{number}"))
    callers = traffic.facts()["callers"]
    assert len(callers) < 6000
    assert sum(each["requests"] for each in callers) == 7000


async def test_the_page_says_whom_to_call_and_where_the_runbook_is(
    platform: Platform, sso: Sso
) -> None:
    contact, runbook = f"Duty {HOSTILE} https://wiki.example/a?b", "https://wiki.example/runbook"
    admin = {"address": "127.0.0.1:0", "contact": contact, "runbook_url": runbook}
    async with running_gateway(platform.url, sso.token_url, admin=admin) as gateway:
        _, page = await gateway.admin_page("/status?lang=ru")
        facts = await gateway.facts()
    assert f"Кому звонить: <b>{contact}</b>" in unescape(page)
    assert HOSTILE not in page
    assert f'<a href="{runbook}">Инструкция для дежурных</a>' in page
    assert facts["contact"] == facts["settings"]["admin.contact"] == contact
    assert facts["runbook_url"] == runbook
