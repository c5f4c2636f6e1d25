"""How `benchmarks.instructions` reads, compares and records its counts."""

from __future__ import annotations

import json

import pytest

from benchmarks.instructions import (
    FIGURES,
    OUTBOX_ROOM,
    ROOM,
    WORKLOADS,
    compare,
    figures_key,
    record,
    report,
    total_of,
)

RECORDED = {"read": {"instructions": 100_000}, "create": {"instructions": 200_000, "why": "audit"}}


@pytest.mark.parametrize(
    ("counted", "is_fault"),
    [(100_000, False), (102_900, False), (97_100, False), (103_100, True), (96_900, True)],
)
def test_a_count_may_differ_by_three_hundredths_either_way(counted: int, is_fault: bool) -> None:
    [difference] = compare({"read": counted}, RECORDED)
    assert difference.is_fault is is_fault
    assert ("too far" in report([difference])) is is_fault


def test_what_is_not_recorded_is_no_fault() -> None:
    [difference] = compare({"delivery": 5}, RECORDED)
    assert not difference.is_fault
    assert "not recorded" in report([difference])


def test_growth_is_recorded_with_its_reason_only() -> None:
    with pytest.raises(SystemExit, match=r"read has grown by 10\.0%"):
        record({"read": 110_000}, RECORDED, "")
    figures = record({"read": 110_000}, RECORDED, "a second look")
    assert figures["read"] == {"instructions": 110_000, "why": "a second look"}
    assert figures["create"] == RECORDED["create"]


def test_a_gain_and_a_new_figure_need_no_reason_and_small_steps_are_not_recorded() -> None:
    figures = record({"read": 90_000, "create": 201_000, "delivery": 5}, RECORDED, "")
    assert figures == {
        "read": {"instructions": 90_000},
        "create": RECORDED["create"],
        "delivery": {"instructions": 5},
    }


@pytest.mark.parametrize(
    ("dump", "total"),
    [
        ("events: Ir\nsummary: 1234567\n\nfl=(1)\n0 17\n\ntotals: 1234567\n", 1234567),
        ("events: Ir\nfl=(1)\n0 17\n\ntotals: 17\n", 17),
        ("events: Ir\nfl=(1)\n", None),
    ],
)
def test_the_total_of_a_dump_is_read_once_it_is_written(dump: str, total: int | None) -> None:
    assert total_of(dump) == total


def test_every_workload_is_recorded_for_each_python() -> None:
    figures = json.loads(FIGURES.read_text())
    assert figures
    assert all(set(recorded) == set(WORKLOADS) for recorded in figures.values())
    assert ROOM <= 0.03 < OUTBOX_ROOM <= 0.65
    assert all(name.count(",") == figures_key(None, "").count(",") for name in figures)
