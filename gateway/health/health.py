"""The gateway's health: whether requests can succeed now, and whether care can go on.

The platform's health is derived from evidence. Readiness (the checks behind `/readyz`), the status
page, `/status.json`, `dhp_gateway_platform_usable` and with it the alerts use this result. The
service status (can care go on?) is derived from the gateway's own state and the platform's health.
`evaluate_health` is a pure function, which the tests of this module describe as a table.

One successful response to a caller (the signal `answers`) shows that the platform works. That it
fails is shown by

* a probe (`metadata`), unless a caller received a successful response after it;
* at least `_MIN_PROOF_SIGNALS` signals, nearly all of which no caller's mistake can cause: no
  connection, no response in time, 5xx;
* as many signals, nearly all of which are these, refusals or responses without FHIR (401, 403, 404
  of a web server, …), where the platform has never responded successfully. Where it has,
  `_MIN_SOFT_PROOF_SIGNALS` signals of `MAX_REQUEST_KINDS` kinds of requests in `_LASTING_SECONDS`
  or more are needed, because callers make mistakes in bursts and there may be a single caller at
  night.

Any other failures are a doubt: they make the gateway probe the platform, and the service status is
`degraded` instead of `no`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

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

if TYPE_CHECKING:
    from gateway.health.evidence import HealthEvidence
    from gateway.oauth.tokens import TokenState


def _outbox_not_enabled() -> bool | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """The checks of `/readyz`; the callables are called anew for every report.

    `tokens` returns for every credential in use whether it has a valid token. `is_circuit_open`,
    `is_platform_failing` (see `gateway.health.health`) and `is_draining` (a shutdown is in
    progress) each make the process not ready. `outbox` returns whether the outbox is available,
    None where it is not enabled. An unavailable outbox is reported as failing but does not make the
    process not ready, because all other requests are still served.
    """

    tokens: Callable[[], Mapping[str, bool]]
    is_circuit_open: Callable[[], bool]
    is_draining: Callable[[], bool]
    is_platform_failing: Callable[[], bool] = bool
    outbox: Callable[[], bool | None] = _outbox_not_enabled

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the gateway is ready, and the JSON body that names the failing checks."""
        checks = {f"token:{name}": valid for name, valid in self.tokens().items()}
        checks["circuit"] = not self.is_circuit_open()
        checks["platform"] = not self.is_platform_failing()
        checks["shutdown"] = not self.is_draining()
        ready = all(checks.values())
        outbox = self.outbox()
        if outbox is not None:
            checks["outbox"] = outbox
        failing = [check for check, passed in checks.items() if not passed]
        return ready, {
            "ready": ready,
            "failing": failing,
            "checks": {check: "ok" if passed else "failed" for check, passed in checks.items()},
        }


# States of the platform.
_UNTRIED: Final = "untried"
_DOUBTFUL: Final = "doubtful"
_FAILING: Final = "fails"

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

_NO_TOKEN: Final = {"refused": "token-refused", "awaited": "token-awaited"}
# All values of the label `reason` of `dhp_gateway_platform_usable`.
REASONS: Final = (
    ANSWERS,
    _UNTRIED,
    "many-errors",
    "many-refusals",
    "circuit-half-open",
    "token-awaited",
    *FAULTS,
    "circuit-open",
    "token-refused",
    "sso-unavailable",
)


@dataclass(frozen=True, slots=True)
class PlatformHealth:
    """The derived state of the platform, and whether requests can succeed.

    `state` is `untried`, `answers`, `doubtful` or `fails`, and `platform` its reason. `is_usable`:
    requests can succeed as far as is known. `reason` is the reason of `is_usable`: that of the
    tokens where no credential has a usable one, else that of the platform. Both reasons are members
    of `REASONS`.
    """

    state: str
    platform: str
    is_usable: bool
    reason: str

    @property
    def is_platform_at_fault(self) -> bool:
        """Whether the platform is known to be unusable; an open circuit alone does not prove it."""
        fails = self.state == _FAILING and self.platform != "circuit-open"
        return fails or (not self.is_usable and self.reason == REFUSES)


class HealthEvaluator:
    """Evaluates the current evidence at each call, and records when the result last changed.

    `since` is a Unix time, accurate to the interval at which `evaluate` is called (once a second).
    """

    def __init__(
        self, evidence: Callable[[], HealthEvidence], wall_clock: Callable[[], float]
    ) -> None:
        self.evidence = evidence
        self._wall_clock = wall_clock
        self._last: tuple[str, str] | None = None
        self.since = 0.0

    def evaluate(self) -> PlatformHealth:
        """Return the platform health now, and update `since` if its state or reason changed."""
        health = evaluate_health(self.evidence())
        if (health.state, health.platform) != self._last:
            self._last = health.state, health.platform
            self.since = self._wall_clock()
        return health


def token_statuses(states: Mapping[str, TokenState]) -> dict[str, str]:
    """Return by credential `valid`, `rejected` by the platform, `awaited` or the SSO's failure."""
    return {name: _token_status(state) for name, state in states.items()}


