"""Words that stand in examples where a value of the hospital's own belongs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.config.problems import SettingPath
from gateway.config.section import Section
from gateway.phrases import Phrase
from gateway.secret import Secret

# SECRET, CLIENT_ID and the like in capitals only: somebody may have been given such a word. A key
# as JSON (a JWK) stands between braces, too, and is none.
_PLACEHOLDER: Final = re.compile(
    r"<[^<>]*>|\$\{[^{}]*\}|\{\{[^{}]*\}\}|\.{3}|…"
    r"|(?i:x{3,}|\*{3,}|todo|placeholder|(?:your|replace)[-_ ]\S.*"
    r"|my[-_ ]client[-_ ](?:id|secret)|change[-_ ]?(?:me|it|this)\W*\d*)"
    r"|(?:CLIENT[-_ ]?)?(?:ID|SECRET)|PASSWORD|API[-_ ]?KEY"
)
MESSAGE: Final = Phrase("is still the example's placeholder")
HINT: Final = Phrase("put your own value in its place")


def is_placeholder(text: str) -> bool:
    """Whether a text is none of somebody's, but one to be replaced."""
    return _PLACEHOLDER.fullmatch(text.strip(" \t\r\n\"'")) is not None


def find_placeholders(value: Any, setting: SettingPath = ()) -> Iterator[SettingPath]:
    """The settings that still hold one, in a group of them and all below."""
    if isinstance(value, Section):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from find_placeholders(inner, (*setting, name))
    elif isinstance(value, tuple):
        for index, inner in enumerate(value):
            yield from find_placeholders(inner, (*setting, index))
    elif is_placeholder(value.reveal() if isinstance(value, Secret) else str(value)):
        yield setting
