"""The platform is judged by the line, by the gateway's own question, and by each caller's requests.

A platform is a pair of functions here: what its answer to a caller shows, and to the gateway. What
real answers show is asked in tests/lifecycle/test_truth.py.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from gateway.config.outbound_settings import CircuitBreakerSettings
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.health.advice import ADVICE, PLATFORM_CAUSES
from gateway.health.evidence import CircuitState, signal_of_exchange
from gateway.health.health import (
    Component,
    Health,
    TokenState,
    judge_token,
    readiness,
    usability,
    worst,
)
from gateway.health.platform_judgement import OutcomeWindow, PlatformJudgement
from gateway.health.recent_requests import RecentRequests
from tests.doubles.clock import FakeClock
from tests.doubles.duty import GOOD

# Each has its words on the pages.
REASONS = {*ADVICE, *PLATFORM_CAUSES}
Answer = dict[str, Any]
Kind = tuple[str, str]
READ: Kind = ("read", "Patient")
SEARCH: Kind = ("search-type", "Observation")
KINDS = [READ, SEARCH, ("create", "Observation"), ("read", "Encounter")]
FINE: Answer = {"upstream_status": 200, "response_bytes": 100}
BROKEN: Answer = {"upstream_status": 500}
NO_LINE: Answer = {"reason": "upstream-unreachable"}
BREAKER = CircuitBreakerSettings(failure_ratio=0.5, min_requests=4, window=10, open_for=15)


@dataclass
class World:
    """A judgement, its clock, and what the gateway's own question finds."""

    interval: float = 30.0
    found: str | None = "answers"
    tokens: Mapping[str, TokenState] = field(default_factory=lambda: {"default": GOOD})
    clock: FakeClock = field(default_factory=FakeClock)
    asked: list[float] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)
    responses: int = 0
    is_audit_available: bool = True
    judgement: PlatformJudgement = field(init=False)
    health: Health = field(init=False)

    def __post_init__(self) -> None:
        self.judgement = PlatformJudgement(
            circuit=BREAKER,
            probe=self._probe,
            interval=lambda: self.interval,
            on_response=self._on_response,
            count_probe=self.counted.append,
            clock=self.clock,
        )
        self.health = Health(
            platform=lambda: self.judgement,
            tokens=lambda: self.tokens,
            credentials_in_use=lambda: self.tokens,
            is_audit_available=lambda: self.is_audit_available,
            is_draining=lambda: False,
            outbox=lambda: None,
            recent_requests=RecentRequests(self.clock, self.clock.wall),
            wall_clock=self.clock.wall,
        )

    def _on_response(self) -> None:
        self.responses += 1

    async def _probe(self) -> tuple[str, str] | None:
        self.asked.append(self.clock())
        return None if self.found is None else (self.found, "default")

    def exchange(self, kind: Kind, **members: Any) -> Exchange:
        """Return a caller's request that ends now."""
        exchange = Exchange("id", self.clock.wall(), self.clock(), method="GET", caller="lab")
        exchange.interaction, exchange.resource = kind
        for name, value in members.items():
            setattr(exchange, name, value)
        return exchange

    def call(self, answer: Answer, *, kind: Kind = READ, caller: str = "lab") -> str:
        """Let a caller ask, and return the reason of the gateway's own error, "" for none."""
        status = answer.get("upstream_status", 502)
        exchange = self.exchange(kind, caller=caller, status=status, **answer)
        try:
            self.judgement.admit(exchange)
        except GatewayError as error:
            return error.advice_key or error.reason.code
        self.judgement.record_exchange(exchange)
        return ""

    async def go_on(self, seconds: float) -> None:
        """Let time pass, in which the gateway asks where that is due."""
        for _ in range(round(seconds)):
            self.clock.now += 1
            await self.judgement.probe_if_due()

    @property
    def state(self) -> CircuitState:
        """The circuit's."""
        return self.judgement.state

    @property
    def verdict(self) -> tuple[str, str]:
        """What is said of the platform."""
        return self.judgement.verdict()

    @property
    def is_ready(self) -> bool:
        """What `/readyz` says."""
        return readiness(self.health.components())[0]


