"""The JSON Schema and the reference say what the settings are."""

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
from gateway.config.sources import variable_name


def groups(section: type[Section]) -> Iterator[type[Section]]:
    """A group and all groups below it."""
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
    """The part of the schema for a group."""
    found: dict[str, Any] = schema if section is Settings else schema["$defs"][section.__name__]
    return found


@pytest.mark.parametrize("section", list(groups(Settings)), ids=lambda s: s.__name__)
def test_every_key_is_described(section: type[Section]) -> None:
    """Each group closes its keys, and each key has a description and a title or a reference."""
    schema = json_schema()
    part = definition(schema, section)
    assert part["additionalProperties"] is False
    assert set(part["properties"]) == set(section.model_fields)
    for name, field in part["properties"].items():
        group = schema["$defs"].get(field.get("$ref", "").rpartition("/")[2], {})
        assert len({**group, **field}["description"]) > 10, name
        assert {"$ref", "title", "anyOf"} & field.keys()


def test_the_schema_has_no_other_groups() -> None:
    """Definitions are exactly the groups of settings."""
    assert {s.__name__ for s in groups(Settings)} == {*json_schema()["$defs"], "Settings"}


def test_what_the_environment_fills_in_is_not_required() -> None:
    """A file without URLs is valid; a credential without client id is not."""
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "required" not in schema
    assert "required" not in schema["$defs"]["PlatformSettings"]
    assert schema["$defs"]["CredentialSettings"]["required"] == ["client_id"]


def test_sizes_are_numbers_or_texts_with_a_unit() -> None:
    """Editors accept both ways to write a size, and the default is in bytes."""
    size = json_schema()["$defs"]["LimitsSettings"]["properties"]["max_body_bytes"]
    assert size["type"] == ["integer", "string"]
    assert "MiB" in size["pattern"]
    assert size["default"] == 64 * 1024 * 1024


def test_closed_lists_and_defaults_are_given_as_the_file_writes_them() -> None:
    """Enumerations are listed; an address is a text."""
    schema = json_schema()
    assert schema["properties"]["environment"]["enum"][0] == "dhp-playground"
    assert schema["properties"]["environment"]["default"] == "custom"
    address = schema["$defs"]["ListenSettings"]["properties"]["address"]
    assert (address["type"], address["default"]) == ("string", "127.0.0.1:8080")


def table_of_settings(language: str) -> dict[str, list[str]]:
    """The cells behind each key of the page, by the key's whole name."""
    rows: dict[str, list[str]] = {}
    for section in settings_page.markdown(language).split("\n## ")[1:]:
        named = re.match("`(.+)`", section)
        for key, *cells in re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE):
            rows[f"{named[1]}.{key}" if named else key] = cells[0].split(" | ")
    return rows


def test_every_setting_has_its_meaning_in_russian() -> None:
    """The Russian page has a Russian meaning of each key, with the same code in it."""
    english, russian = table_of_settings("en"), table_of_settings("ru")
    assert set(russian) == set(english)
    code = re.compile("`[^`]+`")
    for key, cells in english.items():
        assert set(code.findall(cells[-1])) == set(code.findall(russian[key][-1])), key
        assert re.search("[а-я]{3}", russian[key][-1]), key


def test_only_words_differ_between_the_pages_of_settings() -> None:
    """No English word is left in types and defaults; names and defaults are the same."""
    for key, cells in table_of_settings("ru").items():
        prose = re.sub("`[^`]+`", "", " ".join(cells[:-1]))
        assert set(re.findall("[a-z]{2,}", prose)) <= {"null", "true", "false"}, key
        english = table_of_settings("en")[key]
        code = [re.findall("`[^`]+`", each[1]) for each in (cells, english)]
        assert code[0] == code[1], key


def test_the_page_names_every_key() -> None:
    """Each key outside of lists has a row."""
    keys = {".".join(map(str, path)) for path, _ in settings_schema.value_paths()}
    assert {key.replace("*", "<name>") for key in keys} <= set(table_of_settings("en"))


def test_variables_are_named_as_the_page_says() -> None:
    """Its examples are the variables of their keys."""
    examples = re.findall(r"`(DHP_GATEWAY_\w+)` for\s+`([a-z_.]+)`", settings_page.markdown())
    assert len(examples) == 3
    for variable, key in examples:
        assert variable == variable_name(tuple(key.split(".")))
