"""The last check before a text leaves the process: what must never be logged is masked.

Code that logs must not rely on it. It is here for texts that others make: exception messages that
quote a URL, tracebacks, the loop's own complaints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from gateway.secret import MASK as SECRET_MASK
from gateway.secret import Secret

MASK: Final = "***"

_MAX_DEPTH: Final = 8

# Neither inside a longer word (a request id may well hold 14 digits) nor missed after `%7C`.
_START: Final = r"(?:(?<![0-9A-Za-z])|(?<=%[0-9A-Fa-f]{2}))"
_END: Final = r"(?![0-9A-Za-z])"

_RULES: Final = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Authorization values and JWTs (RFC 6750, RFC 7617, RFC 7519).
        (r"(?i)\b(bearer|dpop)\s+[^\s\"']+", rf"\1 {MASK}"),
        (r"\bBasic\s+(?=[a-z]*[A-Z0-9+/=])[A-Za-z0-9+/]{6,}={0,2}", f"Basic {MASK}"),
        (r"\beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)*", MASK),
        # Fields of token requests and answers, as a form or as JSON (RFC 6749).
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
        *("authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api_key"),
        *("client_secret", "client_assertion", "access_token", "refresh_token", "id_token"),
        *("code_verifier", "password", "private_key", "encryption_key"),
    }
)


def mask_text(text: str) -> str:
    """The text without secrets, tokens, queries of URLs and patients' numbers."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def mask_patient_number(text: str) -> str:
    """The mask for a text that is nothing but a patient's number, else the text.

    For fields by which records are found again: a PINFL holds a date of birth, which tells it from
    other numbers of 14 digits, such as a time.
    """
    # Nearly all are longer, such as a UUID.
    return MASK if len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text) else text


# PINFL: sex and century, day, month and year of birth, seven more. Passport: two letters, seven.
_NUMBER: Final = re.compile(
    r"[1-6](?:0[1-9]|[12]\d|3[01])(?:0[1-9]|1[0-2])\d{9}|[A-Za-z]{2}-?\d{7}"
)
_LONGEST_NUMBER: Final = 14


def mask(value: object, depth: int = 0) -> object:
    """The value as plain JSON types, its texts masked; a `Secret` becomes its mask."""
    if isinstance(value, Secret):
        return SECRET_MASK
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        # As a number a PINFL is a PINFL too.
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
    """`mask` for a named value: under the name of a secret nothing is shown, not even a type."""
    return MASK if name.lower() in _SECRET_FIELDS else mask(value, depth)
