"""A value that must never be shown: client secrets, tokens, keys.

The type masks itself, so that logs, exception texts and reprs need no masking of their own.
"""

from __future__ import annotations

import hashlib
import hmac

MASK = "********"


class Secret:
    """Holds a secret text; `str`, `repr` and formatting return a mask.

    Equality is tested in constant time. Only `reveal` returns the text.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret text, for the code that sends it."""
        return self._value

    def fingerprint(self) -> str:
        """Return the first 12 hexadecimal digits of the SHA-256.

        They distinguish values without showing them.
        """
        return hashlib.sha256(self._value.encode()).hexdigest()[:12]

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, format_spec: str) -> str:
        return format(MASK, format_spec)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret cannot be pickled")
