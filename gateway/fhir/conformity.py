"""Whether a platform's answer is FHIR at all: a proxy's error page must not pass for data."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_HTML: Final = frozenset(("text/html", "application/xhtml+xml"))
# The beginning of a page whose type was not told or was told wrongly.
# Possessive: a body of many comments must not make it try them in every combination.
_LOOKS_LIKE_HTML: Final = re.compile(
    rb"\s*+(?:<!--(?:[^-]|-(?!->))*+-->\s*+)*+<(?:!doctype\s+html|html)\b", re.IGNORECASE
)
_FHIR_XML: Final = b"http://hl7.org/fhir"


@lru_cache(maxsize=256)
def media_type(content_type: str | None) -> str:
    """The type without parameters, in lower case; "" when there is none."""
    return (content_type or "").partition(";")[0].strip().lower()


def is_fhir_type(kind: str) -> bool:
    """Whether a media type can hold FHIR: JSON, XML or NDJSON in any of their names."""
    return kind.endswith(("json", "xml")) and kind not in _HTML


def is_error_page(kind: str, body: bytes, accept: str | None) -> bool:
    """Whether the body of an error answer is neither FHIR nor of a type that was asked for.

    `body` is what has arrived of it, at least its beginning; "" counts as an error page too.
    """
    if not is_fhir_type(kind) or _LOOKS_LIKE_HTML.match(body):
        return not (body and _is_asked_for(kind, accept))
    if kind.endswith("json"):
        return b'"resourceType"' not in body
    return _FHIR_XML not in body


def is_page(kind: str, body: bytes, accept: str | None) -> bool:
    """Whether a successful answer is a web page, such as a sign-in form, nobody asked for."""
    # JSON, as nearly all answers are, is told from a page by its first byte.
    looks_so = not body.startswith(b"{") and _LOOKS_LIKE_HTML.match(body) is not None
    is_html = looks_so or kind in _HTML
    return is_html and not _is_asked_for(kind, accept)


def _is_asked_for(kind: str, accept: str | None) -> bool:
    """Whether Accept names the type or its family; `*/*` asks for nothing in particular."""
    if not kind or not accept:
        return False
    ranges = {each.partition(";")[0].strip().lower() for each in accept.split(",")}
    return kind in ranges or f"{kind.partition('/')[0]}/*" in ranges
