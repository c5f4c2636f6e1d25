"""The assertion that a client signs, checked by hand with the public key that is published."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from gateway.config.outbound_settings import CredentialSettings, SsoSettings
from gateway.oauth.client_authentication import JWT_BEARER, parse_client_keys
from gateway.oauth.grants import client_credentials_form
from gateway.oauth.token_endpoint import TokenEndpoint
from gateway.secret import Secret
from tests.doubles.clock import FakeClock
from tests.doubles.sso import ReceivedRequest, ScriptedResponse, Sso, oauth_error, token
from tests.oauth.harness import credential_of
from tests.oauth.test_signing_keys import KEYS, as_jwk, pem

CLIENT = "hospital 17"


@dataclass
class Assertion:
    """A JWT taken apart."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes
    signature: bytes

    @classmethod
    def of(cls, text: str) -> Assertion:
        head, claims, signature = text.split(".")
        return cls(
            json.loads(decoded(head)),
            json.loads(decoded(claims)),
            f"{head}.{claims}".encode(),
            decoded(signature),
        )


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def integer(part: str) -> int:
    return int.from_bytes(decoded(part), "big")


def verify(assertion: Assertion, public: dict[str, Any]) -> None:
    """Check a signature with a JWK; raises InvalidSignature (RFC 7518 sections 3.3 and 3.4)."""
    if public["kty"] == "RSA":
        numbers = rsa.RSAPublicNumbers(integer(public["e"]), integer(public["n"]))
        numbers.public_key().verify(
            assertion.signature, assertion.signed, padding.PKCS1v15(), SHA384()
        )
        return
    assert len(assertion.signature) == 96
    r, s = (
        int.from_bytes(half, "big") for half in (assertion.signature[:48], assertion.signature[48:])
    )
    point = ec.EllipticCurvePublicNumbers(
        integer(public["x"]), integer(public["y"]), ec.SECP384R1()
    )
    point.public_key().verify(encode_dss_signature(r, s), assertion.signed, ec.ECDSA(SHA384()))


async def token_requests(
    sso: Sso, text: str, clock: FakeClock, times: int = 1
) -> list[dict[str, str]]:
    (proof,) = parse_client_keys(CLIENT, Secret(text), clock.wall)
    form = client_credentials_form(CredentialSettings(client_id=CLIENT, scope="system/*.rs"))
    async with aiohttp.ClientSession() as session:
        endpoint = TokenEndpoint(
            session=session,
            sso=SsoSettings(token_url=sso.token_url),
            clock=clock,
            wall_clock=clock.wall,
        )
        for _ in range(times):
            await endpoint.request(proof.authenticate, form)
    return [request.form for request in sso.requests]


@pytest.mark.parametrize("algorithm", KEYS)
async def test_the_form_has_an_assertion_and_no_secret(sso: Sso, algorithm: str) -> None:
    """The form holds grant, scope, client and assertion, and no secret; no Authorization does.

    LemonLDAP::NG looks for the client by client_id.
    """
    (form,) = await token_requests(sso, pem(KEYS[algorithm]), FakeClock())
    assert form.pop("client_assertion").count(".") == 2
    assert form == {
        "grant_type": "client_credentials",
        "scope": "system/*.rs",
        "client_id": CLIENT,
        "client_assertion_type": JWT_BEARER,
    }
    assert "Authorization" not in sso.requests[0].headers


@pytest.mark.parametrize("algorithm", KEYS)
async def test_the_published_key_verifies_the_signature(sso: Sso, algorithm: str) -> None:
    (proof,) = parse_client_keys(CLIENT, Secret(pem(KEYS[algorithm])))
    (form,) = await token_requests(sso, pem(KEYS[algorithm]), FakeClock())
    assertion = Assertion.of(form["client_assertion"])
    assert proof.public_key is not None
    public = dict(proof.public_key)
    assert assertion.header == {"alg": algorithm, "typ": "JWT", "kid": public["kid"]}
    verify(assertion, public)
    assertion.signed += b"A"
    with pytest.raises(InvalidSignature):
        verify(assertion, public)


async def test_the_claims_are_those_of_rfc_7523(sso: Sso) -> None:
    clock = FakeClock(wall=1_900_000_000.9)
    (form,) = await token_requests(sso, pem(KEYS["ES384"]), clock)
    claims = Assertion.of(form["client_assertion"]).claims
    assert len(claims.pop("jti")) >= 22
    assert claims.pop("exp") - claims["iat"] <= 240
    assert claims == {"iss": CLIENT, "sub": CLIENT, "aud": sso.token_url, "iat": 1_900_000_000}


async def test_every_assertion_has_its_own_jti(sso: Sso) -> None:
    forms = await token_requests(sso, pem(KEYS["ES384"]), FakeClock(), times=20)
    claims = [Assertion.of(form["client_assertion"]).claims for form in forms]
    assert len({each["jti"] for each in claims}) == 20


async def test_assertions_follow_the_wall_clock(sso: Sso) -> None:
    clock = FakeClock()
    await token_requests(sso, pem(KEYS["ES384"]), clock)
    clock.jump_wall(86_400)
    await token_requests(sso, pem(KEYS["ES384"]), clock)
    first, second = (Assertion.of(each.form["client_assertion"]).claims for each in sso.requests)
    assert second["iat"] - first["iat"] == 86_400


class StrictSso(Sso):
    """Takes assertions for one audience, as zitadel/oidc does, whose audience is its issuer."""

    audience = ""

    def response_to(self, request: ReceivedRequest) -> ScriptedResponse:
        is_right = audience(request) == self.audience
        return token("granted") if is_right else oauth_error("invalid_client")


def audience(request: ReceivedRequest) -> str:
    return str(Assertion.of(request.form["client_assertion"]).claims["aud"])


@pytest.mark.parametrize("takes_issuer", [True, False])
async def test_the_issuer_is_the_audience_after_a_rejection(takes_issuer: bool) -> None:
    async with StrictSso() as sso, aiohttp.ClientSession() as session:
        issuer = f"{sso.token_url}/issuer/"
        sso.audience = issuer if takes_issuer else sso.token_url
        endpoint = TokenEndpoint(session=session, sso=SsoSettings(token_url=sso.token_url))
        keys = parse_client_keys(CLIENT, Secret(pem(KEYS["ES384"])), issuer=issuer)
        credential = credential_of(endpoint, keys, client=CLIENT, auth_method="private_key_jwt")
        for _ in range(2):
            assert (await credential.request()).access_token.reveal() == "granted"
        assert not credential.uses_previous_secret
        first = [sso.token_url] if takes_issuer else []
        assert [audience(each) for each in sso.requests] == [*first, *[sso.audience] * 2]


def test_repr_shows_no_key() -> None:
    jwk = as_jwk(KEYS["ES384"])
    (proof,) = parse_client_keys(CLIENT, Secret(json.dumps(jwk)))
    assert jwk["d"] not in repr(proof)
