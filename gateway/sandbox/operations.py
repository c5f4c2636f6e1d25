"""The platform's operations by type and name, including those on roles of practitioners."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

from gateway.sandbox.arguments import OperationParameters
from gateway.sandbox.canonicals import Canonicals
from gateway.sandbox.codec import JsonObject
from gateway.sandbox.interactions import Interactions, require_uuid
from gateway.sandbox.outcomes import Issue, fhir_error, operation_outcome
from gateway.sandbox.store import ResourceStore
from gateway.sandbox.terminology import Terminology

Perform = Callable[[JsonObject | None, OperationParameters], JsonObject]


class Operations:
    """Performs operations on the resources of a store. They change nothing."""

    def __init__(self, store: ResourceStore, interactions: Interactions) -> None:
        self._store = store
        self._interactions = interactions
        terminology = Terminology(Canonicals(store), interactions.base, store.now)
        self._terminology: dict[tuple[str, str], Perform] = {
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
