"""The facts behind `/status` and `/status.json`: whether care can go on, and if not, what to do.

All facts are collected anew for every report. They contain no secret, request id, address of a
patient or query. The settings in force are among them, with secrets masked. A value whose type is
not listed here is masked too, so that a new kind of setting reveals nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from gateway import __version__
from gateway.clock import TimestampFormatter
from gateway.config.outbound_settings import PlatformSettings
from gateway.config.problems import SettingPath, dotted
from gateway.config.section import Section
from gateway.config.setting_urls import DatabaseLocation, StoreLocation
from gateway.config.settings import Settings
from gateway.config.value_types import ListenAddress, PublicText
from gateway.guidance import COMPONENT_GUIDANCE
from gateway.health.evidence import REFUSES, CircuitState
from gateway.health.health import (
    CARE_ANSWERS,
    Component,
    ComponentState,
    Health,
    TokenState,
    advice,
    worst,
)
from gateway.i18n import LANGUAGES, choose_language
from gateway.secret import MASK

if TYPE_CHECKING:
    from gateway.telemetry.request_counters import UnforwardedField

# Parameters of token requests can hold anything, secrets included.
_UNKNOWN: Final = frozenset({"extra_params"})
_LOCATIONS: Final = (StoreLocation, DatabaseLocation)
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s,]+")
_PLAIN: Final = (str, Path, ListenAddress, Enum, IPv4Network, IPv6Network)

VisibleSetting = str | int | float | bool


def visible_settings(settings: Settings) -> dict[str, VisibleSetting]:
    """Return every key that has a value, as `check` writes it, with the value or a mask."""
    return dict(_visible((), settings))


def url_without_secrets(url: str) -> str:
    """Return scheme, host, port and path of a URL; its other parts may hold secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _visible(setting: SettingPath, value: Any) -> Iterator[tuple[str, VisibleSetting]]:
    inner: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, Section):
        inner = value
    elif isinstance(value, Mapping):
        if setting[-1] not in _UNKNOWN:
            inner = value.items()
        elif value:
            yield dotted(setting), MASK
    elif not isinstance(value, list | tuple | set | frozenset):
        if value is not None:
            yield dotted(setting), _text(value)
    elif any(isinstance(item, Section) for item in value):
        inner = enumerate(value)
    elif value:
        yield dotted(setting), ", ".join(str(_text(item)) for item in value)
    for name, below in inner:
        yield from _visible((*setting, name), below)


def _text(value: Any) -> VisibleSetting:
    """Return a value with secrets masked. In every text but a `PublicText`, URLs are shortened."""
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, PublicText):
        return str(value)
    if not isinstance(value, _PLAIN):
        # `_LOCATIONS` mask their passwords themselves (`__str__`).
        text = str(value) if isinstance(value, _LOCATIONS) else MASK
    else:
        text = str(value.value) if isinstance(value, Enum) else str(value)
    return _URL.sub(lambda url: url_without_secrets(url[0]), text)


_CIRCUIT: Final = {
    CircuitState.CLOSED: "closed",
    CircuitState.HALF_OPEN: "half-open",
    CircuitState.OPEN: "open",
}
# The platform's state in `/status.json`.
_PLATFORM_STATES: Final[dict[ComponentState, str]] = {
    "ok": "answers",
    "untried": "untried",
    "degraded": "doubtful",
    "failed": "fails",
}


