"""What holds for every way to deploy the gateway."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gateway import __version__
from gateway.config.loader import SettingsError, load_settings
from tests.deploy.manifests import END, Manifests
from tests.deploy.targets import CHART, FILES, OUTBOXES, TARGETS, compose, kustomized, rendered


@pytest.mark.parametrize("name", TARGETS)
def test_settings_are_valid_and_the_grace_period_suffices(name: str, tmp_path: Path) -> None:
    target = TARGETS[name](tmp_path)
    settings = target.settings(tmp_path)
    assert settings.audit.on_failure == "block"
    assert target.time_to_end >= settings.shutdown.delay + settings.shutdown.drain_timeout + END


PODS = ["sidecar", "standalone", *OUTBOXES, "helm"]


@pytest.fixture(params=PODS)
def manifests(request: pytest.FixtureRequest, tmp_path: Path) -> Manifests:
    return rendered(tmp_path) if request.param == "helm" else kustomized(request.param)


def test_pods_are_valid_and_restricted(manifests: Manifests) -> None:
    manifests.assert_valid()
    manifests.assert_restricted()


def test_settings_and_secrets_are_mounted_as_folders(manifests: Manifests) -> None:
    manifests.assert_renewed()


def test_service_links_are_disabled(manifests: Manifests, tmp_path: Path) -> None:
    """A Service named dhp-gateway would set variables that the gateway refuses: they are off."""
    assert manifests.pod["spec"]["enableServiceLinks"] is False
    manifests.settings(tmp_path)
    with pytest.raises(SettingsError):
        load_settings(tmp_path / "gateway.yaml", {"DHP_GATEWAY_PORT": "tcp://10.0.0.1:80"})


def test_the_image_is_of_this_version(manifests: Manifests) -> None:
    assert manifests.gateway["image"].rpartition(":")[2] == __version__


@pytest.mark.parametrize("way", FILES)
def test_the_image_of_compose_is_of_this_version(way: str) -> None:
    gateway = compose(way)["services"]["gateway"]
    assert gateway["image"] == f"dhp-gateway:{__version__}"
    assert gateway["pull_policy"] == "never"


def test_the_chart_is_of_this_version() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__
