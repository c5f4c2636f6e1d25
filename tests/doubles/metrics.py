"""Metrics as a scrape shows them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


def total(text: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that carry these labels; other metrics are not even parsed."""
    lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(
        sample.value
        for family in text_string_to_metric_families("\n".join((*lines, "")))
        for sample in family.samples
        if labels.items() <= sample.labels.items()
    )