@pytest.fixture
def world() -> World:
    """A platform that has just answered."""
    world = World()
    world.call(FINE)
    return world


@pytest.mark.parametrize("reason", ["upstream-unreachable", "upstream-tls"])
async def test_a_line_that_is_down_opens_the_circuit_without_a_question(
    world: World, reason: str
) -> None:
    """Half of at least four requests; all later ones are refused at once."""
    for _ in range(3):
        assert world.call({"reason": reason}) == ""
    assert world.state is CircuitState.OPEN
    assert world.asked == []
    assert world.call(FINE, kind=SEARCH, caller="ward") == "circuit-open"
    assert world.verdict[0] == "failed"
    assert not world.is_ready


@pytest.mark.parametrize(
    "answer",
    [
        BROKEN,
        {"upstream_status": 503},
        {"reason": "upstream-timeout"},
        {"reason": "upstream-failed"},
        {"upstream_status": 200, "reason": "upstream-non-fhir"},
        {"upstream_status": 302, "reason": "upstream-redirect"},
        {"upstream_status": 200, "response_bytes": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("found", ["answers", "platform-fails", "platform-not-fhir"])
async def test_any_other_failure_leaves_the_decision_to_the_question(
    world: World, answer: Answer, found: str
) -> None:
    """The circuit opens only where the gateway itself meets a fault."""
    await world.go_on(31)
    world.found = found
    for number in range(8):
        world.call(answer, kind=KINDS[number % 4])
    assert world.state is CircuitState.CLOSED
    await world.go_on(5)
    assert (world.state is CircuitState.OPEN) is (found != "answers")
    assert world.verdict == (("ok", "answers") if found == "answers" else ("failed", found))
    assert world.is_ready is (found == "answers")


@pytest.mark.parametrize("answer", [{"upstream_status": code} for code in (400, 404, 409, 501)])
async def test_mistakes_of_callers_open_nothing(world: World, answer: Answer) -> None:
    """Answers such as these say that the platform works, even if it fails the question later."""
    for _ in range(100):
        assert world.call(answer) == ""
    world.found = "platform-fails"
    await world.go_on(40)
    assert world.state is CircuitState.CLOSED


async def test_few_failures_open_nothing(world: World) -> None:
    """Three requests are too few to judge, though the question fails."""
    world.found = "platform-fails"
    for _ in range(2):
        world.call(BROKEN)
    await world.go_on(1)
    assert world.state is CircuitState.CLOSED
    assert world.verdict == ("failed", "platform-fails")


async def test_old_failures_are_forgotten(world: World) -> None:
    """What happened before the window does not count."""
    for _ in range(2):
        world.call(NO_LINE)
    world.clock.now += 11
    for answer in (NO_LINE, FINE, FINE, FINE):
        world.call(answer)
    assert world.state is CircuitState.CLOSED


async def test_a_circuit_closes_by_the_question_alone(world: World) -> None:
    """After `open_for`, while requests that are answered late change nothing."""
    late = world.exchange(READ, **FINE)
    for _ in range(3):
        world.call(NO_LINE)
    world.judgement.record_exchange(late)
    assert world.state is CircuitState.OPEN
    await world.go_on(14)
    assert world.asked == []
    world.clock.now += 1
    assert world.state is CircuitState.HALF_OPEN
    assert world.call(FINE) == "circuit-open"
    await world.judgement.probe_if_due()
    assert world.state is CircuitState.CLOSED
    assert world.verdict == ("ok", "answers")
    assert world.is_ready
    assert world.call(FINE) == ""


async def test_deliveries_need_not_wait_for_the_end_of_the_pause(world: World) -> None:
    """While queued writes wait, the platform is asked every five seconds."""
    for _ in range(3):
        world.call(NO_LINE)
    await world.judgement.probe_if_due(for_delivery=True)
    assert world.state is CircuitState.CLOSED
    assert len(world.asked) == 1


async def test_a_question_that_fails_opens_it_again(world: World) -> None:
    """For as long as before, and the page names what was found."""
    world.found = "platform-timeout"
    for _ in range(3):
        world.call(NO_LINE)
    await world.go_on(15)
    assert world.state is CircuitState.OPEN
    assert world.verdict == ("failed", "platform-timeout")
    await world.go_on(15)
    assert len(world.asked) == 2


async def test_opening_and_closing_are_logged_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator reads when, why and for how long, and when it is over."""
    caplog.set_level("WARNING")
    for _ in range(9):
        world.call(NO_LINE)
    await world.go_on(15)
    assert [record.getMessage() for record in caplog.records] == [
        "circuit opened for 15 s: 3 of 4 requests failed, last cause: platform-unreachable",
        "circuit closed: the platform answers again",
    ]


async def test_one_caller_takes_nothing_from_another(world: World) -> None:
    """One asks for a broken record eight times a second; the other is served all the time."""
    refused: deque[str] = deque()
    for second in range(60):
        for _ in range(8):
            refused.append(world.call(BROKEN, caller="polls"))
        for kind in (READ, SEARCH):
            assert world.call(FINE, kind=kind, caller="reads") == ""
        assert world.is_ready, second
        await world.go_on(1)
    assert world.state is CircuitState.CLOSED
    # Held off, but for one request each `open_for` seconds that tries.
    assert set(refused) == {"", "held-off"}
    assert refused.count("") <= 4 + 60 / 15 + 1
    # At most one question in five seconds.
    assert len(world.asked) <= 13


async def test_what_is_held_off_is_named(world: World) -> None:
    """Whom it concerns, which kind of request, and when it may be sent again."""
    for _ in range(4):
        world.call(BROKEN)
    with pytest.raises(GatewayError) as held:
        world.judgement.admit(world.exchange(READ))
    assert held.value.hint == "held-off=read Patient; caller=lab"
    assert (held.value.status, held.value.retry_after) == (503, 15)
    assert world.call(FINE, kind=SEARCH) == "", "another kind"
    assert world.call(FINE, caller="ward") == "", "another caller"


@pytest.mark.parametrize("succeeds", [True, False])
async def test_one_request_tries_what_is_held_off(world: World, succeeds: bool) -> None:
    """Its success ends the hold; its failure prolongs it."""
    for _ in range(4):
        world.call(BROKEN)
    world.clock.now += 15
    first = world.exchange(READ, **(FINE if succeeds else BROKEN))
    world.judgement.admit(first)
    assert world.call(FINE) == "held-off", "while the first is under way"
    world.judgement.record_exchange(first)
    assert world.call(FINE) == ("" if succeeds else "held-off")


@pytest.mark.parametrize(
    ("members", "same"),
    [
        ({}, True),
        ({"remote": "10.0.0.9"}, True),
        ({"user": "named by the old system", "is_user_asserted": True}, True),
        ({"user": "signed in"}, False),
    ],
)
async def test_signed_in_users_are_told_apart(
    world: World, members: dict[str, Any], same: bool
) -> None:
    """A caller with a name is one, from whatever address."""
    for _ in range(4):
        world.call(BROKEN)
    try:
        world.judgement.admit(world.exchange(READ, **members))
        held = False
    except GatewayError:
        held = True
    assert held is same


async def test_callers_without_a_name_are_told_apart_by_address(world: World) -> None:
    """Two old systems on two machines have nothing to do with each other."""
    for _ in range(4):
        broken = world.exchange(READ, caller="anonymous", remote="10.0.0.1", **BROKEN)
        world.judgement.record_exchange(broken)
    world.judgement.admit(world.exchange(READ, caller="anonymous", remote="10.0.0.2"))
    with pytest.raises(GatewayError):
        world.judgement.admit(world.exchange(READ, caller="anonymous", remote="10.0.0.1"))


async def test_kinds_are_bounded(world: World) -> None:
    """Whatever callers ask, a few thousand kinds are kept."""
    for number in range(10_000):
        for _ in range(4):
            world.call(BROKEN, caller=f"c{number}")
    assert len(world.judgement._kinds) <= 4096
    assert len(world.judgement._held) <= 4096


async def test_a_question_is_asked_as_soon_as_a_request_fails(world: World) -> None:
    """Within a second, then at most every five; not while callers are answered."""
    for _ in range(30):
        world.call(FINE)
        await world.go_on(1)
    assert world.asked == []
    began = world.clock()
    for number in range(20):
        world.call(BROKEN, caller=f"c{number % 9}")
        await world.go_on(1)
    assert [at - began for at in world.asked] == [1, 6, 11, 16]
    assert world.counted == ["answers"] * 4


async def test_it_asks_where_nobody_does(world: World) -> None:
    """Once in the interval; never with 0."""
    await world.go_on(100)
    assert len(world.asked) == 3
    silent = World(interval=0)
    await silent.go_on(100)
    assert silent.asked == []
    assert silent.verdict == ("untried", "untried")


@pytest.mark.parametrize("interval", [0.0, 30.0])
async def test_a_platform_that_fails_is_asked_until_it_answers(
    world: World, interval: float
) -> None:
    """Also where nobody else asks; its answer ends what the page says."""
    world.interval, world.found = interval, "platform-fails"
    world.call(BROKEN)
    await world.go_on(1)
    assert world.verdict == ("failed", "platform-fails")
    world.found = "answers"
    await world.go_on(5)
    assert world.verdict == ("ok", "answers")


async def test_what_could_not_be_asked_is_asked_again(world: World) -> None:
    """Without a token nothing is found."""
    world.found = None
    world.call(BROKEN)
    await world.go_on(11)
    assert len(world.asked) == 3
    assert world.counted == []


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (None, ("degraded", "many-errors")),
        ("platform-refuses", ("failed", "platform-refuses")),
        ("platform-not-fhir", ("failed", "platform-not-fhir")),
    ],
)
async def test_a_line_that_is_back_closes_the_circuit(
    world: World, found: str | None, verdict: tuple[str, str]
) -> None:
    """Whatever else the question meets: no token, a refusal, a server without a statement."""
    for _ in range(30):
        world.call(NO_LINE)
    world.found = found
    await world.go_on(15)
    assert world.state is CircuitState.CLOSED
    assert world.verdict[1] == verdict[1] or found is None
    assert world.call(FINE) == ""


@pytest.mark.parametrize("answer", [{"upstream_status": 404}, {"reason": "upstream-busy"}], ids=str)
async def test_the_line_alone_opens_the_circuit_by_itself(world: World, answer: Answer) -> None:
    """Not a request that ended otherwise, whose signal is no reason."""
    for number in range(3):
        world.call(NO_LINE if number else answer)
    world.call(answer)
    assert world.verdict[1] in REASONS


async def test_requests_that_found_no_connection_do_not_hide_a_platform_that_hangs(
    world: World,
) -> None:
    """They were not sent: neither good nor bad."""
    world.clock.now += 60
    world.found = "platform-busy"
    for _ in range(5):
        world.call({"reason": "upstream-timeout"})
        for _ in range(4):
            world.call({"reason": "upstream-busy"}, kind=SEARCH)
    await world.go_on(1)
    assert world.state is CircuitState.OPEN
    assert world.verdict == ("failed", "platform-timeout")


@pytest.mark.parametrize("answered", [True, False])
async def test_no_free_connection_is_a_fault_unless_somebody_is_answered(
    world: World, answered: bool
) -> None:
    """A platform that hangs holds all connections, and the question gets none."""
    world.clock.now += 60
    world.found = "platform-busy"
    for _ in range(4):
        world.call({"reason": "upstream-timeout"})
    if answered:
        world.call(FINE, kind=SEARCH)
    await world.go_on(1)
    assert (world.state is CircuitState.OPEN) is not answered
    assert world.verdict == (("ok", "answers") if answered else ("failed", "platform-timeout"))


async def test_a_delivery_counts_like_a_request(world: World) -> None:
    """Of a queued write; it is no caller's kind."""
    for _ in range(4):
        world.judgement.record_delivery("platform-unreachable", None, "default")
    world.judgement.record_delivery(None, None, "default")
    assert world.state is CircuitState.OPEN
    await world.go_on(15)
    before = world.responses
    world.judgement.record_delivery("answers", None, "default")
    assert world.responses == before + 1


async def test_every_answer_is_reported(world: World) -> None:
    """Of a request and of a question: queued writes go on then."""
    assert world.responses == 1
    world.call(BROKEN)
    await world.go_on(1)
    assert world.responses == 2


def test_a_caller_that_is_answered_ends_what_the_question_found(world: World) -> None:
    """The platform works, as was just seen."""
    world.judgement.probe_signal, world.judgement.probed_at = "platform-timeout", world.clock()
    assert world.verdict == ("failed", "platform-timeout")
    world.clock.now += 1
    world.call(FINE)
    assert world.verdict == ("ok", "answers")


@pytest.mark.parametrize(
    ("answers", "state", "reason"),
    [
        ([FINE] * 5, "ok", "answers"),
        ([BROKEN] * 2, "ok", "answers"),
        ([{"upstream_status": 404}] * 60, "degraded", "many-refusals"),
        ([{"upstream_status": 403}] * 60, "degraded", "many-refusals"),
        ([*[{"upstream_status": 404}] * 95, *[FINE] * 4], "degraded", "many-refusals"),
        ([*[{"upstream_status": 403}] * 20, *[FINE] * 80], "ok", "answers"),
        ([BROKEN] * 30, "degraded", "many-errors"),
        ([*[BROKEN] * 20, *[FINE] * 20], "ok", "answers"),
    ],
)
async def test_a_platform_that_answers_the_question_is_doubted_at_most(
    world: World, answers: list[Answer], state: str, reason: str
) -> None:
    """By the requests of the last minute, nearly all of which failed."""
    for number, answer in enumerate(answers):
        world.call(answer, kind=KINDS[number % 4], caller=f"c{number % 20}")
    await world.go_on(1)
    world.call(answers[0], caller="again")
    assert world.verdict == (state, reason)
    assert world.is_ready
    assert reason in REASONS


async def test_errors_are_over_once_the_question_is_answered(world: World) -> None:
    """Where nobody asked since; whether mistakes are over is not known."""
    for _ in range(15):
        world.call(BROKEN, caller="a")
    await world.go_on(6)
    assert world.verdict == ("ok", "answers")


def moments(rng: random.Random, hours: int) -> Iterator[float]:
    """Return the seconds between a small hospital's requests."""
    for _ in range(hours * 60):
        yield rng.expovariate(1 / 30)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
async def test_days_of_mistakes_are_no_outage(share: float) -> None:
    """4xx of all kinds in bursts never make readiness say no, and hold nobody off."""
    mistakes = [
        *({"upstream_status": code} for code in (400, 403, 404, 405, 410, 412, 422, 429)),
        {"upstream_status": 404, "reason": "upstream-non-fhir"},
        {"upstream_status": 401, "reason": "token-rejected"},
    ]
    world, rng = World(), random.Random(7)  # noqa: S311 - the same days each time
    for pause in moments(rng, 48):
        await world.go_on(max(1.0, pause))
        for _ in range(rng.choice((1, 1, 9)) if rng.random() < share else 0):
            assert world.call(rng.choice(mistakes), kind=rng.choice(KINDS)) == ""
        assert world.call(FINE, kind=rng.choice(KINDS)) == ""
        assert world.is_ready


# What callers get, and what the gateway's own question finds.
OUTAGES: dict[str, tuple[Answer, str]] = {
    "dns, refused": (NO_LINE, "platform-unreachable"),
    "tls": ({"reason": "upstream-tls"}, "platform-tls"),
    "timeouts": ({"reason": "upstream-timeout"}, "platform-timeout"),
    "5xx": ({"upstream_status": 503}, "platform-fails"),
    "html 5xx": ({"upstream_status": 502, "reason": "upstream-non-fhir"}, "platform-fails"),
    "breaks off": ({"reason": "upstream-failed"}, "platform-fails"),
    "html 200": ({"upstream_status": 200, "reason": "upstream-non-fhir"}, "platform-not-fhir"),
    "redirect": ({"upstream_status": 302, "reason": "upstream-redirect"}, "platform-not-fhir"),
    "html 404": ({"upstream_status": 404, "reason": "upstream-non-fhir"}, "platform-not-fhir"),
    "401": ({"upstream_status": 401, "reason": "token-rejected"}, "platform-refuses"),
    "403": ({"upstream_status": 403}, "platform-refuses"),
}


@pytest.mark.parametrize("pause", [1, 5, 40, None])
@pytest.mark.parametrize("outage", OUTAGES)
async def test_every_outage_is_found_and_over(outage: str, pause: int | None) -> None:
    """With many callers, few or none: within a minute, and its end within half a minute."""
    answer, found = OUTAGES[outage]
    world = World(found=found)
    world.call(FINE)
    for second in range(75):
        if pause is not None and second % pause == 0:
            world.call(answer, kind=KINDS[second % 4])
        await world.go_on(1)
        if not world.is_ready and second > 60:
            break
    assert not world.is_ready
    assert usability(world.health.components()) == (False, found)
    assert worst(world.health.components()).reason == found
    world.found = "answers"
    await world.go_on(31)
    assert world.is_ready
    assert world.state is CircuitState.CLOSED


REJECTED = {"is_valid": True, "is_rejected": True}
REFUSED = {"is_valid": False, "failure": "refused"}
TRANSIENT = {"is_valid": False, "failure": "transient"}


@pytest.mark.parametrize(
    ("tokens", "usable", "reason"),
    [
        ([{}, REFUSED], True, "answers"),
        ([{"is_valid": False}], False, "token-awaited"),
        ([REFUSED], False, "token-refused"),
        ([TRANSIENT], False, "sso-unavailable"),
        ([{"is_valid": False, "failure": "throttled"}], False, "sso-unavailable"),
        ([REFUSED, TRANSIENT], False, "token-refused"),
        ([{"is_valid": False}, TRANSIENT], False, "sso-unavailable"),
        ([REJECTED, REFUSED], False, "platform-refuses"),
    ],
)
def test_without_a_token_no_request_can_succeed(
    world: World, tokens: list[dict[str, Any]], usable: bool, reason: str
) -> None:
    """Whatever is known of the platform; readiness, metric and page say the same."""
    world.tokens = {f"t{n}": replace(GOOD, **each) for n, each in enumerate(tokens)}
    components = world.health.components()
    assert usability(components) == (usable, reason)
    assert readiness(components)[0] is usable
    assert (worst(components).state == "failed") is not usable
    assert reason in REASONS


def test_an_audit_that_blocks_is_said_by_all(world: World) -> None:
    """Every request is refused, so that the gateway is not ready."""
    world.is_audit_available = False
    components = world.health.components()
    assert readiness(components) == (
        False,
        {
            "ready": False,
            "failing": ["audit"],
            "checks": {
                "token": "ok",
                "circuit": "ok",
                "platform": "ok",
                "audit": "failed",
                "shutdown": "ok",
            },
            "degraded": {},
        },
    )
    assert usability(components) == (False, "audit-unavailable")
    assert worst(components).reason == "audit-unavailable"


@pytest.mark.parametrize(
    ("members", "state", "reason"),
    [
        ({}, "ok", "fine"),
        ({"is_rejected": True}, "failed", "platform-refuses"),
        ({"is_rejected": True, "is_valid": False}, "failed", "token-awaited"),
        ({"failure": "transient"}, "degraded", "renewal-fails"),
        ({"uses_previous_secret": True}, "degraded", "secret-refused"),
        ({"is_valid": False}, "failed", "token-awaited"),
        ({"is_valid": False, "failure": "refused"}, "failed", "token-refused"),
        ({"is_valid": False, "failure": "transient"}, "failed", "sso-unavailable"),
    ],
)
def test_a_token_is_judged(members: dict[str, Any], state: str, reason: str) -> None:
    """One that is valid serves although it could not be renewed."""
    found = judge_token("a", replace(GOOD, **members))
    assert found == Component("token", state, reason, about="a")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ({"upstream_status": 200, "response_bytes": 9}, "answers"),
        ({"upstream_status": 200, "response_bytes": 0}, "platform-not-fhir"),
        ({"upstream_status": 200, "response_bytes": 0, "resource": "Binary"}, "answers"),
        ({"upstream_status": 200, "response_bytes": 0, "is_aborted": True}, "answers"),
        ({"upstream_status": 204, "method": "DELETE"}, "answers"),
        ({"upstream_status": 304}, "answers"),
        ({"upstream_status": 404}, "unclear"),
        ({"upstream_status": 400}, "unclear"),
        ({"upstream_status": 429}, "unclear"),
        ({"upstream_status": 412}, "answers"),
        ({"upstream_status": 422}, "answers"),
        ({"upstream_status": 403}, "platform-refuses"),
        ({"upstream_status": 500}, "platform-fails"),
        ({"upstream_status": 501}, "unclear"),
        ({"upstream_status": 401, "reason": "token-rejected"}, "platform-refuses"),
        ({"upstream_status": 404, "reason": "upstream-non-fhir"}, "platform-not-fhir"),
        ({"upstream_status": 200, "reason": "upstream-non-fhir"}, "platform-not-fhir"),
        ({"upstream_status": 403, "reason": "upstream-non-fhir"}, "platform-refuses"),
        ({"upstream_status": 502, "reason": "upstream-non-fhir"}, "platform-fails"),
        ({"upstream_status": 302, "reason": "upstream-redirect"}, "platform-not-fhir"),
        ({"reason": "upstream-unreachable"}, "platform-unreachable"),
        ({"reason": "upstream-tls"}, "platform-tls"),
        ({"reason": "upstream-timeout"}, "platform-timeout"),
        ({"reason": "upstream-busy"}, "platform-busy"),
        ({"upstream_status": 200, "reason": "upstream-failed"}, "platform-fails"),
        ({"upstream_status": 200, "reason": "search-parameter-ignored"}, "answers"),
        # The platform was not asked.
        ({"reason": "circuit-open"}, None),
        ({"reason": "token-refused"}, None),
        ({"reason": "sso-unavailable"}, None),
        ({"reason": "caller-forbidden"}, None),
        ({"reason": "rate-limited"}, None),
    ],
)
def test_an_exchange_shows_something_of_the_platform(
    members: dict[str, Any], found: str | None
) -> None:
    """What its end says, or nothing; nothing bad where the caller may have left before it."""
    exchange = Exchange("id", 0.0, 0.0, method="GET", response_bytes=1, resource="Patient")
    exchange.status = members.get("upstream_status", 0)
    for name, value in members.items():
        setattr(exchange, name, value)
    assert signal_of_exchange(exchange) == found
    exchange.half_closed = True
    assert signal_of_exchange(exchange) == (found if found == "answers" else None), (
        "its caller gave up"
    )


def test_a_window_counts_as_a_list_of_times_does() -> None:
    """To a tenth of its length, whatever the pauses."""
    rng = random.Random(3)  # noqa: S311 - the same times each time
    window, events, now = OutcomeWindow(), deque[tuple[float, bool]](), 1e6
    for _ in range(20_000):
        now += rng.choice((0.0, 0.01, 0.3, 1.0, 11.0))
        failed = rng.random() < 0.3
        window.count(now, 10.0, failed)
        events.append((now, failed))
        while events[0][0] <= now - 10:
            events.popleft()
        requests, failures = window.totals(now, 10.0)
        young = [each for each in events if each[0] > now - 9]
        assert len(young) <= requests <= len(events)
        assert sum(f for _, f in young) <= failures <= sum(f for _, f in events)
