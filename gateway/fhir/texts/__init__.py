"""What a reason says to the person in front of the calling system, in three languages.

Each text says what happened, whether data may have arrived, and who does what next. Where it makes
a difference there is one for writes and one for reads: one outcome is often shown far from the
request that led to it, to somebody who does not know which it was.
"""

from __future__ import annotations

from typing import Final

from gateway.fhir.texts import en, ru, uz
from gateway.phrases import LANGUAGES as LANGUAGES

TEXTS: Final[dict[str, dict[str, str]]] = {
    "en": en.TEXTS,
    "ru": ru.TEXTS,
    "uz": uz.TEXTS,
}

READS: Final[dict[str, dict[str, str]]] = {
    "en": en.READS,
    "ru": ru.READS,
    "uz": uz.READS,
}

ADVICE: Final[dict[str, dict[str, str]]] = {
    "en": en.ADVICE,
    "ru": ru.ADVICE,
    "uz": uz.ADVICE,
}


def text(reason: str, language: str, *, write: bool = True, advice: str = "") -> str:
    """The text of a reason's code; English where the language is not one of `LANGUAGES`.

    `write` says that the request may have changed something; so does one of which nothing is known.
    `advice` is that of a `GatewayError`: what this very request has to do otherwise.
    """
    if language not in LANGUAGES:
        language = "en"
    if advice:
        return ADVICE[language][advice]
    if not write and reason in READS[language]:
        return READS[language][reason]
    return TEXTS[language][reason]
