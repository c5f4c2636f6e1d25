"""The shipped rules and dashboards as data, and a real Prometheus that evaluates the rules."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.deploy import tools
from tests.doubles.processes import Process, free_port, start
from tests.environments import installed_program
from tests.tracked_files import tracked_files

Rule = dict[str, Any]

FOLDER = tools.PROJECT / "deploy/prometheus"
RULES = tracked_files("deploy/prometheus/rules/*.yml")
DASHBOARDS = tracked_files("deploy/grafana/dashboards/*.json")
RUNBOOK = "https://intranet.example/dhp-gateway/runbook/"

# All times of the real Prometheus are divided by this.
SPEED = 10
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = r"(\d+)(ms|s|m|h|d)\b"
# Limits in seconds within expressions. Tokens are valid for a minute instead of 10 in the test.
# (A certificate's expiry and the platform's slowness do not depend on the speed.)
_LIMITS = {
    "DhpGatewayTokenExpiring": ("< 60 and", "< 20 and"),
    "DhpGatewayOutboxAgeing": ("> 3600", "> 2"),
    "DhpGatewayOutboxStandstill": ("> 40", "> 2"),
}
# The gateway's pauses after these outcomes (60 s and up to 30 s) are not shorter in the test, so
# that the windows of these rules are not shortened either.
_AT_THE_GATEWAYS_PACE = re.compile(r'outcome="(refused|transient|throttled)"')


def rules() -> Iterator[Rule]:
    for file in RULES:
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from group["rules"]


def alerts() -> dict[str, Rule]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def panels(dashboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def dashboard(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def queries(board: Mapping[str, Any]) -> dict[str, str]:
    """Return the queries of a dashboard by title and letter, with Grafana's variables replaced."""
    found = {
        f"{panel['title']} ({target['refId']})": target["expr"]
        for panel in panels(board)
        for target in panel["targets"]
    }
    found |= {f"annotation {each['name']}": each["expr"] for each in board["annotations"]["list"]}
    values = {
        "$instance": ".*",
        "$__rate_interval": "1m",
        "$__range:5m": "5m:1s",  # the step must be short, because the recorded time is
        "$__range": "5m",
    }
    for name, value in values.items():
        found = {title: expr.replace(name, value) for title, expr in found.items()}
    return found


def faster(rule: Rule) -> Rule:
    """Return the rule with its times divided by `SPEED`: a test takes a minute instead of an hour.

    Times are `for`, windows, offsets, and limits in seconds. Names of recorded series keep the
    times of the shipped rules.
    """
    expr: str = rule["expr"]
    if not _AT_THE_GATEWAYS_PACE.search(expr):
        expr = re.sub(rf"(\[|offset ){_DURATION}", _shortened, expr)
    shipped, changed = _LIMITS.get(rule.get("alert", ""), ("", ""))
    assert shipped in expr, f"{rule['alert']}: its limit is not {shipped} any more"
    quick = {**rule, "expr": expr.replace(shipped, changed)}
    if "for" in rule:
        quick["for"] = re.sub(rf"(){_DURATION}", _shortened, rule["for"])
    return quick


def _shortened(match: re.Match[str]) -> str:
    before, number, unit = match.groups()
    return f"{before}{round(int(number) * _UNITS[unit] * 1000 / SPEED)}ms"


@dataclass
class Prometheus:
    """A running Prometheus that scrapes the targets written last."""

    url: str
    process: Process
    targets_file: Path
    session: aiohttp.ClientSession

    def watch(self, targets: Mapping[str, str]) -> None:
        """Scrape these addresses from now on; the keys become the label `instance`."""
        groups = [
            {"targets": [address], "labels": {"instance": name}}
            for name, address in targets.items()
        ]
        draft = self.targets_file.with_suffix(".draft")
        draft.write_text(json.dumps(groups))
        draft.replace(self.targets_file)

    async def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the series of an expression now. Raises AssertionError with Prometheus' error."""
        answer = await self._get("query", query=expr)
        assert answer["status"] == "success", f"{expr}\n{answer.get('error')}"
        assert answer["data"]["resultType"] == "vector", expr
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    async def active_alerts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._get("alerts"))["data"]["alerts"]
        return found

    async def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        async with self.session.get(f"{self.url}/api/v1/{path}", params=parameters) as answer:
            found: dict[str, Any] = await answer.json()
            return found


@contextlib.asynccontextmanager
async def fast_prometheus(directory: Path) -> AsyncIterator[Prometheus]:
    """Run Prometheus with the shipped configuration and rules, `SPEED` times faster."""
    program, port = installed_program("prometheus"), free_port()
    targets = directory / "targets.json"
    targets.write_text("[]")
    (directory / "prometheus.yml").write_text(yaml.safe_dump(_fast_configuration(targets)))
    (directory / "rules").mkdir()
    for file in RULES:
        groups = yaml.safe_load(file.read_text())["groups"]
        for group in groups:
            group["rules"] = [faster(rule) for rule in group["rules"]]
        (directory / "rules" / file.name).write_text(yaml.safe_dump({"groups": groups}))
    options = {
        "config.file": directory / "prometheus.yml",
        "storage.tsdb.path": directory / "data",
        "web.listen-address": f"127.0.0.1:{port}",
        "log.level": "warn",
    }
    command = [program, *(f"--{name}={value}" for name, value in options.items())]
    process = start(command, directory, name="prometheus")
    try:
        process.wait_until_listening(port)
        async with aiohttp.ClientSession() as session:
            yield Prometheus(f"http://127.0.0.1:{port}", process, targets, session)
    finally:
        process.terminate()


def _fast_configuration(targets: Path) -> dict[str, Any]:
    configuration: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    for interval in ("scrape_interval", "evaluation_interval"):
        shipped = configuration["global"][interval]
        configuration["global"][interval] = re.sub(rf"(){_DURATION}", _shortened, shipped)
    configuration["global"]["external_labels"] = {"dhp_gateway_runbook": RUNBOOK}
    (job,) = configuration["scrape_configs"]
    del job["static_configs"]
    job["file_sd_configs"] = [{"files": [str(targets)], "refresh_interval": "1s"}]
    return configuration
