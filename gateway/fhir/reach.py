"""Determines from the parameters of a search alone which resource types it concerns.

The query of a URL, the form of a search by POST and the value of If-None-Exist are treated alike.
The result decides what a caller limited to some types may search, so the platform must not
interpret the parameters differently: they are parsed as the most lenient server would (`;`
separates too, names are case-insensitive), and a parameter in doubt counts as outside the types.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_plus

from gateway.config.resource_types import RESOURCE_TYPES

# No real search has more, and parsing more would block the event loop.
_MAX_PAIRS: Final = 1000
_MAX_NAME_LENGTH: Final = 256
_MAX_VALUE_LENGTH: Final = 2048
# Parameters that concern only the searched resources and the form of the response.
_HARMLESS: Final = frozenset(
    (
        *("_id", "_lastupdated", "_tag", "_profile", "_security", "_source", "_language"),
        *("_text", "_content", "_score", "_since", "_at"),
        *("_count", "_page", "_cursor", "_offset", "_maxresults", "_total"),
        *("_summary", "_elements", "_format", "_pretty"),
    )
)
_MODIFIERS: Final = frozenset(
    (
        *(
            "missing",
            "exact",
            "contains",
            "text",
            "text-advanced",
            "code-text",
            "not",
            "identifier",
        ),
        *("above", "below", "in", "not-in", "of-type"),
    )
)
# Parameters that turn the request into another one, by a method or an operation.
_DISGUISES: Final = frozenset(("_method", "_query", "_graph"))
_INCLUSIONS: Final = frozenset(("_include", "_revinclude"))
_INCLUSION_MODIFIERS: Final = frozenset(("", "iterate", "recurse"))
_SORT_MODIFIERS: Final = frozenset(("", "asc", "desc"))
# The only reference parameter with a single target type (R5, clinical-patient).
_TARGETS: Final = {"patient": "Patient"}
_SEPARATOR: Final = re.compile("[&;]")
_PARAMETER: Final = r"[A-Za-z][A-Za-z0-9_\-]*"
_STEP: Final = re.compile(rf"({_PARAMETER})(?::([A-Za-z\-]+))?(?:\.(.+))?").fullmatch
_COMMON: Final = re.compile(r"(_[A-Za-z]+)(?::([A-Za-z\-]+))?").fullmatch
_REVERSE: Final = re.compile(rf"_has:([A-Za-z]+):{_PARAMETER}:(.+)", re.IGNORECASE).fullmatch
_INCLUDED: Final = re.compile(rf"([A-Za-z]+):{_PARAMETER}(?::([A-Za-z]+))?").fullmatch


def is_limited_to_types(parameters: str, types: frozenset[str]) -> bool:
    """Return whether raw parameters of a search of one of `types` concern `types` only.

    Chains, reverse chains, inclusions and sorting concern every type that they pass through, which
    must be named. Never raises.
    """
    if _has_too_many(parameters):
        return False
    for name, value in _pairs(parameters):
        base, _, modifier = name.partition(":")
        base = base.lower()
        if base in _INCLUSIONS:
            fits = modifier.lower() in _INCLUSION_MODIFIERS and _inclusion_stays_within(
                base, value, types
            )
        elif base == "_sort":
            fits = modifier.lower() in _SORT_MODIFIERS and _sort_stays_within(value, types)
        else:
            fits = _name_stays_within(name, types)
        if not fits or value is None:
            return False
    return True


def overrides_request(parameters: str) -> bool:
    """Return whether raw parameters turn the request into another one, or are too many to check."""
    if _has_too_many(parameters):
        return True
    names = (name.partition(":")[0].strip().lower() for name, _ in _pairs(parameters))
    return not _DISGUISES.isdisjoint(names)


def _has_too_many(parameters: str) -> bool:
    return parameters.count("&") + parameters.count(";") >= _MAX_PAIRS


def _pairs(parameters: str) -> Iterator[tuple[str, str | None]]:
    """Yield decoded names with raw values; the value is None where there is no "="."""
    for pair in _SEPARATOR.split(parameters):
        if pair:
            name, equals, value = pair.partition("=")
            yield unquote_plus(name), value if equals else None


def _name_stays_within(name: str, types: frozenset[str]) -> bool:
    """Return whether the name of a parameter, with its chain, leads through `types` only."""
    while len(name) <= _MAX_NAME_LENGTH:
        reverse = _REVERSE(name)
        if reverse is not None:
            target, rest = reverse.groups()
        else:
            step = _STEP(name)
            if step is None:
                return _is_harmless(name)
            parameter, modifier, rest = step.groups()
            if rest is None:
                return modifier is None or modifier in _MODIFIERS or modifier in RESOURCE_TYPES
            target = modifier or _TARGETS.get(parameter)
        if target not in types:
            return False
        name = rest
    return False


def _is_harmless(name: str) -> bool:
    match = _COMMON(name)
    if match is None or match[1].lower() not in _HARMLESS:
        return False
    return match[2] is None or match[2] in _MODIFIERS


def _inclusion_stays_within(base: str, value: str | None, types: frozenset[str]) -> bool:
    """Return whether an inclusion adds resources of `types` only."""
    match = _INCLUDED(_decoded(value))
    if match is None or match[1] not in types:
        return False
    target = match[2]
    # `_revinclude` adds resources of the type `match[1]`; `_include` adds any that these refer to.
    return target in types if target is not None else base == "_revinclude"


def _sort_stays_within(value: str | None, types: frozenset[str]) -> bool:
    keys = _decoded(value).split(",")
    return all(_name_stays_within(key.strip().removeprefix("-"), types) for key in keys)


def _decoded(value: str | None) -> str:
    """Return the decoded value, "" where it is missing or too long to be one."""
    return unquote_plus(value) if value is not None and len(value) <= _MAX_VALUE_LENGTH else ""
