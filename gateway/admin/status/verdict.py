"""The service status (can care go on?), from the gateway's own state and the platform's health."""

from __future__ import annotations

from typing import Final

from gateway.admin.judgement import DOUBTFUL, FAILING, UNTRIED, HealthEvidence, PlatformHealth
from gateway.telemetry.findings import ANSWERS as ANSWERING
from gateway.telemetry.findings import REFUSES

_SERVICE_STATES: Final = ("yes", "untried", "degraded", "no")


def service_status(
    own_status: tuple[str, str], health: PlatformHealth, evidence: HealthEvidence
) -> dict[str, str]:
    """Return the worse of `own_status` and the platform's state.

    `own_status` is the answer and the reason by the gateway's tokens, its audit etc., `evidence`
    that of `health`. The result has `answer` and `reason`, and `credential` if the platform refuses
    a client.
    """
    answer, reason = own_status
    care = _status_of_platform(health)
    if reason == "many-errors" and _has_recovered(health, evidence):
        return care
    worse = _SERVICE_STATES.index(answer) - _SERVICE_STATES.index(care["answer"])
    # If both are `no`, the reason is used that stops requests in the gateway: they do not reach
    # the platform.
    first = answer == "no" and reason != "circuit-open"
    if worse > 0 or (worse == 0 and first):
        care = {"answer": answer, "reason": reason}
    if care["reason"] == REFUSES:
        care["credential"] = _refused_credential(evidence)
    return care


def _status_of_platform(health: PlatformHealth) -> dict[str, str]:
    if health.state == FAILING:
        return {"answer": "no", "reason": health.platform}
    if health.state == DOUBTFUL:
        return {"answer": "degraded", "reason": health.platform}
    if health.state == UNTRIED:
        return {"answer": UNTRIED, "reason": UNTRIED}
    return {"answer": "yes", "reason": "fine"}


def _has_recovered(health: PlatformHealth, evidence: HealthEvidence) -> bool:
    """Return whether a probe has succeeded since the last caller's request."""
    probed = evidence.probe == ANSWERING and evidence.probed_at > evidence.last_request_at
    return probed and health.state == ANSWERING


def _refused_credential(evidence: HealthEvidence) -> str:
    """Return the credential that the platform refuses, "" if there are no credentials."""
    rejected = (name for name, word in evidence.tokens.items() if word == "rejected")
    return evidence.credential or next(rejected, "") or next(iter(evidence.tokens), "")
