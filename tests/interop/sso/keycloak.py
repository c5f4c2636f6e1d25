"""Keycloak: JWTs, an issuer below a path, refresh tokens of single use, back-channel logout."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode

import aiohttp

from tests.browser.conftest import BrowserUser
from tests.doubles.processes import start
from tests.environments import installed_program, maven_package
from tests.interop.sso.server import TOKEN_LIFETIME, SsoServer

HERE = Path(__file__).parent
_REALM = "hospital"
_OPENS = ("java.util", "java.util.concurrent", "java.security", "java.lang")
# What its own script starts it with; that it was built says that the distribution's options do.
_JVM = (
    *("-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dkc.config.built=true"),
    *("-Djava.util.logging.manager=org.jboss.logmanager.LogManager",),
    *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENS),
)
# Seconds; its start is work for two cores, and the machine may be busy.
_PATIENCE = 480
_SECRETS = {
    "client_secret_post": "secret-of-lab-post/1+%",
    "client_secret_basic": "secret-of-lab-basic+%/=",
    "web": "secret-of-hospital-web+%",
    "operator": "secret-of-the-operator",
}


@dataclass(slots=True)
class Keycloak(SsoServer):
    """Its realm is imported at the first start; then an operator's client changes it."""

    name: ClassVar[str] = "Keycloak"
    client_ids: ClassVar[dict[str, str]] = {
        **SsoServer.client_ids,
        "private_key_jwt": "lab-rsa",
    }
    web_client: ClassVar[dict[str, str]] = {"scope": "openid"}
    second_secret: ClassVar[str] = _SECRETS["client_secret_basic"]

    secret: str = _SECRETS["client_secret_post"]
    keys_added: int = 0

    def version(self) -> str:
        return self._distribution().name.removeprefix("keycloak-")

    def start(self) -> None:
        self._lay_out()
        command = [installed_program("java"), *_JVM, f"-Dkc.home.dir={self.directory}"]
        command += [f"-Djboss.server.config.dir={self.directory / 'conf'}"]
        command += ["-cp", str(self.directory / "lib" / "quarkus-run.jar")]
        options = {
            "http-enabled": "true",
            "http-host": "127.0.0.1",
            "http-port": self.port,
            "hostname": self.public_url,
            "cache": "local",
        }
        main = ("io.quarkus.bootstrap.runner.QuarkusEntryPoint", "start", "--import-realm")
        arguments = [f"--{name}={value}" for name, value in options.items()]
        self.process = start([*command, *main, *arguments], self.directory, name="keycloak")
        deadline = time.monotonic() + _PATIENCE
        while not self._answers():
            if self.process.ended or time.monotonic() > deadline:
                raise self.process.failure("Keycloak does not answer")
            time.sleep(0.1)

    def sso_settings(self) -> dict[str, Any]:
        return {"issuer": self._issuer, "token_url": f"{self._protocol}/token"}

    async def accepts(self, token: str) -> bool:
        form = {"token": token, "client_id": "operator", "client_secret": _SECRETS["operator"]}
        async with aiohttp.request(
            "POST", f"{self._protocol}/token/introspect", data=form
        ) as answer:
            return bool((await answer.json())["active"])

    def change_secret(self) -> str:
        self.secret = f"{self.secret}-{time.time_ns()}"
        self._change_client(secret=self.secret)
        return self.secret

    def enable_client(self, *, enabled: bool) -> None:
        self._change_client(enabled=enabled)

    def login_settings(self) -> dict[str, Any]:
        # The SSO does not know the new one yet.
        file = self.directory / "web.secret"
        file.touch(mode=0o600)
        file.write_text(f"the-next-secret\n{_SECRETS['web']}\n")
        # A class with slots has no `super` without arguments.
        return {**SsoServer.login_settings(self), "client_secret_file": str(file)}

    async def sign_in(self, person: BrowserUser, tab: int = 0) -> None:
        await person.do("fill", tab=tab, selector="#username", value=self.user)
        await person.do("fill", tab=tab, selector="#password", value=self.password)
        await person.do("click", tab=tab, selector="#kc-login")

    async def sign_out(self, person: BrowserUser, tab: int = 0) -> None:
        await person.do("open", tab=tab, url=f"{self._protocol}/logout")
        await person.do("click", tab=tab, selector="#kc-logout")
        await person.do("wait", tab=tab, selector="body", text="You are logged out")

    def rotate_key(self) -> None:
        self.keys_added += 1
        settings = {"priority": 200 + self.keys_added, "algorithm": "RS256", "enabled": "true"}
        component = {
            "name": f"key-{self.keys_added}",
            "providerId": "rsa-generated",
            "providerType": "org.keycloak.keys.KeyProvider",
            "config": {name: [str(value)] for name, value in settings.items()},
        }
        self._administer("POST", "components", component)

    @property
    def _issuer(self) -> str:
        return f"{self.public_url}/realms/{_REALM}"

    @property
    def _protocol(self) -> str:
        return f"{self._issuer}/protocol/openid-connect"

    def _distribution(self) -> Path:
        return next(maven_package(HERE / "keycloak").glob("keycloak-*"))

    def _answers(self) -> bool:
        # The first token takes seconds where the machine is busy, which is not what rows are about.
        try:
            return self._administer("GET", "keys") is not None
        except (OSError, http.client.HTTPException):
            return False

    def _lay_out(self) -> None:
        """Make a home of its own, so that its data and the realm to import stand there."""
        distribution = self._distribution()
        for folder in ("lib", "conf", "themes", "providers"):
            link = self.directory / folder
            if not link.exists():
                link.symlink_to(distribution / folder)
        realm = self.directory / "data" / "import" / "realm.json"
        realm.parent.mkdir(parents=True, exist_ok=True)
        realm.write_text(json.dumps(self._realm()))

    def _realm(self) -> dict[str, Any]:
        return {
            "realm": _REALM,
            "enabled": True,
            "sslRequired": "none",
            "accessTokenLifespan": TOKEN_LIFETIME,
            "revokeRefreshToken": True,
            "refreshTokenMaxReuse": 0,
            # A few wrong passwords or secrets lock; nobody must cause that by having two.
            "bruteForceProtected": True,
            "failureFactor": 2,
            "clients": [*map(self._machine, self.client_auth_methods), self._web(), _OPERATOR],
            "users": [self._person(), _OPERATORS_ACCOUNT],
        }

    def _machine(self, method: str) -> dict[str, Any]:
        keys = json.dumps(self.keys.registered("lab-rsa"))
        proof = (
            {
                "clientAuthenticatorType": "client-jwt",
                "attributes": {"use.jwks.string": "true", "jwks.string": keys},
            }
            if method == "private_key_jwt"
            else {"secret": self._secret(method)}
        )
        return {
            "clientId": self.client_ids[method],
            "standardFlowEnabled": False,
            "serviceAccountsEnabled": True,
            "protocolMappers": [_AUDIENCE],
            **proof,
        }

    def _web(self) -> dict[str, Any]:
        return {
            "clientId": "hospital-web",
            "secret": _SECRETS["web"],
            "directAccessGrantsEnabled": False,
            "protocolMappers": [_AUDIENCE],
            "redirectUris": [f"{self.gateway}/auth/callback"],
            "attributes": {
                "pkce.code.challenge.method": "S256",
                "post.logout.redirect.uris": f"{self.gateway}/",
                "backchannel.logout.url": f"{self.gateway}/auth/backchannel-logout",
                "backchannel.logout.session.required": "true",
            },
        }

    def _person(self) -> dict[str, Any]:
        return {
            "username": self.user,
            "enabled": True,
            "firstName": "Dilnoza",
            "lastName": "Yusupova",
            "email": "dilnoza@hospital.example",
            "emailVerified": True,
            "credentials": [{"type": "password", "value": self.password}],
        }

    def _change_client(self, **changes: Any) -> None:
        client_id = self.client_ids[self.client_auth_methods[0]]
        [client] = self._administer("GET", f"clients?{urlencode({'clientId': client_id})}")
        self._administer("PUT", f"clients/{client['id']}", {**client, **changes})

    def _administer(self, method: str, path: str, body: Any = None) -> Any:
        form = {
            "grant_type": "client_credentials",
            "client_id": "operator",
            "client_secret": _SECRETS["operator"],
        }
        url = f"/realms/{_REALM}/protocol/openid-connect/token"
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        token = self._call("POST", url, kind, urlencode(form))["access_token"]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return self._call(method, f"/admin/realms/{_REALM}/{path}", headers, json.dumps(body))

    def _call(self, method: str, path: str, headers: Any = (), body: str | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            content = response.read()
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise http.client.HTTPException(f"{method} {path}: {response.status} {content!r}")
        return json.loads(content or b"null")


# It may introspect only tokens that name it.
_AUDIENCE = {
    "name": "audience",
    "protocol": "openid-connect",
    "protocolMapper": "oidc-audience-mapper",
    "config": {"included.client.audience": "operator", "access.token.claim": "true"},
}
_OPERATOR = {
    "clientId": "operator",
    "secret": _SECRETS["operator"],
    "standardFlowEnabled": False,
    "serviceAccountsEnabled": True,
}
_OPERATORS_ACCOUNT = {
    "username": "service-account-operator",
    "enabled": True,
    "serviceAccountClientId": "operator",
    "clientRoles": {"realm-management": ["realm-admin"]},
}
