"""Classifies a request in the terms of FHIR: its interaction, resource type and operation.

Pure functions, called for every request. All labels come from closed sets, so that they can serve
as metric labels and permissions. Nothing is cached: paths and queries hold ids.

A path that can be interpreted in two ways is `other` with the resource `other`, which a caller
limited to some interactions is not permitted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote_plus

from gateway.fhir.address import is_valid_id, parse_path
from gateway.fhir.bundle_type import AmbiguousBundleTypeError, new_bundle_type_scanner
from gateway.fhir.labels import INTERACTIONS, OPERATION_LABELS, RESOURCE_LABELS

__all__ = [
    "BUNDLES",
    "INTERACTIONS",
    "OPERATION_LABELS",
    "RESOURCE_LABELS",
    "Interaction",
    "classify",
    "is_valid_id",
    "query_names",
    "refine_bundle",
]

BUNDLES: Final = frozenset(("batch", "transaction"))
"""The interactions whose body is a Bundle of requests."""


@dataclass(slots=True)
class Interaction:
    """The classification of a request; `code` is one of `INTERACTIONS`.

    `resource` is an R5 type, `other` for an unknown one, or "" where the request is not about one
    type. It then concerns the whole server (`capabilities`) or resources of any type
    (`search-system`, `transaction`, a search over a whole compartment), which must be denied to a
    caller limited to some types. For a search in a compartment it is the type that is searched.
    `resource_id` is a valid FHIR id from the path, decoded, or None. `operation` has no `$`.
    `is_safe`: may be sent again after a failure in doubt (GET, HEAD and POST `_search`).
    """

    code: str
    resource: str = ""
    resource_id: str | None = None
    operation: str = ""
    is_safe: bool = False

    @property
    def is_search(self) -> bool:
        """Whether the response is a searchset Bundle."""
        return self.code in _SEARCHES

    def __repr__(self) -> str:
        """Return a text without the id: some callers put national identifiers there."""
        return f"Interaction({self.code!r}, {self.resource!r}, operation={self.operation!r})"


def classify(method: str, path: str, query: str) -> Interaction:
    """Return the interaction of a request.

    `path` is raw, relative to the FHIR base, and empty or with a leading "/".

    `POST` to the base is `transaction` until `refine_bundle` has seen the body. Never raises.
    See FHIR R5 http.html, section 3.2.0; compartments: section 3.2.1.2.
    """
    del query  # conditional and plain interactions share their code
    where = parse_path(path)
    verb = "GET" if method == "HEAD" else method
    code = _CODES.get((where.kind, verb), "other")
    return Interaction(
        code, where.resource, where.resource_id, where.operation, is_safe_interaction(method, code)
    )


def is_safe_interaction(method: str, code: str) -> bool:
    """Return whether an interaction only reads (RFC 9110 section 9.2.1; also POST `_search`)."""
    return method in ("GET", "HEAD") or (method == "POST" and code in _SEARCHES)


def refine_bundle(
    interaction: Interaction, prefix: bytes, content_type: str, *, encoded: bool = False
) -> Interaction:
    """Return `transaction` with its code decided by the body: `batch`, `transaction` or `other`.

    `prefix` is the start of the body, `encoded` says that it has a Content-Encoding. The type must
    stand in the first 64 KiB, and no second one in all of `prefix`. A Bundle of another type, an
    encoded one, and one that can be interpreted in two ways is `other`: whether it is a batch or a
    transaction stays unknown, so that a caller restricted to some interactions is denied rather
    than granted the wrong one. Other interactions are returned unchanged. Never raises.
    """
    if interaction.code != "transaction":
        return interaction
    kind = None if encoded else _bundle_type(prefix, content_type)
    return replace(interaction, code=kind if kind in BUNDLES else "other")


def _bundle_type(prefix: bytes, content_type: str) -> str | None:
    try:
        watch = new_bundle_type_scanner(content_type, prefix)
        watch.feed(prefix[:_MAX_PREFIX])
        kind = watch.bundle_type
        if kind is not None:
            watch.feed(prefix[_MAX_PREFIX:])
    except AmbiguousBundleTypeError:
        return None
    return kind


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
_SEARCHES: Final = frozenset({"search-type", "search-system"})
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
