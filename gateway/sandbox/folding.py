"""Text as people search it: without case, accents and kinds of apostrophes."""

from __future__ import annotations

import unicodedata
from typing import Final

_APOSTROPHES: Final = str.maketrans(dict.fromkeys("‘’ʻʼ`´", "'"))


def fold(text: str) -> str:
    """What two spellings of the same have in common (FHIR R5 search 3.2.1.5.9)."""
    decomposed = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES))
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()
