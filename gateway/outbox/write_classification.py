"""Whether a write may be queued, its ordering keys, and what may be done when it is in doubt.

A write whose content cannot be read, or that may affect resources which it does not name, is not
queued: it would be unknown what must not overtake it. `classify_write` is a pure function.
`WriteClassifier` applies it to a request, and `build_entry` makes the new entry.

The ordering keys of a write are the patients that are named anywhere in it, and the resource. A key
too many makes a write wait longer, a missing one loses an update: where it is not certain, a key is
added. The keys are plain text such as `Patient/5` or `Patient?identifier=system|value`; the store
hashes them. They are generated one by one, so that collecting them can stop at its limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, parse_qsl, unquote

from gateway import document_limits
from gateway.fhir.document_tree import (
    BodyParseError,
    BodyTooLargeError,
    Element,
    child_elements,
    first_text,
    parse_body,
    walk_elements,
)
from gateway.fhir.interaction import BUNDLES, Interaction, is_type
from gateway.http.client.response_head import remove_digest_fields
from gateway.http.content_coding import DECODABLE, decode_body, parse_content_encoding
from gateway.outbox.delivery_pacing import INDEX_LAG
from gateway.outbox.entry import ALL_KEYS, FieldLines, NewEntry, QueuedRequest, RecoveryMode
from gateway.pipeline.body_worker import MAX_INLINE_BYTES, SerialExecutor

if TYPE_CHECKING:
    from gateway.pipeline.request import RequestContext

_LOGICAL_ID: Final = r"([A-Za-z0-9\-.]{1,64})"
_PATIENT: Final = re.compile(rf"\bPatient/{_LOGICAL_ID}")
_INSTANCE: Final = re.compile(rf"([A-Z][A-Za-z]{{1,63}})/{_LOGICAL_ID}(?:/.*)?")
_BARE_ID: Final = re.compile(_LOGICAL_ID)
# The members of a Reference; any other element with an identifier is no reference.
_REFERENCE: Final = frozenset(
    {"id", "extension", "reference", "type", "identifier", "display", "_reference", "_type"}
)
# Search parameters whose value is a patient, or may be one.
_SUBJECTS: Final = frozenset(
    {"patient", "subject", "individual", "beneficiary", "for", "actor", "member", "target", "focus"}
)
# Each key is a row that every later write is compared with, and is written in a transaction for
# which other writers wait: 80,000 references in one body made 100 MB of rows and took 4 s. Writes
# that name more are rare; refusing them would lose a large Bundle in an outage.
_MAX_KEYS: Final = 1024
# The number of names, repeated ones included: processing more would delay other requests.
_MAX_MENTIONS: Final = 64 * _MAX_KEYS
# Characters. No server accepts a longer URL.
_MAX_TEXT_LENGTH: Final = 64 * 1024


class TooManyKeysError(Exception):
    """The write names more than can be ordered key by key."""


def keys_of_path(path: str, query: str) -> Iterator[str]:
    """Yield the keys that a raw path relative to the base and its query name.

    They may be those of a Bundle entry. Raises `TooManyKeysError` where one is longer than
    `_MAX_TEXT_LENGTH`.
    """
    path = unquote(_require_short(path)).strip("/")
    yield from _patient_keys(path)
    instance = _INSTANCE.fullmatch(path)
    if instance is not None:
        yield f"{instance[1]}/{instance[2]}"
    yield from keys_of_query(path if is_type(path) else "", query)


def keys_of_query(kind: str, query: str) -> Iterator[str]:
    """Yield the keys that search criteria for a resource type name. Raises as `keys_of_path`."""
    for name, value in parse_qsl(_require_short(query).lstrip("?")):
        yield from _patient_keys(value)
        for item in value.split(","):
            yield from _keys_of_criterion(kind, name, item)


def _require_short(text: str) -> str:
    if len(text) > _MAX_TEXT_LENGTH:
        raise TooManyKeysError
    return text


def _patient_keys(text: str) -> Iterator[str]:
    return (f"Patient/{found[1]}" for found in _PATIENT.finditer(text))


def _keys_of_criterion(kind: str, name: str, value: str) -> Iterator[str]:
    before, _, last = name.rpartition(".")
    plain = last.partition(":")[0]
    if before:
        if plain == "identifier" and before.partition(":")[0] in _SUBJECTS:
            yield f"Patient?identifier={value}"
    elif plain == "identifier" and kind:
        yield f"{kind}?identifier={value}"
    elif plain == "_id" and kind and _BARE_ID.fullmatch(value):
        yield f"{kind}/{value}"
    elif plain in _SUBJECTS:
        if last.endswith(":identifier"):
            yield f"Patient?identifier={value}"
        elif _BARE_ID.fullmatch(value):
            yield f"Patient/{value}"


def keys_of_body(body: Element) -> Iterator[str]:
    """Yield the keys that a resource, a Bundle or a patch names. Raises as `keys_of_path`."""
    for element in walk_elements(body):
        for name, children in element.items():
            if name != "div":
                yield from _keys_of_texts(children)
        yield from _keys_of_resource(element)
        yield from _keys_of_logical_reference(element)


def _keys_of_texts(children: list[object]) -> Iterator[str]:
    for text in children:
        if isinstance(text, str) and "Patient/" in text:
            yield from _patient_keys(text)
        if isinstance(text, str) and "Patient?" in text:
            yield from keys_of_query("Patient", text.partition("Patient?")[2])


def _keys_of_resource(element: Element) -> Iterator[str]:
    """Yield the keys of the resource's own identifiers.

    A search that deletes or updates the resource may name them.
    """
    kind = first_text(element, "resourceType")
    if not kind:
        return
    if kind == "Patient" and (logical_id := first_text(element, "id")):
        yield f"Patient/{logical_id}"
    for identifier in child_elements(element, "identifier"):
        # A search may leave out the system.
        yield f"{kind}?identifier={identifier_token(identifier)}"
        yield f"{kind}?identifier={first_text(identifier, 'value')}"


def _keys_of_logical_reference(element: Element) -> Iterator[str]:
    identifiers = child_elements(element, "identifier")
    if not identifiers or not element.keys() <= _REFERENCE:
        return
    # A reference without a type may be to a patient.
    if first_text(element, "type").rpartition("/")[2] in ("", "Patient"):
        yield f"Patient?identifier={identifier_token(identifiers[0])}"


def identifier_token(identifier: Element) -> str:
    """Return an Identifier as the value of a search parameter."""
    system, value = (
        first_text(identifier, "system"),
        first_text(identifier, "value"),
    )
    return f"{system}|{value}" if system else value


# Operations are not included: the gateway does not know what they do.
WRITES: Final = BUNDLES | {"create", "update", "patch", "delete"}
# These contain the logical id where they may be repeated: no search is needed.
_REPEATABLE_BY_ID: Final = frozenset({"update", "delete"})
_READS: Final = frozenset({"GET", "HEAD"})
_PATH_OF_RESOURCE: Final = re.compile(r"[A-Z][A-Za-z]{1,63}/[A-Za-z0-9\-.]{1,64}")


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

    Raises `BodyTooLargeError`.
    """
    if write.code not in WRITES:
        return None
    try:
        return _classify_readable(write)
    except BodyTooLargeError:
        raise
    except BodyParseError:
        return None


