"""Permissions of a caller: lists of interactions, resource types and operations.

What is not listed is denied, and so is what cannot be classified. For a caller without restrictions
a check costs only set lookups.

A caller that may start an asynchronous request (for example an export) may also poll and cancel it
at the Content-Location of the platform's 202. Servers choose that path freely, so that no list of
permissions can contain it; the status URLs that a caller was given are checked instead.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from cachetools import LRUCache

from gateway import errors
from gateway.errors import GatewayError
from gateway.fhir.interaction import BUNDLES
from gateway.fhir.search_parameters import is_limited_to_types, overrides_request

if TYPE_CHECKING:
    from gateway.fhir.interaction import Interaction
    from gateway.http.client.upstream_response import UpstreamResponse
    from gateway.http.headers import RequestHeader
    from gateway.http.request_target import RequestTarget
    from gateway.pipeline.callers import Caller
    from gateway.pipeline.request import RequestContext

# Status URLs remembered for each caller; polling one makes it the most recent.
_MAX_STATUS_URLS: Final = 256
_STATUS_URL_METHODS: Final = frozenset(("GET", "HEAD", "DELETE"))
# Interactions that FHIR defines at a path need their own permission, whatever URL a platform gives.
_STATUS_URL_INTERACTIONS: Final = frozenset(("async-status", "async-cancel", "operation", "other"))


class PermissionCheck:
    """Checks requests by their caller's permissions; remembers status URLs by the caller's name."""

    def __init__(self) -> None:
        self._status_urls: defaultdict[str, LRUCache[str, bool]] = defaultdict(
            lambda: LRUCache(_MAX_STATUS_URLS)
        )

    def require(
        self,
        caller: Caller,
        method: str,
        interaction: Interaction,
        target: RequestTarget,
        header: RequestHeader,
    ) -> None:
        """Raise `GatewayError` caller-forbidden for a request that its caller may not send.

        A Bundle's interaction is known only from its body, so that it is not checked here.
        """
        permissions = caller.permissions
        if not permissions.is_restricted:
            return
        query = target.query
        if self._is_known_status_url(caller, method, interaction, target):
            query = ""
        elif interaction.code != "transaction":
            permissions.require(interaction, target.path.rstrip("?"))
        permissions.require_fields(interaction, query, header)

    def remember_status_url(self, context: RequestContext, response: UpstreamResponse) -> None:
        """Remember the status URL that the platform gives to a caller with restrictions."""
        caller, links = context.caller, context.caller_context.link_translator.links
        if response.status != 202 or links is None or not caller.permissions.is_restricted:
            return
        location = response.field(b"content-location")
        suffix = None if location is None else links.suffix(location)
        if suffix is not None:
            self._status_urls[caller.name][suffix] = True

    def _is_known_status_url(
        self, caller: Caller, method: str, interaction: Interaction, target: RequestTarget
    ) -> bool:
        """Return whether this is a status URL that the caller was given."""
        if interaction.code not in _STATUS_URL_INTERACTIONS or method not in _STATUS_URL_METHODS:
            return False
        return self._status_urls[caller.name].get(target.suffix, False)


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
