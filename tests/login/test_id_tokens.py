"""Which ID tokens sign a user in: by algorithm, keys, `kid` and kind of client."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from tests.doubles.platform import Platform
from tests.doubles.sso import json_body, token
from tests.login.provider import Provider, back, between_doubles
from tests.login.stage import CLIENT_ID, Browser, stage

SECRET: Final = "a-secret-of-the-web-client-0123456789-0123456789-0123456789-abcdefgh"
FORMER: Final = "a-former-secret-of-the-web-client-456789-0123456789-0123456789-abcde"
_ALGORITHMS: Final = {
    "RSA": ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
    "EC and OKP": ["ES256", "ES384", "ES512", "EdDSA", "Ed25519"],
    "secret or none": ["HS256", "HS384", "HS512", "none"],
}
_KINDS: Final = ["RSA", "P-256", "P-384", "P-521", "Ed25519"]


def _key(kind: str) -> Key:
    if kind == "RSA":
        return RSAKey.generate_key(2048)
    return OKPKey.generate_key(kind) if kind == "Ed25519" else ECKey.generate_key(kind)


_RIGHT: Final = {kind: _key(kind) for kind in _KINDS}
_WRONG: Final = {kind: _key(kind) for kind in _KINDS}
# Beside the SSO's keys of each kind: one for another use, and what is no public key.
_OTHERS: Final[list[dict[str, Any]]] = [
    {"kty": "oct", "k": base64.urlsafe_b64encode(b"published" * 8).decode()},
    {"kty": "XYZ", "kid": "XYZ"},
    {"kty": "RSA"},
    {"kty": "EC", "crv": "P-999", "x": "a", "y": "b"},
    {**RSAKey.generate_key(2048).as_dict(private=False), "use": "enc"},
]


def _kind(alg: str) -> str:
    by_name = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
    return by_name.get(alg, "RSA" if alg[1:2] == "S" else "Ed25519")


def _published(*, with_kid: bool) -> list[dict[str, Any]]:
    kids = {kind: {"kid": kind} if with_kid else {} for kind in _KINDS}
    keys = {kind: _RIGHT[kind].as_dict(private=False) for kind in _KINDS}
    return [*_OTHERS, *({**keys[kind], **kids[kind]} for kind in _KINDS)]


def _signed(sso: Provider, nonce: str, alg: str, key: Key | str, kid: str | None) -> str:
    claims = {
        "iss": sso.issuer,
        "aud": CLIENT_ID,
        "sub": "person-7",
        "exp": int(time.time()) + 300,
        "nonce": nonce,
    }
    header = {"alg": alg} if kid is None else {"alg": alg, "kid": kid}
    if alg == "none":
        parts = (json.dumps(part).encode() for part in (header, claims))
        head, body = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
        return f"{head}.{body}."
    chosen = OctKey.import_key(key) if isinstance(key, str) else key
    return jwt.encode(header, claims, chosen, algorithms=[alg])


@asynccontextmanager
async def browsing(sso: Provider, secret: str | None) -> AsyncIterator[Browser]:
    """A browser in front of a gateway whose client is confidential or, without secret, public."""
    login = {"scope": "openid", **({} if secret is None else {"client_secret": secret})}
    async with (
        Platform() as platform,
        stage(platform.url, sso.token_url, sso.issuer, login=login) as scene,
    ):
        yield await scene.browser()


async def sign_in(
    sso: Provider, browser: Browser, caplog: pytest.LogCaptureFixture, *how: Any
) -> str:
    """Return the word for why a sign-in with such an ID token failed, "" if it did not."""
    return (await refusal(sso, browser, caplog, *how)).partition(" ")[0]


async def refusal(
    sso: Provider, browser: Browser, caplog: pytest.LogCaptureFixture, *how: Any
) -> str:
    """Return what the log says of a sign-in with such an ID token, "" if it succeeded."""
    begun = await browser.begin()
    id_token = _signed(sso, begun.query["nonce"], *how)
    sso.user_tokens(token("opaque", id_token=id_token))
    caplog.clear()
    status = (await browser.open(back(begun))).status
    assert status in (302, 502)
    logged = [each.getMessage() for each in caplog.records if "id_token" in each.getMessage()]
    assert id_token not in caplog.text
    return "" if status == 302 else logged[0].rpartition("id_token: ")[2]


def expected(alg: str, keys: str, client: str, *, is_right: bool, kid: str | None) -> str:
    """Return the reason why an ID token is refused, "" if it is not: the rules, read anew."""
    if alg == "none" or (alg.startswith("HS") and client == "public"):
        return "alg"
    if alg.startswith("HS"):
        return "" if is_right else "signature"
    if keys == "none":
        return ""  # TLS to the token endpoint
    if keys == "with kid" and kid == "unknown":
        return "key"
    return "" if is_right else "signature"


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize("kind", _ALGORITHMS)
@pytest.mark.parametrize("keys", ["with kid", "without kid", "none"])
@pytest.mark.parametrize("client", ["confidential", "public"])
async def test_signatures_of_id_tokens(
    kind: str, keys: str, client: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Provider(openid=True) as sso:
        sso.keys = []
        sso.jwks = _published(with_kid=keys == "with kid")
        if keys == "none":
            sso.says["jwks_uri"] = None
        async with browsing(sso, SECRET if client == "confidential" else None) as browser:
            for alg in _ALGORITHMS[kind]:
                rows = [(True, _kind(alg)), (True, "unknown"), (True, None), (False, _kind(alg))]
                for is_right, kid in [*rows, (False, None)] if alg in ("RS256", "HS256") else rows:
                    key: Any = (_RIGHT if is_right else _WRONG)[_kind(alg)]
                    if alg.startswith("HS"):
                        key = SECRET if is_right else SECRET[:-1]
                    why = await sign_in(sso, browser, caplog, alg, key, kid)
                    row = (alg, keys, client, is_right, kid)
                    assert (row, why) == (
                        row,
                        expected(alg, keys, client, is_right=is_right, kid=kid),
                    )


async def test_a_published_symmetric_key_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    async with Provider(openid=True) as sso:
        sso.jwks = [*_OTHERS]
        for secret, reason in ((SECRET, "signature"), (None, "alg")):
            async with browsing(sso, secret) as browser:
                key = OctKey.import_key({"kty": "oct", "k": _OTHERS[0]["k"]})
                for kid in (sso.keys[0].kid, None):
                    assert await sign_in(sso, browser, caplog, "HS256", key, kid) == reason


async def test_both_secrets_verify_hs256(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n{FORMER}\n")
    file.chmod(0o600)
    login = {"scope": "openid", "client_secret_file": str(file)}
    async with between_doubles(openid=True, login=login) as setup:
        reasons = [
            await sign_in(setup.sso, setup.browser, caplog, "HS256", secret, None)
            for secret in (SECRET, FORMER, SECRET[::-1])
        ]
    assert reasons == ["", "", "signature"]


# What came, and what the log says of it. The SSO publishes one key.
REFUSALS: Final[dict[str, tuple[Any, ...]]] = {
    "signature (came: alg 'HS256', kid None; expected: KEYS; for HS: login.client_secret)": (
        *("HS256", SECRET[:-1], None),
    ),
    "key (came: alg 'RS256', kid 'another'; expected: KEYS; for HS: login.client_secret)": (
        *("RS256", _WRONG["RSA"], "another"),
    ),
    "key (came: alg 'PS256', kid None; expected: KEYS; for HS: login.client_secret)": (
        *("PS256", _WRONG["RSA"], None),
    ),
    "alg (came: alg 'none', kid None; expected: KEYS; for HS: login.client_secret)": (
        *("none", "", None),
    ),
    f"key (came: alg 'ES256', kid '{'k' * 63}; expected: KEYS; for HS: login.client_secret)": (
        *("ES256", _WRONG["P-256"], "k" * 300),
    ),
    r"key (came: alg 'RS256', kid '\u202e\n'; expected: KEYS; for HS: login.client_secret)": (
        *("RS256", _WRONG["RSA"], "\u202e\n"),
    ),
}


@pytest.mark.parametrize("words", REFUSALS)
async def test_the_log_says_what_signed_an_id_token_and_what_may(
    words: str, caplog: pytest.LogCaptureFixture
) -> None:
    published = {**_RIGHT["RSA"].as_dict(private=False), "alg": "RS256", "kid": "first"}
    async with Provider(openid=True) as sso, browsing(sso, SECRET) as browser:
        sso.keys, sso.jwks = [], [published]
        keys = "the SSO's keys: 'RSA' 'RS256' 'first'"
        said = await refusal(sso, browser, caplog, *REFUSALS[words])
        assert said == words.replace("KEYS", keys)


async def test_the_log_says_that_the_sso_has_no_keys_and_the_client_no_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Keyless(openid=True) as sso, browsing(sso, None) as browser:
        sso.key_set = {"keys": []}
        said = await refusal(sso, browser, caplog, "HS256", SECRET, None)
    assert said.endswith("expected: the SSO's keys: none; for HS: no login.client_secret)")


@pytest.mark.parametrize(
    ("id_token", "reason"),
    [
        ("", "form"),
        ("a.b.c", "form"),
        ("planted", "form"),
        ("e30.e30.", "form"),
        ("eyJhbGciOiJSUzI1NiJ9.W10.AA", "form"),
        ("eyJhbGciOiJSUzI1NiJ9.bm90LWpzb24.AA", "form"),
        ("eyJhbGciOlsiUlMyNTYiXX0.eyJhIjoxfQ.AA", "alg"),
        ("eyJhbGciOiJub25lIn0.eyJhIjoxfQ.", "alg"),
        ("eyJhbGciOiJFUzI1NksifQ.eyJhIjoxfQ.AA", "alg"),
        ("eyJhbGciOiJFUzI1NiJ9.eyJhIjoxfQ.AA", "key"),
        ("\ud800.e30.e30", "form"),
    ],
)
@pytest.mark.parametrize("has_keys", [True, False])
async def test_malformed_id_tokens_are_rejected(
    id_token: str, reason: str, has_keys: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with Provider(openid=True) as sso:
        if not has_keys:
            sso.says["jwks_uri"] = None
            reason = "aud" if reason == "key" else reason
        async with browsing(sso, SECRET) as browser:
            begun = await browser.begin()
            sso.user_tokens(token("opaque", id_token=id_token))
            with caplog.at_level(logging.WARNING):
                assert (await browser.open(back(begun))).status == 502
    assert f"id_token: {reason}" in caplog.text
    assert not id_token or id_token not in caplog.text


@pytest.mark.parametrize("jwks", [{"keys": []}, {"keys": 7}, {}, [], None])
async def test_without_the_announced_keys_id_tokens_are_rejected(
    jwks: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with Keyless(openid=True) as sso, browsing(sso, None) as browser:
        sso.key_set = jwks
        why = await sign_in(sso, browser, caplog, "RS256", sso.keys[0], None)
        assert why == ("key" if jwks == {"keys": []} else "keys")


class Keyless(Provider):
    """An SSO with any key set."""

    key_set: Any = None

    def response_to(self, request: Any) -> Any:
        return (
            json_body(self.key_set) if request.target == "/jwks" else super().response_to(request)
        )
