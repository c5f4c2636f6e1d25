"""Encrypts tokens and sessions that are stored outside of this process.

The storage key is the associated data: a ciphertext that was copied to another key is rejected.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if TYPE_CHECKING:
    from gateway.secret import Secret

# Part of the input of the key derivation: ciphertexts of another schema cannot be decrypted and are
# treated as missing.
_SCHEMA: Final = 1
_NONCE_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class EncryptedToken:
    """The stored form of a token: its ciphertext, and the digest that identifies it."""

    ciphertext: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class TokenPayload:
    """The plaintext of a stored token; `lifetime` is in seconds from the token request."""

    value: str
    lifetime: float
    scope: str | None = None

    def __repr__(self) -> str:
        return "TokenPayload(…)"


class SessionCipher:
    """Encrypts the data of one user with a secret that only the user's browser holds.

    The AES-256-GCM key is derived (HKDF, RFC 5869) from `material`, which must be random, and from
    `key`, a secret of the gateway, if given: then neither of them alone decrypts anything.
    `storage_key` also serves as associated data.
    """

    def __init__(self, material: Secret, storage_key: str, key: Secret | None = None) -> None:
        self._context = storage_key.encode()
        salt = None if key is None else key.reveal().encode()
        info = f"dhp-gateway session {_SCHEMA} {storage_key}".encode()
        derived = HKDF(SHA256(), length=32, salt=salt, info=info)
        # The secret is a value that the browser sent, which may contain surrogates that UTF-8
        # cannot encode.
        self._cipher = AESGCM(derived.derive(material.reveal().encode("utf-8", "surrogatepass")))

    def encrypt(self, plain: Mapping[str, Any]) -> bytes:
        """Return the nonce and the ciphertext of a JSON object."""
        nonce = os.urandom(_NONCE_BYTES)
        text = json.dumps(plain).encode()
        return nonce + self._cipher.encrypt(nonce, text, self._context)

    def decrypt(self, ciphertext: bytes) -> dict[str, Any] | None:
        """Return the JSON object, or None if it was not encrypted with these secrets and key."""
        try:
            text = self._cipher.decrypt(
                ciphertext[:_NONCE_BYTES], ciphertext[_NONCE_BYTES:], self._context
            )
            plain = json.loads(text)
        except (InvalidTag, ValueError):
            return None
        return plain if isinstance(plain, dict) else None


class TokenCipher:
    """Encrypts and decrypts the token of the entry `storage_key`.

    The keys for AES-256-GCM and for the digest are derived from `material` (HKDF, RFC 5869). The
    digest of a token is its HMAC-SHA256, so that tokens can be compared without revealing them.
    """

    def __init__(self, material: Secret, storage_key: str) -> None:
        self._context = storage_key.encode()
        info = f"dhp-gateway token store {_SCHEMA} {storage_key}".encode()
        derived = HKDF(SHA256(), length=64, salt=None, info=info)
        keys = derived.derive(material.reveal().encode())
        self._cipher = AESGCM(keys[:32])
        self._digest_key = keys[32:]

    def encrypt(self, payload: TokenPayload) -> EncryptedToken:
        """Encrypt a token. Encrypting it twice gives different ciphertexts, but the same digest."""
        plain = {"value": payload.value, "lifetime": payload.lifetime, "scope": payload.scope}
        nonce = os.urandom(_NONCE_BYTES)
        encrypted = self._cipher.encrypt(nonce, json.dumps(plain).encode(), self._context)
        return EncryptedToken(nonce + encrypted, self.token_digest(payload.value))

    def decrypt(self, ciphertext: bytes) -> TokenPayload | None:
        """Return the token, or None if it was not encrypted with this secret and key."""
        try:
            plain = self._cipher.decrypt(
                ciphertext[:_NONCE_BYTES], ciphertext[_NONCE_BYTES:], self._context
            )
            return _payload(json.loads(plain))
        except (InvalidTag, ValueError, KeyError, TypeError):
            return None

    def token_digest(self, value: str) -> bytes:
        """Return the digest (HMAC-SHA256) of a token."""
        return hmac.digest(self._digest_key, value.encode(), hashlib.sha256)


def _payload(plain: Any) -> TokenPayload:
    return TokenPayload(str(plain["value"]), float(plain["lifetime"]), plain["scope"])
