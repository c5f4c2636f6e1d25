"""Searching: parsing of a query, and matching of resources.

As on the national platform, an unknown parameter is ignored and missing from the `self` link, but a
parameter that does not filter is included. An unsupported modifier or an invalid value is an error
(FHIR R5 search 3.2.1.5.5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.sandbox import quantities
from gateway.sandbox.codec import JsonObject
from gateway.sandbox.dates import matches, parse_date, range_of
from gateway.sandbox.folding import fold
from gateway.sandbox.outcomes import FhirError, fhir_error
from gateway.sandbox.parameters import SearchParameter

Pairs = Sequence[tuple[str, str]]
MatchTest = Callable[[Any], bool]

_PREFIXES: Final = frozenset({"eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"})
_MODIFIERS: Final = {
    "string": ("exact", "contains"),
    "token": ("not",),
    "uri": ("below",),
    "reference": ("[type]",),
}
_PHONE_DIGITS: Final = 9
_COMMA: Final = re.compile(r"(?<!\\),")
_BAR: Final = re.compile(r"(?<!\\)\|")
_DOLLAR: Final = re.compile(r"(?<!\\)\$")


@dataclass(frozen=True, slots=True)
class Criterion:
    """One parameter of a query: a resource matches if one of the alternatives does."""

    parameter: SearchParameter
    modifier: str
    alternatives: tuple[MatchTest, ...]

    def matches(self, resource: JsonObject) -> bool:
        """Return whether the resource meets this criterion."""
        values = self.parameter.values(resource)
        if self.modifier == "missing":
            return any(test(not values) for test in self.alternatives)
        found = any(test(value) for value in values for test in self.alternatives)
        return not found if self.modifier == "not" else found


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed query. `applied` holds the known pairs, `ignored` the names of the others."""

    criteria: tuple[Criterion, ...]
    applied: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]

    def matches(self, resource: JsonObject) -> bool:
        """Return whether a resource meets all criteria."""
        return all(criterion.matches(resource) for criterion in self.criteria)


def parse_query(known: Mapping[str, SearchParameter], pairs: Pairs, base: str) -> Query:
    """Parse a query's pairs, without those of paging. Raises FhirError 400 for an invalid value."""
    criteria: list[Criterion] = []
    applied: list[tuple[str, str]] = []
    ignored: list[str] = []
    for name, value in pairs:
        parameter = known.get(name.partition(":")[0])
        if parameter is None or not value:
            ignored.append(name)
            continue
        applied.append((name, value))
        if parameter.filters:
            criteria.append(_criterion(parameter, name.partition(":")[2], value, base))
    return Query(tuple(criteria), tuple(applied), tuple(ignored))


def _criterion(parameter: SearchParameter, modifier: str, value: str, base: str) -> Criterion:
    alternatives = tuple(
        _test(parameter, modifier, alternative, base) for alternative in _COMMA.split(value)
    )
    return Criterion(parameter, modifier, alternatives)


def _test(parameter: SearchParameter, modifier: str, value: str, base: str) -> MatchTest:
    if modifier == "missing":
        return _missing_test(parameter, value)
    if parameter.kind == "reference":
        return _reference_test(parameter, modifier, _unescape(value), base)
    if modifier and modifier not in _MODIFIERS.get(parameter.kind, ()):
        raise _unsupported_modifier(parameter, modifier)
    if parameter.kind == "composite":
        return _composite_test(parameter, value, base)
    if parameter.kind in _BY_PREFIX:
        return _BY_PREFIX[parameter.kind](parameter, value)
    if parameter.kind == "token":
        return _token_test(value)
    if parameter.kind == "uri":
        return _uri_test(modifier, _unescape(value))
    return _string_test("contains" if parameter.kind == "special" else modifier, _unescape(value))


def _composite_test(parameter: SearchParameter, value: str, base: str) -> MatchTest:
    """Return a test of `code$value`, both in the same element.

    A value with a wrong number of parts, or an invalid part, never matches.
    """
    values = _DOLLAR.split(value)
    try:
        pairs = [
            (part, _test(part, "", text, base))
            for part, text in zip(parameter.parts, values, strict=True)
        ]
    except (FhirError, ValueError):
        return lambda element: False

    def test(element: Any) -> bool:
        return all(any(map(test, part.values(element))) for part, test in pairs)

    return test


def _missing_test(parameter: SearchParameter, value: str) -> MatchTest:
    if value not in ("true", "false"):
        raise fhir_error(400, "value", f"{parameter.name}:missing takes true or false")
    wanted = value == "true"
    return lambda missing: bool(missing) is wanted


def _date_test(parameter: SearchParameter, value: str) -> MatchTest:
    prefix, text = _prefixed(value)
    try:
        requested = parse_date(text)
    except (ValueError, OverflowError):
        raise _not_understood(parameter, "a date such as 1990-01-01") from None

    def test(value: Any) -> bool:
        found = range_of(value)
        return found is not None and matches(prefix, requested, found)

    return test


