"""Better Auth with its OAuth provider (npm): opaque tokens, and ID tokens signed with EdDSA."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tests.browser.conftest import BrowserUser
from tests.doubles.processes import free_port
from tests.environments import node_with_packages
from tests.interop.sso.configured import ConfiguredServer, is_active, version_of_package
from tests.interop.sso.server import TOKEN_LIFETIME

HERE = Path(__file__).parent


@dataclass(slots=True)
class BetterAuth(ConfiguredServer):
    """One method for each client, `iss` in its responses, and sign-outs by the back channel."""

    name: ClassVar[str] = "Better Auth"
    client_ids: ClassVar[dict[str, str]] = {
        "client_secret_basic": "lab-basic",
        "client_secret_post": "lab-post",
        "private_key_jwt": "lab-ec",
    }
    second_secret: ClassVar[str] = "secret-of-lab-post+%/="
    # Where users reach another gateway of the same client.
    second_gateway: str = field(default_factory=lambda: f"http://127.0.0.1:{free_port()}")
    keys_until: int = 0

    def version(self) -> str:
        return version_of_package("better-auth")

    def command(self) -> list[str | Path]:
        return [node_with_packages(HERE.parent), HERE / "better_auth.mjs"]

    def settings(self) -> dict[str, Any]:
        return {
            "url": self.public_url,
            "memory": str(self.directory / "memory"),
            "clients": self._clients(),
            "keysUntil": self.keys_until,
            "lifetime": TOKEN_LIFETIME,
            "user": self.user,
            "email": self.email,
            "password": self.password,
        }

    def sso_settings(self) -> dict[str, Any]:
        issuer = f"{self.public_url}/api/auth"
        return {
            "issuer": issuer,
            "token_url": f"{issuer}/oauth2/token",
            "authorize_url": f"{issuer}/oauth2/authorize",
        }

    async def accepts(self, token: str) -> bool:
        return await is_active(f"{self.public_url}/introspect", token)

    def login_settings(self) -> dict[str, Any]:
        return {
            "client_id": "hospital-web",
            "client_secret": "secret-of-hospital-web",
            "scope": "openid profile offline_access",
            # No `post_logout_redirect_uri`: the page that asks the user has a policy (CSP) by which
            # its form leads nowhere else, and Chromium holds redirects to that, too.
        }

    @property
    def email(self) -> str:
        return f"{self.user}@clinic.example"

    async def sign_in(self, person: BrowserUser, tab: int = 0) -> None:
        await person.do("fill", tab=tab, selector="#email", value=self.email)
        await person.do("fill", tab=tab, selector="#password", value=self.password)
        await person.do("click", tab=tab, selector="button")

    async def confirm_sign_out(self, person: BrowserUser, tab: int = 0) -> None:
        await person.do("click", tab=tab, selector="button[value=confirm]")
        await person.do("wait", tab=tab, selector="p", text="Logged out.")

    async def sign_out(self, person: BrowserUser, tab: int = 0) -> None:
        await person.do("open", tab=tab, url=f"{self.public_url}/account")
        await person.do("click", tab=tab, selector="button")
        await person.do("wait", tab=tab, selector="p", text="Signed out")

    def rotate_key(self) -> None:
        self.keys_until = int(time.time() * 1000)
        self.read_again()

    def _clients(self) -> list[dict[str, Any]]:
        machines = [
            {
                "clientId": client_id,
                "tokenEndpointAuthMethod": method,
                "grantTypes": ["client_credentials"],
                "redirectUris": [],
                "scopes": ["fhir"],
                "clientCredentialsScopes": ["fhir"],
                "disabled": not self.is_enabled and method == self.client_auth_methods[0],
                **(
                    {"jwks": json.dumps(self.keys.registered(client_id))}
                    if method == "private_key_jwt"
                    else {"secret": self._secret(method)}
                ),
            }
            for method, client_id in self.client_ids.items()
        ]
        web = {
            "clientId": "hospital-web",
            "secret": "secret-of-hospital-web",
            "tokenEndpointAuthMethod": "client_secret_post",
            "grantTypes": ["authorization_code", "refresh_token"],
            "responseTypes": ["code"],
            "scopes": ["openid", "profile", "offline_access"],
            "redirectUris": [f"{e}/auth/callback" for e in (self.gateway, self.second_gateway)],
            "backchannelLogoutUri": f"{self.gateway}/auth/backchannel-logout",
            "backchannelLogoutSessionRequired": True,
            "skipConsent": True,
            "enableEndSession": True,
        }
        return [*machines, web]
