"""zitadel/oidc (Go): opaque tokens, an issuer with a final slash; a restart forgets tokens."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode

import aiohttp

from tests.browser.conftest import BrowserUser
from tests.doubles.processes import start
from tests.environments import go_program
from tests.interop.sso.configured import is_active, version_of_module
from tests.interop.sso.server import TOKEN_LIFETIME, SsoServer

HERE = Path(__file__).parent


@dataclass(slots=True)
class Zitadel(SsoServer):
    """Its settings file has the secret of the present, so that a restart knows it."""

    name: ClassVar[str] = "zitadel"
    client_ids: ClassVar[dict[str, str]] = {
        "client_secret_basic": "lab-basic",
        "client_secret_post": "lab-post",
    }
    web_client: ClassVar[dict[str, str]] = {
        "client_secret": "secret-of-hospital-web",
        "scope": "openid profile offline_access",
    }
    second_secret: ClassVar[str] = "secret-of-lab-post+%/="
    not_offered: ClassVar[dict[str, str]] = {
        "private_key_jwt": "it takes RS256, ES256 and PS256; the gateway signs RS384 or ES384",
        "sign_out_at_the_sso": "the library has no page for it and no back-channel logout",
    }

    secret: str = "secret-of-lab-basic/1+%"

    def version(self) -> str:
        return version_of_module(HERE / "zitadel", "github.com/zitadel/oidc/v3")

    def start(self) -> None:
        program = go_program(HERE / "zitadel")
        file = self.directory / "zitadel.json"
        file.write_text(json.dumps(self._settings()))
        self.process = start([program, file], self.directory, name="zitadel")
        self.process.wait_until_listening(self.port)

    def sso_settings(self) -> dict[str, Any]:
        return {"issuer": f"{self.public_url}/", "token_url": f"{self.public_url}/oauth/token"}

    async def accepts(self, token: str) -> bool:
        proof = aiohttp.encode_basic_auth("platform", "secret-of-the-platform")
        return await is_active(f"{self.public_url}/oauth/introspect", token, Authorization=proof)

    def change_secret(self) -> str:
        self.secret = f"{self.secret}-{time.time_ns()}"
        self._administer("lab-basic", secret=self.secret)
        return self.secret

    def enable_client(self, *, enabled: bool) -> None:
        self._administer("lab-basic", enabled=json.dumps(enabled))

    async def sign_in(self, person: BrowserUser, tab: int = 0) -> None:
        await person.do("fill", tab=tab, selector="#username", value=self.user)
        await person.do("fill", tab=tab, selector="#password", value=self.password)
        await person.do("click", tab=tab, selector="#submit")

    def rotate_key(self) -> None:
        self._administer("key")

    def _administer(self, what: str, **changes: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("POST", f"/admin/{what}?{urlencode(changes)}")
            response = connection.getresponse()
            assert response.status == 200, response.read()

    def _settings(self) -> dict[str, Any]:
        return {
            "Issuer": f"{self.public_url}/",
            "Listen": f"127.0.0.1:{self.port}",
            "Lifetime": TOKEN_LIFETIME,
            # An ID token beside an access token names the subject alone.
            "User": {"ID": self.user, "Username": self.user, "Password": self.password},
            "Clients": [*map(self._machine, self.client_ids), self._web(), _PLATFORM],
        }

    def _machine(self, method: str) -> dict[str, Any]:
        return {
            "ID": self.client_ids[method],
            "Secret": self._secret(method),
            "Method": method,
            "Grants": ["client_credentials"],
        }

    def _web(self) -> dict[str, Any]:
        return {
            "ID": "hospital-web",
            "Secret": "secret-of-hospital-web",
            "Method": "client_secret_basic",
            "Grants": ["authorization_code", "refresh_token"],
            "Redirects": [f"{self.gateway}/auth/callback"],
            "SignOuts": [f"{self.gateway}/"],
        }


_PLATFORM = {
    "ID": "platform",
    "Secret": "secret-of-the-platform",
    "Method": "client_secret_basic",
}
