"""What a caller may do: interactions, resource types and operations, each by a list.

Whatever is not named is refused, and so is what cannot be judged. A caller without limits passes
with a look at the lists.
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
# About the server itself, not about any resource: allowed whatever the resource types are.
_OF_NO_RESOURCE: Final = frozenset(("capabilities",))
# They may hold any operation, or be one that the gateway does not recognise.
_OF_ANY_OPERATION: Final = BUNDLES | {"other"}
_WRITES: Final = frozenset(("create", "update", "patch"))
# One media type, in a charset that contains ASCII: another reader finds the same parameters.
_FORM: Final = re.compile(
    rb"application/x-www-form-urlencoded\s*"
    rb"(?:;\s*charset\s*=\s*(?:utf-?8|us-ascii|\"utf-?8\"|\"us-ascii\")\s*)?",
    re.IGNORECASE,
).fullmatch


@dataclass(frozen=True, slots=True)
class Permissions:
    """Which interactions, types and operations (without `$`) are allowed; `*` stands for all."""

    interactions: frozenset[str] = _WILDCARD
    resources: frozenset[str] = _WILDCARD
    operations: frozenset[str] = _WILDCARD

    @property
    def is_restricted(self) -> bool:
        """Whether anything is forbidden."""
        return not ("*" in self.interactions and "*" in self.resources and "*" in self.operations)

    @property
    def distinguishes_bundle_types(self) -> bool:
        """Whether the caller may send batches or transactions, but not both."""
        return "*" not in self.interactions and len(self.interactions & BUNDLES) == 1

    def require(self, interaction: Interaction, path: str = "") -> None:
        """Raises `GatewayError` caller-forbidden. `path` is the raw path below the FHIR base.

        A request about resources of any type (a transaction, a search over the whole system) is
        forbidden to a caller that is limited to some types. What may hold any operation is
        forbidden to one that is limited to some operations.
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
        # The type of a compartment is one that the answer tells about.
        of_others = bool(path) and _resource_type_of(path) not in self.resources
        if interaction.code == "other" or interaction.resource not in self.resources or of_others:
            raise _forbidden("resource type")

    def require_fields(self, interaction: Interaction, query: str, header: RequestHeader) -> None:
        """Raises `GatewayError` caller-forbidden for what query and header ask beyond the path."""
        if not self.is_restricted:
            return
        if query:
            self._require_parameters(query, judged=interaction.code != "operation")
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
        """Raises `GatewayError` caller-forbidden for what the body of a search asks.

        `form` is None where it is not at hand.
        """
        if not self.is_restricted or form == b"":
            return
        plain = _FORM(header.values.get(b"content-type", b"").strip()) is not None
        if form is None or not plain or b"content-encoding" in header.values:
            raise _forbidden("form")
        self._require_parameters(form.decode("ascii", "replace"))

    def _may_create(self, resource: str) -> bool:
        return _allows(self.interactions, "create") and _allows(self.resources, resource)

    def _require_condition(self, condition: bytes) -> None:
        """A conditional create searches (R5 http.html, section 3.2.0.8.1)."""
        text = condition.decode("ascii", "replace").strip()
        # Several fields, of which a server takes one, are joined with a blank.
        if " " in text or "\t" in text:
            raise _forbidden("If-None-Exist")
        self._require_parameters(text.removeprefix("?"))

    def _require_parameters(self, parameters: str, *, judged: bool = True) -> None:
        """Those of an operation are its own business: it was allowed by its name."""
        judged = judged and "*" not in self.resources
        if overrides_request(parameters) or (
            judged and not is_limited_to_types(parameters, self.resources)
        ):
            raise _forbidden("search parameter")


ALLOW_ALL: Final = Permissions()


def _forbidden(hint: str) -> GatewayError:
    return GatewayError(errors.CALLER_FORBIDDEN, hint, hint=hint)


def _allows(allowed: frozenset[str], wanted: str) -> bool:
    return "*" in allowed or wanted in allowed


def _operation(path: str) -> str:
    """The operation at the end of a path, without `$`."""
    return unquote(path.rstrip("/").rpartition("/")[2]).removeprefix("$")


def _resource_type_of(path: str) -> str:
    return unquote(path[1:].partition("/")[0])


def _may_parse_as_form(interaction: Interaction, content_type: bytes | None) -> bool:
    """Whether what should be a resource could be read as a search."""
    if content_type is None or interaction.code not in _WRITES or interaction.resource == "Binary":
        return False
    return b"form" in content_type.lower()
