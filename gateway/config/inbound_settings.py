"""Settings of the downstream side: listeners, callers, limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from gateway.config.section import SecretRef, Section
from gateway.config.setting_urls import BasePath, BaseUrl, EndpointUrl
from gateway.config.value_types import (
    KIB,
    MIB,
    AddressText,
    AnyResourceType,
    Count,
    FilePath,
    Flag,
    HeaderName,
    Interaction,
    ListenAddress,
    MediaType,
    Name,
    NetworkText,
    OperationName,
    PositiveSeconds,
    PositiveSize,
    Seconds,
    SecretText,
    ShortPublicText,
    Size,
    Text,
)

Rate = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]


class ListenTlsSettings(Section):
    """TLS for callers; off while `cert_file` is null."""

    cert_file: FilePath | None = Field(
        default=None,
        description="PEM file with the listener's certificate chain; null: plain HTTP.",
    )
    key_file: FilePath | None = Field(
        default=None,
        description="PEM file with the certificate's private key; needed with `cert_file`.",
    )
    client_ca_file: FilePath | None = Field(
        default=None,
        description="PEM file with the CAs whose client certificates identify callers; null: no "
        "client certificate is requested.",
    )


class ListenSettings(Section):
    """Where callers reach the gateway."""

    address: AddressText = Field(
        default=ListenAddress("127.0.0.1", 8080),
        description="`host:port` (IPv6 in brackets, port 0: any free one) or `unix:/path`. The "
        "default is reachable from this machine only.",
    )
    base_path: BasePath = Field(
        default="/fhir",
        description="The path under which the platform's FHIR base appears; `/` for none. "
        "Callers use `http://ADDRESS/fhir/…`.",
    )
    public_url: BaseUrl | None = Field(
        default=None,
        description="The URL of `base_path` as callers know it, for rewritten links; null: from "
        "the `Host` of the request. Callers that use the gateway as their HTTP proxy may name its "
        "host.",
    )
    reuse_port: Flag = Field(
        default=False,
        description="Whether other gateways of the same user on this machine may listen on the "
        "same port; all of them need it. The operating system distributes the connections.",
    )
    allow_anonymous: Flag = Field(
        default=False,
        description="Whether an address that other machines can reach may be used without "
        "`callers`. With false the gateway then does not start.",
    )
    trusted_proxies: tuple[NetworkText, ...] = Field(
        default=(),
        description="IP addresses or networks of proxies before the gateway whose "
        "`X-Forwarded-For` is trusted, read from the right.",
    )
    tls: ListenTlsSettings = Field(
        default_factory=ListenTlsSettings, description="TLS towards the callers."
    )


class OperatorSettings(Section):
    """An operator of the page `/outbox`."""

    name: Name = Field(description="The name for the sign-in and the audit; unique.")
    password: SecretText | None = Field(
        default=None,
        description="The password for HTTP Basic; better as `password_file`.",
    )
    password_file: FilePath | None = Field(
        default=None, description="File with the password; re-read when it changes."
    )

    def secret_ref(self, index: int) -> SecretRef:
        """Return the source of the password; `index` is the position in `admin.operators`."""
        return self.secret_at("admin", "operators", index, "password")


class AdminSettings(Section):
    """Operators' pages: `/livez`, `/readyz`, `/metrics`, `/status`, `/outbox` and public keys."""

    address: AddressText = Field(
        default=ListenAddress("127.0.0.1", 9464),
        description="`host:port` or `unix:/path` of the operators' pages; never the callers' "
        "address. Whoever reaches the address may read the pages.",
    )
    contact: ShortPublicText | None = Field(
        default=None,
        description="Whom to call, e.g. IT on duty, +998 71 200 00 00; at most 200 characters. "
        "It stands on `/status`, in alert messages and in the output of `doctor`.",
    )
    runbook_url: EndpointUrl | None = Field(
        default=None,
        description="Your page of the runbook (`docs/runbook.md`, or a translation). `/status` "
        "leads there, and each alert message to its section.",
    )
    operators: tuple[OperatorSettings, ...] = Field(
        default=(),
        description="The operators who may send queued writes again and drop them on the page "
        "`/outbox`. Empty: the page is read-only.",
    )
    probe_interval: Seconds = Field(
        default=30,
        description="The shortest time between the gateway's own requests for `metadata`, while "
        "callers' responses do not show that the platform works. 0: none.",
    )


class BasicAuthSettings(Section):
    """A user name and password that a caller sends by HTTP Basic (RFC 7617)."""

    username: Text = Field(description="The user name that the caller sends.")
    password: SecretText | None = Field(
        default=None, description="The password; better as `password_file`."
    )
    password_file: FilePath | None = Field(
        default=None, description="File with the password; re-read when it changes."
    )


class AllowSettings(Section):
    """What a caller may do."""

    interactions: tuple[Interaction, ...] = Field(
        default=("*",),
        description="FHIR interactions the caller may use, e.g. `[read, search-type]`; `*`: all. "
        "What is not listed is refused in Bundles too, which need `batch` or `transaction`.",
    )
    resources: tuple[AnyResourceType, ...] = Field(
        default=("*",),
        description="R5 types that the caller may use, e.g. `[Patient, Observation]`; `*`: all. "
        "Chains, reverse chains and inclusions count for every type on the way, which must be "
        "named (`subject:Patient.name`). In Bundles, URL and resource of each entry count.",
    )
    operations: tuple[OperationName, ...] | None = Field(
        default=None,
        description="Operations that the caller may use, e.g. `[$expand]`, with or without `$`; "
        "`*`: all. Null: all if `resources` is `*`, otherwise none. The platform's own operations "
        "can be listed too.",
    )


