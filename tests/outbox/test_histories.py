"""A short random history, and the checker of the long ones, which is checked itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.outbox.entry import EntryState
from tests.outbox.histories import Sent, Write, faults, run
from tests.outbox.postgres_server import postgres_server


async def test_a_short_history_ends_well(tmp_path: Path) -> None:
    """Killed and cut while callers write: all there in order, once, and nothing else."""
    figures, wrong = await run(tmp_path, 4, 5, events=("cut", "kill"))
    assert wrong == []
    assert figures["effects"]
    assert figures["kill"]


async def test_a_short_history_of_two_gateways_ends_well(tmp_path: Path) -> None:
    """Both on one PostgreSQL, each killed and ended at times, and one for good: as above."""
    for server in postgres_server():
        url = await server.fresh_database("history")
        events = ("cut", "weather", "kill", "restart")
        figures, wrong = await run(tmp_path, 2, 8, events=events, url=url)
        assert wrong == []
        assert figures["effects"]
        assert figures["kill"]


def sent(number: int, kind: str, status: int, entry: str = "") -> Sent:
    """A write that was answered so."""
    return Sent(Write(number, "lis", 1, kind), status, entry)


FIRST, SECOND = sent(0, "POST", 201), sent(1, "PUT", 202, "e")
KEPT = {"e": EntryState.DELIVERED}
RIGHT = [(each.write.key, each.write.body or b"") for each in (FIRST, SECOND)]


@pytest.mark.parametrize(
    ("wrong", "effects", "states"),
    [
        (None, RIGHT, KEPT),
        (None, [*RIGHT, RIGHT[1]], KEPT),
        ("is lost", RIGHT[:1], KEPT),
        ("was not delivered", RIGHT, {"e": EntryState.UNCLEAR}),
        ("was not delivered", RIGHT, {}),
        ("was done 2 times", [RIGHT[0], *RIGHT], KEPT),
        ("came after", RIGHT[::-1], KEPT),
        ("was not asked for", [*RIGHT, ("h-9", b"")], KEPT),
        ("was changed", [RIGHT[0], (RIGHT[1][0], b"{}")], KEPT),
    ],
)
def test_the_checker_sees(
    wrong: str | None, effects: list[tuple[str, bytes]], states: dict[str, EntryState]
) -> None:
    """What is lost, doubled, out of order, changed, or was never asked for."""
    found = faults([FIRST, SECOND], states, effects)
    assert any(wrong in each for each in found) if wrong else found == []
