"""The rules for Prometheus: valid, tested one by one, and about metrics that the gateway has.

A rule about a metric that was renamed never fires, without any sign. `test_alerts` tests the same
rules in a real Prometheus.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

import aiohttp
import pytest

from gateway import errors
from gateway.guidance import COMPONENT_GUIDANCE
from gateway.health import evidence
from gateway.outbox.entry import EntryState, OutboxStep
from gateway.telemetry import metrics
from tests.deploy import prometheus, tools
from tests.doubles.gateway import running_gateway
from tests.doubles.platform import Platform
from tests.doubles.sso import Sso
from tests.environments import installed_program, output_of

UNIT_TESTS = prometheus.FOLDER / "tests/alerts.yml"
ALERTS = prometheus.alerts()
# The suffix of an annotation to the page it leads to.
RUNBOOKS = {"": "runbook.md", "_ru": "runbook.ru.md", "_uz": "runbook.uz.md"}
# These have no series, and so no labels to be seen, where no outbox is in use.
OUTBOX = {
    "dhp_gateway_outbox_entries": {"state"},
    "dhp_gateway_outbox_steps_total": {"step"},
    "dhp_gateway_outbox_available": set(),
    "dhp_gateway_outbox_stalled_seconds": set(),
}
NOT_THE_GATEWAYS = {"up", "ALERTS"}
KNOWN_VALUES = {
    "reason": {"", *errors.REASONS, evidence.ANSWERS, *COMPONENT_GUIDANCE},
    "outcome": {*metrics.TOKEN_OUTCOMES, *metrics.AUDIT_OUTCOMES, *metrics.RELOAD_OUTCOMES},
    "state": {*EntryState, *metrics.CONNECTION_STATES},
    "step": {*OutboxStep},
    "job": {"dhp-gateway"},
}


@pytest.fixture(scope="module")
def promtool() -> str:
    return installed_program("promtool")


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in prometheus.rules())
    for path in prometheus.DASHBOARDS:
        yield from prometheus.queries(prometheus.dashboard(path)).values()


def series_in(expression: str) -> set[str]:
    without_matchers = re.sub(r'"[^"]*"', "", expression)
    prefixes = "dhp_gateway_|dhp_gateway:|process_|python_"
    return set(re.findall(rf"\b(?:(?:{prefixes})[\w:]+|up\b|ALERTS\b)", without_matchers))


@pytest.fixture
async def exposition() -> str:
    """The metrics of a gateway that has served a request."""
    async with (
        Platform() as platform,
        Sso() as sso,
        running_gateway(platform.url, sso.token_url) as it,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(f"{it.url}/Patient/1") as answer:
            assert answer.status == 200
        async with session.get(f"{it.admin_url}/metrics") as answer:
            return await answer.text()


@pytest.fixture
def scraped(exposition: str) -> dict[str, set[str]]:
    """The series of a gateway that has served a request, each with its labels."""
    found = defaultdict(set)
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", exposition, re.MULTILINE):
        suffixes = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
        for suffix in suffixes:
            found[name + suffix] = set()
    for name, labels in re.findall(r"^([a-z]\w*)(?:\{(.*)\})? ", exposition, re.MULTILINE):
        found[name] |= set(re.findall(r'(\w+)="', labels))
    return found


def test_promtool_accepts_the_rules(promtool: str) -> None:
    said = output_of([promtool, "check", "rules", "--lint=all", "--lint-fatal", *prometheus.RULES])
    assert said.count("SUCCESS") == len(prometheus.RULES)


def test_promtool_accepts_the_configuration(promtool: str) -> None:
    said = output_of([promtool, "check", "config", prometheus.FOLDER / "prometheus.yml"])
    assert f"{len(prometheus.RULES)} rule files found" in said


def test_unit_tests_of_the_alerts_pass(promtool: str) -> None:
    output_of([promtool, "test", "rules", UNIT_TESTS])


def test_promtool_accepts_the_metrics(promtool: str, exposition: str) -> None:
    assert output_of([promtool, "check", "metrics"], exposition) == ""


@pytest.mark.parametrize(
    "rule", list(prometheus.rules()), ids=lambda rule: rule.get("alert") or rule["record"]
)
def test_rules_keep_additional_labels(rule: prometheus.Rule) -> None:
    """Rules name the labels that go, so that a site or pod that a scrape adds reaches the alert."""
    assert not re.search(r"\bby\b", rule["expr"])


def test_every_series_in_rules_and_dashboards_exists(scraped: dict[str, set[str]]) -> None:
    recorded = {rule["record"] for rule in prometheus.rules() if "record" in rule}
    named = set[str]().union(*map(series_in, expressions()))
    assert {"dhp_gateway_requests_total", "dhp_gateway:ready", "up"} < named
    assert named - recorded - NOT_THE_GATEWAYS <= scraped.keys()


def test_every_label_in_rules_and_dashboards_exists(scraped: dict[str, set[str]]) -> None:
    series = re.findall(r"\b(dhp_gateway_\w+)\{([^}]*)\}", "\n".join(expressions()))
    assert "dhp_gateway_requests_total" in dict(series)
    for name, matchers in series:
        labels = OUTBOX.get(name) or scraped[name]
        asked = set(re.findall(r"(\w+)(?:=|!)", matchers))
        assert asked <= labels | {"job", "instance"}, (name, matchers)


@pytest.mark.parametrize("label", KNOWN_VALUES)
def test_every_label_value_in_rules_and_dashboards_exists(label: str) -> None:
    """A misspelled reason, outcome or state would match no series, without an error."""
    pattern = rf'\b{label}(?:=|=~|!=|!~)"([^"]*)"'
    asked = {
        value
        for expression in expressions()
        for values in re.findall(pattern, expression)
        for value in values.split("|")
    }
    assert asked
    assert asked <= KNOWN_VALUES[label]


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_severity_summaries_and_links(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    annotations = rule["annotations"]
    assert annotations.keys() == {
        *("summary", "summary_ru", "summary_uz"),
        *("runbook_url", "runbook_url_ru", "runbook_url_uz"),
    }
    assert all(annotations.values())
    assert re.search("[а-я]", annotations["summary_ru"])
    for suffix, page in RUNBOOKS.items():
        link = annotations[f"runbook_url{suffix}"]
        assert f"dhp_gateway_runbook{suffix} }}}}" in link
        assert link.endswith(f"{{{{ else }}}}docs/{page}{{{{ end }}}}#{alert.lower()}")


def sections() -> dict[str, str]:
    text = (tools.PROJECT / "docs/runbook.md").read_text()
    pattern = re.compile(r"^### (\w+)\n(.*?)(?=^##|\Z)", re.DOTALL | re.MULTILINE)
    return dict(pattern.findall(text))


def test_the_runbook_has_a_section_for_each_alert() -> None:
    """The links of the alerts lead somewhere, and no section is about an alert that is gone."""
    assert sections().keys() == ALERTS.keys()
