"""The Kubernetes manifests: the gateway as a native sidecar and on its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.deploy.manifests import Manifests, containers, peers, port_of
from tests.deploy.targets import KUBERNETES, OUTBOXES, kustomized


@pytest.fixture(scope="module", params=["sidecar", "standalone", *OUTBOXES])
def each(request: pytest.FixtureRequest) -> Manifests:
    """Both ways in turn, without and with an outbox."""
    return kustomized(request.param)


@pytest.fixture(scope="module")
def sidecar() -> Manifests:
    """The gateway in the old system's pod."""
    return kustomized("sidecar")


@pytest.fixture(scope="module")
def standalone() -> Manifests:
    """The gateway in pods of its own."""
    return kustomized("standalone")


def test_an_unknown_field_would_be_noticed(standalone: Manifests) -> None:
    """The validation above is strict: a misspelled field fails it."""
    wrong = standalone.text.replace("terminationGracePeriodSeconds", "gracePeriod")
    with pytest.raises(AssertionError, match="gracePeriod"):
        Manifests(wrong).assert_valid()


def test_the_gateway_reads_what_is_mounted(each: Manifests) -> None:
    """DHP_GATEWAY_CONFIG names the ConfigMap's file, for `run` and for commands by hand."""
    (config,) = (one for one in each.gateway["env"] if one["name"] == "DHP_GATEWAY_CONFIG")
    assert config["value"] == "/etc/dhp-gateway/gateway.yaml"
    assert each.gateway["args"] == ["run"]


def test_probes_reach_the_operators_port(each: Manifests, tmp_path: Path) -> None:
    """Every probe asks admin.address, which is open to the kubelet, whether the gateway lives."""
    gateway, admin = each.gateway, each.settings(tmp_path).admin.address
    probes = {name: one["httpGet"] for name, one in gateway.items() if name.endswith("Probe")}
    assert {"startupProbe", "livenessProbe"} <= probes.keys()
    assert {port_of(gateway, one["port"]) for one in probes.values()} == {admin.port}
    assert admin.is_wildcard
    assert {one["path"] for one in probes.values()} == {"/livez"}


def test_nothing_talks_to_the_api(each: Manifests) -> None:
    """No service account's token lies in the pod."""
    assert each.pod["spec"]["automountServiceAccountToken"] is False


def test_no_secret_is_written_down(each: Manifests) -> None:
    """There is no Secret among the manifests, and no secret among the settings."""
    assert not each.of_kind("Secret")
    settings = yaml.safe_load(each.the("ConfigMap")["data"]["gateway.yaml"])
    assert "client_secret" not in settings["credentials"]["default"]
    assert "postgresql://" not in each.text


def test_only_monitoring_reaches_the_operators_port(each: Manifests) -> None:
    """The policy admits the monitoring's namespace to the operators' port, and no other peer."""
    policy = each.the("NetworkPolicy")
    assert each.selected_by(policy["spec"]["podSelector"]["matchLabels"])
    (port,) = [one for one in (9464, "admin") if peers(policy, one)]
    allowed = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert peers(policy, port) == [allowed]


def test_the_sidecar_is_a_native_one(sidecar: Manifests) -> None:
    """The gateway starts before the old system and ends after it; the old system waits for it."""
    (gateway,) = sidecar.pod["spec"]["initContainers"]
    assert gateway["restartPolicy"] == "Always"
    assert gateway["startupProbe"]["httpGet"]["path"] == "/livez"


def test_an_outage_leaves_the_old_system_reachable(sidecar: Manifests) -> None:
    """The sidecar has no say in whether the pod is ready."""
    assert "readinessProbe" not in sidecar.gateway


def test_the_old_system_calls_over_loopback(sidecar: Manifests, tmp_path: Path) -> None:
    """The gateway listens on the pod's loopback, where the old system looks for it."""
    listen = sidecar.settings(tmp_path).listen
    *_, his = containers(sidecar.pod)
    assert his["env"][0]["value"] == f"http://{listen.address}{listen.base_path}"
    assert listen.address.is_loopback


def test_the_old_system_sees_no_secret(sidecar: Manifests) -> None:
    """The volume with the client secret is mounted into the gateway alone."""
    *_, his = containers(sidecar.pod)
    assert "volumeMounts" not in his


def test_an_old_pod_leaves_when_a_new_one_serves(standalone: Manifests) -> None:
    """A new pod has to start and to stay ready before an old one is taken away."""
    deployment = standalone.the("Deployment")["spec"]
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert deployment["minReadySeconds"] > 0


