"""Problems of the settings, as texts for the operator, and violations of rules between keys.

A problem never repeats a value: it may be a secret, also under the wrong key. For an unknown key or
word, the one that was probably meant is suggested.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.i18n import EMPTY_MESSAGE, Message, any_of, to_message

# Minimum similarity of two words, from 0 to 1, for one to be a misspelling of the other.
_MIN_SIMILARITY: Final = 0.7

# A key as its parts: names, and numbers for the items of lists.
SettingPath = tuple[str | int, ...]
# No valid value has as many levels. The limit makes recursion over parsed values safe.
MAX_DEPTH: Final = 16


class InvalidValueError(ValueError):
    """A value, or a file's text, cannot be used: `message` says why, `hint` what to do."""

    def __init__(self, message: Message, hint: Message = EMPTY_MESSAGE) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: its `key`, what is wrong (`message`), what to do (`hint`).

    `source` says where the value is set, e.g. `line 7` or an environment variable's name; `code`
    identifies the kind of problem for programs.
    """

    key: str
    message: Message
    hint: Message = EMPTY_MESSAGE
    source: str = ""
    code: str = "setting"

    def __str__(self) -> str:
        """Return the line in English."""
        return str(self.line())

    def line(self) -> Message:
        """Return one line: `key: message (source). hint`."""
        text = Message("{key}: {message}", key=self.key, message=self.message)
        if self.source:
            text = Message("{told} ({source})", told=text, source=self.source)
        if not self.hint:
            return Message("{told}.", told=text)
        return Message("{told}. {hint:sentence}", told=text, hint=to_message(self.hint))


def dotted(setting: SettingPath) -> str:
    """Return a key in the notation of the documentation: `callers[0].name`."""
    text = ""
    for part in setting:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        name = part if part.isprintable() else ascii(part)
        text += f".{name}" if text else name
    return text


def closest_key(wrong: str, known: Iterable[str]) -> str | None:
    """Return the known word most similar to the wrong one, regardless of case, else None."""
    folded = {choice.lower(): choice for choice in known}
    near = closest_word(wrong.lower(), folded)
    return None if near is None else folded[near]


def closest_word(wrong: str, known: Iterable[str]) -> str | None:
    """Return the word of `known` that is most similar to the wrong one, else None."""
    # Imported here: valid settings do not need it.
    import difflib

    near = difflib.get_close_matches(wrong, list(known), n=1, cutoff=_MIN_SIMILARITY)
    return near[0] if near else None


def did_you_mean(wrong: str, known: Iterable[str], *, elsewhere: Iterable[str] = ()) -> Message:
    """Return a hint: where the key belongs, the most similar known key, or all known keys."""
    choices, homes = list(known), list(elsewhere)
    near = closest_key(wrong, choices)
    if homes and near is None:
        return Message("did you mean {homes}?", homes=any_of(homes))
    if near is not None:
        return Message("did you mean {near}?", near=near)
    return (
        Message("known here: {choices}", choices=", ".join(choices)) if choices else EMPTY_MESSAGE
    )


_IN_YAML: Final = frozenset({"int_type", "float_type", "string_type"})
_DESCRIPTIONS: Final[dict[str, tuple[Message, Message]]] = {
    "missing": (Message("is missing"), Message("add it")),
    "bool_type": (Message("must be true or false"), EMPTY_MESSAGE),
    "int_type": (
        Message("must be a whole number"),
        Message("write it without quotes and fraction"),
    ),
    "float_type": (Message("must be a number"), Message("write it without quotes and unit")),
    "finite_number": (Message("must be a finite number"), EMPTY_MESSAGE),
    "string_type": (Message("must be text"), Message("put it in quotes")),
    "string_unicode": (Message("is not UTF-8 text"), EMPTY_MESSAGE),
    "string_too_short": (Message("is empty"), Message("set a text, or remove the key")),
    "dict_type": (Message("must be a group of `name: value` lines"), EMPTY_MESSAGE),
    "model_type": (Message("must be a group of keys"), EMPTY_MESSAGE),
    "tuple_type": (
        Message("must be a list"),
        Message("write [first, second], or a line with a hyphen for each"),
    ),
    "greater_than": (Message("must be more than {limit}"), EMPTY_MESSAGE),
    "greater_than_equal": (Message("must be at least {limit}"), EMPTY_MESSAGE),
    "less_than_equal": (Message("must be at most {limit}"), EMPTY_MESSAGE),
    "less_than": (Message("must be less than {limit}"), EMPTY_MESSAGE),
    "literal_error": (Message("must be one of {limit}"), EMPTY_MESSAGE),
    "int_parsing_size": (Message("is too large"), EMPTY_MESSAGE),
}
_UNUSABLE: Final = (Message("cannot be used"), Message("see docs/settings.md"))
# The names of pydantic's limits in an error's context.
_LIMITS: Final = ("gt", "ge", "le", "lt")


def describe_error(error: Any, *, in_yaml: bool) -> tuple[Message, Message]:
    """Return message and hint for one entry of pydantic's `errors()`.

    `in_yaml`: the value is in the file, so that hints on YAML's notation apply.
    """
    context = error.get("ctx", {})
    refused = context.get("error")
    if isinstance(refused, InvalidValueError):
        return refused.message, refused.hint
    message, hint = _DESCRIPTIONS.get(error["type"], _UNUSABLE)
    if "{limit}" in message:
        message = Message(message.msgid, limit=_limit(context))
    return message, hint if in_yaml or error["type"] not in _IN_YAML else EMPTY_MESSAGE


def _limit(context: Mapping[str, Any]) -> Any:
    """Return the limit of pydantic's error, or its list of words as a message."""
    if "expected" in context:
        some, several, last = context["expected"].rpartition(" or ")
        return Message("{first} or {second}", first=some, second=last) if several else last
    limit = next((context[name] for name in _LIMITS if name in context), "")
    # Pydantic turns the limit of a float into one: 100000000000.0 is hard to read.
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit


@dataclass(frozen=True, slots=True)
class RuleViolation:
    """A violated rule: its key (`setting`), what is wrong, and what to do.

    `is_missing`: the key is needed and was not given.
    """

    setting: SettingPath
    message: Message
    hint: Message
    is_missing: bool = False


def missing_key(setting: SettingPath, hint: Message) -> RuleViolation:
    """Return the violation of a rule that needs a key."""
    return RuleViolation(setting, Message("is missing"), hint, is_missing=True)
