"""Reads metrics from a scrape."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


def total(text: str, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have these labels; other metrics are not parsed."""
    lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(
        sample.value
        for family in text_string_to_metric_families("\n".join((*lines, "")))
        for sample in family.samples
        if labels.items() <= sample.labels.items()
    )
