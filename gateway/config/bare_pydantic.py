"""pydantic without plugins, for which it would look through all installed packages.

That loads what reads archives, mails and tables, to stay in memory; and what a package that happens
to be installed makes of the settings is nothing that anybody here wants.
"""

from __future__ import annotations

import sys
from types import ModuleType

_LOADER = "pydantic.plugin._loader"
if _LOADER not in sys.modules:
    sys.modules[_LOADER] = ModuleType(_LOADER)
    sys.modules[_LOADER].get_plugins = tuple  # type: ignore[attr-defined]

from pydantic import BaseModel, ConfigDict, model_validator  # noqa: E402 - not before

__all__ = ["BaseModel", "ConfigDict", "model_validator"]
