"""The Helm chart, rendered by helm itself.

The chart has links to the rules and dashboards in deploy/, and helm packs the targets: a copy would
become outdated.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import prometheus, tools
from tests.deploy.manifests import Manifests, peers, port_of
from tests.deploy.targets import CHART, helm, rendered
from tests.environments import output_of, run

EVERYTHING: dict[str, Any] = {
    "autoscaling": {"enabled": True},
    "image": {"pullSecrets": [{"name": "registry"}]},
    "env": [{"name": "DHP_GATEWAY_LOG__LEVEL", "value": "warning"}],
    "podLabels": {"team": "integration"},
    "podAnnotations": {"note": "x"},
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
    "service": {"annotations": {"note": "x"}},
    "networkPolicy": {"callers": [{"podSelector": {"matchLabels": {"app": "his"}}}]},
    "dashboards": {"enabled": True, "annotations": {"grafana_folder": "DHP"}},
}


def template_error(folder: Path, **values: Any) -> str:
    done = run(helm("template", values, folder))
    assert done.returncode != 0
    return done.stderr


@pytest.fixture
def chart(tmp_path: Path) -> Manifests:
    return rendered(tmp_path)


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["the least", "everything"])
def test_helm_lint_passes(values: dict[str, Any], tmp_path: Path) -> None:
    output_of(helm("lint", values, tmp_path))


def test_manifests_are_valid(tmp_path: Path) -> None:
    rendered(tmp_path, **EVERYTHING).assert_valid()


def test_sizes_stay_whole_numbers(tmp_path: Path) -> None:
    """A large number is not turned into one with an exponent, which the gateway would refuse."""
    changed = rendered(tmp_path, settings={"limits": {"max_body_bytes": 67108864}})
    assert changed.settings(tmp_path).limits.max_body_bytes == 67108864


def stamp(manifests: Manifests) -> str:
    """The annotation whose change makes new pods."""
    return str(manifests.pod["metadata"]["annotations"]["checksum/restart"])


@pytest.mark.parametrize(
    ("settings", "restarts"),
    [
        ({"log": {"level": "debug"}}, False),
        ({"callers": [{"name": "lab", "networks": ["10.0.0.0/8"]}]}, False),
        ({"listen": {"reuse_port": True}}, True),
        ({"audit": {"on_failure": "drop"}}, True),
        ({"store": {"url": "redis://redis/0"}}, True),
    ],
)
def test_pods_are_replaced_for_settings_that_need_a_restart(
    settings: dict[str, Any], restarts: bool, chart: Manifests, tmp_path: Path
) -> None:
    assert (stamp(rendered(tmp_path, settings=settings)) != stamp(chart)) is restarts


def test_ports_follow_the_settings(tmp_path: Path) -> None:
    changed = rendered(tmp_path, settings={"admin": {"address": "[::]:9999"}})
    assert port_of(changed.gateway, "admin") == 9999
    assert port_of(changed.gateway, "http") == 8080
    probes = [one for name, one in changed.gateway.items() if name.endswith("Probe")]
    assert [one["httpGet"] for one in probes] == [{"path": "/livez", "port": "admin"}] * 3


def test_callers_and_monitoring_reach_different_ports(chart: Manifests) -> None:
    policy = chart.the("NetworkPolicy")
    assert peers(policy, "http") == [
        {"podSelector": {"matchLabels": {"dhp-gateway-caller": "true"}}}
    ]
    assert len(peers(policy, "admin")) == 2


def test_helm_test_checks_the_admin_service(tmp_path: Path) -> None:
    everything = Manifests(output_of(helm("template", {}, tmp_path)))
    pod = everything.the("Pod")
    variables = {one["name"]: one["value"] for one in pod["spec"]["containers"][0]["env"]}
    host, _, port = variables["DHP_GATEWAY_ADMIN__ADDRESS"].partition(":")
    services = {
        f"{one['metadata']['name']}.dhp.svc": one["spec"] for one in everything.of_kind("Service")
    }
    assert int(port) == services[host]["ports"][0]["port"]
    labels = pod["metadata"]["labels"]
    policy = everything.the("NetworkPolicy")
    assert {"podSelector": {"matchLabels": labels}} in peers(policy, "admin")
    assert not services[host]["selector"].items() <= labels.items()


def test_the_service_monitor_selects_the_admin_service(tmp_path: Path) -> None:
    chart = rendered(
        tmp_path, serviceMonitor={"enabled": True, "labels": {"release": "prometheus"}}
    )
    monitor = chart.the("ServiceMonitor")["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    (service,) = (
        one for one in chart.of_kind("Service") if wanted <= one["metadata"]["labels"].items()
    )
    (endpoint,) = monitor["endpoints"]
    assert service["spec"]["ports"][0]["name"] == endpoint["port"]
    assert {"targetLabel": "job", "replacement": "dhp-gateway"} in endpoint["relabelings"]


def test_the_chart_contains_the_rules(tmp_path: Path) -> None:
    rules = {"enabled": True, "labels": {"release": "prometheus"}}
    made = rendered(tmp_path, prometheusRule=rules).the("PrometheusRule")
    assert made["metadata"]["labels"]["release"] == "prometheus"
    shipped = [yaml.safe_load(file.read_text())["groups"] for file in prometheus.RULES]
    assert made["spec"]["groups"] == [group for groups in shipped for group in groups]


def test_alerts_link_to_the_configured_runbook(tmp_path: Path) -> None:
    pages = {
        "": prometheus.RUNBOOK,
        "Ru": f"{prometheus.RUNBOOK}ru/",
        "Uz": f"{prometheus.RUNBOOK}uz/",
    }
    links = {f"runbookUrl{language}": page for language, page in pages.items()}
    chart = rendered(tmp_path, prometheusRule={"enabled": True, **links})
    groups = chart.the("PrometheusRule")["spec"]["groups"]
    made = {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}
    alerts = prometheus.alerts()
    for name, rule in alerts.items():
        for language, page in pages.items():
            suffix = f"_{language.lower()}" if language else ""
            rule["annotations"][f"runbook_url{suffix}"] = f"{page}#{name.lower()}"
    assert made == alerts


def test_the_chart_contains_the_dashboards(tmp_path: Path) -> None:
    chart = rendered(tmp_path, dashboards={"enabled": True})
    found = {}
    for one in chart.of_kind("ConfigMap"):
        if one["metadata"]["labels"].get("grafana_dashboard") == "1":
            found |= one["data"]
    shipped = {path.name: prometheus.dashboard(path) for path in prometheus.DASHBOARDS}
    assert {name: json.loads(text) for name, text in found.items()} == shipped


def test_monitoring_resources_are_optional(chart: Manifests) -> None:
    kinds = {one["kind"] for one in chart.all}
    assert not kinds & {"ServiceMonitor", "PrometheusRule"}
    assert len(chart.of_kind("ConfigMap")) == 1


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"settings": {"bogus": 1}}, "bogus"),
        ({"settings": {"environment": "moon"}}, "/settings/environment"),
        ({"settings": {"credentials": {"default": {"client_id": None}}}}, "client_id"),
        ({"replicas": 3}, "replicas"),
        ({"service": {"port": 0}}, "/service/port"),
        ({"prometheusRule": {"runbookUrl": "docs/runbook.md"}}, "/prometheusRule/runbookUrl"),
    ],
)
def test_invalid_values_are_rejected(values: dict[str, Any], names: str, tmp_path: Path) -> None:
    assert names in template_error(tmp_path, **values)


def test_values_without_callers_are_rejected(tmp_path: Path) -> None:
    """Without callers the gateway would not start."""
    assert "settings.callers" in template_error(tmp_path, settings={"callers": []})
    login = {"login": {"enabled": True}, "store": {"url": "redis://redis/0"}}
    for other in ({"listen": {"allow_anonymous": True}}, login):
        rendered(tmp_path, settings={"callers": [], **other})


def test_the_values_of_the_documentation_are_valid(tmp_path: Path) -> None:
    page = (tools.PROJECT / "docs/installation.md").read_text()
    (block,) = re.findall(r"^ *```yaml\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL)
    chart = rendered(tmp_path, **yaml.safe_load(textwrap.dedent(block)))
    assert [caller.name for caller in chart.settings(tmp_path).callers] == ["his"]


OUTBOX = {"outbox": {"enabled": True, "encryption_key_file": "/run/secrets/dhp/outbox_key"}}
SQLITE = {"settings": OUTBOX, "persistence": {"enabled": True}, "replicaCount": 1}


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"settings": OUTBOX}, "persistence.enabled"),
        ({**SQLITE, "replicaCount": 2}, "replicaCount"),
        ({**SQLITE, "autoscaling": {"enabled": True}}, "autoscaling"),
        ({"settings": {"login": {"enabled": True}}}, "settings.store.url"),
    ],
)
def test_replicas_without_shared_state_are_rejected(
    values: dict[str, Any], names: str, tmp_path: Path
) -> None:
    assert names in template_error(tmp_path, **values)


def test_an_outbox_on_a_volume(tmp_path: Path) -> None:
    chart = rendered(tmp_path, **SQLITE)
    chart.assert_valid()
    chart.assert_restricted()
    assert chart.the("Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    assert chart.the("Deployment")["spec"]["replicas"] == 1
    mounts = {mount["name"]: mount["mountPath"] for mount in chart.gateway["volumeMounts"]}
    location = chart.settings(tmp_path).outbox.url
    assert str(location).startswith(f"sqlite:///{mounts['state']}/")
    claim = chart.the("PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_replicas_share_store_and_outbox(tmp_path: Path) -> None:
    chart = rendered(tmp_path, **yaml.safe_load((CHART / "ci/replicas-values.yaml").read_text()))
    chart.assert_valid()
    assert chart.the("Deployment")["spec"]["replicas"] == 2
    assert not chart.of_kind("PersistentVolumeClaim")
    variables = {"DHP_GATEWAY_STORE__URL", "DHP_GATEWAY_OUTBOX__URL"}
    from_secrets = {one["name"] for one in chart.gateway["env"] if "valueFrom" in one}
    assert from_secrets == variables
    assert chart.settings(tmp_path).outbox.enabled
    rules = chart.the("NetworkPolicy")["spec"]["egress"]
    assert {6379, 5432} <= {port["port"] for rule in rules for port in rule["ports"]}
    affinities = [service["spec"].get("sessionAffinity") for service in chart.of_kind("Service")]
    assert affinities == ["ClientIP", None]
