"""What is wrong with the settings, in plain words.

A problem never repeats a value: it may be a secret, also one that landed under the wrong key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

# How much alike two words must be, from 0 to 1, for one to be a slip of the other.
_SIMILAR: Final = 0.7

# A key as its parts: names, and numbers for the items of lists.
Setting = tuple[str | int, ...]
# No value has as many levels. Whoever walks values that were read may do so by recursion.
DEEPEST: Final = 16


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: the `key` it is about, what is wrong (`message`), what to do (`hint`).

    `source` says where the value came from, e.g. `line 7` or an environment variable's name.
    """

    key: str
    message: str
    hint: str = ""
    source: str = ""

    def __str__(self) -> str:
        """One line: `key: message (source). hint`."""
        where = f" ({self.source})" if self.source else ""
        return f"{self.key}: {self.message}{where}." + (
            f" {_sentence(self.hint)}" if self.hint else ""
        )


# A word of ours at the beginning; keys and URLs stay as they are written.
_WORD: Final = re.compile(r"[a-z]+(?=[ ,;?.!]|$)(?!\.\w)")


def _sentence(text: str) -> str:
    ended = text if text.endswith(("?", ".", "!", "…")) else f"{text}."
    return ended[0].upper() + ended[1:] if _WORD.match(ended) else ended


def dotted(setting: Setting) -> str:
    """A key as people write it: `callers[0].name`."""
    text = ""
    for part in setting:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        name = part if part.isprintable() else ascii(part)
        text += f".{name}" if text else name
    return text


def nearest(wrong: str, known: Iterable[str]) -> str | None:
    """The known word that looks most like the wrong one, if any does."""
    folded = {choice.lower(): choice for choice in known}
    near = most_similar(wrong.lower(), folded)
    return None if near is None else folded[near]


def most_similar(wrong: str, known: Iterable[str]) -> str | None:
    """The one of `known` that looks most like the wrong one, if any does."""
    # Settings that are fine never ask.
    import difflib

    near = difflib.get_close_matches(wrong, list(known), n=1, cutoff=_SIMILAR)
    return near[0] if near else None


def did_you_mean(wrong: str, known: Iterable[str], *, elsewhere: Iterable[str] = ()) -> str:
    """A hint: where the key belongs, the nearest known one, or all of them."""
    choices, homes = list(known), list(elsewhere)
    near = nearest(wrong, choices)
    if homes and near is None:
        return f"did you mean {' or '.join(homes)}?"
    if near is not None:
        return f"did you mean {near}?"
    return f"known here: {', '.join(choices)}" if choices else ""


_IN_YAML: Final = frozenset({"int_type", "float_type", "string_type"})
_PLAIN_WORDS: Final = {
    "missing": ("is missing", "add it"),
    "bool_type": ("must be true or false", ""),
    "int_type": ("must be a whole number", "write it without quotes and fraction"),
    "float_type": ("must be a number", "write it without quotes and unit"),
    "finite_number": ("must be a finite number", ""),
    "string_type": ("must be text", "put it in quotes"),
    "string_too_short": ("is empty", "give a text, or leave the key out"),
    "dict_type": ("must be a group of `name: value` lines", ""),
    "model_type": ("must be a group of keys", ""),
    "tuple_type": ("must be a list", "write [first, second], or a line with a hyphen for each"),
    "greater_than": ("must be more than {gt}", ""),
    "greater_than_equal": ("must be at least {ge}", ""),
    "less_than_equal": ("must be at most {le}", ""),
    "less_than": ("must be less than {lt}", ""),
    "literal_error": ("must be one of {expected}", ""),
    "int_parsing_size": ("is too large", ""),
}


def plain_words(error: Any, *, in_yaml: bool) -> tuple[str, str]:
    """Message and hint for one entry of pydantic's `errors()`.

    `in_yaml` says that the value stands in the file: how YAML writes it is then worth a word.
    """
    context = error.get("ctx", {})
    refused = context.get("error")
    if hasattr(refused, "hint"):
        return refused.message, refused.hint
    message, hint = _PLAIN_WORDS.get(error["type"], ("cannot be used", "see docs/settings.md"))
    words = {"gt": "", "ge": "", "le": "", "lt": "", "expected": "", **context}
    return message.format_map(words), hint if in_yaml or error["type"] not in _IN_YAML else ""
