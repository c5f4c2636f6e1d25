"""The walks that docs/architecture.md prints, held against requests that are on their way."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from tests.doubles.gateway import Running
from tests.doubles.wire import Wire, get

ROOT = Path(__file__).parents[2]
PACKAGE = f"{ROOT / 'gateway'}/"
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
Step = tuple[str, str]

pytestmark = pytest.mark.interpreted


def walk(title: str) -> list[Step]:
    """The rows of a walk: function and file."""
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([\w.]+)` \| `([\w/]+\.py)` \|", section, re.MULTILINE)


@contextmanager
def steps() -> Iterator[dict[Step, str]]:
    """The functions of the gateway in the order in which they are first called, and where from."""
    seen: dict[Step, str] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE):
            step = code.co_qualname, code.co_filename.removeprefix(PACKAGE)
            caller = "" if frame.f_back is None else frame.f_back.f_code.co_filename
            seen.setdefault(step, caller.removeprefix(PACKAGE))

    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(None)


async def test_the_walk_of_a_read(gateway: Running) -> None:
    """A read on a connection that has asked before takes a dozen steps, which the handler calls."""
    async with await Wire.open(gateway.address) as wire:
        await wire.ask(get("/fhir/Patient/1"))
        with steps() as taken:
            await wire.ask(get("/fhir/Patient/2"))
    printed = walk("The walk of a read")
    assert len(printed) == 12
    assert [step for step in taken if step in printed] == printed
    assert {taken[step] for step in printed} == {"pipeline/handler.py"}
    bytewise = walk("The bytes of a read")
    assert len(bytewise) > 5
    assert [step for step in taken if step in bytewise] == bytewise


async def test_the_walk_of_a_token(gateway: Running) -> None:
    """A request that finds no token takes the printed steps to one, in their order."""
    async with await Wire.open(gateway.address) as wire:
        with steps() as taken:
            await wire.ask(get("/fhir/Patient/1"))
    printed = walk("The walk of a token")
    assert len(printed) > 5
    assert [step for step in taken if step in printed] == printed
