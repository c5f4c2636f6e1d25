"""The JSON Schema of the settings file, for editors and for `dhp-gateway schema`."""

from __future__ import annotations

from typing import Any

from gateway.config.database_url import DatabaseLocation
from gateway.config.settings import Settings
from gateway.config.store_url import StoreLocation
from gateway.config.values import ListenAddress

# Filled in by `environment`, so that the file may omit them.
_IMPLIED = {
    "Settings": ("platform", "sso"),
    "PlatformSettings": ("fhir_base_url",),
    "SsoSettings": ("token_url",),
}


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) with descriptions, defaults and closed lists of values.

    It cannot express everything: `dhp-gateway check` also applies the rules between keys.
    """
    schema = Settings.model_json_schema(mode="validation")
    definitions: dict[str, Any] = schema.pop("$defs")
    for name, definition in (*definitions.items(), ("Settings", schema)):
        _without_implied(definition, _IMPLIED.get(name, ()))
        for field in definition["properties"].values():
            _write_out_address(field)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "DHP Gateway settings",
        "description": "What `dhp-gateway run --config FILE` reads.",
        "$defs": definitions,
    }


def _without_implied(definition: dict[str, Any], implied: tuple[str, ...]) -> None:
    required = [key for key in definition.pop("required", []) if key not in implied]
    if required:
        definition["required"] = required


def _write_out_address(field: dict[str, Any]) -> None:
    # Pydantic writes the default of a dataclass as an object; the settings file has a text.
    if not isinstance(default := field.get("default"), dict):
        return
    if "ssl_mode" in default:
        field["default"] = str(DatabaseLocation(**default))
    elif "kind" in default:
        field["default"] = str(StoreLocation(**default))
    elif "port" in default:
        field["default"] = str(ListenAddress(**default))
