"""Reads and validates the private keys of `private_key_jwt` and returns their public JWKs.

SMART Backend Services requires RS384 or ES384; the type of the key decides between them. The module
is slow to import and is imported only where a key is used.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from joserfc import jwk, jwt
from joserfc.errors import JoseError

from gateway.errors import ClientKeyError
from gateway.i18n import EMPTY_MESSAGE, Message
from gateway.secret import Secret

_MIN_RSA_BITS: Final = 2048  # RFC 7518 section 3.3
_PEM: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_KINDS: Final = Message("use an RSA key of at least 2048 bits, or an EC key of the curve P-384")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and its signature algorithm.

    `kid` is that of the JWK if it has a usable one, else the thumbprint of RFC 7638. `public` is
    the JWK to register with the SSO, without private members.
    """

    algorithm: str
    kid: str
    public: Mapping[str, Any]
    _key: jwk.RSAKey | jwk.ECKey = field(repr=False)

    @property
    def header(self) -> dict[str, str]:
        """The header of the JWTs that this key signs."""
        return {"alg": self.algorithm, "typ": "JWT", "kid": self.kid}

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a signed JWT (RFC 7519) in compact serialization."""
        return jwt.encode(self.header, dict(claims), self._key, algorithms=[self.algorithm])

    @property
    def fingerprint(self) -> str:
        """The thumbprint of the key (RFC 7638)."""
        return self._key.thumbprint()

    @property
    def material(self) -> Secret:
        """The private key as Base64 of PKCS#8 DER, whatever the format of its file.

        Raises `ClientKeyError` if the key has no private part.
        """
        key = self._key.private_key
        if key is None:
            raise ClientKeyError(Message("has no private part"))
        der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return Secret(base64.b64encode(der).decode())


def read_keys(text: str) -> tuple[SigningKey, ...]:
    """Return the private keys of a PEM text, a JWK or a JWK set, in their order; at least one.

    PEM may be PKCS#1, PKCS#8 or SEC1. Duplicates, and public keys beside private ones, are skipped.
    Raises `ClientKeyError`.
    """
    keys = _from_json(text) if text.lstrip().startswith("{") else _from_pem(text)
    return tuple({key.fingerprint: key for key in keys}.values())


def _from_pem(text: str) -> list[SigningKey]:
    blocks = [(found[1], found[0]) for found in _PEM.finditer(text)]
    private = [(label, block) for label, block in blocks if label.endswith("PRIVATE KEY")]
    if not blocks:
        raise ClientKeyError(Message("is neither PEM nor a JWK"))
    if not private:
        is_certificate = blocks[0][0] == "CERTIFICATE"
        what = Message("a certificate") if is_certificate else Message("a public key")
        raise ClientKeyError(Message("contains {what}; the private key is needed", what=what))
    return [_from_block(*labelled_block) for labelled_block in private]


def _from_block(label: str, block: str) -> SigningKey:
    if "ENCRYPTED" in label or "\nProc-Type: 4,ENCRYPTED" in block.replace("\r", ""):
        raise ClientKeyError(
            Message("is encrypted; store it without a passphrase, readable for the gateway only")
        )
    if label == "OPENSSH PRIVATE KEY":
        raise ClientKeyError(
            Message("is in OpenSSH's own format; convert it with ssh-keygen -p -m PEM")
        )
    try:
        key = load_pem_private_key(block.encode(), password=None)
    except Exception:  # the text of any exception may quote the key
        raise ClientKeyError(
            Message("contains a PEM block that is broken or of an unknown kind")
        ) from None
    if isinstance(key, RSAPrivateKey):
        _require_bits(key.key_size)
        return _rsa(jwk.RSAKey.import_key(key))
    if isinstance(key, EllipticCurvePrivateKey):
        return _ec(jwk.ECKey.import_key(key), isinstance(key.curve, SECP384R1), key.curve.name)
    raise ClientKeyError(Message("is neither an RSA nor an EC key; {kinds}", kinds=_KINDS))


def _from_json(text: str) -> list[SigningKey]:
    try:
        value = json.loads(text)
    except ValueError:
        raise ClientKeyError(Message("is not valid JSON")) from None
    members = value.get("keys") if "keys" in value else [value]
    if not isinstance(members, list) or not all(isinstance(key, dict) for key in members):
        raise ClientKeyError(Message("is not a JWK set: `keys` must be a list of JWKs"))
    private = [key for key in members if "d" in key]
    if not private:
        symmetric = any(key.get("kty") == "oct" for key in members)
        public = any("kty" in key for key in members)
        what = Message("only public keys") if public else Message("no key")
        what = Message("a shared secret") if symmetric else what
        raise ClientKeyError(Message("contains {what}; the private key is needed", what=what))
    return [_from_jwk(key) for key in private]


def _from_jwk(members: dict[str, Any]) -> SigningKey:
    kty = members.get("kty")
    if kty not in ("RSA", "EC"):
        raise ClientKeyError(Message("is neither an RSA nor an EC key; {kinds}", kinds=_KINDS))
    if isinstance(modulus := members.get("n"), str):
        _require_bits(len(modulus) * 6 // 8 * 8)
    try:
        key = jwk.RSAKey.import_key(members) if kty == "RSA" else jwk.ECKey.import_key(members)
    except Exception:  # the text of any exception may quote the key
        raise ClientKeyError(Message("is a JWK with missing or broken members")) from None
    signing_key = (
        _rsa(key)
        if isinstance(key, jwk.RSAKey)
        else _ec(key, members.get("crv") == "P-384", str(members.get("crv")))
    )
    _require_purpose(members, signing_key.algorithm)
    return signing_key


def _require_purpose(members: Mapping[str, Any], algorithm: str) -> None:
    """Raise `ClientKeyError` unless `alg`, `use` and `key_ops` (RFC 7517 section 4) allow signing.

    `alg` must be `algorithm` where it is present.
    """
    if members.get("alg", algorithm) != algorithm:
        raise ClientKeyError(
            Message(
                "is a JWK whose `alg` is not {algorithm}, which this kind signs by",
                algorithm=algorithm,
            )
        )
    operations = members.get("key_ops", ["sign"])
    if members.get("use", "sig") != "sig" or "sign" not in operations:
        raise ClientKeyError(Message("is a JWK whose `use` or `key_ops` do not permit signing"))


def _require_bits(bits: int) -> None:
    if bits < _MIN_RSA_BITS:
        raise ClientKeyError(
            Message("is an RSA key of {bits} bits; {kinds}", bits=bits, kinds=_KINDS)
        )


def _rsa(key: jwk.RSAKey) -> SigningKey:
    return _signing_key("RS384", key, ("kty", "n", "e"))


def _ec(key: jwk.ECKey, is_p384: bool, curve: str) -> SigningKey:
    if not is_p384:
        # The name of the curve comes from the file and may be any text: show only a plausible one.
        known = re.fullmatch(r"[A-Za-z0-9-]{1,20}", curve) is not None
        named = (
            Message("{space}of the curve {curve}", space=" ", curve=curve)
            if known
            else EMPTY_MESSAGE
        )
        raise ClientKeyError(
            Message(
                "is an EC key{named}, which ES384 cannot use; {kinds}", named=named, kinds=_KINDS
            )
        )
    return _signing_key("ES384", key, ("kty", "crv", "x", "y"))


def _signing_key(algorithm: str, key: jwk.RSAKey | jwk.ECKey, members: Sequence[str]) -> SigningKey:
    try:
        everything = key.as_dict(private=False)
        kid = everything.get("kid")
        has_usable_kid = isinstance(kid, str) and 0 < len(kid) <= 256 and kid.isprintable()
        kid = str(kid) if has_usable_kid else key.thumbprint()
        public = {name: everything[name] for name in members}
    except (JoseError, KeyError, ValueError):
        raise ClientKeyError(Message("is a JWK with missing or broken members")) from None
    return SigningKey(algorithm, kid, {**public, "kid": kid, "use": "sig", "alg": algorithm}, key)
