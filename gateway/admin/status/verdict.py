"""The service status (can care go on?), derived from a process's state and platform health."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.admin.judgement import DOUBTFUL, FAILING, UNTRIED, PlatformHealth
from gateway.telemetry.findings import ANSWERS as ANSWERING
from gateway.telemetry.findings import REFUSES

SERVICE_STATES: Final = ("yes", "untried", "degraded", "no")


def service_status(
    process_status: Mapping[str, str], health: PlatformHealth, evidence: Mapping[str, Any]
) -> dict[str, str]:
    """Return the worse of `process_status` and the platform's state.

    `process_status` is the state of a process by its tokens, its audit etc., `evidence` that
    of `health` as a dictionary. The result has `answer` and `reason`, and `credential` if the
    platform refuses a client.
    """
    care = _status_of_platform(health)
    if process_status["reason"] == "many-errors" and _has_recovered(health, evidence):
        return care
    worse = SERVICE_STATES.index(process_status["answer"]) - SERVICE_STATES.index(care["answer"])
    # If both are `no`, the reason is used that stops requests in the gateway: they do not reach
    # the platform.
    first = process_status["answer"] == "no" and process_status["reason"] != "circuit-open"
    if worse > 0 or (worse == 0 and first):
        care = dict(process_status)
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


def _has_recovered(health: PlatformHealth, evidence: Mapping[str, Any]) -> bool:
    """Return whether a probe has succeeded since the last caller's request."""
    probed = evidence["probe"] == ANSWERING and evidence["probed_at"] > evidence["last_request_at"]
    return probed and health.state == ANSWERING


def _refused_credential(evidence: Mapping[str, Any]) -> str:
    """Return the credential that the platform refuses, "" if there are no credentials."""
    rejected = (name for name, word in evidence["tokens"].items() if word == "rejected")
    return evidence["credential"] or next(rejected, "") or next(iter(evidence["tokens"]), "")