def _prefixed(value: str) -> tuple[str, str]:
    return (value[:2], value[2:]) if value[:2] in _PREFIXES else ("eq", value)


def _not_understood(parameter: SearchParameter, wanted: str) -> FhirError:
    hint = f"{wanted}, optionally after eq, ne, gt, lt, ge, le, sa, eb or ap"
    return fhir_error(400, "value", f"the parameter {parameter.name} takes {hint}")


def _number_test(parameter: SearchParameter, value: str) -> MatchTest:
    prefix, text = _prefixed(value)
    try:
        requested = quantities.parse_number(text)
    except ValueError:
        raise _not_understood(parameter, "a number such as 5.4") from None
    return lambda found: quantities.matches(prefix, requested, found)


def _quantity_test(parameter: SearchParameter, value: str) -> MatchTest:
    """Return a test of `number|system|code`, where the system may be empty, and the unit absent."""
    number, *unit = map(_unescape, _BAR.split(value))
    by_number = _number_test(parameter, number)
    system, code = unit if len(unit) == 2 else ("", "".join(unit))

    def test(found: Any) -> bool:
        return (
            isinstance(found, dict)
            and by_number(found.get("value"))
            and (not system or found.get("system") == system)
            and (not code or code in (found.get("code"), found.get("unit")))
        )

    return test


_BY_PREFIX: Final[Mapping[str, Callable[[SearchParameter, str], MatchTest]]] = {
    "date": _date_test,
    "number": _number_test,
    "quantity": _quantity_test,
}


def _token_test(value: str) -> MatchTest:
    *system, code = _BAR.split(value, maxsplit=1)
    wanted_system = _unescape(system[0]) if system else None
    wanted_code = _unescape(code)

    def test(value: Any) -> bool:
        return any(
            (wanted_system is None or found_system is None or found_system == wanted_system)
            and (
                not wanted_code
                or found_code == wanted_code
                or (found_system == "phone" and _same_number(found_code, wanted_code))
            )
            for found_system, found_code in _tokens(value)
        )

    return test


def _same_number(found: Any, wanted: str) -> bool:
    """Return whether two phone numbers are equal. Formats vary, so that digits are compared.

    The last nine digits are the national number in Uzbekistan.
    """
    found_digits, wanted_digits = (
        re.sub(r"\D", "", str(text))[-_PHONE_DIGITS:] for text in (found, wanted)
    )
    return found_digits == wanted_digits and len(found_digits) == _PHONE_DIGITS


def _tokens(value: Any) -> Iterable[tuple[str | None, Any]]:
    """Yield (system, code); the system is None if the type of the element implies it."""
    if isinstance(value, bool):
        yield None, "true" if value else "false"
    elif isinstance(value, str):
        yield None, value
    elif isinstance(value, dict) and "coding" in value:
        for coding in value["coding"]:
            yield coding.get("system", ""), coding.get("code", "")
    elif isinstance(value, dict):
        yield value.get("system", ""), value.get("code", value.get("value", ""))


def _uri_test(modifier: str, wanted: str) -> MatchTest:
    if modifier == "below":
        return lambda value: isinstance(value, str) and value.startswith(wanted)
    return lambda value: value == wanted


def _string_test(modifier: str, wanted: str) -> MatchTest:
    if modifier == "exact":
        return lambda value: value == wanted
    folded = fold(wanted)
    if modifier == "contains":
        return lambda value: isinstance(value, str) and folded in fold(value)
    return lambda value: isinstance(value, str) and fold(value).startswith(folded)


def _reference_test(parameter: SearchParameter, modifier: str, value: str, base: str) -> MatchTest:
    if modifier and not modifier[0].isupper():
        raise _unsupported_modifier(parameter, modifier)
    relative = value.removeprefix(f"{base}/")
    wanted = relative if "/" in relative or not modifier else f"{modifier}/{relative}"

    def test(value: Any) -> bool:
        # A canonical is a reference too, but a string.
        target = value.get("reference") if isinstance(value, dict) else value
        if not isinstance(target, str):
            return False
        found = target.removeprefix(f"{base}/").partition("/_history/")[0]
        if modifier and not found.startswith(f"{modifier}/"):
            return False
        return wanted in (found, found.partition("|")[0]) or (
            "/" not in wanted and found.rpartition("/")[2] == wanted
        )

    return test


def _unescape(text: str) -> str:
    return re.sub(r"\\([,|$\\])", r"\1", text)


def _unsupported_modifier(parameter: SearchParameter, modifier: str) -> FhirError:
    known = sorted(("missing", *_MODIFIERS.get(parameter.kind, ())))
    return fhir_error(
        400, "not-supported", f"the parameter {parameter.name} knows only :{', :'.join(known)}"
    )
