"""What holds for every way of running the gateway."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gateway import __version__
from gateway.config.loader import SettingsError, load_settings
from tests.deploy.manifests import END, Manifests
from tests.deploy.targets import (
    CHART,
    FILES,
    OUTBOXES,
    TARGETS,
    compose,
    kustomized,
    rendered,
)


@pytest.mark.parametrize("name", TARGETS)
def test_the_settings_are_taken_and_there_is_time_to_end(name: str, tmp_path: Path) -> None:
    """The gateway finds no problem in file and variables, and is killed only after its end."""
    target = TARGETS[name](tmp_path)
    settings = target.settings(tmp_path)
    assert settings.audit.on_failure == "block"
    assert target.time_to_end >= settings.shutdown.delay + settings.shutdown.drain_timeout + END


PODS = ["sidecar", "standalone", *OUTBOXES, "helm"]


@pytest.fixture(params=PODS)
def manifests(request: pytest.FixtureRequest, tmp_path: Path) -> Manifests:
    """The manifests of every way in Kubernetes."""
    return rendered(tmp_path) if request.param == "helm" else kustomized(request.param)


def test_the_pods_are_as_kubernetes_wants_them(manifests: Manifests) -> None:
    """Every field is known, the Pod Security Standard `restricted` holds, the root is read-only."""
    manifests.assert_valid()
    manifests.assert_restricted()


def test_changes_reach_a_running_gateway(manifests: Manifests) -> None:
    """Settings and secrets are folders, which the kubelet renews, readable for the gateway."""
    manifests.assert_renewed()


def test_no_service_becomes_a_setting(manifests: Manifests, tmp_path: Path) -> None:
    """A Service named dhp-gateway would set variables that the gateway refuses: they are off."""
    assert manifests.pod["spec"]["enableServiceLinks"] is False
    manifests.settings(tmp_path)
    with pytest.raises(SettingsError):
        load_settings(tmp_path / "gateway.yaml", {"DHP_GATEWAY_PORT": "tcp://10.0.0.1:80"})


def test_the_image_is_of_this_version(manifests: Manifests) -> None:
    """It is never the newest there is."""
    assert manifests.gateway["image"].rpartition(":")[2] == __version__


@pytest.mark.parametrize("way", FILES)
def test_the_image_of_compose_is_of_this_version(way: str) -> None:
    """It comes from nowhere else."""
    gateway = compose(way)["services"]["gateway"]
    assert gateway["image"] == f"dhp-gateway:{__version__}"
    assert gateway["pull_policy"] == "never"


def test_the_chart_is_of_this_version() -> None:
    """The image's tag is, unless values say otherwise, this version's."""
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__
