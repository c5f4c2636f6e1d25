"""Each alert fires in a real Prometheus which watches real gateways, one of which has the fault.

Prometheus runs the rules that are shipped, only faster: see `tests.deploy.prometheus.faster`.
"""

from __future__ import annotations

import re

import pytest

from tests.deploy import faulty, prometheus
from tests.deploy.faulty import AlertRecording

ALERTS = prometheus.alerts()


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_fires_at_the_gateway_with_the_fault(
    recording: AlertRecording, alert: str
) -> None:
    where = faulty.EXPECTED[alert]
    fired = sorted(recording.fired.get(alert, ()))
    assert where in fired, recording.logs.get(where, "")[-3000:]


def test_no_alert_fires_at_the_healthy_gateway(recording: AlertRecording) -> None:
    assert [alert for alert, where in recording.fired.items() if faulty.HEALTHY in where] == []
    assert recording.logs[faulty.HEALTHY]


@pytest.mark.parametrize("alert", ALERTS)
def test_annotations_are_rendered_completely(recording: AlertRecording, alert: str) -> None:
    texts = recording.texts[alert]
    assert texts["runbook_url"] == f"{prometheus.RUNBOOK}#{alert.lower()}"
    for language in ("ru", "uz"):
        page = f"docs/runbook.{language}.md"
        assert texts[f"runbook_url_{language}"] == f"{page}#{alert.lower()}"
    for text in texts.values():
        assert text == text.strip()
        assert not re.search(r"<no value>|<error|\{\{|%!|  ", text), text
