"""Can requests of this gateway succeed? The one place that judges, from evidence.

Readiness, the status page, `/status.json`, `dhp_gateway_platform_usable` and with it the alerts
read what is said here. It is a pure function; tests/admin/test_judgement.py has it as a table.

One good answer to a caller shows that the platform serves. That it does not is shown by

* the gateway's own question (`metadata`), unless a caller got a good answer since;
* nearly all of at least `_ENOUGH` answers, where no caller's mistake can be the cause: no
  connection, no answer in time, 5xx;
* nearly all of as many refusals and answers without FHIR (401, 403, 404 of a web server, …) where
  the platform has never answered well, and otherwise, as callers make mistakes in bursts and a
  quiet night may have a single caller, only of many of many kinds for a while.

Whatever else looks bad is a doubt: it makes the gateway ask, and limits care but does not stop it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.oauth.tokens import TokenState
from gateway.pipeline.circuit import CircuitState
from gateway.telemetry.findings import (
    ANSWERS,
    FAILS,
    FAULTS,
    REFUSES,
    TIMEOUT,
    TLS,
    UNREACHABLE,
)

# States of the platform.
UNTRIED: Final = "untried"
DOUBTFUL: Final = "doubtful"
FAILING: Final = "fails"

# No mistake of a caller leads to these.
_HARD: Final = frozenset({TLS, UNREACHABLE, TIMEOUT, FAILS})
_FAULTS: Final = frozenset(FAULTS)
_NEARLY_ALL: Final = 0.95
# From so many answers on they mean something, prove something, and prove it beyond any mistake.
_SOME: Final = 3
_ENOUGH: Final = 10
_MANY: Final = 20
# Not a single good answer for so many seconds, although many were asked for: no hiccup.
_SETTLED: Final = 10.0
# So many kinds of requests, for so many seconds.
MAX_REQUEST_KINDS: Final = 3
_LASTING: Final = 60.0

_NO_TOKEN: Final = {"refused": "token-refused", "awaited": "token-awaited"}
# All values of the metric's label `reason`.
REASONS: Final = (
    *(ANSWERS, UNTRIED, "many-errors", "many-refusals", "circuit-half-open", "token-awaited"),
    *(*FAULTS, "circuit-open", "token-refused", "sso-unavailable"),
)


@dataclass(frozen=True, slots=True)
class HealthEvidence:
    """What is known; times are those of the monotonic clock, which all processes share.

    `last_minute` counts what callers got in the last minute, by `gateway.telemetry.findings`;
    `since_good` since the last good answer, for five minutes at most, and from `bad_since` on;
    `kinds` how many kinds of requests these were, up to `MAX_REQUEST_KINDS`. `last_request_at`:
    when a caller's request last ended at the platform. `has_succeeded`: it has answered well
    before. `probe` is what the gateway's own question found, "" before it has asked;
    `is_probe_enabled` that it asks at all. `tokens` has a word for each credential, see
    `token_statuses`; `credential` is the one that was refused last.
    """

    last_minute: Mapping[str, int] = field(default_factory=dict)
    since_good: Mapping[str, int] = field(default_factory=dict)
    kinds: int = 0
    bad_since: float = math.inf
    last_success_at: float = -math.inf
    last_request_at: float = -math.inf
    has_succeeded: bool = False
    probe: str = ""
    probed_at: float = -math.inf
    is_probe_enabled: bool = False
    circuit: int = CircuitState.CLOSED
    tokens: Mapping[str, str] = field(default_factory=dict)
    credential: str = ""
    now: float = 0.0


@dataclass(frozen=True, slots=True)
class PlatformHealth:
    """`state` of the platform: `untried`, `answers`, `doubtful` or `fails`, and why.

    `is_usable`: whether requests can succeed as far as is known, and `reason` why, which is the
    tokens' where there is none. Both reasons are among `REASONS`.
    """

    state: str
    platform: str
    is_usable: bool
    reason: str

    @property
    def is_platform_at_fault(self) -> bool:
        """Whether the platform is known to be unusable, not just left alone for a moment."""
        fails = self.state == FAILING and self.platform != "circuit-open"
        return fails or (not self.is_usable and self.reason == REFUSES)


class HealthEvaluator:
    """Judges anew whenever it is asked, and keeps in mind since when it is so.

    Whoever asks it once a second gets that right to a second; times are Unix times.
    """

    def __init__(
        self, evidence: Callable[[], HealthEvidence], wall_clock: Callable[[], float]
    ) -> None:
        self.evidence = evidence
        self._wall_clock = wall_clock
        self._last: tuple[str, str] | None = None
        self.since = 0.0

    def evaluate(self) -> PlatformHealth:
        """What the evidence shows now."""
        health = evaluate_health(self.evidence())
        if (health.state, health.platform) != self._last:
            self._last = health.state, health.platform
            self.since = self._wall_clock()
        return health


def token_statuses(states: Mapping[str, TokenState]) -> dict[str, str]:
    """For each credential: `valid`, `rejected` by the platform, `awaited`, or how the SSO fails."""
    return {name: _token_status(state) for name, state in states.items()}


def evaluate_health(evidence: HealthEvidence) -> PlatformHealth:
    """What the evidence shows."""
    state, platform = _platform_state(evidence)
    words = set(evidence.tokens.values())
    if words and "valid" not in words:
        if "rejected" in words:
            return PlatformHealth(state, platform, is_usable=False, reason=REFUSES)
        known = (reason for word, reason in _NO_TOKEN.items() if word in words)
        reason = next(known, "sso-unavailable")
        return PlatformHealth(state, platform, is_usable=reason == "token-awaited", reason=reason)
    return PlatformHealth(state, platform, is_usable=state != FAILING, reason=platform)


def _platform_state(evidence: HealthEvidence) -> tuple[str, str]:
    own = evidence.probe if evidence.probed_at > evidence.last_success_at else ""
    if own in _FAULTS:
        return FAILING, own
    if evidence.circuit == CircuitState.OPEN:
        return FAILING, "circuit-open"
    counts = _relevant_counts(evidence, own)
    total = sum(counts.values())
    if total >= _SOME and _failure_count(counts) >= _NEARLY_ALL * total:
        if _proves_failure(evidence, counts, own):
            return FAILING, _main_fault(counts)
        return DOUBTFUL, "many-errors" if _hard(counts) * 2 > total else "many-refusals"
    if evidence.circuit == CircuitState.HALF_OPEN:
        return DOUBTFUL, "circuit-half-open"
    return (ANSWERS, ANSWERS) if evidence.has_succeeded else (UNTRIED, UNTRIED)


def _relevant_counts(evidence: HealthEvidence, own: str) -> Mapping[str, int]:
    """The callers' answers that count: of the last minute, or since the last good one."""
    counts = evidence.last_minute
    settled = evidence.now - evidence.bad_since >= _SETTLED
    since_good = sum(evidence.since_good.values())
    if sum(counts.values()) < _ENOUGH or (settled and since_good >= _ENOUGH):
        counts = evidence.since_good
    if own == ANSWERS and evidence.probed_at > evidence.last_request_at:
        # It is back; whose mistake the others were is still not known.
        counts = {found: count for found, count in counts.items() if found not in _HARD}
    return counts


