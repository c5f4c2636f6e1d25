"""Elements of the operators' pages: HTML, times, spans, numbers, cards and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Final

from gateway.i18n import language_name

Words = Mapping[str, str]

_SIZES: Final = (("day", 86400), ("hour_unit", 3600), ("minute", 60), ("second", 1))
_SPACE: Final = "\N{NO-BREAK SPACE}"
# Numbers below it have no thousands separator.
_GROUPED_FROM: Final = 10_000
# Table columns that hold numbers.
_NUMBERS: Final = frozenset(
    ("requests", "errors", "refusals", "duration", "status", "attempts", "bytes")
)


class Html(str):
    """Text that is HTML already and must not be escaped again."""

    __slots__ = ()


def to_html(value: object) -> str:
    """Return `Html` unchanged, and any other value as escaped text."""
    return value if isinstance(value, Html) else escape(str(value))


def code_element(text: object) -> str:
    """Return a `code` element for untranslated text: a code or a name of the settings."""
    return Html(f"<code>{escape(str(text))}</code>")


def no_break(text: str) -> str:
    """Return the text with no-break spaces instead of spaces."""
    return text.replace(" ", _SPACE)


def mark_commands(text: str) -> str:
    """Return the text escaped, with `code` elements for the parts between backquotes."""
    parts = escape(text).split("`")
    return Html("".join(_command_html(part) if at % 2 else part for at, part in enumerate(parts)))


def _command_html(text: str) -> str:
    kind = "" if text.startswith("dhp-gateway ") else ' class="name"'
    return f"<code{kind}>{text}</code>"


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


def unit_names(words: Words) -> str:
    """Return the names of days, hours, minutes and seconds for the script, separated by `|`."""
    return escape("|".join(words[name] for name, _ in _SIZES))


def format_span(duration: int, words: Words) -> str:
    """Return a number of seconds in its two largest units."""
    for place, (name, size) in enumerate(_SIZES):
        if duration >= size or size == 1:
            text = f"{duration // size} {words[name]}"
            if size > 1:
                smaller, smaller_size = _SIZES[place + 1]
                text += f" {duration % size // smaller_size} {words[smaller]}"
            return text
    raise AssertionError("seconds are the smallest unit")


def countdown(left: int | None, words: Words) -> str:
    """Return a span of `left` seconds that the script counts down, a dash for None."""
    if left is None:
        return "–"
    return Html(f'<span data-seconds="{left}">{escape(format_span(max(0, left), words))}</span>')


def time_element(iso: str, *, short: bool = False) -> str:
    """Return a time in UTC, which the script converts to the browser's time zone.

    `short` leaves out the day, the seconds and the word UTC.
    """
    shown = iso[11:16] if short else f"{iso[:19].replace('T', ' ')} UTC"
    mark = " data-short" if short else ""
    return Html(f'<time datetime="{escape(iso)}"{mark}>{escape(shown)}</time>')


def language_links(language: str, addresses: Mapping[str, str], words: Words) -> str:
    """Return links to the page in each language; `addresses` has its addresses by language."""
    links = " ".join(
        f'<a href="{escape(address)}" lang="{each}" title="{language_name(each)}"'
        f"{' aria-current=page' if each == language else ''}>{each}</a>"
        for each, address in addresses.items()
    )
    return f'<nav aria-label="{escape(words["language"])}">{links}</nav>'


def card(title: str, inside: str, words: Words) -> str:
    """Return a section; `title` is its id and the key of its heading."""
    return f'<section id="{title}" class="card"><h2>{escape(words[title])}</h2>{inside}</section>'


def empty_placeholder(words: Words) -> str:
    """Return the text that stands for missing content."""
    return f"<p>{escape(words['nothing'])}</p>"


def table(
    title: str, columns: Iterable[str], rows: Iterable[Iterable[object]], words: Words
) -> str:
    """Return a card with a table; `title` and `columns` are keys of `words`."""
    names = [(escape(words[column]), _kind(column)) for column in columns]
    head = "".join(f"<th scope=col{kind}>{name}</th>" for name, kind in names)
    lines = ([_cell(*each, value) for each, value in zip(names, row, strict=True)] for row in rows)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in lines)
    if not body:
        return card(title, empty_placeholder(words), words)
    shown = (
        f'<div class="wide {title}" id="{title}-rows" tabindex="0" role="region" '
        f'aria-label="{escape(words[title])}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
    return card(title, shown, words)


def _kind(column: str) -> str:
    return " class=number" if column in _NUMBERS else ""


def _cell(name: str, kind: str, value: object) -> str:
    """Return a cell with its column's name, which narrow screens show in front of the value."""
    return f'<td data-name="{name}"{kind}><span>{to_html(value)}</span></td>'
