"""The alerts that fire now: the shipped alert rules, by the gateway's health and recent requests.

Names and times are those of deploy/prometheus/rules/alerts.yml, and each alert has a section in
docs/runbook.md; tests/alerts/test_alert_messages.py compares them, and has the reason for each rule
that is not evaluated here: for example, a process that has ended cannot report it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from gateway.health.evidence import ANSWERS
from gateway.health.health import Component, Health, OutboxReport, readiness
from gateway.health.recent_requests import RecentRequests, many_errors

_DAY: Final = 86400.0
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
    # Either is notified within a minute of the last delivery.
    "DhpGatewayOutboxUnavailable": 30,
    "DhpGatewayOutboxStandstill": 0,
    "DhpGatewayOutboxFull": 60,
    "DhpGatewayCertificateExpiring": 300,
    "DhpGatewayCertificateLastDays": 300,
}
# Alerts that are consequences of another: they are notified only if they outlast it.
COVERED: Final = {
    "DhpGatewayPlatformDown": "DhpGatewayNotReady",
    "DhpGatewayNotReady": "DhpGatewayAuditUnavailable",
}
# By component and reason.
_OF_COMPONENTS: Final = {
    ("audit", "audit-unavailable"): "DhpGatewayAuditUnavailable",
    ("outbox", "outbox-away"): "DhpGatewayOutboxUnavailable",
    ("outbox", "outbox-standstill"): "DhpGatewayOutboxStandstill",
}
# By the failure of a credential's last token request; it may still have a valid token.
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

# The name of an alert, and the credential or certificate concerned, "" for none.
AlertKey = tuple[str, str]
# The value of an alert, depending on its name: seconds, a ratio, a number or None.
Value = float | int | None


def firing_alerts(
    health: Health,
    components: Sequence[Component],
    *,
    has_lost_records: bool,
    is_reload_failed: bool,
    certificate_seconds_left: Mapping[str, float],
) -> dict[AlertKey, Value]:
    """Return all alerts whose condition holds now, with their values.

    `components` are those of `health` now. `has_lost_records`: audit records were lost recently.
    `is_reload_failed`: the last reload of the settings failed. `certificate_seconds_left`: seconds
    until each certificate expires.
    """
    firing: dict[AlertKey, Value] = {}
    if not readiness(components)[0]:
        firing["DhpGatewayNotReady", ""] = None
    if is_reload_failed:
        firing["DhpGatewayReloadFailed", ""] = None
    if (share := _error_ratio(health)) is not None:
        firing["DhpGatewayPlatformDown", ""] = share
    for credential, state in health.tokens().items():
        if state.failure is not None:
            firing[_OF_SSO[state.failure], credential] = None
    firing.update(_request_alerts(health.recent_requests))
    reasons = {(each.name, each.reason) for each in components}
    firing.update({(name, ""): None for key, name in _OF_COMPONENTS.items() if key in reasons})
    if has_lost_records:
        firing["DhpGatewayAuditDropped", ""] = None
    firing.update(_outbox_alerts(health.outbox()))
    firing.update(_certificate_alerts(certificate_seconds_left))
    return firing


def _error_ratio(health: Health) -> float | None:
    """Return the error ratio of the last minutes, None if it is acceptable or outdated."""
    requests, errors = health.recent_requests.latest(_MINUTES)
    if not many_errors(requests, errors):
        return None
    judgement = health.platform()
    if (
        judgement.probe_signal == ANSWERS
        and judgement.probed_at > health.recent_requests.last_error_at
    ):
        # The failures are over: a probe has succeeded since the last of them.
        return None
    return errors / requests


def _request_alerts(recent_requests: RecentRequests) -> Iterator[tuple[AlertKey, Value]]:
    for reason, (name, few) in _OF_REQUESTS.items():
        if recent_requests.latest_count(reason) > few:
            yield (name, ""), None


def _certificate_alerts(left_of: Mapping[str, float]) -> Iterator[tuple[AlertKey, Value]]:
    for certificate, left in left_of.items():
        if left < _EXPIRING:
            yield ("DhpGatewayCertificateExpiring", certificate), max(left, 0.0)
        if left < _LAST_DAYS:
            yield ("DhpGatewayCertificateLastDays", certificate), None


def _outbox_alerts(outbox: OutboxReport | None) -> Iterator[tuple[AlertKey, Value]]:
    if outbox is None:
        return
    for state, name in _OF_ENTRIES.items():
        if count := outbox.get("entries", {}).get(state, 0):
            yield (name, ""), count
    oldest = outbox.get("oldest_seconds") or 0.0
    if oldest > _AGEING:
        yield ("DhpGatewayOutboxAgeing", ""), oldest
