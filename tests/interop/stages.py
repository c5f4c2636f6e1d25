"""The programs behind the gateway, seen through recording proxies."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import ECKey, RSAKey, import_key

from tests.doubles.processes import GatewayProcess
from tests.doubles.recording_proxy import RecordingProxy
from tests.doubles.sections import gateway_settings
from tests.interop.bearer_guard import BearerGuard

AUDIENCE = "https://platform.example/fhir"
SECRETS = {"lab-post": "the-secret-of-lab-post", "lab-basic": "the-secret-of-lab-basic"}
METHODS = {
    "lab-post": "client_secret_post",
    "lab-basic": "client_secret_basic",
    "lab-rsa": "private_key_jwt",
    "lab-ec": "private_key_jwt",
}

Begin = Callable[[dict[str, Any]], GatewayProcess]
FhirKit = Callable[..., Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """The private keys of the clients that sign, in every format, and the JWK sets for the SSO."""

    directory: Path

    def __post_init__(self) -> None:
        for client_id, key in (("lab-rsa", RSAKey.generate_key(2048)), ("lab-ec", ec_key())):
            for form in ("pkcs8", "traditional"):
                self.path(client_id, form).write_bytes(_pem(key, form))
            private = {**key.as_dict(private=True), "kid": f"kid-of-{client_id}"}
            self.path(client_id, "jwk").write_text(json.dumps(private))

    def path(self, client_id: str, form: str = "pkcs8") -> Path:
        """Return the file of a client's key: `pkcs8`, `traditional` (PKCS#1, SEC1) or `jwk`."""
        return self.directory / f"{client_id}.{form}"

    def registered(self, client_id: str) -> dict[str, Any]:
        """Return the client's JWK set as it is registered.

        Each key is in it twice: by its thumbprint (RFC 7638), and by the name that the JWK file
        has.
        """
        key = import_key(self.path(client_id).read_bytes(), _KTY[client_id])
        public = key.as_dict(private=False)
        kids = (key.thumbprint(), f"kid-of-{client_id}")
        return {"keys": [{**public, "kid": kid, "use": "sig"} for kid in kids]}


_KTY: dict[str, Literal["RSA", "EC"]] = {"lab-rsa": "RSA", "lab-ec": "EC"}


def ec_key() -> ECKey:
    return ECKey.generate_key("P-384")


def _pem(key: RSAKey | ECKey, form: str) -> bytes:
    assert key.private_key is not None
    forms = {"pkcs8": PrivateFormat.PKCS8, "traditional": PrivateFormat.TraditionalOpenSSL}
    return key.private_key.private_bytes(Encoding.PEM, forms[form], NoEncryption())


@dataclass(frozen=True, slots=True)
class Sso:
    """A running oidc-provider: its URLs, and the keys of its clients."""

    issuer: str
    token_url: str
    jwks_url: str
    keys: KeyFiles

    def credential(self, client_id: str) -> dict[str, str]:
        method = METHODS[client_id]
        proof = (
            {"private_key_file": str(self.keys.path(client_id))}
            if method == "private_key_jwt"
            else {"client_secret": SECRETS[client_id]}
        )
        return {"client_id": client_id, "auth_method": method, **proof}


@dataclass(slots=True)
class Stage:
    """The servers behind the gateway, the gateway's settings, and the function that starts it."""

    platform: RecordingProxy
    token_endpoint: RecordingProxy
    settings: dict[str, Any]
    begin: Begin

    async def gateway(self, *, ready: bool = True, **changes: Any) -> GatewayProcess:
        gateway = self.begin({**self.settings, **changes})
        await gateway.wait_for_status(200, "/readyz" if ready else "/livez")
        return gateway

    def assert_one_token_served_all(self) -> None:
        """Check that all requests had the same bearer, none got a 401, and one token was used."""
        assert self.platform.requests
        fields = [one.headers.getall("Authorization", []) for one in self.platform.requests]
        assert all(field == fields[0] for field in fields)
        assert [field.partition(" ")[0] for field in fields[0]] == ["Bearer"]
        assert 401 not in [one.status for one in self.platform.requests]
        assert len(self.token_endpoint.requests) == 1


@dataclass(slots=True)
class GuardedStage(Stage):
    """A stage whose platform checks tokens with oidc-provider's keys."""

    guard: BearerGuard


SetStage = Callable[[Sso, str], contextlib.AbstractAsyncContextManager[GuardedStage]]


def sandbox_settings(platform: str, sso: str) -> dict[str, Any]:
    """Return settings for an embedded platform reached at these two origins."""
    demo = {"default": {"client_id": "hospital-demo", "client_secret": "sandbox-secret"}}
    return gateway_settings(f"{platform}/fhir", f"{sso}/oauth/token", credentials=demo)
