"""What happens in a run besides the order of events: who calls when, and what fails when.

A plan follows from its seed, is data that can be printed, and can be shrunk by leaving things out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.simulation.simulated_loop import Order

SCENARIOS = ("tokens", "outbox", "changes", "login")
# Seconds after which the gateway gives up a token request: `sso.timeout`.
SSO_TIMEOUT = 3.0


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong from `at` on for some `seconds`, counted from the start.

    `value` means a probability, a status or a number of seconds, as `kind` says.
    """

    at: float
    kind: str
    seconds: float = 0.0
    value: float = 0.0

    def __str__(self) -> str:
        lasting = f" for {self.seconds:g} s" if self.seconds else ""
        value = f" ({self.value:g})" if self.value else ""
        return f"{self.at:g} s: {self.kind}{value}{lasting}"


@dataclass(frozen=True)
class Call:
    """A request of a caller's connection `lane`, which sends its requests one after the other.

    `manner`: "" for a caller that waits for the response; "leaves" closes after `value` seconds,
    "half-closes" behind its request, "reads slowly" pauses `value` seconds.
    """

    at: float
    lane: int
    kind: str
    patient: int
    is_async: bool = False
    manner: str = ""
    value: float = 0.0

    def __str__(self) -> str:
        manner = f", {self.manner} ({self.value:g} s)" if self.manner else ""
        preference = ", respond-async" if self.is_async else ""
        return f"{self.at:g} s: lane {self.lane} {self.kind} {self.patient}{preference}{manner}"


@dataclass(frozen=True)
class Plan:
    """A run. `lanes` are the credentials of the callers' connections."""

    seed: int
    scenario: str
    order: Order
    is_coarse: bool
    max_fragment: int | None
    lanes: tuple[int, ...]
    token_lifetime: int
    seconds: float
    conditional_create: bool
    faults: tuple[Fault, ...]
    calls: tuple[Call, ...]

    @property
    def has_outbox(self) -> bool:
        return self.scenario == "outbox"

    @property
    def has_login(self) -> bool:
        return self.scenario == "login"

    @property
    def loses_power(self) -> bool:
        return any(fault.kind == "power failure" for fault in self.faults)

    @property
    def loses_processes(self) -> bool:
        return any(fault.kind in ("kill", "power failure") for fault in self.faults)

    def lines(self) -> Iterator[str]:
        """Yield the plan in words."""
        times = "coarse" if self.is_coarse else "continuous"
        yield f"scenario {self.scenario}, order {self.order}, {times} times"
        yield (
            f"fragments of at most {self.max_fragment} bytes"
            if self.max_fragment
            else "whole writes"
        )
        yield f"credentials of the lanes {self.lanes}, tokens of {self.token_lifetime} s"
        yield from map(str, sorted((*self.faults, *self.calls), key=lambda each: each.at))


_PLATFORM_FAULTS = (
    "platform answers 503",
    "platform answers 503 with Retry-After",
    "platform answers 502 after it acted",
    "platform answers 500 after it acted",
    "platform resets before it acts",
    "platform resets after it acted",
    "platform breaks off its response",
    "platform pauses within its response",
    "platform is slow",
    "platform closes after each response",
)
_SSO_FAULTS = ("sso answers 503", "sso resets", "sso is slow", "sso answers with a page")
_CUTS = ("no link to the platform", "no link to the sso")
_MANNERS = ("leaves", "half-closes", "reads slowly")


# At least and at most.
_CALLS_OF_A_LANE = {"tokens": (10, 40), "outbox": (6, 20), "changes": (3, 15), "login": (10, 30)}


