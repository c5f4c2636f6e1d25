"""Permissions of a caller: lists of interactions, resource types and operations.

What is not listed is denied, and so is what cannot be classified. For a caller without restrictions
a check costs only set lookups.

A Bundle of a caller with restrictions is read as a whole before any of it is sent, and each of its
requests is checked like a request of its own.

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
from gateway.fhir.bundle_requests import BundleRequest, read_bundle, read_request
from gateway.fhir.document_tree import BodyParseError, BodyTooLargeError, Node
from gateway.fhir.interaction import BUNDLES, Interaction, classify
from gateway.fhir.search_parameters import is_limited_to_types, overrides_request
from gateway.http.content_coding import decode_body, decode_prefix, parse_content_encoding
from gateway.http.request_target import RequestTarget, resolve_target

if TYPE_CHECKING:
    from gateway.fhir.links.link_map import LinkMap
    from gateway.http.client.upstream_response import UpstreamResponse
    from gateway.http.headers import RequestHeader
    from gateway.pipeline.body_worker import SerialExecutor

MAX_BUNDLE_BYTES: Final = 16 * 1024 * 1024
"""A Bundle of a caller with restrictions has at most this many bytes, compressed and opened."""

_RETRY_AFTER: Final = 5.0
# Status URLs remembered for each caller; polling one makes it the most recent.
_MAX_STATUS_URLS: Final = 256
# Interactions that FHIR defines at a path need their own permission, whatever URL a platform gives.
_STATUS_URL_INTERACTIONS: Final = frozenset(("async-status", "async-cancel", "operation", "other"))


class PermissionCheck:
    """Checks requests by their caller's permissions; remembers status URLs by the caller's name.

    Large Bundles are read by the `serial_executor`.
    """

    def __init__(self, *, serial_executor: SerialExecutor) -> None:
        self._serial_executor = serial_executor
        self._status_urls: defaultdict[str, LRUCache[str, bool]] = defaultdict(
            lambda: LRUCache(_MAX_STATUS_URLS)
        )

    def require(
        self,
        permissions: Permissions,
        method: str,
        interaction: Interaction,
        target: RequestTarget,
        header: RequestHeader,
        *,
        caller: str,
    ) -> None:
        """Raise `GatewayError` caller-forbidden for a request that its caller may not send.

        `caller` is its name. A Bundle's interaction is known only from its body, so that it is not
        checked here.
        """
        if not permissions.is_restricted:
            return
        query = target.query
        if self._is_known_status_url(caller, method, interaction, target):
            query = ""
        elif interaction.code != "transaction":
            permissions.require(interaction, target.path.rstrip("?"))
        permissions.require_fields(interaction, query, header)

    async def check_bundle(
        self,
        body: bytes,
        header: RequestHeader,
        permissions: Permissions,
        *,
        caller: str,
        links: LinkMap | None,
    ) -> tuple[str, GatewayError | None]:
        """Return the interaction code of a Bundle, and the error if it is not permitted.

        `body` is what the platform gets, `caller` a name. Raises `GatewayError` overloaded.
        """
        coding = parse_content_encoding(header.text(b"content-encoding"))
        content_type = header.text(b"content-type") or ""
        try:
            return await self._serial_executor.run(
                len(body) if coding is None else None,
                caller,
                lambda: _check_bundle(body, coding, content_type, permissions, links),
            )
        except TimeoutError:
            raise bundle_overload() from None

    def remember_status_url(
        self, response: UpstreamResponse, *, caller: str, links: LinkMap | None
    ) -> None:
        """Remember the status URL that the platform gives to a caller with restrictions."""
        if response.status != 202 or links is None:
            return
        location = response.field(b"content-location")
        suffix = None if location is None else links.suffix(location)
        if suffix is not None:
            self._status_urls[caller][suffix] = True

    def _is_known_status_url(
        self, caller: str, method: str, interaction: Interaction, target: RequestTarget
    ) -> bool:
        if interaction.code not in _STATUS_URL_INTERACTIONS or method not in (
            "GET",
            "HEAD",
            "DELETE",
        ):
            return False
        return self._status_urls[caller].get(target.suffix, False)


_WILDCARD: Final = frozenset(("*",))
# Interactions about the server itself, and those whose requests are checked one by one: they are
# allowed whatever the resource types are.
_OF_NO_RESOURCE: Final = BUNDLES | {"capabilities"}
_WRITES: Final = frozenset(("create", "update", "patch"))
# Resources in a Bundle that are the format of a request, not what it is about (FHIR R5 http.html,
# sections 3.2.0.6.1 and 3.2.0.13.3).
_FORMATS: Final = {
    "patch": frozenset(("Binary", "Parameters")),
    "operation": frozenset(("Parameters",)),
}
# A Bundle in a Bundle would hide requests; the other is not for the platform.
_NOT_IN_BUNDLES: Final = frozenset(("transaction", "smart-configuration"))
# What can stand in a request line (RFC 9112 section 3).
_REQUEST_TARGET: Final = re.compile(r"/(?!/)[!-~]*").fullmatch
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

    def require(self, interaction: Interaction, path: str = "") -> None:
        """Raise `GatewayError` caller-forbidden if the interaction is not permitted.

        `path` is the raw path below the FHIR base. A request about resources of any type (a search
        over the whole system) is denied to a caller that is limited to some types, and one that is
        not recognized to a caller that is limited to some operations. The requests of a Bundle are
        not checked here.
        """
        if "*" not in self.interactions and interaction.code not in self.interactions:
            raise _forbidden("interaction")
        if "*" not in self.resources:
            self._require_type(interaction, path)
        if "*" not in self.operations:
            called = interaction.code == "operation" and _operation(path) not in self.operations
            if called or interaction.code == "other":
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
        values = header.values
        condition = values.get(b"if-none-exist")
        self._require_search(
            interaction, query, None if condition is None else condition.decode("ascii", "replace")
        )
        if b"x-provenance" in values and not (
            _allows(self.interactions, "create") and _allows(self.resources, "Provenance")
        ):
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

    def require_entry(
        self, interaction: Interaction, target: RequestTarget, request: BundleRequest
    ) -> None:
        """Raise `GatewayError` caller-forbidden if a request in a Bundle is not permitted."""
        if interaction.code in _NOT_IN_BUNDLES:
            raise _forbidden("not in a Bundle")
        path = target.path.rstrip("?")
        self.require(interaction, path)
        self._require_search(interaction, target.query, request.if_none_exist)
        kind = request.resource_type
        if kind is None or kind in _FORMATS.get(interaction.code, ()):
            return
        # The form of a search by POST cannot be told from its resource.
        is_form = interaction.is_search and request.method == "POST"
        if is_form or (interaction.code in _WRITES and kind != _resource_type_of(path)):
            raise _forbidden("resource")
        if not _allows(self.resources, kind):
            raise _forbidden("resource type")

    def _require_search(self, interaction: Interaction, query: str, condition: str | None) -> None:
        """Check the query, and the condition of a conditional create, which is a search.

        See R5 http.html, section 3.2.0.8.1.
        """
        if query:
            self._require_parameters(query, checks_types=interaction.code != "operation")
        if condition is None:
            return
        text = condition.strip()
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


def bundle_overload() -> GatewayError:
    """Return the error for a Bundle that cannot be read while so many others are."""
    return GatewayError(errors.OVERLOADED, "Bundles", retry_after=_RETRY_AFTER)


def _check_bundle(
    body: bytes,
    coding: str | None,
    content_type: str,
    permissions: Permissions,
    links: LinkMap | None,
) -> tuple[str, GatewayError | None]:
    if coding not in (None, "gzip"):
        return "other", _forbidden("Bundle: Content-Encoding", "bundle")
    try:
        code, entries = read_bundle(_content(body, coding), content_type)
        if code not in BUNDLES:
            raise BodyParseError("type")
    except BodyTooLargeError:
        detail = "a Bundle of a caller with limits: too much to be checked"
        return "other", GatewayError(
            errors.PAYLOAD_TOO_LARGE, detail, hint=detail, advice_key="bundle-size"
        )
    except BodyParseError as error:
        return "other", _forbidden(f"Bundle: {error}", "bundle")
    try:
        permissions.require(Interaction(code))
    except GatewayError as error:
        return code, error
    return code, _check_entries(entries, permissions, links)


def _content(body: bytes, coding: str | None) -> bytes:
    """Return the content of a body, b"" for one in broken gzip. Raises `BodyTooLargeError`."""
    plain = body if coding is None else decode_body(body, coding, MAX_BUNDLE_BYTES)
    if not plain and len(decode_prefix(body, coding, MAX_BUNDLE_BYTES + 1)) > MAX_BUNDLE_BYTES:
        raise BodyTooLargeError
    return plain


def _check_entries(
    entries: list[Node], permissions: Permissions, links: LinkMap | None
) -> GatewayError | None:
    for number, entry in enumerate(entries, 1):
        place = f"entry {number}"
        try:
            request = read_request(entry)
            target = _entry_target(request.url, links)
            interaction = classify(request.method, target.path.rstrip("?"))
            place = f"{place}: {interaction.code} {interaction.resource}".rstrip()
            permissions.require_entry(interaction, target, request)
        except BodyParseError as error:
            return _forbidden(f"{place}: {error}", "bundle")
        except GatewayError as error:
            return _forbidden(f"{place}: {error.hint}", "bundle")
    return None


def _entry_target(url: str, links: LinkMap | None) -> RequestTarget:
    """Return the target of a URL that is relative to the FHIR base or below the platform's.

    Raises `GatewayError` for any other.
    """
    suffix = None if links is None else links.suffix(url)
    target = "/" + (url if suffix is None else suffix).removeprefix("/")
    if _REQUEST_TARGET(target) is None:
        raise _forbidden("url")
    return resolve_target(target, "")


def _forbidden(hint: str, advice: str = "") -> GatewayError:
    return GatewayError(errors.CALLER_FORBIDDEN, hint, hint=hint, advice_key=advice)


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
