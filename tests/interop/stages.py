"""What a test plays on: the programs behind the gateway, seen through recording proxies."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.doubles.processes import GatewayProcess
from tests.doubles.recording_proxy import RecordingProxy
from tests.interop.bearer_guard import BearerGuard

AUDIENCE = "https://platform.example/fhir"
SECRETS = {"lab-post": "the-secret-of-lab-post", "lab-basic": "the-secret-of-lab-basic"}
METHODS = {"lab-post": "client_secret_post", "lab-basic": "client_secret_basic"}

Begin = Callable[[dict[str, Any]], GatewayProcess]
FhirKit = Callable[..., Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Sso:
    """The addresses of a running oidc-provider."""

    issuer: str
    token_url: str
    jwks_url: str


@dataclass(slots=True)
class Stage:
    """Everything a test plays on: what stands behind the gateway, and how to start the latter."""

    platform: RecordingProxy
    token_endpoint: RecordingProxy
    settings: dict[str, Any]
    begin: Begin

    async def gateway(self, *, ready: bool = True, **changes: Any) -> GatewayProcess:
        """Starts the gateway; `changes` replace top-level settings."""
        gateway = self.begin({**self.settings, **changes})
        await gateway.until_status(200, "/readyz" if ready else "/livez")
        return gateway

    def token_requests(self) -> int:
        """How many times the token endpoint was asked."""
        return len(self.token_endpoint.seen)

    def assert_one_token_served_all(self) -> None:
        """Every request arrived with the same bearer, was let in, and one token was asked for."""
        assert self.platform.seen
        fields = [one.headers.getall("Authorization", []) for one in self.platform.seen]
        assert all(field == fields[0] for field in fields)
        assert [field.partition(" ")[0] for field in fields[0]] == ["Bearer"]
        assert 401 not in [one.status for one in self.platform.seen]
        assert self.token_requests() == 1


@dataclass(slots=True)
class GuardedStage(Stage):
    """A stage whose platform checks tokens with oidc-provider's keys."""

    guard: BearerGuard


SetStage = Callable[[Sso, str], contextlib.AbstractAsyncContextManager[GuardedStage]]


def sandbox_settings(platform: str, sso: str) -> dict[str, Any]:
    """Settings for an embedded platform reached at these two origins."""
    return {
        "platform": {"fhir_base_url": f"{platform}/fhir"},
        "sso": {"token_url": f"{sso}/oauth/token"},
        "credentials": {
            "default": {"client_id": "hospital-demo", "client_secret": "sandbox-secret"}
        },
    }
