"""Base URLs that the platform uses in its responses and that the settings lack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)

# Number of aliases logged: a platform could make up any number.
_MAX_LOGGED: Final = 16


class MissingAliases:
    """Records responses whose links callers cannot follow. `on_response` counts them.

    `latest` is the base URL of the last one, in the form that `rewrite.aliases` needs.
    """

    def __init__(self, on_response: Callable[[], None]) -> None:
        self._on_response = on_response
        self._logged: set[str] = set()
        self.latest: str | None = None

    def record(self, alias: str) -> None:
        """Count a response, and log its alias the first time."""
        self._on_response()
        self.latest = alias
        if alias not in self._logged and len(self._logged) < _MAX_LOGGED:
            self._logged.add(alias)
            _log.warning(
                "the platform's links lead to %s, past the gateway: add it to rewrite.aliases",
                alias,
            )
