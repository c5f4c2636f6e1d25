"""The platform's operations by type and name, their input parameters and their results.

Parameters and results follow FHIR R5 operations 3.2.1.3. Among the operations are those on roles of
practitioners, and those on CodeSystem, ValueSet and ConceptMap (FHIR R5 terminology service 4.7).
Each terminology operation takes the resource that was addressed by its id, if any, and the
parameters.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from gateway.sandbox.fhir.errors import FhirError, Issue, fhir_error, operation_outcome
from gateway.sandbox.fhir.interactions import Interactions, require_uuid
from gateway.sandbox.fhir.json_codec import JsonObject
from gateway.sandbox.fhir.resource_store import ResourceStore, instant
from gateway.sandbox.fhir.search import fold
from gateway.sandbox.fhir.value_sets import Canonicals, Codes, Concept, concepts_of


@dataclass(frozen=True, slots=True)
class Coding:
    """A code of a system as the caller sent it. Members that were not sent are None."""

    system: str | None = None
    code: str | None = None
    version: str | None = None
    display: str | None = None


@dataclass(frozen=True, slots=True)
class OperationParameters:
    """The parameters of one call, from the query and from a Parameters resource.

    `accepted` are the languages of the request's Accept-Language field, in its order.
    """

    pairs: Sequence[tuple[str, Any]]
    accepted: tuple[str, ...] = ()

    def with_body(self, document: JsonObject) -> OperationParameters:
        """Return these parameters and those of a Parameters resource. Raises FhirError 400."""
        if document.get("resourceType") != "Parameters":
            raise fhir_error(400, "structure", "Parameters are needed", "resourceType")
        elements = document.get("parameter", [])
        if not isinstance(elements, list) or not all(
            isinstance(element, dict) for element in elements
        ):
            raise fhir_error(400, "structure", "an array of objects is needed", "parameter")
        found = [
            (str(element.get("name")), value)
            for element in elements
            for key, value in element.items()
            if key.startswith("value")
        ]
        return replace(self, pairs=[*self.pairs, *found])

    def get(self, name: str) -> Any:
        """Return the first value of that name; None if there is none."""
        return next((value for key, value in self.pairs if key == name), None)

    def text(self, *names: str) -> str | None:
        """Return the first of these parameters that has a value.

        An empty text counts as no value.
        """
        found = (self.get(name) for name in names)
        return next((str(value) for value in found if value not in (None, "")), None)

    def required(self, *names: str) -> str:
        """Return the same as `text`. Raises FhirError 400 if there is none."""
        value = self.text(*names)
        if value is None:
            raise _missing_parameter_error(names[0])
        return value

    def non_negative_integer(self, name: str) -> int | None:
        """Return a whole number from 0; None if it was not sent. Raises FhirError 400."""
        value = self.text(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdigit() and len(value) <= 9):
            raise fhir_error(400, "value", f"{name} takes a whole number from 0")
        return int(value)

    def coding(self, name: str, codes: tuple[str, ...]) -> Coding:
        """Return a code sent as the Coding `name`, or as single parameters named in `codes`."""
        value = self.get(name)
        if isinstance(value, dict):
            return _coding_of(value)
        return Coding(
            self.text("system"), self.text(*codes), self.text("version"), self.text("display")
        )

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages in which displays are requested, best first."""
        wanted = self.text("displayLanguage")
        return (wanted.partition("-")[0].lower(),) if wanted else self.accepted


def _coding_of(element: JsonObject) -> Coding:
    """Return the Coding of a Coding element in a resource."""
    parts = (element.get(name) for name in ("system", "code", "version", "display"))
    return Coding(*(part if isinstance(part, str) else None for part in parts))


def _missing_parameter_error(name: str) -> FhirError:
    """Return the error for a missing mandatory parameter."""
    return fhir_error(400, "required", f"the parameter {name} is missing", f"Parameters.{name}")


def parameters(*values: tuple[str, str, Any]) -> JsonObject:
    """Return a Parameters resource of (name, type, value).

    Parameters without a value are omitted.
    """
    listed = [
        {"name": name, f"value{kind}": value} for name, kind, value in values if value is not None
    ]
    return {"resourceType": "Parameters", "parameter": listed}


def _part_parameter(name: str, *values: tuple[str, str, Any]) -> JsonObject:
    """Return one parameter with parts, which are passed like those of `parameters`."""
    return {"name": name, "part": parameters(*values)["parameter"]}


# Larger expansions must be requested in pages.
_MAX_EXPANSION: Final = 1000

