"""Translations of generated pages: each page has one catalogue for each language.

The English text is the key, as in the catalogues of the gateway; deploy/translations.py updates
both.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from babel.messages.pofile import read_po


class Translation:
    """The texts of a page in a language, in English where the catalogue has no translation.

    The keys of `asked` are context and English text of everything that was translated, in order.
    """

    def __init__(self, page: str, language: str) -> None:
        self._catalogue = None
        self.asked: dict[tuple[str | None, str], None] = {}
        path = path_of(page, language)
        if path.exists():
            with path.open("rb") as file:
                self._catalogue = read_po(file, locale=language)

    def __call__(self, english: str, context: str | None = None) -> str:
        """Return the translation for the context, else the one without a context."""
        for each in dict.fromkeys((context, None)):
            found = self._catalogue.get(english, each) if self._catalogue is not None else None
            if found is not None or each is None:
                self.asked[each, english] = None
            if found is not None and found.string:
                return str(found.string)
        return english


def path_of(page: str, language: str) -> Path:
    """Return the path of the catalogue of a page."""
    return Path(__file__).with_name(f"{page}.{language}.po")


def wrapped(text: str, indent: str = "") -> str:
    """Return a paragraph in lines of at most 100 characters that break no code."""
    whole = re.sub("`[^`]*`", lambda found: found[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(
        whole, 100, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
    return "\n".join(lines).replace("\0", " ")
