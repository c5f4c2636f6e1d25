"""The platform is judged by connection failures, by probes, and by each caller's requests.

A platform is a pair of functions here: the signals of its responses to callers and to probes. The
signals of real responses are tested in tests/lifecycle/test_truth.py.
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
from gateway.guidance import COMPONENT_GUIDANCE, PLATFORM_CAUSES
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
from tests.doubles.gateway_states import VALID_TOKEN

# Each has its words on the pages.
REASONS = {*COMPONENT_GUIDANCE, *PLATFORM_CAUSES}
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
class Simulation:
    """A judgement, its clock, and the result of probes."""

    interval: float = 30.0
    found: str | None = "answers"
    tokens: Mapping[str, TokenState] = field(default_factory=lambda: {"default": VALID_TOKEN})
    clock: FakeClock = field(default_factory=FakeClock)
    probes: list[float] = field(default_factory=list)
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
        self.probes.append(self.clock())
        return None if self.found is None else (self.found, "default")

    def exchange(self, kind: Kind, **members: Any) -> Exchange:
        """Return a caller's request that ends now."""
        exchange = Exchange("id", self.clock.wall(), self.clock(), method="GET", caller="lab")
        exchange.interaction, exchange.resource = kind
        for name, value in members.items():
            setattr(exchange, name, value)
        return exchange

    def call(self, answer: Answer, *, kind: Kind = READ, caller: str = "lab") -> str:
        """Let a caller send a request, and return the reason of the local error, "" for none."""
        status = answer.get("upstream_status", 502)
        exchange = self.exchange(kind, caller=caller, status=status, **answer)
        try:
            self.judgement.admit(exchange)
        except GatewayError as error:
            return error.advice_key or error.reason.code
        self.judgement.record_exchange(exchange)
        return ""

    async def advance(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.clock.now += 1
            await self.judgement.probe_if_due()

    @property
    def state(self) -> CircuitState:
        return self.judgement.state

    @property
    def platform_state(self) -> tuple[str, str]:
        return self.judgement.verdict()

    @property
    def is_ready(self) -> bool:
        return readiness(self.health.components())[0]


@pytest.fixture
def simulation() -> Simulation:
    """Return a platform that has just responded."""
    simulation = Simulation()
    simulation.call(FINE)
    return simulation


@pytest.mark.parametrize("reason", ["upstream-unreachable", "upstream-tls"])
async def test_connection_failures_open_the_circuit_without_a_probe(
    simulation: Simulation, reason: str
) -> None:
    """Half of at least four requests; later ones fail fast."""
    for _ in range(3):
        assert simulation.call({"reason": reason}) == ""
    assert simulation.state is CircuitState.OPEN
    assert simulation.probes == []
    assert simulation.call(FINE, kind=SEARCH, caller="ward") == "circuit-open"
    assert simulation.platform_state[0] == "failed"
    assert not simulation.is_ready


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
async def test_other_failures_open_the_circuit_only_if_a_probe_fails(
    simulation: Simulation, answer: Answer, found: str
) -> None:
    await simulation.advance(31)
    simulation.found = found
    for number in range(8):
        simulation.call(answer, kind=KINDS[number % 4])
    assert simulation.state is CircuitState.CLOSED
    await simulation.advance(5)
    assert (simulation.state is CircuitState.OPEN) is (found != "answers")
    assert simulation.platform_state == (
        ("ok", "answers") if found == "answers" else ("failed", found)
    )
    assert simulation.is_ready is (found == "answers")


@pytest.mark.parametrize("answer", [{"upstream_status": code} for code in (400, 404, 409, 501)])
async def test_client_errors_do_not_open_the_circuit(
    simulation: Simulation, answer: Answer
) -> None:
    """Even if the probe fails later."""
    for _ in range(100):
        assert simulation.call(answer) == ""
    simulation.found = "platform-fails"
    await simulation.advance(40)
    assert simulation.state is CircuitState.CLOSED


async def test_three_failures_do_not_open_the_circuit(simulation: Simulation) -> None:
    """Though the probe fails."""
    simulation.found = "platform-fails"
    for _ in range(2):
        simulation.call(BROKEN)
    await simulation.advance(1)
    assert simulation.state is CircuitState.CLOSED
    assert simulation.platform_state == ("failed", "platform-fails")


async def test_failures_before_the_window_do_not_count(simulation: Simulation) -> None:
    for _ in range(2):
        simulation.call(NO_LINE)
    simulation.clock.now += 11
    for answer in (NO_LINE, FINE, FINE, FINE):
        simulation.call(answer)
    assert simulation.state is CircuitState.CLOSED


async def test_only_a_probe_closes_the_circuit(simulation: Simulation) -> None:
    """After `open_for`; late responses change nothing."""
    late = simulation.exchange(READ, **FINE)
    for _ in range(3):
        simulation.call(NO_LINE)
    simulation.judgement.record_exchange(late)
    assert simulation.state is CircuitState.OPEN
    await simulation.advance(14)
    assert simulation.probes == []
    simulation.clock.now += 1
    assert simulation.state is CircuitState.HALF_OPEN
    assert simulation.call(FINE) == "circuit-open"
    await simulation.judgement.probe_if_due()
    assert simulation.state is CircuitState.CLOSED
    assert simulation.platform_state == ("ok", "answers")
    assert simulation.is_ready
    assert simulation.call(FINE) == ""


async def test_with_queued_writes_the_platform_is_probed_every_five_seconds(
    simulation: Simulation,
) -> None:
    for _ in range(3):
        simulation.call(NO_LINE)
    await simulation.judgement.probe_if_due(for_delivery=True)
    assert simulation.state is CircuitState.CLOSED
    assert len(simulation.probes) == 1


async def test_a_failed_probe_reopens_the_circuit(simulation: Simulation) -> None:
    """For as long as before; the page names the fault."""
    simulation.found = "platform-timeout"
    for _ in range(3):
        simulation.call(NO_LINE)
    await simulation.advance(15)
    assert simulation.state is CircuitState.OPEN
    assert simulation.platform_state == ("failed", "platform-timeout")
    await simulation.advance(15)
    assert len(simulation.probes) == 2


async def test_opening_and_closing_the_circuit_are_logged_once(
    simulation: Simulation, caplog: pytest.LogCaptureFixture
) -> None:
    """When, why and for how long."""
    caplog.set_level("WARNING")
    for _ in range(9):
        simulation.call(NO_LINE)
    await simulation.advance(15)
    assert [record.getMessage() for record in caplog.records] == [
        "circuit opened for 15 s: 3 of 4 requests failed, last cause: platform-unreachable",
        "circuit closed: the platform answers again",
    ]


async def test_one_callers_failing_requests_do_not_affect_another(simulation: Simulation) -> None:
    """Eight times a second."""
    refused: deque[str] = deque()
    for second in range(60):
        for _ in range(8):
            refused.append(simulation.call(BROKEN, caller="polls"))
        for kind in (READ, SEARCH):
            assert simulation.call(FINE, kind=kind, caller="reads") == ""
        assert simulation.is_ready, second
        await simulation.advance(1)
    assert simulation.state is CircuitState.CLOSED
    # Held off, but for one request each `open_for` seconds that tries.
    assert set(refused) == {"", "held-off"}
    assert refused.count("") <= 4 + 60 / 15 + 1
    # At most one question in five seconds.
    assert len(simulation.probes) <= 13


async def test_suspended_requests_are_named(simulation: Simulation) -> None:
    """Caller, kind of request, and when it may be sent again."""
    for _ in range(4):
        simulation.call(BROKEN)
    with pytest.raises(GatewayError) as held:
        simulation.judgement.admit(simulation.exchange(READ))
    assert held.value.hint == "held-off=read Patient; caller=lab"
    assert (held.value.status, held.value.retry_after) == (503, 15)
    assert simulation.call(FINE, kind=SEARCH) == "", "another kind"
    assert simulation.call(FINE, caller="ward") == "", "another caller"


@pytest.mark.parametrize("succeeds", [True, False])
async def test_one_request_tries_a_suspended_kind(simulation: Simulation, succeeds: bool) -> None:
    """Its success ends the suspension; its failure prolongs it."""
    for _ in range(4):
        simulation.call(BROKEN)
    simulation.clock.now += 15
    first = simulation.exchange(READ, **(FINE if succeeds else BROKEN))
    simulation.judgement.admit(first)
    assert simulation.call(FINE) == "held-off", "while the first is under way"
    simulation.judgement.record_exchange(first)
    assert simulation.call(FINE) == ("" if succeeds else "held-off")


@pytest.mark.parametrize(
    ("members", "same"),
    [
        ({}, True),
        ({"remote": "10.0.0.9"}, True),
        ({"user": "named by the old system", "is_user_asserted": True}, True),
        ({"user": "signed in"}, False),
    ],
)
async def test_signed_in_users_are_distinguished(
    simulation: Simulation, members: dict[str, Any], same: bool
) -> None:
    """A named caller is one, from any address."""
    for _ in range(4):
        simulation.call(BROKEN)
    try:
        simulation.judgement.admit(simulation.exchange(READ, **members))
        held = False
    except GatewayError:
        held = True
    assert held is same


async def test_unnamed_callers_are_distinguished_by_address(simulation: Simulation) -> None:
    for _ in range(4):
        broken = simulation.exchange(READ, caller="anonymous", remote="10.0.0.1", **BROKEN)
        simulation.judgement.record_exchange(broken)
    simulation.judgement.admit(simulation.exchange(READ, caller="anonymous", remote="10.0.0.2"))
    with pytest.raises(GatewayError):
        simulation.judgement.admit(simulation.exchange(READ, caller="anonymous", remote="10.0.0.1"))


async def test_the_number_of_kinds_is_bounded(simulation: Simulation) -> None:
    for number in range(10_000):
        for _ in range(4):
            simulation.call(BROKEN, caller=f"c{number}")
    assert len(simulation.judgement._kinds) <= 4096
    assert len(simulation.judgement._held) <= 4096


async def test_a_failed_request_causes_a_probe(simulation: Simulation) -> None:
    """Within a second, then at most every five; not while callers get responses."""
    for _ in range(30):
        simulation.call(FINE)
        await simulation.advance(1)
    assert simulation.probes == []
    began = simulation.clock()
    for number in range(20):
        simulation.call(BROKEN, caller=f"c{number % 9}")
        await simulation.advance(1)
    assert [at - began for at in simulation.probes] == [1, 6, 11, 16]
    assert simulation.counted == ["answers"] * 4


async def test_an_unused_platform_is_probed_once_in_the_interval(simulation: Simulation) -> None:
    """Never with 0."""
    await simulation.advance(100)
    assert len(simulation.probes) == 3
    silent = Simulation(interval=0)
    await silent.advance(100)
    assert silent.probes == []
    assert silent.platform_state == ("untried", "untried")


@pytest.mark.parametrize("interval", [0.0, 30.0])
async def test_a_failing_platform_is_probed_until_it_responds(
    simulation: Simulation, interval: float
) -> None:
    simulation.interval, simulation.found = interval, "platform-fails"
    simulation.call(BROKEN)
    await simulation.advance(1)
    assert simulation.platform_state == ("failed", "platform-fails")
    simulation.found = "answers"
    await simulation.advance(5)
    assert simulation.platform_state == ("ok", "answers")


async def test_a_probe_without_a_token_is_repeated(simulation: Simulation) -> None:
    simulation.found = None
    simulation.call(BROKEN)
    await simulation.advance(11)
    assert len(simulation.probes) == 3
    assert simulation.counted == []


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (None, ("degraded", "many-errors")),
        ("platform-refuses", ("failed", "platform-refuses")),
        ("platform-not-fhir", ("failed", "platform-not-fhir")),
    ],
)
async def test_any_response_to_a_probe_ends_a_connection_failure(
    simulation: Simulation, found: str | None, verdict: tuple[str, str]
) -> None:
    """Also a rejection, or a server without a statement."""
    for _ in range(30):
        simulation.call(NO_LINE)
    simulation.found = found
    await simulation.advance(15)
    assert simulation.state is CircuitState.CLOSED
    assert simulation.platform_state[1] == verdict[1] or found is None
    assert simulation.call(FINE) == ""


