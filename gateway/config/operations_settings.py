"""Settings of operation: audit, logs, stores, login, outbox, tracing, alerts, shutdown."""

from __future__ import annotations

from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, Strict

from gateway.config.section import SecretRef, Section
from gateway.config.setting_urls import (
    DEFAULT_DATABASE,
    BaseUrl,
    DatabaseUrl,
    EndpointUrl,
    Origin,
    StoreLocation,
    StoreUrl,
    SyslogUrl,
)
from gateway.config.value_types import (
    GIB,
    MIB,
    Count,
    FilePath,
    Flag,
    Name,
    PositiveSeconds,
    PositiveSize,
    Ratio,
    Seconds,
    SecretText,
    Text,
)
from gateway.field_values import is_loopback_host

# The path of spans at an OTLP/HTTP endpoint.
_TRACES_PATH: Final = "/v1/traces"


class AuditSettings(Section):
    """The audit trail: one record for each request."""

    sink: Literal["stdout", "file", "syslog", "off"] = Field(
        default="stdout",
        description="Where records go; `off`: nowhere, and nothing can be traced later.",
    )
    path: FilePath | None = Field(
        default=None,
        description="The audit file for `sink: file`: JSON lines, hash-chained, rotated; on a "
        "local disk, in a directory that the gateway may write to.",
    )
    rotate_bytes: PositiveSize = Field(
        default=64 * MIB, description="Size at which a new audit file begins."
    )
    fsync: Flag = Field(
        default=True,
        description="Whether a record in a file counts as written only when it is on the disk; "
        "false: when the operating system has it.",
    )
    syslog_url: SyslogUrl | None = Field(
        default=None,
        description="The server for `sink: syslog`: `udp://host:514`, `tcp://host:514` or "
        "`tls://host:6514`.",
    )
    syslog_ca_file: FilePath | None = Field(
        default=None,
        description="PEM file with the CAs for the syslog server's certificate; null: those of "
        "the operating system.",
    )
    syslog_client_cert_file: FilePath | None = Field(
        default=None, description="The gateway's certificate chain (PEM) for the syslog server."
    )
    syslog_client_key_file: FilePath | None = Field(
        default=None, description="The key of that certificate (PEM), without a passphrase."
    )
    on_failure: Literal["block", "drop"] = Field(
        default="block",
        description="A request whose record cannot be written gets 503 (`block`), or is forwarded "
        "and counted (`drop`).",
    )
    fhir_audit_events: Flag = Field(
        default=False, description="Whether each record is followed by a FHIR R5 AuditEvent."
    )
    fhir_profile: Literal["base", "uz-core"] = Field(
        default="base",
        description="The profile of AuditEvents: the base resource, or the platform's own profile "
        "if a user is signed in and the profile has the interaction.",
    )
    fhir_endpoint: BaseUrl | None = Field(
        default=None,
        description="Base URL of a FHIR R5 repository to which AuditEvents are sent in batches, "
        "instead of to `sink`; null: none.",
    )
    fhir_ca_file: FilePath | None = Field(
        default=None,
        description="PEM file with the CAs for the repository's certificate; null: those of the "
        "operating system.",
    )
    fhir_credential: Name | None = Field(
        default=None,
        description="The credential whose token the repository gets; it is used for nothing else "
        "unless a caller names it. null: no `Authorization`.",
    )


