"""Which orders a write belongs to: the patients that are named anywhere in it, and the resource.

One order too many makes a wait longer, one too few loses an update: in doubt it is one more. The
keys are plain text such as `Patient/5` or `Patient?identifier=system|value`; the store hashes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qsl, unquote

from gateway.fhir import tree
from gateway.fhir.tree import Element

_ID: Final = r"([A-Za-z0-9\-.]{1,64})"
_PATIENT: Final = re.compile(rf"\bPatient/{_ID}")
_INSTANCE: Final = re.compile(rf"([A-Z][A-Za-z]{{1,63}})/{_ID}(?:/.*)?")
_BARE_ID: Final = re.compile(_ID)
_TYPE: Final = re.compile(r"[A-Z][A-Za-z]{1,63}")
# What a Reference holds; anything else with an identifier is no reference.
_REFERENCE: Final = frozenset(
    {"id", "extension", "reference", "type", "identifier", "display", "_reference", "_type"}
)
# Search parameters whose value is a patient, or may be one.
_SUBJECTS: Final = frozenset(
    {"patient", "subject", "individual", "beneficiary", "for", "actor", "member", "target", "focus"}
)


def of_address(path: str, query: str) -> set[str]:
    """What a raw path relative to the base and its query name, also that of a Bundle's entry."""
    path = unquote(path).strip("/")
    keys = {f"Patient/{found}" for found in _PATIENT.findall(path)}
    instance = _INSTANCE.fullmatch(path)
    if instance is not None:
        keys.add(f"{instance[1]}/{instance[2]}")
    kind = path if _TYPE.fullmatch(path) else ""
    return keys | of_query(kind, query)


def of_query(kind: str, query: str) -> set[str]:
    """What criteria for resources of a type name."""
    keys: set[str] = set()
    for name, value in parse_qsl(query.lstrip("?")):
        keys.update(f"Patient/{found}" for found in _PATIENT.findall(value))
        for each in value.split(","):
            keys.update(_criterion(kind, name, each))
    return keys


def _criterion(kind: str, name: str, value: str) -> Iterator[str]:
    chain, _, last = name.rpartition(".")
    plain = last.partition(":")[0]
    if chain:
        if plain == "identifier" and chain.partition(":")[0] in _SUBJECTS:
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


def of_body(body: Element) -> set[str]:
    """What a resource, a Bundle or a patch names."""
    keys: set[str] = set()
    for element in tree.elements(body):
        for name, children in element.items():
            if name != "div":
                keys.update(_of_texts(children))
        keys.update(_of_resource(element))
        keys.update(_of_logical_reference(element))
    return keys


def _of_texts(children: list[object]) -> Iterator[str]:
    for text in children:
        if isinstance(text, str) and "Patient/" in text:
            yield from (f"Patient/{found}" for found in _PATIENT.findall(text))
        if isinstance(text, str) and "Patient?" in text:
            yield from of_query("Patient", text.partition("Patient?")[2])


def _of_resource(element: Element) -> Iterator[str]:
    """The resource's own identifiers: a search that deletes or updates it may name them."""
    kind = tree.first(element, "resourceType")
    if not kind:
        return
    if kind == "Patient" and (own := tree.first(element, "id")):
        yield f"Patient/{own}"
    for identifier in tree.below(element, "identifier"):
        # A search may leave the system out.
        yield f"{kind}?identifier={token(identifier)}"
        yield f"{kind}?identifier={tree.first(identifier, 'value')}"


def _of_logical_reference(element: Element) -> Iterator[str]:
    identifiers = tree.below(element, "identifier")
    if not identifiers or not element.keys() <= _REFERENCE:
        return
    # Without a type it may be a patient.
    if tree.first(element, "type").rpartition("/")[2] in ("", "Patient"):
        yield f"Patient?identifier={token(identifiers[0])}"


def token(identifier: Element) -> str:
    """An Identifier as the value of a search parameter."""
    system, value = tree.first(identifier, "system"), tree.first(identifier, "value")
    return f"{system}|{value}" if system else value
