"""The gateway's health, judged once for all readers.

The gateway is a list of `Component`s, each with its state and the reason for it. `/readyz`, the
status page and `/status.json`, `dhp_gateway_platform_usable`, alerts and `doctor` take components;
none of them judges by itself. `worst` returns the one that says whether care can go on. What a
reason means and what operators do about it is in `gateway.health.advice`.

The platform is judged by evidence. One successful response to a caller (the signal `answers`) shows
that the platform works. That it fails is shown by

* a probe (`metadata`), unless a caller received a successful response after it;
* at least `_MIN_PROOF_SIGNALS` signals, nearly all of which no caller's mistake can cause: no
  connection, no response in time, 5xx;
* as many signals, nearly all of which are these, refusals or responses without FHIR (401, 403, 404
  of a web server, …), where the platform has never responded successfully. Where it has,
  `_MIN_SOFT_PROOF_SIGNALS` signals of `MAX_REQUEST_KINDS` kinds of requests in `_LASTING_SECONDS`
  or more are needed, because callers make mistakes in bursts and there may be a single caller at
  night.

Any other failures are a doubt: they make the gateway probe the platform, and the platform is
degraded instead of failed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from gateway.health.evidence import (
    ANSWERS,
    FAILS,
    FAULTS,
    MAX_REQUEST_KINDS,
    REFUSES,
    TIMEOUT,
    TLS,
    UNREACHABLE,
    CircuitState,
)
from gateway.health.recent_requests import many_errors
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.health.evidence import Evidence
    from gateway.health.platform_watch import PlatformMonitor
    from gateway.health.recent_requests import RecentRequests
    from gateway.oauth.tokens import TokenState

_log = get_logger(__name__)

ComponentName = Literal["process", "audit", "token", "circuit", "platform", "outbox"]
ComponentState = Literal["ok", "untried", "degraded", "failed"]


@dataclass(frozen=True, slots=True)
class Component:
    """The state of one part of the gateway.

    `untried`: nothing is known yet; `degraded`: requests can succeed, with limits; `failed`: they
    cannot. `reason` is a key of `ADVICE` (`gateway.health.advice`), or `answers` or
    `outbox-waiting`, for which nothing has to be done. `since`: when state or reason last changed
    (Unix time). `about`: the credential concerned, "" for none.
    """

    name: ComponentName
    state: ComponentState
    reason: str
    since: float = 0.0
    about: str = ""


_FINE: Final = "fine"
_UNTRIED: Final = "untried"
_CIRCUIT_OPEN: Final = "circuit-open"
_HALF_OPEN: Final = "circuit-half-open"
_MANY_ERRORS: Final = "many-errors"
_AWAITED: Final = "token-awaited"
_REFUSED: Final = "token-refused"
_SSO_FAILS: Final = "sso-unavailable"
# All values of the label `reason` of `dhp_gateway_platform_usable`.
REASONS: Final = (
    ANSWERS,
    _UNTRIED,
    _MANY_ERRORS,
    "many-refusals",
    _HALF_OPEN,
    _AWAITED,
    *FAULTS,
    _CIRCUIT_OPEN,
    _REFUSED,
    _SSO_FAILS,
)
# The order in which `worst` selects. What stops requests in the gateway comes first: they do not
# reach the platform.
_WORST_FIRST: Final = (
    ("process", "failed"),
    ("audit", "failed"),
    ("token", "failed"),
    ("platform", "failed"),
    ("circuit", "failed"),
    ("platform", "degraded"),
    ("circuit", "degraded"),
    ("token", "degraded"),
    ("audit", "degraded"),
    ("outbox", "degraded"),
    ("process", "degraded"),
    ("platform", "untried"),
)
# The order among tokens in one state.
_TOKEN_REASONS: Final = (
    REFUSES,
    _REFUSED,
    _SSO_FAILS,
    _AWAITED,
    "renewal-fails",
    "secret-refused",
    _FINE,
)
# States of the outbox's entries that only an operator's decision changes.
_OPERATOR_STATES: Final = ("failed", "unclear")
_WAITING_STATES: Final = ("waiting", "sending")
# Seconds without a delivery, although there is something to deliver and the platform works, from
# which deliveries stand still. An alert follows within a minute of the last delivery.
STANDSTILL_SECONDS: Final = 40.0
# `available`: the outbox can be reached. `entries`: number of entries by state.
# `oldest_seconds`: for how long the oldest entry has waited, or None. `stalled_seconds`: for how
# long nothing has been delivered that could be.
OutboxReport = Mapping[str, Any]


def worst(components: Sequence[Component]) -> Component:
    """Return the component that limits the gateway most; one that is `ok` if all are.

    A credential without a token is only a limit while another credential has one.
    """
    has_token = any(each.name == "token" and each.state != "failed" for each in components)
    return min(
        (
            replace(each, state="degraded")
            if has_token and each.name == "token" and each.state == "failed"
            else each
            for each in components
        ),
        key=_rank,
    )


def _rank(component: Component) -> tuple[int, int]:
    """Return the place of a component in the order of `_WORST_FIRST` and `_TOKEN_REASONS`."""
    kind = (component.name, component.state)
    place = _WORST_FIRST.index(kind) if kind in _WORST_FIRST else len(_WORST_FIRST)
    return place, _TOKEN_REASONS.index(component.reason) if component.name == "token" else 0


def usability(components: Sequence[Component]) -> tuple[bool, str]:
    """Return whether requests can succeed as far as is known, and why: one of `REASONS`."""
    tokens = [each for each in components if each.name == "token"]
    if tokens and all(each.state == "failed" for each in tokens):
        reason = worst(tokens).reason
        return reason == _AWAITED, reason
    [platform] = (each for each in components if each.name == "platform")
    return platform.state != "failed", platform.reason


def readiness(components: Sequence[Component]) -> tuple[bool, dict[str, Any]]:
    """Return whether the gateway is ready, and the body of `/readyz`, which names what fails.

    An unavailable outbox is reported as failing but does not make the gateway not ready, because
    all other requests are still served.
    """
    passed = dict(_checks(components))
    failing = [check for check, has_passed in passed.items() if not has_passed]
    ready = not set(failing) - {"outbox"}
    return ready, {
        "ready": ready,
        "failing": failing,
        "checks": {check: "ok" if has_passed else "failed" for check, has_passed in passed.items()},
    }


def _checks(components: Sequence[Component]) -> Iterator[tuple[str, bool]]:
    for each in components:
        is_working = each.state != "failed"
        match each.name:
            case "token":
                # A token that the platform refuses is there.
                yield f"token:{each.about}", is_working or each.reason == REFUSES
            case "circuit":
                yield "circuit", is_working
            case "platform":
                # An open circuit alone does not prove that the platform fails.
                is_refusing = usability(components) == (False, REFUSES)
                yield "platform", (is_working or each.reason == _CIRCUIT_OPEN) and not is_refusing
            case "process":
                yield "shutdown", is_working
            case "outbox":
                yield "outbox", each.reason not in ("outbox-away", "outbox-standstill")


def judge_token(credential: str, token: TokenState) -> Component:
    """Return the component of a credential's token."""
    state, reason = _token_state(token)
    return Component("token", state, reason, about=credential)