def _proves_failure(evidence: HealthEvidence, counts: Mapping[str, int], own: str) -> bool:
    """Whether the callers' answers prove by themselves that the platform fails."""
    total = sum(counts.values())
    if total >= _ENOUGH and _hard(counts) >= _NEARLY_ALL * total:
        return True
    faults = sum(counts.get(found, 0) for found in _FAULTS)
    if faults < _NEARLY_ALL * total:
        return False
    if not own and not evidence.has_succeeded:
        return total >= _ENOUGH
    lasted = evidence.now - evidence.bad_since
    return total >= _MANY and evidence.kinds >= MAX_REQUEST_KINDS and lasted >= _LASTING


def needs_probe(evidence: HealthEvidence, pause: float) -> bool:
    """Whether to ask the platform although callers do: they have had no good answer for `pause`.

    What is over sooner, in seconds, is not worth a question.
    """
    if evidence.circuit == CircuitState.HALF_OPEN:
        return True
    in_doubt = evaluate_health(evidence).state in (DOUBTFUL, FAILING)
    return in_doubt and evidence.now - evidence.bad_since >= pause


def merge_evidence(evidences: Iterable[HealthEvidence]) -> HealthEvidence:
    """The evidence of several workers as that of one gateway."""
    found = list(evidences)
    if not found:
        return HealthEvidence()
    good_at = max(each.last_success_at for each in found)
    # What one met before another got a good answer tells of a time that is over.
    bad = [each for each in found if each.since_good and each.bad_since > good_at]
    newest = max(found, key=lambda each: each.probed_at)
    return HealthEvidence(
        last_minute=_sum(each.last_minute for each in found),
        since_good=_sum(each.since_good for each in bad),
        kinds=max((each.kinds for each in bad), default=0),
        bad_since=min((each.bad_since for each in bad), default=math.inf),
        last_success_at=good_at,
        last_request_at=max(each.last_request_at for each in found),
        has_succeeded=any(each.has_succeeded for each in found),
        probe=newest.probe,
        probed_at=newest.probed_at,
        is_probe_enabled=any(each.is_probe_enabled for each in found),
        circuit=min(each.circuit for each in found),
        tokens=_best_token_status(each.tokens for each in found),
        credential=next((each.credential for each in (newest, *bad) if each.credential), ""),
        now=max(each.now for each in found),
    )


def _token_status(state: TokenState) -> str:
    if state.is_valid:
        return "rejected" if state.is_rejected else "valid"
    return state.failure or "awaited"


def _failure_count(counts: Mapping[str, int]) -> int:
    return sum(counts.values()) - counts.get(ANSWERS, 0)


def _hard(counts: Mapping[str, int]) -> int:
    return sum(counts.get(found, 0) for found in _HARD)


def _main_fault(counts: Mapping[str, int]) -> str:
    """The fault that was met most often; of several the gravest."""
    return max(FAULTS, key=lambda found: counts.get(found, 0))


def _sum(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for found, count in part.items():
            total[found] = total.get(found, 0) + count
    return total


def _best_token_status(parts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """A token that one of them has can serve."""
    best: dict[str, str] = {}
    for part in parts:
        for name, word in part.items():
            if best.get(name) != "valid":
                best[name] = word
    return best
