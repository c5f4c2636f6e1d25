"""Sections of the settings, with values for tests of the classes that get them."""

from __future__ import annotations

from typing import Any

from gateway.config.outbound_settings import PlatformSettings


def platform_settings(**values: Any) -> PlatformSettings:
    """Return settings of a platform on this machine; each time limit is 5 s by default."""
    limits = {"connect_timeout": 5, "response_timeout": 5, "idle_timeout": 5}
    return PlatformSettings(fhir_base_url="http://127.0.0.1/fhir", **limits | values)