class RateLimitSettings(Section):
    """How often a caller may send requests."""

    requests_per_second: Rate | None = Field(
        default=None,
        description="Requests a second, on average; above it 429. Null: no limit.",
    )
    burst: Count | None = Field(
        default=None,
        description="Requests that may come at once after a pause; null: one second's worth.",
    )


class CallerSettings(Section):
    """A system or department that may call the gateway."""

    name: Name = Field(description="The caller's name in the audit and the metrics; unique.")
    networks: tuple[NetworkText, ...] = Field(
        default=(),
        description="IP addresses or networks of the caller, e.g. `[10.20.0.0/16]`; empty: any.",
    )
    api_key: SecretText | None = Field(
        default=None,
        description="The key the caller sends in `X-Api-Key`; better as `api_key_file`.",
    )
    api_key_file: FilePath | None = Field(
        default=None,
        description="File with the caller's `X-Api-Key`; re-read when it changes.",
    )
    basic_auth: BasicAuthSettings | None = Field(
        default=None, description="User name and password of HTTP Basic; null: not used."
    )
    client_cert_names: tuple[Text, ...] = Field(
        default=(),
        description="Subject or SAN names of the caller's client certificate; needs "
        "`listen.tls.client_ca_file`.",
    )
    user_header: HeaderName | None = Field(
        default=None,
        description="A header in which the caller names its user, e.g. `X-User`: recorded in the "
        "audit as `user` with `user_asserted`, never forwarded. Null: none.",
    )
    purpose_header: HeaderName | None = Field(
        default=None,
        description="A header with the purpose of use (TREAT and others), e.g. `X-Purpose`: "
        "recorded in the audit as `purpose`, never forwarded. Null: none.",
    )
    content_type: MediaType | None = Field(
        default=None,
        description="Media type of bodies of this caller that come without `Content-Type` or as "
        "`text/plain`, as from MSXML, e.g. `application/fhir+json`; not for Binary. Null: "
        "passed on as it came.",
    )
    credential: Name = Field(
        default="default",
        description="The entry of `credentials` whose token the caller's requests carry.",
    )
    allow: AllowSettings = Field(
        default_factory=AllowSettings, description="What the caller may do; default: everything."
    )
    rate_limit: RateLimitSettings = Field(
        default_factory=RateLimitSettings, description="How often the caller may ask."
    )
    max_concurrent: Count | None = Field(
        default=None,
        description="Requests of this caller at the same time; above it 503. Null: no limit.",
    )
    outbox: Literal["off", "on-request", "always"] = Field(
        default="on-request",
        description="Which writes may be queued while the platform cannot be reached: none, those "
        "with `Prefer: respond-async`, or all. Needs `outbox.enabled`.",
    )

    @property
    def has_secret(self) -> bool:
        """Whether the caller sends a key or password."""
        return any(source.is_given for source in self.secret_refs(0))

    def secret_refs(self, index: int) -> tuple[SecretRef, ...]:
        """Return the sources of key and password; `index` is the position in `callers`."""
        key = self.secret_at("callers", index, "api_key")
        if self.basic_auth is None:
            return (key,)
        return key, self.basic_auth.secret_at("callers", index, "basic_auth", "password")


class LimitsSettings(Section):
    """Limits of one request, and of all together."""

    max_header_bytes: PositiveSize = Field(
        default=16 * KIB,
        description="Size of one header field; all fields together may have four times that. "
        "Above it 431.",
    )
    max_headers: Count = Field(default=200, description="Number of header fields; above it 431.")
    max_url_bytes: PositiveSize = Field(
        default=8 * KIB, description="Size of the request target; above it 414."
    )
    max_body_bytes: PositiveSize = Field(
        default=64 * MIB, description="Size of a request body; above it 413."
    )
    keep_alive: PositiveSeconds = Field(
        default=125,
        description="How long an idle connection of a caller stays open. Responses announce 5 s "
        "less (`Keep-Alive: timeout=120`).",
    )
    max_concurrent_requests: Count = Field(
        default=1024, description="Requests of all callers at the same time; above it 503."
    )
    half_closed: PositiveSeconds = Field(
        default=10,
        description="How long a read continues for a caller that has closed its sending side, "
        "until its response begins.",
    )
    unidentified_rate: Rate | None = Field(
        default=20,
        description="Requests a second from one address (IPv6: one /64 network) without an "
        "identified caller: broken ones, unknown paths, wrong or missing keys, other networks. "
        "Above it 429 without audit records. Null: no limit.",
    )
    header_timeout: PositiveSeconds = Field(
        default=10,
        description="Time for a request's header, and between two reads of its body; after it 408.",
    )
    min_body_rate: Size = Field(
        default=1 * KIB,
        description="Bytes a second, averaged over 30 s: a slower request body gets 408, and a "
        "slower reader of a response is cut off while others wait for a connection to the "
        "platform. 0: no limit.",
    )
    replay_buffer_bytes: Size = Field(
        default=1 * MIB,
        description="Request bodies up to this size are retained and can be sent again, e.g. "
        "after a 401 of the platform. Memory for each request in flight.",
    )

    @property
    def max_all_headers_bytes(self) -> int:
        """Size of all header fields together; above it 431."""
        return 4 * self.max_header_bytes

    @property
    def write_stall_timeout(self) -> float:
        """Seconds for which a caller may read nothing at all of the data buffered for it."""
        return 3 * self.header_timeout

    @property
    def announced_keep_alive(self) -> int:
        """The idle time in seconds that responses announce.

        It is shorter than the real one: what a caller sends at the last moment is still on its way.
        """
        return max(1, int(self.keep_alive - min(5.0, self.keep_alive / 2)))
