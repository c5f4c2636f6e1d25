"""The rules for Prometheus: valid, tested one by one, and about metrics that the gateway has.

A rule about a metric that was renamed never fires, without any sign. `test_alerts` tests the same
rules in a real Prometheus.
"""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from gateway import errors
from gateway.health import health
from gateway.outbox.entry import EntryState, OutboxStep
from gateway.telemetry import metrics
from tests.deploy import prometheus, tools
from tests.doubles.gateway import running_gateway
from tests.doubles.platform import Platform
from tests.doubles.sso import Sso

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
    "reason": {"", *errors.REASONS, *health.REASONS},
    "outcome": {*metrics.TOKEN_OUTCOMES, *metrics.AUDIT_OUTCOMES, *metrics.RELOAD_OUTCOMES},
    "state": {*EntryState, *metrics.CONNECTION_STATES},
    "step": {*OutboxStep},
    "job": {"dhp-gateway"},
}


@pytest.fixture(scope="module")
def promtool() -> str:
    """The program that judges rules."""
    return tools.program("promtool")


def unit_tests() -> dict[str, list[dict[str, Any]]]:
    """The cases of each alert; a case's name begins with that of its alert."""
    found = defaultdict(list)
    for case in yaml.safe_load(UNIT_TESTS.read_text())["tests"]:
        found[case["name"].partition(" ")[0]].append(case)
    return found


def expressions() -> Iterator[str]:
    """Everything that rules and dashboards ask for."""
    yield from (rule["expr"] for rule in prometheus.rules())
    for path in prometheus.DASHBOARDS:
        yield from prometheus.queries(prometheus.dashboard(path)).values()


def series_in(expression: str) -> set[str]:
    """The names of series that an expression asks for, recorded ones among them."""
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


def test_prometheus_takes_the_rules(promtool: str) -> None:
    """promtool finds every rule valid, and none that is there twice."""
    said = tools.output_of(
        [promtool, "check", "rules", "--lint=all", "--lint-fatal", *prometheus.RULES]
    )
    assert said.count("SUCCESS") == len(prometheus.RULES)


def test_prometheus_takes_the_configuration(promtool: str) -> None:
    """promtool finds the scrape configuration valid, with the rules that it names."""
    said = tools.output_of([promtool, "check", "config", prometheus.FOLDER / "prometheus.yml"])
    assert f"{len(prometheus.RULES)} rule files found" in said


def test_every_alert_fires_and_stays_quiet_when_it_should(promtool: str) -> None:
    """The alerts' unit tests pass."""
    tools.output_of([promtool, "test", "rules", UNIT_TESTS])


def test_every_alert_has_both_kinds_of_unit_test() -> None:
    """For each alert there is a case in which it fires, and one in which it must not."""
    cases = unit_tests()
    assert cases.keys() == ALERTS.keys()
    for alert, its_cases in cases.items():
        fires = [case for case in its_cases if any(samples_of(case, alert))]
        quiet = [case for case in its_cases if not any(samples_of(case, alert))]
        assert (len(fires), bool(quiet)) == (1, True), alert


def samples_of(case: dict[str, Any], alert: str) -> list[list[Any]]:
    """What a case awaits at each moment at which it looks at the alert."""
    looks = [test for test in case["promql_expr_test"] if f'alertname="{alert}"' in test["expr"]]
    assert looks, case["name"]
    return [test["exp_samples"] for test in looks]


def test_groups_are_evaluated_in_one_order() -> None:
    """The unit tests name every group: those left out would be evaluated in a random order."""
    groups = [
        group["name"]
        for file in (
            prometheus.FOLDER / "rules/recording.yml",
            prometheus.FOLDER / "rules/alerts.yml",
        )
        for group in yaml.safe_load(file.read_text())["groups"]
    ]
    assert yaml.safe_load(UNIT_TESTS.read_text())["group_eval_order"] == groups


