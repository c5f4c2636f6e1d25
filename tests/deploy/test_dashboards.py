"""The Grafana dashboards: their queries answer, and they are what Grafana expects.

They are JSON as Grafana exports it, without a generator: they are edited where they are displayed.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.outbox.entry import EntryState, OutboxStep
from gateway.telemetry import metrics
from tests.deploy import prometheus
from tests.deploy.faulty import Night

PROVISIONING = prometheus.tools.PROJECT / "deploy/grafana/provisioning"
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
    """Each dashboard in turn."""
    return BOARDS[request.param]


@pytest.mark.parametrize(("name", "title"), QUERIES)
def test_every_query_has_an_answer(night: Night, name: str, title: str) -> None:
    """A real Prometheus understands the query, and gateways with load give it data."""
    series = night.answers[name][title]
    assert series or title in EMPTY


def test_there_is_one_for_each_audience() -> None:
    """Duty and capacity, each under an address that stays."""
    assert {board["uid"] for board in BOARDS.values()} == {
        "dhp-gateway-duty",
        "dhp-gateway-capacity",
    }


def test_panels_have_what_readers_need(board: dict[str, Any]) -> None:
    """A title of its own, a sentence that explains it, and a unit that Grafana knows."""
    panels = prometheus.panels(board)
    titles = [panel["title"] for panel in panels]
    assert len(set(titles)) == len(titles)
    for panel in panels:
        assert len(panel["description"]) > 15, panel["title"]
        unit = panel["fieldConfig"]["defaults"].get("unit")
        assert unit in UNITS or panel["type"] in ("table", "heatmap", "state-timeline")


def test_every_series_has_a_name(board: dict[str, Any]) -> None:
    """Where several series are drawn, the legend says which is which."""
    for panel in prometheus.panels(board):
        if panel["type"] in ("timeseries", "bargauge", "state-timeline"):
            assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


def test_colours_are_given_to_series_that_there_are(board: dict[str, Any]) -> None:
    """An override by name is about a name of the legend, or one that a label gives."""
    values = {*metrics.CONNECTION_STATES, *EntryState, *OutboxStep}
    for panel in prometheus.panels(board):
        legends = {target["legendFormat"] for target in panel["targets"]} | values | {"severity"}
        for override in panel["fieldConfig"]["overrides"]:
            if override["matcher"]["id"] == "byName":
                assert override["matcher"]["options"] in legends


def test_panels_stand_side_by_side(board: dict[str, Any]) -> None:
    """Each has an id of its own, none is wider than the page, and none covers another."""
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


def test_every_query_goes_to_the_chosen_prometheus(board: dict[str, Any]) -> None:
    """Panels and targets use the variable for the data source, and only variables that exist."""
    text = yaml.safe_dump(board)
    assert set(re.findall(r"\$\{?(\w+)", text)) <= VARIABLES
    for panel in prometheus.panels(board):
        assert {t["datasource"]["uid"] for t in [panel, *panel["targets"]]} == {"${datasource}"}
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)


def test_every_query_keeps_to_the_chosen_gateways(board: dict[str, Any]) -> None:
    """Each series of the gateway is asked for with its job or record, and with `$instance`."""
    for panel in prometheus.panels(board):
        for target in panel["targets"]:
            for matchers in re.findall(
                r"\b(?:dhp_gateway|process_)[\w:]+(\{[^}]*\})?", target["expr"]
            ):
                assert 'job="dhp-gateway", instance=~"$instance"' in matchers, target["expr"]


def test_levels_of_thresholds_rise(board: dict[str, Any]) -> None:
    """The first level has no limit, and every further one lies higher."""
    for panel in prometheus.panels(board):
        if panel["type"] == "heatmap":
            continue
        first, *others = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        limits = [step["value"] for step in others]
        assert first["value"] is None
        assert limits == sorted(set(limits)), panel["title"]


def test_grafana_finds_them() -> None:
    """The provider reads the folder where the compose file puts the dashboards."""
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards/dhp-gateway.yaml").read_text())[
        "providers"
    ]
    compose = (prometheus.tools.PROJECT / "deploy/compose/compose.yaml").read_text()
    assert provider["type"] == "file"
    assert f"../grafana/dashboards:{provider['options']['path']}:ro" in compose
    assert "../grafana/provisioning:/etc/grafana/provisioning:ro" in compose


def test_grafana_finds_prometheus() -> None:
    """The data source is the compose file's Prometheus; its interval is that of the scrapes."""
    (source,) = yaml.safe_load((PROVISIONING / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    scrapes = yaml.safe_load((prometheus.FOLDER / "prometheus.yml").read_text())
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == scrapes["global"]["scrape_interval"]


def test_files_are_written_as_grafana_would(board: dict[str, Any]) -> None:
    """No id of some installation's database, and nothing that only an export carries."""
    assert "id" not in board
    assert not {"__inputs", "__requires"} & board.keys()
    assert board["schemaVersion"] >= 39


def test_no_file_is_left_out() -> None:
    """Every dashboard's file is looked at here."""
    folder = Path(prometheus.tools.PROJECT / "deploy/grafana/dashboards")
    assert sorted(BOARDS) == sorted(path.name for path in folder.iterdir())
