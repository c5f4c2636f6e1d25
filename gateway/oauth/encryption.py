"""What is kept outside of this process is sealed: encrypted, and bound to its place there."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.secret import Secret

# Part of what keys are derived from: tokens of another schema are as good as none.
_SCHEMA: Final = 1
_NONCE: Final = 12


@dataclass(frozen=True, slots=True)
class EncryptedToken:
    """What is kept of a token: its ciphertext, and a mark that tells it from other tokens."""

    ciphertext: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class TokenPayload:
    """What is sealed; `lifetime` is in seconds from the moment the token was asked for."""

    value: str
    lifetime: float
    scope: str | None = None

    def __repr__(self) -> str:
        return "Content(…)"


class SessionCipher:
    """Seals what belongs to one person, by a secret that only that person's browser holds.

    The key is derived from `material`, which has to be random (HKDF, RFC 5869), and, if given, from
    the gateway's own `key` too, so that neither opens anything alone. AES-256-GCM encrypts.
    """

    def __init__(self, material: Secret, place: str, key: Secret | None = None) -> None:
        self._context = place.encode()
        salt = None if key is None else key.reveal().encode()
        info = f"dhp-gateway session {_SCHEMA} {place}".encode()
        derived = HKDF(SHA256(), length=32, salt=salt, info=info)
        # What a browser shows may be anything, even what no UTF-8 is made of.
        self._cipher = AESGCM(derived.derive(material.reveal().encode("utf-8", "surrogatepass")))

    def encrypt(self, plain: Mapping[str, Any]) -> bytes:
        """Seal a JSON object."""
        nonce = os.urandom(_NONCE)
        text = json.dumps(plain).encode()
        return nonce + self._cipher.encrypt(nonce, text, self._context)

    def decrypt(self, ciphertext: bytes) -> dict[str, Any] | None:
        """The object, or None when this is not what was sealed here with the same secrets."""
        try:
            text = self._cipher.decrypt(ciphertext[:_NONCE], ciphertext[_NONCE:], self._context)
            plain = json.loads(text)
        except (InvalidTag, ValueError):
            return None
        return plain if isinstance(plain, dict) else None


class TokenCipher:
    """Seals and opens for one place with keys derived from `material` (HKDF, RFC 5869).

    AES-256-GCM encrypts; an HMAC-SHA256 of the token serves as its mark, so that who compares marks
    need not know the token.
    """

    def __init__(self, material: Secret, place: str) -> None:
        self._context = place.encode()
        info = f"dhp-gateway token store {_SCHEMA} {place}".encode()
        derived = HKDF(SHA256(), length=64, salt=None, info=info)
        keys = derived.derive(material.reveal().encode())
        self._cipher = AESGCM(keys[:32])
        self._mark_key = keys[32:]

    def encrypt(self, content: TokenPayload) -> EncryptedToken:
        """Seal a token; twice the same token gives different ciphertexts and one mark."""
        plain = {"value": content.value, "lifetime": content.lifetime, "scope": content.scope}
        nonce = os.urandom(_NONCE)
        encrypted = self._cipher.encrypt(nonce, json.dumps(plain).encode(), self._context)
        return EncryptedToken(nonce + encrypted, self.token_digest(content.value))

    def decrypt(self, ciphertext: bytes) -> TokenPayload | None:
        """The token, or None when this is not what was sealed here with the same secret."""
        try:
            plain = self._cipher.decrypt(ciphertext[:_NONCE], ciphertext[_NONCE:], self._context)
            return _content(json.loads(plain))
        except (InvalidTag, ValueError, KeyError, TypeError):
            return None

    def token_digest(self, value: str) -> bytes:
        """The mark of a token."""
        return hmac.digest(self._mark_key, value.encode(), hashlib.sha256)


def _content(plain: Any) -> TokenPayload:
    return TokenPayload(str(plain["value"]), float(plain["lifetime"]), plain["scope"])
