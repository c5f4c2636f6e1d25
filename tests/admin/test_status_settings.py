"""The settings on the status page, with masked secrets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from gateway.admin.status_facts import url_without_secrets, visible_settings
from gateway.config.loader import load_settings
from gateway.secret import MASK

BASE: dict[str, Any] = {
    "environment": "custom",
    "platform": {"fhir_base_url": "https://platform.example/fhir"},
    "sso": {"token_url": "https://sso.example/token"},
    "credentials": {
        "default": {
            "client_id": "hospital-17",
            "client_secret": "planted-1",
            "extra_params": {"audience": "planted-2"},
        }
    },
    "callers": [
        {"name": "lab", "api_key": "planted-3", "networks": ["10.0.0.0/8", "192.168.1.0/24"]}
    ],
    "store": {"url": "redis://user:planted-4@127.0.0.1/0", "encryption_key": "planted-5" * 5},
    "login": {"extra_params": {"hint": "planted-8"}},
    "outbox": {"url": "postgresql://user:planted-6@127.0.0.1/queue"},
    "tracing": {"authorization": "planted-7"},
}


def settings_shown(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "gateway.yaml"
    file.write_text(yaml.safe_dump(BASE))
    return visible_settings(load_settings(file, {}))


def test_secrets_are_masked(tmp_path: Path) -> None:
    found = settings_shown(tmp_path)
    assert "planted" not in str(found)
    for key in (
        *("credentials.default.client_secret", "credentials.default.extra_params"),
        "login.extra_params",
        *("callers[0].api_key", "store.encryption_key", "tracing.authorization"),
    ):
        assert found[key] == MASK


def test_values_are_shown_by_setting(tmp_path: Path) -> None:
    found = settings_shown(tmp_path)
    assert found["platform.fhir_base_url"] == "https://platform.example/fhir"
    assert found["credentials.default.client_id"] == "hospital-17"
    assert found["callers[0].networks"] == "10.0.0.0/8, 192.168.1.0/24"
    assert found["outbox.url"] == "postgresql://127.0.0.1/queue"
    assert found["retries.max_attempts"] == 3
    assert "listen.public_url" not in found


def test_entries_of_lists_are_named_with_brackets(tmp_path: Path) -> None:
    found = settings_shown(tmp_path)
    assert "callers[0].rate_limit.burst" not in found
    assert {"callers[0].name", "callers[0].allow.resources"} <= set(found)
    assert not [key for key in found if re.search(r"\.\d", key)]


def test_urls_are_shown_without_user_query_and_fragment() -> None:
    assert url_without_secrets("https://user:pass@host:8443/a?secret#part") == "https://host:8443/a"


def test_urls_in_any_text_are_shortened_but_in_what_operators_write_for_people(
    tmp_path: Path,
) -> None:
    page = "https://wiki.example/duty?page=1"
    changed = {**BASE, "admin": {"contact": page}}
    scope = "openid https://sso.example/read?planted=1 urn:x"
    changed["credentials"] = {"default": {**BASE["credentials"]["default"], "scope": scope}}
    file = tmp_path / "gateway.yaml"
    file.write_text(yaml.safe_dump(changed))
    found = visible_settings(load_settings(file, {}))
    assert found["admin.contact"] == page
    assert found["credentials.default.scope"] == "openid https://sso.example/read urn:x"
    assert url_without_secrets("https://[planted") == MASK
