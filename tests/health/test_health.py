"""What makes the gateway ready, and what the report says when it is not."""

from __future__ import annotations

import pytest

from gateway.health.health import Readiness


class Facts:
    """The collaborators' answers, changed by the test."""

    def __init__(self) -> None:
        self.tokens = {"default": True, "lab": True}
        self.circuit_open = False
        self.platform_fails = False
        self.draining = False

    def readiness(self) -> Readiness:
        """A readiness that asks these facts."""
        return Readiness(
            tokens=lambda: self.tokens,
            is_circuit_open=lambda: self.circuit_open,
            is_draining=lambda: self.draining,
            is_platform_failing=lambda: self.platform_fails,
        )


@pytest.fixture
def facts() -> Facts:
    """All is well."""
    return Facts()


def test_ready_when_nothing_fails(facts):
    """With every token valid, a closed circuit and no shutdown the gateway is ready."""
    assert facts.readiness().report() == (
        True,
        {
            "ready": True,
            "failing": [],
            "checks": {
                "token:default": "ok",
                "token:lab": "ok",
                "circuit": "ok",
                "platform": "ok",
                "shutdown": "ok",
            },
        },
    )


def test_a_missing_token_is_named(facts):
    """One credential without a valid token is enough, and the report names it."""
    facts.tokens["lab"] = False
    ready, body = facts.readiness().report()
    assert not ready
    assert body["ready"] is False
    assert body["failing"] == ["token:lab"]
    assert body["checks"]["token:lab"] == "failed"


@pytest.mark.parametrize(
    ("fact", "check"),
    [("circuit_open", "circuit"), ("platform_fails", "platform"), ("draining", "shutdown")],
)
def test_circuit_platform_and_a_shutdown_count(facts, fact, check):
    """An open circuit, an unusable platform or a shutdown under way: the gateway is not ready."""
    setattr(facts, fact, True)
    ready, body = facts.readiness().report()
    assert not ready
    assert body["failing"] == [check]


def test_every_report_asks_anew(facts):
    """A report is never older than its question."""
    readiness = facts.readiness()
    assert readiness.report()[0]
    facts.draining = True
    assert not readiness.report()[0]
