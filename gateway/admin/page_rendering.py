"""What the operators' pages share: templates, style, scripts, header fields, and formats of values.

The header fields of a page allow only its own style and script. Numbers, percentages and durations
are formatted in the language of the page: templates use the formats as filters.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from gateway.i18n import SECOND, Message, format_span, language_name
from gateway.pipeline.callers import ANONYMOUS
from gateway.templates import environment, file_text, hash_source

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER: Final = "admin/static"
STYLE: Final = file_text(_FOLDER, "operators.css")
# The part of scripts that shows times in the browser's time zone.
_TIMES: Final = file_text(_FOLDER, "times.js")


def page_script(name: str) -> str:
    """Return the script of a page with the part that all scripts share."""
    return file_text(_FOLDER, name).replace("  // times.js\n", _TIMES)


def headers(style: str, script: str) -> dict[str, str]:
    """Return the header fields of a page that allow only this style and script."""
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src {hash_source(style)}; "
            f"script-src {hash_source(script)}; connect-src 'self'; img-src data:; "
            "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "Vary": "Accept-Language",
    }


@cache
def templates() -> Environment:
    """Return the environment of templates with the filters of the operators' pages."""
    # Imported here for the reason that `environment` gives.
    from jinja2 import pass_context

    def in_page_language(form: Callable[..., str]) -> Callable[..., str]:
        return pass_context(lambda context, *values: form(*values, context["language"]))

    made = environment()
    made.filters |= {
        "span": in_page_language(format_span),
        "number": in_page_language(format_number),
        "percentage": in_page_language(format_percentage),
        "duration": in_page_language(format_duration),
        "language_name": language_name,
        "host": host,
        "setting": _setting_text,
    }
    made.globals["anonymous"] = ANONYMOUS.name
    return made


def host(url: str) -> str:
    """Return host and port of a URL; a text without them is returned unchanged."""
    return urlsplit(url).netloc or url


def _setting_text(value: object) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


# A space at which browsers do not break the line.
_SPACE: Final = "\N{NO-BREAK SPACE}"
# Smaller numbers have no thousands separator.
_GROUPED_FROM: Final = 10_000
_THOUSANDS: Final = Message.within("thousands", ",")
_DECIMAL: Final = Message.within("decimal", ".")
_MILLISECOND: Final = Message("ms")


def format_number(value: int, language: str) -> str:
    """Return an integer as text, with thousands separators from `_GROUPED_FROM` on."""
    if value < _GROUPED_FROM:
        return str(value)
    return f"{value:,}".replace(",", _THOUSANDS.in_language(language))


def format_percentage(part: int, whole: int, language: str) -> str:
    """Return `part` as a percentage of `whole`: `100 %` only for all, `0 %` only for none."""
    percent = 100 * part / whole
    if part and percent < 0.1:
        return f"< {_decimal(0.1, language)}{_SPACE}%"
    if part < whole and percent > 99.9:
        return f"> {_decimal(99.9, language)}{_SPACE}%"
    few = percent < 10 or percent > 99
    return f"{_decimal(percent, language) if few else round(percent)}{_SPACE}%"


def format_duration(duration: float, language: str) -> str:
    """Return a duration, given in milliseconds, in milliseconds, seconds or larger units."""
    if duration >= 59_950:
        return format_span(round(duration / 1000), language)
    if duration >= 999.5:
        return f"{_decimal(duration / 1000, language)}{_SPACE}{SECOND.in_language(language)}"
    shown = _decimal(duration, language) if duration < 9.95 else round(duration)
    return f"{shown}{_SPACE}{_MILLISECOND.in_language(language)}"


def _decimal(value: float, language: str) -> str:
    """Return a number with one decimal, which is left out if it is 0."""
    return f"{value:.1f}".removesuffix(".0").replace(".", _DECIMAL.in_language(language))
