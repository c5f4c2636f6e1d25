"""The commands that last: `run_gateway`, and `run_worker` for its own use.

Nothing here loads typer, which would stay in memory for as long as the gateway runs.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path


def run_gateway(config: Path | None) -> int:
    """Run the gateway; gives the exit code. Raises `SettingsError` and `StartError`."""
    # To look for garbage all the time takes a tenth of the time to start.
    gc.disable()
    from gateway.config import SettingsSource

    source = SettingsSource.discover(config, os.environ)  # noqa: TID251 - as the command line's
    settings = source.load()
    # Once, what the settings have left behind makes room for all that comes; nothing of the rest
    # is looked at again.
    gc.collect()
    gc.freeze()
    from gateway.process.run import run as serve

    return serve(settings, source)


def run_worker(inheritance: str) -> int:
    """Run one of several workers; gives the exit code. Raises ValueError for no such text."""
    gc.disable()
    from gateway.process.worker import WorkerDescriptors
    from gateway.process.worker import run as serve

    return serve(WorkerDescriptors.from_text(inheritance), os.environ)  # noqa: TID251 - the same