class LogSettings(Section):
    """The gateway's own log, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least serious entries that are written."
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto",
        description="`console`: text to read; `json`: JSON lines for programs; `auto`: text on a "
        "terminal, otherwise JSON lines.",
    )


class StoreSettings(Section):
    """Where tokens and sessions are stored."""

    url: StoreUrl = Field(
        default=StoreLocation(),
        description="`memory://`: in the process. `redis://[user:password@]host[:port][/db]`, "
        "`rediss://…` (TLS) or `unix://…`: a Redis or Valkey that replicas share, with encrypted "
        "tokens. `redis+sentinel://[user:password@]host[:port],host[:port]…/service[/db]` (with "
        "TLS `rediss+sentinel://…`): the master of a service that Redis Sentinels name. If it "
        "cannot be reached, every replica works alone.",
    )
    ca_file: FilePath | None = Field(
        default=None,
        description="PEM file with the CAs for the store's certificate; null: those of the "
        "operating system.",
    )
    encryption_key: SecretText | None = Field(
        default=None,
        description="Key for what is stored: 32 bytes, base64url; better as `encryption_key_file`. "
        "Without it the key is derived from each client secret or private key, so the secret must "
        "not be guessable.",
    )
    encryption_key_file: FilePath | None = Field(
        default=None, description="File with the encryption key."
    )

    def encryption_key_ref(self) -> SecretRef:
        """Return the source of the encryption key, which may be absent."""
        return self.secret_at("store", "encryption_key")


class LoginSettings(Section):
    """Sign-in with a browser (`/auth/…`)."""

    enabled: Flag = Field(default=False, description="Whether users can sign in with a browser.")
    client_id: Text | None = Field(default=None, description="The client id for the sign-in.")
    client_secret: SecretText | None = Field(
        default=None,
        description="The client secret; with neither this nor `client_secret_file`: a public "
        "client, PKCE only.",
    )
    client_secret_file: FilePath | None = Field(
        default=None,
        description="File with the client secret, as that of a credential.",
    )
    auth_method: Literal["client_secret_post", "client_secret_basic", "private_key_jwt"] = Field(
        default="client_secret_post",
        description="How the gateway authenticates at a sign-in, as for a credential. PKCE is "
        "always used.",
    )
    private_key_file: FilePath | None = Field(
        default=None,
        description="File with the private key for `private_key_jwt`, as that of a credential.",
    )
    redirect_uri: EndpointUrl | None = Field(
        default=None,
        description="The URL of `/auth/callback` as browsers know it and as the SSO has it "
        "registered.",
    )
    post_logout_redirect_uri: EndpointUrl | None = Field(
        default=None,
        description="Where the SSO sends the browser after its own sign-out, as registered; null: "
        "it stays there.",
    )
    scope: Text | None = Field(default=None, description="The scope requested; null: none is sent.")
    extra_params: dict[Text, Annotated[str, Strict()]] = Field(
        default_factory=dict,
        description="Further parameters of the authorization and the token requests, name to "
        "value, e.g. `{claims: organization}`, which the ministry's SSO requires.",
    )
    session_lifetime: PositiveSeconds = Field(
        default=28800,
        description="The longest duration of a session; then the user signs in again.",
    )
    idle_lifetime: PositiveSeconds = Field(
        default=1800, description="How long a session lasts without a request."
    )
    allowed_return_origins: tuple[Origin, ...] = Field(
        default=(),
        description="Origins that `return_to` may lead to besides the gateway's own, e.g. "
        "`[https://his.clinic.uz]`.",
    )
    cors_origins: tuple[Origin, ...] = Field(
        default=(),
        description="Origins whose pages may call the gateway with the session's cookie; the "
        "browser sends it only from pages of the same site, such as `https://his.clinic.uz` for a "
        "gateway at `https://gateway.clinic.uz`.",
    )

    @property
    def is_openid(self) -> bool:
        """Whether an ID token is requested."""
        return "openid" in (self.scope or "").split()

    @property
    def touch_interval(self) -> float:
        """The age in seconds from which on a session's last use is written to the store again.

        It is not written at each request.
        """
        return min(15.0, 0.05 * self.idle_lifetime)

    @property
    def own_origin(self) -> str:
        """The gateway's origin as browsers see it: scheme, host and port."""
        parts = urlsplit(self.redirect_uri or "")
        default_port = ":443" if parts.scheme == "https" else ":80"
        return f"{parts.scheme}://{parts.netloc.lower().removesuffix(default_port)}"

    @property
    def path_prefix(self) -> str:
        """The path prefix that a proxy in front of the gateway removes, "" without one."""
        path = urlsplit(self.redirect_uri or "").path
        return path.removesuffix("/auth/callback") if path.endswith("/auth/callback") else ""

    @property
    def has_secure_cookies(self) -> bool:
        """Whether cookies are for https only.

        This also allows the name prefix that binds them to the host (RFC 6265bis section 4.1.3).
        """
        parts = urlsplit(self.redirect_uri or "")
        return parts.scheme != "http" or not is_loopback_host(parts.hostname or "")

    def secret_ref(self) -> SecretRef:
        """Return the source of the client's secret, with `private_key_jwt` of the private key."""
        by_key = self.auth_method == "private_key_jwt"
        return self.secret_at("login", "private_key" if by_key else "client_secret")


