"""Whether a write may be queued, its ordering keys, and what may be done when it is in doubt.

Pure functions. A write whose content cannot be read, or that may affect resources which it does not
name, is not queued: it would be unknown what must not overtake it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qs, unquote

from gateway.fhir import tree
from gateway.fhir.interaction import BUNDLES
from gateway.fhir.tree import Element
from gateway.outbox import naming
from gateway.outbox.entry import ALL_KEYS, RecoveryMode

# Operations are not included: the gateway does not know what they do.
WRITES: Final = BUNDLES | {"create", "update", "patch", "delete"}
# These contain the logical id where they may be repeated: no search is needed.
BY_ID: Final = frozenset({"update", "delete"})
_READS: Final = frozenset({"GET", "HEAD"})
_BY_ID: Final = re.compile(r"[A-Z][A-Za-z]{1,63}/[A-Za-z0-9\-.]{1,64}")


@dataclass(frozen=True, slots=True)
class WriteDescription:
    """The properties of a write that its classification depends on.

    `code` is that of the interaction. `path` is relative to the base; `path` and `query` are raw.
    `body` has no content coding; `sent` is its size in bytes as it was received.
    """

    code: str
    path: str
    query: str = ""
    body: bytes = field(default=b"", repr=False)
    content_type: str | None = None
    if_none_exist: str | None = field(default=None, repr=False)
    sent: int | None = None


@dataclass(frozen=True, slots=True)
class WriteClassification:
    """The recovery mode of a write, and its ordering keys: at least one, or ALL_KEYS."""

    recovery: RecoveryMode
    ordering_keys: frozenset[str] = field(repr=False)


def classify_write(write: WriteDescription) -> WriteClassification | None:
    """Return the classification; None where the write cannot be queued.

    Raises `tree.BodyTooLargeError`.
    """
    if write.code not in WRITES:
        return None
    try:
        return _classify_readable(write)
    except tree.BodyTooLargeError:
        raise
    except tree.BodyParseError:
        return None


def _classify_readable(write: WriteDescription) -> WriteClassification | None:
    path = unquote(write.path).strip("/").removesuffix("?")
    kind = path.partition("/")[0]
    body: Element = {}
    # The content of a Binary is opaque: it names no resource, and is not parsed.
    if write.body and kind != "Binary":
        body = tree.parse_body(write.body, write.content_type, sent=write.sent)
    named = (
        naming.keys_of_path(path, write.query),
        naming.keys_of_body(body),
        naming.keys_of_query(kind, write.if_none_exist or ""),
    )
    if write.code in BUNDLES:
        return _classify_bundle(body, named)
    ordering_keys = _ordering_keys(named)
    if not ordering_keys and _is_conditional(write):
        return None
    return WriteClassification(_recovery(write, path, body), ordering_keys or frozenset({kind}))


def _ordering_keys(keys: Iterable[Iterable[str]]) -> frozenset[str]:
    try:
        return frozenset(naming.collect_keys(*keys))
    except naming.TooManyKeysError:
        return ALL_KEYS


def _is_conditional(write: WriteDescription) -> bool:
    """Return whether a query selects what is updated or deleted."""
    return write.code in ("update", "patch", "delete") and bool(write.query)


def _recovery(write: WriteDescription, path: str, body: Element) -> RecoveryMode:
    if write.code in ("update", "delete") and _BY_ID.fullmatch(path):
        return RecoveryMode.RESEND
    if write.code == "create" and _has_parameters(write.if_none_exist or ""):
        return RecoveryMode.VERIFY
    if write.code in ("create", "update") and any(searchable_identifiers(body)):
        return RecoveryMode.VERIFY
    return RecoveryMode.HOLD


def _has_parameters(criteria: str) -> bool:
    """Return whether a condition has any parameter: without one some servers always create."""
    return len(criteria) <= naming.MAX_TEXT_LENGTH and any(parse_qs(condition_query(criteria)))


def condition_query(condition: str) -> str:
    """Return the query of an If-None-Exist value: some clients put a URL before it."""
    return condition.partition("?")[2] if "?" in condition else condition


def searchable_identifiers(resource: Element) -> Iterator[tuple[str, str]]:
    """Yield system and value of the identifiers by which a resource can be searched for.

    An identifier without a system is not unique.
    """
    for identifier in tree.child_elements(resource, "identifier"):
        system, value = tree.first_text(identifier, "system"), tree.first_text(identifier, "value")
        if system and value:
            yield system, value


def _classify_bundle(bundle: Element, named: Iterable[Iterable[str]]) -> WriteClassification | None:
    entries = tree.child_elements(bundle, "entry")
    requests = [request for entry in entries for request in tree.child_elements(entry, "request")]
    writes = [request for request in requests if tree.first_text(request, "method") not in _READS]
    if not writes or len(requests) != len(entries):
        return None
    if any(_may_affect_unnamed(request) for request in writes):
        return None
    modes = {_recovery_of_request(request) for request in writes}
    # The most restrictive mode of all requests.
    recovery = next(
        mode
        for mode in (RecoveryMode.HOLD, RecoveryMode.VERIFY, RecoveryMode.RESEND)
        if mode in modes
    )
    ordering_keys = _ordering_keys((*named, *(_keys_of_request(request) for request in writes)))
    return WriteClassification(
        recovery, ordering_keys or _ordering_keys([map(_resource_type_of, writes)])
    )


def _may_affect_unnamed(request: Element) -> bool:
    """Return whether a request may affect resources that it does not name."""
    path, _, query = tree.first_text(request, "url").partition("?")
    try:
        return bool(query) and not any(naming.keys_of_path(path, query))
    except naming.TooManyKeysError:
        return False


def _keys_of_request(request: Element) -> Iterator[str]:
    path, _, query = tree.first_text(request, "url").partition("?")
    yield from naming.keys_of_path(path, query)
    yield from naming.keys_of_query(
        _resource_type_of(request), tree.first_text(request, "ifNoneExist")
    )


def _resource_type_of(request: Element) -> str:
    path = tree.first_text(request, "url").partition("?")[0]
    return unquote(path).strip("/").partition("/")[0]


def _recovery_of_request(request: Element) -> RecoveryMode:
    method, url = tree.first_text(request, "method"), tree.first_text(request, "url")
    if method in ("PUT", "DELETE") and _BY_ID.fullmatch(url.strip("/")):
        return RecoveryMode.RESEND
    conditional = method == "POST" and _has_parameters(tree.first_text(request, "ifNoneExist"))
    return RecoveryMode.VERIFY if conditional else RecoveryMode.HOLD


def conditional_creates(bundle: Element) -> Iterator[tuple[str, Element]]:
    """Yield condition and resource of each entry that is a conditional create."""
    for entry in tree.child_elements(bundle, "entry"):
        for request in tree.child_elements(entry, "request"):
            if _recovery_of_request(request) is RecoveryMode.VERIFY:
                resource = next(iter(tree.child_elements(entry, "resource")), {})
                yield tree.first_text(request, "ifNoneExist"), resource


_QUOTED_OR_COMMA: Final = re.compile(rb'"(?:[^"\\]|\\.)*"?|,', re.DOTALL)
_ASYNC: Final = re.compile(
    rb'\s*+respond-async\s*+(?:=\s*+(?:""\s*+)?)?(?:;.*)?', re.IGNORECASE | re.DOTALL
)


@lru_cache(maxsize=64)
def prefers_async(prefer: bytes) -> bool:
    """Return whether a Prefer field asks for an asynchronous response (RFC 7240 section 4.1)."""
    return any(map(_ASYNC.fullmatch, _preferences(prefer)))


@lru_cache(maxsize=64)
def remove_async_preference(prefer: bytes) -> bytes:
    """Return the other preferences, octet for octet; b"" for none."""
    return b",".join(
        preference for preference in _preferences(prefer) if not _ASYNC.fullmatch(preference)
    ).strip()


def lines_without_async(field_lines: list[bytes]) -> list[bytes]:
    """Return the field lines of a header without the preference `respond-async`.

    A Prefer field with other preferences keeps these.
    """
    remaining = []
    for line in field_lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"prefer" and prefers_async(value := value.strip()):
            others = remove_async_preference(value)
            line = b"%s: %s\r\n" % (name, others) if others else b""
        remaining.append(line)
    return [line for line in remaining if line]


def _preferences(prefer: bytes) -> list[bytes]:
    """Return the elements of a list in which commas may be quoted."""
    found, begin = [], 0
    for match in _QUOTED_OR_COMMA.finditer(prefer):
        if match.group() == b",":
            found.append(prefer[begin : match.start()])
            begin = match.end()
    return [*found, prefer[begin:]]
