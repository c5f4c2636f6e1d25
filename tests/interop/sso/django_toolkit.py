"""django-oauth-toolkit (PyPI): opaque tokens, URLs that end in `/`, an issuer below a path."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
from joserfc.jwk import RSAKey

from tests.browser.conftest import BrowserUser
from tests.doubles.processes import free_port
from tests.environments import python_with_packages
from tests.interop.sso.configured import ConfiguredServer, is_active
from tests.interop.sso.server import TOKEN_LIFETIME

HERE = Path(__file__).parent
_LOCK = HERE.parent / "django_toolkit.lock"
WEB, WEB_WITH_HS256 = "hospital-web", "hospital-web-hs256"
_WEB_SECRET = "the-secret-of-the-clients-whose-users-sign-in"
_RESOURCE_SERVER = ("platform", "secret-of-the-platform")


def _new_key() -> str:
    return RSAKey.generate_key(2048).as_pem(private=True).decode()


@dataclass(slots=True)
class DjangoToolkit(ConfiguredServer):
    """Refresh tokens serve once. It asks before it signs a user out, and tells no gateway of it."""

    name: ClassVar[str] = "django-oauth-toolkit"
    client_ids: ClassVar[dict[str, str]] = {
        "client_secret_basic": "lab-basic",
        "client_secret_post": "lab-post",
    }
    web_client: ClassVar[dict[str, str]] = {
        "client_secret": _WEB_SECRET,
        "scope": "openid profile",
    }
    second_secret: ClassVar[str] = "secret-of-lab-post+%/="
    has_back_channel: ClassVar[bool] = False
    not_offered: ClassVar[dict[str, str]] = {
        "private_key_jwt": "client_secret_basic and client_secret_post alone"
    }
    keys_that_sign: list[str] = field(default_factory=lambda: [_new_key()])
    # Where users reach the gateway whose client gets ID tokens by HS256.
    hs256_gateway: str = field(default_factory=lambda: f"http://127.0.0.1:{free_port()}")

    def version(self) -> str:
        lines = _LOCK.read_text().splitlines()
        return next(e for e in lines if e.startswith("django-oauth-toolkit=="))[22:].rstrip(" \\")

    def command(self) -> list[str | Path]:
        return [python_with_packages(_LOCK), HERE / "django_project.py"]

    def settings(self) -> dict[str, Any]:
        return {
            "database": str(self.directory / "db.sqlite3"),
            "keys": self.keys_that_sign,
            "lifetime": TOKEN_LIFETIME,
            "user": self.user,
            "password": self.password,
            "clients": self._clients(),
        }

    def sso_settings(self) -> dict[str, Any]:
        return {
            "issuer": f"{self.public_url}/o",
            "token_url": f"{self.public_url}/o/token/",
            "authorize_url": f"{self.public_url}/o/authorize/",
        }

    async def accepts(self, token: str) -> bool:
        login = aiohttp.encode_basic_auth(*_RESOURCE_SERVER)
        return await is_active(f"{self.public_url}/o/introspect/", token, Authorization=login)

    async def sign_in(self, person: BrowserUser, tab: int = 0) -> None:
        await person.do("fill", tab=tab, selector="input[name=username]", value=self.user)
        await person.do("fill", tab=tab, selector="input[name=password]", value=self.password)
        await person.do("click", tab=tab, selector="input[type=submit]")

    async def confirm_sign_out(self, person: BrowserUser, tab: int = 0) -> None:
        await person.do("click", tab=tab, selector="input[name=allow]")

    async def sign_out(self, person: BrowserUser, tab: int = 0) -> None:
        await person.do("open", tab=tab, url=f"{self.public_url}/o/logout/")
        await self.confirm_sign_out(person, tab)
        # There is no page where it leads then.
        await person.do("arrive", tab=tab, url=f"{self.public_url}/")

    def rotate_key(self) -> None:
        self.keys_that_sign.insert(0, _new_key())
        self.read_again()

    def _clients(self) -> list[dict[str, Any]]:
        machines = [
            (client_id, self._secret(method))
            for method, client_id in self.client_ids.items()
            if self.is_enabled or method != self.client_auth_methods[0]
        ]
        people = [
            {**_user_client(WEB, self.gateway), "algorithm": "RS256"},
            # The secret in clear is the key.
            {
                **_user_client(WEB_WITH_HS256, self.hs256_gateway),
                "algorithm": "HS256",
                "hash_client_secret": False,
            },
        ]
        return [*(_machine(*each) for each in [*machines, _RESOURCE_SERVER]), *people]


def _user_client(client_id: str, gateway: str) -> dict[str, Any]:
    return {
        **_machine(client_id, _WEB_SECRET),
        "authorization_grant_type": "authorization-code",
        "redirect_uris": f"{gateway}/auth/callback",
        "post_logout_redirect_uris": f"{gateway}/",
        "skip_authorization": True,
    }


def _machine(client_id: str, secret: str) -> dict[str, Any]:
    return {
        "client_id": client_id,
        "client_secret": secret,
        "client_type": "confidential",
        "authorization_grant_type": "client-credentials",
    }
