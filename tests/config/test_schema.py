"""The JSON Schema and the page of settings match the settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from docs.generators import settings_page
from gateway.config import settings_schema
from gateway.config.section import Section
from gateway.config.settings import Settings
from gateway.config.settings_schema import json_schema


def groups(section: type[Section]) -> Iterator[type[Section]]:
    yield section
    for annotation in settings_schema.fields_of(section).values():
        inside = (
            settings_schema.value_of_mapping(annotation)
            or settings_schema.item_of_list(annotation)
            or annotation
        )
        if (inner := settings_schema.section_of(inside)) is not None:
            yield from groups(inner)


def definition(schema: dict[str, Any], section: type[Section]) -> dict[str, Any]:
    found: dict[str, Any] = schema if section is Settings else schema["$defs"][section.__name__]
    return found


@pytest.mark.parametrize("section", list(groups(Settings)), ids=lambda s: s.__name__)
def test_every_key_is_described(section: type[Section]) -> None:
    schema = json_schema()
    part = definition(schema, section)
    assert part["additionalProperties"] is False
    assert set(part["properties"]) == set(section.model_fields)
    for name, field in part["properties"].items():
        group = schema["$defs"].get(field.get("$ref", "").rpartition("/")[2], {})
        assert len({**group, **field}["description"]) > 10, name
        assert {"$ref", "title", "anyOf"} & field.keys()


def test_definitions_are_exactly_the_sections() -> None:
    assert {s.__name__ for s in groups(Settings)} == {*json_schema()["$defs"], "Settings"}


def test_urls_of_an_environment_are_not_required() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "required" not in schema
    assert "required" not in schema["$defs"]["PlatformSettings"]
    assert schema["$defs"]["CredentialSettings"]["required"] == ["client_id"]


def test_sizes_are_numbers_or_strings_with_a_unit() -> None:
    size = json_schema()["$defs"]["LimitsSettings"]["properties"]["max_body_bytes"]
    assert size["type"] == ["integer", "string"]
    assert "MiB" in size["pattern"]
    assert size["default"] == 64 * 1024 * 1024


def test_enumerations_and_defaults_are_as_in_the_file() -> None:
    schema = json_schema()
    assert schema["properties"]["environment"]["enum"][0] == "dhp-playground"
    assert schema["properties"]["environment"]["default"] == "custom"
    address = schema["$defs"]["ListenSettings"]["properties"]["address"]
    assert (address["type"], address["default"]) == ("string", "127.0.0.1:8080")


def table_of_settings(language: str) -> dict[str, list[str]]:
    """Return type, default and meaning of each key of the page, by the path of its setting."""
    items: dict[str, list[str]] = {}
    for section in settings_page.markdown(language).replace("\n  ", " ").split("\n## ")[1:]:
        named = re.match("`(.+)`", section)
        for key, *cells in re.findall(
            r"^\* `(\w+)` \((.+?); (.+?)\): (.*)$", section, re.MULTILINE
        ):
            items[f"{named[1]}.{key}" if named else key] = cells
    return items


def test_the_page_names_every_key() -> None:
    keys = {".".join(map(str, path)) for path, _ in settings_schema.value_paths()}
    assert {key.replace("*", "<name>") for key in keys} <= set(table_of_settings("en"))
