"""Checks by the grammar of its media type whether a body without an announced end is complete.

A response framed only by the end of the connection may have been truncated anywhere (RFC 9112
section 8); JSON, XML and NDJSON documents show by themselves whether they are complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import orjson

from gateway import document_limits
from gateway.http.content_coding import DECODABLE, decode_body

# Bytes. Checking more than this would block the event loop for too long.
_MAX_INLINE_BYTES: Final = 256 * 1024
# Bytes. The longest content of a compressed body.
_MAX_CHECKED_BYTES: Final = 64 * 1024 * 1024


async def is_complete(content_type: str | None, coding: str | None, body: bytes) -> bool:
    """Return whether `body` is one complete document of its type.

    False where that cannot be determined.
    """
    if coding in DECODABLE:
        body = await asyncio.to_thread(decode_body, body, coding, _MAX_CHECKED_BYTES)
        if not body:
            # The body is truncated, or its content is too long or empty.
            return False
    elif coding is not None:
        return False
    media_type = (content_type or "").partition(";")[0].strip().lower()
    check = next((check for suffix, check in _CHECKS if media_type.endswith(suffix)), None)
    if check is None:
        return False
    if len(body) <= _MAX_INLINE_BYTES:
        return check(body)
    return await asyncio.to_thread(check, body)


def _is_json(body: bytes) -> bool:
    if document_limits.exceeds_tree_limit(body, document_limits.MAX_TREE_BYTES, xml=False):
        return False
    try:
        value = orjson.loads(body.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError:
        return False
    # A number proves nothing: further digits could be missing.
    return not isinstance(value, int | float) or isinstance(value, bool)


def _is_ndjson(body: bytes) -> bool:
    # The last line must end with a line feed too, otherwise it may be the beginning of a longer
    # one. An empty body proves nothing: all lines could be missing.
    if not body.endswith(b"\n"):
        return False
    return all(_is_json(line) for line in body.split(b"\n") if line.strip())


def _is_xml(body: bytes) -> bool:
    # Imported here because most platforms never send XML.
    from xml.parsers import expat

    try:
        expat.ParserCreate().Parse(body, True)
    except (expat.ExpatError, LookupError, ValueError):
        return False
    return True


_CHECKS: Final[tuple[tuple[str, Callable[[bytes], bool]], ...]] = (
    ("ndjson", _is_ndjson),
    ("json", _is_json),
    ("xml", _is_xml),
)
