"""Readiness and service status by components, and since when a component has its state."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.health.evidence import CircuitState
from gateway.health.health import Component, readiness, usability, worst
from tests.doubles.gateway_states import VALID_TOKEN, GatewayState

LACKING = replace(VALID_TOKEN, is_valid=False, expires_in=None)
REJECTED = replace(VALID_TOKEN, is_rejected=True)


@pytest.fixture
def state() -> GatewayState:
    """Return a gateway with two credentials, without any problem."""
    state = GatewayState()
    state.tokens = {"default": VALID_TOKEN, "lab": VALID_TOKEN}
    state.serve(0, (200, ""), response_bytes=1)
    return state


def test_ready_with_valid_tokens_and_a_closed_circuit(state: GatewayState) -> None:
    assert readiness(state.health.components()) == (
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


def test_a_missing_token_affects_its_own_callers(state: GatewayState) -> None:
    """The gateway is ready while another credential has a token."""
    state.tokens = {"default": VALID_TOKEN, "lab": LACKING}
    ready, body = readiness(state.health.components())
    assert ready
    assert body["failing"] == []
    assert body["degraded"] == {"credentials": {"count": 1, "names": ["lab"]}}
    state.tokens = {"default": LACKING, "lab": LACKING}
    ready, body = readiness(state.health.components())
    assert not ready
    assert body["failing"] == ["token:default", "token:lab"]
    assert body["checks"]["token"] == "failed"


@pytest.mark.parametrize("lacking", [1, 500, 1000])
def test_readiness_stays_short_with_a_thousand_credentials(
    state: GatewayState, lacking: int
) -> None:
    """The first twenty are named, and all are counted."""
    names = [f"clinic-{number:04}-{'x' * 60}" for number in range(1000)]
    state.tokens = {
        name: LACKING if number < lacking else VALID_TOKEN for number, name in enumerate(names)
    }
    ready, body = readiness(state.health.components())
    assert ready is (lacking < 1000)
    credentials = body["degraded"]["credentials"]
    assert credentials == {"count": lacking, "names": names[: min(lacking, 20)]}
    assert len(json.dumps(body)) < 4096


def test_rejected_tokens_are_a_fault_of_the_platform(state: GatewayState) -> None:
    """The gateway is not ready once no credential has another one."""
    state.tokens = {"default": VALID_TOKEN, "lab": REJECTED}
    assert readiness(state.health.components())[0]
    state.tokens = {"default": REJECTED, "lab": REJECTED}
    assert readiness(state.health.components())[1]["failing"] == ["platform"]


def test_circuit_platform_and_shutdown_decide_readiness(state: GatewayState) -> None:
    state.serve(0, *[(502, "upstream-unreachable")] * 300)
    assert readiness(state.health.components())[1]["failing"] == ["circuit", "platform"]
    state.draining = True
    failing = readiness(state.health.components())[1]["failing"]
    assert failing == ["circuit", "platform", "shutdown"]


def test_an_unavailable_outbox_is_named_and_does_not_affect_readiness(state: GatewayState) -> None:
    state.outbox = {"available": False, "entries": {}, "oldest_seconds": None}
    ready, body = readiness(state.health.components())
    assert ready
    assert body["failing"] == []
    assert body["degraded"] == {"outbox": "outbox-away"}


def test_a_missing_token_of_the_audit_limits_the_audit_only(state: GatewayState) -> None:
    state.audit_credential = "audit"
    state.tokens = {**state.tokens, "audit": replace(LACKING, failure="refused")}
    components = state.health.components()
    assert readiness(components)[0]
    assert usability(components) == (True, "answers")
    found = worst(components)
    assert (found.name, found.state, found.reason) == ("audit", "degraded", "token-refused")
    assert found.about == "audit"


def test_a_component_has_the_time_of_its_last_change(state: GatewayState) -> None:
    def since() -> dict[str, float]:
        return {each.name: each.since for each in state.health.components()}

    before = since()
    began = state.clock.wall()
    state.clock.now += 5
    state.set_circuit(CircuitState.HALF_OPEN)
    changed = since()
    assert before == dict.fromkeys(before, began)
    assert changed == {**before, "circuit": began + 5, "platform": began + 5}
    state.clock.now += 5
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
        # Among tokens the reason decides on which an operator has to act.
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
def test_the_worst_component_is_the_service_status(
    components: list[Component], state: str, reason: str, about: str
) -> None:
    """In any order."""
    for ordered in (components, components[::-1]):
        found = worst(ordered)
        assert (found.state, found.about) == (state, about)
        assert found.reason == reason or state == "ok"
