"""Whether a body without an announced end is whole, judged by its own grammar.

An answer framed only by the end of the connection may have been cut anywhere (RFC 9112 section 8);
JSON, XML and NDJSON tell by themselves whether they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import orjson

from gateway.fhir import weight
from gateway.http.content_coding import DECODABLE, decode_body

# Checking more than this at once would hold up the event loop.
_INLINE: Final = 256 * 1024
# What a compressed body may become.
_MAX_CHECKED_BYTES: Final = 64 * 1024 * 1024


async def is_complete(content_type: str | None, coding: str | None, body: bytes) -> bool:
    """Whether `body` is one complete document of its type; False where that cannot be told."""
    if coding in DECODABLE:
        body = await asyncio.to_thread(decode_body, body, coding, _MAX_CHECKED_BYTES)
        if not body:
            # It was cut or is too long, if it is not just empty.
            return False
    elif coding is not None:
        return False
    check = _checker((content_type or "").partition(";")[0].strip().lower())
    if check is None:
        return False
    if len(body) <= _INLINE:
        return check(body)
    return await asyncio.to_thread(check, body)


def _checker(media_type: str) -> Callable[[bytes], bool] | None:
    if media_type.endswith("ndjson"):
        return _is_ndjson
    if media_type.endswith("json"):
        return _is_json
    return _is_xml if media_type.endswith("xml") else None


def _is_json(body: bytes) -> bool:
    if weight.exceeds_tree_limit(body, weight.MAX_TREE_BYTES, xml=False):
        return False
    try:
        value = orjson.loads(body.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError:
        return False
    # A number tells nothing: it could have had more digits.
    return not isinstance(value, int | float) or isinstance(value, bool)


def _is_ndjson(body: bytes) -> bool:
    # The last line ends with a line feed too, or it may be the beginning of a longer one. Of an
    # end right behind the header nobody can tell what it cut.
    if not body.endswith(b"\n"):
        return False
    return all(_is_json(line) for line in body.split(b"\n") if line.strip())


def _is_xml(body: bytes) -> bool:
    # Most platforms never send any.
    from xml.parsers import expat

    try:
        expat.ParserCreate().Parse(body, True)
    except (expat.ExpatError, LookupError, ValueError):
        return False
    return True
