"""What pages that are made from code say in other languages: one catalogue for a page and language.

The English text is the key, as in the gateway's own catalogues; deploy/translations.py renews both.
"""

from __future__ import annotations

from pathlib import Path

from babel.messages.pofile import read_po


class Translation:
    """The texts of a page in a language; English where the catalogue has none.

    `asked` has what was asked for, as context and English text, in that order.
    """

    def __init__(self, page: str, language: str) -> None:
        self._catalogue = None
        self.asked: dict[tuple[str | None, str], None] = {}
        path = path_of(page, language)
        if path.exists():
            with path.open("rb") as file:
                self._catalogue = read_po(file, locale=language)

    def __call__(self, english: str, context: str | None = None) -> str:
        """A text; that of its context, if there is one, before that of all others."""
        for each in dict.fromkeys((context, None)):
            found = self._catalogue.get(english, each) if self._catalogue is not None else None
            if found is not None or each is None:
                self.asked[each, english] = None
            if found is not None and found.string:
                return str(found.string)
        return english


def path_of(page: str, language: str) -> Path:
    """Where a page's catalogue stands."""
    return Path(__file__).with_name(f"{page}.{language}.po")
