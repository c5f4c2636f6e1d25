"""The facts behind `/status` and `/status.json`: can care go on, and if not, who does what.

Everything is asked of collaborators anew for every report. No secret, request id, address of a
patient or query is among the facts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from gateway import __version__
from gateway.admin.status_words import WORDS
from gateway.admin.traffic import PLATFORM_ERROR, Traffic
from gateway.config import Settings
from gateway.fhir.negotiation import choose_language
from gateway.fhir.texts import LANGUAGES, text
from gateway.oauth.tokens import TokenState
from gateway.proxy.circuit import CircuitState
from gateway.telemetry.timestamp import Timestamp

# Below so many requests a share of errors says nothing.
_ENOUGH: Final = 10
_MANY: Final = 0.5

_CIRCUIT: Final = {
    CircuitState.CLOSED: "closed",
    CircuitState.HALF_OPEN: "half-open",
    CircuitState.OPEN: "open",
}
# What is shown of the settings: none of them can hold a secret, but for the user information of a
# URL, which is left out.
_SHOWN: Final = (
    "environment",
    "listen.address",
    "listen.base_path",
    "listen.public_url",
    "admin.address",
    "platform.fhir_base_url",
    "platform.proxy_url",
    "platform.compression",
    "platform.max_connections",
    "platform.response_timeout",
    "sso.token_url",
    "sso.proxy_url",
    "sso.timeout",
    "limits.max_body_bytes",
    "limits.max_concurrent_requests",
    "retries.max_attempts",
    "circuit_breaker.open_for",
    "rewrite.enabled",
    "fhir.search_guard",
    "fhir.auto_if_match",
    "fhir.default_language",
    "audit.sink",
    "audit.on_failure",
    "audit.fhir_audit_events",
    "log.level",
    "login.enabled",
    "outbox.enabled",
    "shutdown.delay",
    "shutdown.drain_timeout",
    "workers",
)
_URLS: Final = frozenset(key for key in _SHOWN if key.endswith("_url"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Whom the facts are asked of, each time anew."""

    settings: Callable[[], Settings]
    tokens: Callable[[], Mapping[str, TokenState]]
    circuit: Callable[[], CircuitState]
    connections: Callable[[], Mapping[str, int]]
    inflight: Callable[[], int]
    audit_available: Callable[[], bool]
    draining: Callable[[], bool]


class Status:
    """What people on duty want to know."""

    def __init__(
        self,
        sources: Sources,
        traffic: Traffic,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._sources = sources
        self._traffic = traffic
        self._clock = clock
        self._wall_clock = wall_clock
        self._began = clock()

    def language(self, asked: str | None, accept_language: str | None) -> str:
        """One of `LANGUAGES`: the one that is asked for, else the best for the reader."""
        if asked in LANGUAGES:
            return asked
        return choose_language(accept_language, self._sources.settings().fhir.default_language)

    def facts(self, language: str) -> dict[str, Any]:
        """All facts as plain data, with sentences in a language."""
        sources, settings = self._sources, self._sources.settings()
        tokens = sources.tokens()
        now, iso = self._wall_clock(), Timestamp().iso
        traffic = self._traffic.facts()
        for error in traffic["errors"]:
            error["text"] = _text(error["reason"], language)
        uptime = self._clock() - self._began
        return {
            "care": self._care(tokens, language),
            "at": iso(now),
            "language": language,
            "version": __version__,
            "started_at": iso(now - uptime),
            "uptime_seconds": round(uptime),
            "tokens": {name: _token(state) for name, state in tokens.items()},
            "platform": {
                "url": _bare_url(settings.platform.fhir_base_url),
                "circuit": _CIRCUIT[sources.circuit()],
                "connections": dict(sources.connections()),
            },
            "sso": {"url": _bare_url(settings.sso.token_url), "failure": _worst(tokens)},
            "inflight": sources.inflight(),
            **traffic,
            "settings": shown(settings),
        }

    def _care(self, tokens: Mapping[str, TokenState], language: str) -> dict[str, str]:
        answer, reason = self._verdict(tokens)
        return {"answer": answer, "reason": reason, "text": WORDS[language][f"care:{reason}"]}

    def _verdict(self, tokens: Mapping[str, TokenState]) -> tuple[str, str]:
        """`yes`, `degraded` or `no`, with the reason that weighs most."""
        sources = self._sources
        circuit = sources.circuit()
        usable = [state.valid and not state.rejected for state in tokens.values()]
        if sources.draining():
            return "no", "shutting-down"
        if not sources.audit_available():
            return "no", "audit-unavailable"
        if tokens and not all(usable):
            return ("degraded" if any(usable) else "no"), _token_reason(tokens)
        if circuit is CircuitState.OPEN:
            return "no", "circuit-open"
        if circuit is CircuitState.HALF_OPEN:
            return "degraded", "circuit-half-open"
        if _worst(tokens) is not None:
            return "degraded", "renewal-fails"
        requests, errors = self._traffic.recent()
        if requests >= _ENOUGH and errors >= _MANY * requests:
            return "degraded", "many-errors"
        return "yes", "fine"


def shown(settings: Settings) -> dict[str, Any]:
    """The settings that may be seen, by key."""
    found: dict[str, Any] = {}
    for key in _SHOWN:
        value: Any = settings
        for name in key.split("."):
            value = getattr(value, name)
        if value is not None and key in _URLS:
            value = _bare_url(str(value))
        found[key] = value if value is None or isinstance(value, bool | int | float) else str(value)
    found["credentials"] = ", ".join(settings.credentials)
    found["callers"] = len(settings.callers)
    return found


def _bare_url(url: str) -> str:
    """Scheme, host, port and path; what else a URL may hold is nobody's business."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _token(state: TokenState) -> dict[str, Any]:
    return {
        "valid": state.valid,
        "expires_in": _rounded(state.expires_in),
        "rejected": state.rejected,
        "fetching": state.fetching,
        "failure": state.failure,
        "cause": state.cause,
        "next_attempt_in": _rounded(state.next_attempt_in),
    }


def _rounded(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)


def _worst(tokens: Mapping[str, TokenState]) -> str | None:
    """The failure of the SSO that needs somebody most, among those of last attempts."""
    failures = {state.failure for state in tokens.values()}
    return next((kind for kind in ("refused", "throttled", "transient") if kind in failures), None)


def _token_reason(tokens: Mapping[str, TokenState]) -> str:
    if any(state.rejected for state in tokens.values()):
        return "token-rejected"
    lacking = {name: state for name, state in tokens.items() if not state.valid}
    failure = _worst(lacking)
    if failure is None:
        return "token-awaited"
    return "token-refused" if failure == "refused" else "sso-unavailable"


def _text(reason: str, language: str) -> str:
    if reason == PLATFORM_ERROR:
        return WORDS[language][PLATFORM_ERROR]
    return text(reason, language)
