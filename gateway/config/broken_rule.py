"""What a rule between keys yields when it is broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.config.problems import SettingPath
from gateway.phrases import Phrase


@dataclass(frozen=True, slots=True)
class RuleViolation:
    """A broken rule: at which key, what is wrong, what to do."""

    setting: SettingPath
    message: Phrase
    hint: Phrase
    related_settings: tuple[SettingPath, ...] = ()


RESERVED_PARAMETER: Final = (Phrase("is set by the gateway itself"), Phrase("remove it"))
