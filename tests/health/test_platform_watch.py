"""The watch over weeks of a clock: callers' mistakes never look like an outage, each outage does.

A platform is a pair of functions here: what its answer to a caller tells, and to the gateway. What
real answers tell is asked in tests/lifecycle/test_truth.py.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from gateway.exchange import Exchange
from gateway.health.evidence import CircuitState
from gateway.health.health import Component, Health, readiness, usability
from gateway.health.platform_watch import PlatformMonitor
from gateway.health.recent_requests import RecentRequests
from gateway.oauth.tokens import TokenState
from tests.doubles.clock import FakeClock

DAY = 86400.0
WEEKS = 20 * DAY
LOOK = 30.0
KINDS = [
    ("read", "Patient"),
    ("search-type", "Observation"),
    ("create", "Observation"),
    ("read", "Encounter"),
    ("search-type", "Patient"),
]
Answer = dict[str, Any]
GOOD: Answer = {"upstream_status": 200, "response_bytes": 100}
# Of all kinds: what the platform says no to in FHIR, a path it does not know, and the gateway's.
MISTAKES: list[Answer] = [
    {"upstream_status": 404},
    {"upstream_status": 400},
    {"upstream_status": 403},
    {"upstream_status": 405},
    {"upstream_status": 410},
    {"upstream_status": 412},
    {"upstream_status": 422},
    {"upstream_status": 429},
    {"upstream_status": 404, "reason": "upstream-non-fhir"},
    {"upstream_status": 401, "reason": "token-rejected"},
    {"status": 403, "reason": "caller-forbidden"},
    {"status": 400, "reason": "bad-request"},
]
VALID = TokenState(
    is_valid=True,
    expires_in=200.0,
    failure=None,
    cause=None,
    status=None,
    oauth_error=None,
    next_attempt_in=100.0,
    is_fetching=False,
    is_rejected=False,
)


@dataclass
class World:
    """A watch, its clock, and what its own question finds."""

    interval: float = 30.0
    found: str | None = "answers"
    tokens: Mapping[str, TokenState] = field(default_factory=lambda: {"default": VALID})
    circuit: CircuitState = CircuitState.CLOSED
    clock: FakeClock = field(default_factory=FakeClock)
    asked: list[float] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)
    watch: PlatformMonitor = field(init=False)
    health: Health = field(init=False)
    record: Callable[[Exchange], None] = field(init=False)

    def __post_init__(self) -> None:
        self.watch = PlatformMonitor(
            circuit=lambda: self.circuit,
            probe=self._ask,
            interval=lambda: self.interval,
            count_probe=self.counted.append,
            clock=self.clock,
        )
        self.health = Health(
            monitor=self.watch,
            tokens=lambda: self.tokens,
            credentials_in_use=lambda: self.tokens,
            is_audit_available=lambda: True,
            is_draining=lambda: False,
            outbox=lambda: None,
            recent_requests=RecentRequests(self.clock, self.clock.wall),
            wall_clock=self.clock.wall,
        )
        # Bound once, as the gateway does it for every exchange.
        self.record = self.watch.record_exchange

    def is_failing(self) -> bool:
        """Whether `/readyz` says that the platform fails."""
        return "platform" in readiness(self.health.components())[1]["failing"]

    def usability(self) -> tuple[bool, str]:
        """What the metric says."""
        return usability(self.health.components())

    def platform(self) -> Component:
        """What is known of the platform itself."""
        [found] = (each for each in self.health.components() if each.name == "platform")
        return found

    async def _ask(self, preferred: str) -> tuple[str, str] | None:
        self.asked.append(self.clock())
        return None if self.found is None else (self.found, preferred or "default")

    def call(self, kind: tuple[str, str], answer: Answer) -> None:
        """A caller's request ends now."""
        exchange = Exchange("id", self.clock.wall(), self.clock(), method="GET", credential="lab")
        exchange.interaction, exchange.resource = kind
        exchange.status = answer.get("upstream_status", 502)
        for name, value in answer.items():
            setattr(exchange, name, value)
        self.record(exchange)


Event = tuple[float, int, tuple[str, str], Answer]


def moments(rng: random.Random, until: float) -> Iterator[float]:
    """When callers ask: by day twice a minute, by night every few minutes."""
    now = 0.0
    while now < until:
        yield now
        by_day = 6 < (now % DAY) / 3600 < 20
        now += rng.expovariate(1 / 30 if by_day else 1 / 150)


def burst(rng: random.Random, start: float) -> Iterator[Event]:
    """A system that asks for one thing or two in vain, once or in a loop, quickly or slowly."""
    answers = rng.choices(MISTAKES, k=rng.choice((1, 1, 3)))
    kinds = rng.sample(KINDS, k=rng.choice((1, 2)))
    pause = rng.choice((0.2, 2.0, 15.0, 60.0))
    for number in range(1 + round(rng.expovariate(1 / 9))):
        yield start + number * pause, rng.getrandbits(32), rng.choice(kinds), rng.choice(answers)


