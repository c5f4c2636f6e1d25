"""Each alert fires in a real Prometheus which watches real gateways, one of which has the fault.

Prometheus runs the rules that are shipped, only faster: see `tests.deploy.prometheus.faster`.
"""

from __future__ import annotations

import re

import pytest

from tests.deploy import faulty, prometheus
from tests.deploy.faulty import Night

ALERTS = prometheus.alerts()


def without_times(expression: str) -> str:
    """An expression without what `faster` changes."""
    return re.sub(r"\d+(\.\d+)?(ms|s|m|h|d)\b|[<>] (60|3600|40|2|20)\b", "TIME", expression)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_fires_where_the_fault_is(night: Night, alert: str) -> None:
    """The gateway with the fault has the alert; it is not only pending."""
    where = faulty.EXPECTED[alert]
    fired = sorted(night.fired.get(alert, ()))
    assert where in fired, night.logs.get(where, "")[-3000:]


def test_nothing_fires_at_the_gateway_that_is_well(night: Night) -> None:
    """Served calls, mistakes of callers among them, fire no alert."""
    assert [alert for alert, where in night.fired.items() if faulty.WELL in where] == []
    assert night.logs[faulty.WELL]


@pytest.mark.parametrize("alert", ALERTS)
def test_the_texts_are_complete(night: Night, alert: str) -> None:
    """Templates have found their labels and values, and the link leads into the runbook."""
    texts = night.texts[alert]
    assert texts["runbook_url"] == f"{prometheus.RUNBOOK}#{alert.lower()}"
    for language in ("ru", "uz"):
        page = f"docs/runbook.{language}.md"
        assert texts[f"runbook_url_{language}"] == f"{page}#{alert.lower()}"
    for text in texts.values():
        assert text == text.strip()
        assert not re.search(r"<no value>|<error|\{\{|%!|  ", text), text


@pytest.mark.parametrize(
    "rule", list(prometheus.rules()), ids=lambda r: r.get("alert", r.get("record"))
)
def test_only_times_differ_from_what_is_shipped(rule: prometheus.Rule) -> None:
    """What fires here is the shipped rule, with shorter times."""
    quick = prometheus.faster(rule)
    assert {**quick, "expr": "", "for": ""} == {**rule, "expr": "", "for": ""}
    assert without_times(quick["expr"]) == without_times(rule["expr"])
    assert quick.keys() == rule.keys()
