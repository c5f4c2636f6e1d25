"""How much of what explores runs where: `make test`, `.ci/run` (all), `make nightly` (longer)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import pytest

NIGHTLY = os.environ.get("DHP_NIGHTLY") == "1"


def seconds(in_ci: float, nightly: float) -> float:
    """Return how long something takes: the first value, or by night the second."""
    return nightly if NIGHTLY else in_ci


def left_to_ci(rows: Iterable[Any], *, but: int) -> list[Any]:
    """Return all rows of a table; `make test` takes as many as `but`, evenly spread over it.

    For tables that cross two lists, whose single rows say little. A row is a value, or a tuple of
    the values of several arguments.
    """
    table = list(rows)
    taken = {place * len(table) // but for place in range(but)}
    return [
        row
        if place in taken
        else pytest.param(*(row if isinstance(row, tuple) else (row,)), marks=pytest.mark.ci)
        for place, row in enumerate(table)
    ]
