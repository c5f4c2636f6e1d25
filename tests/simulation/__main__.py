"""`python -m tests.simulation SEED` repeats a run and tells what happened in it.

Without a seed, new ones are tried for `--seconds`.
"""

from __future__ import annotations

import argparse
import random
import sys

from tests.simulation import planted_faults
from tests.simulation.explore import Tally, first_failure, seeds_for, shrink
from tests.simulation.found import FOUND
from tests.simulation.invariants import violations
from tests.simulation.plan import SCENARIOS, Plan, plan_of
from tests.simulation.substitutes import real_monotonic
from tests.simulation.world import run_plan


def main() -> int:
    """Return 0 if all invariants held."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("seed", nargs="?", type=int)
    parser.add_argument("--scenario", choices=SCENARIOS)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--first", type=int, default=None)
    parser.add_argument("--seeds", type=int, default=None)
    parser.add_argument("--fault", choices=sorted(planted_faults.FAULTS))
    parser.add_argument("--found", choices=sorted(FOUND))
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--trace", action="store_true")
    arguments = parser.parse_args()
    if arguments.fault:
        planted_faults.plant(arguments.fault)
    if arguments.found is not None:
        return _repeat(FOUND[arguments.found], arguments)
    if arguments.seed is not None:
        return _repeat(plan_of(arguments.seed, arguments.scenario), arguments)
    return _explore(arguments)


def _repeat(plan: Plan, arguments: argparse.Namespace) -> int:
    run = run_plan(plan, keeps_trace=arguments.trace)
    found = violations(run)
    if found and not arguments.no_shrink:
        print(shrink(run, found).text())
        return 1
    print("\n".join((*run.plan.lines(), *run.history.lines())))
    for name, text in found:
        print(f"{name.replace('_', ' ')}: {text}")
    print(f"{run.steps} steps, {run.seconds:.1f} simulated seconds {run.trace}")
    return 1 if found else 0


def _explore(arguments: argparse.Namespace) -> int:
    first = arguments.first
    if first is None:
        first = random.SystemRandom().randrange(2**40)
    if arguments.seeds is None:
        seeds = seeds_for(arguments.seconds, first)
    else:
        seeds = iter(range(first, first + arguments.seeds))
    tally, began = Tally(), real_monotonic()
    failure = first_failure(seeds, arguments.scenario, tally, shrinks=not arguments.no_shrink)
    took = real_monotonic() - began
    print(
        f"{tally.runs} runs from seed {first} on, {tally.steps} steps, "
        f"{tally.seconds / 3600:.2f} simulated hours in {took:.1f} s"
    )
    if failure is not None:
        print(failure.text())
    return 1 if failure is not None else 0


if __name__ == "__main__":
    sys.exit(main())
