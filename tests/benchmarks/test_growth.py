"""How the report of `benchmarks.growth` judges what grows."""

from __future__ import annotations

import pytest

from benchmarks.growing import DIMENSIONS, Step
from benchmarks.growth import growths, table
from benchmarks.growth_chart import growth_chart

CALLERS = DIMENSIONS[0]


@pytest.mark.parametrize(
    ("figure", "values", "exponent", "is_fault"),
    [
        ("memory, MB", (10, 10, 10), 0, False),
        ("memory, MB", (1, 10, 100), 1, False),
        ("memory, MB", (1, 10, 1000), 2, True),
        ("read, CPU µs each", (50, 50, 55), 0.04, False),
        ("read, CPU µs each", (50, 50, 100), 0.3, True),
    ],
)
def test_the_exponent_of_the_last_steps_decides(
    figure: str, values: tuple[float, ...], exponent: float, is_fault: bool
) -> None:
    steps = [Step(10**power, {figure: value}) for power, value in enumerate(values)]
    [growth] = growths(CALLERS, steps)
    assert growth.exponent == pytest.approx(exponent, abs=0.005)
    assert growth.is_fault is is_fault
    assert ("(fault)" in table([growth])) is is_fault


def test_a_figure_of_one_size_has_no_exponent() -> None:
    [growth] = growths(CALLERS, [Step(1, {"memory, MB": 70.0})])
    assert growth.exponent is None
    assert not growth.is_fault


def test_the_picture_names_every_figure() -> None:
    values = [(1, 70.0), (10, 75.0), (100, 120.0)]
    picture = growth_chart([("callers", "memory", values), ("entries", "start", values)])
    assert picture.count("<polyline") == 4
    assert all(text in picture for text in ("memory", "start", "callers", "entries"))
