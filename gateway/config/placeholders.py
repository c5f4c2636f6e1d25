"""Placeholders of example settings, which the operator has to replace."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.config.problems import SettingPath
from gateway.config.section import Section
from gateway.i18n import Message
from gateway.secret import Secret

# SECRET, CLIENT_ID and the like in capitals only: an issued value may be such a word. A key as JSON
# (JWK) is in braces too, and is no placeholder.
_PLACEHOLDER: Final = re.compile(
    r"<[^<>]*>|\$\{[^{}]*\}|\{\{[^{}]*\}\}|\.{3}|…"
    r"|(?i:x{3,}|\*{3,}|todo|placeholder|(?:your|replace)[-_ ]\S.*"
    r"|my[-_ ]client[-_ ](?:id|secret)|change[-_ ]?(?:me|it|this)\W*\d*)"
    r"|(?:CLIENT[-_ ]?)?(?:ID|SECRET)|PASSWORD|API[-_ ]?KEY"
)
MESSAGE: Final = Message("is still the example's placeholder")
HINT: Final = Message("put your own value in its place")


def is_placeholder(text: str) -> bool:
    """Return whether `text` is an unreplaced placeholder, such as `CLIENT_ID`."""
    return _PLACEHOLDER.fullmatch(text.strip(" \t\r\n\"'")) is not None


def find_placeholders(value: Any, setting: SettingPath = ()) -> Iterator[SettingPath]:
    """Yield the settings that hold a placeholder, in a value and everything below it."""
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
