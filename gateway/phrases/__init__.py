"""Texts of the commands for operators, in English, Russian and Uzbek.

A `Phrase` is its English text, as logs and JSON show it, and retains its source: a sentence of the
catalogue and the values in it. The key of the catalogue is the English sentence. The Russian and
the Uzbek sentence are in the tables of this package, which are loaded only when one of these
languages is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final, Self

# The name of each language in that language.
LANGUAGE_NAMES: Final = {"en": "English", "ru": "Русский", "uz": "O‘zbekcha"}
LANGUAGES: Final = tuple(LANGUAGE_NAMES)
# In the order of POSIX for messages: the first variable that is set decides.
_VARIABLES: Final = ("LC_ALL", "LC_MESSAGES", "LANG")


class Phrase(str):
    """A text for operators and users: in English as a str, in other languages by `in_language`.

    `sentence` is a key of the catalogue with `{names}` of the `values`; phrases among these are
    translated too. A text of another program that the catalogue lacks is replaced by `fallback` in
    other languages.
    """

    __slots__ = ("fallback", "sentence", "values")

    sentence: str
    values: Mapping[str, Any]
    fallback: Phrase | None

    def __new__(cls, sentence: str, /, **values: Any) -> Self:
        """Format `sentence` with `values`.

        Without values it is used literally, including braces.
        """
        made = super().__new__(cls, sentence.format(**values) if values else sentence)
        made.sentence = sentence
        made.values = values
        made.fallback = None
        return made

    @classmethod
    def external(cls, text: str | None, otherwise: Phrase) -> Phrase:
        """Return the text of another program as a phrase; `otherwise` if it is empty."""
        if not text:
            return otherwise
        made = cls(text)
        made.sentence = text.lower()
        made.fallback = otherwise
        return made

    def __format__(self, spec: str) -> str:
        """Format like a str.

        `capital` and `sentence` capitalize; `sentence` also adds a full stop.
        """
        if spec == "capital":
            return self[:1].upper() + self[1:]
        return _sentence(self) if spec == "sentence" else super().__format__(spec)

    @classmethod
    def from_data(cls, data: list[Any]) -> Phrase:
        """Return the phrase that `as_data` serialized."""
        sentence, values = data
        return cls(sentence, **{name: _from_data(value) for name, value in values.items()})

    def as_data(self) -> list[Any]:
        """Return sentence and values in JSON types, for another process of the gateway."""
        return [self.sentence, {name: _as_data(value) for name, value in self.values.items()}]

    def in_language(self, language: str) -> str:
        """Return the text in one of `LANGUAGES`."""
        if language == "en":
            return self
        sentence = catalogue(language).get(self.sentence)
        if sentence is None and self.fallback is not None:
            return self.fallback.in_language(language)
        spoken = {name: translate_value(value, language) for name, value in self.values.items()}
        sentence = self.sentence if sentence is None else sentence
        return sentence.format(**spoken) if spoken else sentence


def _as_data(value: Any) -> Any:
    if isinstance(value, Phrase):
        return value.as_data()
    return value if isinstance(value, int | float) else str(value)


def _from_data(value: Any) -> Any:
    return Phrase.from_data(value) if isinstance(value, list) else value


EMPTY_PHRASE: Final = Phrase("")


def to_phrase(text: str) -> Phrase:
    """Return a text as a phrase; unchanged if it is one."""
    return text if isinstance(text, Phrase) else Phrase(text)


def exception_phrase(error: BaseException) -> Phrase:
    """Return the phrase that an exception carries as its first argument."""
    text = error.args[0] if error.args else ""
    return to_phrase(text if isinstance(text, str) else str(error))


def setting_problem(key: str, why: Phrase) -> Phrase:
    """Return the phrase of a problem with a setting; `values` hold `key` and `why`."""
    return Phrase("{key}: {why}", key=key, why=why)


def system_error(error: OSError, otherwise: Phrase) -> Phrase:
    """Return the operating system's text in lower case; `otherwise` if there is none."""
    return Phrase.external((error.strerror or "").lower(), otherwise)


def join_phrases(separator: str, parts: Iterable[Phrase]) -> Phrase:
    """Return one phrase that joins `parts` with `separator`."""
    parts = list(parts)
    names = [f"part{number}" for number in range(len(parts))]
    pattern = separator.join(f"{{{name}}}" for name in names)
    return Phrase(pattern, **dict(zip(names, parts, strict=True)))


def any_of(names: Iterable[str]) -> Phrase:
    """Return a phrase that lists names joined with "or"."""
    some, last = _split_last(names)
    return Phrase("{first} or {second}", first=any_of(some), second=last) if some else last


def all_of(names: Iterable[str]) -> Phrase:
    """Return a phrase that lists names joined with "and"."""
    some, last = _split_last(names)
    return Phrase("{first} and {second}", first=all_of(some), second=last) if some else last


def _split_last(names: Iterable[str]) -> tuple[list[str], Phrase]:
    *some, last = [*names] or [""]
    return some, Phrase(last)


def translate_value(value: Any, language: str) -> Any:
    """Return a value in a language: phrases are translated, other values are unchanged."""
    return Phrase(value.in_language(language)) if isinstance(value, Phrase) else value


def environment_language(environ: Mapping[str, str]) -> str:
    """Return the supported language that the environment requests, else English."""
    return _asked(environ)[:2] if has_language_preference(environ) else "en"


def has_language_preference(environ: Mapping[str, str]) -> bool:
    """Return whether the environment requests a supported language, including English."""
    asked = _asked(environ)
    return asked[:2] in LANGUAGES and not asked[2:3].isalpha()


def _asked(environ: Mapping[str, str]) -> str:
    return next((environ[name].lower() for name in _VARIABLES if environ.get(name)), "")


# A plain word at the beginning is capitalized; keys and URLs are left unchanged.
_WORD: Final = re.compile(r"[a-zа-яё‘’]+(?=[ ,;?.!]|$)(?!\.\w)")


def _sentence(text: str) -> str:
    ended = text if text.endswith(("?", ".", "!", "…")) else f"{text}."
    return ended[0].upper() + ended[1:] if _WORD.match(ended) else ended


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """Return the sentences of a language by their English text."""
    from gateway.phrases.tables import TABLES

    column = LANGUAGES.index(language) - 1
    return {english: others[column] for table in TABLES for english, others in table.items()}