def _classify_readable(write: WriteDescription) -> WriteClassification | None:
    path = unquote(write.path).strip("/").removesuffix("?")
    kind = path.partition("/")[0]
    body: Element = {}
    # The content of a Binary is opaque: it names no resource, and is not parsed.
    if write.body and kind != "Binary":
        body = parse_body(write.body, write.content_type, sent=write.sent)
    named = (
        keys_of_path(path, write.query),
        keys_of_body(body),
        keys_of_query(kind, write.if_none_exist or ""),
    )
    if write.code in BUNDLES:
        return _classify_bundle(body, named)
    ordering_keys = _ordering_keys(named)
    # A query selects what is updated or deleted.
    if not ordering_keys and write.query and write.code in ("update", "patch", "delete"):
        return None
    return WriteClassification(_recovery(write, path, body), ordering_keys or frozenset({kind}))


def _ordering_keys(keys: Iterable[Iterable[str]]) -> frozenset[str]:
    """Return all keys; ALL_KEYS where there are too many of them, or of their mentions."""
    found = set()
    try:
        for mentions, key in enumerate(chain.from_iterable(keys)):
            found.add(key)
            if len(found) > _MAX_KEYS or mentions > _MAX_MENTIONS:
                return ALL_KEYS
    except TooManyKeysError:
        return ALL_KEYS
    return frozenset(found)


