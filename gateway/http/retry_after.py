"""The field Retry-After (RFC 9110 section 10.2.3), as the SSO and the platform send it."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

# Longest delay used, in seconds (7 days). Longer values are treated as errors; limiting the number
# of digits also prevents overflow.
_MAX_DELAY: Final = 7 * 86400.0
_MAX_DIGITS: Final = 9


def parse_retry_after(
    value: str | None, wall_now: float, *, max_delay: float = _MAX_DELAY
) -> float | None:
    """Return the seconds to wait, 0 to `max_delay`, given as a number or an HTTP date.

    None for anything else. `wall_now` is Unix time.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdecimal():
        return min(float(text), max_delay) if len(text) <= _MAX_DIGITS else max_delay
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp() - wall_now
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return min(max(seconds, 0.0), max_delay)
