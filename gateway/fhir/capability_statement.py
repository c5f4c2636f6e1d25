"""The platform's CapabilityStatement: what it declares, and the removal of its sign-in offers.

What a platform declares of its resource types is parsed from JSON, for the guards and
`probe-search`.

`rest.security` describes where to get a token (`oauth-uris` of SMART on FHIR, `service`, often a
sentence in plain text). Only the gateway needs that: a caller that followed it would sign in at the
SSO and send a token that the gateway drops. The element is cut out; all other bytes stay, except
for escaped letters in JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from gateway.fhir.json_text import CONTAINER, masked, plainly_spelled

if TYPE_CHECKING:
    from gateway.fhir.links.stream_rewriter import Rewriter

# Bytes. A longer statement passes unchanged.
MAX_STATEMENT_BYTES: Final = 16 * 1024 * 1024
# No other member of a CapabilityStatement has this name. A comma after it is part of the match.
# Compiled with the first statement.
_MEMBER: Final = rb'"security"\s*+:\s*+' + CONTAINER
_SEPARATOR_BEFORE: Final = re.compile(rb",\s*+\Z")
_ELEMENT: Final = re.compile(
    rb"<((?:[^\s<>\"'/:!?]+:)?security)(?:\s[^<>]*)?(?<!/)>.*?</\1\s*>\s*", re.DOTALL
)


def remove_rest_security(statement: bytes, *, xml: bool) -> bytes:
    """Return the CapabilityStatement without `rest.security`."""
    if xml:
        return _ELEMENT.sub(b"", statement)
    statement = plainly_spelled(statement)
    text, chunks, done = masked(statement), [], 0
    for match in re.finditer(_MEMBER, text):
        before = statement[done : match.start()]
        if text[match.end() : match.end() + 1] == b"}":  # the last member
            before = _SEPARATOR_BEFORE.sub(b"", before)
        chunks.append(before)
        done = match.end()
    return b"".join((*chunks, statement[done:]))


class SecurityRemovingRewriter:
    """Buffers a CapabilityStatement, removes the offers and passes the rest to another rewriter.

    `rewritten` and `unrewritten` are the counts of that rewriter.
    """

    __slots__ = ("_chunks", "_inner", "_size", "_xml")

    def __init__(self, inner: Rewriter, *, xml: bool) -> None:
        self._inner = inner
        self._xml = xml
        self._chunks: list[bytes] = []
        self._size = 0

    @property
    def rewritten(self) -> int:
        return self._inner.rewritten

    @property
    def unrewritten(self) -> int:
        return self._inner.unrewritten

    def feed(self, chunk: bytes) -> bytes:
        if self._size > MAX_STATEMENT_BYTES:
            return self._inner.feed(chunk)
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size <= MAX_STATEMENT_BYTES:
            return b""
        return self._inner.feed(b"".join(self._chunks))

    def finish(self) -> bytes:
        if self._size > MAX_STATEMENT_BYTES:
            return self._inner.finish()
        statement = remove_rest_security(b"".join(self._chunks), xml=self._xml)
        return self._inner.feed(statement) + self._inner.finish()


_CONDITIONAL: Final = {
    "create": "conditionalCreate",
    "update": "conditionalUpdate",
    "patch": "conditionalPatch",
    "delete": "conditionalDelete",
}
_SINCE_R5: Final = frozenset(("patch",))
# `conditionalDelete` holds how many resources a delete may hit (R5, conditional-delete-status).
_KINDS_OF_DELETE: Final = ("single", "multiple")


@dataclass(frozen=True, slots=True)
class TypeCapability:
    """The declared search parameters and conditional interactions of one resource type.

    `parameters`: names with their search parameter types, "" for none. `conditional`: codes of
    interactions; one that the statement's FHIR version has no element for counts as declared.
    """

    parameters: Mapping[str, str]
    conditional: frozenset[str]


NO_CAPABILITY: Final = TypeCapability({}, frozenset())


def capabilities(statement: bytes) -> Mapping[str, TypeCapability]:
    """Return capabilities by resource type. Raises ValueError if this is no CapabilityStatement.

    Parameters that are declared for all types are added to each type.
    """
    parsed = orjson.loads(statement)
    if not isinstance(parsed, dict) or parsed.get("resourceType") != "CapabilityStatement":
        raise ValueError("no CapabilityStatement")
    version = parsed.get("fhirVersion")
    major = version.partition(".")[0] if isinstance(version, str) else ""
    # A statement of an earlier version has no elements for these.
    undeclarable = _SINCE_R5 if major.isdecimal() and int(major) < 5 else frozenset()
    by_type: dict[str, TypeCapability] = {}
    for rest in json_objects(parsed.get("rest")):
        common = dict(_parameters(rest))
        for resource in json_objects(rest.get("resource")):
            kind = resource.get("type")
            if isinstance(kind, str):
                known = by_type.get(kind, NO_CAPABILITY)
                by_type[kind] = TypeCapability(
                    {**known.parameters, **common, **dict(_parameters(resource))},
                    known.conditional | _conditional(resource) | undeclarable,
                )
    return by_type


def implementation_url(statement: bytes) -> str | None:
    """Return the base URL by which the platform names itself in a valid statement, if any."""
    implementation = orjson.loads(statement).get("implementation")
    url = implementation.get("url") if isinstance(implementation, dict) else None
    return url if isinstance(url, str) else None


def _parameters(part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for parameter in json_objects(part.get("searchParam")):
        name, kind = parameter.get("name"), parameter.get("type")
        if isinstance(name, str):
            yield name, kind if isinstance(kind, str) else ""


def _conditional(resource: Mapping[str, Any]) -> frozenset[str]:
    declared = {code: resource.get(member) for code, member in _CONDITIONAL.items()}
    return frozenset(
        code for code, value in declared.items() if value is True or value in _KINDS_OF_DELETE
    )


def json_objects(value: Any) -> list[dict[str, Any]]:
    """Return the JSON objects of an array, in order; none for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
