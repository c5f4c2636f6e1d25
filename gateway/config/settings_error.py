"""The error of settings that cannot be used.

Exception
└─ SettingsError     holds every reason
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.config.problems import Problem
from gateway.config.settings import Settings


class SettingsError(Exception):
    """The settings cannot be used; `problems` holds every reason.

    `partial_settings` are settings without the wrong values, for checking only; None where there
    are none.
    """

    def __init__(
        self, problems: Iterable[Problem], partial_settings: Settings | None = None
    ) -> None:
        self.problems = tuple(problems)
        self.partial_settings = partial_settings
        super().__init__("\n".join(map(str, self.problems)))
