"""Resources that are identified by a canonical URL, and the concepts of code systems."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.sandbox.codec import JsonObject
from gateway.sandbox.outcomes import fhir_error
from gateway.sandbox.store import ResourceStore


@dataclass(frozen=True, slots=True)
class Concept:
    """A code with its `definition` in the resource; `ancestors` are its parents, nearest first."""

    system: str
    code: str
    definition: JsonObject
    ancestors: tuple[str, ...] = ()

    def display(self, languages: tuple[str, ...] = ()) -> str | None:
        """Return the display in the first available of these languages, else the default one."""
        for language in languages:
            for designation in self.definition.get("designation", []):
                if designation.get("language", "").partition("-")[0] == language:
                    return str(designation.get("value"))
        text = self.definition.get("display")
        return None if text is None else str(text)

    def names(self) -> list[str]:
        """Return the display and all designations."""
        designations = self.definition.get("designation", [])
        found = [
            self.definition.get("display"),
            *(designation.get("value") for designation in designations),
        ]
        return [name for name in found if isinstance(name, str)]


class Canonicals:
    """Finds canonical resources in a store."""

    def __init__(self, store: ResourceStore) -> None:
        self._store = store

    def all(self, type_: str) -> list[JsonObject]:
        """Return all current resources of a type."""
        return [
            version.resource for version in self._store.current_resources(type_) if version.resource
        ]

    def find(self, type_: str, canonical: str, version: str | None = None) -> JsonObject:
        """Return the newest resource, or that of the version in `url|version`.

        Raises FhirError 404.
        """
        url, _, suffix = canonical.partition("|")
        requested_version = version or suffix
        found = [
            resource
            for resource in self.all(type_)
            if resource.get("url") == url and requested_version in ("", resource.get("version"))
        ]
        if not found:
            raise fhir_error(404, "not-found", f"there is no {type_} {canonical} here")
        return max(found, key=_age)

    def concepts(self, system: str, version: str | None = None) -> dict[str, Concept]:
        """Return the concepts of a code system by code. Raises FhirError 404."""
        return concepts_of(self.find("CodeSystem", system, version))


def concepts_of(code_system: JsonObject) -> dict[str, Concept]:
    """Return the concepts of a CodeSystem resource by code."""
    url = str(code_system.get("url"))
    return {concept.code: concept for concept in _flat(url, code_system.get("concept", []), ())}


def _flat(system: str, concepts: list[JsonObject], above: tuple[str, ...]) -> Iterator[Concept]:
    for concept in concepts:
        code = str(concept.get("code"))
        definition = {name: value for name, value in concept.items() if name != "concept"}
        yield Concept(system, code, definition, above)
        yield from _flat(system, concept.get("concept", []), (code, *above))


def _age(resource: JsonObject) -> list[tuple[int, str]]:
    """Return the sort key of a version: 10.0.0 is newer than 9.0.0."""
    parts = str(resource.get("version", "")).split(".")
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
