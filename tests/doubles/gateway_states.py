"""The status page in the states of a gateway, made by the product's `StatusReporter`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, get_args

from aiohttp import web

from gateway.admin.admin_server import build_application
from gateway.admin.operators import Operators
from gateway.admin.status_facts import StatusReporter
from gateway.config.loader import load_settings
from gateway.config.outbound_settings import CircuitBreakerSettings
from gateway.config.settings import Settings
from gateway.errors import REASONS
from gateway.exchange import Exchange
from gateway.fhir.vocabulary import INTERACTIONS
from gateway.health.evidence import CircuitState
from gateway.health.health import Health, OutboxReport, TokenState
from gateway.health.platform_judgement import PlatformJudgement
from gateway.health.recent_requests import RecentRequests
from gateway.oauth.token_response import Cause
from tests.doubles.clock import FakeClock

VALID_TOKEN: Final = TokenState(
    is_valid=True,
    expires_in=3274.0,
    failure=None,
    cause=None,
    status=None,
    oauth_error=None,
    next_attempt_in=2911.0,
    is_fetching=False,
    is_rejected=False,
)
_LACKING: Final = replace(VALID_TOKEN, is_valid=False, expires_in=None, next_attempt_in=12.0)
ENTRY_STATES: Final = (
    "waiting",
    "sending",
    "delivered",
    "failed",
    "unclear",
    "cancelled",
    "dropped",
)
Outcome = tuple[int, str]
SUCCEEDED: Final[Outcome] = (200, "")


class GatewayState:
    """One hour of a gateway's traffic, and its state at the end of the hour."""

    def __init__(self) -> None:
        self.clock = FakeClock(1_000_000.0)
        self.traffic = RecentRequests(self.clock, self.clock.wall)
        self.tokens: Mapping[str, TokenState] = {"default": VALID_TOKEN}
        # The credential that only the audit uses, "" for none.
        self.audit_credential = ""
        self.connections: Mapping[str, int] = {"idle": 2, "active": 1, "connecting": 1}
        self.outbox: OutboxReport | None = None
        self.audit_available = True
        self.draining = False
        # Result of the gateway's own probe of the platform and the credential used; None: no
        # probes.
        self.found: tuple[str, str] | None = None
        self.judgement = PlatformJudgement(
            circuit=CircuitBreakerSettings(),
            probe=self._probe,
            interval=lambda: 0.0 if self.found is None else 30.0,
            on_response=lambda: None,
            count_probe=str,
            clock=self.clock,
        )
        self.health = Health(
            platform=lambda: self.judgement,
            tokens=lambda: self.tokens,
            credentials_in_use=lambda: self.tokens.keys() - {self.audit_credential},
            is_audit_available=lambda: self.audit_available,
            is_draining=lambda: self.draining,
            outbox=lambda: self.outbox,
            recent_requests=self.traffic,
            wall_clock=self.clock.wall,
        )

    def serve(self, minutes_ago: int, *outcomes: Outcome, **members: Any) -> None:
        """Record requests that ended `minutes_ago`, one for each outcome."""
        for status, reason in outcomes:
            duration = members.get("duration", 0.084)
            started_at = self.clock() - 60 * minutes_ago - duration
            exchange = Exchange("id", started_at + self.clock.wall() - self.clock(), started_at)
            exchange.status, exchange.reason = status, reason
            exchange.upstream_status = status
            exchange.caller, exchange.interaction, exchange.resource = (
                "laboratory",
                "read",
                "Patient",
            )
            for name, value in {"duration": duration, **members}.items():
                setattr(exchange, name, value)
            self.traffic.record_exchange(exchange)
            self.judgement.record_exchange(exchange)

    def set_circuit(self, state: CircuitState) -> None:
        """Open or close the circuit by hand."""
        ends = {CircuitState.OPEN: 15.0, CircuitState.HALF_OPEN: 0.0}
        judgement = self.judgement
        judgement._open_until = self.clock() + ends[state] if state else None
        judgement._open_reason = "platform-unreachable"
        if not state:
            judgement.probe_signal, judgement.probed_at = "answers", self.clock()

    async def _probe(self) -> tuple[str, str] | None:
        # A circuit that was opened by hand stays so.
        is_open = self.judgement.state is not CircuitState.CLOSED
        return self.found or (("platform-unreachable", "default") if is_open else None)

    def status(self) -> StatusReporter:
        return StatusReporter(
            settings=settings,
            health=self.health,
            connections=lambda: self.connections,
            inflight=lambda: 3,
            audit_dropped=int,
            clock=self.clock,
            wall_clock=self.clock.wall,
        )


def settings() -> Settings:
    """Return the settings of a hospital with the defaults of the playground."""
    return load_settings(None, _SETTINGS)


_SETTINGS: Final = {
    "DHP_GATEWAY_ENVIRONMENT": "dhp-playground",
    "DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_ID": "hospital-17",
    "DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_SECRET": "planted-client-secret",
}


