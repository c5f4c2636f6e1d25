"""What the operators' pages share: style, scripts, icon, header fields, and formats of values.

The header fields of a page allow only its own style and script. The outbox pages share `STYLE`,
`TIMES` and `headers` with the status page. Numbers, percentages and durations are formatted in the
language of the page.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from gateway.i18n import format_span
from gateway.templates import environment, file_text

if TYPE_CHECKING:
    from gateway.i18n import Words

_FOLDER: Final = "admin/static"
STYLE: Final = file_text(_FOLDER, "operators.css")
# The part of scripts that shows times in the browser's time zone.
TIMES: Final = file_text(_FOLDER, "times.js")
SCRIPT: Final = file_text(_FOLDER, "status.js").replace("  // times.js\n", TIMES)


def _source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def headers(style: str, script: str, *, forms: str = "'none'") -> dict[str, str]:
    """Return the header fields of a page that allow only this style and script.

    `forms` is the source list of the directive `form-action`.
    """
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; "
            f"connect-src 'self'; img-src data:; base-uri 'none'; form-action {forms}; "
            "frame-ancestors 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "Vary": "Accept-Language",
    }


HEADERS: Final = headers(STYLE, SCRIPT)


def tab_icon(answer: str) -> str:
    """Return the icon of the page's tab as a data URL."""
    drawn = environment().get_template("signs.svg").module.icon(answer)  # type: ignore[attr-defined]
    return f"data:image/svg+xml,{quote(drawn)}"


# A space at which browsers do not break the line.
_SPACE: Final = "\N{NO-BREAK SPACE}"
# Smaller numbers have no thousands separator.
_GROUPED_FROM: Final = 10_000


def format_number(value: int, words: Words) -> str:
    """Return an integer as text, with thousands separators from `_GROUPED_FROM` on."""
    return f"{value:,}".replace(",", words["thousands"]) if value >= _GROUPED_FROM else str(value)


def format_percentage(part: int, whole: int, words: Words) -> str:
    """Return `part` as a percentage of `whole`: `100 %` only for all, `0 %` only for none."""
    percent = 100 * part / whole
    if part and percent < 0.1:
        return f"< {_decimal(0.1, words)}{_SPACE}%"
    if part < whole and percent > 99.9:
        return f"> {_decimal(99.9, words)}{_SPACE}%"
    few = percent < 10 or percent > 99
    return f"{_decimal(percent, words) if few else round(percent)}{_SPACE}%"


def format_duration(duration: float, words: Words) -> str:
    """Return a duration, given in milliseconds, in milliseconds, seconds or larger units."""
    if duration >= 59_950:
        return format_span(round(duration / 1000), words)
    if duration >= 999.5:
        return f"{_decimal(duration / 1000, words)}{_SPACE}{words['second']}"
    shown = _decimal(duration, words) if duration < 9.95 else round(duration)
    return f"{shown}{_SPACE}{words['millisecond']}"


def _decimal(value: float, words: Words) -> str:
    """Return a number with one decimal, which is left out if it is 0."""
    return f"{value:.1f}".removesuffix(".0").replace(".", words["decimal"])
