"""Ory Hydra (Go): opaque tokens, and pages for users that are somebody else's (`hydra_pages.py`).

A client has one method, and is never disabled but deleted.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tests.browser.conftest import BrowserUser
from tests.doubles.processes import Process, free_port, start
from tests.environments import go_program, output_of
from tests.interop.sso.configured import is_active, version_of_module
from tests.interop.sso.server import TOKEN_LIFETIME, SsoServer

HERE = Path(__file__).parent
_MODULE = HERE / "hydra"
# Seconds.
_PATIENCE = 240


@dataclass(slots=True)
class Hydra(SsoServer):
    """Its database is a file; clients and keys are changed at its admin listener."""

    name: ClassVar[str] = "Ory Hydra"
    scope: ClassVar[str] = "fhir"
    web_client: ClassVar[dict[str, str]] = {
        # Hydra's own default, unlike the gateway's.
        "auth_method": "client_secret_basic",
        "client_secret": "secret of hospital-web/:+%",
        "scope": "openid offline_access",
    }
    second_secret: ClassVar[str] = "secret of lab-basic/:+%"

    secret: str = "secret of lab-post/:+%"
    # Where users reach another gateway of the same client.
    second_gateway: str = field(default_factory=lambda: f"http://127.0.0.1:{free_port()}")
    admin_port: int = field(default_factory=free_port)
    pages_port: int = field(default_factory=free_port)
    pages: Process | None = None

    def version(self) -> str:
        return version_of_module(_MODULE, "github.com/ory/hydra/v2")

    def start(self) -> None:
        program = go_program(_MODULE)
        is_new = self.pages is None
        command = [program, "serve", "all", "--dev", "--sqa-opt-out"]
        settings = self._write("hydra.json", self._settings())
        if is_new:
            output_of([program, "migrate", "sql", "up", "-e", "--yes", "--config", settings])
        self.process = start([*command, "--config", settings], self.directory, name="hydra")
        told = {"admin": self._admin, "port": self.pages_port}
        told |= {"user": self.user, "password": self.password}
        pages = [sys.executable, HERE / "hydra_pages.py", self._write("pages.json", told)]
        self.pages = start(pages, self.directory, name="pages")
        for port in (self.port, self.admin_port):
            self.process.wait_until_listening(port)
        self.pages.wait_until_listening(self.pages_port)
        if is_new:
            # It makes its key now, of 4,096 bits, which takes seconds on a busy machine.
            self._call(self.port, "GET", "/.well-known/jwks.json")
            for client in (*map(self._machine, self.client_ids), self._web()):
                self.administer("POST", "clients", client)

    def stop(self) -> None:
        # A class with slots has no `super` without arguments.
        SsoServer.stop(self)
        if self.pages is not None:
            self.pages.terminate()

    def sso_settings(self) -> dict[str, Any]:
        return {"issuer": self.public_url, "token_url": f"{self.public_url}/oauth2/token"}

    async def accepts(self, token: str) -> bool:
        return await is_active(f"{self._admin}/admin/oauth2/introspect", token)

    def change_secret(self) -> str:
        self.secret = f"{self.secret}-{time.time_ns()}"
        changed = {"op": "replace", "path": "/client_secret", "value": self.secret}
        self.administer("PATCH", f"clients/{self._first_client}", [changed])
        return self.secret

    def enable_client(self, *, enabled: bool) -> None:
        if enabled:
            self.administer("POST", "clients", self._machine(self.client_auth_methods[0]))
        else:
            self.administer("DELETE", f"clients/{self._first_client}")

    def login_settings(self) -> dict[str, Any]:
        # Hydra takes a `post_logout_redirect_uri` only with an `id_token_hint`.
        return {"client_id": "hospital-web", **self.web_client}

    async def sign_in(self, person: BrowserUser, tab: int = 0) -> None:
        await person.do("fill", tab=tab, selector="#username", value=self.user)
        await person.do("fill", tab=tab, selector="#password", value=self.password)
        await person.do("click", tab=tab, selector="#sign-in")
        await person.do("click", tab=tab, selector="#agree")

    async def confirm_sign_out(self, person: BrowserUser, tab: int = 0) -> None:
        await person.do("click", tab=tab, selector="#sign-out")
        await person.do("arrive", tab=tab, url=f"{self.gateway}/")

    async def sign_out(self, person: BrowserUser, tab: int = 0) -> None:
        await person.do("open", tab=tab, url=f"{self.public_url}/oauth2/sessions/logout")
        await self.confirm_sign_out(person, tab)

    def rotate_key(self) -> None:
        new = {"alg": "RS256", "use": "sig", "kid": f"key-{time.time_ns()}"}
        self.administer("POST", "keys/hydra.openid.id-token", new)

    def administer(self, method: str, path: str, body: Any = None) -> None:
        self._call(self.admin_port, method, f"/admin/{path}", json.dumps(body))

    def _call(self, port: int, method: str, path: str, body: str | None = None) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
        with contextlib.closing(connection):
            headers = {"Content-Type": "application/json"}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read()
        assert response.status < 400, f"{method} {path}: {response.status} {content!r}"

    @property
    def _admin(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def _first_client(self) -> str:
        return self.client_ids[self.client_auth_methods[0]]

    def _write(self, name: str, settings: dict[str, Any]) -> Path:
        file = self.directory / name
        file.write_text(json.dumps(settings))
        return file

    def _settings(self) -> dict[str, Any]:
        pages = f"http://127.0.0.1:{self.pages_port}"
        here = {"host": "127.0.0.1", "request_log": {"disable_for_health": True}}
        return {
            "dsn": f"sqlite://{self.directory / 'hydra.db'}?_fk=true",
            "log": {"level": "warn"},
            "serve": {
                "public": {**here, "port": self.port},
                "admin": {**here, "port": self.admin_port},
            },
            "urls": {
                "self": {"issuer": self.public_url},
                "login": f"{pages}/login",
                "consent": f"{pages}/consent",
                "logout": f"{pages}/logout",
                "post_logout_redirect": f"{self.gateway}/",
            },
            "oauth2": {"pkce": {"enforced": True}},
            "secrets": {"system": ["the-secret-of-the-whole-system"]},
            "ttl": {"access_token": f"{TOKEN_LIFETIME}s"},
        }

    def _machine(self, method: str) -> dict[str, Any]:
        signs = {"token_endpoint_auth_signing_alg": "ES384"} if method == "private_key_jwt" else {}
        return {
            "client_id": self.client_ids[method],
            "grant_types": ["client_credentials"],
            "scope": self.scope,
            "token_endpoint_auth_method": method,
            **self.registered_proof(method),
            **signs,
        }

    def _web(self) -> dict[str, Any]:
        return {
            "client_id": "hospital-web",
            "client_secret": self.web_client["client_secret"],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "scope": self.web_client["scope"],
            "redirect_uris": [f"{e}/auth/callback" for e in (self.gateway, self.second_gateway)],
            "backchannel_logout_uri": f"{self.gateway}/auth/backchannel-logout",
            "backchannel_logout_session_required": True,
        }