def _token_state(token: TokenState) -> tuple[ComponentState, str]:
    if not token.is_valid:
        known = {None: _AWAITED, "refused": _REFUSED}
        return "failed", known.get(token.failure, _SSO_FAILS)
    if token.is_rejected:
        return "failed", REFUSES
    if token.failure is not None:
        return "degraded", "renewal-fails"
    return ("degraded", "secret-refused") if token.uses_previous_secret else ("ok", _FINE)


def judge_circuit(circuit: CircuitState) -> Component:
    """Return the component of the circuit breaker."""
    if circuit == CircuitState.OPEN:
        return Component("circuit", "failed", _CIRCUIT_OPEN)
    if circuit == CircuitState.HALF_OPEN:
        return Component("circuit", "degraded", _HALF_OPEN)
    return Component("circuit", "ok", _FINE)


def judge_outbox(report: OutboxReport, *, is_platform_failing: bool = False) -> Component:
    """Return the component of an enabled outbox. Waiting entries need a platform that works."""
    if not report.get("available", True):
        return Component("outbox", "degraded", "outbox-away")
    if not is_platform_failing and report.get("stalled_seconds", 0.0) >= STANDSTILL_SECONDS:
        return Component("outbox", "degraded", "outbox-standstill")
    if any(report["entries"].get(state) for state in _OPERATOR_STATES):
        return Component("outbox", "degraded", "outbox-person")
    if any(report["entries"].get(state) for state in _WAITING_STATES):
        return Component("outbox", "degraded" if is_platform_failing else "ok", "outbox-waiting")
    return Component("outbox", "ok", _FINE)


