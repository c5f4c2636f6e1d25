"""The source of the settings: the named file, else the first one found, and variables.

A named file is used even if it does not exist; an existing file that cannot be read is never
skipped.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway import os_support
from gateway.config.environment import CONFIG_VARIABLE, has_settings
from gateway.config.loader import load_settings, warnings
from gateway.config.problems import Problem
from gateway.config.settings import Settings
from gateway.config.settings_error import SettingsError
from gateway.i18n import Message, any_of

# In the working directory of the command.
_HERE: Final = Path("gateway.yaml")


def search_paths(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the paths of settings files that are tried, in order, if none is named."""
    if os_support.HAS_FILE_MODES:
        return Path("/etc/dhp-gateway/gateway.yaml"), _HERE
    return Path(environ.get("ProgramData", "C:\\ProgramData"), "DHP Gateway/gateway.yaml"), _HERE


@dataclass(frozen=True, slots=True)
class SettingsSource:
    """A file, if there is one, and overriding variables; `str` says which file and why."""

    path: Path | None
    environ: Mapping[str, str] = field(repr=False)
    origin: str = "--config"

    @classmethod
    def discover(
        cls,
        named: Path | None,
        environ: Mapping[str, str],
        default_paths: Sequence[Path] | None = None,
    ) -> SettingsSource:
        """Return the source that is named, else the first settings file found.

        It is named by `--config` (`named`) or DHP_GATEWAY_CONFIG. `default_paths` replaces the
        search paths.
        """
        if named is not None:
            return cls(named, environ)
        if variable := environ.get(CONFIG_VARIABLE):
            return cls(Path(variable), environ, CONFIG_VARIABLE)
        candidates = search_paths(environ) if default_paths is None else default_paths
        for path in candidates:
            if _exists(path):
                return cls(
                    path.absolute(), environ, Message("found as {place}", place=_spelled(path))
                )
        return cls(
            None,
            environ,
            Message("no file at {places}", places=any_of(map(_spelled, candidates))),
        )

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a file nor a variable."""
        return self.path is None and not has_settings(self.environ)

    def load(self) -> Settings:
        """Return the current settings. Raises `SettingsError`."""
        if self.is_empty:
            hint = Message(
                "{origin}, and no variable holds a setting; to try without any: {trial}",
                origin=self.origin,
                trial=_SANDBOX_COMMAND,
            )
            raise SettingsError(
                [Problem(Message("no settings file"), Message("use --config FILE"), hint)]
            )
        return load_settings(self.path, self.environ)

    def warnings(self, settings: Settings) -> list[Problem]:
        """Return problems that do not prevent a start: unsafe or probably unintended settings."""
        return warnings(self.path, self.environ, settings)

    def __str__(self) -> str:
        return str(self.description())

    def description(self) -> Message:
        """Return which file is used and why, for the operator."""
        what = Message("variables alone") if self.path is None else str(self.path)
        return Message("{what} ({origin})", what=what, origin=self.origin)


_SANDBOX_COMMAND: Final = "dhp-gateway sandbox"


def _exists(path: Path) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        # Without permission to examine the file it counts as found, so that the error is reported.
        return True
    return True


def _spelled(path: Path) -> str:
    return str(path) if path.is_absolute() else f".{os.sep}{path}"
