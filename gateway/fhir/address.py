"""Parses the path of a request below the FHIR base, independently of the method.

A path that can be interpreted in two ways (dot segments, empty segments, an encoded slash, a
backslash, matrix parameters) or has no meaning in FHIR gets the kind `unclear` and the resource
`other`: servers may answer `Patient/1/Observation/2` with an Observation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from gateway.config.fhir_names import OPERATIONS
from gateway.config.resource_types import RESOURCE_TYPES


@dataclass(slots=True)
class PathShape:
    """A parsed path.

    `kind` is the first element of the keys of `gateway.fhir.interaction._CODES`. `resource` is an
    R5 type, `other` for an unknown one, "" for none. `resource_id` is decoded. `operation` has no
    `$` and is `other` for an unknown operation, "" for none.
    """

    kind: str
    resource: str = ""
    resource_id: str | None = None
    operation: str = ""


def parse_path(path: str) -> PathShape:
    """Return the shape of a raw path that is empty or begins with "/". Never raises."""
    plain = _PLAIN(path)
    if plain is not None:
        resource, resource_id = plain.groups()
        if resource in RESOURCE_TYPES and resource_id not in _DOTS:
            return PathShape("type" if resource_id is None else "instance", resource, resource_id)
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


def is_valid_id(text: str) -> bool:
    """Return whether this is a FHIR id (R5 datatypes.html#id) and no dot segment (`.`, `..`)."""
    return _ID(text) is not None and text not in _DOTS


_DOTS: Final = frozenset({".", ".."})
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
_BASE: Final = PathShape("base")
_UNCLEAR: Final = PathShape("unclear", "other")
_SINGLE: Final = {
    "metadata": PathShape("metadata"),
    "_history": PathShape("system-history"),
    "_search": PathShape("system-search"),
}


def _of_segments(segments: list[str]) -> PathShape:
    for segment in segments:
        if segment in _DOTS or not _SEGMENT(segment):
            return _UNCLEAR
    first = segments[0]
    resource = _type_label(first)
    if resource is None:
        return _without_type(segments)
    if len(segments) == 1:
        return PathShape("type", resource)
    if len(segments) == 2 and _ID(segments[1]):
        return PathShape("instance", resource, segments[1])
    return _below_type(resource, segments)


def _type_label(segment: str) -> str | None:
    if segment in RESOURCE_TYPES:
        return segment
    return "other" if is_type(segment) else None


def _without_type(segments: list[str]) -> PathShape:
    first = segments[0]
    if first in _ASYNC_ROOTS:
        return PathShape("async")
    if len(segments) == 1:
        if first.startswith("$"):
            return PathShape("operation", operation=_operation_label(first))
        return _SINGLE.get(first, _UNCLEAR)
    if segments == [".well-known", "smart-configuration"]:
        return PathShape("smart")
    return _UNCLEAR


def _below_type(resource: str, segments: list[str]) -> PathShape:
    """Parse T/$op, T/_search, T/_history, and all paths below T/id."""
    second = segments[1]
    if len(segments) == 2:
        if second.startswith("$"):
            return PathShape("operation", resource, operation=_operation_label(second))
        kind = {"_history": "type-history", "_search": "type-search"}.get(second)
        return _UNCLEAR if kind is None else PathShape(kind, resource)
    if not _ID(second):
        return _UNCLEAR
    return _below_instance(resource, second, segments[2:])


def _below_instance(resource: str, resource_id: str, rest: list[str]) -> PathShape:
    """Parse T/id/…: history and versions, operations, compartments."""
    if rest[-1].startswith("$") and (len(rest) == 1 or _is_version(rest[:-1])):
        return PathShape("operation", resource, resource_id, _operation_label(rest[-1]))
    if rest == ["_history"]:
        return PathShape("instance-history", resource, resource_id)
    if _is_version(rest):
        return PathShape("version", resource, resource_id)
    if rest[-1] == "_search" and len(rest) <= 2:
        return _compartment("type-search", rest[0] if len(rest) == 2 else "*")
    if len(rest) == 1:
        return _compartment("compartment", rest[0])
    return _UNCLEAR


def _compartment(kind: str, searched: str) -> PathShape:
    """Return a shape with the searched type, of which the response consists; `*` means any type."""
    resource = "" if searched == "*" else _type_label(searched)
    return _UNCLEAR if resource is None else PathShape(kind, resource)


def _is_version(rest: list[str]) -> bool:
    return len(rest) == 2 and rest[0] == "_history" and _ID(rest[1]) is not None


def _operation_label(segment: str) -> str:
    name = segment[1:]
    return name if name in OPERATIONS else "other"