_INVERSE: Final = {
    "source-is-narrower-than-target": "source-is-broader-than-target",
    "source-is-broader-than-target": "source-is-narrower-than-target",
}


@dataclass(frozen=True, slots=True)
class Terminology:
    """A small terminology service for the resources of a store; `base` is the URL in links."""

    canonicals: Canonicals
    base: str
    now: Callable[[], datetime]

    def lookup(self, code_system: JsonObject | None, arguments: OperationParameters) -> JsonObject:
        """Return the details of a code; 404 if there is no such code."""
        coding = arguments.coding("coding", ("code",))
        system = code_system or self._system(coding)
        concept = _concept(system, coding)
        answer = parameters(
            ("name", "String", system.get("name") or system.get("title")),
            ("version", "String", system.get("version")),
            ("display", "String", concept.display(arguments.languages)),
            ("definition", "String", concept.definition.get("definition")),
        )
        answer["parameter"] += [*_designations(concept), *_properties(system, concept)]
        return answer

    def validate_in_code_system(
        self, code_system: JsonObject | None, arguments: OperationParameters
    ) -> JsonObject:
        """Return whether a code belongs to a code system."""
        coding = arguments.coding("coding", ("code",))
        url = coding.system or arguments.text("url")
        if coding.code is None:
            raise _missing_parameter_error("code")
        system = code_system or self._system(Coding(url, version=coding.version))
        codes = {
            (concept.system, concept.code): concept for concept in concepts_of(system).values()
        }
        return _validation_result(
            codes, [Coding(system["url"], coding.code, None, coding.display)], arguments
        )

    def validate_in_value_set(
        self, value_set: JsonObject | None, arguments: OperationParameters
    ) -> JsonObject:
        """Return whether a code belongs to a value set."""
        codings = _codings(arguments)
        codes = self.canonicals.codes(value_set or self._value_set(arguments))
        return _validation_result(codes, codings, arguments)

    def subsumes(
        self, code_system: JsonObject | None, arguments: OperationParameters
    ) -> JsonObject:
        """Return the relation of two codes of one system; 404 if one does not exist."""
        first, second = (
            arguments.coding("codingA", ("codeA",)),
            arguments.coding("codingB", ("codeB",)),
        )
        if first.system != second.system:
            raise fhir_error(400, "invalid", "both codes must be of one system")
        system = code_system or self._system(first)
        a, b = _concept(system, first), _concept(system, second)
        outcome = "not-subsumed"
        if a.code == b.code:
            outcome = "equivalent"
        elif a.code in b.ancestors:
            outcome = "subsumes"
        elif b.code in a.ancestors:
            outcome = "subsumed-by"
        return parameters(("outcome", "Code", outcome))

    def expand(self, value_set: JsonObject | None, arguments: OperationParameters) -> JsonObject:
        """Return a page of a value set's codes; 422 `too-costly` for too many at once."""
        known = value_set or self._value_set(arguments)
        filter_text = fold(arguments.text("filter") or "")
        found = [
            concept
            for concept in self.canonicals.codes(known).values()
            if any(filter_text in fold(name) for name in (concept.code, *concept.names()))
        ]
        offset, count = (
            arguments.non_negative_integer("offset") or 0,
            arguments.non_negative_integer("count"),
        )
        if count is None and len(found) - offset > _MAX_EXPANSION:
            text = f"more than {_MAX_EXPANSION} codes: ask with count and offset"
            raise fhir_error(422, "too-costly", text)
        end = len(found) if count is None else offset + count
        expansion: JsonObject = {
            "identifier": f"urn:uuid:{uuid.uuid4()}",
            "timestamp": instant(self.now()),
            "total": len(found),
            "offset": offset,
        }
        if count and end < len(found):
            expansion["next"] = self._page(value_set, arguments, end)
        if contains := [_contained(concept, arguments) for concept in found[offset:end]]:
            expansion["contains"] = contains
        return {name: known[name] for name in known if name != "compose"} | {"expansion": expansion}

    def translate(
        self, concept_map: JsonObject | None, arguments: OperationParameters
    ) -> JsonObject:
        """Return the translations of a code, or with `targetCode` the codes translated to it."""
        maps = self._maps(concept_map, arguments)
        backwards = (
            arguments.text("targetCode") is not None or arguments.get("targetCoding") is not None
        )
        coding = (
            arguments.coding("targetCoding", ("targetCode",))
            if backwards
            else _first_coding(arguments, "sourceCodeableConcept")
            or arguments.coding("sourceCoding", ("sourceCode", "code"))
        )
        if coding.code is None:
            raise _missing_parameter_error("sourceCode")
        matches = [
            _part_parameter(
                "match",
                ("relationship", "Code", relationship),
                ("concept", "Coding", concept),
                ("originMap", "Uri", candidate.get("url")),
            )
            for candidate in maps
            for relationship, concept in _translations(candidate, coding, backwards, arguments)
        ]
        answer = parameters(
            ("result", "Boolean", bool(matches)),
            ("message", "String", None if matches else "no translation of this code is known"),
        )
        answer["parameter"] += matches
        return answer

    def _system(self, coding: Coding) -> JsonObject:
        if coding.system is None:
            raise _missing_parameter_error("system")
        return self.canonicals.find("CodeSystem", coding.system, coding.version)

    def _value_set(self, arguments: OperationParameters) -> JsonObject:
        version = arguments.text("valueSetVersion")
        return self.canonicals.find("ValueSet", arguments.required("url"), version)

    def _maps(
        self, concept_map: JsonObject | None, arguments: OperationParameters
    ) -> list[JsonObject]:
        if concept_map is not None:
            return [concept_map]
        url = arguments.text("url", "conceptMap")
        if url is None:
            return self.canonicals.all("ConceptMap")
        return [self.canonicals.find("ConceptMap", url, arguments.text("conceptMapVersion"))]

    def _page(
        self, value_set: JsonObject | None, arguments: OperationParameters, offset: int
    ) -> str:
        """Return the link to the codes from `offset` on."""
        pairs = [(key, str(value)) for key, value in arguments.pairs if key != "offset"]
        path = f"ValueSet/{value_set['id']}" if value_set else "ValueSet"
        return f"{self.base}/{path}/$expand?{urlencode([*pairs, ('offset', str(offset))])}"


