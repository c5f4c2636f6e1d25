"""The Kubernetes manifests: the gateway as a native sidecar and on its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.deploy.manifests import Manifests, containers, peers, port_of
from tests.deploy.targets import KUBERNETES, OUTBOXES, kustomized


@pytest.fixture(scope="module", params=["sidecar", "standalone", *OUTBOXES])
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return kustomized(request.param)


@pytest.fixture(scope="module")
def sidecar() -> Manifests:
    return kustomized("sidecar")


@pytest.fixture(scope="module")
def standalone() -> Manifests:
    return kustomized("standalone")


def test_the_gateway_reads_the_mounted_settings(manifests: Manifests) -> None:
    (config,) = (one for one in manifests.gateway["env"] if one["name"] == "DHP_GATEWAY_CONFIG")
    assert config["value"] == "/etc/dhp-gateway/gateway.yaml"
    assert manifests.gateway["args"] == ["run"]


def test_probes_use_the_admin_port(manifests: Manifests, tmp_path: Path) -> None:
    gateway, admin = manifests.gateway, manifests.settings(tmp_path).admin.address
    probes = {name: one["httpGet"] for name, one in gateway.items() if name.endswith("Probe")}
    assert {"startupProbe", "livenessProbe"} <= probes.keys()
    assert {port_of(gateway, one["port"]) for one in probes.values()} == {admin.port}
    assert admin.is_wildcard
    assert {one["path"] for one in probes.values()} == {"/livez"}


def test_manifests_contain_no_secret(manifests: Manifests) -> None:
    assert not manifests.of_kind("Secret")
    settings = yaml.safe_load(manifests.the("ConfigMap")["data"]["gateway.yaml"])
    assert "client_secret" not in settings["credentials"]["default"]
    assert "postgresql://" not in manifests.text
    assert manifests.pod["spec"]["automountServiceAccountToken"] is False


def test_only_monitoring_reaches_the_admin_port(manifests: Manifests) -> None:
    policy = manifests.the("NetworkPolicy")
    assert manifests.selected_by(policy["spec"]["podSelector"]["matchLabels"])
    (port,) = [one for one in (9464, "admin") if peers(policy, one)]
    allowed = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert peers(policy, port) == [allowed]


def test_the_his_calls_a_native_sidecar_over_loopback(sidecar: Manifests, tmp_path: Path) -> None:
    (gateway,) = sidecar.pod["spec"]["initContainers"]
    assert gateway["restartPolicy"] == "Always"
    assert gateway["startupProbe"]["httpGet"]["path"] == "/livez"
    assert "readinessProbe" not in gateway
    listen = sidecar.settings(tmp_path).listen
    *_, his = containers(sidecar.pod)
    assert his["env"][0]["value"] == f"http://{listen.address}{listen.base_path}"
    assert listen.address.is_loopback
    assert "volumeMounts" not in his


def test_callers_reach_ready_pods_only(standalone: Manifests) -> None:
    services = {one["metadata"]["name"]: one["spec"] for one in standalone.of_kind("Service")}
    assert "publishNotReadyAddresses" not in services["dhp-gateway"]
    assert "readinessProbe" in standalone.gateway


def test_the_callers_service_does_not_expose_the_admin_port(standalone: Manifests) -> None:
    services = {one["metadata"]["name"]: one["spec"] for one in standalone.of_kind("Service")}
    assert [one["targetPort"] for one in services["dhp-gateway"]["ports"]] == ["http"]
    assert [one["targetPort"] for one in services["dhp-gateway-admin"]["ports"]] == ["admin"]
    assert all(standalone.selected_by(one["selector"]) for one in services.values())


def test_pods_are_replaced_one_by_one_and_restricted(standalone: Manifests) -> None:
    scaler, deployment = standalone.the("HorizontalPodAutoscaler"), standalone.the("Deployment")
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert scaler["spec"]["minReplicas"] >= 2
    assert "replicas" not in deployment["spec"]
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert deployment["spec"]["minReadySeconds"] > 0
    budget = standalone.the("PodDisruptionBudget")["spec"]
    assert standalone.selected_by(budget["selector"]["matchLabels"])
    assert budget["maxUnavailable"] == 1
    labels = standalone.the("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    egress = standalone.the("NetworkPolicy")["spec"]["egress"]
    assert {port["port"] for rule in egress for port in rule["ports"]} == {53, 443}


@pytest.mark.parametrize("name", OUTBOXES)
def test_the_outbox_is_enabled_and_encrypted(name: str, tmp_path: Path) -> None:
    outbox = kustomized(name)
    settings = outbox.settings(tmp_path)
    assert settings.outbox.enabled
    assert settings.outbox.encryption_key_file is not None


def test_an_outbox_in_a_file_has_one_pod(tmp_path: Path) -> None:
    outbox = kustomized("sidecar-outbox")
    deployment, claim = outbox.the("Deployment")["spec"], outbox.the("PersistentVolumeClaim")
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    mounts = {mount["name"]: mount["mountPath"] for mount in outbox.gateway["volumeMounts"]}
    assert str(outbox.settings(tmp_path).outbox.url).startswith(
        f"sqlite:///{mounts['dhp-outbox']}/"
    )
    volumes = {volume["name"]: volume for volume in outbox.pod["spec"]["volumes"]}
    assert volumes["dhp-outbox"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_a_shared_outbox_can_be_reached() -> None:
    outbox = kustomized("standalone-outbox")
    rules = outbox.the("NetworkPolicy")["spec"]["egress"]
    assert 5432 in {port["port"] for rule in rules for port in rule["ports"]}
    (url,) = (one for one in outbox.gateway["env"] if one["name"] == "DHP_GATEWAY_OUTBOX__URL")
    assert "secretKeyRef" in url["valueFrom"]
    services = outbox.of_kind("Service")
    affinities = {one["metadata"]["name"]: one["spec"].get("sessionAffinity") for one in services}
    assert affinities == {"dhp-gateway": "ClientIP", "dhp-gateway-admin": None}


def test_monitors_select_service_and_pods(standalone: Manifests, sidecar: Manifests) -> None:
    service = yaml.safe_load((KUBERNETES / "standalone/servicemonitor.yaml").read_text())["spec"]
    wanted = service["selector"]["matchLabels"].items()
    (found,) = (
        one for one in standalone.of_kind("Service") if wanted <= one["metadata"]["labels"].items()
    )
    assert service["endpoints"][0]["port"] == found["spec"]["ports"][0]["name"]
    pods = yaml.safe_load((KUBERNETES / "sidecar/podmonitor.yaml").read_text())["spec"]
    assert sidecar.selected_by(pods["selector"]["matchLabels"])
    assert port_of(sidecar.gateway, pods["podMetricsEndpoints"][0]["port"]) == 9464
    for endpoint in (service["endpoints"][0], pods["podMetricsEndpoints"][0]):
        assert {"targetLabel": "job", "replacement": "dhp-gateway"} in endpoint["relabelings"]
