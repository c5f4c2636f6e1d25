"""Permissions of a caller: lists of interactions, resource types and operations.

What is not listed is denied, and so is what cannot be classified. For a caller without restrictions
a check costs only set lookups.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from gateway import errors
from gateway.errors import GatewayError
from gateway.fhir.interaction import BUNDLES, Interaction
from gateway.fhir.reach import is_limited_to_types, overrides_request
from gateway.http.headers import RequestHeader

_WILDCARD: Final = frozenset(("*",))
# Interactions about the server itself: they are allowed whatever the resource types are.
_OF_NO_RESOURCE: Final = frozenset(("capabilities",))
# Interactions that may contain any operation, or be one that the gateway does not recognize.
_OF_ANY_OPERATION: Final = BUNDLES | {"other"}
_WRITES: Final = frozenset(("create", "update", "patch"))
# One media type, in a charset that contains ASCII, so that every reader parses the same parameters.
_FORM: Final = re.compile(
    rb"application/x-www-form-urlencoded\s*"
    rb"(?:;\s*charset\s*=\s*(?:utf-?8|us-ascii|\"utf-?8\"|\"us-ascii\")\s*)?",
    re.IGNORECASE,
).fullmatch


@dataclass(frozen=True, slots=True)
class Permissions:
    """The interactions, types and operations (without `$`) that are allowed; `*` means all."""

    interactions: frozenset[str] = _WILDCARD
    resources: frozenset[str] = _WILDCARD
    operations: frozenset[str] = _WILDCARD

    @property
    def is_restricted(self) -> bool:
        """Whether anything is denied."""
        return not ("*" in self.interactions and "*" in self.resources and "*" in self.operations)

    @property
    def distinguishes_bundle_types(self) -> bool:
        """Whether the caller may send batches or transactions, but not both."""
        return "*" not in self.interactions and len(self.interactions & BUNDLES) == 1

    def require(self, interaction: Interaction, path: str = "") -> None:
        """Raise `GatewayError` caller-forbidden if the interaction is not permitted.

        `path` is the raw path below the FHIR base. A request about resources of any type (a
        transaction, a search over the whole system) is denied to a caller that is limited to some
        types. A request that may contain any operation is denied to a caller that is limited to
        some operations.
        """
        if "*" not in self.interactions and interaction.code not in self.interactions:
            raise _forbidden("interaction")
        if "*" not in self.resources:
            self._require_type(interaction, path)
        if "*" not in self.operations:
            called = interaction.code == "operation" and _operation(path) not in self.operations
            if called or interaction.code in _OF_ANY_OPERATION:
                raise _forbidden("operation")

    def _require_type(self, interaction: Interaction, path: str) -> None:
        if interaction.code in _OF_NO_RESOURCE:
            return
        # The response reveals something about the resource that defines a compartment, too.
        is_other_type = bool(path) and _resource_type_of(path) not in self.resources
        if (
            interaction.code == "other"
            or interaction.resource not in self.resources
            or is_other_type
        ):
            raise _forbidden("resource type")

    def require_fields(self, interaction: Interaction, query: str, header: RequestHeader) -> None:
        """Raise `GatewayError` caller-forbidden for what query and header add to the path."""
        if not self.is_restricted:
            return
        if query:
            self._require_parameters(query, checks_types=interaction.code != "operation")
        values = header.values
        condition = values.get(b"if-none-exist")
        if condition is not None:
            self._require_condition(condition)
        if b"x-provenance" in values and not self._may_create("Provenance"):
            raise _forbidden("X-Provenance")
        if "*" not in self.resources and _may_parse_as_form(
            interaction, values.get(b"content-type")
        ):
            raise _forbidden("Content-Type")

    def require_form(self, header: RequestHeader, form: bytes | None) -> None:
        """Raise `GatewayError` caller-forbidden for what the body of a search requests.

        `form` is None where the body is not buffered.
        """
        if not self.is_restricted or form == b"":
            return
        is_form = _FORM(header.values.get(b"content-type", b"").strip()) is not None
        if form is None or not is_form or b"content-encoding" in header.values:
            raise _forbidden("form")
        self._require_parameters(form.decode("ascii", "replace"))

    def _may_create(self, resource: str) -> bool:
        return _allows(self.interactions, "create") and _allows(self.resources, resource)

    def _require_condition(self, condition: bytes) -> None:
        """Check the condition of a conditional create, which is a search.

        See R5 http.html, section 3.2.0.8.1.
        """
        text = condition.decode("ascii", "replace").strip()
        # Several fields, of which a server may use only one, are joined with a space.
        if " " in text or "\t" in text:
            raise _forbidden("If-None-Exist")
        self._require_parameters(text.removeprefix("?"))

    def _require_parameters(self, parameters: str, *, checks_types: bool = True) -> None:
        """Check search parameters. Not `checks_types`: an operation, whose name is allowed."""
        checks_types = checks_types and "*" not in self.resources
        if overrides_request(parameters) or (
            checks_types and not is_limited_to_types(parameters, self.resources)
        ):
            raise _forbidden("search parameter")


ALLOW_ALL: Final = Permissions()


def _forbidden(hint: str) -> GatewayError:
    return GatewayError(errors.CALLER_FORBIDDEN, hint, hint=hint)


def _allows(allowed: frozenset[str], wanted: str) -> bool:
    return "*" in allowed or wanted in allowed


def _operation(path: str) -> str:
    """Return the operation at the end of a path, without `$`."""
    return unquote(path.rstrip("/").rpartition("/")[2]).removeprefix("$")


def _resource_type_of(path: str) -> str:
    return unquote(path[1:].partition("/")[0])


def _may_parse_as_form(interaction: Interaction, content_type: bytes | None) -> bool:
    """Return whether the body of a write could be parsed as the form of a search."""
    if content_type is None or interaction.code not in _WRITES or interaction.resource == "Binary":
        return False
    return b"form" in content_type.lower()