class Planner:
    """Draws the parts of one plan."""

    def __init__(self, seed: int, scenario: str) -> None:
        self._seed = seed
        self._scenario = scenario
        self._rng = random.Random(f"{seed}:plan:{scenario}")
        self._is_coarse = self._rng.random() < 0.5

    def plan(self) -> Plan:
        rng = self._rng
        order: Order = rng.choices(("instants", "random", "priorities"), (6, 3, 1))[0]
        lanes = tuple(rng.randrange(2) for _ in range(rng.randint(1, 4)))
        seconds = {"tokens": 60.0, "outbox": 40.0, "changes": 40.0, "login": 50.0}[self._scenario]
        faults = tuple(sorted(self._faults(seconds), key=lambda fault: fault.at))
        # Where something begins or ends most can go wrong, and in between most is queued.
        self._edges = [
            fault.at + part * fault.seconds for fault in faults for part in (0.0, 0.5, 1.0)
        ]
        return Plan(
            seed=self._seed,
            scenario=self._scenario,
            order=order,
            is_coarse=self._is_coarse,
            max_fragment=rng.choice((None, None, None, 700)),
            lanes=lanes,
            token_lifetime=rng.choice((8, 30, 300)),
            seconds=seconds,
            conditional_create=rng.random() < 0.5,
            faults=faults,
            calls=tuple(sorted(self._calls(lanes, seconds), key=lambda call: call.at)),
        )

    def _moment(self, first: float, last: float) -> float:
        moment = self._rng.uniform(first, last)
        return round(moment * 20) / 20 if self._is_coarse else round(moment, 4)

    def _moment_of_call(self, last: float) -> float:
        if self._edges and self._rng.random() < 0.5:
            edge = self._rng.choice(self._edges)
            return self._moment(max(0.2, edge - 0.3), edge + 0.6)
        return self._moment(0.2, last)

    def _calls(self, lanes: tuple[int, ...], seconds: float) -> Iterator[Call]:
        rng = self._rng
        kinds = {
            "tokens": (("read", 8), ("write", 2)),
            "outbox": (("read", 1), ("write", 7), ("create", 5), ("bare create", 2)),
            "changes": (("read", 4), ("write", 3), ("create", 4)),
            "login": (("read", 6), ("write", 1)),
        }[self._scenario]
        names, weights = zip(*kinds, strict=True)
        for lane in range(len(lanes)):
            burst = rng.randint(*_CALLS_OF_A_LANE[self._scenario])
            # A write that may not be queued does not wait for those that are: a caller that wants
            # their order asks for all of them in the same way.
            is_async = self._scenario == "outbox" and rng.random() < 0.8
            for _ in range(burst):
                kind = rng.choices(names, weights)[0]
                manner = rng.choice(_MANNERS) if rng.random() < 0.15 else ""
                yield Call(
                    at=self._moment_of_call(seconds),
                    lane=lane,
                    kind=kind,
                    # No other lane writes the same patient.
                    patient=lane * 10 + rng.randrange(2),
                    is_async=kind != "read" and is_async,
                    manner=manner,
                    value=self._moment(0.0, 3.0) if manner else 0.0,
                )

    def _faults(self, seconds: float) -> Iterator[Fault]:
        rng = self._rng
        failures = [*self._failures(seconds)]
        if self._scenario == "outbox" and rng.random() < 0.7:
            failures += self._return_of_the_link(seconds)
        yield from failures
        if self._scenario == "outbox":
            # When a link works again, deliveries begin.
            ends = [fault.at + fault.seconds for fault in failures if fault.seconds]
            yield from self._crashes(seconds, ends)
        if self._scenario == "changes":
            yield from self._changes(seconds)
        if self._scenario == "login":
            for _ in range(rng.randint(0, 3)):
                yield Fault(self._moment(0.0, seconds), "reload")

    def _failures(self, seconds: float) -> Iterator[Fault]:
        rng = self._rng
        for _ in range(rng.randint(0, 3)):
            kind = rng.choice(_PLATFORM_FAULTS)
            yield Fault(self._moment(0.0, seconds), kind, self._moment(0.5, 12.0), 0.5)
        for _ in range(rng.randint(0, 2)):
            yield Fault(self._moment(0.0, seconds), rng.choice(_CUTS), self._moment(0.2, 25.0))
        for _ in range(rng.randint(0, 3 if self._scenario in ("tokens", "login") else 1)):
            kind = rng.choice(_SSO_FAULTS)
            yield Fault(self._moment(0.0, seconds), kind, self._moment(0.5, 8.0), 0.7)
        for _ in range(rng.randint(0, 2)):
            yield Fault(self._moment(0.0, seconds), "tokens are revoked")
        if rng.random() < 0.3:
            step = rng.choice((-90.0, -5.0, 5.0, 90.0))
            yield Fault(self._moment(0.0, seconds), "wall clock jumps", 0.0, step)

    def _return_of_the_link(self, seconds: float) -> Iterator[Fault]:
        """Yield a cut link, and a platform that fails while what waited is delivered."""
        at, lasting = self._moment(1.0, seconds - 15), self._moment(2.0, 10.0)
        yield Fault(at, "no link to the platform", lasting)
        kind = self._rng.choice(_PLATFORM_FAULTS)
        yield Fault(at + lasting, kind, self._moment(3.0, 15.0), 0.5)

    def _changes(self, seconds: float) -> Iterator[Fault]:
        rng = self._rng
        for _ in range(rng.randint(1, 4)):
            yield Fault(self._moment(0.0, seconds), "reload")
        if rng.random() < 0.5:
            yield Fault(self._moment(0.0, seconds), "stop", self._moment(0.1, 4.0))
        if rng.random() < 0.3:
            yield Fault(self._moment(0.0, seconds), "kill", self._moment(0.1, 4.0))

    def _crashes(self, seconds: float, ends: list[float]) -> Iterator[Fault]:
        rng = self._rng
        # One kind for a run: without a power failure nothing of the flushes is kept.
        kind = rng.choice(("kill", "power failure"))
        for _ in range(rng.choice((0, 1, 1, 2))):
            at = self._moment(0.0, seconds + 5)
            if ends and rng.random() < 0.6:
                end = rng.choice(ends)
                at = self._moment(end, end + 1.0)
            yield Fault(at, kind, self._moment(0.1, 4.0), rng.randrange(3))
        if rng.random() < 0.2:
            yield Fault(self._moment(0.0, seconds), "reload")
        if rng.random() < 0.2:
            yield Fault(self._moment(0.0, seconds), "stop", self._moment(0.1, 4.0))


def plan_of(seed: int, scenario: str | None = None) -> Plan:
    """Return the plan of a seed, which chooses the scenario, too, unless one is named."""
    return Planner(seed, scenario or SCENARIOS[seed % len(SCENARIOS)]).plan()


def without(plan: Plan, *, faults: tuple[int, ...] = (), calls: tuple[int, ...] = ()) -> Plan:
    """Return the plan without some of its faults and calls, given by their positions."""
    return replace(
        plan,
        faults=tuple(each for place, each in enumerate(plan.faults) if place not in faults),
        calls=tuple(each for place, each in enumerate(plan.calls) if place not in calls),
    )