class StatusReporter:
    """The status facts for operators; the callables are called anew for every report.

    `audit_dropped`: number of lost audit records. `unforwarded_fields`: fields that were not sent
    to the platform, by caller and name in lower case.
    """

    def __init__(
        self,
        *,
        settings: Callable[[], Settings],
        health: Health,
        connections: Callable[[], Mapping[str, int]],
        inflight: Callable[[], int],
        audit_dropped: Callable[[], int],
        unforwarded_fields: Callable[[], Mapping[str, Mapping[bytes, UnforwardedField]]] = dict,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._health = health
        self._connections = connections
        self._inflight = inflight
        self._audit_dropped = audit_dropped
        self._unforwarded_fields = unforwarded_fields
        self._clock = clock
        self._wall_clock = wall_clock
        self._started_at = clock()
        # The settings of the last report, and what is shown of them.
        self._shown_settings: tuple[Settings, dict[str, VisibleSetting]] | None = None

    def language(self, requested: str | None, accept_language: str | None) -> str:
        """Return `requested` if it is one of `LANGUAGES`, else the best for `Accept-Language`."""
        if requested in LANGUAGES:
            return requested
        return choose_language(accept_language, self._settings().fhir.default_language)

    def facts(self, language: str) -> dict[str, Any]:
        """Return all facts as plain data, with texts in `language`."""
        settings, health = self._settings(), self._health
        tokens, outbox = health.tokens(), health.outbox()
        requests = health.recent_requests.facts()
        errors = requests.pop("errors")
        components = health.components()
        [platform] = (each for each in components if each.name == "platform")
        return {
            "care": _care(worst(components), language),
            "language": language,
            "contact": settings.admin.contact,
            "runbook_url": settings.admin.runbook_url,
            **self._instance_facts(settings),
            "tokens": {name: _token(state) for name, state in tokens.items()},
            "platform": self._platform_facts(settings, platform),
            "sso": {
                "url": url_without_secrets(settings.sso.token_url),
                "failure": _worst_failure(tokens),
            },
            "outbox": None if outbox is None else dict(outbox),
            "audit": {
                "available": health.is_audit_available(),
                "dropped": self._audit_dropped(),
            },
            "inflight": self._inflight(),
            "fields_not_forwarded": self._unforwarded_facts(settings.platform),
            **requests,
            "errors": [{**error, **_reason_texts(error["reason"], language)} for error in errors],
        }

    def _instance_facts(self, settings: Settings) -> dict[str, Any]:
        uptime, now = self._clock() - self._started_at, self._wall_clock()
        iso = TimestampFormatter().format
        return {
            "at": iso(now),
            "version": __version__,
            "started_at": iso(now - uptime),
            "uptime_seconds": round(uptime),
            "settings": self._visible_settings(settings),
        }

    def _visible_settings(self, settings: Settings) -> dict[str, VisibleSetting]:
        if self._shown_settings is None or self._shown_settings[0] is not settings:
            self._shown_settings = settings, visible_settings(settings)
        return self._shown_settings[1]

    def _unforwarded_facts(self, platform: PlatformSettings) -> list[dict[str, Any]]:
        """Return what is not forwarded with the present settings, the most frequent first."""
        names, prefixes = platform.forwarded_fields
        found = [
            {
                "caller": caller,
                "name": field.name,
                "requests": field.requests,
                "setting": field.setting,
            }
            for caller, fields in self._unforwarded_fields().items()
            for key, field in fields.items()
            if key not in names and not key.startswith(prefixes)
        ]
        return sorted(found, key=lambda field: field["requests"], reverse=True)

    def _platform_facts(self, settings: Settings, platform: Component) -> dict[str, Any]:
        judgement, iso = self._health.platform(), TimestampFormatter().format
        probed_at = self._wall_clock() - (self._clock() - judgement.probed_at)
        return {
            "url": url_without_secrets(settings.platform.fhir_base_url),
            "circuit": _CIRCUIT[judgement.state],
            "connections": dict(self._connections()),
            "state": _PLATFORM_STATES[platform.state],
            "reason": platform.reason,
            "since": iso(platform.since),
            "probe": {"found": judgement.probe_signal, "at": iso(probed_at)}
            if judgement.probe_signal
            else None,
        }


def _care(component: Component, language: str) -> dict[str, str]:
    """Return whether care can go on, by the worst component, and what to do if not."""
    named = {"credential": component.about} if component.reason == REFUSES else {}
    return {
        "answer": CARE_ANSWERS[component.state],
        "reason": component.reason,
        **named,
        "text": advice(component, language),
    }


def _token(state: TokenState) -> dict[str, Any]:
    return {
        "valid": state.is_valid,
        "expires_in": _rounded(state.expires_in),
        "rejected": state.is_rejected,
        "spare_secret": state.uses_previous_secret,
        "fetching": state.is_fetching,
        "failure": state.failure,
        "cause": state.cause,
        "status": state.status,
        "oauth_error": state.oauth_error,
        "oauth_description": state.description or None,
        "next_attempt_in": _rounded(state.next_attempt_in),
    }


def _rounded(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)


def _worst_failure(tokens: Mapping[str, TokenState]) -> str | None:
    """Return the most urgent failure among the last attempts of all credentials, or None."""
    failures = {state.failure for state in tokens.values()}
    return next((kind for kind in ("refused", "throttled", "transient") if kind in failures), None)


def _reason_texts(reason: str, language: str) -> dict[str, str]:
    """Return what a reason means, and what operators do about it."""
    guidance = COMPONENT_GUIDANCE[reason]
    return {
        "text": guidance.meaning.in_language(language),
        "remedy": guidance.remedy.in_language(language),
    }
