"""What a killed process had in hand is judged at once by the next one of its machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from gateway.outbox.entry import EntryState
from gateway.outbox.events import OutboxEvent
from gateway.outbox.opening import open_store
from gateway.outbox.owner import current_owner, is_owner_dead
from gateway.outbox.upkeep import OutboxMaintenance
from tests.outbox.child import RECOVERIES, Child, settings
from tests.outbox.drafts import ROOMY, draft

_LEASE = 3600.0


async def test_what_a_killed_process_had_in_hand_is_judged_at_once(tmp_path: Path) -> None:
    """While the owner lives, its lease holds; once it is killed, the lease is not waited for."""
    url = f"sqlite:///{tmp_path}/outbox.db"
    async with open_store(settings(url)) as store:
        for number, recovery in enumerate(RECOVERIES):
            await store.insert(draft(str(number), method="POST", recovery=recovery), ROOMY)
        process = Child("claim", url)
        try:
            async for _ in process.lines():
                break
            events: list[OutboxEvent] = []
            upkeep = OutboxMaintenance(store, events.append, time.monotonic)
            await upkeep.recover_leases(_LEASE, 10.0)
            assert [entry.state for entry in await store.entries()] == [EntryState.SENDING] * 3
        finally:
            await process.killed()
        await upkeep.recover_leases(_LEASE, 10.0)
        states = [entry.state for entry in await store.entries()]
        assert states == [EntryState.WAITING, EntryState.WAITING, EntryState.UNCLEAR]
        assert [event.entry.number for event in events] == [1, 2, 3]


def test_a_process_that_was_not_waited_for_is_dead() -> None:
    """Nothing of it runs any more, though its number is still taken."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, current_owner().encode())
        os._exit(0)
    try:
        name = os.read(reading, 100).decode()
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert is_owner_dead(name)
    finally:
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize(
    ("part", "changed", "dead"),
    [
        (0, "0" * 16, True),  # before the machine was started anew
        (1, "1", False),  # in another container
        (2, str(2**22 + 1), True),  # no process has that number
        (3, "1", True),  # another one has it now
        (4, "other", False),  # one more of the same process
    ],
)
def test_a_process_is_known_by_boot_number_and_start(part: int, changed: str, dead: bool) -> None:
    """It counts as dead where that is sure."""
    parts = current_owner().split(".")
    parts[part] = changed
    assert is_owner_dead(".".join(parts)) is dead


def test_a_name_that_says_nothing_is_not_dead() -> None:
    """As earlier versions gave, and systems without /proc; the own one is not either."""
    assert not is_owner_dead("0123456789abcdef")
    assert not is_owner_dead(current_owner())
    assert len(current_owner()) <= 64
