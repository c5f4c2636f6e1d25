"""Settings of the upstream side: platform, SSO, credentials, retries, FHIR."""

from __future__ import annotations

from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, Strict

from gateway.config.section import SecretRef, Section
from gateway.config.setting_urls import BaseUrl, EndpointUrl, ProxyUrl
from gateway.config.value_types import (
    Count,
    FilePath,
    Flag,
    HeaderPattern,
    ParameterName,
    PositiveSeconds,
    Ratio,
    ResourceType,
    Seconds,
    SecretText,
    Text,
    matching,
)
from gateway.i18n import Message

# VSCHAR and scope-token of RFC 6749, appendix A.
_CLIENT_ID: Final = matching(
    r"[\x20-\x7e]+",
    Message("contains characters that a client id may not contain"),
    Message("copy it again, without line breaks"),
)
_SCOPE: Final = matching(
    r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*",
    Message("is not a scope"),
    Message("write the scopes with one space between them, or null for none"),
)


class PlatformSettings(Section):
    """The FHIR server that requests are forwarded to."""

    fhir_base_url: BaseUrl = Field(
        description="The platform's FHIR base; required without a default of `environment`. https, "
        "except for loopback hosts."
    )
    ca_file: FilePath | None = Field(
        default=None,
        description="PEM file with the CAs for the platform's certificate; null: those of the "
        "operating system.",
    )
    client_cert_file: FilePath | None = Field(
        default=None,
        description="PEM file with the certificate for mutual TLS; null: none is sent.",
    )
    client_key_file: FilePath | None = Field(
        default=None, description="PEM file with that certificate's private key."
    )
    proxy_url: ProxyUrl | None = Field(
        default=None,
        description="`http://host:port` of an outgoing HTTP proxy (CONNECT); null: direct.",
    )
    allow_plaintext: Flag = Field(
        default=False,
        description="Whether `http://` is accepted for other than loopback hosts, also for the "
        "SSO. Tokens and patient data are then readable on the network.",
    )
    connect_timeout: PositiveSeconds = Field(
        default=5,
        description="Time for a connection to the platform with TLS, or for a free one; after it "
        "503.",
    )
    response_timeout: PositiveSeconds = Field(
        default=60,
        description="Time from the end of the request to the response header; after it 504.",
    )
    idle_timeout: PositiveSeconds = Field(
        default=30,
        description="Time between two reads of a response body; then the response is cut.",
    )
    max_connections: Count = Field(
        default=256,
        description="Connections to the platform at the same time. If there are more than 32, one "
        "of several callers never occupies the last ones.",
    )
    compression: Literal["off", "answers"] = Field(
        default="off",
        description="For slow connections. `off`: gzip is requested from the platform if the "
        "caller accepts it. `answers`: always.",
    )
    forward_headers: tuple[HeaderPattern, ...] = Field(
        default=(),
        description="Headers of callers that go to the platform in addition to those of HTTP, FHIR "
        "and tracing, e.g. `[X-Lab-Number, X-Hospital-*]`. The status page names those that do "
        "not. The platform may trust what any caller writes there.",
    )

    @property
    def authority(self) -> bytes:
        """Host and port of `fhir_base_url`, as the Host field has them."""
        return urlsplit(self.fhir_base_url).netloc.encode("ascii")

    @property
    def base_path(self) -> str:
        """The path of `fhir_base_url`, without a final slash."""
        return urlsplit(self.fhir_base_url).path.rstrip("/")

    @property
    def forwarded_fields(self) -> tuple[frozenset[bytes], tuple[bytes, ...]]:
        """Names, and beginnings of names, of `forward_headers` in lower case, as octets."""
        patterns = [each.lower().encode("ascii") for each in self.forward_headers]
        prefixes = tuple(each[:-1] for each in patterns if each.endswith(b"*"))
        return frozenset(each for each in patterns if not each.endswith(b"*")), prefixes


class SsoSettings(Section):
    """The OAuth 2.0 server that issues the tokens."""

    token_url: EndpointUrl = Field(
        description="The token endpoint; required without a default of `environment`. https, "
        "except for loopback hosts."
    )
    authorize_url: EndpointUrl | None = Field(
        default=None,
        description="The authorization endpoint, or where the SSO's browser sign-in begins.",
    )
    issuer: EndpointUrl | None = Field(
        default=None,
        description="For OpenID Connect: the issuer, below which its "
        "`/.well-known/openid-configuration` is; null: it is looked for at the origin and each "
        "parent path of the two URLs. The addresses of that document are used. With "
        "`private_key_jwt` also the audience, if the SSO does not accept its token endpoint as "
        "one.",
    )
    ca_file: FilePath | None = Field(
        default=None,
        description="PEM file with the CAs for the SSO's certificate; null: those of the "
        "operating system.",
    )
    proxy_url: ProxyUrl | None = Field(
        default=None,
        description="`http://host:port` of an outgoing HTTP proxy (CONNECT); null: direct.",
    )
    timeout: PositiveSeconds = Field(
        default=10,
        description="Time for a token request, and the longest wait of a caller for a token; after "
        "it 503.",
    )
    max_requests: Count = Field(
        default=8,
        description="Token requests under way at the same time, of all credentials and users. "
        "Those that callers wait for come first; at most 200 begin in a second.",
    )
    default_token_lifetime: PositiveSeconds = Field(
        default=300,
        description="Lifetime of a token if the SSO names none and the token is not a JWT with "
        "`exp`.",
    )

    @property
    def replica_wait(self) -> float:
        """Seconds to wait for the token of another replica.

        It is half of `timeout`, which leaves time for a token request of this replica.
        """
        return self.timeout / 2