def _concept(system: JsonObject, coding: Coding) -> Concept:
    if coding.code is None:
        raise _missing_parameter_error("code")
    concept = concepts_of(system).get(coding.code)
    if concept is None:
        text = f"{system.get('url')} has no code {coding.code} here"
        raise fhir_error(404, "not-found", text)
    return concept


def _first_coding(arguments: OperationParameters, name: str) -> Coding | None:
    concept = arguments.get(name)
    codings = concept.get("coding", []) if isinstance(concept, dict) else []
    return next(map(_coding_of, codings), None)


def _codings(arguments: OperationParameters) -> list[Coding]:
    """Return the codings to validate. Raises FhirError 400."""
    concept = arguments.get("codeableConcept")
    if isinstance(concept, dict) and concept.get("coding"):
        return [_coding_of(element) for element in concept["coding"]]
    coding = arguments.coding("coding", ("code",))
    if coding.code is None:
        raise _missing_parameter_error("code")
    if coding.system is None and arguments.text("inferSystem") != "true":
        raise _missing_parameter_error("system")
    return [coding]


def _validation_result(
    codes: Codes, codings: list[Coding], arguments: OperationParameters
) -> JsonObject:
    """Return whether one of the codings is one of the codes, with a display of that code."""
    for coding in codings:
        for concept in codes.values():
            if concept.code != coding.code or coding.system not in (None, concept.system):
                continue
            named = coding.display is None or fold(coding.display) in map(fold, concept.names())
            return parameters(
                ("result", "Boolean", named),
                ("message", "String", None if named else "the display is not that of the code"),
                ("code", "Code", concept.code),
                ("system", "Uri", concept.system),
                ("display", "String", concept.display(arguments.languages)),
            )
    first = codings[0]
    return parameters(
        ("result", "Boolean", False),
        ("message", "String", f"the code {first.code} of {first.system} is not in it"),
        ("code", "Code", first.code),
        ("system", "Uri", first.system),
    )


def _designations(concept: Concept) -> Iterator[JsonObject]:
    for designation in concept.definition.get("designation", []):
        yield _part_parameter(
            "designation",
            ("language", "Code", designation.get("language")),
            ("value", "String", designation.get("value")),
        )


def _properties(system: JsonObject, concept: Concept) -> Iterator[JsonObject]:
    for parent in concept.ancestors[:1]:
        yield _part_parameter("property", ("code", "Code", "parent"), ("value", "Code", parent))
    for code, other in concepts_of(system).items():
        if concept.code in other.ancestors[:1]:
            yield _part_parameter("property", ("code", "Code", "child"), ("value", "Code", code))


def _contained(concept: Concept, arguments: OperationParameters) -> JsonObject:
    contained: JsonObject = {"system": concept.system, "code": concept.code}
    display = concept.display(arguments.languages)
    if display is not None:
        contained["display"] = display
    if arguments.text("includeDesignations") in ("true", "True"):
        contained |= {k: v for k, v in concept.definition.items() if k == "designation"}
    return contained