# Signals that a caller's mistake cannot cause.
_HARD: Final = frozenset({TLS, UNREACHABLE, TIMEOUT, FAILS})
_FAULTS: Final = frozenset(FAULTS)
_NEARLY_ALL: Final = 0.95
# Minimum number of signals: for a doubt; for a proof; for a proof that callers' mistakes cannot
# explain.
_MIN_DOUBT_SIGNALS: Final = 3
_MIN_PROOF_SIGNALS: Final = 10
_MIN_SOFT_PROOF_SIGNALS: Final = 20
# Seconds without a successful response from which on all `_MIN_PROOF_SIGNALS` or more signals since
# the last one are evaluated, instead of those of the last minute: the failure is not a momentary
# one.
_MOMENTARY_SECONDS: Final = 10.0
_LASTING_SECONDS: Final = 60.0


def judge_platform(evidence: Evidence) -> Component:
    """Return the component of the platform; `about` is the credential that it refuses."""
    state, reason = _platform_state(evidence)
    about = evidence.credential if reason == REFUSES else ""
    return Component("platform", state, reason, about=about)


def _platform_state(evidence: Evidence) -> tuple[ComponentState, str]:
    probe_signal = evidence.probe if evidence.probed_at > evidence.last_success_at else ""
    if probe_signal in _FAULTS:
        return "failed", probe_signal
    if evidence.circuit == CircuitState.OPEN:
        return "failed", _CIRCUIT_OPEN
    counts = _relevant_counts(evidence, probe_signal)
    total = sum(counts.values())
    if total >= _MIN_DOUBT_SIGNALS and _failure_count(counts) >= _NEARLY_ALL * total:
        if _proves_failure(evidence, counts, probe_signal):
            return "failed", _main_fault(counts)
        return "degraded", _MANY_ERRORS if _hard(counts) * 2 > total else "many-refusals"
    if evidence.circuit == CircuitState.HALF_OPEN:
        return "degraded", _HALF_OPEN
    return ("ok", ANSWERS) if evidence.has_succeeded else ("untried", _UNTRIED)


def _relevant_counts(evidence: Evidence, probe_signal: str) -> Mapping[str, int]:
    """Return the callers' signals to evaluate: of the last minute, or since the last success."""
    counts = evidence.last_minute
    settled = evidence.now - evidence.bad_since >= _MOMENTARY_SECONDS
    since_good = sum(evidence.since_good.values())
    if sum(counts.values()) < _MIN_PROOF_SIGNALS or (settled and since_good >= _MIN_PROOF_SIGNALS):
        counts = evidence.since_good
    if probe_signal == ANSWERS and evidence.probed_at > evidence.last_request_at:
        # The probe shows that the platform can be reached again. It does not show whether the
        # callers or the platform caused the remaining failures.
        counts = {signal: count for signal, count in counts.items() if signal not in _HARD}
    return counts


def _proves_failure(evidence: Evidence, counts: Mapping[str, int], probe_signal: str) -> bool:
    """Return whether the callers' signals prove, without a probe, that the platform fails."""
    total = sum(counts.values())
    if total >= _MIN_PROOF_SIGNALS and _hard(counts) >= _NEARLY_ALL * total:
        return True
    faults = sum(counts.get(signal, 0) for signal in _FAULTS)
    if faults < _NEARLY_ALL * total:
        return False
    if not probe_signal and not evidence.has_succeeded:
        return total >= _MIN_PROOF_SIGNALS
    lasted = evidence.now - evidence.bad_since
    return (
        total >= _MIN_SOFT_PROOF_SIGNALS
        and evidence.kinds >= MAX_REQUEST_KINDS
        and lasted >= _LASTING_SECONDS
    )


def needs_probe(evidence: Evidence, delay: float) -> bool:
    """Return whether to probe the platform although callers send requests to it.

    A half-open circuit needs a probe at once. A doubt or a failure needs one after `delay` seconds
    without a successful response to a caller: a shorter one does not justify a probe.
    """
    if evidence.circuit == CircuitState.HALF_OPEN:
        return True
    in_doubt = judge_platform(evidence).state in ("degraded", "failed")
    return in_doubt and evidence.now - evidence.bad_since >= delay


