"""People are told the same by a message as by Prometheus."""

from __future__ import annotations

import re

import pytest

from gateway.alerts.alert_messages import ALERT_MESSAGES
from gateway.alerts.alert_rules import HOLD_SECONDS
from gateway.i18n import LANGUAGES
from tests.deploy import prometheus

ALERTS = prometheus.alerts()
# Told sooner than by Prometheus, whose `for` is in the second place.
SOONER = {"DhpGatewayNotReady": 300, "DhpGatewaySsoRefusing": 180, "DhpGatewaySsoFailing": 180}
# The rules that the gateway does not evaluate, and why.
LEFT_OUT = {
    "DhpGatewayDown": "no gateway is left that could tell",
    "DhpGatewayAbsent": "there is no Prometheus",
    "DhpGatewayTokenExpiring": "DhpGatewaySsoRefusing and DhpGatewaySsoFailing tell why",
    "DhpGatewayTokenMissing": "DhpGatewayNotReady names it",
    "DhpGatewayTokenRejected": "DhpGatewayNotReady names it",
    "DhpGatewayPlatformUnusable": "DhpGatewayNotReady names it",
    "DhpGatewayCircuitOpen": "DhpGatewayNotReady names it",
    "DhpGatewayTlsFailing": "DhpGatewayNotReady names it",
    "DhpGatewayTokenWaiters": "slowness, which dashboards show",
    "DhpGatewayErrorRatio": "slowness, which dashboards show",
    "DhpGatewaySlow": "slowness, which dashboards show",
}


def summary(name: str, language: str) -> str:
    """What a shipped rule tells, with our placeholders."""
    annotations = ALERTS[name]["annotations"]
    text = annotations["summary" if language == "en" else f"summary_{language}"]
    text = text.replace("{{ $labels.instance }}", "{instance}")
    return re.sub(r"{{ \$value[^}]*}}", "{value}", re.sub(r"{{ \$labels\.\w+ }}", "{about}", text))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_message_has_the_words_of_the_rule(language: str) -> None:
    """The message has the same sentence as the documentation of the alerts."""
    for name in HOLD_SECONDS:
        told = ALERT_MESSAGES[name].in_language(language)
        if name == "DhpGatewayNotReady":
            told = told.replace("2", "5").replace("5 минуты", "5 минут")
        assert told == summary(name, language)


def test_every_shipped_rule_is_told_or_left_out_for_a_reason() -> None:
    """A new rule requires the decision whether hospitals without Prometheus need it."""
    assert {*HOLD_SECONDS, *LEFT_OUT} == ALERTS.keys()
    assert HOLD_SECONDS.keys() & LEFT_OUT.keys() == set()


def test_a_trouble_lasts_as_long_as_the_rule_says() -> None:
    """But for what one message should tell together."""
    for name, seconds in HOLD_SECONDS.items():
        count, unit = re.fullmatch(r"(\d+)([sm])", ALERTS[name].get("for", "0m")).groups()
        shipped = int(count) * {"s": 1, "m": 60}[unit]
        assert SOONER.get(name, seconds) == shipped, name
        assert seconds <= shipped
