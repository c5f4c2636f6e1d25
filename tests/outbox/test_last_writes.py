"""What workers tell each other of their last writes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from gateway.outbox.last_writes import LastWrites, shared_memory


@pytest.fixture
def memory() -> Iterator[int]:
    """Of two workers."""
    descriptor = shared_memory(2)
    yield descriptor
    os.close(descriptor)


def test_each_worker_sees_what_the_other_wrote(memory: int) -> None:
    """And who takes a worker's place, what that one wrote."""
    one, other = (LastWrites.shared(memory, lane) for lane in (0, 1))
    one.record("lab", "Patient/1", 2.0)
    for each in (one, other, LastWrites.shared(memory, 0)):
        assert each.has_newer("lab", "Patient/1", 1.0)
        assert not each.has_newer("lab", "Patient/1", 2.0)


def test_who_comes_late_hides_nothing(memory: int) -> None:
    """The newest counts, in whichever order and by whichever worker they were noted."""
    one, other = (LastWrites.shared(memory, lane) for lane in (0, 1))
    one.record("lab", "Patient/1", 3.0)
    one.record("lab", "Patient/1", 1.0)
    other.record("lab", "Patient/1", 2.0)
    assert one.has_newer("lab", "Patient/1", 2.5)


def test_resources_and_callers_are_told_apart() -> None:
    """Of many others hardly any counts as written."""
    writes = LastWrites.in_process()
    for number in range(1000):
        writes.record("lab", f"Patient/{number}", 2.0)
    assert not writes.has_newer("his", "Patient/1", 1.0)
    mistaken = sum(writes.has_newer("lab", f"Observation/{number}", 1.0) for number in range(1000))
    assert mistaken < 10