def life(rng: random.Random, share: float) -> Iterator[Event]:
    """Weeks of requests, of which that share are mistakes."""
    waiting: list[Event] = []
    for moment in moments(rng, WEEKS):
        while waiting and waiting[0][0] <= moment:
            yield heapq.heappop(waiting)
        yield moment, 0, rng.choice(KINDS), GOOD
        if rng.random() < share / (1 - share) / 10:
            for event in burst(rng, moment + rng.uniform(0, 30)):
                heapq.heappush(waiting, event)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
async def test_weeks_of_mistakes_are_no_outage(share: float) -> None:
    """4xx of all kinds in bursts, by day and by night, never make page or readiness say no."""
    world, rng = World(), random.Random(7)  # noqa: S311 - the same weeks each time
    start, requests, mistakes = world.clock(), 0, 0
    for moment, _, kind, answer in life(rng, share):
        while world.clock() + LOOK < start + moment:
            world.clock.now += LOOK
            await world.watch.probe_if_due()
            assert not world.is_failing(), world.watch.evidence()
        world.clock.now = max(world.clock.now, start + moment)
        requests, mistakes = requests + 1, mistakes + (answer is not GOOD)
        world.call(kind, answer)
        assert world.usability()[0], world.watch.evidence()
    assert 0.7 * share < mistakes / requests < 1.3 * share


@pytest.mark.parametrize("answer", MISTAKES, ids=str)
@pytest.mark.parametrize("pause", [1.0, 20.0, 70.0])
async def test_a_night_of_one_mistake_is_no_outage(answer: Answer, pause: float) -> None:
    """The only caller asks for the same thing in vain until the morning."""
    world = World()
    world.call(KINDS[0], GOOD)
    # What lies five minutes back is forgotten: the rest of the night repeats the first hour.
    until = world.clock() + DAY / 24
    while world.clock() < until:
        for _ in range(round(pause)):
            world.clock.now += 1
            await world.watch.probe_if_due()
        world.call(KINDS[0], answer)
        assert not world.is_failing()
        assert world.usability()[0]


# What callers get, and what the gateway's own question finds.
OUTAGES: dict[str, tuple[Answer, str]] = {
    "dns, refused": ({"reason": "upstream-unreachable"}, "platform-unreachable"),
    "tls": ({"reason": "upstream-tls"}, "platform-tls"),
    "timeouts": ({"reason": "upstream-timeout"}, "platform-timeout"),
    "no connection free": ({"reason": "upstream-busy"}, "platform-timeout"),
    "5xx": ({"upstream_status": 503}, "platform-fails"),
    "html 5xx": ({"upstream_status": 502, "reason": "upstream-non-fhir"}, "platform-fails"),
    "breaks off": ({"reason": "upstream-failed"}, "platform-fails"),
    "html 200": ({"upstream_status": 200, "reason": "upstream-non-fhir"}, "platform-not-fhir"),
    "empty 200": ({"upstream_status": 200, "response_bytes": 0}, "platform-not-fhir"),
    "redirect": ({"upstream_status": 302, "reason": "upstream-redirect"}, "platform-not-fhir"),
    "html 404": ({"upstream_status": 404, "reason": "upstream-non-fhir"}, "platform-not-fhir"),
    "fhir 404": ({"upstream_status": 404}, "platform-not-fhir"),
    "401": ({"upstream_status": 401, "reason": "token-rejected"}, "platform-refuses"),
    "403": ({"upstream_status": 403}, "platform-refuses"),
    "html 403": ({"upstream_status": 403, "reason": "upstream-non-fhir"}, "platform-refuses"),
    "429": ({"upstream_status": 429}, "platform-fails"),
}


async def until_failing(world: World, pause: float | None, answer: Answer) -> float:
    """Seconds until it is known, looked at for three minutes."""
    began, due = world.clock(), 0.0
    while world.clock() < began + 180:
        world.clock.now += 0.5
        due += 0.5
        while pause is not None and due >= pause:
            due -= pause
            world.call(KINDS[int(world.clock() * 2) % len(KINDS)], answer)
        await world.watch.probe_if_due()
        if world.is_failing():
            return world.clock() - began
    raise AssertionError(f"not found: {world.watch.evidence()}")


@pytest.mark.parametrize("pause", [0.1, 5.0, 40.0, None])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("outage", OUTAGES)
async def test_every_outage_is_found_within_two_minutes(
    outage: str, pause: float | None, before: bool
) -> None:
    """With many callers, few or none, after an hour that went well or from the start."""
    answer, found = OUTAGES[outage]
    world = World()
    while before and world.clock() < 1000 + 300:
        world.clock.now += 0.5
        if pause is not None:
            world.call(KINDS[0], GOOD)
        await world.watch.probe_if_due()
    world.found = found
    assert await until_failing(world, pause, answer) <= 120
    assert world.usability() == (False, found)
    world.found = "answers"
    world.clock.now += 31
    await world.watch.probe_if_due()
    assert not world.is_failing()