@pytest.mark.parametrize("answer", [{"upstream_status": 404}, {"reason": "upstream-busy"}], ids=str)
async def test_only_connection_failures_open_the_circuit_directly(
    simulation: Simulation, answer: Answer
) -> None:
    for number in range(3):
        simulation.call(NO_LINE if number else answer)
    simulation.call(answer)
    assert simulation.platform_state[1] in REASONS


async def test_requests_without_a_free_connection_count_neither_way(simulation: Simulation) -> None:
    simulation.clock.now += 60
    simulation.found = "platform-busy"
    for _ in range(5):
        simulation.call({"reason": "upstream-timeout"})
        for _ in range(4):
            simulation.call({"reason": "upstream-busy"}, kind=SEARCH)
    await simulation.advance(1)
    assert simulation.state is CircuitState.OPEN
    assert simulation.platform_state == ("failed", "platform-timeout")


@pytest.mark.parametrize("answered", [True, False])
async def test_no_free_connection_for_a_probe_is_a_fault_without_responses(
    simulation: Simulation, answered: bool
) -> None:
    simulation.clock.now += 60
    simulation.found = "platform-busy"
    for _ in range(4):
        simulation.call({"reason": "upstream-timeout"})
    if answered:
        simulation.call(FINE, kind=SEARCH)
    await simulation.advance(1)
    assert (simulation.state is CircuitState.OPEN) is not answered
    assert simulation.platform_state == (
        ("ok", "answers") if answered else ("failed", "platform-timeout")
    )


