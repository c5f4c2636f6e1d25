"""Tries seeds, and shrinks the plan of a run that violates an invariant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tests.simulation.invariants import violations
from tests.simulation.plan import Plan, plan_of, without
from tests.simulation.substitutes import real_monotonic
from tests.simulation.world import Run, run_plan

# Runs for the shrinking of one plan.
_ATTEMPTS = 150
_LINES = 120


@dataclass
class Failure:
    """A run that violates invariants, and the shrunk plan that still does."""

    plan: Plan
    violations: list[tuple[str, str]]
    shrunk: Plan
    run: Run

    def text(self) -> str:
        """Return what a person needs to repeat and understand it."""
        story = self.run.history.lines()
        cut = [f"… {len(story) - _LINES} lines before"] if len(story) > _LINES else []
        return "\n".join(
            [
                f"seed {self.plan.seed}, scenario {self.plan.scenario}:"
                f" python -m tests.simulation {self.plan.seed} --scenario {self.plan.scenario}",
                *(f"  {name.replace('_', ' ')}: {text}" for name, text in self.violations),
                f"shrunk from {len(self.plan.faults)} faults and {len(self.plan.calls)} calls to:",
                *(f"  {line}" for line in self.shrunk.lines()),
                "which goes like this:",
                *cut,
                *story[-_LINES:],
            ]
        )


@dataclass
class Tally:
    """How much was tried."""

    runs: int = 0
    steps: int = 0
    seconds: float = 0.0


def seeds_for(seconds: float, first: int) -> Iterator[int]:
    """Yield seeds from `first` on for some real seconds."""
    until = real_monotonic() + seconds
    seed = first
    while real_monotonic() < until:
        yield seed
        seed += 1


def first_failure(
    seeds: Iterable[int],
    scenario: str | None,
    tally: Tally,
    *,
    shrinks: bool = True,
    report: Callable[[int, Run], None] = lambda seed, run: None,
) -> Failure | None:
    """Return the first failure among the seeds, None without one."""
    for seed in seeds:
        run = run_plan(plan_of(seed, scenario))
        tally.runs += 1
        tally.steps += run.steps
        tally.seconds += run.seconds
        report(seed, run)
        if found := violations(run):
            return shrink(run, found) if shrinks else Failure(run.plan, found, run.plan, run)
    return None


def shrink(run: Run, found: list[tuple[str, str]]) -> Failure:
    """Leave out faults and calls for as long as the same invariant is violated."""
    name = found[0][0]
    smallest, smallest_run = run.plan, run
    attempts = 0
    size = max(1, (len(run.plan.faults) + len(run.plan.calls)) // 2)
    while size and attempts < _ATTEMPTS:
        for smaller in _smaller(smallest, size):
            attempts += 1
            again = run_plan(smaller)
            if any(each == name for each, _ in violations(again)):
                smallest, smallest_run = smaller, again
                break
            if attempts >= _ATTEMPTS:
                break
        else:
            size //= 2
    return Failure(run.plan, violations(smallest_run), smallest, smallest_run)


def _smaller(plan: Plan, size: int) -> Iterator[Plan]:
    """Yield the plan without `size` parts that follow each other."""
    parts = [("fault", place) for place in range(len(plan.faults))]
    parts += [("call", place) for place in range(len(plan.calls))]
    for start in range(0, len(parts), size):
        left_out = parts[start : start + size]
        yield without(
            plan,
            faults=tuple(place for kind, place in left_out if kind == "fault"),
            calls=tuple(place for kind, place in left_out if kind == "call"),
        )
