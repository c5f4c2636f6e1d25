"""What a reason says to the person in front of the calling system, in three languages.

Each text says what happened, whether data may have arrived, and who does what next. It is the same
for reads and writes, as one outcome is often shown far from the request that led to it.
"""

from __future__ import annotations

from typing import Final

from gateway.fhir import texts_en, texts_ru, texts_uz

LANGUAGES: Final = ("en", "ru", "uz")

TEXTS: Final[dict[str, dict[str, str]]] = {
    "en": texts_en.TEXTS,
    "ru": texts_ru.TEXTS,
    "uz": texts_uz.TEXTS,
}


def text(reason: str, language: str) -> str:
    """The text of a reason's code; English where the language is not one of `LANGUAGES`."""
    return TEXTS.get(language, texts_en.TEXTS)[reason]
