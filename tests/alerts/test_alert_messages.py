"""Alert messages have the texts of the Prometheus rules."""

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


def summary(name: str, language: str) -> str:
    """Return the summary of a rule with the placeholders of the gateway."""
    annotations = ALERTS[name]["annotations"]
    text = annotations["summary" if language == "en" else f"summary_{language}"]
    text = text.replace("{{ $labels.instance }}", "{instance}")
    return re.sub(r"{{ \$value[^}]*}}", "{value}", re.sub(r"{{ \$labels\.\w+ }}", "{about}", text))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_message_has_the_words_of_the_rule(language: str) -> None:
    for name in HOLD_SECONDS:
        translated = ALERT_MESSAGES[name].in_language(language)
        if name == "DhpGatewayNotReady":
            translated = translated.replace("2", "5").replace("5 минуты", "5 минут")
        assert translated == summary(name, language)


def test_an_alert_is_pending_as_long_as_in_prometheus() -> None:
    for name, seconds in HOLD_SECONDS.items():
        count, unit = re.fullmatch(r"(\d+)([sm])", ALERTS[name].get("for", "0m")).groups()
        shipped = int(count) * {"s": 1, "m": 60}[unit]
        assert SOONER.get(name, seconds) == shipped, name
        assert seconds <= shipped
