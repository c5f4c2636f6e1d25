"""Problems of the settings, as texts for the operator.

A problem never repeats a value: it may be a secret, also under the wrong key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.phrases import EMPTY_PHRASE, Phrase, any_of, to_phrase

# Minimum similarity of two words, from 0 to 1, for one to be a misspelling of the other.
_MIN_SIMILARITY: Final = 0.7

# A key as its parts: names, and numbers for the items of lists.
SettingPath = tuple[str | int, ...]
# No valid value has as many levels. The limit makes recursion over parsed values safe.
MAX_DEPTH: Final = 16


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: its `key`, what is wrong (`message`), what to do (`hint`).

    `source` says where the value is set, e.g. `line 7` or an environment variable's name; `code`
    identifies the kind of problem for programs.
    """

    key: str
    message: Phrase
    hint: Phrase = EMPTY_PHRASE
    source: str = ""
    code: str = "setting"

    def __str__(self) -> str:
        """Return the line in English."""
        return str(self.line())

    def line(self) -> Phrase:
        """Return one line: `key: message (source). hint`."""
        text = Phrase("{key}: {message}", key=self.key, message=self.message)
        if self.source:
            text = Phrase("{told} ({source})", told=text, source=self.source)
        if not self.hint:
            return Phrase("{told}.", told=text)
        return Phrase("{told}. {hint:sentence}", told=text, hint=to_phrase(self.hint))


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


def did_you_mean(wrong: str, known: Iterable[str], *, elsewhere: Iterable[str] = ()) -> Phrase:
    """Return a hint: where the key belongs, the most similar known key, or all known keys."""
    choices, homes = list(known), list(elsewhere)
    near = closest_key(wrong, choices)
    if homes and near is None:
        return Phrase("did you mean {homes}?", homes=any_of(homes))
    if near is not None:
        return Phrase("did you mean {near}?", near=near)
    return Phrase("known here: {choices}", choices=", ".join(choices)) if choices else EMPTY_PHRASE


_IN_YAML: Final = frozenset({"int_type", "float_type", "string_type"})
_DESCRIPTIONS: Final[dict[str, tuple[Phrase, Phrase]]] = {
    "missing": (Phrase("is missing"), Phrase("add it")),
    "bool_type": (Phrase("must be true or false"), EMPTY_PHRASE),
    "int_type": (Phrase("must be a whole number"), Phrase("write it without quotes and fraction")),
    "float_type": (Phrase("must be a number"), Phrase("write it without quotes and unit")),
    "finite_number": (Phrase("must be a finite number"), EMPTY_PHRASE),
    "string_type": (Phrase("must be text"), Phrase("put it in quotes")),
    "string_too_short": (Phrase("is empty"), Phrase("give a text, or leave the key out")),
    "dict_type": (Phrase("must be a group of `name: value` lines"), EMPTY_PHRASE),
    "model_type": (Phrase("must be a group of keys"), EMPTY_PHRASE),
    "tuple_type": (
        Phrase("must be a list"),
        Phrase("write [first, second], or a line with a hyphen for each"),
    ),
    "greater_than": (Phrase("must be more than {limit}"), EMPTY_PHRASE),
    "greater_than_equal": (Phrase("must be at least {limit}"), EMPTY_PHRASE),
    "less_than_equal": (Phrase("must be at most {limit}"), EMPTY_PHRASE),
    "less_than": (Phrase("must be less than {limit}"), EMPTY_PHRASE),
    "literal_error": (Phrase("must be one of {limit}"), EMPTY_PHRASE),
    "int_parsing_size": (Phrase("is too large"), EMPTY_PHRASE),
}
_UNUSABLE: Final = (Phrase("cannot be used"), Phrase("see docs/settings.md"))
# The names of pydantic's limits in an error's context.
_LIMITS: Final = ("gt", "ge", "le", "lt")


def describe_error(error: Any, *, in_yaml: bool) -> tuple[Phrase, Phrase]:
    """Return message and hint for one entry of pydantic's `errors()`.

    `in_yaml`: the value is in the file, so that hints on YAML's notation apply.
    """
    context = error.get("ctx", {})
    refused = context.get("error")
    if hasattr(refused, "hint"):
        return refused.message, refused.hint
    message, hint = _DESCRIPTIONS.get(error["type"], _UNUSABLE)
    if "{limit}" in message:
        message = Phrase(message.sentence, limit=_limit(context))
    return message, hint if in_yaml or error["type"] not in _IN_YAML else EMPTY_PHRASE


def _limit(context: Mapping[str, Any]) -> Any:
    """Return the limit of pydantic's error, or its list of words as a phrase."""
    if "expected" in context:
        some, several, last = context["expected"].rpartition(" or ")
        return Phrase("{first} or {second}", first=some, second=last) if several else last
    return next((context[name] for name in _LIMITS if name in context), "")
