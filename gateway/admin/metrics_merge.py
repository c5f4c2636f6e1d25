"""Merges the metrics and the readiness of several workers into those of one gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from gateway.admin.judgement import HealthEvidence, PlatformHealth, evaluate_health, merge_evidence
from gateway.telemetry.metrics import render

# A metric family as plain data: name, help text, type and samples. A sample has a name, labels, a
# value and, for a histogram's bucket with a trace, the exemplar's labels, value and time.
Plain = Sequence[Any]
Sample = tuple[str, dict[str, str], float, Plain | None]
Family = tuple[str, str, str, list[Sample]]

# Gauges whose sum over workers has no meaning; all other metrics are summed.
_COMBINED: Final[dict[str, Callable[[float, float], float]]] = {
    "dhp_gateway_circuit_state": max,
    "dhp_gateway_build_info": max,
    "process_max_fds": max,
    "process_start_time_seconds": min,
    # The earliest expiry, or 0 if a worker has no token.
    "dhp_gateway_token_expiry_timestamp_seconds": min,
    "dhp_gateway_certificate_expiry_timestamp_seconds": min,
    # All workers report the same queue.
    "dhp_gateway_outbox_entries": max,
    "dhp_gateway_outbox_oldest_seconds": max,
    "dhp_gateway_outbox_available": min,
}
_ACCUMULATING: Final = frozenset(("counter", "histogram", "summary"))


def snapshot(registry: CollectorRegistry) -> list[Family]:
    """Return all metrics of a registry as plain data."""
    return [
        (
            family.name,
            family.documentation,
            family.type,
            [
                (sample.name, dict(sample.labels), sample.value, sample.exemplar)
                for sample in family.samples
            ],
        )
        for family in registry.collect()
    ]


class MergedMetrics(Collector):
    """The merged metrics of all processes, with the counts of processes that have ended."""

    def __init__(self) -> None:
        self._present: dict[object, Sequence[Family]] = {}
        self._departed: list[Family] = []
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def update(self, process: object, families: Sequence[Family]) -> None:
        """Replace the metrics of a process by its current ones."""
        self._present[process] = families

    def remove_process(self, process: object) -> None:
        """Remove a process that has ended; its counts are retained, so that no sum decreases."""
        last = [family for family in self._present.pop(process, ()) if family[2] in _ACCUMULATING]
        self._departed = merge([self._departed, last])

    def render(self, accept: str | None = None) -> tuple[str, bytes]:
        """Return the content type and body of a scrape."""
        return render(self._registry, accept)

    def collect(self) -> Iterator[Metric]:
        """Yield the merged families (Collector)."""
        for name, text, kind, samples in merge([self._departed, *self._present.values()]):
            family = Metric(name, text, kind)
            for sample, labels, value, plain in samples:
                exemplar = None if plain is None else Exemplar(*plain)
                family.add_sample(sample, labels, value, exemplar=exemplar)
            yield family

    def describe(self) -> list[Metric]:
        """Return no families, because none is known in advance (Collector)."""
        return []


def merge(sources: Iterable[Sequence[Family]]) -> list[Family]:
    """Return the families of all sources; those of the same name are merged sample by sample."""
    heads: dict[str, tuple[str, str]] = {}
    merged: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], Sample]] = {}
    for families in sources:
        for name, text, kind, samples in families:
            heads.setdefault(name, (text, kind))
            known = merged.setdefault(name, {})
            for sample in samples:
                key = (sample[0], tuple(sample[1].items()))
                known[key] = _merge_family(name, known[key], sample) if key in known else sample
    return [(name, *head, list(merged[name].values())) for name, head in heads.items()]


def _merge_family(family: str, one: Sample, other: Sample) -> Sample:
    exemplars = [exemplar for exemplar in (one[3], other[3]) if exemplar is not None]
    # Of two exemplars the later one is used: its trace shows the more recent state.
    exemplar = max(exemplars, key=lambda exemplar: float(exemplar[2]), default=None)
    return one[0], one[1], _combine(family, one[0], one[2], other[2]), exemplar


def _combine(family: str, sample: str, one: float, other: float) -> float:
    if sample.endswith("_created"):
        return min(one, other)
    combined = _COMBINED.get(family)
    return one + other if combined is None else combined(one, other)


def merge_readiness(
    reports: Mapping[int, Mapping[str, Any] | None], *, draining: bool
) -> tuple[bool, dict[str, Any]]:
    """Return whether the gateway is ready, and the JSON body that names the failing checks.

    `reports` has the report of each worker by its number, None for one that does not respond. A
    check fails if it fails in any worker; `workers` fails while one is missing. The platform's
    health is evaluated from the evidence of all workers.
    """
    checks: dict[str, bool] = {}
    for report in reports.values():
        for check, state in (report or {}).get("checks", {}).items():
            checks[check] = checks.get(check, True) and state == "ok"
    if "platform" in checks:
        checks["platform"] = not merge_health(reports).is_platform_at_fault
    checks["workers"] = all(report is not None for report in reports.values())
    checks["shutdown"] = checks.get("shutdown", True) and not draining
    failing = [check for check, passed in checks.items() if not passed]
    return not failing, {
        "ready": not failing,
        "failing": failing,
        "checks": {check: "ok" if passed else "failed" for check, passed in checks.items()},
    }


def merge_health(reports: Mapping[int, Mapping[str, Any] | None]) -> PlatformHealth:
    """Return the platform health that the evidence in all workers' reports shows."""
    present = (report for report in reports.values() if report is not None)
    return evaluate_health(
        merge_evidence(
            HealthEvidence(**report["evidence"]) for report in present if "evidence" in report
        )
    )
