"""Which files belong to the settings, and which keys a reload may not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.app.reloader import fixed_changes, watched_files
from gateway.config.settings import Settings


def settings(**sections: Any) -> Settings:
    credentials = {"default": {"client_id": "a", "client_secret_file": "/secrets/default"}}
    return Settings.model_validate(
        {"environment": "dhp-playground", "credentials": credentials, **sections}
    )


def test_every_file_of_the_settings_is_watched() -> None:
    found = watched_files(
        settings(
            listen={"tls": {"cert_file": "/c", "key_file": "/k", "client_ca_file": "/ca"}},
            platform={"ca_file": "/ca", "client_cert_file": "/pc", "client_key_file": "/pk"},
            sso={"ca_file": "/sso"},
            audit={"path": "/var/log/audit"},
            callers=[
                {"name": "lab", "api_key_file": "/key"},
                {"name": "his", "basic_auth": {"username": "u", "password_file": "/password"}},
            ],
        )
    )
    expected = "/c /k /ca /pc /pk /sso /secrets/default /key /password"
    assert sorted(map(str, found)) == sorted(expected.split())
    assert all(isinstance(path, Path) for path in found)


@pytest.mark.parametrize(
    ("changed", "keys"),
    [
        ({}, []),
        ({"limits": {"max_headers": 3}, "listen": {"base_path": "/x"}}, []),
        ({"listen": {"address": "127.0.0.1:1", "reuse_port": True}},
         ["listen.address", "listen.reuse_port"]),
        ({"retries": {"max_attempts": 2}, "audit": {"sink": "off", "on_failure": "drop"}},
         ["audit.sink", "audit.on_failure"]),
    ],
)  # fmt: skip
def test_settings_that_need_a_restart_are_named(changed: dict[str, Any], keys: list[str]) -> None:
    assert list(fixed_changes(settings(), settings(**changed))) == keys
