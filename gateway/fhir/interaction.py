"""Classifies a request in the terms of FHIR: its interaction and its resource type.

Pure functions, called for every request. The path below the FHIR base is parsed independently of
the method. All labels come from closed sets, so that they can serve as metric labels and
permissions. Nothing is cached: paths and queries hold ids.

A path that can be interpreted in two ways (dot segments, empty segments, an encoded slash, a
backslash, matrix parameters) or has no meaning in FHIR gets the kind `unclear`. Its interaction is
`other` with the resource `other`, which a caller limited to some interactions is not permitted:
servers may answer `Patient/1/Observation/2` with an Observation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote, unquote_plus

from gateway.fhir.bundle_requests import bundle_type
from gateway.fhir.vocabulary import RESOURCE_TYPES, SEARCHES


@dataclass(slots=True)
class _PathShape:
    """A parsed path.

    `kind` is the first element of the keys of `gateway.fhir.interaction._CODES`. `resource` is an
    R5 type, `other` for an unknown one, "" for none. `resource_id` is decoded.
    """

    kind: str
    resource: str = ""
    resource_id: str | None = None


def _parse_path(path: str) -> _PathShape:
    """Return the shape of a raw path that is empty or begins with "/". Never raises."""
    plain = _PLAIN(path)
    if plain is not None:
        resource, resource_id = plain.groups()
        if resource in RESOURCE_TYPES and resource_id not in _DOTS:
            return _PathShape("type" if resource_id is None else "instance", resource, resource_id)
    if path in ("", "/"):
        return _BASE
    segments = path.split("/")
    if segments[-1] == "":
        segments.pop()
    if "%" in path:
        segments = [unquote(segment) for segment in segments]
    if segments[0] != "" or len(segments) < 2:
        return _UNCLEAR
    return _of_segments(segments[1:])


def is_type(name: str) -> bool:
    """Return whether `name` has the form of a resource type, even if R5 has no such type."""
    return _TYPE_SHAPE(name) is not None


def named_type(path: str) -> str:
    """Return the type in the raw path of a write or search, even if R5 has no such type; or ""."""
    named = unquote(path).removesuffix("?").rstrip("/").removesuffix("/_search")
    return named.rpartition("/")[2]


_DOTS: Final = frozenset({".", ".."})
# R5 datatypes.html#id.
_ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}").fullmatch
# Matches nearly all paths: a type, or one resource of a type.
_PLAIN: Final = re.compile(r"/([A-Z][A-Za-z]+)(?:/([A-Za-z0-9\-.]{1,64}))?").fullmatch
# The characters of all segments that FHIR defines. Servers differ in how they interpret others.
_SEGMENT: Final = re.compile(r"[A-Za-z0-9\-._$*]+").fullmatch
_TYPE_SHAPE: Final = re.compile(r"[A-Z][A-Za-z]{1,63}").fullmatch
# The first segments of status URLs of the asynchronous pattern: the one of this gateway, and those
# of servers in use. Any other status URL cannot be recognised by its path and is `other`.
_ASYNC_ROOTS: Final = frozenset(
    {"_outbox", "_async", "_operations", "__async-status", "async-status", "$export-poll-status"}
)
_BASE: Final = _PathShape("base")
_UNCLEAR: Final = _PathShape("unclear", "other")
_SINGLE: Final = {
    "metadata": _PathShape("metadata"),
    "_history": _PathShape("system-history"),
    "_search": _PathShape("system-search"),
}


def _of_segments(segments: list[str]) -> _PathShape:
    for segment in segments:
        if segment in _DOTS or not _SEGMENT(segment):
            return _UNCLEAR
    first = segments[0]
    resource = _type_label(first)
    if resource is None:
        return _without_type(segments)
    if len(segments) == 1:
        return _PathShape("type", resource)
    if len(segments) == 2 and _ID(segments[1]):
        return _PathShape("instance", resource, segments[1])
    return _below_type(resource, segments)


def _type_label(segment: str) -> str | None:
    if segment in RESOURCE_TYPES:
        return segment
    return "other" if is_type(segment) else None


def _without_type(segments: list[str]) -> _PathShape:
    first = segments[0]
    if first in _ASYNC_ROOTS:
        return _PathShape("async")
    if len(segments) == 1:
        if first.startswith("$"):
            return _PathShape("operation")
        return _SINGLE.get(first, _UNCLEAR)
    if segments == [".well-known", "smart-configuration"]:
        return _PathShape("smart")
    return _UNCLEAR


def _below_type(resource: str, segments: list[str]) -> _PathShape:
    """Parse T/$op, T/_search, T/_history, and all paths below T/id."""
    second = segments[1]
    if len(segments) == 2:
        if second.startswith("$"):
            return _PathShape("operation", resource)
        kind = {"_history": "type-history", "_search": "type-search"}.get(second)
        return _UNCLEAR if kind is None else _PathShape(kind, resource)
    if not _ID(second):
        return _UNCLEAR
    return _below_instance(resource, second, segments[2:])


def _below_instance(resource: str, resource_id: str, rest: list[str]) -> _PathShape:
    """Parse T/id/…: history and versions, operations, compartments."""
    if rest[-1].startswith("$") and (len(rest) == 1 or _is_version(rest[:-1])):
        return _PathShape("operation", resource, resource_id)
    if rest == ["_history"]:
        return _PathShape("instance-history", resource, resource_id)
    if _is_version(rest):
        return _PathShape("version", resource, resource_id)
    if rest[-1] == "_search" and len(rest) <= 2:
        return _compartment("type-search", rest[0] if len(rest) == 2 else "*")
    if len(rest) == 1:
        return _compartment("compartment", rest[0])
    return _UNCLEAR


def _compartment(kind: str, searched: str) -> _PathShape:
    """Return a shape with the searched type, of which the response consists; `*` means any type."""
    resource = "" if searched == "*" else _type_label(searched)
    return _UNCLEAR if resource is None else _PathShape(kind, resource)


def _is_version(rest: list[str]) -> bool:
    return len(rest) == 2 and rest[0] == "_history" and _ID(rest[1]) is not None


BUNDLES: Final = frozenset(("batch", "transaction"))
"""The interactions whose body is a Bundle of requests."""


@dataclass(slots=True)
class Interaction:
    """The classification of a request; `code` is one of `INTERACTIONS`.

    `resource` is an R5 type, `other` for an unknown one, or "" where the request is not about one
    type. It then concerns the whole server (`capabilities`) or resources of any type
    (`search-system`, `transaction`, a search over a whole compartment), which must be denied to a
    caller limited to some types. For a search in a compartment it is the type that is searched.
    `resource_id` is a valid FHIR id from the path, decoded, or None. `is_safe`: may be sent again
    after a failure in doubt (GET, HEAD and POST `_search`).
    """

    code: str
    resource: str = ""
    resource_id: str | None = None
    is_safe: bool = False

    @property
    def is_search(self) -> bool:
        """Whether the response is a searchset Bundle."""
        return self.code in SEARCHES

    def __repr__(self) -> str:
        """Return a text without the id: some callers put national identifiers there."""
        return f"Interaction({self.code!r}, {self.resource!r})"


def classify(method: str, path: str) -> Interaction:
    """Return the interaction of a request; conditional and plain ones share their code.

    `path` is raw, relative to the FHIR base, and empty or with a leading "/".

    `POST` to the base is `transaction` until `refine_bundle` has seen the body. Never raises.
    See FHIR R5 http.html, section 3.2.0; compartments: section 3.2.1.2.
    """
    where = _parse_path(path)
    verb = "GET" if method == "HEAD" else method
    code = _CODES.get((where.kind, verb), "other")
    return Interaction(code, where.resource, where.resource_id, is_safe_interaction(method, code))


def is_safe_interaction(method: str, code: str) -> bool:
    """Return whether an interaction only reads (RFC 9110 section 9.2.1; also POST `_search`)."""
    return method in ("GET", "HEAD") or (method == "POST" and code in SEARCHES)


def refine_bundle(
    interaction: Interaction, prefix: bytes, content_type: str, *, encoded: bool = False
) -> Interaction:
    """Return `transaction` with its code decided by the body: `batch`, `transaction` or `other`.

    `prefix` is the start of the body, `encoded` says that it has a Content-Encoding. The type must
    stand in the first 64 KiB. A Bundle of another type and an encoded one are `other`. Never
    raises. The result is a label: what a caller with limits may do is decided by the whole Bundle.
    """
    kind = None if encoded else bundle_type(content_type, prefix[:_MAX_PREFIX])
    return replace(interaction, code=kind if kind in BUNDLES else "other")


def query_names(query: str) -> tuple[str, ...]:
    """Return the parameter names of a raw query, decoded, in order, each once; at most 50.

    A name that does not look like one of a search parameter becomes "?", as it could be data: it is
    longer than 64 characters, has other characters or seven digits in a row, or has no "=" after
    it. Where there are more than 50 names, the last is "?", which stands for all others. Parameters
    after the first 512 are not read, but also give a "?": a form has room for 500,000.
    """
    if not query:
        return ()
    names: dict[str, None] = {}
    parts = query.split("&", MAX_PARAMETERS)
    more = parts[MAX_PARAMETERS:]
    for part in parts[:MAX_PARAMETERS]:
        if part:
            name, equals, _ = part.partition("=")
            names[_safe_name(name) if equals else "?"] = None
            if len(names) > _MAX_NAMES:
                return (*list(names)[: _MAX_NAMES - 1], "?")
    if more:
        names["?"] = None
    return tuple(names)


MAX_PARAMETERS: Final = 512
"""The number of parameters of a query or form that are read."""
MAX_NAME_LENGTH: Final = 3 * 64
"""Characters; no parameter has a longer name, even if it is completely percent-encoded."""
_MAX_NAMES: Final = 50
_MAX_PREFIX: Final = 65536
_NAME: Final = re.compile(r"(?!.*[0-9]{7})[A-Za-z_][A-Za-z0-9_.:\-$]{0,63}").fullmatch
_CODES: Final = {
    ("base", "GET"): "search-system",  # also paging by `?_getpages=`
    ("base", "POST"): "transaction",
    ("base", "DELETE"): "delete",
    ("base", "OPTIONS"): "capabilities",
    ("metadata", "GET"): "capabilities",
    ("smart", "GET"): "smart-configuration",
    ("system-history", "GET"): "history-system",
    ("system-search", "GET"): "search-system",
    ("system-search", "POST"): "search-system",
    ("type", "GET"): "search-type",
    ("type", "POST"): "create",
    ("type", "PUT"): "update",
    ("type", "PATCH"): "patch",
    ("type", "DELETE"): "delete",
    ("type-history", "GET"): "history-type",
    ("type-search", "GET"): "search-type",  # not in R5, but some servers accept it
    ("type-search", "POST"): "search-type",
    ("compartment", "GET"): "search-type",
    ("instance", "GET"): "read",
    ("instance", "PUT"): "update",
    ("instance", "PATCH"): "patch",
    ("instance", "DELETE"): "delete",
    ("instance-history", "GET"): "history-instance",
    ("version", "GET"): "vread",
    ("operation", "GET"): "operation",
    ("operation", "POST"): "operation",
    ("async", "GET"): "async-status",
    ("async", "DELETE"): "async-cancel",
}


def _safe_name(name: str) -> str:
    if len(name) > MAX_NAME_LENGTH:
        return "?"
    if "%" in name or "+" in name:
        name = unquote_plus(name)
    return name if _NAME(name) else "?"
