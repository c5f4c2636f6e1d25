"""The settings files that come with the project."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from gateway.config.loader import SettingsError, load_settings
from gateway.config.section import Section
from gateway.config.settings import PRESETS, Settings
from gateway.config.sources import parse_yaml

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
REFERENCE = (CONFIG / "reference.yaml").read_text(encoding="utf-8")
EXAMPLE = "# An entry with every key:\n"


CLIENT_ID = {"DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_ID": "hospital-17"}
TEMPLATES = [
    "config/playground.yaml",
    "config/production.yaml",
    "deploy/systemd/gateway.yaml",
    "deploy/windows/gateway.yaml",
    "deploy/compose/settings/gateway.yaml",
]


@pytest.mark.parametrize("name", ["sandbox", "reference"])
def test_a_ready_made_file_is_valid(name: str) -> None:
    assert load_settings(CONFIG / f"{name}.yaml", {}).credentials["default"].client_id


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_lacks_the_client_id_only(name: str) -> None:
    """It has the secret's file, and leads to real patients only where its name says so."""
    with pytest.raises(SettingsError) as caught:
        load_settings(ROOT / name, {})
    assert [problem.key for problem in caught.value.problems] == ["credentials.default.client_id"]
    settings = load_settings(ROOT / name, CLIENT_ID)
    credential = settings.credentials["default"]
    assert credential.client_id == "hospital-17"
    assert (credential.client_secret, credential.client_secret_file is None) == (None, False)
    assert (settings.environment == "dhp-playground") is ("production" not in name)


def compare(values: Any, section: Section, path: str) -> None:
    """Check that `values` has exactly the keys of a section, each with its default."""
    assert list(values) == list(type(section).model_fields), path
    for key, value in values.items():
        default = getattr(section, key)
        if isinstance(default, Section):
            compare(value, default, f"{path}.{key}")


def test_the_reference_has_every_key_with_its_default() -> None:
    values = parse_yaml(REFERENCE, "reference.yaml").values
    credentials = values["credentials"]["default"]
    plain = {"client_id": "hospital-17", "client_secret_file": "/run/secrets/dhp_client_secret"}
    playground = PRESETS["dhp-playground"]
    expected = Settings.model_validate(
        {
            "platform": playground["platform"],
            "sso": {"token_url": playground["sso"]["token_url"]},
            "credentials": {"default": plain},
        }
    )
    assert Settings.model_validate(values) == expected
    compare(values, expected, "")
    compare(credentials, expected.credentials["default"], "credentials.default")
    assert values["environment"] == "custom"


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("callers", {"name": "lab", "basic_auth": {"username": "lab"}}),
        ("admin.operators", {"name": "dilnoza"}),
    ],
)
def test_commented_entries_of_the_reference_have_every_key_with_its_default(
    name: str, plain: dict[str, Any]
) -> None:
    *above, last = name.split(".")
    block = REFERENCE.partition(f"{last}: []\n")[2].partition(EXAMPLE)[2]
    lines = itertools.takewhile(lambda line: line.startswith("#"), block.splitlines())
    text = f"{last}:\n" + "\n".join(line[2:] for line in lines)
    (values,) = parse_yaml(text, "example").values[last]

    def entry(given: dict[str, Any]) -> Section:
        settings: dict[str, Any] = {last: [given]}
        for group in reversed(above):
            settings = {group: settings}
        base = {
            "environment": "dhp-playground",
            "credentials": {"default": {"client_id": "a", "client_secret": "b"}},
        }
        found: Any = Settings.model_validate({**base, **settings})
        for part in (*above, last):
            found = getattr(found, part)
        (made,) = found
        assert isinstance(made, Section)
        return made

    assert entry(values) == entry(plain)
    compare(values, entry(plain), f"{name}[0]")
