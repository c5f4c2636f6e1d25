"""What the commands say to the person who runs the gateway, in English, Russian and Uzbek.

A `Phrase` is its English text, as log and JSON show it, and remembers what it was made of: a
sentence of the catalogue and the values in it. The catalogue's key is the English sentence; beside
it stand the Russian and the Uzbek one, in the tables of this package, which only who needs them
loads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final, Self

# Each as its own readers write it.
LANGUAGE_NAMES: Final = {"en": "English", "ru": "Русский", "uz": "O‘zbekcha"}
LANGUAGES: Final = tuple(LANGUAGE_NAMES)
# As POSIX asks for messages: the first that is set decides.
_VARIABLES: Final = ("LC_ALL", "LC_MESSAGES", "LANG")


class Phrase(str):
    """A text for people: English as it stands, others by `in_language`.

    `sentence` is a key of the catalogue with `{names}` of the `values`; phrases among these are
    translated too. A text of another program that the catalogue lacks reads in other languages as
    `fallback`.
    """

    __slots__ = ("fallback", "sentence", "values")

    sentence: str
    values: Mapping[str, Any]
    fallback: Phrase | None

    def __new__(cls, sentence: str, /, **values: Any) -> Self:
        """Without values the sentence stands for itself, braces and all."""
        made = super().__new__(cls, sentence.format(**values) if values else sentence)
        made.sentence = sentence
        made.values = values
        made.fallback = None
        return made

    @classmethod
    def external(cls, text: str | None, otherwise: Phrase) -> Phrase:
        """What another program says; `otherwise` where it says nothing."""
        if not text:
            return otherwise
        made = cls(text)
        made.sentence = text.lower()
        made.fallback = otherwise
        return made

    def __format__(self, spec: str) -> str:
        """As of any text; `capital` and `sentence` begin with a capital, the latter has an end."""
        if spec == "capital":
            return self[:1].upper() + self[1:]
        return _sentence(self) if spec == "sentence" else super().__format__(spec)

    @classmethod
    def from_data(cls, data: list[Any]) -> Phrase:
        """What `as_data` was made of."""
        sentence, values = data
        return cls(sentence, **{name: _from_data(value) for name, value in values.items()})

    def as_data(self) -> list[Any]:
        """Sentence and values, for another process of the gateway; as JSON."""
        return [self.sentence, {name: _as_data(value) for name, value in self.values.items()}]

    def in_language(self, language: str) -> str:
        """The text in one of `LANGUAGES`."""
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
    """A text as a phrase, which it may be already."""
    return text if isinstance(text, Phrase) else Phrase(text)


def exception_phrase(error: BaseException) -> Phrase:
    """What an exception says, which carries a phrase."""
    text = error.args[0] if error.args else ""
    return to_phrase(text if isinstance(text, str) else str(error))


def setting_problem(key: str, why: Phrase) -> Phrase:
    """What is wrong with a setting; `values` hold `key` and `why`."""
    return Phrase("{key}: {why}", key=key, why=why)


def system_error(error: OSError, otherwise: Phrase) -> Phrase:
    """What the operating system says, in lower case."""
    return Phrase.external((error.strerror or "").lower(), otherwise)


def join_phrases(separator: str, parts: Iterable[Phrase]) -> Phrase:
    """The phrases one behind the other; a phrase again."""
    parts = list(parts)
    names = [f"part{number}" for number in range(len(parts))]
    pattern = separator.join(f"{{{name}}}" for name in names)
    return Phrase(pattern, **dict(zip(names, parts, strict=True)))


def any_of(names: Iterable[str]) -> Phrase:
    """Names of which one is meant."""
    some, last = _split_last(names)
    return Phrase("{first} or {second}", first=any_of(some), second=last) if some else last


def all_of(names: Iterable[str]) -> Phrase:
    """Names of which all are meant."""
    some, last = _split_last(names)
    return Phrase("{first} and {second}", first=all_of(some), second=last) if some else last


def _split_last(names: Iterable[str]) -> tuple[list[str], Phrase]:
    *some, last = [*names] or [""]
    return some, Phrase(last)


def translate_value(value: Any, language: str) -> Any:
    """A value of a phrase in a language: phrases are translated, all else stays."""
    return Phrase(value.in_language(language)) if isinstance(value, Phrase) else value


def environment_language(environ: Mapping[str, str]) -> str:
    """The language that a terminal's or service's environment asks for; English if none of ours."""
    return _asked(environ)[:2] if has_language_preference(environ) else "en"


def has_language_preference(environ: Mapping[str, str]) -> bool:
    """Whether the environment asks for one of ours, be it English."""
    asked = _asked(environ)
    return asked[:2] in LANGUAGES and not asked[2:3].isalpha()


def _asked(environ: Mapping[str, str]) -> str:
    return next((environ[name].lower() for name in _VARIABLES if environ.get(name)), "")


# A word of ours at the beginning; keys and URLs stay as they are written.
_WORD: Final = re.compile(r"[a-zа-яё‘’]+(?=[ ,;?.!]|$)(?!\.\w)")


def _sentence(text: str) -> str:
    ended = text if text.endswith(("?", ".", "!", "…")) else f"{text}."
    return ended[0].upper() + ended[1:] if _WORD.match(ended) else ended


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """The sentences of a language by their English text."""
    from gateway.phrases.tables import TABLES

    column = LANGUAGES.index(language) - 1
    return {english: others[column] for table in TABLES for english, others in table.items()}