def _failure_count(counts: Mapping[str, int]) -> int:
    return sum(counts.values()) - counts.get(ANSWERS, 0)


def _hard(counts: Mapping[str, int]) -> int:
    return sum(counts.get(signal, 0) for signal in _HARD)


def _main_fault(counts: Mapping[str, int]) -> str:
    """Return the most frequent fault; of equally frequent ones the gravest, first in `FAULTS`."""
    return max(FAULTS, key=lambda signal: counts.get(signal, 0))


_CHECK_INTERVAL: Final = 1.0


class Health:
    """The components of this gateway; the callables are called anew for every list.

    `tokens` returns the state of every credential, `credentials_in_use` the credentials that
    callers use; another one is the audit's. `outbox` returns None where it is not enabled.
    """

    def __init__(
        self,
        *,
        monitor: PlatformMonitor,
        tokens: Callable[[], Mapping[str, TokenState]],
        credentials_in_use: Callable[[], Collection[str]],
        is_audit_available: Callable[[], bool],
        is_draining: Callable[[], bool],
        outbox: Callable[[], OutboxReport | None],
        recent_requests: RecentRequests,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.monitor = monitor
        self.tokens = tokens
        self.is_audit_available = is_audit_available
        self.outbox = outbox
        self.recent_requests = recent_requests
        self._credentials_in_use = credentials_in_use
        self._is_draining = is_draining
        self._wall_clock = wall_clock
        self._last: dict[tuple[str, str], Component] = {}

    def components(self) -> list[Component]:
        """Return all components as they are now, in the order of `/readyz`."""
        evidence, outbox = self.monitor.evidence(), self.outbox()
        tokens, audit = self._judge_tokens()
        platform = judge_platform(evidence)
        if platform.reason == REFUSES and not platform.about and tokens:
            # The token of a signed-in user was refused, which is no credential's.
            platform = replace(platform, about=tokens[0].about)
        found = [
            *tokens,
            judge_circuit(evidence.circuit),
            platform,
            self._judge_process(evidence, platform),
        ]
        if outbox is not None:
            is_failing = platform.state == "failed"
            found.append(judge_outbox(outbox, is_platform_failing=is_failing))
        found += audit
        return [self._dated(each) for each in found]

    async def run(self) -> None:
        """Judge and probe the platform if that is due, once a second, until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_INTERVAL)
            try:
                # `Component.since` is only accurate if the components are judged regularly.
                self.components()
                await self.monitor.probe_if_due()
            except Exception as error:
                # The error's text could quote a response, so that only its type is logged.
                _log.error("the platform could not be asked: %s", type(error).__name__)

    def _judge_tokens(self) -> tuple[list[Component], list[Component]]:
        """Return the tokens of callers' credentials, and the components of the audit."""
        tokens = []
        audit = [
            Component("audit", "ok", _FINE)
            if self.is_audit_available()
            else Component("audit", "failed", "audit-unavailable")
        ]
        in_use = self._credentials_in_use()
        for name, state in self.tokens().items():
            token = judge_token(name, state)
            if name in in_use:
                tokens.append(token)
            elif token.state != "ok":
                # Records are still written; they do not reach the audit's repository.
                audit.append(replace(token, name="audit", state="degraded"))
        return tokens, audit

    def _judge_process(self, evidence: Evidence, platform: Component) -> Component:
        if self._is_draining():
            return Component("process", "failed", "shutting-down")
        has_answered = evidence.probe == ANSWERS and evidence.probed_at > evidence.last_request_at
        has_recovered = has_answered and platform.state == "ok"
        if not has_recovered and many_errors(*self.recent_requests.latest()):
            return Component("process", "degraded", _MANY_ERRORS)
        return Component("process", "ok", _FINE)

    def _dated(self, component: Component) -> Component:
        """Return the component with the time since which it has had its state and reason."""
        # A platform that refuses another credential than before has not changed.
        key = component.name, "" if component.name == "platform" else component.about
        last = self._last.get(key)
        if last is not None and (last.state, last.reason) == (component.state, component.reason):
            dated = replace(component, since=last.since)
        else:
            dated = replace(component, since=self._wall_clock())
        self._last[key] = dated
        return dated
