"""Texts for people: English in the code, other languages in gettext catalogues.

A `Message` is its English text, as logs and JSON show it, and keeps what it was made of: the
English sentence with `{names}`, which is its key in the catalogues, and the values. The catalogues
stand in `gateway/locale`: `callers` (outcomes), `operators` (pages, alerts), `commands` (commands,
settings, doctor). They are read when a text is first wanted in another language; `.po` files are
the source, `.mo` files are made of them when the gateway is built or installed.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from gettext import GNUTranslations, NullTranslations
from pathlib import Path
from typing import Any, Final, Self

LANGUAGES: Final = ("en", "ru", "uz")
# A key stands in one catalogue only; the first are those of a running gateway.
DOMAINS: Final = ("callers", "operators", "commands")
LOCALE: Final = Path(__file__).with_name("locale")
# As POSIX asks for messages: the first that is set decides.
_VARIABLES: Final = ("LC_ALL", "LC_MESSAGES", "LANG")


class Message(str):
    """A text for people: English as it stands, others by `in_language`.

    `msgid` is a key of the catalogues with `{names}` of the `values`; messages among these are
    translated too. `context` tells equal English texts apart that read differently elsewhere. A
    text of another program that no catalogue has reads in other languages as `fallback`.
    """

    __slots__ = ("context", "fallback", "msgid", "plural", "values")

    msgid: str
    values: Mapping[str, Any]
    context: str | None
    plural: tuple[str, int] | None
    fallback: Message | None

    def __new__(cls, msgid: str, /, **values: Any) -> Self:
        """Without values the sentence stands for itself, braces and all."""
        return cls._make(msgid, msgid, values)

    @classmethod
    def _make(cls, english: str, msgid: str, values: Mapping[str, Any]) -> Self:
        message = super().__new__(cls, english.format(**values) if values else english)
        message.msgid = msgid
        message.values = values
        message.context = None
        message.plural = None
        message.fallback = None
        return message

    @classmethod
    def within(cls, context: str, msgid: str, /, **values: Any) -> Self:
        """A message whose English text means several things."""
        message = cls(msgid, **values)
        message.context = context
        return message

    @classmethod
    def counted(cls, one: str, many: str, number: int, /, **values: Any) -> Self:
        """A message in the form that the number asks for; `{number}` stands for it."""
        message = cls._make(one if number == 1 else many, one, {**values, "number": number})
        message.plural = (many, number)
        return message

    @classmethod
    def external(cls, text: str | None, fallback: Message) -> Message:
        """What another program says; `fallback` where it says nothing."""
        if not text:
            return fallback
        message = cls(text)
        message.msgid = text.lower()
        message.fallback = fallback
        return message

    def __format__(self, spec: str) -> str:
        """As of any text; `capital` and `sentence` begin with a capital, the latter has an end."""
        if spec == "capital":
            return self[:1].upper() + self[1:]
        return _sentence(self) if spec == "sentence" else super().__format__(spec)

    @classmethod
    def from_data(cls, data: list[Any]) -> Message:
        """What `as_data` was made of."""
        msgid, values = data
        return cls(msgid, **{name: _from_data(value) for name, value in values.items()})

    def as_data(self) -> list[Any]:
        """Sentence and values, for another process of the gateway; as JSON."""
        return [self._english(), {name: _as_data(value) for name, value in self.values.items()}]

    def in_language(self, language: str) -> str:
        """The text in one of `LANGUAGES`."""
        if language == "en":
            return self
        translation = self._translation(language)
        if translation is None and self.fallback is not None:
            return self.fallback.in_language(language)
        if translation is None:
            translation = self._english()
        values = {name: translate_value(value, language) for name, value in self.values.items()}
        return translation.format(**values) if values else translation

    def _translation(self, language: str) -> str | None:
        # The empty key is the catalogue's own header.
        if not self.msgid:
            return None
        found = (self._look_up(_catalogue(language, domain)) for domain in DOMAINS)
        return next((text for text in found if text), None)

    def _look_up(self, catalogue: NullTranslations) -> str:
        """The text in a catalogue; empty where it has none."""
        if self.plural is not None:
            return catalogue.ngettext(self.msgid, *self.plural)
        if self.context is not None:
            return catalogue.pgettext(self.context, self.msgid)
        return catalogue.gettext(self.msgid)

    def _english(self) -> str:
        return self.plural[0] if self.plural and self.plural[1] != 1 else self.msgid


class Texts(Mapping[str, str]):
    """A table of messages, as its texts in one language."""

    def __init__(self, messages: Mapping[str, Message], language: str) -> None:
        self._messages = messages
        self._language = language

    def __getitem__(self, key: str) -> str:
        return self._messages[key].in_language(self._language)

    def __iter__(self) -> Iterator[str]:
        return iter(self._messages)

    def __len__(self) -> int:
        return len(self._messages)


def in_all_languages(messages: Mapping[str, Message]) -> dict[str, Mapping[str, str]]:
    """A table of messages as its texts, by language."""
    return {language: Texts(messages, language) for language in LANGUAGES}


def _as_data(value: Any) -> Any:
    if isinstance(value, Message):
        return value.as_data()
    return value if isinstance(value, int | float) else str(value)


def _from_data(value: Any) -> Any:
    return Message.from_data(value) if isinstance(value, list) else value


EMPTY_MESSAGE: Final = Message("")
# Each language's own readers write it so.
_LANGUAGE_NAME: Final = Message.within("name of this language", "English")


def language_name(language: str) -> str:
    """What the speakers of one of `LANGUAGES` call it."""
    return _LANGUAGE_NAME.in_language(language)


def to_message(text: str) -> Message:
    """A text as a message, which it may be already."""
    return text if isinstance(text, Message) else Message(text)


def exception_message(error: BaseException) -> Message:
    """The message that an exception carries."""
    text = error.args[0] if error.args else ""
    return to_message(text if isinstance(text, str) else str(error))


def setting_problem(key: str, why: Message) -> Message:
    """What is wrong with a setting; `values` hold `key` and `why`."""
    return Message("{key}: {why}", key=key, why=why)


def system_error(error: OSError, fallback: Message) -> Message:
    """What the operating system says, in lower case."""
    return Message.external((error.strerror or "").lower(), fallback)


def join_messages(separator: str, parts: Iterable[Message]) -> Message:
    """The messages one behind the other; a message again."""
    parts = list(parts)
    names = [f"part{number}" for number in range(len(parts))]
    pattern = separator.join(f"{{{name}}}" for name in names)
    return Message(pattern, **dict(zip(names, parts, strict=True)))


def any_of(names: Iterable[str]) -> Message:
    """Names of which one is meant."""
    some, last = _split_last(names)
    return Message("{first} or {second}", first=any_of(some), second=last) if some else last


def all_of(names: Iterable[str]) -> Message:
    """Names of which all are meant."""
    some, last = _split_last(names)
    return Message("{first} and {second}", first=all_of(some), second=last) if some else last


def _split_last(names: Iterable[str]) -> tuple[list[str], Message]:
    *some, last = [*names] or [""]
    return some, Message(last)


def translate_value(value: Any, language: str) -> Any:
    """A value of a message in a language: messages are translated, all else stays."""
    return Message(value.in_language(language)) if isinstance(value, Message) else value


def environment_language(environ: Mapping[str, str]) -> str:
    """The language that a terminal's or service's environment asks for; English if none of ours."""
    return _requested(environ)[:2] if has_language_preference(environ) else "en"


def has_language_preference(environ: Mapping[str, str]) -> bool:
    """Whether the environment asks for one of ours, be it English."""
    requested = _requested(environ)
    return requested[:2] in LANGUAGES and not requested[2:3].isalpha()


def _requested(environ: Mapping[str, str]) -> str:
    return next((environ[name].lower() for name in _VARIABLES if environ.get(name)), "")


# A word in small letters, Latin or Cyrillic, at the beginning; keys and URLs stay as they are.
_WORD: Final = re.compile(
    "[a-z\u0430-\u044f\u0451\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}]+"
    r"(?=[ ,;?.!]|$)(?!\.\w)"
)


def _sentence(text: str) -> str:
    ended = text if text.endswith(("?", ".", "!", "…")) else f"{text}."
    return ended[0].upper() + ended[1:] if _WORD.match(ended) else ended


class _Nothing(NullTranslations):
    """Stands behind a catalogue, and tells by an empty text that it lacks a message."""

    def gettext(self, message: str) -> str:
        return ""

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return ""

    def pgettext(self, context: str, message: str) -> str:
        return ""


@cache
def _catalogue(language: str, domain: str) -> NullTranslations:
    path = LOCALE / language / "LC_MESSAGES" / f"{domain}.mo"
    try:
        with path.open("rb") as file:
            catalogue = GNUTranslations(file)
    except FileNotFoundError:
        # A package always has them; a checkout is told, and its tests end with it.
        warnings.warn(f"{path} is missing: run `make venv`", RuntimeWarning, stacklevel=2)
        return _Nothing()
    catalogue.add_fallback(_Nothing())
    return catalogue
