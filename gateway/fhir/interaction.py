"""What a request means in FHIR's terms: its interaction, resource type and operation.

Pure functions, called for every request. All labels come from closed sets, so that they can serve
as metric labels and permissions. Nothing is cached: paths and queries hold ids.

A path that could be read in two ways (dot segments, an encoded slash, empty segments) is `other`
with the resource `other`, which a caller restricted to some interactions never has.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import unquote, unquote_plus

from gateway.fhir.bundle_type import bundle_type
from gateway.fhir.labels import INTERACTIONS, OPERATION_LABELS, OPERATIONS, RESOURCE_LABELS
from gateway.fhir.resource_types import RESOURCE_TYPES

__all__ = [
    "INTERACTIONS",
    "OPERATION_LABELS",
    "RESOURCE_LABELS",
    "Interaction",
    "classify",
    "query_names",
    "refine_bundle",
    "valid_id",
]


class Interaction(NamedTuple):
    """What a request asks for.

    `resource` is an R5 type, `other` for an unknown one, or "" where the request is not about one
    type: it then concerns the whole server (`capabilities`) or resources of any type
    (`search-system`, `transaction`, a search over a whole compartment), which a caller limited to
    some types must not be given. A search in a compartment names the type that is searched.
    `resource_id` is a valid FHIR id as it stood in the path, or None. `operation` has no `$`.
    `safe`: may be sent again after an unclear failure (GET, HEAD and POST `_search`).
    """

    code: str
    resource: str = ""
    resource_id: str | None = None
    operation: str = ""
    safe: bool = False

    @property
    def is_search(self) -> bool:
        """Whether the answer is a searchset Bundle."""
        return self.code in _SEARCHES

    def __repr__(self) -> str:
        """Leaves the id out: some callers put national identifiers there."""
        return f"Interaction({self.code!r}, {self.resource!r}, operation={self.operation!r})"


def classify(method: str, path: str, query: str) -> Interaction:
    """Names the interaction; `path` is raw, relative to the FHIR base, empty or with a leading "/".

    `POST` to the base is `transaction` until `refine_bundle` has seen the body. Never raises.
    See FHIR R5 http.html, section 3.2.0; compartments: section 3.2.1.2.
    """
    del query  # conditional and plain interactions share their code
    where = _address(path)
    verb = "GET" if method == "HEAD" else method
    code = _CODES.get((where.kind, verb), "other")
    safe = verb == "GET" or (verb == "POST" and code in _SEARCHES)
    return Interaction(code, where.resource, where.resource_id, where.operation, safe)


def refine_bundle(what: Interaction, prefix: bytes, content_type: str) -> Interaction:
    """Tells `batch` from `transaction` by the start of the body, which is not compressed.

    The first 64 KiB are looked at. A Bundle of another type, and one whose type does not stand in
    there, is `other`: which of the two it is then stays unknown, so that a caller restricted to
    some interactions is refused rather than given the wrong one. Other interactions are returned
    as they are. Never raises.
    """
    if what.code != "transaction":
        return what
    kind = bundle_type(prefix[:_MAX_PREFIX], content_type)
    return what._replace(code=kind if kind in ("batch", "transaction") else "other")


def valid_id(text: str) -> bool:
    """Whether this is a FHIR id (R5 datatypes.html#id); `.` and `..` are not, in a path."""
    return _ID(text) is not None and text not in _DOTS


def query_names(query: str) -> tuple[str, ...]:
    """The parameter names of a raw query, decoded, in order, each once; at most 50 of them.

    Whatever does not look like the name of a search parameter becomes "?": longer than 64
    characters, other characters, seven digits in a row, or no "=" after it. It could be data.
    """
    if not query:
        return ()
    names: dict[str, None] = {}
    for part in query.split("&"):
        if part:
            name, equals, _ = part.partition("=")
            names[_safe_name(name) if equals else "?"] = None
            if len(names) == _MAX_NAMES:
                break
    return tuple(names)


_MAX_NAMES: Final = 50
_MAX_PREFIX: Final = 65536
_DOTS: Final = frozenset({".", ".."})
_ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}").fullmatch
_TYPE_SHAPE: Final = re.compile(r"[A-Z][A-Za-z]{1,63}").fullmatch
_NAME: Final = re.compile(r"(?!.*[0-9]{7})[A-Za-z_][A-Za-z0-9_.:\-$]{0,63}").fullmatch
_SEARCHES: Final = frozenset({"search-type", "search-system"})
# Where status URLs of the asynchronous pattern stand: this gateway's own, and those of servers
# in use. Any other status URL cannot be told from its path and is `other`.
_ASYNC_ROOTS: Final = frozenset(
    {"_outbox", "_async", "_operations", "__async-status", "async-status", "$export-poll-status"}
)


