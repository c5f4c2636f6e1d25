"""oidc-provider (npm), OpenID-certified: JWTs for one audience, all methods of authentication."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
from joserfc.jwk import RSAKey
from multidict import CIMultiDict, CIMultiDictProxy

from tests.browser.conftest import BrowserUser
from tests.environments import node_with_packages
from tests.interop.bearer_guard import BearerGuard
from tests.interop.sso.configured import ConfiguredServer, version_of_package
from tests.interop.sso.server import TOKEN_LIFETIME
from tests.interop.stages import AUDIENCE

HERE = Path(__file__).parent


def _new_key(number: int) -> dict[str, Any]:
    parameters = {"kid": f"key-{number}", "use": "sig", "alg": "RS256"}
    return dict(RSAKey.generate_key(2048, parameters).as_dict(private=True))


@dataclass(slots=True)
class OidcProvider(ConfiguredServer):
    """Clients and keys stand in its settings file."""

    name: ClassVar[str] = "oidc-provider"
    second_secret: ClassVar[str] = "secret-of-lab-basic+%/="
    web_client: ClassVar[dict[str, str]] = {"scope": "openid"}

    signing_keys: list[dict[str, Any]] = field(default_factory=lambda: [_new_key(0)])

    def version(self) -> str:
        return version_of_package("oidc-provider")

    def command(self) -> list[str | Path]:
        return [node_with_packages(HERE.parent), HERE / "oidc_provider.mjs"]

    def settings(self) -> dict[str, Any]:
        return {
            "issuer": self.public_url,
            "clients": self._clients(),
            "keys": self.signing_keys,
            "lifetime": TOKEN_LIFETIME,
            "audience": AUDIENCE,
        }

    def sso_settings(self) -> dict[str, Any]:
        return {"issuer": self.public_url, "token_url": f"{self.public_url}/token"}

    async def accepts(self, token: str) -> bool:
        async with aiohttp.request("GET", f"{self.public_url}/jwks") as answer:
            guard = BearerGuard(await answer.json(), self.public_url, AUDIENCE)
        headers = CIMultiDict({"Authorization": f"Bearer {token}"})
        return guard(CIMultiDictProxy(headers)) is None

    async def sign_in(self, person: BrowserUser, tab: int = 0) -> None:
        await person.do("fill", tab=tab, selector="input[name=login]", value=self.user)
        await person.do("fill", tab=tab, selector="input[name=password]", value=self.password)
        await person.do("click", tab=tab, selector="button[type=submit]")
        await person.do("wait", tab=tab, selector="button", text="Continue")
        await person.do("click", tab=tab, selector="button[type=submit]")

    async def confirm_sign_out(self, person: BrowserUser, tab: int = 0) -> None:
        await person.do("click", tab=tab, selector="button[value=yes]")

    async def sign_out(self, person: BrowserUser, tab: int = 0) -> None:
        await person.do("open", tab=tab, url=f"{self.public_url}/session/end")
        await person.do("click", tab=tab, selector="button[value=yes]")
        await person.do("wait", tab=tab, selector="body", text="Sign-out Success")

    def rotate_key(self) -> None:
        self.signing_keys.insert(0, _new_key(len(self.signing_keys)))
        self.read_again()

    def _clients(self) -> list[dict[str, Any]]:
        machines = [
            {
                "client_id": client_id,
                "token_endpoint_auth_method": method,
                "grant_types": ["client_credentials"],
                "redirect_uris": [],
                "response_types": [],
                **self.registered_proof(method),
            }
            for method, client_id in self.client_ids.items()
        ]
        people = {
            "client_id": "hospital-web",
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "redirect_uris": [f"{self.gateway}/auth/callback"],
            "post_logout_redirect_uris": [f"{self.gateway}/"],
            "backchannel_logout_uri": f"{self.gateway}/auth/backchannel-logout",
            "backchannel_logout_session_required": True,
        }
        return [*(machines if self.is_enabled else machines[1:]), people]
