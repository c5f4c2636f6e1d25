"""The terminal that README shows."""

from __future__ import annotations

import shutil

import pytest

from docs import pictures


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing: make test-tools")
def test_the_recorded_terminal_is_what_the_commands_print() -> None:
    """With the values that differ each time left out."""
    shown = pictures.TERMINAL.read_text(encoding="utf-8")
    assert pictures.drawn(list(pictures.recorded())) == shown, "run `python docs/pictures.py`"
