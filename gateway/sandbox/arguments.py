"""Input parameters and results of operations (FHIR R5 operations 3.2.1.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.sandbox.codec import JsonObject
from gateway.sandbox.outcomes import FhirError, fhir_error


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
            raise missing_parameter_error(names[0])
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
            return coding_of(value)
        return Coding(
            self.text("system"), self.text(*codes), self.text("version"), self.text("display")
        )

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages in which displays are requested, best first."""
        wanted = self.text("displayLanguage")
        return (wanted.partition("-")[0].lower(),) if wanted else self.accepted


def coding_of(element: JsonObject) -> Coding:
    """Return the Coding of a Coding element in a resource."""
    parts = (element.get(name) for name in ("system", "code", "version", "display"))
    return Coding(*(part if isinstance(part, str) else None for part in parts))


def missing_parameter_error(name: str) -> FhirError:
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


def part_parameter(name: str, *values: tuple[str, str, Any]) -> JsonObject:
    """Return one parameter with parts, which are passed like those of `parameters`."""
    return {"name": name, "part": parameters(*values)["parameter"]}
