"""The settings: YAML and environment variables, checked completely before anything opens.

`load_settings` returns frozen `Settings` or raises `SettingsError` with every problem at once. No
other package of the gateway reads the environment.
"""

from gateway.config.admin_address import load_admin_address
from gateway.config.database_url import DatabaseLocation
from gateway.config.inbound import (
    AdminSettings,
    AllowSettings,
    BasicAuthSettings,
    CallerSettings,
    LimitsSettings,
    ListenSettings,
    ListenTlsSettings,
    RateLimitSettings,
)
from gateway.config.loader import load_settings
from gateway.config.named_files import named_files
from gateway.config.operations import (
    AuditSettings,
    LoginSettings,
    LogSettings,
    OutboxSettings,
    ShutdownSettings,
    StoreSettings,
    TracingSettings,
)
from gateway.config.outbound import (
    CircuitBreakerSettings,
    CredentialSettings,
    FhirSettings,
    PlatformSettings,
    RetriesSettings,
    RewriteSettings,
    SsoSettings,
)
from gateway.config.problems import Problem
from gateway.config.secret_files import SecretReadError, SecretSource
from gateway.config.settings import Settings
from gateway.config.settings_error import SettingsError
from gateway.config.source import SettingsSource
from gateway.config.store_url import StoreLocation
from gateway.config.values import ListenAddress

__all__ = [
    "AdminSettings",
    "AllowSettings",
    "AuditSettings",
    "BasicAuthSettings",
    "CallerSettings",
    "CircuitBreakerSettings",
    "CredentialSettings",
    "DatabaseLocation",
    "FhirSettings",
    "LimitsSettings",
    "ListenAddress",
    "ListenSettings",
    "ListenTlsSettings",
    "LogSettings",
    "LoginSettings",
    "OutboxSettings",
    "PlatformSettings",
    "Problem",
    "RateLimitSettings",
    "RetriesSettings",
    "RewriteSettings",
    "SecretReadError",
    "SecretSource",
    "Settings",
    "SettingsError",
    "SettingsSource",
    "ShutdownSettings",
    "SsoSettings",
    "StoreLocation",
    "StoreSettings",
    "TracingSettings",
    "load_admin_address",
    "load_settings",
    "named_files",
]
