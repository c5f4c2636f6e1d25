"""The result of a violated rule between keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.config.problems import SettingPath
from gateway.i18n import Message


@dataclass(frozen=True, slots=True)
class RuleViolation:
    """A violated rule: its key (`setting`), what is wrong, and what to do.

    `related_settings` are the other keys that the rule depends on.
    """

    setting: SettingPath
    message: Message
    hint: Message
    related_settings: tuple[SettingPath, ...] = ()


RESERVED_PARAMETER: Final = (Message("is set by the gateway itself"), Message("remove it"))
