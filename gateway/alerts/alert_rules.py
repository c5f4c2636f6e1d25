"""The alerts that fire now: the shipped alert rules, evaluated from the facts of the status page.

Names and times are those of deploy/prometheus/rules/alerts.yml, and each alert has a section in
docs/runbook.md; tests/alerts/test_alert_messages.py compares them. Some rules are not evaluated
here, for example because a process that has ended cannot report it; `LEFT_OUT` has the reason for
each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.health.evidence import ANSWERS
from gateway.health.recent_requests import many_errors

_DAY: Final = 86400.0
_WINDOW: Final = 300.0
_AGEING: Final = 3600.0
_EXPIRING, _LAST_DAYS = 21 * _DAY, 3 * _DAY
# Number of latest minutes whose errors are evaluated. They are shorter than the time for which the
# errors must last, so that no alert is notified for an outage that is over.
_MINUTES: Final = 2
# Number of failures in five minutes up to which they are considered a burst and no alert.
_BURST: Final = 5

# Seconds for which an alert must be pending before it fires and is notified.
HOLD_SECONDS: Final[dict[str, float]] = {
    # These three are shorter than in the rules for Prometheus, and equal, so that one failure
    # leads to one message.
    "DhpGatewayNotReady": 120,
    "DhpGatewaySsoRefusing": 120,
    "DhpGatewaySsoFailing": 120,
    "DhpGatewaySsoThrottling": 300,
    "DhpGatewayReloadFailed": 0,
    "DhpGatewayOverloaded": 60,
    "DhpGatewayPlatformDown": 120,
    "DhpGatewayConnectionsExhausted": 60,
    "DhpGatewayAuditDropped": 0,
    "DhpGatewayAuditUnavailable": 60,
    "DhpGatewayOutboxAgeing": 300,
    "DhpGatewayOutboxUnclear": 60,
    "DhpGatewayOutboxFailed": 60,
    "DhpGatewayOutboxUnavailable": 60,
    "DhpGatewayOutboxFull": 60,
    "DhpGatewayCertificateExpiring": 300,
    "DhpGatewayCertificateLastDays": 300,
}
# Alerts that are consequences of another: they are notified only if they outlast it.
COVERED: Final = {"DhpGatewayPlatformDown": "DhpGatewayNotReady"}
LEFT_OUT: Final = {
    "DhpGatewayDown": "nobody is left to tell",
    "DhpGatewayAbsent": "there is no Prometheus",
    "DhpGatewayTokenExpiring": "DhpGatewaySsoRefusing and DhpGatewaySsoFailing tell why",
    "DhpGatewayTokenMissing": "DhpGatewayNotReady names it",
    "DhpGatewayTokenRejected": "DhpGatewayNotReady names it",
    "DhpGatewayPlatformUnusable": "DhpGatewayNotReady names it",
    "DhpGatewayCircuitOpen": "DhpGatewayNotReady names it",
    "DhpGatewayTlsFailing": "DhpGatewayNotReady names it",
    "DhpGatewayTokenWaiters": "slowness, for whoever looks at figures",
    "DhpGatewayErrorRatio": "slowness, for whoever looks at figures",
    "DhpGatewaySlow": "slowness, for whoever looks at figures",
}
_OF_SSO: Final = {
    "refused": "DhpGatewaySsoRefusing",
    "transient": "DhpGatewaySsoFailing",
    "throttled": "DhpGatewaySsoThrottling",
}
_OF_ENTRIES: Final = {"unclear": "DhpGatewayOutboxUnclear", "failed": "DhpGatewayOutboxFailed"}
# By the reason of failed requests: the alert, and the number of failures in five minutes up to
# which it does not fire.
_OF_REQUESTS: Final = {
    "overloaded": ("DhpGatewayOverloaded", _BURST),
    "upstream-busy": ("DhpGatewayConnectionsExhausted", _BURST),
    "outbox-full": ("DhpGatewayOutboxFull", 0),
    "audit-unavailable": ("DhpGatewayAuditUnavailable", 0),
}

# The key of lost audit records among the reasons.
_DROPPED: Final = "audit-dropped"
# The name of an alert, and the credential or certificate concerned, "" for none.
AlertKey = tuple[str, str]
# The value of an alert, depending on its name: seconds, a ratio, a number or None.
Value = float | int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertInputs:
    """The facts by which alerts are evaluated.

    `status`: the facts of the status page. `ready`: the result of `/readyz`. `increases`: the
    increases of the last five minutes by reason, see `CounterIncreases`.
    `certificate_seconds_left`: seconds until each certificate expires. `is_reload_failed`: the last
    reload of the settings failed.
    """

    status: Mapping[str, Any]
    ready: bool
    increases: Mapping[str, int]
    certificate_seconds_left: Mapping[str, float]
    is_reload_failed: bool


def firing_alerts(facts: AlertInputs) -> dict[AlertKey, Value]:
    """Return all alerts whose condition holds now, with their values."""
    return dict(_iterate_firing(facts))


def _iterate_firing(facts: AlertInputs) -> Iterator[tuple[AlertKey, Value]]:
    if not facts.ready:
        yield ("DhpGatewayNotReady", ""), None
    if facts.is_reload_failed:
        yield ("DhpGatewayReloadFailed", ""), None
    if (share := _error_ratio(facts.status)) is not None:
        yield ("DhpGatewayPlatformDown", ""), share
    for credential, token in facts.status["tokens"].items():
        if token["failure"] is not None:
            yield (_OF_SSO[token["failure"]], credential), None
    yield from _request_alerts(facts.increases)
    yield from _audit_alerts(facts)
    yield from _outbox_alerts(facts.status["outbox"])
    yield from _certificate_alerts(facts.certificate_seconds_left)


def _error_ratio(status: Mapping[str, Any]) -> float | None:
    """Return the error ratio of the last minutes, None if it is acceptable or outdated."""
    recent = status["last_hour"]["minutes"][-_MINUTES:]
    requests, errors = (sum(minute[what] for minute in recent) for what in ("requests", "errors"))
    if not many_errors(requests, errors):
        return None
    probe = status["platform"]["probe"]
    last = max(error["last_at"] for error in status["errors"])
    if probe and probe["found"] == ANSWERS and probe["at"] > last:
        # The failures are over: a probe has succeeded since the last of them.
        return None
    return float(errors / requests)


def _request_alerts(increases: Mapping[str, int]) -> Iterator[tuple[AlertKey, Value]]:
    for reason, (name, few) in _OF_REQUESTS.items():
        if increases.get(reason, 0) > few:
            yield (name, ""), None


def _certificate_alerts(left_of: Mapping[str, float]) -> Iterator[tuple[AlertKey, Value]]:
    for certificate, left in left_of.items():
        if left < _EXPIRING:
            yield ("DhpGatewayCertificateExpiring", certificate), max(left, 0.0)
        if left < _LAST_DAYS:
            yield ("DhpGatewayCertificateLastDays", certificate), None


def _audit_alerts(facts: AlertInputs) -> Iterator[tuple[AlertKey, Value]]:
    audit = facts.status["audit"]
    if not audit["available"]:
        yield ("DhpGatewayAuditUnavailable", ""), None
    if facts.increases.get(_DROPPED, 0):
        yield ("DhpGatewayAuditDropped", ""), None


def _outbox_alerts(outbox: Mapping[str, Any] | None) -> Iterator[tuple[AlertKey, Value]]:
    if outbox is None:
        return
    if not outbox.get("available", True):
        yield ("DhpGatewayOutboxUnavailable", ""), None
    for state, name in _OF_ENTRIES.items():
        if count := outbox.get("entries", {}).get(state, 0):
            yield (name, ""), count
    oldest = outbox.get("oldest_seconds") or 0.0
    if oldest > _AGEING:
        yield ("DhpGatewayOutboxAgeing", ""), oldest


class CounterIncreases:
    """The increases of counts in the last five minutes, derived from periodic samples."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[str, int]]] = deque()
        self._before: dict[str, int] | None = None

    def increases_at(self, status: Mapping[str, Any], now: float) -> dict[str, int]:
        """Add a sample of `status` at the monotonic time `now`; return the increases by reason."""
        counts = {error["reason"]: error["since_start"] for error in status["errors"]}
        counts[_DROPPED] = status["audit"]["dropped"]
        self._samples.append((now, self._grown(counts)))
        self._before = counts
        while self._samples[0][0] <= now - _WINDOW:
            self._samples.popleft()
        return {
            reason: sum(sample.get(reason, 0) for _, sample in self._samples) for reason in counts
        }

    def _grown(self, counts: Mapping[str, int]) -> dict[str, int]:
        if self._before is None:
            # What was counted before the first sample is no increase.
            return {}
        before = self._before
        return {reason: count - before.get(reason, 0) for reason, count in counts.items()}
