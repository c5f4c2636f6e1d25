"""The walk of a reload that docs/architecture.md prints, held against a running gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.app.reloader import Reloader
from gateway.config.loader import SettingsSource, load_settings
from tests.app.test_preflight import AWAY, CLIENT, write
from tests.doubles.gateway import running_gateway
from tests.doubles.walks import of, steps, walk

pytestmark = pytest.mark.interpreted


async def here(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in this thread, which is the one whose steps are noted."""
    return function(*arguments)


async def test_the_walk_of_a_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"}
    file = write(tmp_path, {"credentials": {"default": CLIENT}}, **fixed)
    async with running_gateway(f"{AWAY}/fhir", f"{AWAY}/token") as it:
        gateway = it.gateway
        reloader = Reloader(
            SettingsSource(file, {}),
            load_settings(file, {}),
            apply=gateway.reload,
            report=gateway.record_reload,
        )
        with monkeypatch.context() as patched, steps() as taken:
            patched.setattr(asyncio, "to_thread", here)
            await reloader.reload()
            # The old core is retired by a task.
            await asyncio.sleep(0)
    printed = walk("The walk of a reload")
    assert of(printed, taken) == printed
    assert (len(printed), len({file for _, file in printed})) == (10, 6)
