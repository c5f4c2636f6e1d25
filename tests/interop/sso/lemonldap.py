"""LemonLDAP::NG (Debian): opaque access tokens and JWTs, PKCE required, an issuer that ends in `/`.

The portal runs below Starman, a web server in Perl. It looks for new
settings once a second.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

import aiohttp
from joserfc.jwk import RSAKey

from tests.browser.conftest import BrowserUser
from tests.doubles.processes import start
from tests.interop.sso.debian import Package
from tests.interop.sso.server import TOKEN_LIFETIME, SsoServer

_PORTAL = Package("liblemonldap-ng-portal-perl", "/usr/share/lemonldap-ng/portal/htdocs/index.psgi")
_STARMAN = Package("starman", "/usr/bin/starman")
_BASIC_SECRET = "secret+of/lab=basic%20&x"
_WEB_SECRET = "secret+of/web=%20&x"
_PLATFORM_SECRET = "secret-of-the-platform"
_IS_NEW = _PORTAL.is_newer_than("2.20")
# Seconds, after which each worker looks for settings before it serves a request.
_SETTINGS_ARE_READ = 2.1
_SHARE = "/usr/share/lemonldap-ng/portal"
# Browsers take a cookie of an IP address only without a domain, and the portal names one always.
_APPLICATION = f"""
use Plack::Builder;
use Plack::Util;
use Lemonldap::NG::Portal::Main;
my $portal = Lemonldap::NG::Portal::Main->run({{}});
builder {{
  enable 'Static', path => sub {{ s!^/(static|favicon)!$1! }}, root => '{_SHARE}/htdocs';
  enable 'Static', path => sub {{ s!^/javascript/!! }}, root => '/usr/share/javascript';
  enable sub {{ my $app = shift; sub {{ Plack::Util::response_cb($app->(shift), sub {{
    s/; domain=[^;]*//i for @{{ $_[0][1] }};
  }}) }} }};
  $portal;
}};
"""
_INI = """[all]
logger = Lemonldap::NG::Common::Logger::Std
userLogger = Lemonldap::NG::Common::Logger::Std
logLevel = warn
checkTime = 1
[configuration]
type = File
dirName = {directory}/conf
[portal]
staticPrefix = /static
templateDir = /usr/share/lemonldap-ng/portal/templates
languages = en
[handler]
"""


@dataclass(slots=True)
class LemonLdap(SsoServer):
    """Each change is a file of settings with the next number."""

    name: ClassVar[str] = "LemonLDAP::NG"
    client_ids: ClassVar[dict[str, str]] = {
        method: client_id
        for method, client_id in SsoServer.client_ids.items()
        if _IS_NEW or method != "private_key_jwt"
    }
    second_secret: ClassVar[str] = _BASIC_SECRET
    scope: ClassVar[str] = "fhir"
    web_client: ClassVar[dict[str, str]] = {
        "client_secret": _WEB_SECRET,
        "scope": "openid profile email",
    }
    not_offered: ClassVar[dict[str, str]] = (
        {} if _IS_NEW else {"private_key_jwt": "since 2.20; Debian 12 has an older one"}
    )
    has_back_channel: ClassVar[bool] = _IS_NEW
    user: ClassVar[str] = "dwho"
    password: ClassVar[str] = "dwho"

    secret: str = "secret+of/lab=post%20&x"
    is_enabled: bool = True
    signing_keys: list[RSAKey] = field(default_factory=list)
    settings_number: int = 0

    def version(self) -> str:
        return _PORTAL.version()

    def start(self) -> None:
        _PORTAL.require()
        _STARMAN.require()
        if not self.signing_keys:
            self._prepare()
        self._launch()

    def sso_settings(self) -> dict[str, Any]:
        return {
            "issuer": f"{self.public_url}/",
            "token_url": f"{self.public_url}/oauth2/token",
            "authorize_url": f"{self.public_url}/oauth2/authorize",
        }

    async def accepts(self, token: str) -> bool:
        async with aiohttp.request(
            "POST",
            f"http://127.0.0.1:{self.port}/oauth2/introspect",
            data={
                "client_id": "platform",
                "client_secret": _PLATFORM_SECRET,
                "token": token,
            },
        ) as answer:
            return bool((await answer.json()).get("active"))

    def change_secret(self) -> str:
        self.secret = f"{self.secret}{self.settings_number}"
        self._write()
        return self.secret

    def enable_client(self, *, enabled: bool) -> None:
        self.is_enabled = enabled
        self._write()

    async def sign_in(self, person: BrowserUser, tab: int = 0) -> None:
        await person.do("fill", tab=tab, selector="input[name=user]", value=self.user)
        await person.do("fill", tab=tab, selector="input[name=password]", value=self.password)
        await person.do("click", tab=tab, selector="button[type=submit]")

    async def confirm_sign_out(self, person: BrowserUser, tab: int = 0) -> None:
        await person.do("click", tab=tab, selector="form#form button.positive")

    async def sign_out(self, person: BrowserUser, tab: int = 0) -> None:
        await person.do("open", tab=tab, url=f"{self.public_url}/?logout=1")
        await person.do("wait", tab=tab, selector="[trmsg='47']")

    def rotate_key(self) -> None:
        self._add_key()
        self._write()

    def _add_key(self) -> None:
        kid = f"key-{len(self.signing_keys)}"
        self.signing_keys.insert(0, RSAKey.generate_key(2048, {"kid": kid}))

    def _prepare(self) -> None:
        for name in ("conf", "sessions/lock", "psessions/lock"):
            (self.directory / name).mkdir(parents=True)
        (self.directory / "app.psgi").write_text(_APPLICATION)
        (self.directory / "lemonldap-ng.ini").write_text(_INI.format(directory=self.directory))
        self._add_key()
        self._write()

    def _launch(self) -> None:
        listen = f"127.0.0.1:{self.port}"
        # Each worker waits for the gateway while that asks another for the keys.
        command = [
            _STARMAN.file,
            "--listen",
            listen,
            "--workers",
            "3",
            "--preload-app",
            "--disable-keepalive",
        ]
        environment = {"LLNG_DEFAULTCONFFILE": str(self.directory / "lemonldap-ng.ini")}
        self.process = start(
            [*command, self.directory / "app.psgi"],
            self.directory,
            environment={**environment, "no_proxy": "127.0.0.1"},
            name="portal",
        )
        self.process.wait_until_listening(self.port)

    def _write(self) -> None:
        self.settings_number += 1
        file = self.directory / "conf" / f"lmConf-{self.settings_number}.json"
        new = file.with_suffix(".new")
        new.write_text(json.dumps(self._settings()))
        new.rename(file)
        if self.process is None:
            return
        if _IS_NEW:
            # It kept to the secret of before, however long one waited.
            self.stop()
            self._launch()
        else:
            time.sleep(_SETTINGS_ARE_READ)

    def _settings(self) -> dict[str, Any]:
        clients = self._clients()
        key = self.signing_keys[0]
        return {
            "cfgNum": self.settings_number,
            "cfgDate": self.settings_number,
            "cfgAuthor": "tests",
            "checkTime": 1,
            "portal": f"{self.public_url}/",
            "domain": "127.0.0.1",
            "cookieName": "lemonldap",
            "securedCookie": 0,
            "key": "0123456789abcdef",
            "authentication": "Demo",
            "userDB": "Same",
            "passwordDB": "",
            "registerDB": "Null",
            "demoExportedVars": {"cn": "cn", "mail": "mail", "uid": "uid"},
            "whatToTrace": "uid",
            "locationRules": {},
            "globalStorage": "Apache::Session::File",
            "globalStorageOptions": self._sessions("sessions"),
            "persistentStorage": "Apache::Session::File",
            "persistentStorageOptions": self._sessions("psessions"),
            "localSessionStorage": "",
            "loginHistoryEnabled": 0,
            "notification": 0,
            # Loaded always; its own module needs an image library, and a plugin without any does.
            "captcha": "::Plugins::History",
            "captcha_login_enabled": 0,
            "captcha_mail_enabled": 0,
            "captcha_register_enabled": 0,
            "portalDisplayResetPassword": 0,
            "portalDisplayRegister": 0,
            "issuerDBOpenIDConnectActivation": 1,
            "oidcServiceMetaDataAuthnContext": {"loa-1": 1},
            "oidcServiceAllowAuthorizationCodeFlow": 1,
            "oidcServiceIgnoreScopeForClaims": 0,
            "oidcServicePrivateKeySig": key.as_pem(private=True).decode(),
            "oidcServicePublicKeySig": key.as_pem(private=False).decode(),
            "oidcServiceKeyIdSig": key.kid,
            "oidcRPMetaDataOptions": {
                name: {f"oidcRPMetaDataOptions{option}": value for option, value in client.items()}
                for name, client in clients.items()
            },
            "oidcRPMetaDataExportedVars": {
                name: {"name": "cn", "email": "mail"} for name in clients
            },
        }

    def _sessions(self, name: str) -> dict[str, str]:
        directory = self.directory / name
        return {
            "Directory": str(directory),
            "LockDirectory": str(directory / "lock"),
            "generateModule": "Lemonldap::NG::Common::Apache::Session::Generate::SHA256",
        }

    def _clients(self) -> dict[str, dict[str, Any]]:
        machine = {"AllowClientCredentialsGrant": 1}
        clients = {
            method: {**machine, "ClientID": client_id, "ClientSecret": self._secret(method)}
            for method, client_id in self.client_ids.items()
        }
        clients["client_secret_basic"]["AccessTokenJWT"] = 1
        if "private_key_jwt" in clients:
            jwks = self.keys.registered(self.client_ids["private_key_jwt"])
            clients["private_key_jwt"] |= {
                "ClientSecret": "",
                "AuthMethod": "private_key_jwt",
                "Jwks": json.dumps(jwks),
            }
        if not self.is_enabled:
            del clients[self.client_auth_methods[0]]
        clients["platform"] = {"ClientID": "platform", "ClientSecret": _PLATFORM_SECRET}
        clients["web"] = {
            "ClientID": "hospital-web",
            "ClientSecret": _WEB_SECRET,
            "RequirePKCE": 1,
            "RefreshToken": 1,
            "RefreshTokenRotation": 1,
            "RedirectUris": f"{self.gateway}/auth/callback",
            "PostLogoutRedirectUris": f"{self.gateway}/",
            "LogoutType": "back",
            "LogoutUrl": f"{self.gateway}/auth/backchannel-logout",
            "LogoutSessionRequired": 1,
        }
        common = {
            "BypassConsent": 1,
            "AccessTokenExpiration": TOKEN_LIFETIME,
            "IDTokenExpiration": 3600,
            "IDTokenSignAlg": "RS256",
            "AccessTokenSignAlg": "RS256",
        }
        return {name: {**common, **client} for name, client in clients.items()}
