"""Each way to deploy the gateway: its settings and its grace period."""

from __future__ import annotations

import functools
import json
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import yaml

from gateway.config.loader import load_settings
from gateway.config.settings import Settings
from tests.deploy import tools
from tests.deploy.manifests import Manifests
from tests.environments import output_of

COMPOSE: Final = tools.PROJECT / "deploy/compose"
KUBERNETES: Final = tools.PROJECT / "deploy/kubernetes"
CHART: Final = tools.PROJECT / "deploy/helm/dhp-gateway"
LEAST: Final = CHART / "ci/playground-values.yaml"
SYSTEMD: Final = tools.PROJECT / "deploy/systemd"
UNIT: Final = SYSTEMD / "dhp-gateway.service"
WINDOWS: Final = tools.PROJECT / "deploy/windows"
FILES: Final = {
    "real": ["compose.yaml"],
    "sandbox": ["compose.yaml", "sandbox.yaml"],
    "replicas": ["replicas.yaml"],
}
OUTBOXES: Final = ["sidecar-outbox", "standalone-outbox"]
# A folder of the service on Windows.
DATA: Final = "C:\\ProgramData\\DHP Gateway\\"


@dataclass(frozen=True)
class Target:
    """One deployment: its settings, with secrets in a folder, and its grace period in seconds."""

    settings: Callable[[Path], Settings]
    time_to_end: float


def complete(text: str, secrets: str, folder: Path) -> Path:
    """Write a settings file whose secrets are in a folder, with a client id; return its path."""
    file = folder / "gateway.yaml"
    text = text.replace("your-client-id", "hospital-17")
    file.write_text(text.replace(secrets, f"{folder}/"))
    (folder / "client_secret").write_text("planted-secret-of-a-test")
    return file


@functools.cache
def compose(way: str) -> dict[str, Any]:
    """What docker compose makes of the files: merged, and checked against its schema."""
    line = [tools.compose_program()]
    for name in FILES[way]:
        line += ["--file", str(COMPOSE / name)]
    found: dict[str, Any] = json.loads(output_of([*line, "config", "--format", "json"]))
    return found


def mounted(service: dict[str, Any]) -> dict[str, Path]:
    """What a service of compose sees of this checkout: its own path to the path here."""
    volumes = service.get("volumes", ())
    return {one["target"]: Path(one["source"]) for one in volumes if one["type"] == "bind"}


def settings_of(gateway: dict[str, Any], folder: Path) -> Settings:
    environ = {
        name: value for name, value in gateway["environment"].items() if name.startswith("DHP_")
    }
    place, _, name = environ.pop("DHP_GATEWAY_CONFIG").rpartition("/")
    text = (mounted(gateway)[place] / name).read_text()
    return load_settings(complete(text, "/run/secrets/dhp/", folder), environ)


@functools.cache
def kustomized(name: str) -> Manifests:
    """What `kubectl apply -k` would send."""
    line = [tools.unpacked_program("kubectl"), "kustomize", KUBERNETES / name]
    return Manifests(output_of(line))


def helm(verb: str, values: dict[str, Any], folder: Path) -> list[str | Path]:
    """A helm command line with the least values and these on top."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    release = ["gw"] if verb == "template" else ["--strict"]
    options = ["--namespace", "dhp", "--values", LEAST, "--values", file]
    return [tools.unpacked_program("helm"), verb, *release, CHART, *options]


def rendered(folder: Path, **values: Any) -> Manifests:
    return Manifests(output_of([*helm("template", values, folder), "--skip-tests"]))


def directives(unit: Path) -> dict[str, list[str]]:
    """A systemd unit's directives, each with its values in their order."""
    found: dict[str, list[str]] = defaultdict(list)
    for key, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE):
        found[key].append(value)
    return found


def systemd_settings(folder: Path) -> Settings:
    secret = folder / "dhp_client_secret"
    secret.write_text("planted-secret-of-a-test")
    variables = {"CLIENT_SECRET_FILE": str(secret), "CLIENT_ID": "hospital-17"}
    prefix = "DHP_GATEWAY_CREDENTIALS__DEFAULT__"
    return load_settings(
        SYSTEMD / "gateway.yaml", {prefix + name: value for name, value in variables.items()}
    )


def windows_service() -> ElementTree.Element:
    return ElementTree.parse(WINDOWS / "dhp-gateway.xml").getroot()  # noqa: S314 - our own file


def windows_settings(folder: Path) -> Settings:
    text = (WINDOWS / "gateway.yaml").read_text()
    secret = yaml.safe_load(text)["credentials"]["default"]["client_secret_file"]
    assert secret.startswith(DATA)
    file = complete(
        text.replace(secret, "/run/secrets/dhp/client_secret"), "/run/secrets/dhp/", folder
    )
    variables = {one.attrib["name"]: one.attrib["value"] for one in windows_service().iter("env")}
    assert variables.pop("DHP_GATEWAY_CONFIG") == "%ProgramData%\\DHP Gateway\\gateway.yaml"
    return load_settings(file, variables)


def _compose(way: str) -> Target:
    gateway = compose(way)["services"]["gateway"]
    grace = float(gateway["stop_grace_period"].removesuffix("s"))
    return Target(lambda folder: settings_of(gateway, folder), grace)


def _manifests(made: Manifests) -> Target:
    return Target(made.settings, made.pod["spec"]["terminationGracePeriodSeconds"])


def _windows() -> Target:
    seconds, unit = (windows_service().findtext("stoptimeout") or "").split()
    assert unit == "sec"
    return Target(windows_settings, float(seconds))


def _systemd() -> Target:
    return Target(systemd_settings, float(*directives(UNIT)["TimeoutStopSec"]))


# Made when a test asks for one, because some need a program.
TARGETS: Final[dict[str, Callable[[Path], Target]]] = {
    **{f"compose {way}": lambda _, way=way: _compose(way) for way in FILES},
    **{
        f"kubernetes {name}": lambda _, name=name: _manifests(kustomized(name))
        for name in ("sidecar", "standalone", *OUTBOXES)
    },
    "helm": lambda folder: _manifests(rendered(folder)),
    # The time to end grows with what the settings allow for it.
    "helm with a long end": lambda folder: _manifests(
        rendered(folder, settings={"shutdown": {"delay": 10.5, "drain_timeout": 300}})
    ),
    "systemd": lambda _: _systemd(),
    "windows": lambda _: _windows(),
}