class CredentialSettings(Section):
    """A client that is registered with the SSO."""

    client_id: Annotated[Text, _CLIENT_ID] = Field(description="The client id that the SSO issued.")
    client_secret: SecretText | None = Field(
        default=None, description="The client secret; better as `client_secret_file`."
    )
    client_secret_file: FilePath | None = Field(
        default=None,
        description="File with the client secret; re-read when it changes and after a refusal. "
        "While the secret is being changed, the file may contain both, the new one on the first "
        "line.",
    )
    auth_method: Literal["client_secret_post", "client_secret_basic", "private_key_jwt"] = Field(
        default="client_secret_post",
        description="How the gateway authenticates: secret in the form, secret by HTTP Basic, or a "
        "signed assertion (RFC 7523). DHP uses the form.",
    )
    private_key_file: FilePath | None = Field(
        default=None,
        description="File with the private key for `private_key_jwt`: PEM, JWK or JWK set; RSA "
        "signs RS384, EC (P-384) ES384. It may contain two, the new one first, and is re-read like "
        "`client_secret_file`.",
    )
    scope: Annotated[Text, _SCOPE] | None = Field(
        default=None,
        description="The scope requested; null: no parameter, as DHP requires (it answers "
        "`invalid_scope` to any).",
    )
    extra_params: dict[Text, Annotated[str, Strict()]] = Field(
        default_factory=dict,
        description="Further parameters of the token request, name to value.",
    )

    def secret_ref(self, name: str) -> SecretRef:
        """Return the source of the client secret, with `private_key_jwt` of the private key."""
        by_key = self.auth_method == "private_key_jwt"
        return self.secret_at("credentials", name, "private_key" if by_key else "client_secret")


class RetriesSettings(Section):
    """Second attempts where the platform cannot have acted."""

    max_attempts: Annotated[Count, Field(le=10)] = Field(
        default=3,
        description="Attempts for one request, including the first; 1: no retry.",
    )
    budget_ratio: Ratio = Field(
        default=0.2,
        description="Retries as a share of all requests, so that a failing platform is not "
        "flooded; three a second are always allowed.",
    )
    backoff: Seconds = Field(
        default=0.1,
        description="Delay before the first retry; it doubles each time, with jitter.",
    )


class CircuitBreakerSettings(Section):
    """When the gateway pauses requests to a failing platform."""

    failure_ratio: Annotated[Ratio, Field(gt=0)] = Field(
        default=0.5,
        description="Share of failed requests within `window` at which the circuit opens, if there "
        "is no connection or the gateway's own check fails too; and at which one kind of request "
        "of one caller is paused. Callers then get 503 at once.",
    )
    min_requests: Count = Field(
        default=20, description="Requests within `window` below which neither happens."
    )
    window: PositiveSeconds = Field(
        default=10, description="The time over which requests are counted."
    )
    open_for: PositiveSeconds = Field(
        default=15,
        description="How long the circuit stays open before the gateway checks the platform again, "
        "or a kind of request is paused before one is tried again.",
    )


class RewriteSettings(Section):
    """Absolute platform URLs in responses become gateway URLs, and vice versa."""

    enabled: Flag = Field(
        default=True,
        description="Whether links are rewritten. With false callers get platform URLs, which they "
        "cannot follow.",
    )
    aliases: tuple[BaseUrl, ...] = Field(
        default=(),
        description="Further FHIR bases that the platform uses in its responses; `doctor` names "
        "missing ones.",
    )


class FhirSettings(Section):
    """How the gateway treats FHIR itself."""

    search_guard: Literal["off", "warn", "block"] = Field(
        default="warn",
        description="What happens if the platform ignored a search parameter and returned too "
        "much: nothing, a header `X-Gateway-Warning`, or 400 instead of the response.",
    )
    condition_guard: Literal["off", "warn", "block"] = Field(
        default="warn",
        description="What happens to a conditional create, update or delete (`If-None-Exist`, a "
        "query instead of an id, `ifNoneExist` in a Bundle) if the platform's CapabilityStatement "
        "does not declare it for the type: nothing, a header `X-Gateway-Warning`, or 400 before "
        "it is sent.",
    )
    unfiltered: dict[ResourceType, tuple[ParameterName, ...]] = Field(
        default_factory=dict,
        description="Search parameters that filter nothing although the platform reports that it "
        "used them, by resource type, e.g. `{Observation: [date]}`; the search guard treats them "
        "as ignored. `dhp-gateway probe-search` finds them. Your list replaces that of the "
        "environment.",
    )
    auto_if_match: Flag = Field(
        default=False,
        description="Whether a PUT without `If-Match` gets that of the current version, read just "
        "before; DHP answers 412 without it. This gives up the protection against lost updates.",
    )
    default_language: Literal["en", "ru", "uz"] = Field(
        default="en",
        description="Language of error texts if `Accept-Language` names none.",
    )