async def test_the_delivery_of_a_queued_write_counts_like_a_request(simulation: Simulation) -> None:
    """It belongs to no caller."""
    for _ in range(4):
        simulation.judgement.record_delivery("platform-unreachable", None, "default")
    simulation.judgement.record_delivery(None, None, "default")
    assert simulation.state is CircuitState.OPEN
    await simulation.advance(15)
    before = simulation.responses
    simulation.judgement.record_delivery("answers", None, "default")
    assert simulation.responses == before + 1


async def test_every_response_is_reported(simulation: Simulation) -> None:
    """To a request and to a probe: queued writes continue then."""
    assert simulation.responses == 1
    simulation.call(BROKEN)
    await simulation.advance(1)
    assert simulation.responses == 2


def test_a_response_to_a_caller_ends_the_fault_of_a_probe(simulation: Simulation) -> None:
    simulation.judgement.probe_signal, simulation.judgement.probed_at = (
        "platform-timeout",
        simulation.clock(),
    )
    assert simulation.platform_state == ("failed", "platform-timeout")
    simulation.clock.now += 1
    simulation.call(FINE)
    assert simulation.platform_state == ("ok", "answers")


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
async def test_a_platform_that_responds_to_probes_is_at_most_degraded(
    simulation: Simulation, answers: list[Answer], state: str, reason: str
) -> None:
    """When nearly all requests of the last minute failed."""
    for number, answer in enumerate(answers):
        simulation.call(answer, kind=KINDS[number % 4], caller=f"c{number % 20}")
    await simulation.advance(1)
    simulation.call(answers[0], caller="again")
    assert simulation.platform_state == (state, reason)
    assert simulation.is_ready
    assert reason in REASONS


