"""The Grafana dashboards: their queries return data, and their panels are valid.

They are JSON as Grafana exports it, without a generator: they are edited where they are displayed.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.deploy import prometheus
from tests.deploy.faulty import AlertRecording

BOARDS = {path.name: prometheus.dashboard(path) for path in prometheus.DASHBOARDS}
QUERIES = [
    pytest.param(name, title, id=f"{name}: {title}")
    for name, board in BOARDS.items()
    for title in prometheus.queries(board)
]
# What has nothing to show in a night without restarts.
EMPTY = {"annotation Restarts"}
# Units of Grafana that the panels use; a misspelled one shows as a text behind the number.
UNITS = {"none", "short", "s", "percentunit", "reqps", "cps", "Bps", "bytes"}
VARIABLES = {"datasource", "instance", "__all", "__rate_interval", "__range"}


@pytest.fixture(params=BOARDS)
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    return BOARDS[request.param]


@pytest.mark.parametrize(("name", "title"), QUERIES)
def test_every_query_returns_data(recording: AlertRecording, name: str, title: str) -> None:
    series = recording.series_counts[name][title]
    assert series or title in EMPTY


def test_panels_have_title_description_and_unit(board: dict[str, Any]) -> None:
    panels = prometheus.panels(board)
    titles = [panel["title"] for panel in panels]
    assert len(set(titles)) == len(titles)
    for panel in panels:
        assert len(panel["description"]) > 15, panel["title"]
        unit = panel["fieldConfig"]["defaults"].get("unit")
        assert unit in UNITS or panel["type"] in ("table", "heatmap", "state-timeline")


def test_queries_use_the_data_source_variable(board: dict[str, Any]) -> None:
    text = yaml.safe_dump(board)
    assert set(re.findall(r"\$\{?(\w+)", text)) <= VARIABLES
    for panel in prometheus.panels(board):
        assert {t["datasource"]["uid"] for t in [panel, *panel["targets"]]} == {"${datasource}"}
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)


def test_queries_are_limited_to_the_chosen_instances(board: dict[str, Any]) -> None:
    limits = 'job="dhp-gateway", instance=~"$instance"'
    targets = [target for panel in prometheus.panels(board) for target in panel["targets"]]
    queries = "\n".join(target["expr"] for target in targets)
    series = re.findall(r"\b(?:dhp_gateway|process_)[\w:]+(?:\{[^}]*\})?", queries)
    assert series
    assert [each for each in series if limits not in each] == []