@pytest.mark.parametrize("outage", ["401", "403", "html 404"])
async def test_a_refusal_is_found_where_the_metadata_is_for_everybody(outage: str) -> None:
    """Nearly all servers show their metadata without a token."""
    world = World()
    for _ in range(600):
        world.clock.now += 0.5
        world.call(KINDS[0], GOOD)
        await world.watch.probe_if_due()
    assert await until_failing(world, 1.0, OUTAGES[outage][0]) <= 120


@pytest.mark.parametrize("outage", ["dns, refused", "5xx", "tls"])
async def test_an_outage_is_found_without_the_question(outage: str) -> None:
    """With `admin.probe_interval: 0` callers' requests alone show it, without a probe."""
    world = World(interval=0)
    assert await until_failing(world, 5.0, OUTAGES[outage][0]) <= 120
    assert world.asked == []


@pytest.mark.parametrize(
    ("failure", "rejected", "reason"),
    [
        ("transient", False, "sso-unavailable"),
        ("refused", False, "token-refused"),
        (None, True, "platform-refuses"),
    ],
)
async def test_without_a_token_nothing_succeeds(failure: Any, rejected: bool, reason: str) -> None:
    """The SSO is down, refuses the secret, or the platform refuses its tokens."""
    state = replace(VALID, is_valid=rejected, failure=failure, is_rejected=rejected)
    world = World(tokens={"default": state})
    assert world.usability() == (False, reason)


async def test_it_asks_only_where_nobody_else_does() -> None:
    """Not while callers are answered; else once in the interval, and each is counted."""
    world = World()
    for _ in range(120):
        world.clock.now += 1
        world.call(KINDS[0], GOOD)
        await world.watch.probe_if_due()
    assert world.asked == []
    for _ in range(100):
        world.clock.now += 1
        await world.watch.probe_if_due()
    assert [
        later - sooner for sooner, later in zip(world.asked, world.asked[1:], strict=False)
    ] == [
        30.0,
        30.0,
    ]
    assert world.counted == ["answers"] * 3


async def test_what_could_not_be_asked_is_asked_soon() -> None:
    """Without a token, or while the circuit is open, nothing is found and nothing is waited for."""
    world = World(found=None, circuit=CircuitState.OPEN)
    for _ in range(40):
        world.clock.now += 1
        await world.watch.probe_if_due()
    assert world.asked == []
    world.circuit = CircuitState.CLOSED
    for _ in range(3):
        world.clock.now += 1
        await world.watch.probe_if_due()
    assert len(world.asked) == 3
    assert world.counted == []


async def test_a_circuit_that_may_be_tried_is_tried() -> None:
    """A probe tries it, so that it need not wait for a caller's request."""
    world = World(circuit=CircuitState.HALF_OPEN)
    world.clock.now += 1
    await world.watch.probe_if_due()
    assert len(world.asked) == 1


async def test_it_is_known_since_when() -> None:
    """The time stays while the finding does."""
    world = World()
    await world.watch.probe_if_due()
    world.platform()
    world.found = "platform-tls"
    world.clock.now += 31
    await world.watch.probe_if_due()
    since = world.clock.wall()
    for _ in range(50):
        world.clock.now += 1
        await world.watch.probe_if_due()
        world.platform()
    assert world.platform().state == "failed"
    assert world.platform().since == since + 1


async def test_what_was_found_elsewhere_is_forgotten() -> None:
    """Another platform in the settings begins untried."""
    world = World(found="platform-tls")
    world.clock.now += 31
    await world.watch.probe_if_due()
    assert world.is_failing()
    world.watch.reset()
    assert world.platform().state == "untried"


async def test_exchanges_count_after_a_change_of_the_platform() -> None:
    """Callers' requests to the platform of the new settings count, those before do not."""
    world = World()
    for _ in range(20):
        world.call(KINDS[0], OUTAGES["5xx"][0])
    assert world.is_failing()
    world.watch.reset()
    world.call(KINDS[0], GOOD)
    evidence = world.watch.evidence()
    assert evidence.last_minute == {"answers": 1}
    assert evidence.has_succeeded
    assert evidence.last_request_at == world.clock()
    assert world.platform().state == "ok"


async def test_one_good_answer_ends_what_was_bad_before() -> None:
    """Also a moment later: what failed before it is not counted with what fails after it."""
    world = World()
    for answer in (*[OUTAGES["5xx"][0]] * 9, GOOD, *[OUTAGES["5xx"][0]] * 2):
        world.call(KINDS[0], answer)
    evidence = world.watch.evidence()
    assert evidence.since_good == {"platform-fails": 2}
    assert evidence.last_minute == {"platform-fails": 11, "answers": 1}