async def test_a_response_to_a_probe_ends_errors_without_requests(simulation: Simulation) -> None:
    for _ in range(15):
        simulation.call(BROKEN, caller="a")
    await simulation.advance(6)
    assert simulation.platform_state == ("ok", "answers")


def intervals(rng: random.Random, hours: int) -> Iterator[float]:
    """Return the seconds between a small hospital's requests."""
    for _ in range(hours * 60):
        yield rng.expovariate(1 / 30)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
async def test_days_of_client_errors_are_no_outage(share: float) -> None:
    """Readiness stays, and nothing is suspended."""
    mistakes = [
        *({"upstream_status": code} for code in (400, 403, 404, 405, 410, 412, 422, 429)),
        {"upstream_status": 404, "reason": "upstream-non-fhir"},
        {"upstream_status": 401, "reason": "token-rejected"},
    ]
    simulation, rng = Simulation(), random.Random(7)  # noqa: S311 - the same days each time
    for pause in intervals(rng, 48):
        await simulation.advance(max(1.0, pause))
        for _ in range(rng.choice((1, 1, 9)) if rng.random() < share else 0):
            assert simulation.call(rng.choice(mistakes), kind=rng.choice(KINDS)) == ""
        assert simulation.call(FINE, kind=rng.choice(KINDS)) == ""
        assert simulation.is_ready


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
async def test_every_outage_is_found_within_a_minute(outage: str, pause: int | None) -> None:
    """And its end within half a minute; with many callers, few or none."""
    answer, found = OUTAGES[outage]
    simulation = Simulation(found=found)
    simulation.call(FINE)
    for second in range(75):
        if pause is not None and second % pause == 0:
            simulation.call(answer, kind=KINDS[second % 4])
        await simulation.advance(1)
        if not simulation.is_ready and second > 60:
            break
    assert not simulation.is_ready
    assert usability(simulation.health.components()) == (False, found)
    assert worst(simulation.health.components()).reason == found
    simulation.found = "answers"
    await simulation.advance(31)
    assert simulation.is_ready
    assert simulation.state is CircuitState.CLOSED


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
def test_without_a_token_the_gateway_is_not_ready(
    simulation: Simulation, tokens: list[dict[str, Any]], usable: bool, reason: str
) -> None:
    """Readiness, metric and page agree."""
    simulation.tokens = {f"t{n}": replace(VALID_TOKEN, **each) for n, each in enumerate(tokens)}
    components = simulation.health.components()
    assert usability(components) == (usable, reason)
    assert readiness(components)[0] is usable
    assert (worst(components).state == "failed") is not usable
    assert reason in REASONS


def test_an_audit_that_blocks_makes_the_gateway_not_ready(simulation: Simulation) -> None:
    simulation.is_audit_available = False
    components = simulation.health.components()
    ready, body = readiness(components)
    assert (ready, body["failing"], body["checks"]["audit"]) == (False, ["audit"], "failed")
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
def test_a_valid_token_counts_although_its_renewal_fails(
    members: dict[str, Any], state: str, reason: str
) -> None:
    found = judge_token("a", replace(VALID_TOKEN, **members))
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
def test_the_signal_of_an_exchange(members: dict[str, Any], found: str | None) -> None:
    """None where the caller may have disconnected before."""
    exchange = Exchange("id", 0.0, 0.0, method="GET", response_bytes=1, resource="Patient")
    exchange.status = members.get("upstream_status", 0)
    for name, value in members.items():
        setattr(exchange, name, value)
    assert signal_of_exchange(exchange) == found
    exchange.half_closed = True
    assert signal_of_exchange(exchange) == (found if found == "answers" else None), (
        "its caller gave up"
    )


def test_a_window_counts_like_a_list_of_times() -> None:
    """To a tenth of its length."""
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