class OutboxSettings(Section):
    """Durable store-and-forward of writes while the platform cannot be reached."""

    enabled: Flag = Field(default=False, description="Whether writes may be queued.")
    url: DatabaseUrl = Field(
        default=DEFAULT_DATABASE,
        description="The database of the queue: `sqlite:////path/of/file`, on a local disk; "
        "`postgresql://[user[:password]@]host[:port]/database[?sslmode=verify-full]` if "
        "several replicas share it.",
    )
    max_entries: Count = Field(
        default=10000, description="Number of undelivered writes; above it 503 `outbox-full`."
    )
    max_bytes: PositiveSize = Field(
        default=1 * GIB,
        description="Size of all undelivered writes with their ordering keys; above it 503 "
        "`outbox-full`.",
    )
    max_share: Annotated[Ratio, Field(gt=0)] = Field(
        default=0.5,
        description="The part of `max_entries` and `max_bytes` that one caller may fill if "
        "several may queue (`callers[].outbox`), at least one write; above it 503 `outbox-full`. "
        "A single caller may fill all.",
    )
    max_age: PositiveSeconds = Field(
        default=604800,
        description="How long delivery of a write is tried (7 days).",
    )
    retention: Seconds = Field(
        default=86400,
        description="How long the result of a delivered write is available (1 day).",
    )
    reveal: Flag = Field(
        default=False,
        description="Whether `admin.operators` may see a queued write in full, with patient data, "
        "on the page `/outbox`. The audit records each view.",
    )
    encryption_key: SecretText | None = Field(
        default=None,
        description="Key for the stored writes: 32 bytes, base64url; better as "
        "`encryption_key_file`.",
    )
    encryption_key_file: FilePath | None = Field(
        default=None, description="File with the encryption key."
    )

    def encryption_key_ref(self) -> SecretRef:
        """Return the source of the encryption key."""
        return self.secret_at("outbox", "encryption_key")


class TracingSettings(Section):
    """Spans for OpenTelemetry; `traceparent` is passed on without them too."""

    otlp_endpoint: BaseUrl | None = Field(
        default=None,
        description="The collector's OTLP/HTTP endpoint, e.g. `http://collector:4318`; "
        "`/v1/traces` is added if it is missing. null: no spans.",
    )
    ca_file: FilePath | None = Field(
        default=None,
        description="PEM file with the CAs for the collector's certificate; null: those of the "
        "operating system.",
    )
    authorization: SecretText | None = Field(
        default=None,
        description="The `Authorization` field for the collector, e.g. `Bearer …`; better as "
        "`authorization_file`.",
    )
    authorization_file: FilePath | None = Field(
        default=None, description="File with the `Authorization` field for the collector."
    )
    service_name: Text = Field(
        default="dhp-gateway", description="The name of this gateway among the traced services."
    )
    sample_ratio: Ratio = Field(
        default=1,
        description="The share of requests without a `traceparent` for which a trace begins; for "
        "all others the caller's sampled flag decides.",
    )

    @property
    def traces_url(self) -> str | None:
        """The complete URL that spans are sent to, None where none are made."""
        url = self.otlp_endpoint
        return url if url is None or url.endswith(_TRACES_PATH) else url + _TRACES_PATH

    def secret_ref(self) -> SecretRef:
        """Return the source of the `Authorization` field, which may be absent."""
        return self.secret_at("tracing", "authorization")


class AlertsSettings(Section):
    """Alert messages to operators, where there is no Prometheus."""

    notify: tuple[SecretText, ...] = Field(
        default=(),
        description="Where alerts go: addresses of the library Apprise, such as "
        "`mailtos://user:password@mail.clinic.uz?to=duty@clinic.uz`, `tgram://TOKEN/CHAT`, "
        "`workflows://…` (Teams) or `json://host/path`. They contain passwords: better as "
        "`notify_file`. Empty: nowhere.",
    )
    notify_file: FilePath | None = Field(
        default=None, description="File with the addresses, one on each line; `#` begins a comment."
    )
    language: Literal["en", "ru", "uz"] = Field(
        default="en", description="The language of the messages."
    )
    daily: Flag = Field(
        default=False,
        description="Whether a report is sent each morning at 8 (this machine's clock). If no "
        "report arrives, the gateway is down.",
    )

    def address_refs(self) -> tuple[SecretRef, ...]:
        """Return the sources of the addresses: one for each, or one file with all."""
        setting = ("alerts", "notify")
        sources = (
            SecretRef((*setting, index), address, None) for index, address in enumerate(self.notify)
        )
        both = self.notify[0] if self.notify and self.notify_file is not None else None
        return (*sources, SecretRef(setting, both, self.notify_file))


class ShutdownSettings(Section):
    """Shutdown, after SIGTERM."""

    delay: Seconds = Field(
        default=1,
        description="Time in which `/readyz` answers 503 but new requests are still served, with "
        "`Connection: close`, so that callers connect to another replica.",
    )
    drain_timeout: Seconds = Field(
        default=25,
        description="Time for requests in flight to finish; then they are cut off.",
    )
