"""Searching: what a query asks, which resources answer it, and which of its parts were ignored.

As on the national platform a parameter that is not known is ignored, and is missing from the `self`
link. A modifier or a value that is not understood is an error (FHIR R5 search 3.2.1.5.5).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.sandbox.codec import JsonObject
from gateway.sandbox.dates import matches, parse_date, range_of
from gateway.sandbox.outcomes import fhir_error
from gateway.sandbox.parameters import SEARCH_PARAMETERS, SearchParameter

Pairs = Sequence[tuple[str, str]]
Test = Callable[[Any], bool]

_PREFIXES: Final = frozenset({"eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"})
_MODIFIERS: Final = {
    "string": ("exact", "contains"),
    "token": ("not",),
    "date": (),
    "uri": ("below",),
}
_PERSON_REFERENCE: Final = "patient"
_APOSTROPHES: Final = str.maketrans(dict.fromkeys("‘’ʻʼ`´", "'"))
_COMMA: Final = re.compile(r"(?<!\\),")
_BAR: Final = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True, slots=True)
class Criterion:
    """One parameter of a query: a resource matches when one of the alternatives does."""

    parameter: SearchParameter
    modifier: str
    alternatives: tuple[Test, ...]

    def matches(self, resource: JsonObject) -> bool:
        """Whether the resource meets this criterion."""
        values = self.parameter.values(resource)
        if self.modifier == "missing":
            return any(test(not values) for test in self.alternatives)
        found = any(test(value) for value in values for test in self.alternatives)
        return not found if self.modifier == "not" else found


@dataclass(frozen=True, slots=True)
class Query:
    """`applied` holds the pairs that were understood, `ignored` the names of the others."""

    criteria: tuple[Criterion, ...]
    applied: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]

    def matches(self, resource: JsonObject) -> bool:
        """Whether a resource meets all criteria."""
        return all(criterion.matches(resource) for criterion in self.criteria)


def parse_query(type_: str, pairs: Pairs, base: str) -> Query:
    """Read a query's pairs, without those of paging. Raises FhirError 400 for a bad value."""
    known = SEARCH_PARAMETERS[type_]
    criteria: list[Criterion] = []
    applied: list[tuple[str, str]] = []
    ignored: list[str] = []
    for name, value in pairs:
        parameter = known.get(name.partition(":")[0])
        if parameter is None or not value:
            ignored.append(name)
        else:
            criteria.append(_criterion(parameter, name.partition(":")[2], value, base))
            applied.append((name, value))
    return Query(tuple(criteria), tuple(applied), tuple(ignored))


def _criterion(parameter: SearchParameter, modifier: str, value: str, base: str) -> Criterion:
    alternatives = tuple(
        _test(parameter, modifier, alternative, base) for alternative in _COMMA.split(value)
    )
    return Criterion(parameter, modifier, alternatives)


def _test(parameter: SearchParameter, modifier: str, value: str, base: str) -> Test:
    if modifier == "missing":
        return _missing_test(parameter, value)
    if parameter.kind == "reference":
        return _reference_test(parameter, modifier, _unescape(value), base)
    if modifier and modifier not in _MODIFIERS[parameter.kind]:
        raise _unsupported_modifier(parameter, modifier)
    if parameter.kind == "date":
        return _date_test(parameter, value)
    if parameter.kind == "token":
        return _token_test(value)
    if parameter.kind == "uri":
        return _uri_test(modifier, _unescape(value))
    return _string_test(modifier, _unescape(value))


def _missing_test(parameter: SearchParameter, value: str) -> Test:
    if value not in ("true", "false"):
        raise fhir_error(400, "value", f"{parameter.name}:missing takes true or false")
    wanted = value == "true"
    return lambda missing: bool(missing) is wanted


def _date_test(parameter: SearchParameter, value: str) -> Test:
    prefix, text = (value[:2], value[2:]) if value[:2] in _PREFIXES else ("eq", value)
    try:
        asked = parse_date(text)
    except (ValueError, OverflowError):
        hint = "a date such as 1990-01-01, optionally after eq, ne, gt, lt, ge, le, sa, eb or ap"
        raise fhir_error(400, "value", f"the parameter {parameter.name} takes {hint}") from None

    def test(value: Any) -> bool:
        found = range_of(value)
        return found is not None and matches(prefix, asked, found)

    return test


def _token_test(value: str) -> Test:
    *system, code = _BAR.split(value, maxsplit=1)
    wanted_system = _unescape(system[0]) if system else None
    wanted_code = _unescape(code)

    def test(value: Any) -> bool:
        return any(
            (wanted_system is None or found_system is None or found_system == wanted_system)
            and (not wanted_code or found_code == wanted_code)
            for found_system, found_code in _tokens(value)
        )

    return test


def _tokens(value: Any) -> Iterable[tuple[str | None, Any]]:
    """(system, code); the system is None where the element's type implies one."""
    if isinstance(value, bool):
        yield None, "true" if value else "false"
    elif isinstance(value, str):
        yield None, value
    elif isinstance(value, dict) and "coding" in value:
        for coding in value["coding"]:
            yield coding.get("system", ""), coding.get("code", "")
    elif isinstance(value, dict):
        yield value.get("system", ""), value.get("code", value.get("value", ""))


def _uri_test(modifier: str, wanted: str) -> Test:
    if modifier == "below":
        return lambda value: isinstance(value, str) and value.startswith(wanted)
    return lambda value: value == wanted


def _string_test(modifier: str, wanted: str) -> Test:
    if modifier == "exact":
        return lambda value: value == wanted
    folded = _fold(wanted)
    if modifier == "contains":
        return lambda value: isinstance(value, str) and folded in _fold(value)
    return lambda value: isinstance(value, str) and _fold(value).startswith(folded)


def _fold(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES))
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()


def _reference_test(parameter: SearchParameter, modifier: str, value: str, base: str) -> Test:
    if modifier and not modifier[0].isupper():
        raise _unsupported_modifier(parameter, modifier)
    wanted_type = modifier or ("Patient" if parameter.name == _PERSON_REFERENCE else "")
    relative = value.removeprefix(f"{base}/")
    wanted = relative if "/" in relative or not wanted_type else f"{wanted_type}/{relative}"

    def test(value: Any) -> bool:
        target = value.get("reference") if isinstance(value, dict) else None
        if not isinstance(target, str):
            return False
        found = target.removeprefix(f"{base}/").partition("/_history/")[0]
        if wanted_type and not found.startswith(f"{wanted_type}/"):
            return False
        return found == wanted or ("/" not in wanted and found.rpartition("/")[2] == wanted)

    return test


def _unescape(text: str) -> str:
    return re.sub(r"\\([,|$\\])", r"\1", text)


def _unsupported_modifier(parameter: SearchParameter, modifier: str) -> Exception:
    known = sorted(("missing", *_MODIFIERS.get(parameter.kind, ("[type]",))))
    return fhir_error(
        400, "not-supported", f"the parameter {parameter.name} knows only :{', :'.join(known)}"
    )
