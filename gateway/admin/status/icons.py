"""The symbol of a service status and the icon of the page's tab, as SVG.

Symbols differ in shape as well as in colour.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

# Two discs, a triangle and an octagon, each with the mark that is cut out of it.
_SHAPES: Final = {
    "yes": (
        '<circle cx="12" cy="12" r="11"/>',
        '<path d="M6.5 12.5l3.8 3.8 7.2-8"/>',
    ),
    "untried": (
        '<circle cx="12" cy="12" r="11"/>',
        '<path d="M8.6 9a3.4 3.4 0 1 1 5 3c-1 .6-1.6 1.2-1.6 2.4M12 18v.6"/>',
    ),
    "degraded": (
        '<path d="M12 1.5L23.5 22H.5z"/>',
        '<path d="M12 8.5v6.5M12 18v.6"/>',
    ),
    "no": (
        '<path d="M7.5 1h9L23 7.5v9L16.5 23h-9L1 16.5v-9z"/>',
        '<path d="M7.8 7.8l8.4 8.4M16.2 7.8l-8.4 8.4"/>',
    ),
}
_ICON_COLOURS: Final = {
    "yes": "#0f6b34",
    "untried": "#4d5966",
    "degraded": "#9a5b00",
    "no": "#b42318",
}


def status_icon(answer: str) -> str:
    """Return the symbol of a service status, in the colour of the surrounding text."""
    shape, mark = _SHAPES[answer]
    return (
        '<svg viewBox="0 0 24 24" aria-hidden="true" focusable="false">'
        f'<g fill="currentColor">{shape}</g>'
        '<g fill="none" stroke="var(--card)" stroke-width="2.6" stroke-linecap="round" '
        f'stroke-linejoin="round">{mark}</g></svg>'
    )


def tab_icon(answer: str) -> str:
    """Return the icon of the page's tab as a data URL."""
    shape, mark = _SHAPES[answer]
    drawn = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24">'
        f'<g fill="{_ICON_COLOURS[answer]}">{shape}</g>'
        '<g fill="none" stroke="#fff" stroke-width="2.8" stroke-linecap="round">'
        f"{mark}</g></svg>"
    )
    return f"data:image/svg+xml,{quote(drawn)}"
