"""What `/readyz` and the verdict take from the components, and since when a component is so."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.health.evidence import CircuitState
from gateway.health.health import Component, readiness, usability, worst
from tests.doubles.duty import GOOD, Duty

LACKING = replace(GOOD, is_valid=False, expires_in=None)
REJECTED = replace(GOOD, is_rejected=True)


@pytest.fixture
def duty() -> Duty:
    """A gateway with two credentials, of which all is well."""
    duty = Duty()
    duty.tokens = {"default": GOOD, "lab": GOOD}
    duty.serve(0, (200, ""), response_bytes=1)
    return duty


def test_ready_when_nothing_fails(duty: Duty) -> None:
    """With every token valid, a closed circuit and no shutdown the gateway is ready."""
    assert readiness(duty.health.components()) == (
        True,
        {
            "ready": True,
            "failing": [],
            "checks": {
                "token": "ok",
                "circuit": "ok",
                "platform": "ok",
                "audit": "ok",
                "shutdown": "ok",
            },
            "degraded": {},
        },
    )


def test_a_missing_token_concerns_its_own_callers(duty: Duty) -> None:
    """The gateway is ready while another credential has a token, and the report names the one."""
    duty.tokens = {"default": GOOD, "lab": LACKING}
    ready, body = readiness(duty.health.components())
    assert ready
    assert body["failing"] == []
    assert body["degraded"] == {"credentials": {"count": 1, "names": ["lab"]}}
    duty.tokens = {"default": LACKING, "lab": LACKING}
    ready, body = readiness(duty.health.components())
    assert not ready
    assert body["failing"] == ["token:default", "token:lab"]
    assert body["checks"]["token"] == "failed"


@pytest.mark.parametrize("lacking", [1, 500, 1000])
def test_readiness_stays_short_with_a_thousand_credentials(duty: Duty, lacking: int) -> None:
    """The first twenty are named, and all are counted."""
    names = [f"clinic-{number:04}-{'x' * 60}" for number in range(1000)]
    duty.tokens = {name: LACKING if number < lacking else GOOD for number, name in enumerate(names)}
    ready, body = readiness(duty.health.components())
    assert ready is (lacking < 1000)
    credentials = body["degraded"]["credentials"]
    assert credentials == {"count": lacking, "names": names[: min(lacking, 20)]}
    assert len(json.dumps(body)) < 4096


def test_tokens_that_the_platform_refuses_are_the_platform_s_fault(duty: Duty) -> None:
    """They are there; the gateway is not ready once no credential has another one."""
    duty.tokens = {"default": GOOD, "lab": REJECTED}
    assert readiness(duty.health.components())[0]
    duty.tokens = {"default": REJECTED, "lab": REJECTED}
    assert readiness(duty.health.components())[1]["failing"] == ["platform"]


def test_circuit_platform_and_a_shutdown_count(duty: Duty) -> None:
    """An open circuit, an unusable platform or a shutdown under way: the gateway is not ready."""
    duty.serve(0, *[(502, "upstream-unreachable")] * 300)
    assert readiness(duty.health.components())[1]["failing"] == ["circuit", "platform"]
    duty.draining = True
    failing = readiness(duty.health.components())[1]["failing"]
    assert failing == ["circuit", "platform", "shutdown"]


def test_an_outbox_that_is_away_is_named_and_does_not_count(duty: Duty) -> None:
    """All other requests are still served."""
    duty.outbox = {"available": False, "entries": {}, "oldest_seconds": None}
    ready, body = readiness(duty.health.components())
    assert ready
    assert body["failing"] == []
    assert body["degraded"] == {"outbox": "outbox-away"}


def test_a_token_of_the_audit_alone_is_a_limit_of_the_audit(duty: Duty) -> None:
    """Callers do without it."""
    duty.audit_credential = "audit"
    duty.tokens = {**duty.tokens, "audit": replace(LACKING, failure="refused")}
    components = duty.health.components()
    assert readiness(components)[0]
    assert usability(components) == (True, "answers")
    found = worst(components)
    assert (found.name, found.state, found.reason) == ("audit", "degraded", "token-refused")
    assert found.about == "audit"


def test_a_component_has_the_time_of_its_last_change(duty: Duty) -> None:
    """Each has its own; a look that finds the same does not move it."""

    def since() -> dict[str, float]:
        return {each.name: each.since for each in duty.health.components()}

    before = since()
    began = duty.clock.wall()
    duty.clock.now += 5
    duty.set_circuit(CircuitState.HALF_OPEN)
    changed = since()
    assert before == dict.fromkeys(before, began)
    assert changed == {**before, "circuit": began + 5, "platform": began + 5}
    duty.clock.now += 5
    assert since() == changed


FINE = Component("process", "ok", "fine")
ANSWERS = Component("platform", "ok", "answers")
TLS = Component("platform", "failed", "platform-tls")
NO_TOKEN = Component("token", "failed", "token-refused", about="a")
LIMIT = replace(NO_TOKEN, state="degraded")


@pytest.mark.parametrize(
    ("components", "state", "reason", "about"),
    [
        ([FINE, ANSWERS], "ok", "fine", ""),
        ([FINE, Component("platform", "untried", "untried")], "untried", "untried", ""),
        ([FINE, Component("outbox", "degraded", "outbox-away")], "degraded", "outbox-away", ""),
        # What stops requests in the gateway comes before the platform, which they do not reach.
        ([TLS, Component("process", "failed", "shutting-down")], "failed", "shutting-down", ""),
        (
            [TLS, Component("audit", "failed", "audit-unavailable")],
            "failed",
            "audit-unavailable",
            "",
        ),
        ([TLS, NO_TOKEN], "failed", "token-refused", "a"),
        ([Component("circuit", "failed", "circuit-open"), TLS], "failed", "platform-tls", ""),
        # A credential without a token is a limit while another has one.
        ([FINE, LIMIT, Component("token", "ok", "fine")], "degraded", "token-refused", "a"),
        ([TLS, LIMIT, Component("token", "ok", "fine")], "failed", "platform-tls", ""),
        # Of tokens the reason decides that somebody has to act on.
        (
            [Component("token", "failed", "sso-unavailable", about="b"), NO_TOKEN],
            "failed",
            "token-refused",
            "a",
        ),
        (
            [NO_TOKEN, Component("token", "failed", "platform-refuses", about="b")],
            "failed",
            "platform-refuses",
            "b",
        ),
        # Of mere limits the platform's comes first, and errors of unknown cause last.
        (
            [
                Component("token", "degraded", "renewal-fails"),
                Component("platform", "degraded", "many-refusals"),
            ],
            "degraded",
            "many-refusals",
            "",
        ),
        (
            [
                Component("process", "degraded", "many-errors"),
                Component("outbox", "degraded", "outbox-person"),
            ],
            "degraded",
            "outbox-person",
            "",
        ),
    ],
)
def test_the_worst_component_is_the_verdict(
    components: list[Component], state: str, reason: str, about: str
) -> None:
    """In whatever order they are."""
    for ordered in (components, components[::-1]):
        found = worst(ordered)
        assert (found.state, found.about) == (state, about)
        assert found.reason == reason or state == "ok"
