"""An SSO for users that responds as a test specifies: a certified one would refuse to misbehave.

    async with Provider(openid=True) as sso:
        sso.user_tokens(token("for-the-doctor", refresh_token="again"))

The gateway's own credential gets numbered tokens; `user_requests` are the token requests for users.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.doubles.platform import Platform
from tests.doubles.sso import ReceivedRequest, ScriptedResponse, Sso, json_body, status, token
from tests.login.stage import CLIENT_ID, Browser, Page, Stage, stage

_KEY = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True)
# Characters of Hydra's `MinParameterEntropy`.
_MIN_ENTROPY = 8


class Provider(Sso):
    """An SSO; with `openid` it serves a discovery document and keys.

    They are below `path`; `slash` is the final one of the issuer. `says` is added to the document,
    whose members that are None are left out; `page` replaces the response of the authorization
    endpoint. `jwks` are published beside `keys`.
    """

    def __init__(
        self, *, openid: bool = False, names_issuer: bool = False, path: str = "", slash: str = ""
    ) -> None:
        super().__init__()
        self.openid = openid
        self.path = path
        self.slash = slash
        self.jwks: list[dict[str, Any]] = []
        self.names_issuer = names_issuer
        self.keys = [_KEY]
        self.says: dict[str, Any] = {}
        self.page: ScriptedResponse | None = None
        self.user_requests: list[ReceivedRequest] = []
        self.revocations: list[ReceivedRequest] = []
        self.revoking: ScriptedResponse = status(200)
        self._for_users: deque[ScriptedResponse] = deque()

    @property
    def issuer(self) -> str:
        return f"{self.base}{self.slash}"

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base(self) -> str:
        return f"{self.origin}{self.path}"

    def user_tokens(self, *answers: ScriptedResponse) -> None:
        """Give each of the next token requests for users one of these responses."""
        self._for_users.extend(answers)

    def clear_user_tokens(self) -> None:
        self._for_users.clear()

    def response_to(self, request: ReceivedRequest) -> ScriptedResponse:
        if request.target == f"{self.path}/.well-known/openid-configuration" and self.openid:
            return json_body(self._document())
        if "/.well-known/" in request.target:
            return status(404)
        if request.target == f"{self.path}/jwks":
            keys = [key.as_dict(private=False) for key in self.keys]
            return json_body({"keys": [*self.jwks, *keys]})
        if request.target == f"{self.path}/revoke":
            self.revocations.append(request)
            return self.revoking
        if "response_type=code" in request.target:
            return self.page or self._agreed(dict(parse_qsl(urlsplit(request.target).query)))
        if request.form.get("grant_type") == "client_credentials":
            return super().response_to(request)
        self.user_requests.append(request)
        return self._for_users.popleft() if self._for_users else token("for-a-person")

    def _document(self) -> dict[str, Any]:
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.base}/found/authorize",
            "jwks_uri": f"{self.base}/jwks",
            "end_session_endpoint": f"{self.base}/bye",
            "token_endpoint": self.token_url,
            "revocation_endpoint": f"{self.base}/revoke",
            "authorization_response_iss_parameter_supported": self.names_issuer,
            **self.says,
        }
        return {name: value for name, value in document.items() if value is not None}

    def _agreed(self, asked: dict[str, str]) -> ScriptedResponse:
        """Redirect the browser back at once, without a page of its own.

        What Ory Hydra 2.3 refuses is refused here: a short `state`, a short `nonce` (there at the
        token endpoint), and with its `oauth2.pkce.enforced` a request without PKCE by S256.
        """
        answer = {"code": "planted-code"}
        if len(asked.get("state", "")) < _MIN_ENTROPY:
            answer = {"error": "invalid_state"}
        elif "openid" in asked.get("scope", "") and len(asked.get("nonce", "")) < _MIN_ENTROPY:
            answer = {"error": "insufficient_entropy"}
        elif asked.get("code_challenge_method") != "S256" or "code_challenge" not in asked:
            answer = {"error": "invalid_request"}
        query = urlencode({**answer, "state": asked.get("state", "")})
        return status(302, ("Location", f"{asked['redirect_uri']}?{query}"))

    def logout_token(self, /, key: RSAKey | None = None, alg: str = "RS256", **claims: Any) -> str:
        """Return a valid logout token, but for the claims that a test changes; None omits one."""
        now = int(time.time())
        valid = {
            "iat": now,
            "exp": now + 120,
            "jti": secrets.token_hex(8),
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        }
        chosen = key or self.keys[0]
        header = {"alg": alg, "typ": "logout+jwt", "kid": chosen.kid or ""}
        return self._signed(header, {**valid, **claims}, chosen)

    def id_token(
        self,
        nonce: str | None,
        /,
        key: RSAKey | None = None,
        alg: str = "RS256",
        **claims: Any,
    ) -> str:
        """Return a valid ID token, but for the claims that a test changes; None omits one."""
        now = int(time.time())
        valid = {"name": "Karimova D.", "iat": now, "exp": now + 300, "nonce": nonce}
        chosen = key or self.keys[0]
        header = {"alg": alg, "kid": chosen.kid} if chosen.kid else {"alg": alg}
        return self._signed(header, {**valid, **claims}, chosen)

    def _signed(self, header: dict[str, str], claims: dict[str, Any], key: RSAKey) -> str:
        plain = {"iss": self.issuer, "aud": CLIENT_ID, "sub": "person-7", **claims}
        held = {name: value for name, value in plain.items() if value is not None}
        return jwt.encode(header, held, key, algorithms=[header["alg"]])


@dataclass
class LoginSetup:
    """The doubles, the gateway between them, and a browser."""

    sso: Provider
    platform: Platform
    scene: Stage
    browser: Browser

    async def wait_until_read(self) -> None:
        """Read until the token is renewed."""
        while (await self.browser.get("/fhir/Patient/1")).status == 503:  # noqa: ASYNC110 - asks
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def between_doubles(*, openid: bool = False, **sections: Any) -> AsyncIterator[LoginSetup]:
    """Yield a gateway whose login is enabled, with some sections of its settings changed."""
    async with (
        Provider(openid=openid) as sso,
        Platform() as platform,
        stage(platform.url, sso.token_url, sso.issuer, **sections) as scene,
    ):
        yield LoginSetup(sso, platform, scene, await scene.browser())


def back(begun: Page, **answer: str) -> str:
    """Return the path of the callback with the state, a code and the parameters of the test."""
    return "/auth/callback?" + urlencode(
        {"code": "a-code", "state": begun.query["state"], **answer}
    )


async def signed_in(browser: Browser, return_to: str = "/fhir/Patient", **answer: str) -> Page:
    """Sign in without a visit to the SSO's page. Return the page after the callback."""
    return await browser.open(back(await browser.begin(return_to), **answer))
