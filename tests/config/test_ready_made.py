"""The settings files that come with the project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.config import Settings, load
from gateway.config.section import Section
from gateway.config.settings import PRESETS
from gateway.config.yaml_file import parse_yaml

CONFIG = Path(__file__).parents[2] / "config"
REFERENCE = (CONFIG / "reference.yaml").read_text(encoding="utf-8")
EXAMPLE = "# An entry with every key:\n"


@pytest.mark.parametrize("name", ["sandbox", "playground", "production", "reference"])
def test_a_ready_made_file_is_valid(name: str) -> None:
    """Each file passes all checks as it is."""
    assert load(CONFIG / f"{name}.yaml", {}).credentials["default"].client_id


@pytest.mark.parametrize("name", ["playground", "production"])
def test_a_ready_made_file_holds_no_secret(name: str) -> None:
    """The secret is expected in a file."""
    credential = load(CONFIG / f"{name}.yaml", {}).credentials["default"]
    assert credential.client_secret is None
    assert credential.client_secret_file is not None


def compare(values: Any, section: Section, path: str) -> None:
    """Fail unless `values` has exactly the keys of a group, each with its default."""
    assert list(values) == list(type(section).model_fields), path
    for key, value in values.items():
        default = getattr(section, key)
        if isinstance(default, Section):
            compare(value, default, f"{path}.{key}")


def test_the_reference_has_every_key_with_its_default() -> None:
    """Read back, the reference is what the gateway does without settings, key by key."""
    values = parse_yaml(REFERENCE, "reference.yaml").values
    credentials = values["credentials"]["default"]
    plain = {"client_id": "hospital-17", "client_secret_file": "/run/secrets/dhp_client_secret"}
    expected = Settings.model_validate({"credentials": {"default": plain}})
    assert Settings.model_validate(values) == expected
    compare(values, expected, "")
    compare(credentials, expected.credentials["default"], "credentials.default")
    assert values["sso"]["token_url"] == PRESETS["playground"]["sso"]["token_url"]


def test_the_references_commented_caller_has_every_key_with_its_default() -> None:
    """Uncommented, the example of a caller is one with all keys at their defaults."""
    block = REFERENCE.partition(EXAMPLE)[2].partition("\n\n")[0]
    text = "callers:\n" + "\n".join(line[2:] for line in block.splitlines())
    (values,) = parse_yaml(text, "example").values["callers"]
    basic = {"username": "lab"}
    base = {"credentials": {"default": {"client_id": "a", "client_secret": "b"}}}
    given = Settings.model_validate({**base, "callers": [values]}).callers[0]
    plain = [{"name": "lab", "basic_auth": basic}]
    expected = Settings.model_validate({**base, "callers": plain}).callers[0]
    assert given == expected
    compare(values, expected, "callers[0]")
