"""Private keys in every supported format, and errors about others."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from gateway.errors import ClientKeyError
from gateway.oauth.signing_keys import SigningKey, read_keys

PrivateKey = Any
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP384R1())
KEYS = {"RS384": RSA, "ES384": EC}
FORMS = {
    "PKCS#8": PrivateFormat.PKCS8,
    "PKCS#1 or SEC1": PrivateFormat.TraditionalOpenSSL,
}


def pem(
    key: PrivateKey,
    form: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption | None = None,
) -> str:
    return key.private_bytes(Encoding.PEM, form, encryption or NoEncryption()).decode()


def public_pem(key: PrivateKey) -> str:
    made: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return made.decode()


def number(value: int, length: int | None = None) -> str:
    """Base64urlUInt (RFC 7518 section 2), or of a fixed length for curves."""
    size = length or (value.bit_length() + 7) // 8
    return base64.urlsafe_b64encode(value.to_bytes(size, "big")).decode().rstrip("=")


def as_jwk(key: PrivateKey, *, private: bool = True, **members: Any) -> dict[str, Any]:
    made: dict[str, Any]
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        public = numbers.public_numbers
        made = {"kty": "RSA", "n": number(public.n), "e": number(public.e)}
        secret = {"d": numbers.d, "p": numbers.p, "q": numbers.q, "dp": numbers.dmp1}
        secret |= {"dq": numbers.dmq1, "qi": numbers.iqmp}
        hidden = {name: number(value) for name, value in secret.items()}
    else:
        point = key.private_numbers()
        size = (key.curve.key_size + 7) // 8
        names = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
        made = {"kty": "EC", "crv": names[key.curve.name]}
        made["x"] = number(point.public_numbers.x, size)
        made["y"] = number(point.public_numbers.y, size)
        hidden = {"d": number(point.private_value, size)}
    return {**made, **(hidden if private else {}), **members}


def thumbprint(jwk: dict[str, Any]) -> str:
    needed = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y")}[jwk["kty"]]
    text = json.dumps({name: jwk[name] for name in needed}, separators=(",", ":"), sort_keys=True)
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def only(text: str) -> SigningKey:
    (key,) = read_keys(text)
    return key


def why(text: str) -> str:
    with pytest.raises(ClientKeyError) as caught:
        read_keys(text)
    return str(caught.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("algorithm", KEYS)
def test_a_pem_key_signs_by_its_kind(algorithm: str, form: str) -> None:
    key = only(pem(KEYS[algorithm], FORMS[form]))
    assert key.algorithm == algorithm
    assert key.kid == thumbprint(as_jwk(KEYS[algorithm]))


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_jwk_or_set_is_read(algorithm: str) -> None:
    jwk = as_jwk(KEYS[algorithm])
    public = as_jwk(KEYS["ES384"], private=False)
    for text in (json.dumps(jwk), json.dumps({"keys": [public, jwk]}), f"\n {json.dumps(jwk)}\n"):
        key = only(text)
        assert (key.algorithm, key.kid) == (algorithm, thumbprint(jwk))


@pytest.mark.parametrize("kid", ["hospital-17-2026", "k" * 256])
def test_the_kid_of_a_jwk_is_kept(kid: str) -> None:
    key = only(json.dumps(as_jwk(EC, kid=kid, alg="ES384", use="sig")))
    assert key.header == {"alg": "ES384", "typ": "JWT", "kid": kid}
    assert key.public["kid"] == kid


@pytest.mark.parametrize("kid", ["", "hospital\n17", "k" * 257])
def test_an_unusable_kid_of_a_jwk_is_replaced(kid: str) -> None:
    assert only(json.dumps(as_jwk(EC, kid=kid))).kid == thumbprint(as_jwk(EC))


@pytest.mark.parametrize("algorithm", KEYS)
def test_the_public_jwk_has_what_a_verifier_needs(algorithm: str) -> None:
    own = as_jwk(KEYS[algorithm], private=False)
    public = only(json.dumps(as_jwk(KEYS[algorithm]))).public
    assert public == {**own, "kid": thumbprint(own), "use": "sig", "alg": algorithm}
    assert public == only(pem(KEYS[algorithm])).public


def test_two_keys_are_read_in_order() -> None:
    for text in (pem(EC) + pem(RSA), json.dumps({"keys": [as_jwk(EC), as_jwk(RSA)]})):
        assert [key.algorithm for key in read_keys(text)] == ["ES384", "RS384"]
    assert len(read_keys(pem(EC) + pem(EC, PrivateFormat.TraditionalOpenSSL))) == 1


def test_material_does_not_hang_on_the_form() -> None:
    """Replicas that have the same key in another form derive the same keys from it."""
    texts = (pem(RSA), pem(RSA, PrivateFormat.TraditionalOpenSSL), json.dumps(as_jwk(RSA)))
    assert len({only(text).material.reveal() for text in texts}) == 1


def test_nothing_secret_is_shown() -> None:
    jwk = as_jwk(EC)
    assert jwk["d"] not in repr(only(json.dumps(jwk)))
    for broken in ({**jwk, "y": jwk["d"]}, {**jwk, "crv": jwk["d"]}, {**jwk, "alg": jwk["d"]}):
        assert jwk["d"] not in why(json.dumps(broken))


UNUSABLE = {
    "text": ("secret", "neither PEM nor a JWK"),
    "list": ("[]", "neither PEM nor a JWK"),
    "broken JSON": ("{", "not valid JSON"),
    "empty object": ("{}", "no key"),
    "no set": ('{"keys": 1}', "not a JWK set"),
    "empty set": ('{"keys": []}', "no key"),
    "texts in a set": ('{"keys": ["a"]}', "not a JWK set"),
    "public PEM": (public_pem(RSA), "a public key"),
    "public JWK": (json.dumps(as_jwk(RSA, private=False)), "only public keys"),
    "certificate": ("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----", "certificate"),
    "shared secret": ('{"kty": "oct", "k": "AAAA"}', "a shared secret"),
    "shared secret with d": ('{"kty": "oct", "k": "AAAA", "d": "A"}', "neither an RSA nor an EC"),
    "encrypted PKCS#8": (pem(RSA, encryption=BestAvailableEncryption(b"x")), "encrypted"),
    "encrypted PKCS#1": (
        pem(RSA, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"x")),
        "encrypted",
    ),
    "OpenSSH": (pem(EC, PrivateFormat.OpenSSH), "ssh-keygen"),
    "cut off": (pem(RSA)[:600] + "\n-----END PRIVATE KEY-----", "broken"),
    "P-256": (pem(ec.generate_private_key(ec.SECP256R1())), "secp256r1"),
    "P-256 as JWK": (json.dumps(as_jwk(ec.generate_private_key(ec.SECP256R1()))), "P-256"),
    "P-521": (pem(ec.generate_private_key(ec.SECP521R1())), "secp521r1"),
    "Ed25519": (pem(ed25519.Ed25519PrivateKey.generate()), "neither an RSA nor an EC"),
    "DSA": (pem(dsa.generate_private_key(1024)), "neither an RSA nor an EC"),  # noqa: S505 - refused
    "short RSA": (pem(rsa.generate_private_key(65537, 1024)), "1024 bits"),  # noqa: S505 - refused
    "short RSA as JWK": (
        json.dumps(as_jwk(rsa.generate_private_key(65537, 1024))),  # noqa: S505 - refused
        "1024 bits",
    ),
    "broken d": (json.dumps(as_jwk(EC, d="!!")), "missing or broken"),
    "foreign y": (json.dumps(as_jwk(EC, y=as_jwk(EC)["x"])), "missing or broken"),
    "no n": (json.dumps({**as_jwk(RSA), "n": None}), "missing or broken"),
    "other alg": (json.dumps(as_jwk(RSA, alg="RS256")), "`alg` is not RS384"),
    "for encryption": (json.dumps(as_jwk(RSA, use="enc")), "do not permit signing"),
    "for verifying": (json.dumps(as_jwk(RSA, key_ops=["verify"])), "do not permit signing"),
    "odd kid": (json.dumps(as_jwk(RSA, kid=["a"])), "missing or broken"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_keys_are_refused_with_a_reason(case: str) -> None:
    text, reason = UNUSABLE[case]
    assert reason in why(text)
