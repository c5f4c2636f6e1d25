"""oidc-provider (npm), OpenID-certified: JWTs for one audience, all methods of authentication."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
from joserfc.jwk import RSAKey
from multidict import CIMultiDict, CIMultiDictProxy

from tests.browser.conftest import Person
from tests.doubles.processes import Process, start
from tests.interop.bearer_guard import BearerGuard
from tests.interop.sso.server import TOKEN_LIFETIME, SsoServer
from tests.interop.stages import AUDIENCE
from tests.node import node_with_packages

HERE = Path(__file__).parent
_IDS = {
    "client_secret_post": "lab-post",
    "client_secret_basic": "lab-basic",
    "private_key_jwt": "lab-ec",
}


@dataclass(slots=True)
class OidcProvider(SsoServer):
    """Clients and keys stand in its settings file, which it reads again with SIGHUP."""

    name: ClassVar[str] = "oidc-provider"
    client_auth_methods: ClassVar[tuple[str, ...]] = tuple(_IDS)

    secret: str = "secret-of-lab/1+%"
    is_enabled: bool = True
    signing_keys: list[dict[str, Any]] = field(default_factory=list)
    process: Process | None = None

    def version(self) -> str:
        package = HERE.parent / "node_modules" / "oidc-provider" / "package.json"
        return str(json.loads(package.read_text())["version"])

    def start(self) -> None:
        node = node_with_packages(HERE.parent)
        if not self.signing_keys:
            self._add_key()
        self._write()
        script = HERE / "oidc_provider.mjs"
        self.process = start([node, script, self._file], self.directory, name="oidc-provider")
        self.process.first_line()

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()

    def sso_settings(self) -> dict[str, Any]:
        return {"issuer": self.public_url, "token_url": f"{self.public_url}/token"}

    def credential(self, method: str) -> dict[str, Any]:
        client_id = _IDS[method]
        proof = (
            {"private_key_file": str(self.keys.path(client_id))}
            if method == "private_key_jwt"
            else {"client_secret": self._secret(method)}
        )
        return {"client_id": client_id, "auth_method": method, **proof}

    async def accepts(self, token: str) -> bool:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.public_url}/jwks") as answer,
        ):
            guard = BearerGuard(await answer.json(), self.public_url, AUDIENCE)
        headers = CIMultiDict({"Authorization": f"Bearer {token}"})
        return guard(CIMultiDictProxy(headers)) is None

    def change_secret(self) -> str:
        self.secret = f"{self.secret}-{time.time_ns()}"
        self._read_again()
        return self.secret

    def enable_client(self, *, enabled: bool) -> None:
        self.is_enabled = enabled
        self._read_again()

    def login_settings(self) -> dict[str, Any]:
        return {
            "client_id": "hospital-web",
            "scope": "openid",
            "post_logout_redirect_uri": f"{self.gateway}/",
        }

    async def sign_in(self, person: Person, tab: int = 0) -> None:
        await person.do("fill", tab=tab, selector="input[name=login]", value=self.user)
        await person.do("fill", tab=tab, selector="input[name=password]", value=self.password)
        await person.do("click", tab=tab, selector="button[type=submit]")
        await person.do("wait", tab=tab, selector="button", text="Continue")
        await person.do("click", tab=tab, selector="button[type=submit]")

    async def confirm_sign_out(self, person: Person, tab: int = 0) -> None:
        await person.do("click", tab=tab, selector="button[value=yes]")

    async def sign_out(self, person: Person, tab: int = 0) -> None:
        await person.do("open", tab=tab, url=f"{self.public_url}/session/end")
        await person.do("click", tab=tab, selector="button[value=yes]")
        await person.do("wait", tab=tab, selector="body", text="Sign-out Success")

    def rotate_key(self) -> None:
        self._add_key()
        self._read_again()

    @property
    def _file(self) -> Path:
        return self.directory / "oidc-provider.json"

    def _secret(self, method: str) -> str:
        return self.secret if method == self.client_auth_methods[0] else "secret-of-lab-basic+%/="

    def _add_key(self) -> None:
        kid = f"key-{len(self.signing_keys)}"
        key = RSAKey.generate_key(2048, {"kid": kid, "use": "sig", "alg": "RS256"})
        self.signing_keys.insert(0, dict(key.as_dict(private=True)))

    def _read_again(self) -> None:
        assert self.process is not None
        self._write()
        before = self.process.stdout.count("ready")
        self.process.popen.send_signal(signal.SIGHUP)
        while self.process.stdout.count("ready") == before:
            time.sleep(0.02)

    def _write(self) -> None:
        settings = {
            "port": self.port,
            "issuer": self.public_url,
            "clients": self._clients(),
            "keys": self.signing_keys,
            "lifetime": TOKEN_LIFETIME,
            "audience": AUDIENCE,
        }
        self._file.write_text(json.dumps(settings))

    def _clients(self) -> list[dict[str, Any]]:
        machines = [
            {
                "client_id": client_id,
                "token_endpoint_auth_method": method,
                "grant_types": ["client_credentials"],
                "redirect_uris": [],
                "response_types": [],
                **(
                    {"jwks": self.keys.registered(client_id)}
                    if method == "private_key_jwt"
                    else {"client_secret": self._secret(method)}
                ),
            }
            for method, client_id in _IDS.items()
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
