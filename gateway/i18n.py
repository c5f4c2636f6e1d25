"""Texts for users and operators: English in the code, translations in gettext catalogues.

A `Message` is its English text, as logs and JSON show it. It keeps the English sentence with
`{names}`, which is its key in the catalogues, and the values. `gateway/locale` has the catalogues:
`callers` (outcomes), `operators` (pages, alerts), `commands` (commands, settings, doctor). A
catalogue is loaded when a text is first needed in its language. The `.po` files are the source; the
`.mo` files are compiled from them when the gateway is built or installed.

The language of a response is chosen by `Accept-Language` (RFC 9110 section 12.5.4). Its value may
be anything: the choice does not raise. Durations are formatted here as text for users and
operators, too.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from gettext import GNUTranslations, NullTranslations
from pathlib import Path
from typing import Any, Final, Self

from gateway.field_values import weighted_items

LANGUAGES: Final = ("en", "ru", "uz")
# A key is in one catalogue only. They are searched in this order; a running gateway needs mostly
# the first two.
DOMAINS: Final = ("callers", "operators", "commands")
LOCALE: Final = Path(__file__).with_name("locale")
# The order of POSIX for messages: the first variable that is set and not empty decides.
_VARIABLES: Final = ("LC_ALL", "LC_MESSAGES", "LANG")


class Message(str):
    """A text for users or operators: a string in English, in other languages by `in_language`.

    `msgid` is a key of the catalogues with `{names}` of the `values`; values that are messages are
    translated too. `context` distinguishes equal English texts whose translations differ.
    `fallback` replaces a text of another program that no catalogue has in the language.
    """

    __slots__ = ("context", "fallback", "msgid", "values")

    msgid: str
    values: Mapping[str, Any]
    context: str | None
    fallback: Message | None

    def __new__(cls, msgid: str, /, **values: Any) -> Self:
        """Return the message. Without values the sentence is not formatted: braces remain."""
        message = super().__new__(cls, msgid.format(**values) if values else msgid)
        message.msgid = msgid
        message.values = values
        message.context = None
        message.fallback = None
        return message

    @classmethod
    def within(cls, context: str, msgid: str, /, **values: Any) -> Self:
        """Return a message whose English text has other meanings in other contexts."""
        message = cls(msgid, **values)
        message.context = context
        return message

    @classmethod
    def external(cls, text: str | None, fallback: Message) -> Message:
        """Return a text of another program as a message; `fallback` for an empty text."""
        if not text:
            return fallback
        message = cls(text)
        message.msgid = text.lower()
        message.fallback = fallback
        return message

    def __format__(self, spec: str) -> str:
        """Format as `str` does, with two more specifications.

        `capital` capitalizes the first letter if the text begins with a word in small letters.
        `sentence` does so too, and adds a full stop if there is no final punctuation mark.
        """
        if spec == "sentence" and not self.endswith(("?", ".", "!", "…")):
            return _capital(f"{self}.")
        return _capital(self) if spec in ("capital", "sentence") else super().__format__(spec)

    def in_language(self, language: str) -> str:
        """Return the text in one of `LANGUAGES`."""
        if language == "en":
            return self
        translation = self._translation(language)
        if translation is None and self.fallback is not None:
            return self.fallback.in_language(language)
        text = self.msgid if translation is None else translation
        values = {name: translate_value(value, language) for name, value in self.values.items()}
        return text.format(**values) if values else text

    def _translation(self, language: str) -> str | None:
        # The empty key would return the catalogue's header.
        if not self.msgid:
            return None
        found = (self._look_up(_catalogue(language, domain)) for domain in DOMAINS)
        return next((text for text in found if text), None)

    def _look_up(self, catalogue: NullTranslations) -> str:
        """Return the text in a catalogue, "" if the catalogue has none."""
        if self.context is not None:
            return catalogue.pgettext(self.context, self.msgid)
        return catalogue.gettext(self.msgid)


EMPTY_MESSAGE: Final = Message("")
# Each catalogue has the name of its language as the translation.
_LANGUAGE_NAME: Final = Message.within("name of this language", "English")


def language_name(language: str) -> str:
    """Return the name of one of `LANGUAGES` in that language."""
    return _LANGUAGE_NAME.in_language(language)


def to_message(text: str) -> Message:
    """Return the text as a message; a message is returned unchanged."""
    return text if isinstance(text, Message) else Message(text)


def exception_message(error: BaseException) -> Message:
    """Return the message that an exception carries as its first argument."""
    text = error.args[0] if error.args else ""
    return to_message(text if isinstance(text, str) else str(error))


def setting_problem(key: str, why: Message, hint: Message | None = None) -> Message:
    """Return the problem of a setting as a message whose `values` are `key`, `why` and `hint`."""
    if not hint:
        return Message("{key}: {why}", key=key, why=why)
    return Message("{key}: {why}. {hint:sentence}", key=key, why=why, hint=hint)


def system_error(error: OSError, fallback: Message) -> Message:
    """Return the text of the operating system in lower case, `fallback` if there is none."""
    return Message.external((error.strerror or "").lower(), fallback)


def join_messages(separator: str, parts: Iterable[Message]) -> Message:
    """Return one message that consists of the messages with `separator` between them."""
    parts = list(parts)
    names = [f"part{number}" for number in range(len(parts))]
    pattern = separator.join(f"{{{name}}}" for name in names)
    return Message(pattern, **dict(zip(names, parts, strict=True)))


def any_of(names: Iterable[str]) -> Message:
    """Return the names joined by "or"."""
    some, last = _split_last(names)
    return Message("{first} or {second}", first=any_of(some), second=last) if some else last


def all_of(names: Iterable[str]) -> Message:
    """Return the names joined by "and"."""
    some, last = _split_last(names)
    return Message("{first} and {second}", first=all_of(some), second=last) if some else last


def _split_last(names: Iterable[str]) -> tuple[list[str], Message]:
    *some, last = [*names] or [""]
    return some, Message(last)


def translate_value(value: Any, language: str) -> Any:
    """Return a message in the language; any other value is returned unchanged."""
    return Message(value.in_language(language)) if isinstance(value, Message) else value


def environment_language(environ: Mapping[str, str]) -> str:
    """Return the language that the environment requests; "en" for an unknown one."""
    return _requested(environ)[:2] if has_language_preference(environ) else "en"


def has_language_preference(environ: Mapping[str, str]) -> bool:
    """Return whether the environment requests one of `LANGUAGES`, English included."""
    requested = _requested(environ)
    return requested[:2] in LANGUAGES and not requested[2:3].isalpha()


def _requested(environ: Mapping[str, str]) -> str:
    return next((environ[name].lower() for name in _VARIABLES if environ.get(name)), "")


# A word in small letters, Latin or Cyrillic. Keys and URLs do not match, and are not capitalized.
_WORD: Final = re.compile(
    "[a-z\u0430-\u044f\u0451\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}]+"
    r"(?=[ ,;?.!]|$)(?!\.\w)"
)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:] if _WORD.match(text) else text


class _Nothing(NullTranslations):
    """The fallback of a catalogue: returns "" for a message that the catalogue lacks."""

    def gettext(self, message: str) -> str:
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
        # Packages always contain the `.mo` files; a checkout may not. The tests turn the warning
        # into an error.
        warnings.warn(f"{path} is missing: run `make venv`", RuntimeWarning, stacklevel=2)
        return _Nothing()
    catalogue.add_fallback(_Nothing())
    return catalogue


SECOND: Final = Message.within("second", "s")
_SPAN_UNITS: Final = (
    (Message.within("day", "d"), 86400),
    (Message.within("hour_unit", "h"), 3600),
    (Message("min"), 60),
    (SECOND, 1),
)


def unit_names(language: str) -> str:
    """Return the names of days, hours, minutes and seconds for the script, separated by `|`."""
    return "|".join(name.in_language(language) for name, _ in _SPAN_UNITS)


def format_span(duration: int, language: str) -> str:
    """Return a number of seconds in its two largest units."""
    for place, (name, size) in enumerate(_SPAN_UNITS):
        if duration >= size or size == 1:
            text = f"{duration // size} {name.in_language(language)}"
            if size > 1:
                smaller, smaller_size = _SPAN_UNITS[place + 1]
                text += f" {duration % size // smaller_size} {smaller.in_language(language)}"
            return text
    raise AssertionError("seconds are the smallest unit")


def format_duration(seconds: float) -> Message:
    """Return `45 s`, `5 min`, `3 h`, `3 h 20 min` or `2 days`, rounded: 10799 seconds are 3 h."""
    if seconds < 90:
        text = f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}"
        return Message("{seconds} s", seconds=text)
    rounded_seconds, minutes = round(seconds), round(seconds / 60)
    if minutes < 60:
        if abs(60 * minutes - rounded_seconds) <= rounded_seconds / 50:
            return Message("{minutes} min", minutes=minutes)
        return Message(
            "{minutes} min {seconds} s", minutes=rounded_seconds // 60, seconds=rounded_seconds % 60
        )
    if minutes < 48 * 60:
        hours, minutes = divmod(minutes, 60)
        if not minutes:
            return Message("{hours} h", hours=hours)
        return Message("{hours} h {minutes} min", hours=hours, minutes=minutes)
    days, hours = divmod(round(seconds / 3600), 24)
    if not hours:
        return Message("{days} days", days=days)
    return Message("{days} days {hours} h", days=days, hours=hours)


# Uzbek is used for Karakalpak: both are official languages of Karakalpakstan.
_NEAREST: Final = {"kaa": "uz"}


def choose_language(accept_language: str | None, default: str) -> str:
    """Return the best of `LANGUAGES` by `Accept-Language` (RFC 9110, section 12.5.4), or `default`.

    Regions and scripts are ignored: `uz-Cyrl` gets the text in Latin script, too.
    """
    weights: dict[str, float] = {}
    for tag, weight in weighted_items(accept_language or ""):
        weights.setdefault(re.split("[-_]", tag, maxsplit=1)[0], weight)
    weights.setdefault(default, weights.get("*", 0.0))
    offered = [language for language in weights if language in LANGUAGES]
    best = max(offered, key=weights.__getitem__, default=default)
    if weights[best] > 0:
        return best
    return next((near for tag, near in _NEAREST.items() if weights.get(tag)), default)
