"""Normalization of text for searches: ignores case, accents and kinds of apostrophes."""

from __future__ import annotations

import unicodedata
from typing import Final

_APOSTROPHES: Final = str.maketrans(dict.fromkeys("‘’ʻʼ`´", "'"))


def fold(text: str) -> str:
    """Return the text without differences that searches ignore (FHIR R5 search 3.2.1.5.9)."""
    decomposed = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES))
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()