def test_callers_are_led_to_pods_that_serve(standalone: Manifests) -> None:
    """The callers' Service does not lead to pods that do not listen yet or are ending."""
    services = {one["metadata"]["name"]: one["spec"] for one in standalone.of_kind("Service")}
    assert "publishNotReadyAddresses" not in services["dhp-gateway"]
    assert "readinessProbe" in standalone.gateway


def test_callers_do_not_get_to_the_operators_port(standalone: Manifests) -> None:
    """The callers' Service leads to the callers' port only."""
    services = {one["metadata"]["name"]: one["spec"] for one in standalone.of_kind("Service")}
    assert [one["targetPort"] for one in services["dhp-gateway"]["ports"]] == ["http"]
    assert [one["targetPort"] for one in services["dhp-gateway-admin"]["ports"]] == ["admin"]
    assert all(standalone.selected_by(one["selector"]) for one in services.values())


def test_replicas_are_the_autoscalers_business(standalone: Manifests) -> None:
    """The autoscaler names the Deployment, which has no number of its own to fall back to."""
    scaler, deployment = standalone.the("HorizontalPodAutoscaler"), standalone.the("Deployment")
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert scaler["spec"]["minReplicas"] >= 2
    assert "replicas" not in deployment["spec"]


def test_one_replica_goes_at_a_time(standalone: Manifests) -> None:
    """The disruption budget is for these pods, and lets a node be drained."""
    budget = standalone.the("PodDisruptionBudget")["spec"]
    assert standalone.selected_by(budget["selector"]["matchLabels"])
    assert budget["maxUnavailable"] == 1


def test_the_way_out_is_names_and_tls(standalone: Manifests) -> None:
    """Pods get to DNS and to port 443, nowhere else."""
    rules = standalone.the("NetworkPolicy")["spec"]["egress"]
    assert {port["port"] for rule in rules for port in rule["ports"]} == {53, 443}


def test_the_namespace_enforces_it(standalone: Manifests) -> None:
    """Kubernetes itself refuses pods in this namespace that ask for more."""
    labels = standalone.the("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", OUTBOXES)
def test_an_outbox_survives_and_takes_writes(name: str, tmp_path: Path) -> None:
    """It is sealed, and switched on for every pod."""
    outbox = kustomized(name)
    settings = outbox.settings(tmp_path)
    assert settings.outbox.enabled
    assert settings.outbox.encryption_key_file is not None


def test_a_queue_in_a_file_has_one_owner(tmp_path: Path) -> None:
    """The one pod mounts its own claim where the database is; the next one waits for its end."""
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


def test_a_shared_queue_can_be_reached() -> None:
    """Replicas get to their database, whose address is in a Secret; a caller keeps to one."""
    outbox = kustomized("standalone-outbox")
    rules = outbox.the("NetworkPolicy")["spec"]["egress"]
    assert 5432 in {port["port"] for rule in rules for port in rule["ports"]}
    (url,) = (one for one in outbox.gateway["env"] if one["name"] == "DHP_GATEWAY_OUTBOX__URL")
    assert "secretKeyRef" in url["valueFrom"]
    services = outbox.of_kind("Service")
    affinities = {one["metadata"]["name"]: one["spec"].get("sessionAffinity") for one in services}
    assert affinities == {"dhp-gateway": "ClientIP", "dhp-gateway-admin": None}


def test_prometheus_finds_its_targets(standalone: Manifests, sidecar: Manifests) -> None:
    """ServiceMonitor and PodMonitor select a Service and pods that have the port they name."""
    service = yaml.safe_load((KUBERNETES / "standalone/servicemonitor.yaml").read_text())["spec"]
    wanted = service["selector"]["matchLabels"].items()
    (found,) = (
        one for one in standalone.of_kind("Service") if wanted <= one["metadata"]["labels"].items()
    )
    assert service["endpoints"][0]["port"] == found["spec"]["ports"][0]["name"]
    pods = yaml.safe_load((KUBERNETES / "sidecar/podmonitor.yaml").read_text())["spec"]
    assert sidecar.selected_by(pods["selector"]["matchLabels"])
    assert port_of(sidecar.gateway, pods["podMetricsEndpoints"][0]["port"]) == 9464


@pytest.mark.parametrize(
    ("file", "endpoints"),
    [
        ("standalone/servicemonitor.yaml", "endpoints"),
        ("sidecar/podmonitor.yaml", "podMetricsEndpoints"),
    ],
)
def test_alerts_find_their_job(file: str, endpoints: str) -> None:
    """The job has the name that the rules look for, not that of a Service or PodMonitor."""
    (endpoint,) = yaml.safe_load((KUBERNETES / file).read_text())["spec"][endpoints]
    assert {"targetLabel": "job", "replacement": "dhp-gateway"} in endpoint["relabelings"]
