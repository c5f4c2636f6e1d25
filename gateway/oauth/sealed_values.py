"""Encrypts tokens and sessions that are stored outside of this process.

The storage key is the associated data: a ciphertext that was copied to another key is rejected.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.secret import Secret

# Part of the input of the key derivation: ciphertexts of another schema cannot be decrypted and are
# treated as missing.
_SCHEMA: Final = 1
_NONCE_BYTES: Final = 12


class ValueCipher:
    """Encrypts and decrypts the JSON object that is stored under `storage_key`.

    The keys for AES-256-GCM and for digests are derived (HKDF, RFC 5869) from `material`, and from
    `salt` if it is given: then neither of them alone decrypts anything. Ciphertexts of different
    `purpose`s have different keys.
    """

    def __init__(
        self, purpose: str, storage_key: str, material: Secret, salt: Secret | None = None
    ) -> None:
        self._context = storage_key.encode()
        info = f"dhp-gateway {purpose} {_SCHEMA} {storage_key}".encode()
        derived = HKDF(
            SHA256(), length=64, salt=None if salt is None else salt.reveal().encode(), info=info
        )
        # The material of a session is a value that the browser sent, which may contain surrogates
        # that UTF-8 cannot encode.
        keys = derived.derive(material.reveal().encode("utf-8", "surrogatepass"))
        self._cipher = AESGCM(keys[:32])
        self._digest_key = keys[32:]

    def encrypt(self, plain: Mapping[str, Any]) -> bytes:
        """Return the nonce and the ciphertext of a JSON object."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, json.dumps(plain).encode(), self._context)

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

    def digest(self, value: str) -> bytes:
        """Return the HMAC-SHA256 by which values are compared without revealing them."""
        return hmac.digest(self._digest_key, value.encode(), hashlib.sha256)
