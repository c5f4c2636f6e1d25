"""When the resources of callers were last written."""

from __future__ import annotations

from gateway.outbox.intake import LastWrites


def test_a_newer_write_is_noticed() -> None:
    writes = LastWrites()
    writes.record("lab", "Patient/1", 2.0)
    assert writes.has_newer("lab", "Patient/1", 1.0)
    assert not writes.has_newer("lab", "Patient/1", 2.0)


def test_who_comes_late_hides_nothing() -> None:
    """The newest counts, in whichever order they were noted."""
    writes = LastWrites()
    writes.record("lab", "Patient/1", 3.0)
    writes.record("lab", "Patient/1", 1.0)
    assert writes.has_newer("lab", "Patient/1", 2.5)


def test_resources_and_callers_are_told_apart() -> None:
    """Of many others hardly any counts as written."""
    writes = LastWrites()
    for number in range(1000):
        writes.record("lab", f"Patient/{number}", 2.0)
    assert not writes.has_newer("his", "Patient/1", 1.0)
    mistaken = sum(writes.has_newer("lab", f"Observation/{number}", 1.0) for number in range(1000))
    assert mistaken < 10