def evaluate_health(evidence: HealthEvidence) -> PlatformHealth:
    """Return the platform health that the evidence shows."""
    state, platform = _platform_state(evidence)
    words = set(evidence.tokens.values())
    if words and "valid" not in words:
        if "rejected" in words:
            return PlatformHealth(state, platform, is_usable=False, reason=REFUSES)
        known = (reason for word, reason in _NO_TOKEN.items() if word in words)
        reason = next(known, "sso-unavailable")
        return PlatformHealth(state, platform, is_usable=reason == "token-awaited", reason=reason)
    return PlatformHealth(state, platform, is_usable=state != _FAILING, reason=platform)


def _platform_state(evidence: HealthEvidence) -> tuple[str, str]:
    probe_signal = evidence.probe if evidence.probed_at > evidence.last_success_at else ""
    if probe_signal in _FAULTS:
        return _FAILING, probe_signal
    if evidence.circuit == CircuitState.OPEN:
        return _FAILING, "circuit-open"
    counts = _relevant_counts(evidence, probe_signal)
    total = sum(counts.values())
    if total >= _MIN_DOUBT_SIGNALS and _failure_count(counts) >= _NEARLY_ALL * total:
        if _proves_failure(evidence, counts, probe_signal):
            return _FAILING, _main_fault(counts)
        return _DOUBTFUL, "many-errors" if _hard(counts) * 2 > total else "many-refusals"
    if evidence.circuit == CircuitState.HALF_OPEN:
        return _DOUBTFUL, "circuit-half-open"
    return (ANSWERS, ANSWERS) if evidence.has_succeeded else (_UNTRIED, _UNTRIED)


def _relevant_counts(evidence: HealthEvidence, probe_signal: str) -> Mapping[str, int]:
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


def _proves_failure(evidence: HealthEvidence, counts: Mapping[str, int], probe_signal: str) -> bool:
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


def needs_probe(evidence: HealthEvidence, delay: float) -> bool:
    """Return whether to probe the platform although callers send requests to it.

    A half-open circuit needs a probe at once. A doubt or a failure needs one after `delay` seconds
    without a successful response to a caller: a shorter one does not justify a probe.
    """
    if evidence.circuit == CircuitState.HALF_OPEN:
        return True
    in_doubt = evaluate_health(evidence).state in (_DOUBTFUL, _FAILING)
    return in_doubt and evidence.now - evidence.bad_since >= delay


def _token_status(state: TokenState) -> str:
    if state.is_valid:
        return "rejected" if state.is_rejected else "valid"
    return state.failure or "awaited"


def _failure_count(counts: Mapping[str, int]) -> int:
    return sum(counts.values()) - counts.get(ANSWERS, 0)


def _hard(counts: Mapping[str, int]) -> int:
    return sum(counts.get(signal, 0) for signal in _HARD)


def _main_fault(counts: Mapping[str, int]) -> str:
    """Return the most frequent fault; of equally frequent ones the gravest, first in `FAULTS`."""
    return max(FAULTS, key=lambda signal: counts.get(signal, 0))


_SERVICE_STATES: Final = ("yes", "untried", "degraded", "no")


def service_status(
    own_status: tuple[str, str], health: PlatformHealth, evidence: HealthEvidence
) -> dict[str, str]:
    """Return the worse of `own_status` and the platform's state.

    `own_status` is the answer and the reason by the gateway's tokens, its audit etc., `evidence`
    that of `health`. The result has `answer` and `reason`, and `credential` if the platform refuses
    a client.
    """
    answer, reason = own_status
    care = _status_of_platform(health)
    if reason == "many-errors" and _has_recovered(health, evidence):
        return care
    worse = _SERVICE_STATES.index(answer) - _SERVICE_STATES.index(care["answer"])
    # If both are `no`, the reason is used that stops requests in the gateway: they do not reach
    # the platform.
    first = answer == "no" and reason != "circuit-open"
    if worse > 0 or (worse == 0 and first):
        care = {"answer": answer, "reason": reason}
    if care["reason"] == REFUSES:
        care["credential"] = _refused_credential(evidence)
    return care


def _status_of_platform(health: PlatformHealth) -> dict[str, str]:
    if health.state == _FAILING:
        return {"answer": "no", "reason": health.platform}
    if health.state == _DOUBTFUL:
        return {"answer": "degraded", "reason": health.platform}
    if health.state == _UNTRIED:
        return {"answer": _UNTRIED, "reason": _UNTRIED}
    return {"answer": "yes", "reason": "fine"}


def _has_recovered(health: PlatformHealth, evidence: HealthEvidence) -> bool:
    """Return whether a probe has succeeded since the last caller's request."""
    probed = evidence.probe == ANSWERS and evidence.probed_at > evidence.last_request_at
    return probed and health.state == ANSWERS


def _refused_credential(evidence: HealthEvidence) -> str:
    """Return the credential that the platform refuses, "" if there are no credentials."""
    rejected = (name for name, word in evidence.tokens.items() if word == "rejected")
    return evidence.credential or next(rejected, "") or next(iter(evidence.tokens), "")
