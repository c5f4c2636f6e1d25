"""Validation of access tokens."""

from __future__ import annotations

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from gateway.sandbox.sso.grants import TokenAuthority, TokenBearer, TokenError, new_key

ISSUER, PLATFORM = "http://sso.test", "http://platform.test/fhir"


@pytest.fixture(scope="module")
def key() -> RSAKey:
    """One key for all tests of this module."""
    return new_key()


def authority(key: RSAKey, issuer: str = ISSUER, audience: str = PLATFORM) -> TokenAuthority:
    """An authority whose clock stands at 1000."""
    return TokenAuthority(key, issuer=issuer, audience=audience, lifetime=60, clock=lambda: 1000)


def test_a_token_is_valid_until_its_expiry(key: RSAKey) -> None:
    tokens = authority(key)
    assert tokens.verify(tokens.issue("dr", "his")) == TokenBearer("dr", 60)


@pytest.mark.parametrize(
    ("issuer", "audience"), [("http://other.test", PLATFORM), (ISSUER, "http://other.test/fhir")]
)
def test_tokens_of_another_issuer_or_audience_are_rejected(
    key: RSAKey, issuer: str, audience: str
) -> None:
    token = authority(key, issuer, audience).issue("dr", "his")
    with pytest.raises(TokenError, match="another platform"):
        authority(key).verify(token)


def test_tokens_of_another_key_are_rejected(key: RSAKey) -> None:
    token = authority(new_key()).issue("dr", "his")
    with pytest.raises(TokenError, match="not a token"):
        authority(key).verify(token)


def test_tokens_of_another_algorithm_are_rejected(key: RSAKey) -> None:
    """PS256 with the right key is refused: the algorithm is the server's choice (RFC 8725 3.1)."""
    claims = {"iss": ISSUER, "aud": PLATFORM, "sub": "dr", "exp": 1060}
    parameters = {k: v for k, v in key.as_dict(private=True).items() if k != "alg"}
    unbound = RSAKey.import_key(parameters)
    token = jwt.encode({"alg": "PS256"}, claims, unbound, algorithms=["PS256"])
    with pytest.raises(TokenError, match="not a token"):
        authority(key).verify(token)
