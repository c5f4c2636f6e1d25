"""Searching: parsing of a query, and matching of resources.

As on the national platform, an unknown parameter is ignored and missing from the `self` link, but a
parameter that does not filter is included. An unsupported modifier or an invalid value is an error
(FHIR R5 search 3.2.1.5.5). A search parameter finds its values in a resource by its path.

Numbers follow FHIR R5 search 3.2.1.5.7, dates 3.2.1.5.8: every date is a range, as wide as its
precision. A range is half-open and in seconds of Unix time. A date without an offset is taken as
UTC. Text is normalized: case, accents and kinds of apostrophes are ignored.
"""

from __future__ import annotations

import calendar
import math
import operator
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

from gateway.sandbox.fhir.errors import FhirError, fhir_error
from gateway.sandbox.fhir.json_codec import JsonObject

_STEP: Final = re.compile(r"(\w+)(?:\[(\w+)(?:=([\w-]+))?\])?(\?)?")


@dataclass(frozen=True, slots=True)
class Step:
    """One element of a path.

    `key` and `required_value` restrict the elements. With `exists` the value is whether there is
    one.
    """

    name: str
    key: str = ""
    required_value: str = ""
    exists: bool = False

    def values(self, node: JsonObject) -> Iterator[Any]:
        """Yield the values of this step in a node."""
        found = node.get(self.name, [])
        for value in found if isinstance(found, list) else [found]:
            if self._admits(value):
                yield True if self.exists else value

    def _admits(self, value: Any) -> bool:
        if not self.key:
            return True
        if not isinstance(value, dict):
            return False
        if self.required_value:
            return bool(value.get(self.key) == self.required_value)
        return f"/{self.key}/" in f"/{value.get('reference')}"


Path = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class SearchParameter:
    """A search parameter; `kind` is a code of the value set search-param-type.

    A composite has `parts`, whose paths are relative to its own. If `filters` is false, the
    parameter is accepted like any other, but all resources match.
    """

    name: str
    kind: str
    paths: tuple[Path, ...]
    parts: tuple[SearchParameter, ...] = ()
    filters: bool = True

    def values(self, resource: JsonObject) -> list[Any]:
        """Return the values of the parameter in a resource."""
        return [value for path in self.paths for value in _walk(resource, path)]


def parse_parameter(row: str) -> SearchParameter:
    """Parse `NAME KIND PATH …`, as described in `declared.txt`."""
    name, kind, *paths = row.split()
    parts: tuple[SearchParameter, ...] = ()
    if kind == "composite":
        paths, part_texts = paths[:1], paths[1:]
        parts = tuple(_part(name, text) for text in part_texts)
    return SearchParameter(
        name.rstrip("!"),
        kind,
        tuple(_path(path) for path in paths),
        parts,
        filters=not name.endswith("!"),
    )


def _part(name: str, text: str) -> SearchParameter:
    path, _, kind = text.partition(":")
    return SearchParameter(name, kind, (_path(path),))


def _path(text: str) -> Path:
    steps = (_STEP.fullmatch(step) for step in text.split("."))
    return tuple(
        Step(step[1], step[2] or "", step[3] or "", exists=bool(step[4])) for step in steps if step
    )


def _walk(node: Any, path: Path) -> Iterator[Any]:
    if not path:
        yield node
    elif isinstance(node, dict):
        for value in path[0].values(node):
            yield from _walk(value, path[1:])


_MAX_EXPONENT: Final = 1000  # well within the limits of decimal arithmetic


def _parse_number(text: str) -> Decimal:
    """Return the number of a search value. Raises ValueError."""
    try:
        number = Decimal(text)
    except ArithmeticError:
        raise ValueError("not a number") from None
    if not number.is_finite() or abs(number.adjusted()) > _MAX_EXPONENT:
        raise ValueError("not a number, or out of range")
    return number


def _matches_quantity(prefix: str, requested: Decimal, found: Any) -> bool:
    """Return whether a resource's number matches the searched one; False if it is no number."""
    if isinstance(found, bool) or not isinstance(found, int | Decimal):
        return False
    return _QUANTITY_TESTS[prefix](found, requested)


def _rounds_to(found: int | Decimal, requested: Decimal) -> bool:
    """Return whether `found` rounds to `requested` at its precision: 99.5 to 100.5 for 100."""
    half = Decimal(5).scaleb(int(requested.as_tuple().exponent) - 1)
    return requested - half <= found < requested + half


