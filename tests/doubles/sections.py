"""Settings of gateways in tests, and sections for tests of the classes that get them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.config.outbound_settings import PlatformSettings

CLIENT_SECRET = "planted-client-secret"


def with_sections(settings: Mapping[str, Any], sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with sections added; the members of one that is there change or add to it."""
    changed = dict(settings)
    for name, section in sections.items():
        old = changed.get(name)
        is_map = isinstance(old, dict) and isinstance(section, dict)
        changed[name] = {**old, **section} if is_map else section
    return changed


def gateway_settings(platform_url: str, token_url: str, /, **sections: Any) -> dict[str, Any]:
    """Return settings of a gateway between a platform and an SSO, without its addresses."""
    settings = {
        "environment": "custom",
        "platform": {"fhir_base_url": platform_url},
        "sso": {"token_url": token_url},
        "credentials": {"default": {"client_id": "hospital-17", "client_secret": CLIENT_SECRET}},
        "shutdown": {"delay": 0},
    }
    return with_sections(settings, sections)


def platform_settings(**values: Any) -> PlatformSettings:
    """Return settings of a platform on this machine; each time limit is 5 s by default."""
    limits = {"connect_timeout": 5, "response_timeout": 5, "idle_timeout": 5}
    return PlatformSettings(fhir_base_url="http://127.0.0.1/fhir", **limits | values)
