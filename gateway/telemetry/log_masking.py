"""The last check before a text leaves the process: masks what must never be logged.

Code that logs must not rely on it. It exists for texts from libraries: exception messages that
quote a URL, tracebacks, messages of the event loop.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from gateway.secret import MASK as SECRET_MASK
from gateway.secret import Secret

MASK: Final = "***"

_MAX_DEPTH: Final = 8

# A match must not lie within a longer word (a request id may contain 14 digits), but a number after
# a percent-encoded character such as `%7C` must be found.
_START: Final = r"(?:(?<![0-9A-Za-z])|(?<=%[0-9A-Fa-f]{2}))"
_END: Final = r"(?![0-9A-Za-z])"

_RULES: Final = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Authorization values and JWTs (RFC 6750, RFC 7617, RFC 7519). `Basic` before a word in
        # lower case is no Authorization value but part of a sentence.
        (r"(?i)\b(bearer|dpop)\s+[^\s\"']+", rf"\1 {MASK}"),
        (r"\bBasic\s+(?=[a-z]*[A-Z0-9+/=])[A-Za-z0-9+/]{6,}={0,2}", f"Basic {MASK}"),
        (r"\beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)*", MASK),
        # Fields of token requests and responses, as a form or as JSON (RFC 6749).
        (
            r"(?i)\b(client_secret|client_assertion|access_token|refresh_token|id_token|code_verifier"
            r"|password)(=|[\"']\s*:\s*[\"']?)[^\s\"'&,;}]+",
            rf"\1\2{MASK}",
        ),
        # URLs: user information and query.
        (r"(?<=://)[^\s/@?#]+@", f"{MASK}@"),
        (r"(?<=[^\s?])\?(?=[^\s=&'\"<>?]{1,128}=)[^\s'\"<>]*", f"?{MASK}"),
        # Patients' numbers: PINFL and passport.
        (rf"{_START}[1-6]\d{{13}}{_END}", MASK),
        (rf"{_START}[A-Z]{{2}}\d{{7}}{_END}", MASK),
    )
)


_SECRET_FIELDS: Final = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
        "api_key",
        "client_secret",
        "client_assertion",
        "access_token",
        "refresh_token",
        "id_token",
        "code_verifier",
        "password",
        "private_key",
        "encryption_key",
    }
)


def mask_text(text: str) -> str:
    """Return the text without secrets, tokens, queries of URLs and patients' numbers."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def mask_patient_number(text: str) -> str:
    """Return the mask if the whole text is a patient's number, else the text.

    For fields by which records are correlated: a PINFL contains a date of birth, which
    distinguishes it from other numbers of 14 digits, such as a time.
    """
    # Nearly all texts are longer, such as a UUID.
    return MASK if len(text) <= _MAX_NUMBER_LENGTH and _NUMBER.fullmatch(text) else text


# PINFL: sex and century, day, month and year of birth, seven more digits. Passport: two letters,
# seven digits.
_NUMBER: Final = re.compile(
    r"[1-6](?:0[1-9]|[12]\d|3[01])(?:0[1-9]|1[0-2])\d{9}|[A-Za-z]{2}-?\d{7}"
)
_MAX_NUMBER_LENGTH: Final = 14


def mask(value: object, depth: int = 0) -> object:
    """Return the value as plain JSON types with masked texts; a `Secret` becomes its mask."""
    if isinstance(value, Secret):
        return SECRET_MASK
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        # A PINFL may also be sent as a number.
        return MASK if mask_text(str(value)) == MASK else value
    if isinstance(value, Mapping) and depth < _MAX_DEPTH:
        return {
            mask_text(str(key)): mask_field(str(key), item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset) and depth < _MAX_DEPTH:
        return [mask(item, depth + 1) for item in value]
    return mask_text(value if isinstance(value, str) else str(value))


def mask_field(name: str, value: object, depth: int = 0) -> object:
    """Return `mask` of a named value. Under the name of a secret even the type is masked."""
    return MASK if name.lower() in _SECRET_FIELDS else mask(value, depth)
