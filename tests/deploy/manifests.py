"""Checks of Kubernetes manifests, whether written by hand or rendered by helm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from gateway.config.loader import load_settings
from gateway.config.settings import Settings
from tests.deploy import tools
from tests.environments import output_of

Manifest = dict[str, Any]
# Seconds that the gateway needs beside delay and drain time: see "Shutdown" in docs/operations.md.
END = 5
# What the shipped files take from Secrets.
ADDRESSES = {
    "DHP_GATEWAY_OUTBOX__URL": "postgresql://gateway:planted@postgresql/gateway?sslmode=verify-full",
    "DHP_GATEWAY_STORE__URL": "redis://:planted@redis:6379/0",
}


class Manifests:
    """A set of manifests, as one `kubectl apply` would get them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.all: list[Manifest] = [one for one in yaml.safe_load_all(text) if one]

    def of_kind(self, kind: str) -> list[Manifest]:
        return [one for one in self.all if one["kind"] == kind]

    def the(self, kind: str) -> Manifest:
        (one,) = self.of_kind(kind)
        return one

    @property
    def pod(self) -> Manifest:
        pod: Manifest = self.the("Deployment")["spec"]["template"]
        return pod

    @property
    def gateway(self) -> Manifest:
        (gateway,) = (one for one in containers(self.pod) if "gateway" in one["name"])
        return gateway

    def settings(self, folder: Path) -> Settings:
        """Return the settings that result from the ConfigMap and the container's variables.

        The secrets that they name are made in `folder`. A variable that comes from a Secret is the
        URL of a database. Raises SettingsError when there is a problem.
        """
        text: str = self.the("ConfigMap")["data"]["gateway.yaml"]
        for name in ("client_secret", "his_api_key", "outbox_key"):
            (folder / name).write_text("planted-secret-of-a-test")
        file = folder / "gateway.yaml"
        text = text.replace("your-client-id", "hospital-17")
        file.write_text(text.replace("/run/secrets/dhp/", f"{folder}/"))
        variables = {
            one["name"]: (one.get("value") or ADDRESSES[one["name"]]).replace(
                "/run/secrets/dhp/", f"{folder}/"
            )
            for one in self.gateway["env"]
            if one["name"] != "DHP_GATEWAY_CONFIG"
        }
        return load_settings(file, variables)

    def assert_valid(self) -> None:
        """Check every manifest against Kubernetes' schemas of the oldest and the newest release."""
        validate = tools.kubernetes_validate()
        for release in tools.KUBERNETES:
            command = [validate, "--strict", "-k", release, "--no-warn", "/dev/stdin"]
            told = output_of(command, self.text)
            assert told.count(" passed for ") == len(self.all), told

    def assert_restricted(self) -> None:
        """Check the Pod Security Standard `restricted`, and that the pod's root is read-only."""
        pod = self.pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        kinds = {"configMap", "secret", "persistentVolumeClaim"}
        assert all(volume.keys() & kinds for volume in pod["volumes"])
        for container in containers(self.pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert context.get("runAsUser", pod["securityContext"].get("runAsUser", 0)) > 0

    def assert_renewed(self) -> None:
        """Check that settings and secrets are mounted as folders that the gateway can read."""
        mounts = {mount["mountPath"]: mount for mount in self.gateway["volumeMounts"]}
        assert {"/etc/dhp-gateway", "/run/secrets/dhp"} <= mounts.keys()
        assert not [mount for mount in mounts.values() if "subPath" in mount]
        (secret,) = (one["secret"] for one in self.pod["spec"]["volumes"] if "secret" in one)
        assert secret["defaultMode"] == 0o440
        group = self.pod["spec"]["securityContext"]["fsGroup"]
        assert group == self.gateway["securityContext"].get("runAsGroup", group)

    def selected_by(self, selector: Manifest) -> bool:
        labels = self.pod["metadata"]["labels"]
        return bool(selector) and selector.items() <= labels.items()


def containers(pod: Manifest) -> Iterator[Manifest]:
    yield from pod["spec"].get("initContainers", ())
    yield from pod["spec"]["containers"]


def port_of(container: Manifest, name: str) -> int:
    (number,) = (one["containerPort"] for one in container["ports"] if one["name"] == name)
    return int(number)


def peers(policy: Manifest, port: int | str) -> list[Manifest]:
    """Return the peers that a NetworkPolicy admits to a port; empty when it names none."""
    return [
        peer
        for rule in policy["spec"]["ingress"]
        if port in [one["port"] for one in rule["ports"]]
        for peer in rule.get("from", ())
    ]
