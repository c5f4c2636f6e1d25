"""The icon of a page's tab, as an address that holds all of it."""

from __future__ import annotations

from urllib.parse import quote

from gateway.templates import environment


def tab_icon(answer: str) -> str:
    """The sign of a verdict in its colour."""
    drawn = environment().get_template("signs.svg").module.icon(answer)  # type: ignore[attr-defined]
    return f"data:image/svg+xml,{quote(drawn)}"
