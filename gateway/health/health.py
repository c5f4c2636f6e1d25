"""The gateway's health, judged once for all readers.

The gateway is a list of `Component`s, each with its state and the reason for it. `/readyz`, the
status page and `/status.json`, `dhp_gateway_platform_usable`, alerts and `doctor` take components;
none of them judges by itself. `worst` returns the one that says whether care can go on: where that
one has failed, no request can succeed, and all of them say so. What a reason means and what
operators do about it is in `gateway.guidance`; `advice` returns it as one text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from gateway.guidance import COMPONENT_GUIDANCE
from gateway.health.evidence import REFUSES, CircuitState
from gateway.health.recent_requests import RecentRequests, many_errors
from gateway.i18n import Message
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.health.platform_judgement import PlatformJudgement

_log = get_logger(__name__)

ComponentName = Literal["process", "audit", "token", "circuit", "platform", "outbox"]
ComponentState = Literal["ok", "untried", "degraded", "failed"]


@dataclass(frozen=True, slots=True)
class Component:
    """The state of one part of the gateway.

    `untried`: nothing is known yet; `degraded`: requests can succeed, with limits or not of all
    callers; `failed`: none can. `reason` is a key of `gateway.guidance.COMPONENT_GUIDANCE`, or one
    for which nothing has to be done. `since`: when state or reason
    last changed (Unix time). `about`: the credential concerned, "" for none.
    """

    name: ComponentName
    state: ComponentState
    reason: str
    since: float = 0.0
    about: str = ""


@dataclass(frozen=True, slots=True)
class TokenState:
    """The state of one credential, for readiness and the status page; times in seconds from now.

    `failure` (its kind), `cause`, `status`, `oauth_error` and `description` are those of the last
    attempt's `gateway.oauth.token_response.TokenRequestError`, None or "" if it succeeded.
    `next_attempt_in`: seconds until the next token request, None while one is in progress
    (`is_fetching`). `is_rejected`: the platform rejects fresh tokens. `uses_previous_secret`: the
    SSO refuses the first client secret.
    """

    is_valid: bool
    expires_in: float | None
    failure: str | None
    cause: str | None
    status: int | None
    oauth_error: str | None
    next_attempt_in: float | None
    is_fetching: bool
    is_rejected: bool
    uses_previous_secret: bool = False
    description: str = ""


_FINE: Final = "fine"
_AWAITED: Final = "token-awaited"
_REFUSED: Final = "token-refused"
_SSO_FAILS: Final = "sso-unavailable"

# The order in which `worst` selects. What stops requests in the gateway comes first: they do not
# reach the platform.
_WORST_FIRST: Final = (
    ("process", "failed"),
    ("audit", "failed"),
    ("token", "failed"),
    ("platform", "failed"),
    ("circuit", "failed"),
    ("platform", "degraded"),
    ("token", "degraded"),
    ("audit", "degraded"),
    ("outbox", "degraded"),
    ("process", "degraded"),
    ("platform", "untried"),
)
# Reasons of a credential without a token that the platform accepts.
_LACKING: Final = frozenset((REFUSES, _REFUSED, _SSO_FAILS, _AWAITED))
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


CARE_QUESTION: Final = Message("Can work continue?")
# The answer in `/status.json`, and its word.
CARE_ANSWERS: Final[dict[ComponentState, str]] = {
    "ok": "yes",
    "untried": "untried",
    "degraded": "degraded",
    "failed": "no",
}
ANSWER_WORDS: Final = {
    "yes": Message("Yes"),
    "untried": Message("Not tried yet"),
    "degraded": Message("With limits"),
    "no": Message("No"),
}


def advice(component: Component, language: str) -> str:
    """Return what the reason of a component means and what operators do about it."""
    guidance = COMPONENT_GUIDANCE[component.reason]
    texts = (each.in_language(language) for each in (guidance.meaning, guidance.remedy))
    return " ".join(filter(None, texts)).replace("{credential}", component.about)


def worst(components: Sequence[Component]) -> Component:
    """Return the component that limits the gateway most; one that is `ok` if all are."""
    return min(components, key=_rank)


def _rank(component: Component) -> tuple[int, int]:
    """Return the place of a component in the order of `_WORST_FIRST` and `_TOKEN_REASONS`."""
    kind = (component.name, component.state)
    place = _WORST_FIRST.index(kind) if kind in _WORST_FIRST else len(_WORST_FIRST)
    return place, _TOKEN_REASONS.index(component.reason) if component.name == "token" else 0


def usability(components: Sequence[Component]) -> tuple[bool, str]:
    """Return whether requests can succeed as far as is known, and the reason of the component."""
    limit = worst(components)
    if limit.state == "failed":
        return False, limit.reason
    [platform] = (each for each in components if each.name == "platform")
    return True, platform.reason


# Names of credentials in the body of `/readyz`, and characters of each.
_MAX_NAMES: Final = 20
_MAX_NAME_LENGTH: Final = 80
_CHECKS: Final = ("token", "circuit", "platform", "audit", "shutdown")


def readiness(components: Sequence[Component]) -> tuple[bool, dict[str, Any]]:
    """Return whether the gateway is ready, and the body of `/readyz`, which names what fails.

    `failing`: what keeps all requests from success. `degraded`: what concerns some callers only, or
    only the outbox.
    """
    failing = list(dict.fromkeys(_failing_checks(components)))
    named = {check.partition(":")[0] for check in failing}
    return not failing, {
        "ready": not failing,
        "failing": failing,
        "checks": {check: "failed" if check in named else "ok" for check in _CHECKS},
        "degraded": _degraded(components),
    }


def _failing_checks(components: Sequence[Component]) -> Iterator[str]:
    failed = [each for each in components if each.state == "failed"]
    for token in [each for each in failed if each.name == "token"][:_MAX_NAMES]:
        # A token that the platform refuses is there.
        is_there = token.reason == REFUSES
        yield "platform" if is_there else f"token:{token.about[:_MAX_NAME_LENGTH]}"
    for each in failed:
        if each.name != "token":
            yield "shutdown" if each.name == "process" else each.name


def _degraded(components: Sequence[Component]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    lacking = [
        each.about for each in components if each.name == "token" and each.reason in _LACKING
    ]
    if lacking:
        names = [name[:_MAX_NAME_LENGTH] for name in lacking[:_MAX_NAMES]]
        found["credentials"] = {"count": len(lacking), "names": names}
    for each in components:
        if each.name == "outbox" and each.state == "degraded" and each.reason != "outbox-person":
            found["outbox"] = each.reason
    return found


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
    """Return the component of the circuit breaker, which admits requests only while it is closed.

    Where it has failed, so has the platform, whose reason says why.
    """
    if circuit == CircuitState.CLOSED:
        return Component("circuit", "ok", _FINE)
    return Component("circuit", "failed", "circuit-open")


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


_CHECK_INTERVAL: Final = 1.0


class Health:
    """The components of this gateway; the callables are called anew for every list.

    `tokens` returns the state of every credential, `credentials_in_use` the credentials that
    callers use; another one is the audit's. `outbox` returns None where it is not enabled.
    """

    def __init__(
        self,
        *,
        platform: Callable[[], PlatformJudgement],
        tokens: Callable[[], Mapping[str, TokenState]],
        credentials_in_use: Callable[[], Collection[str]],
        is_audit_available: Callable[[], bool],
        is_draining: Callable[[], bool],
        outbox: Callable[[], OutboxReport | None],
        recent_requests: RecentRequests,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.platform = platform
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
        judgement, outbox = self.platform(), self.outbox()
        tokens, audit = self._judge_tokens()
        state, reason = judgement.verdict()
        refused = judgement.refused_credential or (tokens[0].about if tokens else "")
        platform = Component("platform", state, reason, about=refused if reason == REFUSES else "")
        found = [
            *tokens,
            judge_circuit(judgement.state),
            platform,
            *audit,
            self._judge_process(judgement, platform),
        ]
        if outbox is not None:
            found.append(judge_outbox(outbox, is_platform_failing=state == "failed"))
        return [self._dated(each) for each in found]

    async def run(self) -> None:
        """Judge, and probe the platform if that is due, once a second, until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_INTERVAL)
            try:
                # `Component.since` is only accurate if the components are judged regularly.
                self.components()
                await self.platform().probe_if_due()
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
        in_use = frozenset(self._credentials_in_use())
        for name, state in self.tokens().items():
            token = judge_token(name, state)
            if name in in_use:
                tokens.append(token)
            elif token.state != "ok":
                # Records are still written; they do not reach the audit's repository.
                audit.append(replace(token, name="audit", state="degraded"))
        if any(token.state != "failed" for token in tokens):
            # A credential without a token concerns its own callers only.
            tokens = [
                replace(token, state="degraded") if token.state == "failed" else token
                for token in tokens
            ]
        return tokens, audit

    def _judge_process(self, judgement: PlatformJudgement, platform: Component) -> Component:
        if self._is_draining():
            return Component("process", "failed", "shutting-down")
        has_recovered = judgement.answers_probe and platform.state == "ok"
        if not has_recovered and many_errors(*self.recent_requests.latest()):
            return Component("process", "degraded", "many-errors")
        return Component("process", "ok", _FINE)

    def _dated(self, component: Component) -> Component:
        """Return the component with the time since which it has had its state and reason."""
        # A platform that refuses another credential than before has not changed.
        key = component.name, "" if component.name == "platform" else component.about
        last = self._last.get(key)
        if last is not None and (last.state, last.reason) == (component.state, component.reason):
            if last.about == component.about:
                return last
            dated = replace(component, since=last.since)
        else:
            dated = replace(component, since=self._wall_clock())
        self._last[key] = dated
        return dated