def busy_hour() -> Iterator[tuple[int, Outcome, dict[str, Any]]]:
    """Yield the requests of a working day's hour with a short failure.

    Each is the minutes since then, its outcome, and members of its exchange.
    """
    names = [("search-type", "Patient"), ("read", "Observation"), ("create", "Encounter")]
    for minute in range(60):
        failing = 31 <= minute <= 34
        for number in range(18 + (minute * 7) % 13):
            interaction, resource = names[(number + minute) % 3]
            failed = failing and number % 3 == 0
            members = {
                "caller": "laboratory" if number % 4 == 0 else "hospital-system",
                "interaction": interaction,
                "resource": resource,
                "duration": 0.08 + 0.013 * ((number * minute) % 29),
            }
            yield minute, (503, "upstream-unreachable") if failed else SUCCEEDED, members


def _busy(gateway: GatewayState) -> None:
    for minute, outcome, members in busy_hour():
        gateway.serve(minute, outcome, **members)


def _first_minute(gateway: GatewayState) -> None:
    gateway.serve(0, SUCCEEDED, SUCCEEDED, SUCCEEDED)


def _all_fail(gateway: GatewayState) -> None:
    gateway.serve(0, *[(502, "upstream-failed")] * 15)


def _few_fail(gateway: GatewayState) -> None:
    gateway.serve(40, *[SUCCEEDED] * 12_345, (502, "upstream-failed"), duration=75.5)


def _every_reason(gateway: GatewayState) -> None:
    for reason in REASONS:
        gateway.serve(0, (500, reason))
    gateway.serve(0, (500, ""), (499, "upstream-failed"))


def _every_interaction(gateway: GatewayState) -> None:
    for minute, interaction in enumerate(sorted(INTERACTIONS)):
        gateway.serve(minute, SUCCEEDED, interaction=interaction, resource="MedicationStatement")
    gateway.serve(30, SUCCEEDED, interaction="transaction", resource="", duration=0.0004)


def _many_callers(gateway: GatewayState) -> None:
    for number in range(600):
        gateway.serve(0, SUCCEEDED, caller=f"polyclinic-with-a-long-name-{number}")


def _queue(**entries: int) -> Callable[[GatewayState], None]:
    def come(gateway: GatewayState) -> None:
        gateway.outbox = {"entries": entries, "oldest_seconds": 3700.4 if entries else None}

    return come


def _tokens(**tokens: TokenState) -> Callable[[GatewayState], None]:
    def come(gateway: GatewayState) -> None:
        gateway.tokens = tokens

    return come


def _set(name: str, value: Any) -> Callable[[GatewayState], None]:
    return lambda gateway: setattr(gateway, name, value)


def _failed(cause: Cause) -> TokenState:
    kind = cause if cause in ("refused", "throttled") else "transient"
    reported = {"refused": (401, "invalid_client"), "error status": (503, "other")}
    status, oauth_error = reported.get(cause, (None, None))
    return replace(_LACKING, failure=kind, cause=cause, status=status, oauth_error=oauth_error)


STATES: Final[dict[str, Callable[[GatewayState], None]]] = {
    "busy": _busy,
    "quiet": lambda gateway: None,
    "first-minute": _first_minute,
    "all-fail": _all_fail,
    "few-fail": _few_fail,
    "every-reason": _every_reason,
    "every-interaction": _every_interaction,
    "many-callers": _many_callers,
    "circuit-open": lambda gateway: gateway.set_circuit(CircuitState.OPEN),
    "circuit-half-open": lambda gateway: gateway.set_circuit(CircuitState.HALF_OPEN),
    "audit-unavailable": _set("audit_available", False),
    "shutting-down": _set("draining", True),
    "outbox-empty": _queue(),
    "outbox-waiting": _queue(waiting=2),
    "outbox-person": _queue(**dict.fromkeys(ENTRY_STATES, 2)),
    "token-awaited": _tokens(default=replace(_LACKING, next_attempt_in=None, is_fetching=True)),
    "token-rejected": _tokens(default=replace(VALID_TOKEN, is_rejected=True)),
    "token-not-renewed": _tokens(
        default=replace(_failed("time-out"), is_valid=True, expires_in=40)
    ),
    "spare-secret": _tokens(default=replace(VALID_TOKEN, uses_previous_secret=True)),
    "several-tokens": _tokens(default=VALID_TOKEN, laboratory=_failed("refused")),
    **{f"token-{cause}": _tokens(default=_failed(cause)) for cause in get_args(Cause)},
}


class StatusSources:
    """The sources of the admin listener in one state."""

    def __init__(self, state: str) -> None:
        gateway = GatewayState()
        STATES[state](gateway)
        status = gateway.status()
        self.language, self.facts = status.language, status.facts
        self.components = gateway.health.components

    def render(self, accept: str | None) -> tuple[str, bytes]:
        """Return empty metrics, which the status page does not use."""
        return "text/plain", b""


@contextlib.asynccontextmanager
async def serve_state(state: str) -> AsyncIterator[str]:
    """Yield the address of an admin listener that shows a state."""
    what = StatusSources(state)
    application = build_application(metrics=what, health=what, status=what, operators=Operators(()))
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