class _Address(NamedTuple):
    """The shape of a path, whatever the method."""

    kind: str
    resource: str = ""
    resource_id: str | None = None
    operation: str = ""


_BASE: Final = _Address("base")
_UNCLEAR: Final = _Address("unclear", "other")
_SINGLE: Final = {
    "metadata": _Address("metadata"),
    "_history": _Address("system-history"),
    "_search": _Address("system-search"),
}
_CODES: Final = {
    ("base", "GET"): "search-system",  # also pages by `?_getpages=`
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
    ("type-search", "GET"): "search-type",  # not in R5, but some servers take it
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


def _address(path: str) -> _Address:
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


def _of_segments(segments: list[str]) -> _Address:
    for segment in segments:
        if segment in _DOTS or segment == "" or "/" in segment:
            return _UNCLEAR
    first = segments[0]
    resource = _type_label(first)
    if resource is None:
        return _without_type(segments)
    if len(segments) == 1:
        return _Address("type", resource)
    if len(segments) == 2 and _ID(segments[1]):
        return _Address("instance", resource, segments[1])
    return _below_type(resource, segments)


def _type_label(segment: str) -> str | None:
    if segment in RESOURCE_TYPES:
        return segment
    return "other" if _TYPE_SHAPE(segment) else None


def _without_type(segments: list[str]) -> _Address:
    first = segments[0]
    if first in _ASYNC_ROOTS:
        return _Address("async")
    if len(segments) == 1:
        if first.startswith("$"):
            return _Address("operation", operation=_operation_label(first))
        return _SINGLE.get(first, _UNCLEAR)
    if segments == [".well-known", "smart-configuration"]:
        return _Address("smart")
    return _UNCLEAR


def _below_type(resource: str, segments: list[str]) -> _Address:
    """T/$op, T/_search, T/_history, and all that stands below T/id."""
    second = segments[1]
    if len(segments) == 2:
        if second.startswith("$"):
            return _Address("operation", resource, operation=_operation_label(second))
        kind = {"_history": "type-history", "_search": "type-search"}.get(second, "unclear")
        return _Address(kind, resource)
    if not _ID(second):
        return _Address("unclear", resource)
    return _below_instance(resource, second, segments[2:])


def _below_instance(resource: str, resource_id: str, rest: list[str]) -> _Address:
    """T/id/…: history and versions, operations, compartments."""
    if rest[-1].startswith("$") and (len(rest) == 1 or _is_version(rest[:-1])):
        return _Address("operation", resource, resource_id, _operation_label(rest[-1]))
    if rest == ["_history"]:
        return _Address("instance-history", resource, resource_id)
    if _is_version(rest):
        return _Address("version", resource, resource_id)
    if rest[-1] == "_search" and len(rest) <= 2:
        return _compartment("type-search", rest[0] if len(rest) == 2 else "*")
    if len(rest) == 1:
        return _compartment("compartment", rest[0])
    return _Address("unclear", resource, resource_id)


def _compartment(kind: str, searched: str) -> _Address:
    """The type that is searched decides, as the answer consists of it; `*` stands for any."""
    resource = "" if searched == "*" else _type_label(searched)
    return _UNCLEAR if resource is None else _Address(kind, resource)


def _is_version(rest: list[str]) -> bool:
    return len(rest) == 2 and rest[0] == "_history" and _ID(rest[1]) is not None


def _operation_label(segment: str) -> str:
    name = segment[1:]
    return name if name in OPERATIONS else "other"


def _safe_name(name: str) -> str:
    if "%" in name or "+" in name:
        name = unquote_plus(name)
    return name if _NAME(name) else "?"
