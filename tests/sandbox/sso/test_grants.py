"""Which tokens the platform takes."""

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


def test_its_own_tokens_are_good(key: RSAKey) -> None:
    """A token stands for its subject, until its lifetime is over."""
    tokens = authority(key)
    assert tokens.verify(tokens.issue("dr", "his")) == TokenBearer("dr", 60)


@pytest.mark.parametrize(
    ("issuer", "audience"), [("http://other.test", PLATFORM), (ISSUER, "http://other.test/fhir")]
)
def test_tokens_for_others_are_not(key: RSAKey, issuer: str, audience: str) -> None:
    """The same key signs for one issuer and one audience only."""
    token = authority(key, issuer, audience).issue("dr", "his")
    with pytest.raises(TokenError, match="another platform"):
        authority(key).verify(token)


def test_another_key_does_not_sign(key: RSAKey) -> None:
    """A token of another run is not a token of this SSO."""
    token = authority(new_key()).issue("dr", "his")
    with pytest.raises(TokenError, match="not a token"):
        authority(key).verify(token)


def test_another_algorithm_does_not_sign(key: RSAKey) -> None:
    """PS256 with the right key is refused: the algorithm is the server's choice (RFC 8725 3.1)."""
    claims = {"iss": ISSUER, "aud": PLATFORM, "sub": "dr", "exp": 1060}
    parameters = {k: v for k, v in key.as_dict(private=True).items() if k != "alg"}
    unbound = RSAKey.import_key(parameters)
    token = jwt.encode({"alg": "PS256"}, claims, unbound, algorithms=["PS256"])
    with pytest.raises(TokenError, match="not a token"):
        authority(key).verify(token)
