"""The walks that docs/architecture.md prints, and the functions that requests pass."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[2]
PACKAGE = f"{ROOT / 'gateway'}/"
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
Step = tuple[str, str]


def walk(title: str) -> list[Step]:
    """Return the rows of a walk: function and file."""
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    rows: list[Step] = re.findall(r"^\| `([\w.<>]+)` \| `([\w/]+\.py)` \|", section, re.MULTILINE)
    assert len(rows) > 5
    return rows


@contextmanager
def steps() -> Iterator[dict[Step, str]]:
    """Yield the functions of the gateway in the order in which this thread first calls them.

    The value is the file of the calling function.
    """
    received: dict[Step, str] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE):
            step = code.co_qualname, code.co_filename.removeprefix(PACKAGE)
            caller = "" if frame.f_back is None else frame.f_back.f_code.co_filename
            received.setdefault(step, caller.removeprefix(PACKAGE))

    sys.setprofile(note)
    try:
        yield received
    finally:
        sys.setprofile(None)


def of(printed: list[Step], taken: dict[Step, str]) -> list[Step]:
    """Return the printed steps in the order in which they were taken."""
    return [step for step in taken if step in printed]
