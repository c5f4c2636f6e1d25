"""The text of each reason for the users of the calling system, in three languages.

Each text says what happened, whether data may have arrived, and what the user, the vendor or the
operator does next. Where it makes a difference there is one text for writes and one for reads: an
outcome is often shown far from the request that led to it, to a user who does not know which
request it was.
"""

from __future__ import annotations

from typing import Final

from gateway.fhir.texts import en, ru, uz
from gateway.i18n import LANGUAGES as LANGUAGES

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
    """Return the text of a reason's code; English where `language` is not one of `LANGUAGES`.

    `write`: the request may have changed something, or nothing is known about it. `advice`: the
    `advice_key` of a `GatewayError`, whose text says what this request has to do differently.
    """
    if language not in LANGUAGES:
        language = "en"
    if advice:
        return ADVICE[language][advice]
    if not write and reason in READS[language]:
        return READS[language][reason]
    return TEXTS[language][reason]
