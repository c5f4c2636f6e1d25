"""Numbers in searches (FHIR R5 search 3.2.1.5.7)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

_MAX_EXPONENT: Final = 1000  # well within the limits of decimal arithmetic


def parse_number(text: str) -> Decimal:
    """Return the number of a search value. Raises ValueError."""
    try:
        number = Decimal(text)
    except ArithmeticError:
        raise ValueError("not a number") from None
    if not number.is_finite() or abs(number.adjusted()) > _MAX_EXPONENT:
        raise ValueError("not a number, or out of range")
    return number


def matches(prefix: str, requested: Decimal, found: Any) -> bool:
    """Return whether a resource's number matches the searched one; False if it is no number."""
    if isinstance(found, bool) or not isinstance(found, int | Decimal):
        return False
    match prefix:
        case "gt" | "sa":
            return found > requested
        case "lt" | "eb":
            return found < requested
        case "ge":
            return found >= requested
        case "le":
            return found <= requested
        case "ap":
            return abs(found - requested) <= abs(requested) / 10
        case "ne":
            return not _rounds_to(requested, found)
        case _:
            return _rounds_to(requested, found)


def _rounds_to(requested: Decimal, found: int | Decimal) -> bool:
    """Return whether `found` rounds to `requested` at its precision: 99.5 to 100.5 for 100."""
    half = Decimal(5).scaleb(int(requested.as_tuple().exponent) - 1)
    return requested - half <= found < requested + half
