"""The result of a violated rule between keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.config.problems import SettingPath
from gateway.phrases import Phrase


@dataclass(frozen=True, slots=True)
class RuleViolation:
    """A violated rule: its key (`setting`), what is wrong, and what to do.

    `related_settings` are the other keys that the rule depends on.
    """

    setting: SettingPath
    message: Phrase
    hint: Phrase
    related_settings: tuple[SettingPath, ...] = ()


RESERVED_PARAMETER: Final = (Phrase("is set by the gateway itself"), Phrase("remove it"))
