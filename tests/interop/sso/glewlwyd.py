"""Glewlwyd (Debian): access tokens `at+jwt`, pairwise `sub`, everything below a path.

It refuses clients with 403 and an empty body.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, ClassVar
from urllib.request import HTTPCookieProcessor, OpenerDirector, ProxyHandler, Request, build_opener

import aiohttp
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey

from tests.browser.conftest import BrowserUser
from tests.doubles.processes import start
from tests.interop.sso.debian import Package
from tests.interop.sso.server import TOKEN_LIFETIME, SsoServer

_GLEWLWYD = Package("glewlwyd", "/usr/bin/glewlwyd")
_SCHEMA = "/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3"
_WEB_PAGES = "/usr/share/glewlwyd/webapp"
# In the package, the name of the pages' own settings leads to their folder.
_WEB_SETTINGS = "/etc/glewlwyd/config-2.7.json/config.json"
_ADMINISTRATOR = {"username": "admin", "password": "password"}
_BASIC_SECRET = "secret+of/lab=basic%20&x"
_WEB_SECRET = "secret+of/web=%20&x"
_SETTINGS = """
port = {port}
bind_address = "127.0.0.1"
external_url = "{public_url}"
login_url = "login.html"
api_prefix = "api"
log_mode = "file"
log_level = "WARNING"
log_file = "{directory}/glewlwyd.log"
cookie_secure = 0
session_expiration = 2419200
session_key = "GLEWLWYD2_SESSION_ID"
admin_session_authentication = "cookie"
profile_session_authentication = "cookie"
login_api_enabled = true
admin_scope = "g_admin"
profile_scope = "g_profile"
user_module_path = "/usr/lib/glewlwyd/user"
client_module_path = "/usr/lib/glewlwyd/client"
user_auth_scheme_module_path = "/usr/lib/glewlwyd/scheme"
plugin_module_path = "/usr/lib/glewlwyd/plugin"
hash_algorithm = "SHA512"
database = {{ type = "sqlite3"; path = "{directory}/glewlwyd.db"; }}
static_files_path = "{directory}/pages"
static_files_mime_types = (
  {{ extension = ".html"; mime_type = "text/html" }},
  {{ extension = ".css"; mime_type = "text/css" }},
  {{ extension = ".js"; mime_type = "application/javascript" }},
  {{ extension = ".json"; mime_type = "application/json" }}
)
"""


@dataclass(slots=True)
class Glewlwyd(SsoServer):
    """Clients and keys are changed by the administrator, over HTTP."""

    name: ClassVar[str] = "Glewlwyd"
    second_secret: ClassVar[str] = _BASIC_SECRET
    scope: ClassVar[str] = "fhir"
    web_client: ClassVar[dict[str, str]] = {"client_secret": _WEB_SECRET, "scope": "openid"}

    not_offered: ClassVar[dict[str, str]] = {
        "sign_out": "its sign-out needs an id_token_hint, and no token is put into an address",
        "sign_out_at_the_sso": "without an id_token_hint it tells no client",
    }

    secret: str = "secret+of/lab=post%20&x"
    signing_keys: list[dict[str, Any]] = field(default_factory=list)

    def version(self) -> str:
        return _GLEWLWYD.version()

    def start(self) -> None:
        _GLEWLWYD.require()
        is_new = not self.signing_keys
        if is_new:
            self._prepare()
        self.process = start(
            [_GLEWLWYD.file, "--config-file", self.directory / "glewlwyd.conf"],
            self.directory,
            environment={"no_proxy": "127.0.0.1"},
            name="glewlwyd",
        )
        self.process.wait_until_listening(self.port)
        if is_new:
            self._register()

    def sso_settings(self) -> dict[str, Any]:
        issuer = f"{self.public_url}/api/oidc"
        return {
            "issuer": issuer,
            "token_url": f"{issuer}/token",
            "authorize_url": f"{issuer}/auth",
        }

    async def accepts(self, token: str) -> bool:
        async with aiohttp.request("GET", f"http://127.0.0.1:{self.port}/api/oidc/jwks") as answer:
            keys = KeySet.import_key_set(await answer.json())
        try:
            claims = jwt.decode(token, keys, algorithms=["RS256"]).claims
            registry = jwt.JWTClaimsRegistry(leeway=1, exp={"essential": True})
            registry.validate(claims)
        except (JoseError, ValueError):
            return False
        return bool(claims["iss"] == self.sso_settings()["issuer"])

    def change_secret(self) -> str:
        self.secret = f"{self.secret}{time.time_ns()}"
        self._change_client(client_secret=self.secret)
        return self.secret

    def enable_client(self, *, enabled: bool) -> None:
        self._change_client(enabled=enabled)

    async def sign_in(self, person: BrowserUser, tab: int = 0) -> None:
        # A user whose session lives on there is asked to continue, without the password.
        first = "input[name=username], button:has-text('Continue')"
        await person.do("wait", tab=tab, selector=first)
        if await person.run("document.querySelector('input[name=username]') !== null", tab=tab):
            await person.do("fill", tab=tab, selector="input[name=username]", value=self.user)
            await person.do("fill", tab=tab, selector="input[name=password]", value=self.password)
            await person.do("click", tab=tab, selector="button[type=submit]")
        await person.do("click", tab=tab, selector="button:has-text('Continue')")

    def rotate_key(self) -> None:
        self._add_key()
        administrator = self._administrator()
        plugin = administrator.call("GET", "mod/plugin/oidc")
        plugin["parameters"]["jwks-private"] = self._jwks()
        administrator.call("PUT", "mod/plugin/oidc", plugin)
        administrator.call("PUT", "mod/plugin/oidc/reset")

    def _add_key(self) -> None:
        kid = f"key-{len(self.signing_keys)}"
        key = RSAKey.generate_key(2048, {"kid": kid, "use": "sig", "alg": "RS256"})
        self.signing_keys.insert(0, dict(key.as_dict(private=True)))

    def _jwks(self) -> str:
        return json.dumps({"keys": self.signing_keys})

    def _prepare(self) -> None:
        self._add_key()
        settings = _SETTINGS.format(
            port=self.port, public_url=self.public_url, directory=self.directory
        )
        (self.directory / "glewlwyd.conf").write_text(settings)
        pages = self.directory / "pages"
        shutil.copytree(_WEB_PAGES, pages, ignore=lambda *_: ["config.json"])
        shutil.copy(_WEB_SETTINGS, pages)
        database = sqlite3.connect(self.directory / "glewlwyd.db")
        database.executescript(Path(_SCHEMA).read_text())
        database.close()

    def _register(self) -> None:
        administrator = self._administrator()
        scope = {"name": "fhir", "display_name": "FHIR", "password_required": False, "scheme": {}}
        administrator.call("POST", "scope", scope)
        plugin = {"module": "oidc", "name": "oidc", "display_name": "OIDC"}
        administrator.call("POST", "mod/plugin", {**plugin, "parameters": self._parameters()})
        for client in self._clients():
            more = {"name": client["client_id"], "confidential": True, "enabled": True}
            administrator.call("POST", "client", {**client, **more})
        user = {"username": self.user, "password": self.password, "enabled": True}
        administrator.call("POST", "user", {**user, "scope": ["openid", "g_profile"]})

    def _parameters(self) -> dict[str, Any]:
        on = dict.fromkeys(
            (
                "allow-non-oidc",
                "auth-type-client-enabled",
                "auth-type-code-enabled",
                "auth-type-id-token-enabled",
                "auth-type-refresh-enabled",
                "back-channel-logout-allowed",
                "jwks-show",
                "pkce-allowed",
                "pkce-required",
                "refresh-token-rolling",
                "request-parameter-allow",
                "session-management-allowed",
            ),
            True,
        )
        username = {
            "name": "preferred_username",
            "user-property": "username",
            "type": "string",
            "mandatory": True,
            "on-demand": False,
            "scope": [],
        }
        return {
            **on,
            "iss": f"{self.public_url}/api/oidc",
            "jwt-type": "rsa",
            "jwt-key-size": "256",
            "jwks-private": self._jwks(),
            "client-jwks-parameter": "jwks",
            "access-token-duration": TOKEN_LIFETIME,
            "refresh-token-duration": 1209600,
            "refresh-token-one-use": "always",
            "code-duration": 600,
            "pkce-method-plain-allowed": False,
            "auth-type-token-enabled": False,
            "auth-type-none-enabled": False,
            "auth-type-password-enabled": False,
            "subject-type": "pairwise",
            "session-cookie-name": "GLEWLWYD2_OIDC_SID",
            "session-cookie-expiration": 2419200,
            "claims": [username],
            "scope": [],
        }

    def _clients(self) -> list[dict[str, Any]]:
        machine = {"authorization_type": ["client_credentials"], "scope": ["fhir"]}
        return [
            *(
                {
                    **machine,
                    "client_id": client_id,
                    "token_endpoint_auth_method": [method],
                    **self.registered_proof(method),
                }
                for method, client_id in self.client_ids.items()
            ),
            {
                "client_id": "hospital-web",
                "client_secret": _WEB_SECRET,
                "token_endpoint_auth_method": ["client_secret_basic", "client_secret_post"],
                "authorization_type": ["code", "refresh_token"],
                "scope": [],
                "redirect_uri": [f"{self.gateway}/auth/callback"],
                "backchannel_logout_uri": f"{self.gateway}/auth/backchannel-logout",
                "backchannel_logout_session_required": "1",
                "post_logout_redirect_uri": f"{self.gateway}/",
            },
        ]

    def _change_client(self, **changes: Any) -> None:
        administrator = self._administrator()
        path = f"client/{self.client_ids[self.client_auth_methods[0]]}"
        administrator.call("PUT", path, {**administrator.call("GET", path), **changes})

    def _administrator(self) -> _Administrator:
        return _Administrator(f"http://127.0.0.1:{self.port}/api/")


@dataclass(slots=True)
class _Administrator:
    """A signed-in session."""

    url: str
    _opener: OpenerDirector = field(
        default_factory=lambda: build_opener(ProxyHandler({}), HTTPCookieProcessor(CookieJar()))
    )

    def __post_init__(self) -> None:
        self.call("POST", "auth", _ADMINISTRATOR)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the JSON of the response, None where there is none."""
        request = Request(  # noqa: S310 - http
            self.url + path,
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"},
            method=method,
        )
        with self._opener.open(request) as response:
            text = response.read()
        return json.loads(text) if text else None
