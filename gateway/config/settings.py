"""The complete settings, and the values that each `environment` fills in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from gateway.config.inbound_settings import (
    AdminSettings,
    CallerSettings,
    LimitsSettings,
    ListenSettings,
)
from gateway.config.operations_settings import (
    AlertsSettings,
    AuditSettings,
    LoginSettings,
    LogSettings,
    OutboxSettings,
    ShutdownSettings,
    StoreSettings,
    TracingSettings,
)
from gateway.config.outbound_settings import (
    CircuitBreakerSettings,
    CredentialSettings,
    FhirSettings,
    PlatformSettings,
    RetriesSettings,
    RewriteSettings,
    SsoSettings,
)
from gateway.config.section import (
    SecretRef,
    Section,
    find_in_right_part,
)
from gateway.config.value_types import Name

Environment = Literal["dhp-playground", "dhp-production", "custom", "playground", "production"]

_MEDCORE_SSO: Final = {
    "token_url": "https://sso.medcore.uz/oauth/token",
    "authorize_url": "https://sso.medcore.uz",
}
# Guide 0.7.0 says that these parameters of the current platform "return results unfiltered".
_UNFILTERED: Final = {
    "unfiltered": {
        "AdverseEvent": ["date"],
        "Condition": ["onset-date"],
        "Immunization": ["date"],
        "Observation": ["date"],
        "Organization": ["partof"],
        "PlanDefinition": ["date", "context-type-value"],
        "Practitioner": ["qualification-code"],
        "Procedure": ["date", "status"],
        "Specimen": ["collected"],
    }
}
# The platform's names by version of the national guide: 0.2.0 and newer, and 0.1.0. Each has an SSO
# of its own, which rejects the clients of the others.
PRESETS: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "dhp-playground": {
        "platform": {"fhir_base_url": "https://playground.dhp.uz/fhir"},
        "sso": {
            "token_url": "https://playground.dhp.uz/sso/oauth/token",
            "authorize_url": "https://playground.dhp.uz/sso",
        },
        "fhir": _UNFILTERED,
    },
    "dhp-production": {
        "platform": {"fhir_base_url": "https://fhir.dhp.uz"},
        "sso": {
            "token_url": "https://sso.dhp.uz/oauth/token",
            "authorize_url": "https://sso.dhp.uz",
        },
        "fhir": _UNFILTERED,
    },
    "playground": {
        "platform": {"fhir_base_url": "https://playground.medcore.uz/fhir"},
        "sso": _MEDCORE_SSO,
    },
    "production": {"platform": {"fhir_base_url": "https://fhir.medcore.uz"}, "sso": _MEDCORE_SSO},
    "custom": {"platform": {}, "sso": {}},
}
# There is no default address: a secret is sent only to an address that the operator chose.
_DEFAULT_ENVIRONMENT: Final = "custom"


class Settings(Section):
    """All settings of the gateway.

    Frozen. Made by `load_settings` of `gateway.config.loader`, which also applies the rules between
    keys.
    """

    environment: Environment = Field(
        default=_DEFAULT_ENVIRONMENT,
        description="The DHP platform to use. It sets the URLs of `platform` and `sso`, and "
        "`fhir.unfiltered`, unless they are given. With `custom`, `platform.fhir_base_url` and "
        "`sso.token_url` are required.",
    )
    listen: ListenSettings = Field(
        default_factory=ListenSettings, description="Where callers reach the gateway."
    )
    admin: AdminSettings = Field(
        default_factory=AdminSettings, description="Where operators reach the gateway."
    )
    platform: PlatformSettings = Field(
        description="The FHIR server that requests are forwarded to."
    )
    sso: SsoSettings = Field(description="The OAuth 2.0 server that issues the tokens.")
    credentials: dict[Name, CredentialSettings] = Field(
        default_factory=dict,
        description="The clients registered with the SSO, by a name of your choice; `default` is "
        "used if a caller names none. At least one.",
    )
    callers: tuple[CallerSettings, ...] = Field(
        default=(),
        description="The systems that may call. Empty: every system that reaches the listener, "
        "which must then be loopback or a unix socket.",
    )
    limits: LimitsSettings = Field(
        default_factory=LimitsSettings, description="What one request may take."
    )
    retries: RetriesSettings = Field(
        default_factory=RetriesSettings,
        description="Second attempts where the platform cannot have acted.",
    )
    circuit_breaker: CircuitBreakerSettings = Field(
        default_factory=CircuitBreakerSettings,
        description="When the gateway pauses requests to a failing platform.",
    )
    rewrite: RewriteSettings = Field(
        default_factory=RewriteSettings, description="Platform URLs become gateway URLs."
    )
    fhir: FhirSettings = Field(
        default_factory=FhirSettings, description="How the gateway treats FHIR itself."
    )
    audit: AuditSettings = Field(default_factory=AuditSettings, description="The audit trail.")
    log: LogSettings = Field(default_factory=LogSettings, description="The log, on stderr.")
    store: StoreSettings = Field(
        default_factory=StoreSettings, description="Where tokens and sessions are stored."
    )
    login: LoginSettings = Field(
        default_factory=LoginSettings, description="Sign-in with a browser."
    )
    outbox: OutboxSettings = Field(
        default_factory=OutboxSettings, description="Durable store-and-forward of writes."
    )
    alerts: AlertsSettings = Field(
        default_factory=AlertsSettings, description="Messages to people about what is wrong."
    )
    tracing: TracingSettings = Field(
        default_factory=TracingSettings, description="Spans for OpenTelemetry."
    )
    shutdown: ShutdownSettings = Field(
        default_factory=ShutdownSettings, description="Shutdown, after SIGTERM."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_environment(cls, data: Any) -> Any:
        return fill_in_environment(data) if isinstance(data, dict) else data

    def secret_refs(self) -> tuple[SecretRef, ...]:
        """Return all secrets that are given, with their keys."""
        return tuple(ref for ref in find_in_right_part(_SECRETS, self) if ref.is_given)


def _of_each(
    secrets: Callable[[Any, Any], Iterable[SecretRef]], entries: Iterable[tuple[Any, Any]]
) -> Iterator[SecretRef]:
    for key, entry in entries:
        yield from find_in_right_part((partial(secrets, entry),), key)


_SECRETS: Final[tuple[Callable[[Settings], Iterable[SecretRef]], ...]] = (
    lambda settings: _of_each(
        lambda entry, name: (entry.secret_ref(name),), settings.credentials.items()
    ),
    lambda settings: (settings.store.encryption_key_ref(),),
    lambda settings: (settings.login.secret_ref(),),
    lambda settings: (settings.tracing.secret_ref(),),
    lambda settings: (settings.outbox.encryption_key_ref(),),
    lambda settings: settings.alerts.address_refs(),
    lambda settings: _of_each(CallerSettings.secret_refs, enumerate(settings.callers)),
    lambda settings: _of_each(
        lambda entry, index: (entry.secret_ref(index),), enumerate(settings.admin.operators)
    ),
)


def fill_in_environment(data: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of raw settings, filled in by `environment` where no value is given."""
    name = data.get("environment", _DEFAULT_ENVIRONMENT)
    preset = PRESETS.get(name if isinstance(name, str) else "", PRESETS[_DEFAULT_ENVIRONMENT])
    filled = dict(data)
    for section, implied in preset.items():
        section_values = {} if data.get(section) is None else data[section]
        if isinstance(section_values, dict):
            stated = {
                key: value
                for key, value in section_values.items()
                if value is not None or key not in implied
            }
            filled[section] = {**implied, **stated}
    return filled