def _recovery(write: WriteDescription, path: str, body: Element) -> RecoveryMode:
    if write.code in ("update", "delete") and _PATH_OF_RESOURCE.fullmatch(path):
        return RecoveryMode.RESEND
    if write.code == "create" and _has_parameters(write.if_none_exist or ""):
        return RecoveryMode.VERIFY
    if write.code in ("create", "update") and any(searchable_identifiers(body)):
        return RecoveryMode.VERIFY
    return RecoveryMode.HOLD


def _has_parameters(criteria: str) -> bool:
    """Return whether a condition has any parameter: without one some servers always create."""
    return len(criteria) <= _MAX_TEXT_LENGTH and any(parse_qs(condition_query(criteria)))


def condition_query(condition: str) -> str:
    """Return the query of an If-None-Exist value: some clients put a URL before it."""
    return condition.partition("?")[2] if "?" in condition else condition


def searchable_identifiers(resource: Element) -> Iterator[tuple[str, str]]:
    """Yield system and value of the identifiers by which a resource can be searched for.

    An identifier without a system is not unique.
    """
    for identifier in child_elements(resource, "identifier"):
        system, value = (
            first_text(identifier, "system"),
            first_text(identifier, "value"),
        )
        if system and value:
            yield system, value


def _classify_bundle(bundle: Element, named: Iterable[Iterable[str]]) -> WriteClassification | None:
    entries = child_elements(bundle, "entry")
    requests = [request for entry in entries for request in child_elements(entry, "request")]
    writes = [request for request in requests if first_text(request, "method") not in _READS]
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
    path, _, query = first_text(request, "url").partition("?")
    try:
        return bool(query) and not any(keys_of_path(path, query))
    except TooManyKeysError:
        return False


def _keys_of_request(request: Element) -> Iterator[str]:
    path, _, query = first_text(request, "url").partition("?")
    yield from keys_of_path(path, query)
    yield from keys_of_query(_resource_type_of(request), first_text(request, "ifNoneExist"))


def _resource_type_of(request: Element) -> str:
    path = first_text(request, "url").partition("?")[0]
    return unquote(path).strip("/").partition("/")[0]


def _recovery_of_request(request: Element) -> RecoveryMode:
    method, url = (
        first_text(request, "method"),
        first_text(request, "url"),
    )
    if method in ("PUT", "DELETE") and _PATH_OF_RESOURCE.fullmatch(url.strip("/")):
        return RecoveryMode.RESEND
    conditional = method == "POST" and _has_parameters(first_text(request, "ifNoneExist"))
    return RecoveryMode.VERIFY if conditional else RecoveryMode.HOLD


def conditional_creates(bundle: Element) -> Iterator[tuple[str, Element]]:
    """Yield condition and resource of each entry that is a conditional create."""
    for entry in child_elements(bundle, "entry"):
        for request in child_elements(entry, "request"):
            if _recovery_of_request(request) is RecoveryMode.VERIFY:
                resource = next(iter(child_elements(entry, "resource")), {})
                yield first_text(request, "ifNoneExist"), resource


_QUOTED_OR_COMMA: Final = re.compile(rb'"(?:[^"\\]|\\.)*"?|,', re.DOTALL)
_ASYNC_PREFERENCE: Final = re.compile(
    rb'\s*+respond-async\s*+(?:=\s*+(?:""\s*+)?)?(?:;.*)?', re.IGNORECASE | re.DOTALL
)


@lru_cache(maxsize=64)
def prefers_async(prefer: bytes) -> bool:
    """Return whether a Prefer field asks for an asynchronous response (RFC 7240 section 4.1)."""
    return any(map(_ASYNC_PREFERENCE.fullmatch, _preferences(prefer)))


@lru_cache(maxsize=64)
def remove_async_preference(prefer: bytes) -> bytes:
    """Return the other preferences, octet for octet; b"" for none."""
    return b",".join(
        preference
        for preference in _preferences(prefer)
        if not _ASYNC_PREFERENCE.fullmatch(preference)
    ).strip()


