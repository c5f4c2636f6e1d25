"""The ordering keys of a write: the patients that are named anywhere in it, and the resource.

A key too many makes a write wait longer, a missing one loses an update: where it is not certain, a
key is added. The keys are plain text such as `Patient/5` or `Patient?identifier=system|value`; the
store hashes them. They are generated one by one, so that `collect_keys` can stop at its limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final
from urllib.parse import parse_qsl, unquote

from gateway.fhir import tree
from gateway.fhir.tree import Element

_ID: Final = r"([A-Za-z0-9\-.]{1,64})"
_PATIENT: Final = re.compile(rf"\bPatient/{_ID}")
_INSTANCE: Final = re.compile(rf"([A-Z][A-Za-z]{{1,63}})/{_ID}(?:/.*)?")
_BARE_ID: Final = re.compile(_ID)
_TYPE: Final = re.compile(r"[A-Z][A-Za-z]{1,63}")
# The members of a Reference; any other element with an identifier is no reference.
_REFERENCE: Final = frozenset(
    {"id", "extension", "reference", "type", "identifier", "display", "_reference", "_type"}
)
# Search parameters whose value is a patient, or may be one.
_SUBJECTS: Final = frozenset(
    {"patient", "subject", "individual", "beneficiary", "for", "actor", "member", "target", "focus"}
)
# Each key is a row that every later write is compared with. Writes that name more are rare.
MAX_KEYS: Final = 1024
# The number of names, repeated ones included: processing more would delay other requests.
MAX_MENTIONS: Final = 64 * MAX_KEYS
# Characters. No server accepts a longer URL.
MAX_TEXT_LENGTH: Final = 64 * 1024


class TooManyKeysError(Exception):
    """The write names more than can be ordered key by key."""


def collect_keys(*keys: Iterable[str]) -> set[str]:
    """Return the set of all keys.

    Raises `TooManyKeysError` for more than `MAX_KEYS` different keys, or more than `MAX_MENTIONS`
    in all.
    """
    found = set()
    for mentions, key in enumerate(chain.from_iterable(keys)):
        found.add(key)
        if len(found) > MAX_KEYS or mentions > MAX_MENTIONS:
            raise TooManyKeysError
    return found


def keys_of_path(path: str, query: str) -> Iterator[str]:
    """Yield the keys that a raw path relative to the base and its query name.

    They may be those of a Bundle entry. Raises `TooManyKeysError` where one is longer than
    `MAX_TEXT_LENGTH`.
    """
    path = unquote(_require_short(path)).strip("/")
    yield from _patient_keys(path)
    instance = _INSTANCE.fullmatch(path)
    if instance is not None:
        yield f"{instance[1]}/{instance[2]}"
    yield from keys_of_query(path if _TYPE.fullmatch(path) else "", query)


def keys_of_query(kind: str, query: str) -> Iterator[str]:
    """Yield the keys that search criteria for a resource type name. Raises as `keys_of_path`."""
    for name, value in parse_qsl(_require_short(query).lstrip("?")):
        yield from _patient_keys(value)
        for item in value.split(","):
            yield from _keys_of_criterion(kind, name, item)


def _require_short(text: str) -> str:
    if len(text) > MAX_TEXT_LENGTH:
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
    for element in tree.walk_elements(body):
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
    kind = tree.first_text(element, "resourceType")
    if not kind:
        return
    if kind == "Patient" and (logical_id := tree.first_text(element, "id")):
        yield f"Patient/{logical_id}"
    for identifier in tree.child_elements(element, "identifier"):
        # A search may leave out the system.
        yield f"{kind}?identifier={identifier_token(identifier)}"
        yield f"{kind}?identifier={tree.first_text(identifier, 'value')}"


def _keys_of_logical_reference(element: Element) -> Iterator[str]:
    identifiers = tree.child_elements(element, "identifier")
    if not identifiers or not element.keys() <= _REFERENCE:
        return
    # A reference without a type may be to a patient.
    if tree.first_text(element, "type").rpartition("/")[2] in ("", "Patient"):
        yield f"Patient?identifier={identifier_token(identifiers[0])}"


def identifier_token(identifier: Element) -> str:
    """Return an Identifier as the value of a search parameter."""
    system, value = tree.first_text(identifier, "system"), tree.first_text(identifier, "value")
    return f"{system}|{value}" if system else value
