"""When the resources of callers were last written."""

from __future__ import annotations

from gateway.outbox.intake import LastWrites


def test_a_newer_write_is_noticed() -> None:
    writes = LastWrites()
    writes.record("lab", "Patient/1", 2.0)
    assert writes.has_newer("lab", "Patient/1", 1.0)
    assert not writes.has_newer("lab", "Patient/1", 2.0)


def test_an_older_write_does_not_replace_a_newer_one() -> None:
    writes = LastWrites()
    writes.record("lab", "Patient/1", 3.0)
    writes.record("lab", "Patient/1", 1.0)
    assert writes.has_newer("lab", "Patient/1", 2.5)


def test_resources_and_callers_are_told_apart() -> None:
    writes = LastWrites()
    writes.record("lab", "Patient/1", 2.0)
    assert not writes.has_newer("his", "Patient/1", 1.0)
    assert not writes.has_newer("lab", "Patient/2", 1.0)


def test_an_evicted_write_counts_as_newer() -> None:
    writes = LastWrites()
    for number in range(25_000):
        writes.record("lab", f"Patient/{number}", float(number))
    assert writes.has_newer("lab", "Patient/1", 0.5)
    assert not writes.has_newer("lab", "Patient/1", 6_000.0)
    assert not writes.has_newer("lab", "Patient/24999", 24_999.0)
