"""Parts of the operators' pages: text that is markup, moments, spans, numbers, cards, tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Final

from gateway.phrases import LANGUAGE_NAMES

Words = Mapping[str, str]

_SIZES: Final = (("day", 86400), ("hour_unit", 3600), ("minute", 60), ("second", 1))
# A space at which no line is broken.
_SPACE: Final = "\N{NO-BREAK SPACE}"
# Numbers of fewer digits are read without a mark between thousands.
_GROUPED_FROM: Final = 10_000
# Columns of tables that hold numbers.
_NUMBERS: Final = frozenset(
    ("requests", "errors", "refusals", "duration", "status", "attempts", "bytes")
)


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def to_html(value: object) -> str:
    """Markup as it is, anything else as text."""
    return value if isinstance(value, Html) else escape(str(value))


def code_element(text: object) -> str:
    """What is the same in every language: a code, a name of the settings."""
    return Html(f"<code>{escape(str(text))}</code>")


def no_break(text: str) -> str:
    """Text in whose blanks no line is broken."""
    return text.replace(" ", _SPACE)


def mark_commands(text: str) -> str:
    """Text in which what stands between backquotes is to be typed."""
    parts = escape(text).split("`")
    return Html("".join(_command_html(part) if at % 2 else part for at, part in enumerate(parts)))


def _command_html(text: str) -> str:
    kind = "" if text.startswith("dhp-gateway ") else ' class="name"'
    return f"<code{kind}>{text}</code>"


def format_number(value: int, words: Words) -> str:
    """A whole number; great ones have a mark between thousands."""
    return f"{value:,}".replace(",", words["thousands"]) if value >= _GROUPED_FROM else str(value)


def format_percentage(part: int, whole: int, words: Words) -> str:
    """What part is of the whole: `100 %` for all of it only, `0 %` for nothing only."""
    percent = 100 * part / whole
    if part and percent < 0.1:
        return f"< {_decimal(0.1, words)}{_SPACE}%"
    if part < whole and percent > 99.9:
        return f"> {_decimal(99.9, words)}{_SPACE}%"
    few = percent < 10 or percent > 99
    return f"{_decimal(percent, words) if few else round(percent)}{_SPACE}%"


def format_duration(duration: float, words: Words) -> str:
    """How long something took, in the unit that people would take."""
    if duration >= 59_950:
        return format_span(round(duration / 1000), words)
    if duration >= 999.5:
        return f"{_decimal(duration / 1000, words)}{_SPACE}{words['second']}"
    shown = _decimal(duration, words) if duration < 9.95 else round(duration)
    return f"{shown}{_SPACE}{words['millisecond']}"


def _decimal(value: float, words: Words) -> str:
    """With one digit behind the decimal sign, unless that is nought."""
    return f"{value:.1f}".removesuffix(".0").replace(".", words["decimal"])


def unit_names(words: Words) -> str:
    """The names of days, hours, minutes and seconds, for the script."""
    return escape("|".join(words[name] for name, _ in _SIZES))


def format_span(duration: int, words: Words) -> str:
    """A number of seconds in its two greatest units."""
    for place, (name, size) in enumerate(_SIZES):
        if duration >= size or size == 1:
            text = f"{duration // size} {words[name]}"
            if size > 1:
                smaller, smaller_size = _SIZES[place + 1]
                text += f" {duration % size // smaller_size} {words[smaller]}"
            return text
    raise AssertionError("seconds are the smallest unit")


def countdown(left: int | None, words: Words) -> str:
    """A span that the script counts down."""
    if left is None:
        return "–"
    return Html(f'<span data-seconds="{left}">{escape(format_span(max(0, left), words))}</span>')


def time_element(iso: str, *, short: bool = False) -> str:
    """A time in UTC, which the script turns into the reader's.

    `short` is without day, seconds and the word UTC.
    """
    shown = iso[11:16] if short else f"{iso[:19].replace('T', ' ')} UTC"
    mark = " data-short" if short else ""
    return Html(f'<time datetime="{escape(iso)}"{mark}>{escape(shown)}</time>')


def language_links(language: str, addresses: Mapping[str, str], words: Words) -> str:
    """The same page in each language, by its address."""
    links = " ".join(
        f'<a href="{escape(address)}" lang="{each}" title="{LANGUAGE_NAMES[each]}"'
        f"{' aria-current=page' if each == language else ''}>{each}</a>"
        for each, address in addresses.items()
    )
    return f'<nav aria-label="{escape(words["language"])}">{links}</nav>'


def card(title: str, inside: str, words: Words) -> str:
    """A part of a page, under the heading that the words have for it."""
    return f'<section id="{title}" class="card"><h2>{escape(words[title])}</h2>{inside}</section>'


def empty_placeholder(words: Words) -> str:
    """In the place of what is not there."""
    return f"<p>{escape(words['nothing'])}</p>"


def table(
    title: str, columns: Iterable[str], rows: Iterable[Iterable[object]], words: Words
) -> str:
    """A card with a table, whose columns the words name."""
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
    """With its column's name, which narrow screens show in front of it."""
    return f'<td data-name="{name}"{kind}><span>{to_html(value)}</span></td>'
