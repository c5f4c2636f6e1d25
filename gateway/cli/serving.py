"""`dhp-gateway run`.

This module does not import click, which would stay in memory for as long as the gateway runs.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path


def run_gateway(config: Path | None) -> int:
    """Run the gateway; return the exit code. Raises `SettingsError` and `StartError`."""
    # Garbage collection during the start takes a tenth of its time.
    gc.disable()
    from gateway.config.loader import SettingsSource

    source = SettingsSource.discover(config, os.environ)  # noqa: TID251 - for the settings
    settings = source.load()
    # Collect once, so that garbage of loading the settings is freed for later objects; the
    # remaining objects are never examined again.
    gc.collect()
    gc.freeze()
    from gateway.app.run import run

    return run(settings, source)
