"""Expansion of value sets to codes (FHIR R5 ValueSet 4.9.8).

`Canonicals` finds resources that are identified by a canonical URL; `concepts_of` returns the
concepts of code systems. The terminology operations use this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from gateway.sandbox.fhir.errors import FhirError, fhir_error
from gateway.sandbox.fhir.json_codec import JsonObject
from gateway.sandbox.fhir.resource_store import ResourceStore


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


Codes = dict[tuple[str, str], Concept]

_MAX_DEPTH: Final = 10


@dataclass(frozen=True, slots=True)
class Canonicals:
    """Finds canonical resources in a store, and expands value sets with its code systems."""

    store: ResourceStore

    def all(self, type_: str) -> list[JsonObject]:
        """Return all current resources of a type."""
        return [
            version.resource for version in self.store.current_resources(type_) if version.resource
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

    def codes(self, value_set: JsonObject, depth: int = 0) -> Codes:
        """Return the concepts of a value set by system and code, in order. Raises FhirError 422."""
        if depth > _MAX_DEPTH:
            raise _cannot("value sets include each other in a circle")
        compose = value_set.get("compose", {})
        found: Codes = {}
        for part in compose.get("include", []):
            found |= self._part(part, depth)
        for part in compose.get("exclude", []):
            for key in self._part(part, depth):
                found.pop(key, None)
        return found

    def _part(self, part: JsonObject, depth: int) -> Codes:
        """Return the codes of an include or exclude: in its selection and all its value sets."""
        sets = [
            self.codes(self.find("ValueSet", canonical), depth + 1)
            for canonical in part.get("valueSet", [])
        ]
        if "system" in part:
            sets.insert(0, self._selection(part))
        if not sets:
            return {}
        first, *others = sets
        return {
            key: concept for key, concept in first.items() if all(key in more for more in others)
        }

    def _selection(self, part: JsonObject) -> Codes:
        system = part["system"]
        if "concept" in part:
            return self._listed(system, part)
        try:
            concepts = self.concepts(system, part.get("version"))
        except FhirError:
            raise _cannot(f"the code system {system} is not here") from None
        tests = [_test(condition) for condition in part.get("filter", [])]
        return {
            (system, code): concept
            for code, concept in concepts.items()
            if all(test(concept) for test in tests)
        }

    def _listed(self, system: str, part: JsonObject) -> Codes:
        """Return the codes that are listed one by one.

        Their code system need not be in the store.
        """
        try:
            known = self.concepts(system, part.get("version"))
        except FhirError:
            known = {}
        found: Codes = {}
        for listed_concept in part["concept"]:
            concept = known.get(listed_concept["code"], Concept(system, listed_concept["code"], {}))
            definition = concept.definition | listed_concept
            found[system, concept.code] = Concept(
                system, concept.code, definition, concept.ancestors
            )
        return found


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


def _test(condition: JsonObject) -> Callable[[Concept], bool]:
    """Return the test of one filter of an include, by hierarchy. Raises FhirError 422."""
    op, value = condition.get("op"), condition.get("value")
    if op == "is-a":
        return lambda concept: value in (concept.code, *concept.ancestors)
    if op == "descendent-of":
        return lambda concept: value in concept.ancestors
    raise _cannot(f"the filter {op} is not known here")


def _cannot(why: str) -> FhirError:
    return fhir_error(422, "not-supported", f"the value set cannot be expanded: {why}")