# By prefix: whether the number that was found matches the searched one.
_QUANTITY_TESTS: Final[Mapping[str, Callable[[int | Decimal, Decimal], bool]]] = {
    "eq": _rounds_to,
    "ne": lambda found, requested: not _rounds_to(found, requested),
    "gt": operator.gt,
    "lt": operator.lt,
    "ge": operator.ge,
    "le": operator.le,
    "sa": operator.gt,
    "eb": operator.lt,
    "ap": lambda found, requested: abs(found - requested) <= abs(requested) / 10,
}


_APOSTROPHES: Final = str.maketrans(dict.fromkeys("‘’ʻʼ`´", "'"))


def fold(text: str) -> str:
    """Return the text without differences that searches ignore (FHIR R5 search 3.2.1.5.9)."""
    decomposed = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES))
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()


# A plus sign that was not percent-encoded arrives as a space.
_DATE: Final = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?(Z|[+ -]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class DateRange:
    """The range from `low`, inclusive, to `high`, exclusive."""

    low: float
    high: float

    def contains(self, other: DateRange) -> bool:
        """Return whether the other range lies completely in this one."""
        return self.low <= other.low and other.high <= self.high


# By prefix: whether a resource's date (`found`) matches the searched one.
_DATE_TESTS: Final[Mapping[str, Callable[[DateRange, DateRange], bool]]] = {
    "eq": lambda found, requested: requested.contains(found),
    "ne": lambda found, requested: not requested.contains(found),
    "gt": lambda found, requested: found.high > requested.high,
    "lt": lambda found, requested: found.low < requested.low,
    "ge": lambda found, requested: found.high > requested.high or requested.contains(found),
    "le": lambda found, requested: found.low < requested.low or requested.contains(found),
    "sa": lambda found, requested: found.low >= requested.high,
    "eb": lambda found, requested: found.high <= requested.low,
    "ap": lambda found, requested: requested.low < found.high and found.low < requested.high,
}


def parse_date(text: str) -> DateRange:
    """Return the range of a FHIR date, dateTime or instant. Raises ValueError."""
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError("not a date")
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    start = datetime(
        int(year),
        int(month or 1),
        int(day or 1),
        int(hour or 0),
        int(minute or 0),
        int(second or 0),
        tzinfo=_zone(offset),
    )
    low = start.timestamp() + float(fraction or 0)
    if fraction is not None:
        return DateRange(low, low + 10.0 ** -(len(fraction) - 1))
    return DateRange(low, low + _width(start, month, day, hour, second))


def range_of(value: Any) -> DateRange | None:
    """Return the range of a date or a Period in a resource; None if it is neither."""
    try:
        if isinstance(value, str):
            return parse_date(value)
        if isinstance(value, dict) and ("start" in value or "end" in value):
            low = parse_date(value["start"]).low if "start" in value else -math.inf
            high = parse_date(value["end"]).high if "end" in value else math.inf
            return DateRange(low, high)
    except (TypeError, ValueError):
        return None
    return None


def _zone(offset: str | None) -> timezone:
    if offset is None or offset == "Z":
        return UTC
    hours, minutes = offset[1:].split(":")
    shift = timedelta(hours=int(hours), minutes=int(minutes))
    return timezone(-shift if offset[0] == "-" else shift)


def _width(
    start: datetime, month: str | None, day: str | None, hour: str | None, second: str | None
) -> float:
    if month is None:
        return 86400.0 * (366 if calendar.isleap(start.year) else 365)
    if day is None:
        return 86400.0 * calendar.monthrange(start.year, start.month)[1]
    if hour is None:
        return 86400.0
    return 60.0 if second is None else 1.0


Pairs = Sequence[tuple[str, str]]
MatchTest = Callable[[Any], bool]

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
        return found is not None and _DATE_TESTS[prefix](found, requested)

    return test


def _prefixed(value: str) -> tuple[str, str]:
    return (value[:2], value[2:]) if value[:2] in _DATE_TESTS else ("eq", value)


def _not_understood(parameter: SearchParameter, wanted: str) -> FhirError:
    hint = f"{wanted}, optionally after eq, ne, gt, lt, ge, le, sa, eb or ap"
    return fhir_error(400, "value", f"the parameter {parameter.name} takes {hint}")


def _number_test(parameter: SearchParameter, value: str) -> MatchTest:
    prefix, text = _prefixed(value)
    try:
        requested = _parse_number(text)
    except ValueError:
        raise _not_understood(parameter, "a number such as 5.4") from None
    return lambda found: _matches_quantity(prefix, requested, found)


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
