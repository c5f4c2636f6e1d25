"""The icon of the page's tab."""

from __future__ import annotations

from urllib.parse import quote

from gateway.templates import environment


def tab_icon(answer: str) -> str:
    """Return the icon of the page's tab as a data URL."""
    drawn = environment().get_template("signs.svg").module.icon(answer)  # type: ignore[attr-defined]
    return f"data:image/svg+xml,{quote(drawn)}"