def _translations(
    concept_map: JsonObject, coding: Coding, backwards: bool, arguments: OperationParameters
) -> Iterator[tuple[str, JsonObject]]:
    """Yield relationship and translated code for each occurrence of the code in a map."""
    target_system = None if backwards else arguments.text("targetSystem", "targetsystem")
    for group in concept_map.get("group", []):
        from_system, to_system = group.get("source"), group.get("target")
        if backwards:
            from_system, to_system = to_system, from_system
        if coding.system not in (None, from_system) or target_system not in (None, to_system):
            continue
        for element in group.get("element", []):
            for target in element.get("target", []):
                relationship = str(target.get("relationship"))
                found, other = (target, element) if backwards else (element, target)
                if found.get("code") != coding.code or relationship == "not-related-to":
                    continue
                if backwards:
                    relationship = _INVERSE.get(relationship, relationship)
                concept = {
                    "system": to_system,
                    "code": other.get("code"),
                    "display": other.get("display"),
                }
                yield relationship, {key: value for key, value in concept.items() if value}


class Operations:
    """Performs operations on the resources of a store. They change nothing."""

    def __init__(self, store: ResourceStore, interactions: Interactions) -> None:
        self._store = store
        self._interactions = interactions
        terminology = Terminology(Canonicals(store), interactions.base, store.now)
        self._terminology = {
            ("CodeSystem", "lookup"): terminology.lookup,
            ("CodeSystem", "subsumes"): terminology.subsumes,
            ("CodeSystem", "validate-code"): terminology.validate_in_code_system,
            ("ValueSet", "expand"): terminology.expand,
            ("ValueSet", "validate-code"): terminology.validate_in_value_set,
            ("ConceptMap", "translate"): terminology.translate,
        }
        # From the guide of August 2026. The element of PractitionerRole that refers to the
        # resource, and the element whose targets are the result ("": the roles themselves).
        self._role_operations = {
            ("Organization", "practitioners"): ("organization", "practitioner"),
            ("Practitioner", "organizations"): ("practitioner", "organization"),
            ("Practitioner", "specializations"): ("practitioner", ""),
        }

    def perform(
        self, type_: str, id_: str | None, name: str, arguments: OperationParameters
    ) -> JsonObject:
        """Return the result of an operation on a type or on one resource. Raises FhirError."""
        if (type_, name) in self._terminology:
            resource = None if id_ is None else self._interactions.read(type_, id_).resource
            return self._terminology[type_, name](resource, arguments)
        if (type_, name) in self._role_operations and id_ is not None:
            require_uuid(type_, id_)
            return self._role_targets(f"{type_}/{id_}", *self._role_operations[type_, name])
        raise fhir_error(404, "not-supported", f"{type_} has no operation ${name} here")

    def _role_targets(
        self, reference: str, referring_element: str, target_element: str
    ) -> JsonObject:
        """Return a Bundle of what the roles of a resource refer to.

        An empty result is a Bundle with an OperationOutcome, also with status 200.
        """
        entries = [
            {
                "fullUrl": f"{self._interactions.base}/{resource['resourceType']}/{resource['id']}",
                "resource": resource,
                "search": {"mode": "match"},
            }
            for resource in self._roles(reference, referring_element, target_element)
        ]
        nothing = operation_outcome(Issue("not-found", "there is nothing of that kind"))
        return {
            "resourceType": "Bundle",
            "id": str(uuid.uuid4()),
            "type": "searchset",
            "total": len(entries),
            "entry": entries or [{"resource": nothing, "search": {"mode": "outcome"}}],
        }

    def _roles(
        self, reference: str, referring_element: str, target_element: str
    ) -> Iterator[JsonObject]:
        """Yield each target once; the roles themselves if `target_element` is empty."""
        seen = set()
        for version in self._store.searchable("PractitionerRole"):
            role = version.resource or {}
            if self._target(role, referring_element) != reference:
                continue
            target = (
                self._target(role, target_element)
                if target_element
                else f"PractitionerRole/{version.id}"
            )
            type_, _, id_ = target.partition("/")
            current = self._store.current(type_, id_)
            if target not in seen and current is not None and current.resource is not None:
                seen.add(target)
                yield current.resource

    def _target(self, role: JsonObject, name: str) -> str:
        reference = str(role.get(name, {}).get("reference", ""))
        return reference.removeprefix(f"{self._interactions.base}/")