def lines_without_async(field_lines: list[bytes]) -> list[bytes]:
    """Return the field lines of a header without the preference `respond-async`.

    A Prefer field with other preferences keeps these. The platform's own 202 would look like that
    of the outbox, have another meaning, and leave the outcome unknown.
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


class WriteNotClassifiedError(Exception):
    """The body is not buffered, is too large to parse, or waited too long for the parser."""


class WriteClassifier:
    """The classification of one request, computed when it is first needed, and only once."""

    def __init__(self, context: RequestContext, serial_executor: SerialExecutor) -> None:
        self.context = context
        self._serial_executor = serial_executor
        self._cached: list[WriteClassification | None] = []

    async def classification(self) -> WriteClassification | None:
        """Return the classification, or None if the write is not to be queued.

        Raises `WriteNotClassifiedError`.
        """
        if not self._cached:
            self._cached.append(await _classify(self.context, self._serial_executor))
        return self._cached[0]


async def _classify(
    context: RequestContext, serial_executor: SerialExecutor
) -> WriteClassification | None:
    body = b"" if context.body is None else await context.body.read_all()
    if body is None:
        raise WriteNotClassifiedError
    header = context.header
    write = WriteDescription(
        context.interaction.code,
        context.target.path.removesuffix("?"),
        context.target.query,
        content_type=header.text(b"content-type"),
        if_none_exist=header.text(b"if-none-exist"),
        sent=len(body),
    )
    coding = parse_content_encoding(header.text(b"content-encoding"))
    plain = _decode_small(body, coding)
    try:
        if plain is not None:
            return await serial_executor.run(
                len(plain), context.caller.name, lambda: classify_write(replace(write, body=plain))
            )
        if coding not in DECODABLE:
            return None
        # The decoded size is known only after decoding, which happens in the thread.
        return await serial_executor.run(
            None, context.caller.name, lambda: classify_write(_decode_content(write, body, coding))
        )
    except (BodyTooLargeError, TimeoutError):
        raise WriteNotClassifiedError from None


def _decode_small(body: bytes, coding: str | None) -> bytes | None:
    """Return the content if it is not coded or decodes to at most `MAX_INLINE_BYTES`, else None."""
    if not body or coding is None:
        return body
    return (decode_body(body, coding, MAX_INLINE_BYTES) or None) if coding in DECODABLE else None


def _decode_content(write: WriteDescription, body: bytes, coding: str) -> WriteDescription:
    """Return the write with its body decoded.

    Raises `BodyTooLargeError`, also where the body is incomplete.
    """
    plain = decode_body(body, coding, document_limits.decoded_limit(len(body)))
    if not plain:
        raise BodyTooLargeError("it cannot be opened, or becomes too much")
    return replace(write, body=plain)


async def build_entry(
    context: RequestContext,
    classification: WriteClassification,
    *,
    cause: str,
    in_doubt: bool,
) -> NewEntry:
    """Return the new entry for a write. `in_doubt`: an earlier attempt may have taken effect."""
    body = None if context.body is None else await context.body.read_all()
    return NewEntry(
        caller=context.caller.name,
        request=_request(context, body or b""),
        ordering_keys=classification.ordering_keys,
        recovery=classification.recovery,
        in_doubt=in_doubt,
        cause=cause,
        delay=INDEX_LAG if in_doubt and _needs_index(context.interaction, classification) else 0.0,
    )


def _needs_index(interaction: Interaction, classification: WriteClassification) -> bool:
    """Return whether the next attempt depends on the platform's search index.

    It does for a verification and for a condition that the write itself contains.
    """
    is_verified = classification.recovery is RecoveryMode.VERIFY
    return is_verified or interaction.code not in _REPEATABLE_BY_ID


def _request(context: RequestContext, body: bytes) -> QueuedRequest:
    field_lines = context.field_lines
    if context.body is not None and context.body.is_transformed:
        field_lines = remove_digest_fields(field_lines)
    interaction = context.interaction
    return QueuedRequest(
        method=context.exchange.method,
        target_suffix=context.caller_context.link_translator.target_suffix(context.target),
        fields=tuple(_fields(field_lines)),
        body=body,
        credential=context.caller.credential,
        interaction=interaction.code,
        resource=interaction.resource,
        resource_id=interaction.resource_id,
        request_id=context.exchange.request_id,
    )


def _fields(field_lines: list[bytes]) -> FieldLines:
    """Return the field lines as fields, without Accept-Encoding.

    The response is stored, so that the codings the caller accepts do not matter.
    """
    fields = (line[:-2].partition(b": ") for line in field_lines)
    return tuple((name, value) for name, _, value in fields if name.lower() != b"accept-encoding")