def test_an_alert_that_cannot_fire_is_noticed(promtool: str, tmp_path: Path) -> None:
    """When no rule fires any more, the unit test of every single alert fails."""
    shutil.copytree(prometheus.FOLDER, tmp_path / "copy")
    file = tmp_path / "copy/rules/alerts.yml"
    broken = yaml.safe_load(file.read_text())
    for group in broken["groups"]:
        for rule in group["rules"]:
            rule["expr"] = "vector(0) > 1"
    file.write_text(yaml.safe_dump(broken))
    done = tools.run([promtool, "test", "rules", tmp_path / "copy/tests/alerts.yml"])
    assert done.returncode == 1
    complaints = (done.stdout + done.stderr).replace('\\"', '"')
    assert set(re.findall(r'alertname="(\w+)"', complaints)) == ALERTS.keys()


def test_prometheus_likes_the_metrics(promtool: str, exposition: str) -> None:
    """promtool finds names, units, types and help texts as they should be."""
    assert tools.output_of([promtool, "check", "metrics"], exposition) == ""


@pytest.mark.parametrize(
    "rule", list(prometheus.rules()), ids=lambda rule: rule.get("alert") or rule["record"]
)
def test_labels_of_an_installation_stay(rule: prometheus.Rule) -> None:
    """Rules name the labels that go, so that a site or pod that a scrape adds reaches the alert."""
    assert not re.search(r"\bby\b", rule["expr"])


def test_every_series_that_is_named_exists(scraped: dict[str, set[str]]) -> None:
    """What rules and dashboards name is a metric of the gateway or recorded by a rule."""
    recorded = {rule["record"] for rule in prometheus.rules() if "record" in rule}
    named = set[str]().union(*map(series_in, expressions()))
    assert {"dhp_gateway_requests_total", "dhp_gateway:ready", "up"} < named
    assert named - recorded - NOT_THE_GATEWAYS <= scraped.keys()


def test_every_recorded_series_is_used() -> None:
    """Nothing is recorded that neither an alert nor a dashboard asks for."""
    recorded = {rule["record"] for rule in prometheus.rules() if "record" in rule}
    assert recorded <= set[str]().union(*map(series_in, expressions()))


def test_every_label_that_is_asked_for_exists(scraped: dict[str, set[str]]) -> None:
    """Labels in matchers are those of the metric, or those that Prometheus adds."""
    for expression in expressions():
        for name, matchers in re.findall(r"\b(dhp_gateway_\w+)\{([^}]*)\}", expression):
            labels = OUTBOX.get(name) or scraped[name]
            asked = set(re.findall(r"(\w+)(?:=|!)", matchers))
            assert asked <= labels | {"job", "instance"}, expression


@pytest.mark.parametrize("label", KNOWN_VALUES)
def test_every_value_that_is_asked_for_exists(label: str) -> None:
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
def test_every_alert_says_what_people_need(alert: str) -> None:
    """It has a severity, a summary in three languages, and a link into each runbook there is."""
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
    """The sections of the runbook by heading; those of other languages have the same headings."""
    text = (tools.PROJECT / "docs/runbook.md").read_text()
    pattern = re.compile(r"^### (\w+)\n(.*?)(?=^##|\Z)", re.DOTALL | re.MULTILINE)
    return dict(pattern.findall(text))


def test_the_runbook_has_the_section_of_every_alert_and_no_other() -> None:
    """The links of the alerts lead somewhere, and no section is about an alert that is gone."""
    assert sections().keys() == ALERTS.keys()


@pytest.mark.parametrize("alert", ALERTS)
def test_the_runbook_says_what_to_do(alert: str) -> None:
    """A section begins with the alert's severity and says what to do."""
    section = sections()[alert].strip()
    assert section.startswith(ALERTS[alert]["labels"]["severity"].capitalize() + ". ")
    assert re.search(r"^\*\*(Look and do|Do)\.\*\*", section, re.MULTILINE)
